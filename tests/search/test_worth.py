"""Whether more time is worth it."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.test_choosing import trial

from autobackbone.search.worth import LEAST_GROWTH, recent_growth


def tuned(number, score, latency_ms=5.0, state="finished"):
    return replace(trial(number, score, latency_ms, state=state), n_unfrozen=2, finished_at_s=float(number))


FROZEN = trial(0, 0.5, 5.0)


def test_few_trainings_say_nothing():
    assert recent_growth([FROZEN, *(tuned(n, 0.8) for n in range(1, 16))], 1.0) is None
    assert recent_growth([FROZEN, *(tuned(n, 0.8) for n in range(1, 17))], 1.0) == 0.0


def test_what_the_later_half_adds_is_seen_whatever_the_orientation():
    early, late = [tuned(n, 0.8) for n in range(1, 9)], [tuned(n, 0.8) for n in range(9, 16)]
    last = tuned(16, 0.9)
    # From 0.1 below the worst to 0.8, then to 0.9: the corner lies as far below as the best is above.
    grown = recent_growth([FROZEN, *early, *late, last], 1.0)
    assert grown == pytest.approx(0.1 / 0.8)
    turned = [replace(one, score=-one.score) for one in (FROZEN, *early, *late, last)]
    assert recent_growth(turned, -1.0) == pytest.approx(grown)
    faster = tuned(16, 0.8, latency_ms=4.0)
    assert recent_growth([FROZEN, *early, *late, faster], 1.0) > LEAST_GROWTH


def test_stopped_trainings_count_as_tried_and_failed_ones_do_not():
    stopped = [tuned(n, 0.6, state="stopped") for n in range(9, 17)]
    assert recent_growth([FROZEN, *(tuned(n, 0.8) for n in range(1, 9)), *stopped], 1.0) == 0.0
    failed = [replace(one, state="failed") for one in stopped]
    assert recent_growth([FROZEN, *(tuned(n, 0.8) for n in range(1, 9)), *failed], 1.0) is None


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 4)), min_size=16, max_size=24))
def test_it_is_a_share(facts):
    trials = [tuned(n, score / 5, float(ms)) for n, (score, ms) in enumerate(facts, 1)]
    assert 0.0 <= recent_growth([FROZEN, *trials], 1.0) <= 1.0

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autobackbone.search.rungs import (
    Curve,
    Standing,
    gains,
    growth,
    is_hopeless,
    leading,
    plausible_gain,
    promotable,
    rungs,
)


def curve(number, scores, latency_ms=1.0, *, has_ended=False, noise_ms=0.0, n_epochs=None):
    return Curve(
        number=number,
        latency_ms=latency_ms,
        noise_ms=noise_ms,
        scores=tuple(scores),
        n_epochs=len(scores) if n_epochs is None else n_epochs,
        has_ended=has_ended,
    )


grades = st.integers(0, 4).map(float)
points = st.lists(st.tuples(grades, grades.map(lambda x: x + 1)), min_size=1, max_size=12)


@given(st.integers(1, 200))
def test_rungs_lie_below_the_end_and_leave_room_for_it(n_epochs):
    found = rungs(n_epochs)
    assert all(2 * rung <= n_epochs for rung in found)
    assert list(found) == [2**power for power in range(len(found))]
    assert 2 * 2 ** len(found) > n_epochs


@given(points, st.integers(0, 12))
def test_nobody_leads_who_is_beaten_by_one_that_does_not(pairs, n):
    curves = [curve(number, [score], latency) for number, (score, latency) in enumerate(pairs)]
    chosen = leading(curves, 1, n)
    assert len(chosen) == min(n, len(curves))
    for one in curves:
        for other in curves:
            beats = one.best() >= other.best() and one.latency_ms <= other.latency_ms
            is_better = beats and (one.best() > other.best() or one.latency_ms < other.latency_ms)
            if is_better and other.number in chosen:
                assert one.number in chosen


def test_a_slow_trial_does_not_stand_in_the_way_of_a_fast_one():
    curves = [curve(0, [0.9], 10.0), curve(1, [0.8], 1.0), curve(2, [0.7], 1.0), curve(3, [0.85], 10.0)]
    assert leading(curves, 1, 2) == {0, 1}


def test_who_has_gone_further_still_counts_at_the_rungs_below():
    curves = [curve(0, [0.5, 0.9]), curve(1, [0.6]), curve(2, [0.4])]
    assert leading(curves, 1, 1) == {1}
    assert promotable(curves, {1, 2}) == {1}
    assert leading(curves, 2, 1) == {0}


def test_half_of_a_rung_goes_on_and_at_the_last_call_at_least_one():
    curves = [curve(number, [0.1 * number]) for number in range(5)]
    assert promotable(curves[:1], {0}) == set()
    assert promotable(curves[:1], {0}, is_last_call=True) == {0}
    assert promotable(curves, set(range(5))) == {3, 4}
    assert promotable(curves, set(range(3))) == set()  # its half has gone on already
    assert promotable(curves, set(range(5)), is_last_call=True) == {2, 3, 4}


def test_frozen_networks_have_reached_no_rung():
    frozen = [curve(number, [0.9], has_ended=True, n_epochs=0) for number in (7, 8, 9)]
    assert leading(frozen, 1, 3) == set()
    assert promotable([*frozen, curve(0, [0.5])], {0}) == set()
    assert gains(frozen, 0) == []


def test_nothing_is_hopeless_before_gains_were_seen():
    best = [curve(0, [0.99], has_ended=True, n_epochs=0), curve(1, [0.5, 0.6], has_ended=True)]
    assert not is_hopeless(curve(2, [0.1]), best)
    assert math.isinf(plausible_gain([0.1, 0.1]))


def test_hopeless_is_what_cannot_catch_up_at_its_own_latency():
    ended = [curve(n, [0.80, 0.85 - 0.01 * n, 0.90 - 0.02 * n], has_ended=True) for n in range(3)]
    assert gains(ended, 1) == [pytest.approx(0.10), pytest.approx(0.08), pytest.approx(0.06)]
    assert gains(ended, 2) == [pytest.approx(0.05), pytest.approx(0.04), pytest.approx(0.03)]
    assert is_hopeless(curve(9, [0.69]), ended)
    assert not is_hopeless(curve(9, [0.71]), ended)
    # What is gained from a later rung counts there.
    assert is_hopeless(curve(9, [0.71, 0.79]), ended)
    # Faster than all that ended, or perhaps so: it may stand on the front whatever its score.
    assert not is_hopeless(curve(9, [0.1], 0.5), ended)
    assert is_hopeless(curve(9, [0.1], 0.9, noise_ms=0.2), ended)


@given(st.lists(st.floats(0, 1), min_size=3, max_size=20))
def test_what_was_seen_is_plausible(seen):
    assert plausible_gain(seen) >= max(seen)


@given(points, grades, grades.map(lambda x: x + 1))
def test_growth_is_nothing_exactly_where_a_trial_would_be_beaten(pairs, score, latency):
    ended = [curve(n, [s], ms, has_ended=True, n_epochs=0) for n, (s, ms) in enumerate(pairs)]
    low, high = curve(98, [score], latency), curve(99, [score + 1], latency)
    grown, grown_more = (growth(one, [*ended, low, high]) for one in (low, high))
    is_covered = any(s >= score and ms <= latency for s, ms in pairs)
    assert (grown < 1e-9) == is_covered
    assert grown >= -1e-9
    assert grown_more >= grown - 1e-9


def test_a_trial_is_expected_to_gain_what_others_gained_and_may_gain_or_else_what_it_gained_itself():
    frozen = curve(0, [0.5], has_ended=True, n_epochs=0)
    slower, paused = curve(1, [0.6, 0.6, 0.6, 0.7], 2.0), curve(2, [0.6, 0.65])
    # From two epochs to four another one gained a tenth, and pauses: it may gain as much again. So 0.85 is expected
    # instead of 0.5, from 1 ms to a tenth above 2 ms.
    assert growth(paused, [frozen, slower]) == pytest.approx(0.35 * 1.2)
    # Had it ended there, it would gain nothing more: 0.75 instead of 0.5 up to 2 ms, and of 0.7 from there on.
    ended = curve(1, [0.6, 0.6, 0.6, 0.7], 2.0, has_ended=True)
    assert growth(paused, [frozen, ended]) == pytest.approx(0.25 * 1.0 + 0.05 * 0.2)
    # Nobody went further: as much again as since the rung before.
    assert growth(paused, [frozen]) == pytest.approx(0.20 * 0.1)
    # Nothing is known of who has only begun, and an end is an end.
    assert growth(curve(3, [0.6]), [frozen]) == pytest.approx(0.10 * 0.1)
    assert growth(curve(4, [0.6, 0.7], has_ended=True), [frozen]) == 0.0


def test_who_leads_at_a_rung_is_expected_to_keep_its_lead():
    # Two of eight blocks, and four of eight: better at each epoch that both have trained, and not as far yet.
    frozen, shallow = curve(0, [0.82], has_ended=True, n_epochs=0), curve(1, [0.79, 0.85, 0.88, 0.92])
    deep = curve(2, [0.82, 0.91])
    every = [frozen, shallow, deep]
    assert growth(deep, every) > growth(shallow, every) > 0


trained = st.lists(
    st.tuples(st.lists(grades, min_size=1, max_size=4), grades.map(lambda x: x + 1), st.booleans(), st.floats(0, 1)),
    min_size=1,
    max_size=14,
)


@given(trained)
def test_what_is_computed_once_for_many_is_what_is_computed_for_each(rows):
    curves = [
        curve(n, scores, latency_ms, has_ended=has_ended, noise_ms=noise_ms)
        for n, (scores, latency_ms, has_ended, noise_ms) in enumerate(rows)
    ]
    standing = Standing(curves)
    for one in curves:
        assert standing.growth(one) == growth(one, curves)
        if not one.has_ended:
            end = one.best() + plausible_gain(gains(curves, one.n_epochs))
            by_definition = any(
                other.has_ended
                and other.best() > end
                and other.latency_ms - other.noise_ms <= one.latency_ms + one.noise_ms
                for other in curves
            )
            assert is_hopeless(one, curves) == by_definition


def test_of_many_some_are_hopeless():
    """The branch that the law above may not often reach."""
    ended = [curve(n, [0.8, 0.9], 2.0, has_ended=True) for n in range(3)]
    slow, fast, good = curve(3, [0.6], 2.0), curve(4, [0.6], 1.0), curve(5, [0.75], 2.0)
    standing = Standing([*ended, slow, fast, good])
    assert [standing.is_hopeless(one) for one in (slow, fast, good)] == [True, False, False]
    assert standing.is_hopeless(curve(6, [0.6], 1.5, noise_ms=0.5))

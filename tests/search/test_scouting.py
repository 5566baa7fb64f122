import itertools

import pytest

from autobackbone.records import Body
from autobackbone.search.rungs import Curve
from autobackbone.search.scouting import scouted

BODIES = [Body(f"net{number}", (96, 96)) for number in range(8)]
N_PICTURES = 200_000


class Looks:
    """Passes that take as long as told, and scores that are as told."""

    def __init__(self, scores, latencies=None):
        self.scores = dict(zip(BODIES, scores, strict=True))
        self.latencies = dict(zip(BODIES, latencies or [1.0] * len(BODIES), strict=True))
        self.looked, self.said = [], []

    def __call__(self, body, n):
        self.looked.append((body, n))
        score = self.scores[body]
        if score is None:
            return None
        number = len(self.looked)
        return Curve(number=number, latency_ms=self.latencies[body], scores=(score,), n_epochs=1, has_ended=True)

    def order(self, *, left_s, n_pictures=N_PICTURES, whole_s=100.0):
        return scouted(
            BODIES,
            n_pictures=n_pictures,
            pass_s=lambda _: whole_s,
            left_s=left_s,
            look=self,
            say=self.said.append,
        )


RISING = [0.1 * number for number in range(8)]


def test_where_all_fit_or_a_part_would_tell_nothing_the_order_stays():
    looks = Looks(RISING)
    assert looks.order(left_s=801.0) == BODIES
    assert looks.order(left_s=100.0, n_pictures=7_999) == BODIES
    # Not even two short looks fit.
    assert looks.order(left_s=10.0) == BODIES
    assert looks.looked == []
    assert looks.said == []


def test_the_part_grows_for_those_that_stay():
    looks = Looks(RISING)
    order = looks.order(left_s=790.0)
    by_round = {n: [body for body, m in looks.looked if m == n] for n in sorted({n for _, n in looks.looked})}
    sizes = list(by_round)
    assert sizes[0] >= 2_000
    assert all(larger == 4 * smaller for smaller, larger in itertools.pairwise(sizes))
    assert by_round[sizes[0]] == BODIES
    assert by_round[sizes[1]] == BODIES[4:]
    # Everybody is still there, the ones that stayed longest first, in the usual order among themselves.
    assert sorted(order) == sorted(BODIES)
    assert order[0] in BODIES[6:]
    assert set(order[:4]) == set(BODIES[4:])
    (line,) = looks.said
    assert "passes of all 8 pairs over 200,000 pictures would take about 800 s, and screening has 790 s" in line


@pytest.mark.parametrize("left_s", [100.0, 200.0, 400.0, 790.0])
def test_all_rounds_take_a_third_of_the_time_at_most(left_s):
    looks = Looks(RISING)
    looks.order(left_s=left_s)
    assert looks.looked
    assert sum(100.0 * n / N_PICTURES + 3.0 for _, n in looks.looked) <= left_s / 3


def test_who_had_no_time_to_be_looked_at_comes_before_who_was_beaten():
    looks = Looks(RISING)
    order = looks.order(left_s=40.0)
    n_seen = len({body for body, _ in looks.looked})
    assert 2 <= n_seen < 8
    unseen = BODIES[n_seen:]
    assert order[-n_seen // 2 :] == BODIES[: n_seen // 2]
    assert [body for body in order if body in unseen] == unseen


def test_a_faster_one_stays_with_a_lower_score():
    looks = Looks(RISING, latencies=[0.5, *[1.0] * 7])
    assert BODIES[0] in looks.order(left_s=400.0)[:4]


def test_who_could_not_be_scored_gets_its_turn():
    looks = Looks([None, *RISING[1:]])
    order = looks.order(left_s=400.0)
    assert sorted(order) == sorted(BODIES)
    assert BODIES[0] in order[:4]
    assert scouted_without_scores() == BODIES


def scouted_without_scores():
    return Looks([None] * 8).order(left_s=400.0)

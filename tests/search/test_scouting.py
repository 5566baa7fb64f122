import itertools

import pytest

from autobackbone.records import Body
from autobackbone.search.rungs import Curve
from autobackbone.search.scouting import Scouts, scouted

BODIES = [Body(f"net{number}", (96, 96)) for number in range(8)]
N_PICTURES = 200_000


class Looks:
    """Passes that take as long as told, and scores that are as told."""

    def __init__(self, scores, latencies=None, slowness=1.0):
        self.scores = dict(zip(BODIES, scores, strict=True))
        self.latencies = dict(zip(BODIES, latencies or [1.0] * len(BODIES), strict=True))
        self.slowness, self.spent_s = slowness, 0.0
        self.looked, self.said, self.allowed = [], [], []

    def look(self, body, n, seconds):
        self.looked.append((body, n))
        self.allowed.append(seconds)
        self.spent_s += self.slowness * (100.0 * n / N_PICTURES + 3.0)
        score = self.scores[body]
        if score is None:
            return None
        return Curve(number=len(self.looked), latency_ms=self.latencies[body], scores=(score,), n_epochs=1)

    def order(self, *, left_s, n_pictures=N_PICTURES, pass_s=lambda _: 100.0):
        scouts = Scouts(
            n_pictures=n_pictures,
            pass_s=pass_s,
            left_s=lambda: left_s - self.spent_s,
            look=self.look,
            say=self.said.append,
        )
        return scouted(BODIES, scouts)


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
    assert "passes of 8 pairs over 200,000 pictures would take about 800 s, and screening has 790 s" in line


@pytest.mark.parametrize("left_s", [200.0, 400.0, 790.0])
@pytest.mark.parametrize("slowness", [0.5, 1.0])
def test_all_rounds_take_a_third_of_the_time_at_most(left_s, slowness):
    looks = Looks(RISING, slowness=slowness)
    looks.order(left_s=left_s)
    assert looks.looked
    assert looks.spent_s <= left_s / 3
    assert all(seconds > 0 for seconds in looks.allowed)


def test_passes_that_take_far_longer_than_forecast_end_the_looking():
    looks = Looks(RISING, slowness=10.0)
    order = looks.order(left_s=400.0)
    assert sorted(order) == sorted(BODIES)
    # Each look is told how long it may take, and after the first one that used up all there is no other one.
    assert looks.spent_s - 10 * (100.0 * looks.looked[-1][1] / N_PICTURES + 3.0) < 400 / 3
    assert looks.allowed[0] == pytest.approx(400 / 3)
    assert looks.allowed == sorted(looks.allowed, reverse=True)


def test_who_had_no_time_to_be_looked_at_comes_last():
    looks = Looks(RISING, slowness=0.5)
    order = looks.order(left_s=60.0, pass_s=lambda _: 20.0)
    n_seen = len({body for body, _ in looks.looked})
    assert 2 <= n_seen < 8
    assert order[n_seen:] == BODIES[n_seen:]
    assert sorted(order) == sorted(BODIES)


def test_whose_own_pass_would_not_fit_is_not_looked_at():
    looks = Looks(RISING)
    order = looks.order(left_s=300.0, pass_s=lambda body: 100.0 if body in BODIES[:4] else 250.0)
    assert {body for body, _ in looks.looked} == set(BODIES[:4])
    assert order[4:] == BODIES[4:]


def test_fast_ones_stay_with_lower_scores():
    # Each slower one scores better: none beats another, and those in the middle of the front cover most of it.
    latencies = [float(2**number) for number in range(8)]
    looks = Looks(RISING, latencies=latencies)
    looks.order(left_s=790.0)
    second_round = {body for body, n in looks.looked if n > looks.looked[0][1]}
    assert second_round
    assert second_round != set(BODIES[4:])
    # One that is slower and no better than another one is beaten.
    alone = Looks([0.9, *[0.5] * 7], latencies=[1.0, *[2.0] * 7]).order(left_s=790.0)
    assert alone[0] == BODIES[0]


def test_who_could_not_be_scored_is_looked_at_once_and_comes_behind_those_that_stay():
    looks = Looks([None, *RISING[1:]])
    order = looks.order(left_s=790.0)
    assert sorted(order) == sorted(BODIES)
    assert [body for body, _ in looks.looked].count(BODIES[0]) == 1
    assert BODIES[0] not in order[:3]
    assert sorted(Looks([None] * 8).order(left_s=790.0)) == sorted(BODIES)


def test_no_round_looks_at_more_than_a_quarter():
    looks = Looks(RISING)
    looks.order(left_s=790.0, n_pictures=60_001)
    assert looks.looked
    assert max(n for _, n in looks.looked) <= 60_001 // 4

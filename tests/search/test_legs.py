import math

import pytest

from autobackbone.records import Candidate, Trial
from autobackbone.search.legs import NextLeg, View, curves_of, next_leg, seconds_to_end
from autobackbone.search.rungs import Curve


def candidate(number):
    return Candidate(backbone=f"net{number}", image_size=(32, 32), n_unfrozen=1, lr=1e-3)


def view(scores, *, left_s=math.inf, epoch_s=1.0, n_epochs=10, ended=(), latency=lambda _: 1.0):
    """Trials that pause with these scores so far, and ended ones."""
    paused = {number: candidate(number) for number in range(len(scores))}
    curves = [Curve(number=n, latency_ms=latency(n), scores=tuple(s), n_epochs=len(s)) for n, s in enumerate(scores)]
    curves += [
        Curve(number=100 + n, latency_ms=1.0, scores=tuple(s), n_epochs=len(s), has_ended=True)
        for n, s in enumerate(ended)
    ]

    def expected_s(one, *, n_before=0, n_epochs=None):
        return (epoch_s(one) if callable(epoch_s) else epoch_s) * ((n_epochs or max(3, n_before + 2)) - n_before)

    return View(curves=curves, paused=paused, n_epochs=lambda _: n_epochs, expected_s=expected_s, left_s=left_s)


def test_a_rung_is_filled_before_one_of_it_goes_on():
    assert next_leg(view([]), can_ask=True) is None
    assert next_leg(view([[0.5]]), can_ask=True) is None
    assert next_leg(view([[0.5], [0.7]]), can_ask=True) == NextLeg(number=1, n_before=1, pause_at=2)
    assert next_leg(view([[0.5], [0.7, 0.8], [0.6]]), can_ask=True) is None


def test_where_nothing_new_comes_the_best_of_each_rung_goes_on_to_its_end():
    assert next_leg(view([[0.5], [0.7]]), can_ask=False) == NextLeg(number=1, n_before=1, pause_at=2)
    assert next_leg(view([[0.5], [0.7, 0.7, 0.8, 0.8]]), can_ask=False) == NextLeg(number=1, n_before=4, pause_at=None)
    # Without a limit of time, those who are not the best of their rung stay where they are.
    assert next_leg(view([[0.5]], ended=[[0.7, 0.8, 0.9]]), can_ask=False) is None


@pytest.mark.parametrize(("left_s", "goes_on"), [(9.5, True), (10.5, False)])
def test_a_good_one_goes_on_before_it_is_too_late_for_it(left_s, goes_on):
    # Nine epochs more to its end, and one for something new.
    leg = next_leg(view([[0.5]], left_s=left_s), can_ask=True)
    assert leg == (NextLeg(number=0, n_before=1, pause_at=2) if goes_on else None)


def test_time_that_is_left_goes_to_the_others():
    assert next_leg(view([[0.5]], ended=[[0.7, 0.8, 0.9]], left_s=5.0), can_ask=False).number == 0


def test_nothing_goes_on_that_cannot_end_in_time():
    assert next_leg(view([[0.5], [0.7], [0.6]], left_s=1.9), can_ask=False) is None
    assert next_leg(view([[0.5], [0.7], [0.6]], left_s=2.1), can_ask=False) == NextLeg(
        number=1, n_before=1, pause_at=None
    )


def test_a_rung_is_skipped_where_time_is_too_short_to_use_what_it_says():
    scores = [[0.5], [0.7], [0.6]]
    assert next_leg(view(scores, left_s=5.5), can_ask=True).pause_at == 2
    assert next_leg(view(scores, left_s=4.5), can_ask=True).pause_at is None


def test_the_last_time_goes_to_the_best_of_all_not_to_the_best_of_the_lowest_rung():
    # One of those at the first rung leads it, but to train it to its end would take what the best one needs.
    scores = [[0.8, 0.85, 0.88, 0.9], [0.75], [0.6], [0.5]]
    given = {"latency": [1.0, 2.0, 2.0, 2.0].__getitem__, "ended": [[0.7]]}
    assert next_leg(view(scores, left_s=60.0, **given), can_ask=True).number == 1
    assert next_leg(view(scores, left_s=4.5, **given), can_ask=True) == NextLeg(number=0, n_before=4, pause_at=None)


def test_the_last_time_goes_to_who_gains_most_with_it_not_to_who_gains_it_soonest():
    # Both had the same score at the first rung, and an epoch of one takes ten times as long as one of the other.
    scores = [[0.6, 0.7], [0.6, 0.64, 0.645, 0.65]]
    slow_and_fast = {"epoch_s": lambda c: 10.0 if c.backbone == "net0" else 1.0}
    assert next_leg(view(scores, left_s=85.0, **slow_and_fast), can_ask=True).number == 0
    # Where a fifth of its training is all that fits, it would gain too little.
    assert next_leg(view(scores, left_s=24.0, **slow_and_fast), can_ask=False).number == 1


def test_a_reserve_is_what_the_best_needs_to_its_end():
    assert seconds_to_end(view([])) == 0.0
    assert seconds_to_end(view([[0.5], [0.7, 0.8]], left_s=20.0)) == 8.0
    assert seconds_to_end(view([[0.7, 0.8]], left_s=1.0)) == 0.0  # nothing of it fits


def test_what_promises_most_growth_a_second_goes_first():
    # Both lead their rung, each at its own latency; the faster network enlarges the front more.
    scores = [[0.7], [0.65], [0.1], [0.1]]
    latencies = [9.0, 1.0, 9.0, 9.0]
    leg = next_leg(view(scores, latency=latencies.__getitem__, ended=[[0.2, 0.3]]), can_ask=True)
    assert leg.number == 1


def test_a_head_that_was_scored_on_a_part_of_the_pictures_is_no_rival():
    facts = {"reason": "", "image_size": (32, 32), "n_blocks": 4, "lr": None, "latency_ms": 1.0}
    lucky = Trial(
        number=0, state="finished", backbone="a", n_unfrozen=0, score=1.0, extras={"scored_share": 0.1}, **facts
    )
    tuned = Trial(number=1, state="finished", backbone="a", n_unfrozen=1, score=0.8, **facts)
    assert [curve.number for curve in curves_of([lucky], 1.0)] == [0]
    assert [curve.number for curve in curves_of([lucky, tuned], 1.0)] == [1]


def test_without_a_clock_nothing_goes_on_whose_body_has_no_head():
    assert next_leg(view([[0.5], [0.7]], epoch_s=math.inf), can_ask=False) is None

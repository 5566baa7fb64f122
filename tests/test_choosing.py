import math
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from autobackbone.choosing import (
    Choice,
    as_they_stand,
    choose,
    choose_under,
    front_line,
    front_of,
    is_beaten_for_good,
    keeping,
    mark_front,
    name_of,
    on_one_scale,
    scored_on,
    settled_tolerance,
    trial_line,
    with_caution,
)
from autobackbone.errors import LimitsError, RunError
from autobackbone.metrics import metric_for, score
from autobackbone.records import Limits, Trial

ACCURACY = metric_for("accuracy", n_outputs=2)
LOSS = metric_for("log_loss", n_outputs=2)


def trial(number, score, latency_ms, *, state="finished", noise=0.0):
    return Trial(
        number=number,
        state=state,
        reason="",
        backbone=f"net{number}",
        image_size=(96, 96),
        n_unfrozen=0,
        n_blocks=5,
        lr=None,
        score=score,
        latency_ms=latency_ms,
        latency_noise_ms=noise,
    )


def predictions(n_right, n=200):
    """Right on the first pictures, wrong on the others; all pictures are of class 1."""
    p_right = np.where(np.arange(n) < n_right, 0.9, 0.1)
    return np.stack([1 - p_right, p_right], axis=1).astype(np.float32)


LABELS = np.ones(200, dtype=np.int64)


def test_what_breaks_a_limit_takes_nobodys_place_on_the_front():
    # Within its noise it is as fast as the one that keeps the limit, and it is better.
    over, within = trial(0, 0.9, 3.76, noise=0.95), trial(1, 0.8, 2.9)
    limits = Limits(latency_ms=3)
    assert [one.number for one in front_of([over, within], ACCURACY, Limits())] == [0]
    assert [one.number for one in front_of([over, within], ACCURACY, limits)] == [1]
    # Where nothing keeps the limit, the front tells how near it is.
    assert [one.number for one in front_of([over, replace(within, state="failed", score=None)], ACCURACY, limits)] == [
        0
    ]
    assert "above the limit of 3" in front_line(over, ACCURACY, is_chosen=False, limits=limits)


def test_only_finished_trials_are_on_the_front_and_all_trials_stay():
    trials = [trial(0, 0.9, 5.0), trial(1, None, 1.0, state="failed"), trial(2, 0.8, 6.0), trial(3, 0.7, 2.0)]
    marked = mark_front(trials, ACCURACY, Limits())
    assert [one.on_front for one in marked] == [True, False, False, True]
    assert [one.number for one in front_of(trials, ACCURACY, Limits())] == [3, 0]


points = st.tuples(st.integers(0, 4), st.sampled_from([1.0, 1.1, 1.2, 1.3, 2.0]), st.sampled_from([0.0, 0.06, 0.2]))


@given(st.lists(points, min_size=1, max_size=9))
def test_what_is_beaten_for_good_never_comes_back(rows):
    trials = [trial(i, score / 4, ms, noise=noise) for i, (score, ms, noise) in enumerate(rows)]
    gone = set()
    for n in range(1, len(trials) + 1):
        seen = trials[:n]
        gone |= {one.number for one in seen if is_beaten_for_good(one, seen, ACCURACY)}
        assert not gone & {one.number for one in front_of(seen, ACCURACY, Limits())}


def test_a_trial_that_left_the_front_may_come_back():
    trials = [trial(0, 0.80, 10.0, noise=0.2), trial(1, 0.85, 10.3, noise=0.2), trial(2, 0.90, 10.6, noise=0.2)]
    assert [one.number for one in front_of(trials[:2], ACCURACY, Limits())] == [1]
    assert not is_beaten_for_good(trials[0], trials[:2], ACCURACY)
    assert 0 in [one.number for one in front_of(trials, ACCURACY, Limits())]


def test_a_score_of_a_part_of_the_pictures_counts_only_while_there_is_no_other():
    lucky = replace(trial(0, 1.0, 1.0), extras={"scored_share": 0.1})
    assert front_of([lucky], ACCURACY, Limits())
    assert [one.number for one in front_of([lucky, trial(1, 0.8, 2.0)], ACCURACY, Limits())] == [1]


def test_a_loss_is_better_when_lower():
    assert [one.number for one in front_of([trial(0, 0.9, 5.0), trial(1, 0.5, 5.0)], LOSS, Limits())] == [1]


def choice(rights, latencies, tolerance):
    front = [trial(i, right / 200, ms) for i, (right, ms) in enumerate(zip(rights, latencies, strict=True))]
    return choose(front, lambda one: predictions(rights[one.number]), LABELS, ACCURACY, tolerance=tolerance)


def test_a_faster_trial_is_chosen_only_within_the_noise_and_the_tolerance():
    assert choice([199, 200], [1.0, 9.0], tolerance=0.5).trial.number == 0  # half a point, one picture: within both
    assert choice([198, 200], [1.0, 9.0], tolerance=0.5).trial.number == 1  # a point: beyond the tolerance
    assert choice([180, 200], [1.0, 9.0], tolerance=50).trial.number == 1  # ten points: beyond one standard error


@given(
    top=st.floats(0.1, 1.0),
    more=st.floats(0.0, 0.04),
    tolerance=st.one_of(st.none(), st.floats(0.0, 0.05)),
)
def test_of_a_loss_two_per_cent_are_given_up_unless_nats_are_named(top, more, tolerance):
    """The faster one is surer of half of the pictures and less sure of the others, so that the noise hides its loss."""
    swing = np.where(np.arange(200) < 100, 0.9, -0.9) * min(top, 0.7)
    losses = [top + more + swing, np.full(200, top)]
    table = [np.stack([1 - np.exp(-each), np.exp(-each)], axis=1) for each in losses]
    front = [trial(0, top + more, 1.0), trial(1, top, 9.0)]
    allowed = 0.02 * top if tolerance is None else tolerance
    assume(abs(more - allowed) > 1e-6)
    error = np.std(swing, ddof=1) / np.sqrt(200)
    picked = choose(front, lambda one: table[one.number], LABELS, LOSS, tolerance=tolerance).trial.number
    assert picked == (0 if more <= min(allowed, error) else 1)


def test_half_a_point_is_given_up_of_a_share_unless_points_are_named():
    assert choice([199, 200], [1.0, 9.0], tolerance=None).trial.number == 0
    assert choice([198, 200], [1.0, 9.0], tolerance=None).trial.number == 1
    assert (settled_tolerance(ACCURACY, None), settled_tolerance(LOSS, None)) == (0.5, None)
    assert (settled_tolerance(ACCURACY, 2.0), settled_tolerance(LOSS, 2.0)) == (2.0, 2.0)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(100, 200), st.sampled_from([1.0, 2.0, 4.0, 8.0])), min_size=1, max_size=6))
def test_the_chosen_one_is_never_worse_than_the_tolerance_nor_slower_than_the_top(rows):
    rights, latencies = [right for right, _ in rows], [ms for _, ms in rows]
    chosen = choice(rights, latencies, tolerance=0.5).trial
    top = max(range(len(rows)), key=lambda i: (rights[i], -latencies[i]))
    assert chosen.score >= rights[top] / 200 - 0.005 - 1e-9
    assert chosen.latency_ms <= latencies[top]


def test_the_reason_names_what_was_traded():
    reason = choice([199, 200], [1.0, 9.0], tolerance=0.5).reason
    assert "9.0 times as fast" in reason
    assert "0.5 ± 0.5 points of accuracy" in reason
    assert choice([100, 200], [1.0, 9.0], tolerance=0.5).reason.startswith("trial 1")


def test_numbers_are_traded_in_the_unit_of_the_labels():
    mae, labels = metric_for("mae", "regression", n_outputs=1), np.zeros((100, 1))
    swing = np.where(np.arange(100) < 50, 2.0, -2.0)[:, None]
    table = [10.1 + swing, np.full((100, 1), 10.0)]
    front = [trial(0, 10.1, 1.0), trial(1, 10.0, 9.0)]
    picked = choose(front, lambda one: table[one.number], labels, mae, tolerance=None)
    assert picked.trial.number == 0
    assert "for a loss of 0.1 ± 0.2 of mae" in picked.reason


def test_r2_is_traded_in_r2():
    r2, labels = metric_for("r2", "regression", n_outputs=1), np.linspace(0, 1, 200)[:, None]
    turns = np.arange(200)[:, None] % 2
    table = [labels + 0.205 * turns, labels + 0.2 * (1 - turns)]  # each errs on another half of the pictures
    front = [trial(0, score(r2, table[0], labels), 1.0), trial(1, score(r2, table[1], labels), 9.0)]
    picked = choose(front, lambda one: table[one.number], labels, r2, tolerance=5.0)
    assert picked.trial.number == 0
    assert re.search(r"for a loss of 0\.012\d* ± 0\.\d+ of r2: within noise", picked.reason)


def test_pictures_that_one_of_two_did_not_reach_are_compared_by_neither():
    partial = predictions(200)
    partial[50:] = np.nan
    whole = predictions(50)
    front = [trial(0, 1.0, 1.0), trial(1, 1.0, 9.0)]
    picked = choose(front, lambda one: [partial, whole][one.number], LABELS, ACCURACY, tolerance=0.5)
    assert picked.trial.number == 0


def test_a_limit_of_latency_takes_the_most_accurate_inside_it():
    front = [trial(0, 0.7, 1.0), trial(1, 0.8, 2.0), trial(2, 0.9, 3.0)]
    assert choose_under(keeping(front, Limits(latency_ms=2.5)), 2.5, ACCURACY).trial.number == 1
    with pytest.raises(LimitsError, match=r"within 0.5 ms; the fastest takes 1.00 ms"):
        keeping(front, Limits(latency_ms=0.5))


def test_a_limit_of_latency_that_is_kept_does_not_hide_one_that_is_broken():
    front = [replace(trial(0, 0.7, 1.0), n_params=900), replace(trial(1, 0.8, 2.0), n_params=90)]
    assert [one.number for one in keeping(front, Limits(latency_ms=3, n_params=100))] == [1]
    with pytest.raises(LimitsError, match=r"keeps the limits; of the fastest, n_params 900 is above the limit of 80\."):
        keeping(front, Limits(latency_ms=3, n_params=80))
    assert keeping([], Limits(latency_ms=3)) == []


def test_a_limit_may_be_any_number():
    for limit in (3, np.float32(3), np.int64(3), math.inf):
        assert keeping([trial(0, 0.7, 1.0)], Limits(latency_ms=limit))


def test_without_a_finished_trial_there_is_nothing_to_choose():
    with pytest.raises(RunError, match="no trial has finished"):
        choose([], predictions, LABELS, ACCURACY, tolerance=0.5)


def test_lines_name_the_trial():
    assert "frozen" in name_of(trial(0, 0.9, 1.0))
    assert trial_line(trial(3, None, 1.0, state="failed"), ACCURACY).endswith("failed, ")
    assert "accuracy 0.900, 1.0 ms" in trial_line(trial(3, 0.9, 1.0), ACCURACY)
    folded = replace(trial(3, 0.9, 1.0), fold_score=0.8, fold_se=0.03)
    assert "accuracy 0.900, folds 0.800 ± 0.030, 1.0 ms" in trial_line(folded, ACCURACY)


def test_a_choice_by_a_part_of_the_pictures_says_so():
    whole = Choice(trial=trial(0, 0.9, 5.0), reason="it is alone.")
    assert with_caution(whole) == whole
    few = with_caution(replace(whole, trial=replace(whole.trial, extras={"fitted_share": 8 / 128})))
    assert (
        "Caution: the time was short, its head fitted on 6.2 % of the training pictures, so that it can" in few.reason
    )
    assert ", its head fitted on 6.2 % of the training pictures, " in trial_line(few.trial, ACCURACY)
    assert "fitted" not in trial_line(whole.trial, ACCURACY)
    part = with_caution(replace(whole, trial=replace(whole.trial, extras={"scored_share": 0.05})))
    assert part.reason.startswith("it is alone. Caution: the time was too short to score it on more than 5 % of the p")


def test_a_score_of_a_part_of_the_pictures_says_so_in_every_line():
    part = replace(trial(0, 0.5, 5.0), extras={"scored_share": 6 / 39, "n_validation": 39}, test_score=0.562)
    part = replace(part, test_score_low=0.4, test_score_high=0.7)
    assert scored_on(replace(part, extras={"scored_share": 1.0, "n_validation": 39})) == ""
    assert "accuracy 0.500 on 6 of 39 pictures, 5.0 ms" in trial_line(part, ACCURACY)
    assert "accuracy 0.500 on 6 of 39 pictures, test 0.562" in front_line(part, ACCURACY, is_chosen=True)
    assert "more than 6 of 39 pictures" in with_caution(Choice(trial=part, reason="it is alone.")).reason
    assert "0.500 on 15 % of the pictures" in trial_line(replace(part, extras={"scored_share": 6 / 39}), ACCURACY)


def test_a_score_of_a_part_of_the_pictures_beats_none_on_all_of_them():
    lucky = replace(trial(0, 1.0, 1.0), extras={"scored_share": 0.1})
    assert not is_beaten_for_good(trial(1, 0.8, 2.0), [lucky], ACCURACY)
    assert is_beaten_for_good(trial(1, 0.8, 2.0), [replace(lucky, extras={})], ACCURACY)


@given(st.lists(points, min_size=2, max_size=9), st.floats(1.0, 1.5))
def test_what_is_beaten_for_good_is_so_however_other_bodies_drift(rows, drift):
    trials = [
        # A body has one latency, and one noise.
        replace(trial(i, score / 4, ms, noise=noise), backbone=f"{ms} ± {noise}")
        for i, (score, ms, noise) in enumerate(rows)
    ]
    for one in trials:
        if is_beaten_for_good(one, trials, ACCURACY, drift=1.5):
            assert is_beaten_for_good(one, trials, ACCURACY)
            drifted = [
                other if other.body == one.body else replace(other, latency_ms=other.latency_ms * drift)
                for other in trials
            ]
            assert one.number not in {other.number for other in front_of(drifted, ACCURACY, Limits())}


def test_scores_by_folds_make_the_front_where_there_are_some():
    slow, fast = trial(0, 0.9, 9.0), trial(1, 0.8, 5.0)
    folded = [replace(slow, fold_score=0.7, fold_se=0.02), replace(fast, fold_score=0.75, fold_se=0.01)]
    assert [one.number for one in front_of([slow, fast], ACCURACY, Limits())] == [1, 0]
    assert [one.number for one in front_of(folded, ACCURACY, Limits())] == [1]
    assert [one.score for one in front_of(folded, ACCURACY, Limits())] == [0.8]  # its own score stays
    assert [(one.score, one.score_se) for one in as_they_stand(folded)] == [(0.7, 0.02), (0.75, 0.01)]
    assert as_they_stand([slow]) == [slow]


def test_a_validation_score_that_flatters_beats_no_score_by_folds():
    """The first is the better one on the same validation pictures; that folds make it less flattering is no loss."""
    folded = replace(trial(0, 0.66, 5.0), fold_score=0.56, fold_se=0.02)
    other = trial(1, 0.65, 5.0)
    assert [one.number for one in front_of([folded, other], ACCURACY, Limits())] == [0]
    assert [one.score for one in on_one_scale([folded, other])] == pytest.approx([0.56, 0.55])
    better = replace(other, score=0.67)
    assert [one.number for one in front_of([folded, better], ACCURACY, Limits())] == [1]
    assert on_one_scale([other]) == [other]


def test_a_fine_tuned_trial_without_folds_has_to_be_on_the_front_of_validation_scores_too():
    """Of others the network may be gone."""
    beats = replace(trial(0, 0.9, 5.0), n_unfrozen=2, fold_score=0.6)
    slower = replace(trial(2, 0.7, 9.0), fold_score=0.65)
    beaten = replace(trial(1, 0.8, 5.0), n_unfrozen=2)
    assert [one.number for one in front_of([beats, beaten, slower], ACCURACY, Limits())] == [0, 2]
    frozen = replace(beaten, n_unfrozen=0, lr=None)
    assert [one.number for one in front_of([beats, frozen, slower], ACCURACY, Limits())] == [1, 2]
    # Nor does it beat others: the second is the best that there is at its latency.
    gone = replace(trial(0, 0.90, 5.0), n_unfrozen=2)
    slow, fast = replace(trial(1, 0.92, 5.0), fold_score=0.85), replace(trial(2, 0.3, 1.0), fold_score=0.3)
    assert [one.number for one in front_of([gone, slow, fast], ACCURACY, Limits())] == [2, 1]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 3), st.sampled_from([None, 0, 1, 2]), st.booleans())))
def test_there_is_a_front_wherever_a_trial_has_finished(facts):
    trials = [
        replace(trial(i, score / 4, float(ms)), fold_score=None if fold is None else fold / 4, n_unfrozen=int(tuned))
        for i, (score, ms, fold, tuned) in enumerate(facts)
    ]
    assert bool(front_of(trials, ACCURACY, Limits())) == bool(trials)
    # One that everything beats in every way changes nothing.
    worst = trial(len(trials), -1.0, 9.0)
    if trials:
        assert [one.number for one in front_of([*trials, worst], ACCURACY, Limits())] == [
            one.number for one in front_of(trials, ACCURACY, Limits())
        ]

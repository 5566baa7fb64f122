from dataclasses import replace

import pytest
from tests.test_choosing import ACCURACY, LABELS, predictions, trial

from autobackbone.errors import RunError
from autobackbone.judging import Judged, has_folds
from autobackbone.records import Limits

# By the validation part the slow one is the best, by folds the fast one.
FAST = replace(trial(0, 0.80, 1.0), fold_score=0.95, fold_se=0.02)
SLOW = replace(trial(1, 0.99, 9.0), fold_score=0.60, fold_se=0.03)
VALIDATION = {0: predictions(160), 1: predictions(198)}
FOLDS = {0: predictions(190), 1: predictions(120)}


def by_validation(front):
    return Judged(front=front, predictions=lambda one: VALIDATION[one.number], labels=LABELS)


def by_folds(front):
    return Judged.by_folds(front, lambda one: FOLDS[one.number], LABELS)


def test_folds_take_the_place_of_the_validation_part():
    front = [FAST, SLOW]
    assert by_validation(front).choice(ACCURACY, tolerance=None, limits=Limits()).trial.number == 1
    chosen = by_folds(front).choice(ACCURACY, tolerance=None, limits=Limits())
    assert chosen.trial.number == 0
    assert chosen.trial.score == 0.95
    assert "Judged by folds over 200 pictures, where it has 0.950 ± 0.020." in chosen.reason
    assert "folds" not in by_validation(front).choice(ACCURACY, tolerance=None, limits=Limits()).reason


def test_a_limit_of_latency_is_kept_by_folds_too():
    faster = replace(trial(2, 0.99, 0.5), fold_score=0.55, fold_se=0.03)
    front = [faster, FAST, SLOW]
    assert by_validation(front).choice(ACCURACY, tolerance=None, limits=Limits(latency_ms=2.0)).trial.number == 2
    assert by_folds(front).choice(ACCURACY, tolerance=None, limits=Limits(latency_ms=2.0)).trial.number == 0


def test_all_of_the_front_must_have_folds():
    assert has_folds([FAST, SLOW])
    assert not has_folds([FAST, trial(2, 0.9, 1.0)])
    assert not has_folds([])


def test_where_part_of_the_front_has_folds_it_is_said_what_counts():
    unfolded = replace(SLOW, fold_score=None, fold_se=None)
    reason = by_validation([FAST, unfolded]).choice(ACCURACY, tolerance=None, limits=Limits()).reason
    assert "200 validation pictures alone, since 1 of 2 trials on the front have no score by folds." in reason


def test_no_trial_is_no_choice():
    with pytest.raises(RunError, match="no trial has finished"):
        by_validation([]).choice(ACCURACY, tolerance=None, limits=Limits())


def test_a_score_on_a_part_of_the_validation_pictures_is_told():
    cut_short = replace(FAST, extras={"scored_share": 0.5})
    assert "Caution" in by_validation([cut_short]).choice(ACCURACY, tolerance=None, limits=Limits()).reason
    few = Judged(front=[cut_short], predictions=lambda one: VALIDATION[one.number][:100], labels=LABELS[:100])
    assert "Judged by 50 validation pictures alone." in few.choice(ACCURACY, tolerance=None, limits=Limits()).reason
    assert "Caution" not in by_folds([cut_short]).choice(ACCURACY, tolerance=None, limits=Limits()).reason

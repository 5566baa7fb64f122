import math
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conftest import TINY, make_pictures
from tests.training.conftest import CPU, SIZE, Source

from autobackbone.backbones.build import normalisation
from autobackbone.data import PART_CODES, decode, survey
from autobackbone.metrics import metric_for, score, standard_error, to_maximised
from autobackbone.overfitting import advice, fit_of, is_full, mark_overfitting
from autobackbone.records import Candidate, Trial
from autobackbone.screening import screen
from autobackbone.search.extras import NUMBERS
from autobackbone.training.activations import ActivationCache
from autobackbone.training.stores import Stores
from autobackbone.training.tuner import Tuner

ACCURACY = metric_for("accuracy", n_outputs=3)
LOSS = metric_for("log_loss", n_outputs=3)
MAE = metric_for("mae", "regression", n_outputs=1)
CLASSIC = ((0.80, 0.90, 0.97, 1.00, 1.00, 1.00), (0.85, 0.90, 0.91, 0.88, 0.86, 0.84))
SHARES = st.floats(min_value=0, max_value=1)
CURVES = st.lists(st.tuples(SHARES, SHARES), min_size=1, max_size=12)


def trial(train_scores, rung_scores, *, number=1, se=0.01, state="finished", **changes):
    given = {"backbone": "net", "image_size": (96, 96), "n_unfrozen": 2, "n_blocks": 5, "lr": 1e-3, "score": 0.0}
    given |= {"score": max(rung_scores, default=None)} | changes
    return Trial(
        number=number, state=state, reason="", latency_ms=1.0, score_se=se,
        train_scores=tuple(train_scores), rung_scores=tuple(rung_scores), **given,
    )  # fmt: skip


def frozen(train_score, validation, **changes):
    return trial((train_score,), (), **{"number": 0, "n_unfrozen": 0, "lr": None, "score": validation} | changes)


def overfits(train_scores, rung_scores, metric=ACCURACY, se=0.01):
    (marked,) = mark_overfitting([trial(train_scores, rung_scores, se=se)], metric)
    return marked.overfits


def said(trials, metric=ACCURACY):
    return advice(mark_overfitting(trials, metric), metric)


@given(CURVES, st.floats(min_value=0, max_value=0.2))
def test_what_never_gets_worse_does_not_overfit(curves, se):
    training, validation = (sorted(scores) for scores in zip(*curves, strict=True))
    assert not overfits(training, validation, se=se)
    assert not overfits(reversed(training), validation, se=se)
    assert not overfits(training, [1 - score for score in validation], LOSS, se=se)


@given(CURVES, st.floats(min_value=0.001, max_value=0.2))
def test_the_law_of_the_mark(curves, se):
    training, validation = zip(*curves, strict=True)
    fit = fit_of(training, validation, ACCURACY, standard_error=se)
    assert fit.fall >= 0
    best, end = fit.best_epoch - 1, fit.end_epoch - 1
    assert fit.widening == pytest.approx((training[end] - validation[end]) - (training[best] - validation[best]))
    if fit.overfits:
        # Whatever the mark means, both of the last two epochs are worse than one before them, beyond an error.
        assert max(validation[-2:]) < max(validation[:-2]) - se
        assert fit.widening > se
        # It holds for less doubt, too.
        assert fit_of(training, validation, ACCURACY, standard_error=se / 2).overfits


@given(CURVES, st.floats(min_value=0.001, max_value=0.2))
def test_scores_and_losses_are_told_alike(curves, se):
    training, validation = zip(*curves, strict=True)
    of_scores = fit_of(training, validation, ACCURACY, standard_error=se)
    of_losses = fit_of([-s for s in training], [-s for s in validation], MAE, standard_error=se)
    assert replace(of_losses, full_epoch=of_scores.full_epoch) == of_scores
    assert overfits(training, validation, ACCURACY, se) == overfits(
        [-s for s in training], [-s for s in validation], LOSS, se
    )


def test_a_training_that_learns_by_heart_is_marked_and_says_when():
    assert overfits(*CLASSIC)
    fit = fit_of(*CLASSIC, ACCURACY, standard_error=0.01)
    assert (fit.best_epoch, fit.end_epoch, fit.full_epoch) == (3, 5, 4)
    assert fit.fall == pytest.approx(0.05)


@pytest.mark.parametrize("se", [0.05, 0.0, math.nan, math.inf, None])
def test_within_chance_or_where_chance_is_not_known_nothing_is_marked(se):
    # A score that misses no picture has an error of 0, and one more missed picture is nothing.
    assert not overfits(*CLASSIC, se=se)


def test_what_gets_worse_on_both_has_not_learned_by_heart():
    _, validation = CLASSIC
    assert not overfits([0.9, 0.9, 0.9, 0.5, 0.3, 0.2], validation)
    assert overfits([0.9, 0.9, 0.9, 0.9, 0.9, 0.9], validation)


def test_one_bad_epoch_at_the_end_is_no_fall():
    assert not overfits([0.9, 0.95, 0.98, 1.0], [0.8, 0.85, 0.9, 0.6])
    assert not overfits([0.9, 1.0], [0.9, 0.6])
    assert overfits([0.9, 0.95, 1.0, 1.0], [0.8, 0.9, 0.7, 0.7])


def test_what_is_not_defined_is_tolerated():
    training, validation = CLASSIC
    assert not overfits([math.nan] * 6, validation)
    assert not overfits([*training[:2], math.nan, *training[3:]], validation)
    assert overfits([math.nan, *training[1:]], validation)
    assert fit_of([math.nan] * 6, validation, ACCURACY, standard_error=0.01).full_epoch is None
    assert said([trial([math.nan] * 6, validation), frozen(math.nan, 0.9)]) == ()
    # Trials of earlier versions have no training scores.
    assert not overfits((), validation)
    assert not overfits((), ())


@pytest.mark.parametrize(
    ("metric", "value", "is_there"),
    [
        *((ACCURACY, 1.0, True), (ACCURACY, 0.991, True), (ACCURACY, 0.98, False), (ACCURACY, 0.0, False)),
        *((LOSS, 0.0, True), (LOSS, 0.009, True), (LOSS, 1.0, False), (MAE, 0.0, False), (MAE, 1.0, False)),
        (metric_for("r2", "regression", n_outputs=1), 0.995, True),
        (metric_for("torchmetrics:SpearmanCorrCoef", "regression", n_outputs=1), 1.0, False),
    ],
)
def test_only_a_score_with_a_best_value_can_be_full(metric, value, is_there):
    assert is_full(value, metric) == is_there


def test_advice_tells_what_happened_what_is_kept_and_what_to_do():
    (sentence,) = said([frozen(0.9, 0.8), trial(*CLASSIC)])
    assert sentence == (
        "trial 1 (net at 96x96 px, 2 of 5 blocks unfrozen) fits the training pictures fully by epoch 4 while accuracy "
        "in validation goes from 91.0 % in epoch 3 to 86.0 %: freeze more. Its weights are those of epoch 3, before "
        "that."
    )
    (stopped,) = said([trial(*CLASSIC, state="stopped")])
    assert stopped.endswith("to 86.0 %: freeze more.")


def test_a_training_that_does_not_fit_fully_says_how_far_it_came():
    training = [0.80, 0.85, 0.90, 0.93, 0.94, 0.95]
    (sentence,) = said([trial(training, CLASSIC[1])])
    assert (
        "goes from 90.0 % to 94.0 % on the training pictures while accuracy in validation goes from 91.0 %" in sentence
    )
    (of_losses,) = said([trial([1 - s for s in training], [1 - s for s in CLASSIC[1]], score=0.09)], LOSS)
    assert "goes from 0.100 nats to 0.060 nats on the training pictures while log_loss in" in of_losses


def test_a_high_rate_is_to_be_lowered_and_a_full_head_wants_pictures():
    others = [trial([0.5] * 6, [0.5] * 6, number=10 + k, lr=rate) for k, rate in enumerate((1e-5, 1e-4))]
    (high,) = said([*others, trial(*CLASSIC, lr=1e-3)])
    assert "lower the rate, since 1.0e-03 is among the highest tried, or freeze more" in high
    (low,) = said([*others, trial(*CLASSIC, lr=1e-5)])
    assert "rate" not in low
    (full,) = said([frozen(1.0, 0.8), *others, trial(*CLASSIC, lr=1e-5)])
    assert "give more pictures or augmented ones" in full
    assert "freeze more" not in full
    (of_another,) = said([frozen(1.0, 0.8, backbone="other"), *others, trial(*CLASSIC, lr=1e-5)])
    assert "freeze more" in of_another


def test_where_the_best_is_a_frozen_head_that_has_nothing_left_to_learn_it_is_said():
    (alone,) = said([frozen(1.0, 0.9)])
    assert alone.startswith(
        "trial 0 (net at 96x96 px, frozen) fits the training pictures fully and has 90.0 % of accuracy"
    )
    assert "more pictures, or unfreezing blocks" in alone
    (beside,) = said([frozen(1.0, 0.9), trial([0.9, 0.9], [0.8, 0.8])])
    assert "more pictures, or augmented ones" in beside
    assert said([frozen(1.0, 0.99)]) == ()  # within chance of what it is in training
    assert said([frozen(0.95, 0.8)]) == ()
    assert said([frozen(1.0, 0.9), trial([0.9, 0.97], [0.9, 0.95])]) == ()
    assert said([]) == ()


def test_a_fine_tuned_one_that_has_nothing_left_to_learn_is_told_what_may_help():
    curves = (0.985, 0.994, 1.0, 1.0), (0.891, 0.879, 0.894, 0.897)
    assert not overfits(*curves, se=0.02)
    (sentence,) = said([frozen(0.9, 0.8), trial(*curves, se=0.02)])
    assert sentence == (
        "trial 1 (net at 96x96 px, 2 of 5 blocks unfrozen) fits the training pictures fully by epoch 2 and has 89.7 % "
        "of accuracy in validation: more pictures, or augmented ones, fewer unfrozen blocks, or more weight decay "
        "(space={'weight_decay': (1e-3, 1e-1)}) may help it."
    )
    assert set(re.findall(r"'(\w+)':", sentence)) <= set(NUMBERS)
    (shallow,) = said([trial(*curves, se=0.02, n_unfrozen=1)])
    assert "fewer" not in shallow
    # Beside a better frozen one that of the front is told.
    assert said([frozen(0.95, 0.92), trial(*curves, se=0.02)]) == ()
    (of_front,) = said([frozen(0.95, 0.92), trial(*curves, se=0.02, on_front=True)])
    assert of_front == sentence
    assert said([trial(*curves, se=0.1)]) == ()  # within chance
    assert said([trial((0.8, 0.9, 0.95), (0.7, 0.8, 0.8), se=0.02)]) == ()  # something is left to learn
    assert len(said([trial(*CLASSIC)])) == 1  # what overfits is told once


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), SHARES, st.booleans()), max_size=12))
def test_a_handful_of_sentences_speaks_of_the_best_of_each_body(drawn):
    trials = [
        trial(*CLASSIC, number=number, backbone=name, score=value, on_front=is_on)
        for number, (name, value, is_on) in enumerate(drawn)
    ]
    sentences = said(trials)
    assert len(sentences) <= 5
    named = [number for sentence in sentences for number in range(len(trials)) if f"trial {number} (" in sentence]
    assert len(named) == min(3, len({name for name, _, _ in drawn}))
    n_more = len(trials) - len(named)
    assert sum("column `overfits`" in sentence for sentence in sentences) == (n_more > 0)
    if n_more > 0:
        assert sentences[-1].startswith(f"{n_more} more trial")
    on_front = [one for one in trials if one.on_front]
    if on_front:
        assert trials[named[0]].on_front
        assert trials[named[0]].score == max(one.score for one in on_front)


def test_a_network_that_learns_labels_without_a_meaning_is_marked(tmp_path):
    found, generator = survey(make_pictures(n_per_class=25)), np.random.default_rng(0)
    is_train = generator.permutation(len(found.labels)) < 24
    parts = np.where(is_train, PART_CODES["train"], PART_CODES["validation"]).astype(np.int8)
    bundle = decode(replace(found, parts=parts), [SIZE], cache_dir=tmp_path / "data")
    bundle = replace(bundle, labels=generator.permutation(bundle.labels))
    of_validation = bundle.labels[bundle.indices("validation")]
    seen = []

    def score_passed(predictions, of):
        seen.append(score(ACCURACY, predictions, of))
        return to_maximised(LOSS, score(LOSS, predictions, of))

    stores = Stores(
        bundle=bundle,
        source=Source(),
        cache=ActivationCache(folder=tmp_path / "activations", max_bytes=10**9),
        device=CPU,
        seed=0,
    )
    tuner = Tuner(
        stores=stores,
        score=lambda predictions: to_maximised(LOSS, score(LOSS, predictions, of_validation)),
        score_passed=score_passed,
    )
    head = screen(Source().network(TINY, SIZE), bundle, SIZE, normalisation(TINY), seed=0, device=CPU).head
    extras = {"n_epochs": 60, "label_smoothing": 0.0, "batch_size": 8}
    wanted = Candidate(backbone=TINY, image_size=SIZE, n_unfrozen=5, lr=2e-3, extras=extras)
    _, outcome = tuner.tune(wanted, head)
    error = standard_error(LOSS, outcome.predictions, of_validation)
    assert seen[-1] > 0.95
    assert score(ACCURACY, outcome.predictions, of_validation) < 0.6
    known = trial(
        [-value for value in outcome.train_scores],
        [-value for value in outcome.rung_scores],
        se=error,
        score=-max(outcome.rung_scores),
    )
    assert [one.overfits for one in mark_overfitting([known], LOSS)] == [True]

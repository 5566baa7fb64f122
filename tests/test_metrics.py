"""Values against scikit-learn, uncertainties against brute resampling, and the laws of orientation."""

import math
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from autobackbone.errors import MetricError
from autobackbone.metrics import metric_for, paired_loss, score, shown, standard_error, to_maximised

NAMES = ("accuracy", "balanced_accuracy", "f1_macro", "log_loss", "top5", "auroc")


def predictions(
    seed: int, n_images: int = 120, n_classes: int = 8, n_present: int | None = None, sharpness: float = 2.0
) -> tuple[Any, Any]:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, n_present or n_classes, n_images)
    logits = generator.normal(size=(n_images, n_classes)) + sharpness * np.eye(n_classes)[labels]
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), labels


def by_scikit_learn(name: str, probabilities: Any, labels: Any) -> Any:
    n_classes = probabilities.shape[1]
    likeliest = probabilities.argmax(axis=1)
    every = range(n_classes)
    with warnings.catch_warnings():
        # It says that a prediction names a class that no label names: that is what is tested here.
        warnings.filterwarnings("ignore", message="y_pred contains classes not in y_true")
        return {
            "accuracy": lambda: reference.accuracy_score(labels, likeliest),
            "balanced_accuracy": lambda: reference.balanced_accuracy_score(labels, likeliest),
            "f1_macro": lambda: reference.f1_score(labels, likeliest, average="macro"),
            "log_loss": lambda: reference.log_loss(labels, probabilities, labels=every),
            "top5": lambda: reference.top_k_accuracy_score(labels, probabilities, k=5, labels=every),
            "auroc": lambda: np.mean(
                [reference.roc_auc_score(labels == k, probabilities[:, k]) for k in np.unique(labels)]
            ),
        }[name]()


@pytest.mark.parametrize("name", NAMES)
@given(seed=st.integers(0, 10_000), n_images=st.integers(3, 60), n_present=st.integers(2, 8))
@settings(max_examples=25, deadline=None)
def test_score_equals_scikit_learn_also_with_absent_classes(name, seed, n_images, n_present):
    probabilities, labels = predictions(seed, n_images=n_images, n_present=n_present)
    if np.unique(labels).size < 2:
        return
    metric = metric_for(name, n_classes=8)
    assert score(metric, probabilities, labels) == pytest.approx(by_scikit_learn(name, probabilities, labels), abs=1e-6)


def test_auroc_counts_equal_probabilities_half():
    labels = np.array([0, 1] * 20)
    probabilities = np.round(predictions(0, n_images=40, n_classes=2)[0], 1)
    found = score(metric_for("auroc", n_classes=2), probabilities, labels)
    assert found == pytest.approx(by_scikit_learn("auroc", probabilities, labels), abs=1e-6)
    loss, _ = paired_loss(metric_for("auroc", n_classes=2), np.full((40, 2), 0.5), probabilities, labels)
    assert loss == pytest.approx(0.5 - found, abs=1e-6)


def test_auroc_of_one_class_is_not_defined():
    probabilities, _ = predictions(0, n_images=10)
    assert math.isnan(score(metric_for("auroc", n_classes=8), probabilities, np.zeros(10, dtype=int)))


def test_one_certain_error_leaves_log_loss_finite():
    metric = metric_for("log_loss", n_classes=2)
    assert 30 < score(metric, [[1.0, 0.0]], [1]) < 40
    assert score(metric, [[0.0, 1.0]], [1]) == 0


@pytest.mark.parametrize("name", NAMES)
def test_standard_error_is_how_far_scores_of_resampled_pictures_spread(name):
    probabilities, labels = predictions(1, n_images=150)
    metric = metric_for(name, n_classes=8)
    generator = np.random.default_rng(7)
    draws = [generator.integers(0, 150, 150) for _ in range(150)]
    spread = np.std([score(metric, probabilities[rows], labels[rows]) for rows in draws])
    assert standard_error(metric, probabilities, labels) == pytest.approx(spread, rel=0.2)


@pytest.mark.parametrize("name", NAMES)
def test_paired_error_is_how_far_losses_on_resampled_pictures_spread(name):
    top, labels = predictions(1, n_images=150, sharpness=2.5)
    other = 0.3 * top + 0.7 * predictions(2, n_images=150, sharpness=0.0)[0]
    metric = metric_for(name, n_classes=8)
    generator = np.random.default_rng(7)
    draws = [generator.integers(0, 150, 150) for _ in range(150)]
    spread = np.std(
        [score(metric, top[rows], labels[rows]) - score(metric, other[rows], labels[rows]) for rows in draws]
    )
    loss, error = paired_loss(metric, top, other, labels)
    assert loss > 0
    assert error == pytest.approx(spread, rel=0.2)
    assert error <= 1.000001 * (standard_error(metric, top, labels) + standard_error(metric, other, labels))


@pytest.mark.parametrize("name", NAMES)
@given(seed=st.integers(0, 10_000))
@settings(max_examples=5, deadline=None)
def test_loss_is_the_difference_of_maximised_scores_and_changes_sign_with_the_roles(name, seed):
    top, labels = predictions(seed, n_images=40)
    other, _ = predictions(seed + 1, n_images=40)
    metric = metric_for(name, n_classes=8)
    loss, error = paired_loss(metric, top, other, labels)
    difference = to_maximised(metric, score(metric, top, labels)) - to_maximised(metric, score(metric, other, labels))
    assert loss == pytest.approx(difference, abs=1e-6)
    assert paired_loss(metric, other, top, labels) == pytest.approx((-loss, error), abs=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_a_model_loses_nothing_to_itself(name):
    probabilities, labels = predictions(3)
    assert paired_loss(metric_for(name, n_classes=8), probabilities, probabilities, labels) == (0.0, 0.0)


@pytest.mark.parametrize("name", NAMES)
def test_knowing_the_truth_is_best(name):
    probabilities, labels = predictions(4)
    truth = np.eye(8)[labels]
    metric = metric_for(name, n_classes=8)
    best = to_maximised(metric, score(metric, truth, labels))
    assert best > to_maximised(metric, score(metric, probabilities, labels))
    assert best == (0 if name == "log_loss" else 1)


@pytest.mark.parametrize("name", NAMES)
def test_same_seed_same_error(name):
    probabilities, labels = predictions(5)
    metric = metric_for(name, n_classes=8)
    first, again, other = (standard_error(metric, probabilities, labels, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert (first != other) == (name in {"balanced_accuracy", "f1_macro"})


@pytest.mark.parametrize("name", ["accuracy", "f1_macro"])
def test_one_picture_tells_nothing_about_its_own_error(name):
    metric = metric_for(name, n_classes=2)
    assert standard_error(metric, [[0.9, 0.1]], [0]) == math.inf
    assert paired_loss(metric, [[0.9, 0.1]], [[0.1, 0.9]], [0]) == (1.0, math.inf)


@pytest.mark.parametrize("name", NAMES)
def test_metrics_are_found_by_name(name):
    assert metric_for(name, n_classes=8).name == name
    assert to_maximised(metric_for(name, n_classes=8), 2.0) == (-2.0 if name == "log_loss" else 2.0)


def test_the_default_is_accuracy():
    assert metric_for(None, n_classes=2) == metric_for("accuracy", n_classes=2)
    assert shown(metric_for(None, n_classes=2), 0.5) == "50.0 %"


def test_unknown_metrics_name_the_known_and_the_close():
    with pytest.raises(MetricError, match=r"'balanced_acuracy'; did you mean 'balanced_accuracy'.* Known: accuracy, "):
        metric_for("balanced_acuracy", n_classes=3)
    with pytest.raises(MetricError, match="'quux'; Known: accuracy"):
        metric_for("quux", n_classes=3)
    with pytest.raises(MetricError, match="top5 is always 1 with 5 classes"):
        metric_for("top5", n_classes=5)
    with pytest.raises(MetricError, match="task must be 'classification', not 'regression'"):
        metric_for("accuracy", "regression", n_classes=3)
    with pytest.raises(MetricError, match="at least 2 classes to tell apart; 1 came"):
        metric_for("accuracy", n_classes=1)


@pytest.mark.parametrize(
    ("probabilities", "labels", "message"),
    [
        ([[0.5, 0.5]], [0, 1], r"\(1, 2\) and \(2,\) came"),
        ([[0.5, 0.3, 0.2]], [0], r"probabilities \(n_images, 2\)"),
        (np.empty((0, 2)), np.empty(0, dtype=int), "at least one picture"),
        ([[np.nan, 0.5]], [0], "diverged"),
        ([[4.0, -3.0]], [0], "not logits"),
        ([[0.5, 0.5]], [2], "whole numbers from 0 to 1; int64 from 2 to 2 came"),
        ([[0.5, 0.5]], [0.0], "float64"),
    ],
)
def test_what_cannot_be_scored_is_named(probabilities, labels, message):
    with pytest.raises(MetricError, match=message):
        score(metric_for("accuracy", n_classes=2), probabilities, labels)

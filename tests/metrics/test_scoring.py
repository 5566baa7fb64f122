"""Values against scikit-learn, uncertainties against brute resampling, and the laws of orientation."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.metrics.conftest import ALL, LOSSES, RESAMPLED, by_scikit_learn, example, found

from autobackbone.errors import MetricError
from autobackbone.metrics import interval, metric_for, paired_loss, score, standard_error, to_maximised

every_metric = pytest.mark.parametrize(("task", "name"), ALL)


def spread(values):
    return np.std(values, axis=0)


@every_metric
@given(
    seed=st.integers(0, 10_000),
    n_images=st.integers(3, 60),
    n_present=st.integers(2, 6),
    digits=st.sampled_from([1, 9]),
)
@settings(max_examples=25)
def test_score_equals_scikit_learn_also_with_ties_and_absent_classes(task, name, seed, n_images, n_present, digits):
    predictions, labels = example(task, seed, n_images, n_present=n_present, digits=digits)
    if name == "top5" and digits == 1:
        return  # which of equal ones are among the first five is anybody's choice
    if name == "log_loss":
        predictions = predictions.clip(0.01, 0.99)
    value = score(found(task, name), predictions, labels)
    if math.isnan(value):
        assert name in {"map", "auroc", "f1_macro", "f1_micro"}
        assert np.ptp(labels, axis=0).max() == 0
        return
    assert value == pytest.approx(by_scikit_learn(task, name, predictions, labels), rel=1e-6, abs=1e-6)


@every_metric
def test_score_does_not_change_with_the_order_of_pictures(task, name):
    predictions, labels = example(task, 3, digits=1)
    order = np.random.default_rng(0).permutation(len(labels))
    again = score(found(task, name), predictions[order], labels[order])
    assert again == pytest.approx(score(found(task, name), predictions, labels), rel=1e-12)


def test_auroc_counts_equal_probabilities_half():
    labels = np.array([0, 1] * 20)
    probabilities = np.random.default_rng(0).integers(1, 9, 40) / 10
    table = np.stack([1 - probabilities, probabilities], axis=1)
    metric = metric_for("auroc", n_outputs=2)
    value = score(metric, table, labels)
    assert value == pytest.approx(by_scikit_learn("classification", "auroc", table, labels), abs=1e-12)
    loss, _ = paired_loss(metric, np.full((40, 2), 0.5), table, labels)
    assert loss == pytest.approx(0.5 - value, abs=1e-12)


@pytest.mark.parametrize(
    ("task", "name", "labels"),
    [
        ("classification", "auroc", np.zeros(10, dtype=int)),
        ("multilabel", "auroc", np.tile([0, 1, 0, 1, 0, 1], (10, 1))),
        ("multilabel", "map", np.zeros((10, 6), dtype=int)),
        ("regression", "r2", np.full((10, 3), 0.1)),
    ],
)
def test_where_all_is_left_out_a_score_is_not_defined_and_may_be_anything(task, name, labels):
    predictions, _ = example(task, 0, 10)
    metric = found(task, name)
    assert math.isnan(score(metric, predictions, labels))
    assert math.isnan(standard_error(metric, predictions, labels))
    assert interval(metric, predictions, labels) == ((-math.inf, 1) if name == "r2" else (0, 1))


def test_a_target_whose_labels_are_all_equal_is_left_out_of_r2():
    predictions, labels = example("regression", 0, 30)
    labels[:, 2] = 0.1 + 0.2
    assert score(found("regression", "r2"), predictions, labels) == pytest.approx(
        score(metric_for("r2", "regression", n_outputs=2), predictions[:, :2], labels[:, :2])
    )


@pytest.mark.parametrize("offset", [0.0, 1e9])
def test_r2_keeps_its_digits_far_from_nought(offset):
    labels = np.arange(50.0)[:, None]
    metric = metric_for("r2", "regression", n_outputs=1)
    assert score(metric, labels + 1 + offset, labels + offset) == pytest.approx(1 - 50 / np.sum((labels - 24.5) ** 2))


def test_one_certain_error_leaves_log_loss_finite():
    metric = metric_for("log_loss", n_outputs=2)
    assert 30 < score(metric, [[1.0, 0.0]], [1]) < 40
    assert score(metric, [[0.0, 1.0]], [1]) == 0
    metric = metric_for("log_loss", "multilabel", n_outputs=2)
    assert 15 < score(metric, [[1.0, 0.0]], [[0, 0]]) < 20
    assert score(metric, [[1.0, 0.0]], [[1, 0]]) == 0


def test_a_label_is_predicted_above_one_half_only():
    metric = metric_for("accuracy", "multilabel", n_outputs=4)
    assert score(metric, [[0.5, 0.50001, 0.5, 0.2]], [[0, 1, 1, 0]]) == 0.75


@every_metric
def test_standard_error_is_how_far_scores_of_resampled_pictures_spread(task, name):
    predictions, labels = example(task, 1, 150)
    metric, generator = found(task, name), np.random.default_rng(7)
    draws = [generator.integers(0, 150, 150) for _ in range(150)]
    brute = spread([score(metric, predictions[rows], labels[rows]) for rows in draws])
    assert standard_error(metric, predictions, labels) == pytest.approx(brute, rel=0.2)


@every_metric
def test_paired_error_is_how_far_losses_on_resampled_pictures_spread(task, name):
    top, labels = example(task, 1, 150, sharpness=2.5)
    other = 0.3 * top + 0.7 * example(task, 2, 150, sharpness=0.0)[0]
    metric, generator = found(task, name), np.random.default_rng(7)
    draws = [generator.integers(0, 150, 150) for _ in range(150)]
    brute = spread(
        [score(metric, top[rows], labels[rows]) - score(metric, other[rows], labels[rows]) for rows in draws]
    )
    loss, error = paired_loss(metric, top, other, labels)
    assert loss > 0
    assert error == pytest.approx(brute, rel=0.25)
    assert error <= 1.000001 * (standard_error(metric, top, labels) + standard_error(metric, other, labels))


@every_metric
@given(seed=st.integers(0, 10_000))
@settings(max_examples=5)
def test_loss_is_the_difference_of_maximised_scores_and_changes_sign_with_the_roles(task, name, seed):
    top, labels = example(task, seed, 40)
    other, _ = example(task, seed + 1, 40)
    metric = found(task, name)
    loss, error = paired_loss(metric, top, other, labels)
    difference = to_maximised(metric, score(metric, top, labels)) - to_maximised(metric, score(metric, other, labels))
    assert loss == pytest.approx(difference, rel=1e-6, abs=1e-6)
    assert paired_loss(metric, other, top, labels) == pytest.approx((-loss, error), rel=1e-6, abs=1e-6)


@every_metric
def test_a_model_loses_nothing_to_itself(task, name):
    predictions, labels = example(task, 3)
    assert paired_loss(found(task, name), predictions, predictions, labels) == (0.0, 0.0)


@every_metric
def test_knowing_the_truth_is_best(task, name):
    predictions, labels = example(task, 4)
    truth = np.eye(8)[labels] if task == "classification" else labels
    metric = found(task, name)
    best = to_maximised(metric, score(metric, truth, labels))
    assert best > to_maximised(metric, score(metric, predictions, labels))
    assert best == (0 if name in LOSSES else 1)


@every_metric
def test_same_seed_same_uncertainty(task, name):
    predictions, labels = example(task, 5)
    metric = found(task, name)
    first, again, other = (standard_error(metric, predictions, labels, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert (first != other) == (name in RESAMPLED - {"r2", "rmse"})
    first, again, other = (interval(metric, predictions, labels, seed=seed) for seed in (1, 1, 2))
    assert first == again
    is_counted = task == "classification" and name in {"accuracy", "top5"}
    assert (first == other) == (is_counted or name in {"balanced_accuracy", "f1_macro", "auroc", "map"})


@pytest.mark.parametrize(("task", "name"), [("classification", "accuracy"), ("classification", "f1_macro")])
def test_one_picture_tells_nothing_about_its_own_error(task, name):
    metric = metric_for(name, task, n_outputs=2)
    assert standard_error(metric, [[0.9, 0.1]], [0]) == math.inf
    assert paired_loss(metric, [[0.9, 0.1]], [[0.1, 0.9]], [0]) == (1.0, math.inf)
    assert interval(metric, [[0.9, 0.1]], [0]) == (0, 1)


@pytest.mark.parametrize(("task", "name"), [("regression", "mae"), ("regression", "rmse"), ("multilabel", "log_loss")])
def test_a_loss_of_one_picture_may_be_as_large_as_can_be(task, name):
    predictions, labels = example(task, 0, 1)
    assert interval(found(task, name), predictions, labels) == (0, math.inf)


@pytest.mark.parametrize(
    ("task", "predictions", "labels", "message"),
    [
        ("classification", [[0.5, 0.5]], [0, 1], r"\(1, 2\) and \(2,\) came"),
        ("classification", [[0.5, 0.3, 0.2]], [0], r"probabilities \(n_images, 2\) and labels \(n_images,\)"),
        ("classification", np.empty((0, 2)), np.empty(0, dtype=int), "at least one picture"),
        ("classification", [[np.nan, 0.5]], [0], "diverged"),
        ("classification", [[4.0, -3.0]], [0], "not logits"),
        ("classification", [[0.5, 0.5]], [2], "whole numbers from 0 to 1; int64 from 2 to 2 came"),
        ("classification", [[0.5, 0.5]], [0.0], "float64"),
        ("multilabel", [[0.5, 0.5]], [0], r"labels \(n_images, 2\), at least one picture; \(1, 2\) and \(1,\) came"),
        ("multilabel", [[0.5, np.nan]], [[0, 1]], "diverged"),
        ("multilabel", [[0.5, -7.0]], [[0, 1]], "not logits"),
        ("multilabel", [[0.5, 0.5]], [[0, 2]], "has the label and 0 where it has not; int64 from 0 to 2 came"),
        ("regression", [0.5, 0.5], [0.5, 0.5], r"numbers \(n_images, 2\) and labels \(n_images, 2\)"),
        ("regression", [[0.5, np.nan]], [[0.0, 1.0]], "finite numbers as predictions. NaN means a diverged"),
        ("regression", [[0.5, 0.5]], [[0.0, np.nan]], "float64 came with NaN or infinity"),
        ("regression", [[0.5, 0.5]], [["a", "b"]], "finite numbers; <U1 came. Leave out"),
    ],
)
def test_what_cannot_be_scored_is_named(task, predictions, labels, message):
    with pytest.raises(MetricError, match=message):
        score(metric_for(None, task, n_outputs=2), predictions, labels)


def test_labels_of_any_kind_of_number_are_taken():
    table = [[0.9, 0.2], [0.3, 0.8]]
    metric = metric_for("accuracy", "multilabel", n_outputs=2)
    for kind in (bool, np.uint8, np.float32):
        assert score(metric, table, np.array([[1, 0], [0, 1]], dtype=kind)) == 1
    assert score(metric_for("mae", "regression", n_outputs=2), table, np.zeros((2, 2), np.uint8)) == 0.55


def test_a_thousand_classes_are_resampled_as_few_are():
    labels = np.arange(3000) % 1000
    probabilities = np.full((3000, 1000), 0.0005)
    probabilities[np.arange(3000), (labels + (labels < 500)) % 1000] = 0.5
    low, high = interval(metric_for("balanced_accuracy", n_outputs=1000), probabilities, labels)
    assert 0.47 < low < 0.5 < high < 0.53


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_r2_does_not_hang_on_the_unit_of_the_labels(unit):
    predictions, labels = example("regression", 105, 3, digits=1)
    value = score(found("regression", "r2"), predictions * unit, labels * unit)
    assert value == pytest.approx(by_scikit_learn("regression", "r2", predictions, labels), rel=1e-6)


def test_a_single_label_is_scored_as_several_are():
    metric = metric_for("f1_macro", "multilabel", n_outputs=1)
    assert score(metric, [[0.9], [0.1]], [[1], [0]]) == 1
    precision = metric_for("map", "multilabel", n_outputs=1)
    assert score(precision, np.random.default_rng(0).random((40, 1)), np.ones((40, 1), int)) == 1


def test_the_error_of_r2_on_few_pictures_is_no_larger_than_how_far_it_strays():
    """Resampled, the middle one would be half as large again, and the largest seven times."""
    metric, rng = metric_for("r2", "regression", n_outputs=1), np.random.default_rng(0)
    labels = rng.normal(size=(60, 10, 1))
    errors = [
        standard_error(metric, said, own)
        for said, own in zip(labels + rng.normal(0, 0.6, labels.shape), labels, strict=True)
    ]
    assert 0.05 < np.median(errors) < 0.5
    assert max(errors) < 2


def test_all_right_is_not_surely_right():
    metric = metric_for("accuracy", n_outputs=2)
    for n in (2, 7, 100):
        right = standard_error(metric, [[0.9, 0.1]] * n, [0] * n)
        assert right == pytest.approx(standard_error(metric, [[0.1, 0.9]] * n, [0] * n))
        assert 0.4 / n < right < 0.8 / n

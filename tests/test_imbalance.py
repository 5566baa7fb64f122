from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score
from sklearn.utils.class_weight import compute_class_weight

from autobackbone.imbalance import balanced_metric, class_weights, is_uneven, positive_weights, told
from autobackbone.metrics import metric_for, score

ACCURACY = metric_for("accuracy", n_outputs=2)


def counts(*numbers):
    return pd.Series(numbers, index=pd.Index([f"c{i}" for i in range(len(numbers))], dtype=object))


@given(st.lists(st.integers(0, 6), min_size=1, max_size=80))
def test_weights_are_those_of_scikit_learn_and_1_on_average(labels):
    labels = np.array(labels)
    present = np.unique(labels)
    weights = class_weights(labels)
    np.testing.assert_allclose(weights[present], compute_class_weight("balanced", classes=present, y=labels))
    assert weights[labels].mean() == pytest.approx(1)
    assert (np.delete(weights, present) == 0).all()


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=80))
def test_with_its_weight_a_label_counts_as_much_as_its_absence(rows):
    labels = np.array(rows)
    weights = positive_weights(labels)
    for label, weight in zip(labels.T, weights, strict=True):
        n_with, n_without = label.sum(), (1 - label).sum()
        if 0 in (n_with, n_without):
            assert weight == 1
        elif n_without <= 20 * n_with:
            assert weight * n_with == pytest.approx(n_without)
        else:
            assert weight == 20


def test_ten_to_one_is_told_and_four_to_one_is_not():
    (line,) = told(counts(1000, 300, 100), 1400, ACCURACY)
    assert "1,000 pictures to train on of 'c0', 100 of 'c2'" in line
    assert "plain accuracy mostly tells of the large ones: the balanced figure stands beside it" in line
    assert "space={'class_weights': 'balanced'} makes all count the same" in line
    assert "space=" not in told(counts(1000, 100), 1100, ACCURACY, is_answered=True)[0]
    for even in (counts(400, 100), counts(500, 100)):
        assert told(even, even.sum(), ACCURACY) == ()
        assert balanced_metric(even, ACCURACY) is None
    assert is_uneven(counts(501, 100))


def test_the_line_says_what_is_true_of_the_metric():
    uneven = counts(1000, 100)
    names = ("top5", "log_loss", "balanced_accuracy", "f1_macro", "auroc")
    lines = {name: told(uneven, 1100, metric_for(name, n_outputs=6))[0] for name in names}
    assert "plain top5" in lines["top5"]
    assert "stands beside it" not in lines["log_loss"]
    assert "plain log_loss" in lines["log_loss"]
    assert not any("plain" in lines[name] for name in ("balanced_accuracy", "f1_macro", "auroc"))
    beside = {name: balanced_metric(uneven, metric_for(name, n_outputs=6)) for name in lines}
    assert {name for name, metric in beside.items() if metric is not None} == {"top5"}


def test_rare_labels_are_named_from_the_rarest_on():
    metric = metric_for("map", "multilabel", n_outputs=3)
    (line,) = told(counts(49, 50, 3), 1000, metric)
    assert "1 in 20 of 1,000 pictures to train on: 'c2' (3), 'c0' (49). space={'class_weights': 'balanced'}" in line
    assert told(counts(50, 500), 1000, metric) == ()
    assert balanced_metric(counts(49, 500), metric) is None
    (line,) = told(pd.Series(range(12)), 1000, metric, is_answered=True)
    assert line.endswith("9 (9), …")


def test_numbers_to_predict_have_no_classes():
    metric = metric_for("r2", "regression", n_outputs=1)
    assert told(counts(1000), 1000, metric) == ()
    assert balanced_metric(counts(1000), metric) is None


def test_the_balanced_figure_is_scikit_learns():
    generator = np.random.default_rng(0)
    labels, table = generator.choice(3, 300, p=[0.8, 0.15, 0.05]), generator.dirichlet(np.ones(3), 300)
    metric = balanced_metric(counts(800, 150, 50), metric_for("accuracy", n_outputs=3))
    assert score(metric, table, labels) == pytest.approx(balanced_accuracy_score(labels, table.argmax(1)))

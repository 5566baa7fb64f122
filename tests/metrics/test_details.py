"""Against scikit-learn, on predictions of every task."""

import numpy as np
import pytest
from sklearn.metrics import (
    average_precision_score,
    confusion_matrix,
    mean_absolute_error,
    precision_score,
    recall_score,
)
from tests.metrics.conftest import N_OUTPUTS, example

from autobackbone.metrics.details import confusions, label_scores, number_scores


@pytest.mark.parametrize("seed", range(4))
def test_classes_are_counted_as_by_scikit_learn(seed):
    predictions, labels = example("classification", seed, n_present=5)
    expected = confusion_matrix(labels, predictions.argmax(axis=1), labels=range(N_OUTPUTS["classification"]))
    np.testing.assert_array_equal(confusions(predictions, labels), expected)


@pytest.mark.parametrize("seed", range(4))
def test_labels_are_scored_as_by_scikit_learn_and_what_is_not_defined_is_none(seed):
    predictions, labels = example("multilabel", seed, n_present=4)
    predictions[:, 5] = 0.1
    said = predictions > 0.5
    for column, found in enumerate(label_scores(predictions, labels)):
        truth = labels[:, column]
        assert found.n == truth.sum()
        precision = precision_score(truth, said[:, column], zero_division=np.nan)
        recall = recall_score(truth, said[:, column], zero_division=np.nan)
        np.testing.assert_allclose([found.precision, found.recall], [precision, recall])
        if truth.any():
            assert found.average_precision == pytest.approx(
                average_precision_score(truth, predictions[:, column]), abs=1e-5
            )
        else:
            assert np.isnan(found.average_precision)
    assert np.isnan(label_scores(predictions, labels)[5].precision)


def test_numbers_are_scored_each_in_its_own_unit():
    predictions, labels = example("regression", 0)
    for column, found in enumerate(number_scores(predictions, labels)):
        assert found.mean_absolute_error == pytest.approx(
            mean_absolute_error(labels[:, column], predictions[:, column])
        )
        assert found.bias == pytest.approx((predictions - labels)[:, column].mean())
        assert found.spread == pytest.approx(labels[:, column].std())

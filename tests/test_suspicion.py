import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.datasets import load_digits

from autobackbone.convexhead import fit_head
from autobackbone.suspicion import mean_known, suspicion_of

shares = st.floats(0.01, 1.0)


def planted(seed, n_wrong=90):
    """Handwritten digits, a twentieth of whose labels were exchanged: features, labels, and which ones are wrong."""
    digits = load_digits()
    generator = np.random.default_rng(seed)
    wrong = generator.choice(len(digits.target), n_wrong, replace=False)
    labels = digits.target.copy()
    labels[wrong] = (labels[wrong] + generator.integers(1, 10, n_wrong)) % 10
    return digits.data.astype(np.float32), labels, wrong, digits.target


@pytest.mark.parametrize("seed", range(3))
def test_exchanged_labels_of_real_digits_come_first_and_with_the_right_suggestion(seed):
    features, labels, wrong, truth = planted(seed)
    found = suspicion_of(fit_head(features, labels, n_outputs=10, seed=0).out_of_fold, labels, "classification")
    assert np.isin(found.pictures[:50], wrong).all()
    assert np.isin(found.pictures[: len(wrong)], wrong).mean() >= 0.9
    assert np.isin(wrong, found.pictures).mean() >= 0.95
    is_wrong = np.isin(found.pictures, wrong)
    assert (found.outputs[is_wrong] == truth[found.pictures[is_wrong]]).mean() >= 0.9


@given(arrays(np.float64, (12, 3), elements=shares), arrays(np.int64, 12, elements=st.integers(0, 2)))
def test_listed_is_whatever_has_a_likelier_class_the_most_contradicted_first(said, labels):
    said /= said.sum(axis=1, keepdims=True)
    found = suspicion_of(said, labels, "classification")
    given = said[np.arange(12), labels]
    assert set(found.pictures.tolist()) == set(np.flatnonzero(said.max(axis=1) > given).tolist())
    assert (np.diff(found.scores) <= 0).all()
    np.testing.assert_array_equal(found.outputs, said[found.pictures].argmax(axis=1))
    np.testing.assert_array_equal(found.given, given[found.pictures])
    np.testing.assert_allclose(found.scores, np.log((found.suggested + 0.05) / (found.given + 0.05)))


@given(arrays(np.float64, (12, 3), elements=st.floats(0.0, 1.0)), arrays(np.int64, (12, 3), elements=st.integers(0, 1)))
def test_of_several_labels_the_worst_one_of_each_picture_counts(said, labels):
    found = suspicion_of(said, labels, "multilabel")
    given = np.where(labels == 1, said, 1 - said)
    assert set(found.pictures.tolist()) == set(np.flatnonzero(given.min(axis=1) < 0.5).tolist())
    np.testing.assert_array_equal(found.given, given.min(axis=1)[found.pictures])
    np.testing.assert_array_equal(given[found.pictures, found.outputs], found.given)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_numbers_far_from_what_is_said_are_listed_in_any_unit(scale):
    generator = np.random.default_rng(0)
    truth = generator.normal(size=(400, 2))
    labels = truth + 0.1 * generator.normal(size=(400, 2))
    labels[[7, 3], [1, 0]] += [2.0, -3.0]
    found = suspicion_of(scale * truth, scale * labels, "regression")
    assert found.pictures[:2].tolist() == [3, 7]
    assert found.outputs[:2].tolist() == [0, 1]
    assert found.scores[0] == pytest.approx(30, rel=0.15)
    assert len(found.pictures) < 10
    assert (found.scores > 3).all()
    assert np.isnan(found.given).all()


def test_numbers_that_are_all_as_said_leave_nothing_to_suspect():
    labels = np.arange(5.0)[:, None]
    assert len(suspicion_of(labels, labels, "regression").pictures) == 0


@pytest.mark.parametrize(
    ("task", "labels"),
    [
        ("classification", np.array([0, 0, 1])),
        ("multilabel", np.array([[1, 0], [1, 0], [1, 0]])),
        ("regression", np.zeros((3, 2))),
    ],
)
def test_what_nobody_judges_is_not_suspected(task, labels):
    said = np.full((3, 2), np.nan)
    assert len(suspicion_of(said, labels, task).pictures) == 0
    assert len(suspicion_of(said[:0], labels[:0], task).pictures) == 0
    said[1] = (0.1, 0.9)
    assert set(suspicion_of(said, labels, task).pictures) <= {1}


def test_a_label_that_nobody_judges_is_passed_over():
    found = suspicion_of(np.array([[np.nan, 0.8]]), np.array([[1, 0]]), "multilabel")
    assert found.outputs.tolist() == [1]
    assert found.given == pytest.approx([0.2])


@given(arrays(np.float64, (4, 3, 2), elements=st.floats(-1e3, 1e3) | st.just(np.nan)))
def test_a_mean_is_over_those_that_say_something(said):
    found = mean_known(list(said))
    for at in np.ndindex(found.shape):
        known = said[(slice(None), *at)]
        known = known[np.isfinite(known)]
        assert np.isnan(found[at]) if len(known) == 0 else found[at] == pytest.approx(known.mean(), abs=1e-9)

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import log_loss

from autobackbone.calibration import (
    calibrated,
    calibration_of,
    expected_calibration_error,
    fit_temperature,
    settled_temperature,
)
from autobackbone.crossfitting import Scored
from autobackbone.errors import MetricError

N = 4000


def drawn(factor, *, n=N, n_classes=5, scale=2.0, multilabel=False, seed=0):
    """Labels drawn from a network's own probabilities, which then says `factor` times its logits."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, scale / 2 if multilabel else scale, (n, n_classes))
    shares = 1 / (1 + np.exp(-logits)) if multilabel else softmax(logits)
    luck = generator.random((n, n_classes if multilabel else 1))
    labels = (luck < shares).astype(np.int64) if multilabel else (luck > shares.cumsum(axis=1)).sum(axis=1)
    said = 1 / (1 + np.exp(-factor * logits)) if multilabel else softmax(factor * logits)
    return Scored(said.astype(np.float32), labels)


def softmax(logits):
    return torch.softmax(torch.from_numpy(logits), dim=1).numpy()


KINDS = pytest.mark.parametrize("multilabel", [False, True])


@KINDS
@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_the_temperature_undoes_what_was_multiplied(factor, multilabel):
    scored = drawn(factor, multilabel=multilabel)
    assert fit_temperature(*scored) == pytest.approx(factor, rel=0.08)
    corrected = calibrated(scored.predictions, factor, multilabel=multilabel)
    np.testing.assert_allclose(corrected, drawn(1.0, multilabel=multilabel).predictions, atol=1e-4)


@KINDS
@pytest.mark.parametrize("factor", [0.5, 3.0])
@pytest.mark.parametrize("has_test", [False, True])
def test_what_it_does_is_measured_on_pictures_that_it_has_not_seen(factor, multilabel, has_test):
    validation = drawn(factor, multilabel=multilabel)
    test = drawn(factor, n=2000, multilabel=multilabel, seed=1) if has_test else None
    found = calibration_of(validation, test)
    assert (found.measured_on, found.n_images) == (("test", 2000) if has_test else ("validation", N))
    assert found.temperature == fit_temperature(*validation)
    assert found.ece_after < 0.6 * found.ece_before
    assert found.log_loss_after < found.log_loss_before
    on = test or validation
    assert found.ece_before == expected_calibration_error(*on)
    if not has_test:  # the temperature that saw them all does a little better on them
        seen = calibrated(on.predictions, found.temperature, multilabel=multilabel)
        assert found.log_loss_after > mean_log_loss(seen, on.labels)


def mean_log_loss(probabilities, labels):
    if labels.ndim == 1:
        return log_loss(labels, normalised(probabilities))
    return np.mean([log_loss(labels[:, i], probabilities[:, i].astype(float)) for i in range(labels.shape[1])])


def normalised(probabilities):
    return probabilities / probabilities.astype(float).sum(axis=1, keepdims=True)


@KINDS
def test_the_losses_are_those_of_scikit_learn(multilabel):
    scored = drawn(3.0, n=200, multilabel=multilabel)
    found = calibration_of(drawn(3.0, multilabel=multilabel), scored)
    corrected = calibrated(scored.predictions, found.temperature, multilabel=multilabel)
    assert found.log_loss_before == pytest.approx(mean_log_loss(scored.predictions, scored.labels), rel=1e-5)
    assert found.log_loss_after == pytest.approx(mean_log_loss(corrected, scored.labels), rel=1e-5)


# Certain ones, too: a softmax of large logits ends at 0 and 1.
probabilities = arrays(
    np.float64, st.tuples(st.integers(1, 6), st.integers(2, 5)), elements=st.sampled_from([0.0, 1e-30, 0.1, 0.7, 90.0])
).map(lambda logits: softmax(logits * 3).astype(np.float32))


@given(probabilities, st.floats(0.2, 5.0), st.booleans())
def test_the_likeliest_class_stays_and_certain_ones_make_no_nan(table, temperature, multilabel):
    corrected = calibrated(table, temperature, multilabel=multilabel)
    assert corrected.dtype == np.float32
    assert np.isfinite(corrected).all()
    rows, likeliest = np.arange(len(table)), table.argmax(axis=1)
    assert (corrected[rows, likeliest] == corrected.max(axis=1)).all()
    if multilabel:
        assert ((corrected > 0.5) <= (table >= 0.5)).all()
    else:
        np.testing.assert_allclose(corrected.sum(axis=1), 1, atol=1e-5)
    assert (calibrated(table, 1.0, multilabel=multilabel) == table).all()


def ece_by_definition(said, is_right):
    bins = np.ceil(said * 15).clip(1)
    gaps = [(bins == i).mean() * abs(said[bins == i].mean() - is_right[bins == i].mean()) for i in set(bins)]
    return sum(gaps)


@given(st.integers(0, 1000), st.integers(1, 60))
def test_the_error_is_its_definition_also_where_a_sum_is_above_one(seed, n):
    table, labels = drawn(8.0, n=n, seed=seed)
    expected = ece_by_definition(table.max(axis=1).astype(float), table.argmax(axis=1) == labels)
    assert expected_calibration_error(table, labels) == pytest.approx(expected, abs=1e-5)
    rounded_up = np.where(table > 0.9999, np.float32(1.0001), table)
    assert expected_calibration_error(rounded_up, labels) == pytest.approx(expected, abs=2e-4)
    several = drawn(2.0, n=n, seed=seed, multilabel=True)
    each = [ece_by_definition(several[0][:, i].astype(float), several[1][:, i]) for i in range(5)]
    assert expected_calibration_error(*several) == pytest.approx(np.mean(each), abs=1e-5)


@KINDS
def test_pictures_that_were_not_reached_count_for_nothing(multilabel):
    whole = drawn(3.0, n=300, multilabel=multilabel)
    table = np.concatenate([np.full((200, 5), np.nan, np.float32), whole.predictions])
    labels = np.concatenate([whole.labels[:200], whole.labels])
    assert fit_temperature(table, labels) == fit_temperature(*whole)
    assert calibration_of(Scored(table, labels)) == calibration_of(whole)


@KINDS
def test_a_temperature_that_cannot_be_trusted_is_one(multilabel):
    scored = drawn(3.0, n=29, multilabel=multilabel)
    assert settled_temperature(*scored) == 1  # too few pictures
    assert fit_temperature(*scored) > 1.5
    found = calibration_of(scored)
    assert (found.ece_after, found.log_loss_after) == (found.ece_before, found.log_loss_before)
    perfect = drawn(0.5, n=300, multilabel=multilabel).predictions
    truth = (perfect > 0.5).astype(int) if multilabel else perfect.argmax(axis=1)
    assert fit_temperature(perfect, truth) == pytest.approx(0.2, rel=0.01)  # at its bound
    assert settled_temperature(perfect, truth) == 1


def test_a_network_that_is_right_is_mostly_left_alone_and_hardly_moved_otherwise():
    settled = [settled_temperature(*drawn(1.0, n=200, seed=seed)) for seed in range(20)]
    assert settled.count(1.0) > 5
    assert max(settled) < 1.4
    assert min(settled) > 0.7


@pytest.mark.parametrize(
    ("table", "labels", "message"),
    [
        ([0.5, 0.5], [0, 1], r"needs probabilities .*; \(2,\) and \(2,\) came"),
        ([[0.5, 0.5]], [0, 1], r"\(1, 2\) and \(2,\) came"),
        ([[0.5, 0.5]], [[0, 1, 1]], r"\(1, 2\) and \(1, 3\) came"),
        ([[np.nan, 0.5]], [0], "none of 1 was"),
        (np.empty((0, 2)), [], "none of 0 was"),
    ],
)
def test_what_cannot_be_calibrated_is_named(table, labels, message):
    for function in (fit_temperature, settled_temperature, expected_calibration_error):
        with pytest.raises(MetricError, match=message):
            function(table, labels)


@pytest.mark.parametrize("factor", [1.0, 3.0])
def test_the_sentence_has_both_figures_whether_a_temperature_helps_or_not(factor):
    found = calibration_of(drawn(factor), drawn(factor, seed=1))
    assert (found.temperature == 1) == (factor == 1)
    before, after = (f"{100 * error:.1f}" for error in (found.ece_before, found.ece_after))
    sentence = f"off by {before} points, corrected (temperature {found.temperature:.2f}) by {after}"
    assert sentence in str(found)
    assert ("they stay as they are" in str(found)) == (factor == 1)

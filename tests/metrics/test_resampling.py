"""Resampling by counts against scipy's own by pictures."""

import math

import numpy as np
import pytest
from scipy.stats import bootstrap
from tests.metrics.conftest import ALL, RESAMPLED, example, found

from autobackbone.metrics import interval, score
from autobackbone.metrics.resampling import resampled_error, resampled_interval
from autobackbone.metrics.shares import mean_of
from autobackbone.metrics.totals import statistic_of


@pytest.mark.parametrize(("task", "name"), [pair for pair in ALL if pair[1] in RESAMPLED])
@pytest.mark.parametrize("digits", [1, 9])
def test_counting_a_picture_twice_is_having_it_twice_to_torchmetrics(task, name, digits):
    predictions, labels = example(task, 0, 40, digits=digits)
    metric = found(task, name)
    rows = np.random.default_rng(1).integers(0, 40, (30, 25))
    counts = np.stack([np.bincount(row, minlength=40) for row in rows]).astype(float)
    scores = [score(metric, predictions[row], labels[row]) for row in rows]
    np.testing.assert_allclose(statistic_of(metric, predictions, labels)(counts), scores, rtol=1e-6)


@pytest.mark.parametrize("name", ["f1_micro"])
def test_the_interval_is_scipys_of_the_same_resamples(name):
    predictions, labels = example("multilabel", 0, 90)
    metric = found("multilabel", name)
    theirs = bootstrap(
        (np.arange(90),),
        lambda rows: score(metric, predictions[rows], labels[rows]),
        n_resamples=999,
        vectorized=False,
        method="BCa",
        rng=np.random.default_rng(0),
    ).confidence_interval
    assert interval(metric, predictions, labels) == pytest.approx(tuple(theirs), abs=1e-6)


def test_groups_of_pictures_tell_the_acceleration_well_enough():
    shares = np.random.default_rng(0).lognormal(size=3000)
    theirs = bootstrap((shares,), np.mean, n_resamples=999, batch=100, method="BCa", rng=np.random.default_rng(0))
    low, high = theirs.confidence_interval
    ours = resampled_interval(mean_of(shares), 3000, confidence=0.95, seed=0)
    assert ours == pytest.approx((low, high), abs=0.03 * (high - low))


def test_where_no_correction_is_defined_percentiles_are_given():
    """The largest of some numbers: no resample is above it, so that the correction is infinite."""
    numbers = np.arange(20.0)

    def largest(counts):
        return np.where(counts > 0, numbers, -1).max(axis=1)

    low, high = resampled_interval(largest, 20, confidence=0.9, seed=0)
    assert high == 19
    assert 15 <= low < 19


def test_resamples_without_a_score_are_left_out():
    shares = np.array([0.0, 1.0, 2.0, 3.0])

    def without_the_first(counts):
        return np.where(counts[:, 0] > 0, math.nan, mean_of(shares)(counts))

    error = resampled_error(without_the_first, 4, seed=0)
    assert error == pytest.approx(np.std(shares[1:]) / 2, rel=0.1)
    low, high = resampled_interval(without_the_first, 4, confidence=0.95, seed=0)
    assert 1 <= low < high <= 3


@pytest.mark.parametrize("value", [math.nan, 5.0])
def test_one_score_in_the_few_resamples_that_have_one_tells_nothing(value):
    def seldom(counts):
        return np.where(counts[:, 0] == 1, value, math.nan)

    assert resampled_interval(seldom, 3, confidence=0.95, seed=0) is None

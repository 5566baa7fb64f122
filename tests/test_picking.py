import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autobackbone.crossfitting import halves
from autobackbone.metrics import metric_for, score, to_maximised
from autobackbone.picking import Picking, mean_of

ACCURACY, LOSS, AUROC = (metric_for(name, n_outputs=3) for name in ("accuracy", "log_loss", "auroc"))
METRICS = st.sampled_from([ACCURACY, LOSS, AUROC])
OTHERS = [metric_for(name, task, n_outputs=3) for name, task in (("map", "multilabel"), ("rmse", "regression"))]


def drawn(n_networks, *, n=60, seed=0, noise=1.5):
    """Networks that see the truth, each through noise of its own."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 3, n)
    logits = 2 * np.eye(3)[labels] + generator.normal(0, noise, (n_networks, n, 3))
    shares = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    return list(shares.astype(np.float32)), labels


def drawn_for(metric, n_networks, *, seed):
    """Of classes, of labels each for itself, or numbers."""
    said, classes = drawn(n_networks, seed=seed)
    labels = np.eye(3)[classes]
    if metric.task == "regression":
        return said, labels
    return (said, classes) if metric.task == "classification" else (said, labels.astype(np.int64))


def judged(metric, said, labels):
    return to_maximised(metric, score(metric, said, labels))


@given(
    st.integers(1, 5),
    st.integers(0, 100),
    st.one_of(METRICS, st.sampled_from(OTHERS)),
    st.sampled_from([9e9, 10.0, 4.0]),
)
def test_what_is_picked_is_within_the_limit_and_no_worse_than_the_best_alone(n_networks, seed, metric, most_ms):
    said, labels = drawn_for(metric, n_networks, seed=seed)
    latencies = [4.0, 1.0, 3.0, 2.0, 4.0][:n_networks]
    picking = Picking(said, labels, metric, latencies, most_ms)
    weights = picking.picked()
    assert weights.sum() >= 1
    assert sum(ms for ms, weight in zip(latencies, weights, strict=True) if weight) <= most_ms
    alone = [judged(metric, one, labels) for one in said]
    assert alone[picking.top()] == max(alone)
    assert judged(metric, mean_of(said, weights), labels) >= max(alone)


@given(st.integers(1, 5), st.integers(0, 50), METRICS)
def test_of_identical_networks_one_is_taken_the_fastest(n_networks, seed, metric):
    (one,), labels = drawn(1, seed=seed)
    latencies = [5.0, 3.0, 4.0, 2.0, 6.0][:n_networks]
    picking = Picking([one] * n_networks, labels, metric, latencies)
    assert picking.picked().tolist() == picking.alone(int(np.argmin(latencies))).tolist()
    assert picking.gain()[0] == 0


def test_two_that_complement_each_other_are_found_among_copies_of_the_better_one():
    """One knows the even pictures and leans to the wrong class on the odd ones, the other the other way round."""
    labels = np.arange(100) % 2
    knows = np.where(labels == 0, 0.95, 0.45)
    other = np.where(labels == 0, 0.45, 0.94)
    said = [np.eye(2)[labels] * p[:, None] + np.eye(2)[1 - labels] * (1 - p[:, None]) for p in (knows, knows, other)]
    said = [one.astype(np.float32) for one in said]
    accuracy = metric_for("accuracy", n_outputs=2)
    picking = Picking(said, labels, accuracy, [2.0, 1.0, 1.0])
    weights = picking.picked()
    assert weights[2] > 0
    assert weights[:2].sum() > 0
    assert score(accuracy, mean_of(said, weights), labels) == 1
    gain, error = picking.gain()
    assert gain == pytest.approx(0.5)
    assert 0 < error < 0.1
    # Together they take too long: the best alone that fits is taken.
    assert Picking(said, labels, accuracy, [2.0, 1.0, 1.0], 1.9).picked().sum() == 1


def test_the_gain_is_near_to_that_on_many_further_pictures():
    said_gains, true_gains = [], []
    for seed in range(40):
        said, labels = drawn(6, n=3060, seed=seed, noise=2.5)
        picking = Picking([one[:60] for one in said], labels[:60], ACCURACY, [1.0] * 6)
        said_gains.append(picking.gain()[0])
        further = [one[60:] for one in said]
        together = score(ACCURACY, mean_of(further, picking.picked()), labels[60:])
        true_gains.append(together - score(ACCURACY, further[picking.top()], labels[60:]))
    assert np.mean(true_gains) > 0.1
    assert np.mean(said_gains) == pytest.approx(np.mean(true_gains), abs=0.04)


def test_the_gain_is_the_mean_over_halves_by_definition():
    said, labels = drawn(4, seed=3)
    one, other = halves(labels)
    gains, errors = [], []
    for fitted, measured in ((one, other), (other, one)):
        half = Picking([each[fitted] for each in said], labels[fitted], LOSS, [1.0] * 4)
        rest = [each[measured] for each in said]
        losses = [nats(each, labels[measured]) for each in (rest[half.top()], mean_of(rest, half.picked()))]
        gains.append(np.mean(losses[0] - losses[1]))
        errors.append(np.std(losses[0] - losses[1], ddof=1) / np.sqrt(len(measured)))
    found = Picking(said, labels, LOSS, [1.0] * 4).gain()
    assert found == pytest.approx((np.mean(gains), np.hypot(*errors) / 2))


def nats(said, labels):
    return -np.log(said[np.arange(len(labels)), labels] / said.sum(axis=1))


@pytest.mark.parametrize("metric", OTHERS, ids=lambda metric: metric.name)
def test_labels_and_numbers_gain_from_several(metric):
    said, labels = drawn_for(metric, 6, seed=1)
    picking = Picking(said, labels, metric, [1.0] * 6)
    gain, error = picking.gain()
    assert np.count_nonzero(picking.picked()) > 1
    assert gain > error > 0


def test_too_few_pictures_say_nothing():
    said, labels = drawn(3, n=1)
    assert Picking(said, labels, ACCURACY, [1.0] * 3).gain() == (0.0, math.inf)
    said, labels = drawn(3, n=3)
    assert Picking(said, labels, ACCURACY, [1.0] * 3).gain()[1] == math.inf


def test_a_score_that_is_not_defined_picks_the_fastest_alone():
    said, _ = drawn(3)
    picking = Picking(said, np.zeros(60, np.int64), AUROC, [3.0, 1.0, 2.0])  # of a single class there is no area
    assert picking.picked().tolist() == [0, 1, 0]


@given(st.lists(st.integers(0, 5), min_size=3, max_size=3).filter(any))
def test_a_mean_is_that_of_repetitions(weights):
    said, _ = drawn(3)
    repeated = [one for one, weight in zip(said, weights, strict=True) for _ in range(weight)]
    mean = mean_of(said, weights)
    assert mean.dtype == np.float32
    np.testing.assert_allclose(mean, np.mean(repeated, axis=0), atol=1e-6)

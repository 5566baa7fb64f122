import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.test_choosing import trial
from tests.test_picking import ACCURACY, LOSS, drawn

from autobackbone.crossfitting import Scored, halves
from autobackbone.ensembling import ensemble_of
from autobackbone.errors import ArgumentError, LimitsError, RunError
from autobackbone.judging import Judged
from autobackbone.metrics import score
from autobackbone.picking import mean_of
from autobackbone.records import Task
from autobackbone.tasks import said_by


@dataclass
class Table:
    """What trials say, from a table; "pictures" are rows of it."""

    validation: list[Any]
    labels: Any
    test: dict[int, Any] = field(default_factory=dict)
    test_labels: Any = None
    task: Task = "classification"

    def has_scored(self, one, part):
        return part == "validation" or one.number in self.test

    def scored(self, one, part):
        if part == "test":
            return Scored(self.test[one.number], self.test_labels)
        return Scored(self.validation[one.number], self.labels)

    def predictions(self, images, one):
        return self.validation[one.number][images]

    def said_by(self, predictions):
        return said_by(predictions, self.task, ("a", "b", "c"))


def front_of(said, labels, latencies, metric=ACCURACY):
    return [trial(i, score(metric, one, labels), ms) for i, (one, ms) in enumerate(zip(said, latencies, strict=True))]


def better_together(n=400):
    """Three networks with much noise of their own."""
    return drawn(3, n=n, noise=2.5)


def test_networks_that_are_better_together_predict_together():
    said, labels = better_together()
    front = front_of(said, labels, [1.0, 2.0, 4.0])
    found = ensemble_of(front, Table(said, labels), ACCURACY)
    assert found.is_better
    assert found.gain > found.gain_error > 0
    assert len(found.members) == len(found.weights) > 1
    assert list(found.members) == [one for one in front if one in found.members]
    assert found.latency_ms == sum(one.latency_ms for one in found.members)
    mean = mean_of([said[one.number] for one in found.members], found.weights)
    assert found.score == score(ACCURACY, mean, labels) > max(one.score for one in front)
    rows = np.array([5, 3, 8])
    np.testing.assert_array_equal(found.predict_proba(rows), mean[rows])
    assert found.predict(rows).tolist() == [("a", "b", "c")[code] for code in mean[rows].argmax(axis=1)]
    numbers = ", ".join(str(member.number) for member in found.members)
    start = f"{len(found.members)} networks together, trials {numbers}, {found.latency_ms:.1f} ms, are better than"
    assert found.reason.startswith(start)
    assert "points of accuracy on pictures that did not pick them" in found.reason
    assert str(found) == found.reason


def test_where_the_front_has_folds_they_pick():
    """Twenty validation pictures say the first alone; the folds of all say the second."""
    said, labels = drawn(2, n=200, noise=0.0)
    wrong = np.roll(said[0], 1, axis=1)
    validation = [said[0][:20], wrong[:20]]
    folds = {0: np.stack([wrong, said[0]]), 1: np.stack([said[1], wrong])}  # the first repeat counts
    front = [replace(one, fold_score=0.5, fold_se=0.1) for one in front_of(validation, labels[:20], [1.0, 2.0])]
    judged = Judged.by_folds(front, lambda one: folds[one.number], labels)
    table = Table(validation, labels[:20])
    assert [one.number for one in ensemble_of(front, table, ACCURACY).members] == [0]
    by_folds = ensemble_of(front, table, ACCURACY, judged=judged)
    assert [one.number for one in by_folds.members] == [1]
    assert by_folds.score == score(ACCURACY, said[1], labels)


@given(st.integers(0, 60), st.integers(1, 4), st.sampled_from([ACCURACY, LOSS]), st.sampled_from([None, 3.0, 6.0]))
def test_it_is_never_worse_than_its_best_member_nor_slower_than_allowed(seed, n_networks, metric, max_latency_ms):
    said, labels = drawn(n_networks, n=40, seed=seed)
    front = front_of(said, labels, [1.0, 2.0, 3.0, 4.0][:n_networks], metric)
    found = ensemble_of(front, Table(said, labels), metric, max_latency_ms=max_latency_ms)
    sign = 1 if metric.is_higher_better else -1
    fitting = [one for one in front if max_latency_ms is None or one.latency_ms <= max_latency_ms]
    best = max(sign * one.score for one in fitting)
    assert found.latency_ms <= (max_latency_ms or math.inf)
    if found.is_better:
        assert len(found.members) > 1
        assert sign * found.score > best
    else:
        (member,), weights = found.members, found.weights
        assert weights == (1,)
        assert sign * member.score == best
        assert member.latency_ms == min(one.latency_ms for one in fitting if sign * one.score == best)
        assert found.score == pytest.approx(member.score)
        assert found.reason.startswith(f"trial {member.number} ")


RIGHT, WRONG = np.array([0.9, 0.1, 0.0], np.float32), np.array([0.4, 0.6, 0.0], np.float32)


@pytest.mark.parametrize("n_wrong", [1, 2])
def test_a_gain_that_is_no_more_than_noise_leaves_the_best_alone_and_says_so(n_wrong):
    """Two networks err on different pictures: the better one on one or two in either half of forty, the other on more.

    Each half picks both of them, and finds one or two pictures more that are right in the other half.
    """
    labels = np.zeros(40, np.int64)
    one, other = np.tile(RIGHT, (40, 1)), np.tile(RIGHT, (40, 1))
    for half in halves(labels):
        one[half[:n_wrong]] = WRONG
        other[half[10 : 12 + n_wrong]] = WRONG
    found = ensemble_of(front_of([one, other], labels, [1.0, 2.0]), Table([one, other], labels), ACCURACY)
    assert found.gain == pytest.approx(n_wrong / 20)
    assert found.is_better
    one[halves(labels)[0]] = RIGHT  # now one half of the pictures has no reason to pick both
    found = ensemble_of(front_of([one, other], labels, [1.0, 2.0]), Table([one, other], labels), ACCURACY)
    assert (found.is_better, found.gain, found.members[0].number, found.weights) == (False, 0, 0, (1,))
    assert found.reason.endswith(
        "alone: what others add to it is 0.0 ± 0.0 points of accuracy on pictures that did not pick them, no more than "
        "noise."
    )


def test_one_that_no_other_adds_to_is_alone():
    said, labels = drawn(1)
    found = ensemble_of(front_of(said * 2, labels, [1.0, 2.0]), Table(said * 2, labels), ACCURACY)
    assert (found.gain, found.gain_error, found.is_better) == (0, 0, False)
    assert found.reason.endswith("alone: no other network of the front adds to its accuracy.")


def test_the_test_score_needs_all_members():
    said, labels = better_together()
    test, test_labels = drawn(3, n=50, noise=2.5, seed=9)
    front = front_of(said, labels, [1.0, 2.0, 4.0])
    table = Table(said, labels, dict(enumerate(test)), test_labels)
    found = ensemble_of(front, table, ACCURACY)
    mean = mean_of([test[one.number] for one in found.members], found.weights)
    assert found.test_score == score(ACCURACY, mean, test_labels)
    del table.test[found.members[0].number]
    assert ensemble_of(front, table, ACCURACY).test_score is None


def test_only_pictures_that_all_have_reached_count():
    said, labels = better_together()
    front = front_of(said, labels, [1.0, 2.0, 4.0])
    longer = [np.concatenate([one, np.full((9, 3), 1 / 3, np.float32)]) for one in said]
    for i, one in enumerate(longer):
        one[400 + 3 * i : 403 + 3 * i] = np.nan
    table = Table(longer, np.concatenate([labels, np.zeros(9, np.int64)]))
    assert ensemble_of(front, table, ACCURACY) == ensemble_of(front, Table(said, labels), ACCURACY)


def test_numbers_are_averaged_and_have_no_probabilities():
    said, labels = better_together()
    found = ensemble_of(front_of(said, labels, [1.0, 2.0, 4.0]), Table(said, labels), ACCURACY)
    numbers = replace(found, voices=Table(said, labels, task="regression"))
    np.testing.assert_array_equal(numbers.predict(np.arange(4)), found.predict_proba(np.arange(4)))
    with pytest.raises(ArgumentError, match="numbers have no probabilities"):
        numbers.predict_proba(np.arange(4))
    labelled = replace(found, voices=Table(said, labels, task="multilabel"))
    np.testing.assert_array_equal(labelled.predict(np.arange(4)), found.predict_proba(np.arange(4)) >= 0.5)


@pytest.mark.parametrize("limit", [0, -1.0, math.nan, "fast", True])
def test_a_limit_that_is_no_time_is_named(limit):
    said, labels = drawn(1)
    with pytest.raises(ArgumentError, match=f"max_latency_ms must be milliseconds above 0, not {limit!r}; leave"):
        ensemble_of(front_of(said, labels, [1.0]), Table(said, labels), ACCURACY, max_latency_ms=limit)


def test_where_there_is_none_it_is_said():
    said, labels = drawn(1)
    with pytest.raises(LimitsError, match=r"within 0\.5 ms; the fastest, trial 0 .*, takes 1\.00 ms\. Raise max_lat"):
        ensemble_of(front_of(said, labels, [1.0]), Table(said, labels), ACCURACY, max_latency_ms=0.5)
    with pytest.raises(RunError, match="no trial has finished"):
        ensemble_of([], Table([], labels), ACCURACY)

"""A user's own metric: the same answers as the known one that it is like, and words on what cannot be used."""

import math
import re
import subprocess
import sys
from importlib import import_module

import numpy as np
import pytest
import torch
import torchmetrics
from tests.metrics.conftest import example, found
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score, MultilabelAveragePrecision

from autobackbone.errors import MetricError
from autobackbone.metrics import (
    interval,
    metric_for,
    paired_loss,
    require_scoring,
    score,
    shown,
    standard_error,
    to_maximised,
)


class Share(torchmetrics.Metric):
    """The share of predictions within some distance."""

    higher_is_better = True
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0

    def __init__(self, within=0.5):
        super().__init__()
        self.within = within
        self.add_state("n_near", default=torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("n", default=torch.tensor(0.0), dist_reduce_fx="sum")

    def update(self, predictions, labels):
        self.n_near += ((predictions - labels).abs() < self.within).float().sum()
        self.n += labels.numel()

    def compute(self):
        return self.n_near / self.n


class Keeping(torchmetrics.MeanAbsoluteError):
    """Does not tell what it was made with."""

    def __init__(self, secret):
        super().__init__()
        self.own = secret


class Two(Share):
    """Gives two numbers by name."""

    def compute(self):
        return {"near": self.n_near, "all": self.n}


class Failing(Share):
    """Raises in one of its members."""

    def __init__(self, error=None, where="update"):
        super().__init__()
        self.error, self.where = error, where

    def __deepcopy__(self, _):
        return Failing(self.error, self.where)

    def reset(self):
        self._raise_in("reset")
        super().reset()

    def update(self, predictions, labels):
        self._raise_in("update")
        super().update(predictions, labels)

    def compute(self):
        self._raise_in("compute")
        return super().compute()

    def _raise_in(self, where):
        if self.where == where and self.error is not None:
            raise self.error


MODULE = """
import torchmetrics
from torchmetrics.classification import MulticlassAccuracy

NUMBER = 3

class Distance(torchmetrics.MeanAbsoluteError):
    pass

class Undirected(torchmetrics.MeanAbsoluteError):
    higher_is_better = None

def balanced():
    return MulticlassAccuracy(num_classes=8, average="macro")

def needing(n):
    return balanced()

def text():
    return "accuracy"
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    yield import_module("mine")
    sys.modules.pop("mine", None)


OWN = [
    ("classification", "balanced_accuracy", lambda: MulticlassAccuracy(num_classes=8, average="macro")),
    ("classification", "f1_macro", lambda: MulticlassF1Score(num_classes=8, average="macro")),
    ("multilabel", "map", lambda: MultilabelAveragePrecision(num_labels=6, average="macro")),
]


@pytest.mark.parametrize(("task", "name", "make"), OWN)
def test_a_metric_of_torchmetrics_says_what_the_known_one_says(task, name, make):
    top, labels = example(task, 0, 150)
    other, _ = example(task, 1, 150)
    known, own = found(task, name), metric_for(make(), task, n_outputs=top.shape[1])
    assert (own.name, own.unit, own.is_higher_better) == (type(make()).__name__, "points", True)
    assert score(own, top, labels) == pytest.approx(score(known, top, labels), abs=1e-5)
    assert standard_error(own, top, labels) == pytest.approx(standard_error(known, top, labels), rel=1e-3)
    assert paired_loss(own, top, other, labels) == pytest.approx(paired_loss(known, top, other, labels), rel=1e-3)
    # Of a known mean over classes more is known than resamples tell.
    assert interval(own, top, labels) == pytest.approx(interval(known, top, labels), abs=0.02)


def test_one_number_a_picture_comes_as_one_column():
    predictions, labels = example("regression", 0, 60)
    own = metric_for("torchmetrics:MeanSquaredError", "regression", n_outputs=1)
    known = metric_for("rmse", "regression", n_outputs=1)
    value = score(own, predictions[:, :1], labels[:, :1])
    assert value == pytest.approx(score(known, predictions[:, :1], labels[:, :1]) ** 2, rel=1e-5)
    assert to_maximised(own, value) == -value
    assert shown(own, 12.345) == "12.3"
    table = metric_for(torchmetrics.MeanSquaredError(squared=False, num_outputs=3), "regression", n_outputs=3)
    with pytest.raises(MetricError, match=r"one number; numbers \(3,\) came. Let it average"):
        score(table, predictions, labels)


def test_what_was_given_stays_as_it_was_and_counts_nothing_twice():
    given = torchmetrics.MeanAbsoluteError()
    given.update(torch.ones(5), torch.zeros(5))
    metric = metric_for(given, "regression", n_outputs=1)
    for _ in range(2):
        assert score(metric, [[3.0], [3.0]], [[0.0], [0.0]]) == 3
        assert standard_error(metric, [[3.0], [3.0]], [[0.0], [0.0]]) == 0
    assert float(given.compute()) == 1


def test_a_probability_above_one_by_rounding_is_not_taken_for_a_logit():
    own = metric_for(torchmetrics.classification.MultilabelAccuracy(num_labels=2), "multilabel", n_outputs=2)
    assert score(own, [[1.0005, 0.2]], [[1, 0]]) == 1


def test_a_metric_that_was_given_itself_is_equal_to_itself_alone():
    given = torchmetrics.MeanAbsoluteError()
    one, again, other = (
        metric_for(made, "regression", n_outputs=1) for made in (given, given, torchmetrics.MeanAbsoluteError())
    )
    assert one == one  # noqa: PLR0124  a torchmetrics metric is not
    assert one != other
    assert len({one, again, other}) == 3
    text = "torchmetrics:MeanAbsoluteError"
    assert len({metric_for(text, "regression", n_outputs=1) for _ in range(2)}) == 1


def test_text_makes_a_class_or_what_a_function_returns(mine):
    predictions, labels = example("classification", 0)
    own = metric_for("mine:balanced", n_outputs=8)
    assert (own.name, own.spec) == ("MulticlassAccuracy", "mine:balanced")
    assert score(own, predictions, labels) == pytest.approx(
        score(found("classification", "balanced_accuracy"), predictions, labels), abs=1e-5
    )
    assert metric_for("mine:Distance", "regression", n_outputs=1).name == "Distance"


@pytest.mark.slow
def test_what_a_metric_says_of_itself_makes_it_in_another_process(mine, tmp_path):
    given = metric_for(mine.Distance(), "regression", n_outputs=1)
    assert given.spec == "mine:Distance"
    code = (
        "from autobackbone.metrics import metric_for, score\n"
        f"metric = metric_for({given.spec!r}, 'regression', n_outputs=1)\n"
        "print(score(metric, [[1.0], [4.0]], [[0.0], [0.0]]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert float(done.stdout) == score(given, [[1.0], [4.0]], [[0.0], [0.0]]) == 2.5


def test_used_up_metrics_are_made_again_all_the_same(mine):
    given = mine.Distance()
    given.update(torch.ones(3), torch.zeros(3))
    given.compute()
    assert metric_for(given, "regression", n_outputs=1).spec == "mine:Distance"


@pytest.mark.parametrize(
    "made",
    [
        Keeping(secret=3),  # what it was made with is not to be seen
        type("Local", (torchmetrics.MeanAbsoluteError,), {"__module__": "__main__"})(),
        type("<lambda>", (torchmetrics.MeanAbsoluteError,), {})(),
    ],
    ids=lambda made: type(made).__name__,
)
def test_what_no_text_makes_again_is_said(made):
    with pytest.raises(MetricError, match=r"cannot make this .* again from its class alone. Give it as text"):
        _ = metric_for(made, "regression", n_outputs=1).spec


@pytest.mark.parametrize(
    ("made", "arguments"),
    [
        (torchmetrics.MeanSquaredError(squared=False), '{"squared": false'),
        (torchmetrics.MinkowskiDistance(p=3), '{"p": 3}'),
        (MulticlassAccuracy(num_classes=8, average="weighted", top_k=2), '"num_classes": 8, "top_k": 2'),
    ],
)
def test_arguments_stand_in_the_text(made, arguments):
    spec = metric_for(made, "regression", n_outputs=1).spec
    assert arguments in spec
    assert metric_for(spec, "regression", n_outputs=1).spec == spec


def test_a_setting_of_its_own_is_seen():
    assert metric_for(Share(), "regression", n_outputs=1).unit == "points"
    assert metric_for(Share(within=0.1), "regression", n_outputs=1).spec.endswith(':Share {"within": 0.1}')


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nowhere.at_all:Name", "cannot be imported: No module named 'nowhere'"),
        ("mine:Lost", "cannot be imported: module 'mine' has no attribute 'Lost'"),
        (":Name", "cannot be imported: Empty module name"),
        ("mine:", "cannot be imported"),
        ("mine:NUMBER", "names 3, not a metric of torchmetrics"),
        ("mine:needing", "cannot be made without arguments: needing.. missing 1 required"),
        ("torchmetrics:Accuracy", "cannot be made without arguments"),
        ("torchmetrics:MinkowskiDistance {p=3}", "arguments that are no JSON"),
        ("torchmetrics:MinkowskiDistance [3]", r"no arguments by name behind it, but \[3\]"),
        ('torchmetrics:MinkowskiDistance {"q": 3}', "cannot be made with these arguments"),
        ("mine:text", "gives a str, not a metric"),
        (
            "mine:Undirected",
            "its `higher_is_better` is None. Give one of a subclass that sets it",
        ),
    ],
)
def test_text_that_makes_no_metric_is_answered(mine, text, message):
    with pytest.raises(MetricError, match=message):
        metric_for(text, "regression", n_outputs=1)


def test_what_a_metric_refuses_is_said_with_its_own_words():
    predictions, labels = example("classification", 0)
    metric = metric_for(MulticlassAccuracy(num_classes=3), n_outputs=8)
    with pytest.raises(MetricError, match=r"MulticlassAccuracy cannot score predictions \(120, 8\) and labels"):
        score(metric, predictions, labels)
    for function in (score, standard_error, interval):
        with pytest.raises(MetricError, match="Two has to give one number; dict came"):
            function(metric_for(Two(), "regression", n_outputs=1), [[1.0], [2.0]], [[1.0], [2.0]])


@pytest.mark.parametrize(
    "error",
    [KeyError("boom"), ZeroDivisionError("boom"), AssertionError(), AttributeError("boom"), OSError("boom")],
    ids=repr,
)
@pytest.mark.parametrize("where", ["reset", "update", "compute"])
def test_whatever_a_metric_raises_is_said_of_it(error, where):
    made = Failing(error, where)
    metric = metric_for(made, "regression", n_outputs=1)
    with pytest.raises(MetricError, match=r"Failing cannot score .*: " + re.escape(repr(error))) as caught:
        score(metric, [[1.0], [2.0]], [[1.0], [2.0]])
    assert caught.value.__cause__ is error


def test_a_full_memory_is_no_fault_of_a_metric():
    metric = metric_for(Failing(MemoryError("full"), "update"), "regression", n_outputs=1)
    with pytest.raises(MemoryError, match="full"):
        score(metric, [[1.0], [2.0]], [[1.0], [2.0]])


def test_what_cannot_score_is_told_before_any_time_is_spent():
    with pytest.raises(MetricError, match=r"BinaryF1Score cannot score .* take the form for several classes"):
        require_scoring(metric_for(torchmetrics.classification.BinaryF1Score(), n_outputs=2))
    with pytest.raises(MetricError, match="cannot make this Keeping again"):
        require_scoring(metric_for(Keeping(secret=3), "regression", n_outputs=1))
    for task, made in (
        ("classification", MulticlassAccuracy(num_classes=3)),
        ("multilabel", torchmetrics.classification.MultilabelF1Score(num_labels=3)),
        ("regression", torchmetrics.MeanSquaredError()),
    ):
        require_scoring(metric_for(made, task, n_outputs=3))
    require_scoring(found("classification", "auroc"))


def test_of_a_metric_of_ones_own_a_single_picture_tells_nothing():
    metric = metric_for("torchmetrics:R2Score", "regression", n_outputs=1)
    labels = np.array([[1.0], [2.0], [3.0], [4.0]])
    low, high = interval(metric, 5 - labels, labels)
    assert low <= score(metric, 5 - labels, labels) == -3 <= high <= 1
    near = metric_for(Share(), "regression", n_outputs=1)
    assert interval(near, [[1.0]], [[1.0]]) == (-math.inf, math.inf)
    assert standard_error(near, [[1.0]], [[1.0]]) == math.inf

"""Metrics by name, and how their scores are written."""

import pytest
from tests.metrics.conftest import ALL, LOSSES, NAMES, found

from autobackbone.errors import MetricError
from autobackbone.metrics import metric_for, shown, to_maximised


@pytest.mark.parametrize(("task", "name"), ALL)
def test_metrics_are_found_by_name_and_by_what_they_say_of_themselves(task, name):
    metric = found(task, name)
    assert (metric.name, metric.task, metric.spec) == (name, task, name)
    assert metric_for(metric.spec, task, n_outputs=metric.n_outputs) == metric
    assert len({metric, found(task, name)}) == 1
    assert to_maximised(metric, 2.0) == (-2.0 if name in LOSSES else 2.0)


@pytest.mark.parametrize(("task", "name"), [(task, names[0]) for task, names in NAMES.items()])
def test_every_task_has_a_default(task, name):
    assert metric_for(None, task, n_outputs=2) == metric_for(name, task, n_outputs=2)


@pytest.mark.parametrize(
    ("task", "name", "text"),
    [
        ("classification", "accuracy", "50.0 %"),
        ("regression", "r2", "0.500"),
        ("multilabel", "log_loss", "0.500 nats"),
        ("regression", "mae", "0.5"),
    ],
)
def test_scores_are_written_in_their_unit(task, name, text):
    assert shown(found(task, name), 0.5) == text


@pytest.mark.parametrize(("value", "text"), [(1234.5, "1.23e+03"), (12.345, "12.3"), (0.00123456, "0.00123")])
def test_a_score_in_the_unit_of_the_labels_has_three_digits(value, text):
    assert shown(found("regression", "rmse"), value) == text


def test_unknown_metrics_name_the_known_and_the_close():
    with pytest.raises(MetricError, match=r"'balanced_acuracy'; did you mean 'balanced_accuracy'.* Known: accuracy, "):
        metric_for("balanced_acuracy", n_outputs=3)
    with pytest.raises(MetricError, match=r"'quux'; Known: accuracy.*give 'package.module:Name'"):
        metric_for("quux", n_outputs=3)
    with pytest.raises(MetricError, match="top5 is always 1 with 5 classes"):
        metric_for("top5", n_outputs=5)
    with pytest.raises(MetricError, match="'classification', 'regression' or 'multilabel', not 'segmentation'"):
        metric_for("accuracy", "segmentation", n_outputs=3)


@pytest.mark.parametrize("task", NAMES)
def test_a_metric_of_another_task_is_answered_with_those_of_this_one(task):
    others = {name for names in NAMES.values() for name in names} - set(NAMES[task])
    for name in others:
        with pytest.raises(MetricError, match=rf"{name} is .*, not of {task}. Known: {', '.join(NAMES[task])}"):
            metric_for(name, task, n_outputs=8)


def test_what_can_be_told_needs_something_to_tell():
    with pytest.raises(MetricError, match="at least 2 classes to tell apart; 1 came"):
        metric_for("accuracy", n_outputs=1)
    with pytest.raises(MetricError, match="regression needs at least 1 number a picture; 0 came"):
        metric_for("mae", "regression", n_outputs=0)
    with pytest.raises(MetricError, match="multilabel needs at least 1 label; 0 came"):
        metric_for("map", "multilabel", n_outputs=0)
    assert metric_for("map", "multilabel", n_outputs=1).n_outputs == 1

"""What a score means, and metrics by name."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Literal, get_args

import torchmetrics

from autobackbone.errors import MetricError
from autobackbone.metrics.own import Live, made_from, name_of, text_of
from autobackbone.records import Task

Unit = Literal["points", "nats", "target"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """What a score means.

    Args:
        name: as users write it; of a user's own metric, its class.
        task: what the labels are.
        is_higher_better: `False` for losses.
        unit: `points` are hundredths of a score that is 1 at best (of `r2`, whose differences are shown as they are, of
            the explained variance); `target` is the unit of the labels themselves, or one that only the user's own
            metric knows.
        needs_probabilities: `True` where more than the likeliest class counts.
        n_outputs: classes of a classification, numbers of a regression, or labels; what the network gives per picture.
        factory: text that makes the user's own metric; `None` for the known ones.
        live: the user's own metric, if it was given itself.
    """

    name: str
    task: Task = "classification"
    is_higher_better: bool = True
    unit: Unit = "points"
    needs_probabilities: bool = False
    n_outputs: int = 2
    factory: str | None = None
    live: Live | None = None

    @property
    def spec(self) -> str:
        """Text from which `metric_for` makes the metric again, also in another process.

        Raises:
            MetricError: it was given itself, and no text makes one like it.

        Example:
            >>> metric_for("mae", "regression", n_outputs=1).spec
            'mae'
        """
        if self.live is not None:
            return text_of(self.live.made)
        return self.factory or self.name

    @property
    def is_own(self) -> bool:
        """Whether the user brought it."""
        return self.factory is not None or self.live is not None


def _named(*metrics: Metric) -> dict[str, Metric]:
    return {metric.name: metric for metric in metrics}


# The first of each task is its default.
_KNOWN: dict[Task, dict[str, Metric]] = {
    "classification": _named(
        Metric(name="accuracy"),
        Metric(name="balanced_accuracy"),
        Metric(name="f1_macro"),
        Metric(name="log_loss", is_higher_better=False, unit="nats", needs_probabilities=True),
        Metric(name="top5", needs_probabilities=True),
        Metric(name="auroc", needs_probabilities=True),
    ),
    "regression": _named(
        Metric(name="r2", task="regression"),
        Metric(name="mae", task="regression", is_higher_better=False, unit="target"),
        Metric(name="rmse", task="regression", is_higher_better=False, unit="target"),
    ),
    "multilabel": _named(
        Metric(name="map", task="multilabel", needs_probabilities=True),
        Metric(name="f1_micro", task="multilabel"),
        Metric(name="f1_macro", task="multilabel"),
        Metric(name="auroc", task="multilabel", needs_probabilities=True),
        Metric(name="log_loss", task="multilabel", is_higher_better=False, unit="nats", needs_probabilities=True),
        Metric(name="accuracy", task="multilabel"),
    ),
}
# How many outputs make sense, of what, and what to do about fewer.
_FEWEST: dict[Task, tuple[int, str, str]] = {
    "classification": (2, "classes to tell apart", "Add pictures of another."),
    "regression": (1, "number a picture", "Give labels with a column for each."),
    "multilabel": (1, "label", "Give labels with a column for each."),
}


def metric_for(name: str | torchmetrics.Metric | None, task: str = "classification", *, n_outputs: int) -> Metric:
    """Find a metric by name, or take the user's own.

    Args:
        name: of a classification `accuracy`, `balanced_accuracy`, `f1_macro`, `log_loss`, `top5` or `auroc` (the mean
            over classes, each against the rest); of a regression `r2`, `mae` or `rmse` (each the mean over the targets'
            own); of several labels a picture `map` (mean average precision), `f1_micro`, `f1_macro`, `auroc`,
            `log_loss` (per picture and label) or `accuracy` (the share of pairs of picture and label that are right).
            `None` is the first of these.

            Or a metric of torchmetrics, itself or as text `"package.module:Name"`, where `Name` is its class, or a
            function that makes one, without arguments. It is given float32 probabilities and int64 labels, or float32
            numbers for both, (n_images,) where a regression has one target, and has to give one number. Its
            `higher_is_better` is the orientation.
        task: what the labels are: `classification`, `regression` or `multilabel`.
        n_outputs: classes, at least 2, numbers or labels.

    Raises:
        MetricError: the metric or the task is not known, or the metric cannot tell these classes apart.

    Example:
        >>> metric_for(None, n_outputs=6).name, metric_for(None, "multilabel", n_outputs=6).name
        ('accuracy', 'map')
        >>> own = metric_for("torchmetrics:SpearmanCorrCoef", "regression", n_outputs=1)
        >>> own.name, own.is_higher_better
        ('SpearmanCorrCoef', True)
    """
    known_task = _task(task)
    n_fewest, what, remedy = _FEWEST[known_task]
    if n_outputs < n_fewest:
        raise MetricError(f"a metric of {task} needs at least {n_fewest} {what}; {n_outputs} came. {remedy}")
    if isinstance(name, torchmetrics.Metric):
        return _own(name, known_task, n_outputs, live=Live(made=name))
    if name is not None and ":" in str(name):
        return _own(made_from(name), known_task, n_outputs, factory=name)
    return replace(_found(name, known_task, n_outputs), n_outputs=n_outputs)


def to_maximised(metric: Metric, value: float) -> float:
    """Turn a score, or a difference of scores, so that higher is better; doing it twice gives it back.

    Example:
        >>> to_maximised(metric_for("log_loss", n_outputs=2), 0.3)
        -0.3
    """
    return value if metric.is_higher_better else -value


def bounds(metric: Metric) -> tuple[float, float]:
    """The lowest and the highest score that there can be; infinite where there is no such bound, or none is known.

    Example:
        >>> bounds(metric_for("accuracy", n_outputs=2)), bounds(metric_for("r2", "regression", n_outputs=1))
        ((0.0, 1.0), (-inf, 1.0))
    """
    if metric.unit == "points":
        return (-math.inf if metric.name == "r2" else 0.0), 1.0
    return (-math.inf if metric.is_own else 0.0), math.inf


def shown(metric: Metric, value: float) -> str:
    """Write a score as people read it.

    Example:
        >>> shown(metric_for("accuracy", n_outputs=2), 0.9123), shown(metric_for("log_loss", n_outputs=2), 0.4123)
        ('91.2 %', '0.412 nats')
        >>> shown(metric_for("mae", "regression", n_outputs=1), 4.5678)
        '4.57'
    """
    if metric.unit == "target":
        return f"{value:.3g}"
    if metric.name == "r2":  # a share that nobody writes as one, and that may be negative
        return f"{value:.3f}"
    return f"{100 * value:.1f} %" if metric.unit == "points" else f"{value:.3f} nats"


def scale_of(metric: Metric) -> tuple[float, str]:
    """By what to multiply a difference of two scores so that people read it, and the unit to put behind it.

    Example:
        >>> scale_of(metric_for("accuracy", n_outputs=2)), scale_of(metric_for("log_loss", n_outputs=2))
        ((100, ' points'), (1, ' nats'))
        >>> scale_of(metric_for("r2", "regression", n_outputs=1))
        (1, '')
    """
    if metric.name == "r2" or metric.unit == "target":  # as they are themselves shown
        return 1, ""
    return (100, " points") if metric.unit == "points" else (1, " nats")


def aligned(metric: Metric, value: float) -> str:
    """Write a score as a plain number, for lines and columns: three places, or four digits in the labels' own unit.

    Example:
        >>> aligned(metric_for("accuracy", n_outputs=2), 0.9)
        '0.900'
        >>> aligned(metric_for("mae", "regression", n_outputs=1), 1e-5)
        '1e-05'
    """
    return f"{value:.4g}" if metric.unit == "target" else f"{value:.3f}"


def _task(task: str) -> Task:
    if task not in _KNOWN:
        *most, last = map(repr, get_args(Task))
        raise MetricError(f"task must be {', '.join(most)} or {last}, not {task!r}.")
    return task


def _found(name: str | None, task: Task, n_outputs: int) -> Metric:
    known = _KNOWN[task]
    wanted = next(iter(known)) if name is None else name
    if wanted not in known:
        raise MetricError(_unknown(str(wanted), task))
    if wanted == "top5" and n_outputs <= 5:
        raise MetricError(f"top5 is always 1 with {n_outputs} classes; it needs at least 6. Use accuracy instead.")
    return known[wanted]


def _unknown(wanted: str, task: Task) -> str:
    names = ", ".join(_KNOWN[task])
    others = [other for other, known in _KNOWN.items() if wanted in known]
    if others:
        return f"{wanted} is a metric of {' and '.join(others)}, not of {task}. Known: {names}."
    close = ", ".join(repr(match) for match in get_close_matches(wanted, _KNOWN[task]))
    hint = f" did you mean {close}?" if close else ""
    return f"no metric is called {wanted!r};{hint} Known: {names}; of your own, give 'package.module:Name'."


def _own(
    made: torchmetrics.Metric, task: Task, n_outputs: int, *, factory: str | None = None, live: Live | None = None
) -> Metric:
    name = name_of(made)
    if not isinstance(made.higher_is_better, bool):
        raise MetricError(
            f"{name} does not say whether higher is better: its `higher_is_better` is {made.higher_is_better!r}. "
            "Give one of a subclass that sets it to True or False."
        )
    is_share = made.plot_lower_bound == 0 and made.plot_upper_bound == 1
    return Metric(
        name=name,
        task=task,
        is_higher_better=made.higher_is_better,
        unit="points" if is_share else "target",
        needs_probabilities=task != "regression",
        n_outputs=n_outputs,
        factory=factory,
        live=live,
    )

"""How uneven classes are, what is told of it, what is scored beside it, and the weights that answer it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from autobackbone.metrics import Metric, metric_for

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]

# Below it, plain and balanced accuracy hardly differ by more than a validation part can tell.
_UNEVEN = 5
# A label that fewer pictures have is rare: where nobody has it, 95 of 100 answers are right.
_ONE_IN = 20
# A label's pictures count at most so many times as the others: beyond that, a handful of them would steer each step.
_MOST = 20.0
_N_NAMED = 10
_ANSWER = ". space={'class_weights': 'balanced'} makes all count the same in training"
# Means over pictures, in which the large classes have most of the say.
_OVER_PICTURES = ("accuracy", "top5", "log_loss")
# Those beside which the balanced figure says the same of all classes alike.
_WITH_FIGURE = ("accuracy", "top5")


def told(counts: pd.Series[int], n_train: int, metric: Metric, *, is_answered: bool = False) -> tuple[str, ...]:
    """One line where classes are uneven, or labels rare; none where numbers are predicted.

    Args:
        counts: training pictures of each class, or with each label.
        n_train: training pictures.
        metric: of the search.
        is_answered: whether they are balanced in training; else it is said how.

    Example:
        >>> import pandas as pd
        >>> counts = pd.Series({"cat": 400, "lynx": 40})
        >>> print(*told(counts, 440, metric_for("balanced_accuracy", n_outputs=2), is_answered=True))
        uneven classes: 400 pictures to train on of 'cat', 40 of 'lynx'
        >>> told(counts * [1, 5], 600, metric_for("balanced_accuracy", n_outputs=2))
        ()
    """
    if metric.task == "classification" and is_uneven(counts):
        most, fewest = (
            f"{counts.max():,} pictures to train on of {counts.idxmax()!r}",
            f"{counts.min():,} of {counts.idxmin()!r}",
        )
        return (f"uneven classes: {most}, {fewest}{_meaning(metric)}{'' if is_answered else _ANSWER}",)
    if metric.task == "multilabel":
        return tuple(f"{line}{'' if is_answered else _ANSWER}" for line in _rare_labels(counts, n_train))
    return ()


def is_uneven(counts: pd.Series[int]) -> bool:
    """Whether the largest class has more than 5 times the pictures of the smallest."""
    return int(counts.max()) > _UNEVEN * int(counts.min())


def balanced_metric(counts: pd.Series[int], metric: Metric) -> Metric | None:
    """What is scored beside a metric that uneven classes flatter: the mean over classes of what is right of each.

    Args:
        counts: training pictures of each class.
        metric: of the search.

    Returns:
        `None` where classes are even, or the metric itself is none of `accuracy` and `top5`.
    """
    is_flattered = metric.task == "classification" and not metric.is_own and metric.name in _WITH_FIGURE
    if not is_flattered or not is_uneven(counts):
        return None
    return metric_for("balanced_accuracy", n_outputs=metric.n_outputs)


def class_weights(labels: NDArray[Any]) -> Floats:
    """How much a picture of each class counts, so that all classes count the same and pictures 1 on average.

    Args:
        labels: (n,) int64 codes of a training part.

    Returns:
        (n_classes,) n / (number of classes × n of the class), as of scikit-learn's `class_weight="balanced"`; 0 for a
        class that no label names.

    Example:
        >>> class_weights(np.array([0, 0, 0, 1])).round(3).tolist()
        [0.667, 2.0]
    """
    counts = np.bincount(labels)
    has_any = counts > 0
    return np.where(has_any, len(labels) / (has_any.sum() * np.maximum(counts, 1)), 0.0)


def positive_weights(labels: NDArray[Any]) -> Floats:
    """How much a picture with each label counts, where one without counts 1, so that both sides count the same.

    Args:
        labels: (n, n_labels) of 0 and 1, of a training part.

    Returns:
        (n_labels,) pictures without over pictures with it, at most 20; 1 for a label that all have, or none.

    Example:
        >>> positive_weights(np.array([[1, 0], [0, 0], [0, 0]])).tolist()
        [2.0, 1.0]
    """
    n_with = labels.sum(axis=0)
    n_without = len(labels) - n_with
    is_told = (n_with > 0) & (n_without > 0)
    return np.where(is_told, np.minimum(_MOST, n_without / np.maximum(n_with, 1)), 1.0)


def _meaning(metric: Metric) -> str:
    if metric.is_own or metric.name not in _OVER_PICTURES:
        return ""
    line = f"; plain {metric.name} mostly tells of the large ones"
    beside = "the balanced figure stands beside it, and " if metric.name in _WITH_FIGURE else ""
    return f"{line}: {beside}metric='balanced_accuracy' would choose by it"


def _rare_labels(counts: pd.Series[int], n_train: int) -> tuple[str, ...]:
    rare = counts[counts * _ONE_IN < n_train].sort_values(kind="stable")
    if rare.empty:
        return ()
    named = ", ".join(f"{name!r} ({n:,})" for name, n in rare.head(_N_NAMED).items())
    more = ", …" if len(rare) > _N_NAMED else ""
    return (f"rare labels, each on fewer than 1 in {_ONE_IN} of {n_train:,} pictures to train on: {named}{more}",)

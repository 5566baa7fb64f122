"""Scores by name: their value, their orientation, and how far a finite number of pictures can be trusted.

Everywhere here `probabilities` are `(n_images, n_classes)`, one row per picture, and `labels` are `(n_images,)` whole
numbers from 0 to `n_classes - 1`, in the same order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.stats import bootstrap, rankdata
from torchmetrics.functional.classification import (
    multiclass_f1_score,
    multiclass_recall,
    multilabel_auroc,
)

from autobackbone.errors import MetricError

if TYPE_CHECKING:
    from collections.abc import Callable

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

# The standard error of a standard error from 300 resamples is about 4 %: enough to compare a loss with.
_N_RESAMPLES = 300
# A softmax in half precision may end this far above 1.
_ROUNDING = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """What a score means.

    Args:
        name: as users write it.
        is_higher_better: `False` for losses.
        unit: `points` are hundredths of a score that lies between 0 and 1.
        needs_probabilities: `True` where more than the likeliest class counts.
        n_classes: classes of the task, at least 2.
    """

    name: str
    is_higher_better: bool = True
    unit: Literal["points", "nats"] = "points"
    needs_probabilities: bool = False
    n_classes: int = 2


_KNOWN = {
    metric.name: metric
    for metric in (
        Metric(name="accuracy"),
        Metric(name="balanced_accuracy"),
        Metric(name="f1_macro"),
        Metric(name="log_loss", is_higher_better=False, unit="nats", needs_probabilities=True),
        Metric(name="top5", needs_probabilities=True),
        Metric(name="auroc", needs_probabilities=True),
    )
}


def metric_for(name: str | None, task: str = "classification", *, n_classes: int) -> Metric:
    """Find a metric by name.

    Args:
        name: `accuracy`, `balanced_accuracy`, `f1_macro`, `log_loss`, `top5` or `auroc` (the mean over classes, each
            against the rest); `None` is accuracy.
        task: what the labels are; `classification`.
        n_classes: classes of the task, at least 2.

    Raises:
        MetricError: the metric or the task is not known, or the metric cannot tell these classes apart.

    Example:
        >>> metric_for(None, n_classes=6).name
        'accuracy'
    """
    if task != "classification":
        raise MetricError(f"task must be 'classification', not {task!r}; give labels as one class per picture.")
    if n_classes < 2:
        raise MetricError(
            f"a metric needs at least 2 classes to tell apart; {n_classes} came. Add pictures of another."
        )
    wanted = "accuracy" if name is None else name
    if wanted not in _KNOWN:
        close = ", ".join(repr(match) for match in get_close_matches(str(wanted), _KNOWN))
        hint = f" did you mean {close}?" if close else ""
        raise MetricError(f"no metric is called {wanted!r};{hint} Known: {', '.join(_KNOWN)}.")
    if wanted == "top5" and n_classes <= 5:
        raise MetricError(f"top5 is always 1 with {n_classes} classes; it needs at least 6. Use accuracy instead.")
    return replace(_KNOWN[wanted], n_classes=n_classes)


def score(metric: Metric, probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Score predictions in the metric's own sign and unit.

    A class that no label names cannot be missed, so `balanced_accuracy` and `auroc` leave it out of their mean;
    `f1_macro` leaves out what neither a label nor a prediction names.

    Args:
        probabilities: (n_images, n_classes) float, from 0 to 1; `log_loss` divides each row by its sum.
        labels: (n_images,) whole numbers.

    Returns:
        From 0 to 1, or nats for `log_loss`; NaN where it is not defined, as for `auroc` when only one class is there.

    Raises:
        MetricError: shapes, values or labels are not of this kind.

    Example:
        >>> score(metric_for("accuracy", n_classes=2), [[0.9, 0.1], [0.6, 0.4]], [0, 1])
        0.5
    """
    table, truth = _checked(metric, probabilities, labels)
    if metric.name in _SHARES:
        return float(_SHARES[metric.name](table, truth).mean())
    return _SCORERS[metric.name](table.argmax(axis=1), truth, metric.n_classes)


def standard_error(metric: Metric, probabilities: ArrayLike, labels: ArrayLike, *, seed: int = 0) -> float:
    """Tell how far the score would move on other pictures of the same kind.

    In closed form where each picture's share of the score is known, else by bootstrap over pictures.

    Returns:
        One standard error, in the metric's unit; infinite where a single picture leaves it unknown.

    Example:
        >>> round(standard_error(metric_for("accuracy", n_classes=2), [[0.9, 0.1], [0.6, 0.4]] * 50, [0, 1] * 50), 3)
        0.05

    Source: DeLong et al. 1988 for `auroc`; Efron and Tibshirani 1993 for the bootstrap.
    """
    table, truth = _checked(metric, probabilities, labels)
    if metric.name in _SHARES:
        return _error_of_mean(_SHARES[metric.name](table, truth))
    scorer, predicted = _SCORERS[metric.name], table.argmax(axis=1)
    return _bootstrap_error(
        lambda rows: scorer(predicted[rows], truth[rows], metric.n_classes), n_images=len(truth), seed=seed
    )


def paired_loss(
    metric: Metric, probabilities_top: ArrayLike, probabilities_other: ArrayLike, labels: ArrayLike, *, seed: int = 0
) -> tuple[float, float]:
    """Tell how much worse one model is than another on the very same pictures, and how sure that is.

    Both stumble over the same hard pictures, so the error of the difference is smaller than either score's own.

    Returns:
        The loss, positive where the other model is worse whatever the metric's orientation, and its standard error,
        both in the metric's unit.

    Example:
        >>> top, other = [[0.9, 0.1], [0.2, 0.8]] * 50, [[0.9, 0.1], [0.6, 0.4]] * 50
        >>> loss, error = paired_loss(metric_for("accuracy", n_classes=2), top, other, [0, 1] * 50)
        >>> round(loss, 3), round(error, 3)
        (0.5, 0.05)
    """
    top, truth = _checked(metric, probabilities_top, labels)
    other, _ = _checked(metric, probabilities_other, labels)
    if metric.name in _SHARES:
        shares = _SHARES[metric.name]
        losses = to_maximised(metric, 1.0) * (shares(top, truth) - shares(other, truth))
        return float(losses.mean()), _error_of_mean(losses)
    scorer, first, second = _SCORERS[metric.name], top.argmax(axis=1), other.argmax(axis=1)

    def loss_on(rows: Labels) -> float:
        seen = truth[rows]
        return scorer(first[rows], seen, metric.n_classes) - scorer(second[rows], seen, metric.n_classes)

    loss = to_maximised(metric, loss_on(np.arange(len(truth))))
    return loss, _bootstrap_error(loss_on, n_images=len(truth), seed=seed)


def to_maximised(metric: Metric, value: float) -> float:
    """Turn a score, or a difference of scores, so that higher is better; doing it twice gives it back.

    Example:
        >>> to_maximised(metric_for("log_loss", n_classes=2), 0.3)
        -0.3
    """
    return value if metric.is_higher_better else -value


def shown(metric: Metric, value: float) -> str:
    """Write a score as people read it.

    Example:
        >>> shown(metric_for("accuracy", n_classes=2), 0.9123), shown(metric_for("log_loss", n_classes=2), 0.4123)
        ('91.2 %', '0.412 nats')
    """
    return f"{100 * value:.1f} %" if metric.unit == "points" else f"{value:.3f} nats"


def _checked(metric: Metric, probabilities: ArrayLike, labels: ArrayLike) -> tuple[Floats, Labels]:
    table, truth = np.asarray(probabilities, dtype=np.float64), np.asarray(labels)
    if table.ndim != 2 or table.shape[1] != metric.n_classes or truth.shape != table.shape[:1] or truth.size == 0:
        raise MetricError(
            f"{metric.name} needs probabilities (n_images, {metric.n_classes}) and labels (n_images,), at least one "
            f"picture; {table.shape} and {truth.shape} came."
        )
    if not np.isfinite(table).all() or table.min() < 0 or table.max() > 1 + _ROUNDING:
        raise MetricError(f"{metric.name} needs probabilities from 0 to 1, not logits. NaN means a diverged training.")
    if not np.issubdtype(truth.dtype, np.integer) or truth.min() < 0 or truth.max() >= metric.n_classes:
        raise MetricError(
            f"labels must be whole numbers from 0 to {metric.n_classes - 1}; {truth.dtype} from {truth.min()} to "
            f"{truth.max()} came."
        )
    return table, truth.astype(np.int64)


def _error_of_mean(shares: Floats) -> float:
    return math.inf if shares.size < 2 else float(shares.std(ddof=1) / math.sqrt(shares.size))


def _bootstrap_error(statistic: Callable[[Labels], float], n_images: int, seed: int) -> float:
    if n_images < 2:
        return math.inf
    rows, rng = (np.arange(n_images),), np.random.default_rng(seed)
    drawn = bootstrap(rows, statistic, n_resamples=_N_RESAMPLES, vectorized=False, method="percentile", rng=rng)
    return float(drawn.standard_error)


def _balanced_accuracy(predicted: Labels, labels: Labels, n_classes: int) -> float:
    found, truth = torch.from_numpy(predicted), torch.from_numpy(labels)
    recalls = multiclass_recall(found, truth, n_classes, average="none", validate_args=False)
    return float(recalls[np.unique(labels)].mean())


def _f1_macro(predicted: Labels, labels: Labels, n_classes: int) -> float:
    found, truth = torch.from_numpy(predicted), torch.from_numpy(labels)
    return float(multiclass_f1_score(found, truth, n_classes, average="macro", validate_args=False))


def _is_first(probabilities: Floats, labels: Labels) -> Floats:
    return np.asarray(probabilities.argmax(axis=1) == labels, dtype=np.float64)


def _is_among_five(probabilities: Floats, labels: Labels) -> Floats:
    five = torch.from_numpy(probabilities).topk(5, dim=1).indices.numpy()
    return np.asarray((five == labels[:, None]).any(axis=1), dtype=np.float64)


def _surprises(probabilities: Floats, labels: Labels) -> Floats:
    """Nats by which each true class surprised."""
    of_truth = probabilities[np.arange(len(labels)), labels] / probabilities.sum(axis=1)
    # A single certain error must not make the mean infinite: no model is surer than double precision can say.
    return np.asarray(-np.log(np.clip(of_truth, np.finfo(np.float64).eps, 1.0)), dtype=np.float64)


def _auroc_shares(probabilities: Floats, labels: Labels) -> Floats:
    """The score plus what each picture moves it by. Source: DeLong, DeLong and Clarke-Pearson 1988."""
    present = np.unique(labels)
    if present.size < 2:
        return np.full(len(labels), math.nan)
    value = _auroc(probabilities, labels, present)
    moves = [_moves_of_class(probabilities[:, k], labels == k) for k in present]
    return np.asarray(value + np.mean(moves, axis=0), dtype=np.float64)


def _auroc(probabilities: Floats, labels: Labels, present: Labels) -> float:
    is_class = torch.from_numpy((labels[:, None] == present).astype(np.int64))
    table = torch.from_numpy(np.ascontiguousarray(probabilities[:, present]))
    return float(multilabel_auroc(table, is_class, present.size, average="macro", validate_args=False))


def _moves_of_class(column: Floats, is_class: NDArray[np.bool_]) -> Floats:
    n_in, n_out = int(is_class.sum()), int((~is_class).sum())
    ranks = rankdata(column)
    moves = np.empty_like(column)
    moves[is_class] = (ranks[is_class] - rankdata(column[is_class])) / n_out
    moves[~is_class] = 1 - (ranks[~is_class] - rankdata(column[~is_class])) / n_in
    centred = moves - moves[is_class].mean()
    return np.asarray(centred * np.where(is_class, len(column) / n_in, len(column) / n_out), dtype=np.float64)


# Scores whose uncertainty has a closed form: each picture's share, (n_images,), of which the score is the mean.
_SHARES: dict[str, Callable[[Floats, Labels], Floats]] = {
    "accuracy": _is_first,
    "log_loss": _surprises,
    "top5": _is_among_five,
    "auroc": _auroc_shares,
}
# All others, from the likeliest class of each picture, (n_images,), the labels and the number of classes.
_SCORERS: dict[str, Callable[[Labels, Labels, int], float]] = {
    "balanced_accuracy": _balanced_accuracy,
    "f1_macro": _f1_macro,
}

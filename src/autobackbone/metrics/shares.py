"""Scores that are means over pictures: each picture's share, of which uncertainty follows in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata

from autobackbone.metrics.known import Metric
from autobackbone.metrics.resampling import Counts, Floats, Ints, Statistic
from autobackbone.records import Task

# No model is surer than double precision can say.
_SUREST = np.finfo(np.float64).eps


def shares_of(metric: Metric, predictions: Floats, labels: NDArray[Any]) -> Floats | None:
    """Each picture's share of the score, (n_images,), whose mean is the score; `None` if it is no such mean."""
    found = None if metric.is_own else _SHARES.get((metric.task, metric.name))
    return None if found is None else found(predictions, labels)


def is_proportion(metric: Metric) -> bool:
    """Whether each share is 0 or 1, so that the score counts pictures."""
    return not metric.is_own and metric.task == "classification" and metric.name in {"accuracy", "top5"}


def error_of_mean(shares: Floats) -> float:
    """The standard error of the mean of shares; infinite for a single one."""
    return math.inf if shares.size < 2 else float(shares.std(ddof=1) / math.sqrt(shares.size))


def mean_of(shares: Floats) -> Statistic:
    """The mean of shares as a function of how often each picture counts."""

    def statistic(counts: Counts) -> Floats:
        return np.asarray(counts @ shares / counts.sum(axis=1), dtype=np.float64)

    return statistic


def _is_first(probabilities: Floats, labels: Ints) -> Floats:
    return np.asarray(probabilities.argmax(axis=1) == labels, dtype=np.float64)


def _is_among_five(probabilities: Floats, labels: Ints) -> Floats:
    five = torch.from_numpy(probabilities).topk(5, dim=1).indices.numpy()
    return np.asarray((five == labels[:, None]).any(axis=1), dtype=np.float64)


def _surprises(probabilities: Floats, labels: Ints) -> Floats:
    """Nats by which each true class surprised."""
    of_truth = probabilities[np.arange(len(labels)), labels] / probabilities.sum(axis=1)
    # A single certain error must not make the mean infinite.
    return np.asarray(-np.log(np.clip(of_truth, _SUREST, 1.0)), dtype=np.float64)


def _label_surprises(probabilities: Floats, labels: Ints) -> Floats:
    """Nats by which a picture's labels surprised, the mean over them."""
    of_truth = np.where(labels == 1, probabilities, 1 - probabilities)
    return np.asarray(-np.log(np.clip(of_truth, _SUREST, 1.0)).mean(axis=1), dtype=np.float64)


def _share_right(probabilities: Floats, labels: Ints) -> Floats:
    return np.asarray(((probabilities > 0.5) == labels).mean(axis=1), dtype=np.float64)


def _distances(numbers: Floats, labels: Floats) -> Floats:
    return np.asarray(np.abs(numbers - labels).mean(axis=1), dtype=np.float64)


def auroc_columns(probabilities: Floats, labels: Ints) -> tuple[Floats, NDArray[np.bool_]]:
    """What `auroc` is the mean over: probabilities, and who has the class or label, both (n_images, k), where some
    pictures have it and some have not.
    """
    is_in = labels == 1 if labels.ndim == 2 else labels[:, None] == np.arange(probabilities.shape[1])
    both = np.flatnonzero(is_in.any(axis=0) & ~is_in.all(axis=0))
    return probabilities[:, both], is_in[:, both]


def _auroc_shares(probabilities: Floats, labels: Ints) -> Floats:
    """The score plus what each picture moves it by, the mean over columns.

    Source: DeLong, DeLong and Clarke-Pearson 1988.
    """
    columns, is_in = auroc_columns(probabilities, labels)
    if columns.shape[1] == 0:
        return np.full(len(columns), math.nan)
    moves = [_moves(column, own) for column, own in zip(columns.T, is_in.T, strict=True)]
    return np.asarray(np.mean(moves, axis=0), dtype=np.float64)


def right_sides(column: Floats, is_in: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Of pictures with a label, and of those without: the share of the other kind that each is on the right side of.

    Ties count half; the mean of either is the score.
    """
    ranks, n_in, n_out = rankdata(column), int(is_in.sum()), int((~is_in).sum())
    return (ranks[is_in] - rankdata(column[is_in])) / n_out, 1 - (ranks[~is_in] - rankdata(column[~is_in])) / n_in


def _moves(column: Floats, is_in: NDArray[np.bool_]) -> Floats:
    n_in, n_out = int(is_in.sum()), int((~is_in).sum())
    moves = np.empty_like(column)
    moves[is_in], moves[~is_in] = right_sides(column, is_in)
    value = moves[is_in].mean()
    scaled = (moves - value) * np.where(is_in, len(column) / n_in, len(column) / n_out)
    return np.asarray(value + scaled, dtype=np.float64)


_SHARES: dict[tuple[Task, str], Callable[[Floats, NDArray[Any]], Floats]] = {
    ("classification", "accuracy"): _is_first,
    ("classification", "log_loss"): _surprises,
    ("classification", "top5"): _is_among_five,
    ("classification", "auroc"): _auroc_shares,
    ("regression", "mae"): _distances,
    ("multilabel", "auroc"): _auroc_shares,
    ("multilabel", "log_loss"): _label_surprises,
    ("multilabel", "accuracy"): _share_right,
}

"""Which labels are probably wrong: those that predictions by heads which have not seen them contradict. Pure numpy.

As in confident learning the probability of the given label counts, by heads that have not seen the picture. Alone it
finds those best that were exchanged at random; the difference to the likeliest other one those that were exchanged for
a similar class, as people do. The ratio of the two, each raised a little, is nearly as good as the better one at both
(docs/benchmarks/suspects.md).

Source: Northcutt, Jiang and Chuang 2021, Confident learning: estimating uncertainty in dataset labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autobackbone.records import Task

# Of numbers, in robust standard deviations: of errors of a normal distribution 0.3 % lie beyond.
_LEAST_DEVIATIONS = 3.0
# A median absolute deviation of a normal distribution, to its standard deviation.
_TO_STANDARD_DEVIATION = 1.4826
# Smaller probabilities hardly differ: what raises them lies between their ratio (0) and their difference (1 and more).
_RAISED_BY = 0.05


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Suspicion:
    """Pictures whose predictions contradict their labels, the worst first; m of n.

    Args:
        pictures: (m,) int64, rows of the predictions.
        outputs: (m,) int64: the class that is likelier than the given one, the label that is rather wrong than right,
            or which of several numbers is doubted.
        given: (m,) probability of what the label says; NaN for numbers.
        suggested: (m,) probability of what is suggested; NaN for numbers.
        scores: (m,) logarithm of how many times likelier the suggestion is, both probabilities raised by 0.05; for
            numbers how many robust standard deviations of all errors this error is.
    """

    pictures: NDArray[np.int64]
    outputs: NDArray[np.int64]
    given: NDArray[np.float64]
    suggested: NDArray[np.float64]
    scores: NDArray[np.float64]


def suspicion_of(predictions: NDArray[np.floating[Any]], labels: NDArray[Any], task: Task) -> Suspicion:
    """Rank pictures by how far predictions contradict their labels; those they agree with are left out.

    Args:
        predictions: (n, n_outputs), by heads that have not seen the picture; NaN where there is none.
        labels: (n,) classes, or (n, n_outputs), as a data bundle holds them.
        task: what they are.

    Example:
        >>> said = np.array([[0.9, 0.1], [0.2, 0.8], [0.01, 0.99]])
        >>> found = suspicion_of(said, np.array([0, 0, 0]), "classification")
        >>> found.pictures.tolist(), found.outputs.tolist(), found.given.tolist()
        ([2, 1], [1, 1], [0.01, 0.2])
    """
    exact = predictions.astype(np.float64)
    if task == "regression":
        return _of_numbers(exact, labels)
    return _of_labels(exact, labels) if task == "multilabel" else _of_classes(exact, labels)


def mean_known(predictions: Sequence[NDArray[np.floating[Any]]]) -> NDArray[np.float64]:
    """The mean of several predictions, (n, n_outputs) each, over those that are there; NaN where none is.

    Example:
        >>> mean_known([np.array([[0.2, np.nan]]), np.array([[0.4, np.nan]])]).round(3).tolist()
        [[0.3, nan]]
    """
    stacked = np.stack(predictions).astype(np.float64)
    is_known = np.isfinite(stacked)
    total, n_known = np.where(is_known, stacked, 0.0).sum(axis=0), is_known.sum(axis=0)
    return np.where(n_known > 0, total / np.maximum(n_known, 1), np.nan)


def _of_classes(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> Suspicion:
    rows = np.flatnonzero(np.isfinite(probabilities).all(axis=1))
    known, own = probabilities[rows], labels[rows]
    given = known[np.arange(len(rows)), own]
    others = known.copy()
    others[np.arange(len(rows)), own] = -1.0
    outputs = others.argmax(axis=1)
    suggested = others.max(axis=1, initial=-1.0)
    return _ranked(rows, outputs, given, suggested, _times(suggested, given), least=0.0)


def _of_labels(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> Suspicion:
    """A picture is as suspect as the worst of its labels."""
    given = np.where(labels == 1, probabilities, 1 - probabilities)
    rows = np.flatnonzero(np.isfinite(given).any(axis=1))
    outputs = np.where(np.isfinite(given[rows]), given[rows], np.inf).argmin(axis=1)
    worst = given[rows, outputs]
    return _ranked(rows, outputs, worst, 1 - worst, _times(1 - worst, worst), least=0.0)


def _of_numbers(predictions: NDArray[np.float64], numbers: NDArray[np.float64]) -> Suspicion:
    """A picture is as suspect as the worst of its numbers."""
    rows = np.flatnonzero(np.isfinite(predictions).all(axis=1))
    errors = numbers[rows] - predictions[rows]
    distances = np.abs(errors - _median(errors))
    spread = _TO_STANDARD_DEVIATION * _median(distances)
    deviations = np.divide(distances, spread, out=np.zeros_like(distances), where=spread > 0)
    outputs = deviations.argmax(axis=1)
    scores = deviations[np.arange(len(rows)), outputs]
    nothing = np.full(len(rows), np.nan)
    return _ranked(rows, outputs, nothing, nothing, scores, least=_LEAST_DEVIATIONS)


def _median(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.median(values, axis=0) if len(values) else np.zeros(values.shape[1])


def _times(suggested: NDArray[np.float64], given: NDArray[np.float64]) -> NDArray[np.float64]:
    """The logarithm of how many times likelier the suggestion is, both raised."""
    return np.asarray(np.log((suggested + _RAISED_BY) / (given + _RAISED_BY)))


def _ranked(
    rows: NDArray[np.int64],
    outputs: NDArray[np.int64],
    given: NDArray[np.float64],
    suggested: NDArray[np.float64],
    scores: NDArray[np.float64],
    *,
    least: float,
) -> Suspicion:
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] > least]
    return Suspicion(
        pictures=rows[order],
        outputs=outputs[order],
        given=given[order],
        suggested=suggested[order],
        scores=scores[order],
    )

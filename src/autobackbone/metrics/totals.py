"""Scores that are no means over pictures, as functions of how often each picture counts.

All resamples of an interval are scored in one product of matrices: a thousand calls of torchmetrics would take seconds.
With each picture counted once they give what `values` gives.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, hstack

from autobackbone.metrics.known import Metric
from autobackbone.metrics.resampling import Counts, Floats, Ints, Statistic
from autobackbone.records import Task

# A spread this much smaller than the numbers themselves is rounding.
_NO_SPREAD = 1e-12


def statistic_of(metric: Metric, predictions: Floats, labels: NDArray[Any]) -> Statistic:
    """The score as a function of how often each picture counts; known metrics only, and no means over pictures."""
    return _STATISTICS[metric.task, metric.name](predictions, labels)


def named(probabilities: Floats, labels: Ints) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which classes or labels are true, and which are predicted, of each picture: (n_images, n_outputs) each."""
    if labels.ndim == 2:
        return labels == 1, probabilities > 0.5
    return _one_hot(labels, probabilities), _one_hot(probabilities.argmax(axis=1), probabilities)


def _balanced_accuracy(probabilities: Floats, labels: Ints) -> Statistic:
    is_true, is_found = named(probabilities, labels)

    def formula(n_hit: Floats, n_true: Floats) -> Floats:
        return _mean_ratio(n_hit, n_true)

    return _of_totals(formula, is_true & is_found, is_true)


def _f1_micro(probabilities: Floats, labels: Ints) -> Statistic:
    is_true, is_found = named(probabilities, labels)
    n_hit, n_named = (is_true & is_found).sum(axis=1), is_true.sum(axis=1) + is_found.sum(axis=1)

    def formula(hits: Floats, named: Floats) -> Floats:
        return _mean_ratio(2 * hits, named)

    return _of_totals(formula, n_hit[:, None], n_named[:, None])


def _f1_macro(probabilities: Floats, labels: Ints) -> Statistic:
    is_true, is_found = named(probabilities, labels)

    def formula(n_hit: Floats, n_true: Floats, n_found: Floats) -> Floats:
        return _mean_ratio(2 * n_hit, n_true + n_found)

    return _of_totals(formula, is_true & is_found, is_true, is_found)


def _rmse(numbers: Floats, labels: Floats) -> Statistic:
    def formula(squares: Floats, n_images: Floats) -> Floats:
        return np.asarray(np.sqrt(squares / n_images).mean(axis=1), dtype=np.float64)

    return _of_totals(formula, (numbers - labels) ** 2, np.ones_like(labels))


def _r2(numbers: Floats, labels: Floats) -> Statistic:
    # About the median, which is a label's own value where all are equal: then the spread is exactly 0.
    centred = labels - np.median(labels, axis=0)

    def formula(errors: Floats, firsts: Floats, squares: Floats, n_images: Floats) -> Floats:
        spread = squares - firsts**2 / n_images
        spread = np.where(spread > _NO_SPREAD * squares, spread, 0.0)
        return _mean_ratio(spread - errors, spread)

    return _of_totals(formula, (numbers - labels) ** 2, centred, centred**2, np.ones_like(labels))


def _mean_average_precision(probabilities: Floats, labels: Ints) -> Statistic:
    rankings = [_Ranking(probabilities[:, k], labels[:, k] == 1) for k in np.flatnonzero(labels.any(axis=0))]

    def statistic(counts: Counts) -> Floats:
        if not rankings:
            return np.full(len(counts), math.nan)
        columns = np.ascontiguousarray(counts.T)
        sums, n_own = zip(*(ranking.totals(columns) for ranking in rankings), strict=True)
        return _mean_ratio(np.stack(sums, axis=1), np.stack(n_own, axis=1))

    return statistic


class _Ranking:
    """One label's pictures, likeliest first, ready for the average precision of any resample.

    A step ends with the last picture of a probability that a picture of the label has; pictures of one probability are
    chosen together.

    Args:
        column: (n_images,) probabilities.
        is_in: (n_images,), at least one true.
    """

    def __init__(self, column: Floats, is_in: NDArray[np.bool_]) -> None:
        order = np.argsort(-column, kind="stable")
        ranked, places = -column[order], np.flatnonzero(is_in[order])
        ends, own_begins = np.unique(np.searchsorted(ranked, ranked[places], side="right"), return_index=True)
        self._order, self._begins = order[: ends[-1]], np.concatenate([[0], ends[:-1]])
        self._own, self._own_begins = order[places], own_begins

    def totals(self, columns: Counts) -> tuple[Floats, Floats]:
        """Sum of the precisions at the label's pictures, and how many there are, both (n_draws,).

        Args:
            columns: (n_images, n_draws) counts: whole rows are moved and added, which is eight times as fast.
        """
        n_chosen = np.add.reduceat(columns[self._order], self._begins, axis=0).cumsum(axis=0)
        n_new = np.add.reduceat(columns[self._own], self._own_begins, axis=0)
        n_hit = n_new.cumsum(axis=0)
        precisions = np.divide(n_hit, n_chosen, out=np.zeros_like(n_hit), where=n_chosen > 0)
        return (n_new * precisions).sum(axis=0), n_hit[-1]


def _one_hot(codes: Ints, probabilities: Floats) -> NDArray[np.bool_]:
    return np.asarray(codes[:, None] == np.arange(probabilities.shape[1]))


def _of_totals(formula: Callable[..., Floats], *terms: NDArray[Any]) -> Statistic:
    """A score from sums over pictures: `terms` (n_images, k) each, whose sums (n_draws, k) the formula takes."""
    # Of a thousand classes a picture has one: products with zeros are left out.
    joined = hstack([csr_array(term, dtype=np.float64) for term in terms], format="csr")
    places = np.cumsum([term.shape[1] for term in terms])[:-1]

    def statistic(counts: Counts) -> Floats:
        return formula(*np.split(np.asarray(counts @ joined), places, axis=1))

    return statistic


def _mean_ratio(parts: Floats, wholes: Floats) -> Floats:
    """Means over the columns, (n_draws, k) → (n_draws,), of those ratios whose whole is above 0; NaN if none is."""
    is_defined = wholes > 0
    with np.errstate(over="ignore"):  # by a spread that is next to nothing
        ratios = np.divide(parts, wholes, out=np.zeros_like(wholes), where=is_defined)
    n_defined = is_defined.sum(axis=1)
    means = np.full(len(wholes), math.nan)
    np.divide(ratios.sum(axis=1), n_defined, out=means, where=n_defined > 0)
    return means


_STATISTICS: dict[tuple[Task, str], Callable[[Floats, NDArray[Any]], Statistic]] = {
    ("classification", "balanced_accuracy"): _balanced_accuracy,
    ("classification", "f1_macro"): _f1_macro,
    ("regression", "r2"): _r2,
    ("regression", "rmse"): _rmse,
    ("multilabel", "map"): _mean_average_precision,
    ("multilabel", "f1_micro"): _f1_micro,
    ("multilabel", "f1_macro"): _f1_macro,
}

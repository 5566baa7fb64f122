"""Scores of any resample with the standard error that the same resample gives, by what each picture moves the score."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autobackbone.metrics.known import Metric
from autobackbone.metrics.resampling import Counts, Floats
from autobackbone.metrics.shares import shares_of
from autobackbone.metrics.studentised import Graded

# What is larger has a square that may not be added up.
_SQUARED = 1e140

Moving = Callable[[Counts], tuple[Floats, Floats]]
"""Scores, (n_draws,), and what each picture moves them by, (n_draws, n_images), from how often each picture counts."""


def graded(moving: Moving) -> Graded:
    """Scores with the standard errors that follow from what each picture moves them by."""

    def with_errors(counts: Counts) -> tuple[Floats, Floats]:
        # What overflows, as where all labels are nearly the same, is infinite, and has no error.
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            scores, moves = moving(counts)
            n_images, largest = counts.sum(axis=1), np.abs(moves).max()
            # Their squares may be beyond double precision where they themselves are not.
            unit = largest if _SQUARED < largest < math.inf else 1.0
            squares = (moves if unit == 1.0 else moves / unit) ** 2
            errors = unit * np.sqrt((counts * squares).sum(axis=1) / (n_images - 1) / n_images)
        return scores, np.asarray(errors, np.float64)

    return with_errors


def difference(first: Moving, second: Moving, sign: float = 1.0) -> Moving:
    """Of two models on the same pictures: the first score minus the second, times a sign."""

    def moving(counts: Counts) -> tuple[Floats, Floats]:
        (scores, moves), (others, other_moves) = first(counts), second(counts)
        return sign * (scores - others), sign * (moves - other_moves)

    return moving


def moving_mean(shares: Floats) -> Moving:
    """Of a mean over pictures, whose shares, (n_images,), are given."""

    def moving(counts: Counts) -> tuple[Floats, Floats]:
        means = counts @ shares / counts.sum(axis=1)
        return means, shares[None, :] - means[:, None]

    return moving


def moving_of(metric: Metric, predictions: Floats, labels: NDArray[Any]) -> Moving | None:
    """Of a score that is a mean over pictures, or one of squares; `None` of others."""
    shares = shares_of(metric, predictions, labels)
    if shares is not None:
        return moving_mean(shares)
    if metric.is_own or metric.name not in {"r2", "rmse"}:
        return None
    return moving_numbers(metric, predictions, labels)


def moving_numbers(metric: Metric, numbers: Floats, labels: NDArray[Any]) -> Moving:
    """Of `rmse` or `r2`: the mean over targets of what the mean squared errors, (n_images, n_targets), give."""
    squares = np.asarray((numbers - labels) ** 2, dtype=np.float64)
    return _moving_rmse(squares) if metric.name == "rmse" else _moving_r2(squares, np.asarray(labels, np.float64))


def _moving_rmse(squares: Floats) -> Moving:
    def moving(counts: Counts) -> tuple[Floats, Floats]:
        means = counts @ squares / counts.sum(axis=1, keepdims=True)
        roots = np.sqrt(means)
        # A root that is 0 has no error where nothing errs.
        slopes = np.divide(0.5, roots, out=np.zeros_like(roots), where=roots > 0) / roots.shape[1]
        moves = slopes @ squares.T - (slopes * means).sum(axis=1, keepdims=True)
        return np.asarray(roots.mean(axis=1), np.float64), moves

    return moving


def _moving_r2(squares: Floats, labels: Floats) -> Moving:
    # Far from nought, squares would lose the digits that their differences need.
    centred = labels - np.median(labels, axis=0)

    def moving(counts: Counts) -> tuple[Floats, Floats]:
        n_images = counts.sum(axis=1, keepdims=True)
        means = counts @ centred / n_images
        spreads = counts @ centred**2 / n_images - means**2
        # Targets that do not differ are left out, as where all pictures count once.
        is_defined = spreads > 1e-12 * np.maximum(counts @ centred**2 / n_images, np.finfo(np.float64).tiny)
        weights = np.divide(1.0, spreads, out=np.zeros_like(spreads), where=is_defined)
        n_defined = is_defined.sum(axis=1, keepdims=True)
        weights = np.divide(weights, n_defined, out=weights, where=n_defined > 0)
        missing = counts @ squares / n_images * weights * n_defined
        # A picture moves a target by (error - missing × its squared distance from the mean) / spread.
        moves = (
            weights @ squares.T
            - (weights * missing) @ (centred**2).T
            + 2 * (weights * missing * means) @ centred.T
            - (weights * missing * means**2).sum(axis=1, keepdims=True)
        )
        with np.errstate(invalid="ignore", divide="ignore"):
            scores = 1 - missing.sum(axis=1) / n_defined[:, 0]
        return scores, moves

    return moving

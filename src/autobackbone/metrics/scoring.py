"""A score, and how far other pictures of the same kind could move it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binomtest

from autobackbone.errors import ArgumentError
from autobackbone.metrics.checking import checked
from autobackbone.metrics.known import Metric, to_maximised
from autobackbone.metrics.own import made_from, own_score, own_statistic
from autobackbone.metrics.resampling import Counts, Floats, Statistic, resampled_error, resampled_interval
from autobackbone.metrics.shares import error_of_mean, is_proportion, mean_of, shares_of
from autobackbone.metrics.totals import statistic_of
from autobackbone.metrics.values import value_of


def score(metric: Metric, predictions: ArrayLike, labels: ArrayLike) -> float:
    """Score predictions in the metric's own sign and unit.

    What cannot be missed is left out of a mean over classes, labels or targets: for `balanced_accuracy` and `auroc` a
    class that no label names, for `auroc` and `map` a label that no picture has, for `auroc` also one that all have,
    for `f1_macro` what neither a label nor a prediction names, for `r2` a target whose labels are all equal. Several
    labels are predicted where their probability is above 0.5.

    Args:
        predictions: (n_images, n_outputs) probabilities from 0 to 1, where `log_loss` of a classification divides each
            row by its sum; of a regression, numbers.
        labels: (n_images,) whole numbers; (n_images, n_labels) of 0 and 1; or (n_images, n_targets) numbers.

    Returns:
        From 0 to 1, below 0 for an `r2` worse than the labels' mean, nats for `log_loss`, or in the labels' own unit;
        NaN where it is not defined: where all is left out.

    Raises:
        MetricError: shapes, values or labels are not of this kind, or the user's own metric cannot score them.

    Example:
        >>> from autobackbone.metrics import metric_for
        >>> score(metric_for("accuracy", n_outputs=2), [[0.9, 0.1], [0.6, 0.4]], [0, 1])
        0.5
        >>> score(metric_for("mae", "regression", n_outputs=2), [[1.0, 20.0], [3.0, 20.0]], [[1, 20], [2, 21]])
        0.5
    """
    table, truth = checked(metric, predictions, labels)
    return _value(metric, table, truth)


def standard_error(metric: Metric, predictions: ArrayLike, labels: ArrayLike, *, seed: int = 0) -> float:
    """Tell how far the score would move on other pictures of the same kind.

    In closed form where each picture's share of the score is known, else by bootstrap over pictures.

    Returns:
        One standard error, in the metric's unit; infinite where a single picture leaves it unknown.

    Example:
        >>> from autobackbone.metrics import metric_for
        >>> round(standard_error(metric_for("accuracy", n_outputs=2), [[0.9, 0.1], [0.6, 0.4]] * 50, [0, 1] * 50), 3)
        0.05

    Source: DeLong et al. 1988 for `auroc`; Efron and Tibshirani 1993 for the bootstrap.
    """
    table, truth = checked(metric, predictions, labels)
    shares = shares_of(metric, table, truth)
    if shares is not None:
        return error_of_mean(shares)
    return resampled_error(_statistic(metric, table, truth), len(truth), seed=seed)


def paired_loss(
    metric: Metric, predictions_top: ArrayLike, predictions_other: ArrayLike, labels: ArrayLike, *, seed: int = 0
) -> tuple[float, float]:
    """Tell how much worse one model is than another on the very same pictures, and how sure that is.

    Both stumble over the same hard pictures, so the error of the difference is smaller than either score's own.

    Returns:
        The loss, positive where the other model is worse whatever the metric's orientation, and its standard error,
        both in the metric's unit.

    Example:
        >>> from autobackbone.metrics import metric_for
        >>> top, other = [[0.9, 0.1], [0.2, 0.8]] * 50, [[0.9, 0.1], [0.6, 0.4]] * 50
        >>> loss, error = paired_loss(metric_for("accuracy", n_outputs=2), top, other, [0, 1] * 50)
        >>> round(loss, 3), round(error, 3)
        (0.5, 0.05)
    """
    top, truth = checked(metric, predictions_top, labels)
    other, _ = checked(metric, predictions_other, labels)
    of_top, of_other = shares_of(metric, top, truth), shares_of(metric, other, truth)
    if of_top is not None and of_other is not None:
        losses = to_maximised(metric, 1.0) * (of_top - of_other)
        return float(losses.mean()), error_of_mean(losses)
    first, second = _statistic(metric, top, truth), _statistic(metric, other, truth)

    def difference(counts: Counts) -> Floats:
        return first(counts) - second(counts)

    loss = to_maximised(metric, _value(metric, top, truth) - _value(metric, other, truth))
    return loss, resampled_error(difference, len(truth), seed=seed)


def interval(
    metric: Metric, predictions: ArrayLike, labels: ArrayLike, *, confidence: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Tell between which scores the model would be on endlessly many pictures of the same kind.

    `accuracy` and `top5` of a classification count pictures: Wilson's interval. All others are resampled: a
    bias-corrected and accelerated bootstrap over pictures, with 999 resamples; where the correction is not defined, the
    percentiles of the resampled scores. `auroc` is resampled in its linear form, by what each picture moves it by. A
    resample that lacks a class is scored as `score` would; one in which the score is not defined is left out.

    A score that is the same in every resample, as when no picture was missed, is given as both ends: such pictures
    cannot tell how often another would be missed, only Wilson's interval does. Near the best score few pictures tell
    little in general: with 12 of 60 pictures having a label, at a true `auroc` of 0.98, 79 of 100 intervals of 95 %
    held it; with 20 of 100, at 0.92, 90.

    Args:
        confidence: the share of such intervals that are to hold the truth, between 0 and 1.

    Returns:
        Low and high in the metric's own sign and unit, never NaN, around the score and within what the metric can be;
        all that it can be where the score is not defined or stands on a single picture. What a user's own metric can be
        is not known: then both ends are infinite.

    Raises:
        ArgumentError: `confidence` is not between 0 and 1.
        MetricError: as `score`.

    Example:
        >>> from autobackbone.metrics import metric_for
        >>> low, high = interval(metric_for("accuracy", n_outputs=2), [[0.9, 0.1]] * 100, [0] * 95 + [1] * 5)
        >>> round(low, 3), round(high, 3)
        (0.888, 0.978)

    Source: Wilson 1927, probable inference; Efron 1987, better bootstrap confidence intervals.
    """
    if not 0 < confidence < 1:
        raise ArgumentError(f"confidence must lie between 0 and 1, as 0.95 does, not {confidence!r}.")
    table, truth = checked(metric, predictions, labels)
    value, (lowest, highest) = _value(metric, table, truth), _bounds(metric)
    low, high = _interval(metric, table, truth, value, confidence=confidence, seed=seed) or (lowest, highest)
    # The user's own score may be anything, also where it is not finite; fmin and fmax pass over NaN.
    return float(np.fmin(max(low, lowest), value)), float(np.fmax(min(high, highest), value))


def _value(metric: Metric, table: Floats, truth: NDArray[Any]) -> float:
    if metric.is_own:
        return own_score(_made(metric), table, truth, task=metric.task)
    shares = shares_of(metric, table, truth)
    if shares is not None:
        return float(shares.mean())
    return value_of(metric, table, truth)


def _statistic(metric: Metric, table: Floats, truth: NDArray[Any]) -> Statistic:
    if metric.is_own:
        return own_statistic(_made(metric), table, truth, task=metric.task)
    shares = shares_of(metric, table, truth)
    return statistic_of(metric, table, truth) if shares is None else mean_of(shares)


def _made(metric: Metric) -> Any:
    return metric.live.made if metric.live is not None else made_from(metric.spec)


def _interval(
    metric: Metric, table: Floats, truth: NDArray[Any], value: float, *, confidence: float, seed: int
) -> tuple[float, float] | None:
    n_images = len(truth)
    if n_images < 2 or not math.isfinite(value):
        return None
    if is_proportion(metric):
        found = binomtest(round(value * n_images), n_images).proportion_ci(confidence, method="wilson")
        return float(found.low), float(found.high)
    return resampled_interval(_statistic(metric, table, truth), n_images, confidence=confidence, seed=seed)


def _bounds(metric: Metric) -> tuple[float, float]:
    """What a score can be."""
    # A user's own may lie outside the bounds that it is plotted in, as the R2Score of torchmetrics does.
    if metric.is_own:
        return -math.inf, math.inf
    if metric.name == "r2":
        return -math.inf, 1.0
    return 0.0, 1.0 if metric.unit == "points" else math.inf

"""A score, and how far other pictures of the same kind could move it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from autobackbone.errors import MetricError
from autobackbone.metrics.checking import checked
from autobackbone.metrics.graded import Moving, difference, graded, moving_of
from autobackbone.metrics.known import Metric, to_maximised
from autobackbone.metrics.own import made_from, own_score, own_statistic
from autobackbone.metrics.resampling import Counts, Floats, Statistic, resampled_error
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
    return value_from(metric, table, truth)


def standard_error(metric: Metric, predictions: ArrayLike, labels: ArrayLike, *, seed: int = 0) -> float:
    """Tell how far the score would move on other pictures of the same kind.

    In closed form where each picture's share of the score is known, or what it moves it by, else by bootstrap over
    pictures. Of proportions that are 0 or 1 with half a picture more on the other side.

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
    if shares is not None and is_proportion(metric):
        return _error_of_counts(shares)
    moving = moving_of(metric, table, truth)
    if moving is not None:
        return _error(moving, len(truth))
    return resampled_error(statistic_from(metric, table, truth), len(truth), seed=seed)


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
    loss = to_maximised(metric, value_from(metric, top, truth) - value_from(metric, other, truth))
    of_top, of_other = moving_of(metric, top, truth), moving_of(metric, other, truth)
    if of_top is not None and of_other is not None:
        return loss, _error(difference(of_top, of_other), len(truth))
    first, second = statistic_from(metric, top, truth), statistic_from(metric, other, truth)

    def lost(counts: Counts) -> Floats:
        return first(counts) - second(counts)

    return loss, resampled_error(lost, len(truth), seed=seed)


def is_defined(metric: Metric, labels: ArrayLike) -> bool:
    """Whether any predictions of pictures with these labels can be scored: of the truth itself, that is tried."""
    truth = np.asarray(labels)
    if not metric.is_own:  # which there are decides, and not how often
        truth = np.unique(truth, axis=0)
    table = np.eye(metric.n_outputs)[truth] if metric.task == "classification" else truth.astype(np.float64)
    try:
        return math.isfinite(score(metric, table, truth))
    except MetricError:
        return metric.is_own  # what it has to say is told where it scores


def _error(moving: Moving, n_images: int) -> float:
    if n_images < 2:
        return math.inf
    scores, errors = graded(moving)(np.ones((1, n_images)))
    return float(errors[0]) if math.isfinite(scores[0]) else math.nan


def _error_of_counts(hits: Floats) -> float:
    """Of a proportion; pictures that are all named do not say that each other one would be."""
    n_images, share = hits.size, float(hits.mean())
    if n_images > 1 and share in {0.0, 1.0}:
        share = (hits.sum() + 0.5) / (n_images + 1)
        return math.sqrt(share * (1 - share) / n_images)
    return error_of_mean(hits)


def require_scoring(metric: Metric) -> None:
    """Try the user's own metric on made-up pictures, before any time is spent: known ones pass.

    Raises:
        MetricError: it refuses what it would be given, or no text makes it again for those who open the run.
    """
    if not metric.is_own:
        return
    _ = metric.spec
    rng, n_images = np.random.default_rng(0), 4 * metric.n_outputs + 4
    if metric.task == "classification":
        predictions, labels = rng.dirichlet(np.ones(metric.n_outputs), n_images), np.arange(n_images) % metric.n_outputs
    elif metric.task == "multilabel":
        predictions = rng.random((n_images, metric.n_outputs))
        labels = (np.arange(n_images)[:, None] + np.arange(metric.n_outputs)) % 2
    else:
        predictions, labels = rng.normal(size=(2, n_images, metric.n_outputs))
    try:
        score(metric, predictions, labels)
    except MetricError as error:
        what = "numbers" if metric.task == "regression" else "probabilities"
        raise MetricError(
            f"{str(error).rstrip('.')}. It is given {what} of every output, here {metric.n_outputs}: of torchmetrics "
            "take the form for several classes, labels or outputs, also where there are two."
        ) from error


def value_from(metric: Metric, table: Floats, truth: NDArray[Any]) -> float:
    """As `score`, of what was checked."""
    if metric.is_own:
        return own_score(_made(metric), table, truth, task=metric.task)
    shares = shares_of(metric, table, truth)
    if shares is not None:
        return float(shares.mean())
    return value_of(metric, table, truth)


def statistic_from(metric: Metric, table: Floats, truth: NDArray[Any]) -> Statistic:
    """The score as a function of how often each picture counts."""
    if metric.is_own:
        return own_statistic(_made(metric), table, truth, task=metric.task)
    shares = shares_of(metric, table, truth)
    return statistic_of(metric, table, truth) if shares is None else mean_of(shares)


def _made(metric: Metric) -> Any:
    return metric.live.made if metric.live is not None else made_from(metric.spec)

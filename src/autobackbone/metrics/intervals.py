"""Between which scores a model would be on endlessly many pictures of the same kind."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from autobackbone.errors import ArgumentError
from autobackbone.metrics.checking import checked
from autobackbone.metrics.closed import (
    auroc_interval,
    f1_interval,
    paired_auroc_interval,
    paired_interval_of_counts,
    paired_recall_interval,
    precision_interval,
    recall_interval,
    wilson,
)
from autobackbone.metrics.graded import Moving, difference, graded, moving_of
from autobackbone.metrics.known import Metric, bounds, to_maximised
from autobackbone.metrics.resampling import Counts, Floats, resampled_interval
from autobackbone.metrics.scoring import statistic_from, value_from
from autobackbone.metrics.shares import auroc_columns, is_proportion, shares_of
from autobackbone.metrics.studentised import EXPLAINED, LOSS, PLAIN, studentised_interval
from autobackbone.metrics.totals import named
from autobackbone.metrics.values import precisions


def interval(
    metric: Metric, predictions: ArrayLike, labels: ArrayLike, *, confidence: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Tell between which scores the model would be on endlessly many pictures of the same kind.

    Which interval it is follows from what the score is; each was chosen because it holds the truth about as often as it
    says, on simulated and on real draws of 50 pictures and more:

    - `accuracy` and `top5` of a classification count pictures: Wilson's. `balanced_accuracy` and `f1_macro`, means over
      classes of which some may have few pictures: Wilson's, with as many pictures as would have the same standard
      error; classes of which there is no picture widen it. So of `map`, whose variance each label's pictures bound.
    - `auroc`: DeLong's standard error, on the logit scale, with Student's t.
    - `log_loss`, `mae`, `rmse` and `r2`, which a few pictures may carry: a studentised bootstrap over pictures with 999
      resamples, on a logarithmic scale, for `r2` of what is not explained. The end of worse scores counts the worst
      picture once more. What no picture shows no interval knows: where one of hundreds of pictures makes a quarter of
      all squared errors, a draw without it is too sure.
    - `f1_micro`, `accuracy` of several labels a picture, and the user's own: a bias-corrected and accelerated
      bootstrap over pictures with 999 resamples; where the correction is not defined, the percentiles of the resampled
      scores. A resample in which the score is not defined is left out. Where nothing was missed, or everything, all
      resamples score the same, and the interval is Wilson's for a share of as many pictures.

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

    Source: Wilson 1927, probable inference; DeLong et al. 1988; Efron 1982, the jackknife, the bootstrap and other
    resampling plans; Efron 1987, better bootstrap confidence intervals.
    """
    _require_share(confidence)
    table, truth = checked(metric, predictions, labels)
    value, (lowest, highest) = value_from(metric, table, truth), _bounds(metric)
    low, high = lowest, highest
    if len(truth) > 1 and math.isfinite(value):
        found = (
            _in_closed_form(metric, table, truth, value, confidence)
            or _studentised(metric, table, truth, confidence, seed)
            or _corrected(metric, table, truth, value, confidence, seed)
        )
        low, high = found or (lowest, highest)
    # The user's own score may be anything, also where it is not finite; fmin and fmax pass over NaN.
    return float(np.fmin(max(low, lowest), value)), float(np.fmax(min(high, highest), value))


def paired_interval(
    metric: Metric,
    predictions_top: ArrayLike,
    predictions_other: ArrayLike,
    labels: ArrayLike,
    *,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Tell between which losses, as `paired_loss` counts them, the other model would be on endlessly many pictures.

    Proportions, `balanced_accuracy` and `auroc` in closed form, where pictures that none or both name tell that the
    difference is small, not that there is none; other means over pictures, `r2` and `rmse` by the studentised
    bootstrap; else corrected and accelerated.

    Returns:
        Low and high in the metric's unit, positive where the other model is worse whatever the metric's orientation;
        both infinite where pictures do not tell.

    Raises:
        ArgumentError: `confidence` is not between 0 and 1.
        MetricError: as `score`.

    Example:
        >>> from autobackbone.metrics import metric_for
        >>> same = [[0.9, 0.1]] * 100
        >>> low, high = paired_interval(metric_for("accuracy", n_outputs=2), same, same, [0] * 100)
        >>> round(low, 3), round(high, 3)
        (-0.019, 0.019)

    Source: Agresti and Min 2005; DeLong et al. 1988; otherwise as `interval`.
    """
    _require_share(confidence)
    top, truth = checked(metric, predictions_top, labels)
    other, _ = checked(metric, predictions_other, labels)
    n_images, sign = len(truth), to_maximised(metric, 1.0)
    if n_images < 2:
        return -math.inf, math.inf
    loss = sign * (value_from(metric, top, truth) - value_from(metric, other, truth))
    if not math.isfinite(loss):
        return -math.inf, math.inf
    found = _paired_in_closed_form(metric, top, other, truth, confidence)
    if found is None and (moving := _moving_loss(metric, top, other, truth)) is not None:
        found = studentised_interval(graded(moving), n_images, scale=PLAIN, confidence=confidence, seed=seed)
    if found is None:
        first, second = statistic_from(metric, top, truth), statistic_from(metric, other, truth)

        def lost(counts: Counts) -> Floats:
            return sign * (first(counts) - second(counts))

        found = resampled_interval(lost, n_images, confidence=confidence, seed=seed) or (-math.inf, math.inf)
        if not metric.is_own and metric.unit == "points" and metric.name != "r2":
            # Half a picture may always be on the other side, as where two proportions are compared.
            least = paired_interval_of_counts(0, 0, n_images, confidence)[1]
            found = min(found[0], loss - least), max(found[1], loss + least)
    return min(found[0], loss), max(found[1], loss)


def _paired_in_closed_form(
    metric: Metric, top: Floats, other: Floats, truth: NDArray[Any], confidence: float
) -> tuple[float, float] | None:
    if metric.is_own:
        return None
    if metric.name == "balanced_accuracy":
        (is_true, first), (_, second) = named(top, truth), named(other, truth)
        return paired_recall_interval(is_true, first, second, confidence)
    if metric.name == "auroc":
        columns, is_in = auroc_columns(top, truth)
        return paired_auroc_interval(columns, auroc_columns(other, truth)[0], is_in, confidence)
    if not is_proportion(metric):
        return None
    of_top, of_other = shares_of(metric, top, truth), shares_of(metric, other, truth)
    assert of_top is not None
    assert of_other is not None
    n_won, n_lost = int((of_top > of_other).sum()), int((of_top < of_other).sum())
    return paired_interval_of_counts(n_won, n_lost, len(truth), confidence)


def _moving_loss(metric: Metric, top: Floats, other: Floats, truth: NDArray[Any]) -> Moving | None:
    """Where the loss is a mean over pictures, or one of squares."""
    first, second = moving_of(metric, top, truth), moving_of(metric, other, truth)
    return None if first is None or second is None else difference(first, second, to_maximised(metric, 1.0))


def _require_share(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ArgumentError(f"confidence must lie between 0 and 1, as 0.95 does, not {confidence!r}.")


def _in_closed_form(
    metric: Metric, table: Floats, truth: NDArray[Any], value: float, confidence: float
) -> tuple[float, float] | None:
    if metric.is_own:
        return None
    if is_proportion(metric):
        return wilson(value, len(truth), confidence)
    forms = {
        "balanced_accuracy": lambda: recall_interval(value, *named(table, truth), confidence),
        "f1_macro": lambda: f1_interval(value, *named(table, truth), confidence),
        "auroc": lambda: auroc_interval(*auroc_columns(table, truth), confidence),
        "map": lambda: precision_interval(value, precisions(table, truth), truth.sum(axis=0), confidence),
    }
    return forms[metric.name]() if metric.name in forms else None


def _studentised(
    metric: Metric, table: Floats, truth: NDArray[Any], confidence: float, seed: int
) -> tuple[float, float] | None:
    if metric.is_own or (metric.unit == "points" and metric.name != "r2"):
        return None
    moving = moving_of(metric, table, truth)
    assert moving is not None, "losses and r2 are means over pictures, or of squares"
    scale = EXPLAINED if metric.name == "r2" else LOSS
    _, losses = moving(np.ones((1, len(truth))))
    worst = int(losses[0].argmax())
    return studentised_interval(graded(moving), len(truth), scale=scale, confidence=confidence, seed=seed, worst=worst)


def _corrected(
    metric: Metric, table: Floats, truth: NDArray[Any], value: float, confidence: float, seed: int
) -> tuple[float, float] | None:
    found = resampled_interval(statistic_from(metric, table, truth), len(truth), confidence=confidence, seed=seed)
    is_share = not metric.is_own and _bounds(metric) == (0.0, 1.0)
    if is_share and value in {0.0, 1.0} and found == (value, value):
        return wilson(value, len(truth), confidence)
    return found


def _bounds(metric: Metric) -> tuple[float, float]:
    """What a score can be. A user's own may lie outside the bounds that it names, as R2Score of torchmetrics does."""
    return (-math.inf, math.inf) if metric.is_own else bounds(metric)

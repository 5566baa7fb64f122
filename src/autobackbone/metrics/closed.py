"""Intervals of shares in closed form: Wilson's, with as many pictures as would have the score's standard error.

A mean over classes stands on some that have few pictures. Of a class without a miss a resample says that there never is
one; half a hit and half a miss more in each class, as Jeffreys' prior adds them, say how much is not known.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.special import expit, logit
from scipy.stats import t as student

from autobackbone.metrics.resampling import Floats
from autobackbone.metrics.shares import right_sides

Flags = NDArray[np.bool_]
_PLUS_FOUR = 4


def wilson(share: float, n: float, confidence: float, *, n_free: float = math.inf) -> tuple[float, float]:
    """Of a share of n, which need not be whole; with Student's t where its spread is known only so well.

    Source: Wilson 1927, probable inference.
    """
    quantile = _quantile(confidence, n_free)
    centre = (share + quantile**2 / (2 * n)) / (1 + quantile**2 / n)
    half = quantile / (1 + quantile**2 / n) * math.sqrt(share * (1 - share) / n + quantile**2 / (4 * n**2))
    return float(centre - half), float(centre + half)


def paired_interval_of_counts(n_won: int, n_lost: int, n_images: int, confidence: float) -> tuple[float, float]:
    """Of the difference of two proportions of the same pictures.

    Args:
        n_won: pictures that the first has and the second has not.
        n_lost: the other way round.
        n_images: of all.
        confidence: between 0 and 1.

    Source: Agresti and Min 2005, simple improved confidence intervals for comparing matched proportions: half a picture
    more in each of the four cells.
    """
    value, half = (
        (n_won - n_lost) / (n_images + 2),
        _quantile(confidence) * math.sqrt(_variance(n_won, n_lost, n_images)),
    )
    return value - half, value + half


def recall_interval(value: float, is_true: Flags, is_found: Flags, confidence: float) -> tuple[float, float]:
    """Of `balanced_accuracy`.

    Args:
        value: the mean recall over classes that have pictures.
        is_true: (n_images, n_classes), the picture's class.
        is_found: the same of predictions.
        confidence: between 0 and 1.
    """
    n_true, n_hit = is_true.sum(axis=0), (is_true & is_found).sum(axis=0)
    recalls = (n_hit + 0.5) / (n_true + 1)
    return _by_class(value, recalls, recalls * (1 - recalls), n_true, confidence)


def f1_interval(value: float, is_true: Flags, is_found: Flags, confidence: float) -> tuple[float, float]:
    """Of `f1_macro`: a class's F1 is 2 J / (1 + J) of the share J that both name of what either names.

    A picture of one class that is taken for another counts against both: by how much all classes vary together more
    than each for itself, the variance grows.

    Args:
        value: the mean F1 over classes, or labels, that are named.
        is_true: (n_images, n_classes), what is true.
        is_found: the same of predictions.
        confidence: between 0 and 1.
    """
    n_both, n_either = (is_true & is_found).sum(axis=0), (is_true | is_found).sum(axis=0)
    shares = (n_both + 0.5) / (n_either + 1)
    slopes, spreads, is_seen = 2 / (1 + shares) ** 2, shares * (1 - shares), n_either > 0
    variances = _together(is_true, is_found) * slopes**2 * spreads
    missing = slopes[is_seen] / (1 + shares[is_seen]) * spreads[is_seen] / n_either[is_seen]
    expected = min(1.0, value + float(missing.mean()))
    return _by_class(expected, 2 * shares / (1 + shares), variances, n_either, confidence)


def _together(is_true: Flags, is_found: Flags) -> float:
    """How many times the variance of a sum over classes is the sum of their variances, at least 1."""
    # Of thousands of classes a picture has two at most.
    both, either = csr_array(is_true & is_found), csr_array(is_true, dtype=np.float64) + csr_array(is_found)
    named = either.sum(axis=0)
    f1 = np.divide(2.0 * both.sum(axis=0), named, out=np.zeros(len(named)), where=named > 0)
    weights = np.divide(1.0, named, out=np.zeros(len(named)), where=named > 0)
    moves = 2.0 * both.multiply(weights) - either.multiply(f1 * weights)
    apart = float((moves**2).sum())
    return max(1.0, float((moves.sum(axis=1) ** 2).sum()) / apart) if apart > 0 else 1.0


def _by_class(
    value: float, scores: Floats, variances: Floats, n_of_class: NDArray[np.int64], confidence: float
) -> tuple[float, float]:
    """Of a mean over classes, each with a smoothed score and the variance of one picture; absent ones widen it.

    Of one class the spread follows from the mean; of several it does not, and is known only so well.

    Source: Welch 1947 for the degrees of freedom; Agresti and Coull 1998 for the four pictures that a class has beside
    its own: the spread of a share is bounded, and never known from one picture alone.
    """
    is_seen = n_of_class > 0
    n_seen, share_absent = int(is_seen.sum()), 1 - is_seen.mean()
    smoothed = float(scores[is_seen].mean())
    parts = variances[is_seen] / n_of_class[is_seen]
    variance = parts.sum() / n_seen**2 + share_absent * smoothed * (1 - smoothed) / n_seen
    n_free = parts.sum() ** 2 / (parts**2 / (n_of_class[is_seen] + _PLUS_FOUR)).sum() if n_seen > 1 else math.inf
    return wilson(value, smoothed * (1 - smoothed) / variance, confidence, n_free=float(n_free))


def precision_interval(
    value: float, of_labels: Floats, n_own: NDArray[np.int64], confidence: float
) -> tuple[float, float]:
    """Of `map`: a label's average precision varies no more than a share of the pictures that have it.

    Args:
        value: the mean over labels that some picture has.
        of_labels: (n_labels,) average precision of each; of those that no picture has, anything.
        n_own: (n_labels,) pictures that have it.
        confidence: between 0 and 1.

    Source: Boyd, Eng and Page 2013, area under the precision-recall curve: point estimates and confidence intervals.
    """
    smoothed = (np.where(n_own > 0, of_labels, 0.0) * n_own + 0.5) / (n_own + 1)
    return _by_class(value, smoothed, smoothed * (1 - smoothed), n_own, confidence)


def auroc_interval(columns: Floats, is_in: Flags, confidence: float) -> tuple[float, float]:
    """Of `auroc`, the mean over columns whose pictures are not all of one kind.

    DeLong's standard error on the logit scale, with Student's t: few pictures of one kind tell little about how much
    they differ. A column whose pictures are all told apart varies as the steadiest other one. Where all are told apart,
    Wilson's interval of as many pictures as are of the smaller kind of a column.

    Args:
        columns: (n_images, k) probabilities.
        is_in: (n_images, k), both values in each column.
        confidence: between 0 and 1.

    Source: DeLong et al. 1988; Qin and Hotilovac 2008 for the scale; Welch 1947 for the degrees of freedom.
    """
    sides = [right_sides(column, own) for column, own in zip(columns.T, is_in.T, strict=True)]
    value, variance, n_free = _delong(sides, is_in)
    if not 0 < value < 1 or variance == 0:
        return wilson(value, _n_of_smaller(is_in), confidence)
    half = student.ppf((1 + confidence) / 2, n_free) * math.sqrt(variance) / (value * (1 - value))
    return float(expit(logit(value) - half)), float(expit(logit(value) + half))


def paired_auroc_interval(first: Floats, second: Floats, is_in: Flags, confidence: float) -> tuple[float, float]:
    """Of the difference of two models' `auroc` on the same pictures, arguments as of `auroc_interval`.

    Half a picture of the smaller kind may always be on the other side: who says the same is not surely the same.

    Source: DeLong et al. 1988.
    """
    sides = []
    for one, other, own in zip(first.T, second.T, is_in.T, strict=True):
        (own_one, rest_one), (own_other, rest_other) = right_sides(one, own), right_sides(other, own)
        sides.append((own_one - own_other, rest_one - rest_other))
    value, variance, n_free = _delong(sides, is_in)
    error = max(math.sqrt(variance), 0.5 / _n_of_smaller(is_in))
    half = float(student.ppf((1 + confidence) / 2, n_free)) * error
    return value - half, value + half


def paired_recall_interval(is_true: Flags, first: Flags, second: Flags, confidence: float) -> tuple[float, float]:
    """Of the difference of two models' `balanced_accuracy` on the same pictures.

    Args:
        is_true: (n_images, n_classes), the picture's class.
        first: the same of one model's predictions.
        second: and of the other's.
        confidence: between 0 and 1.

    Source: Agresti and Min 2005 for each class.
    """
    n_true = is_true.sum(axis=0)
    seen = n_true > 0
    n_won = (is_true & first & ~second).sum(axis=0)[seen]
    n_lost = (is_true & second & ~first).sum(axis=0)[seen]
    variance = float(_variance(n_won, n_lost, n_true[seen]).sum()) / int(seen.sum()) ** 2
    value, half = float(((n_won - n_lost) / n_true[seen]).mean()), _quantile(confidence) * math.sqrt(variance)
    return value - half, value + half


def _variance(n_won: Any, n_lost: Any, n_images: Any) -> Any:
    """Of the difference of two proportions, or of several pairs of them, by Agresti and Min."""
    n = n_images + 2
    return (n_won + n_lost + 1 - (n_won - n_lost) ** 2 / n) / n**2


def _quantile(confidence: float, n_free: float = math.inf) -> float:
    """Of Student's t, which is the normal distribution where there is no end of degrees of freedom."""
    return float(student.ppf((1 + confidence) / 2, n_free))


def _delong(sides: Sequence[tuple[Floats, Floats]], is_in: Flags) -> tuple[float, float, float]:
    """The mean over columns, its variance, and the degrees of freedom of that."""
    values, of_columns = [], []
    moves, alone = np.zeros(len(is_in)), 0.0
    for (right_in, right_out), own in zip(sides, is_in.T, strict=True):
        values.append(float(right_in.mean()))
        parts = []
        for side, right in ((own, right_in), (~own, right_out)):
            n, n_free = len(right), max(len(right) - 1, 1)
            # One picture does not tell by how much two differ; a share with this mean differs by no more.
            spread = right.var(ddof=1) if n > 1 else abs(values[-1]) * (1 - abs(values[-1]))
            parts.append((spread / n, n_free))
            alone += spread if n == 1 else 0.0
            moves[side] += (right - right.mean()) / math.sqrt(n * n_free)
        both = sum(part for part, _ in parts)
        of_columns.append((both, both**2 / sum(part**2 / n for part, n in parts) if both > 0 else 1.0))
    k = len(values)
    # What a picture moves in several columns adds up before it is squared; the single ones moved nothing.
    steady = [both for both, _ in of_columns if both > 0]
    variance = float((moves**2).sum() + alone + (k - len(steady)) * min(steady, default=0.0)) / k**2
    if variance == 0:
        return float(np.mean(values)), 0.0, max(1.0, _n_of_smaller(is_in) - 1)
    # The same pictures stand in all columns: more of them make no error better known.
    n_free = np.average([n for _, n in of_columns], weights=[part for part, _ in of_columns])
    return float(np.mean(values)), variance, float(n_free)


def _n_of_smaller(is_in: Flags) -> int:
    """Pictures that are of the smaller kind of some column."""
    is_smaller = np.where(2 * is_in.sum(axis=0) <= len(is_in), is_in, ~is_in)
    return int(is_smaller.any(axis=1).sum())

"""The bootstrap over pictures, for scores that are functions of how often each picture counts."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import DegenerateDataWarning, bootstrap

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Counts = NDArray[np.float64]
Statistic = Callable[[Counts], Floats]
"""Scores, (n_draws,), from how often each picture counts, (n_draws, n_images) whole numbers; NaN where not defined."""

# The standard error of a standard error from 300 resamples is about 4 %: enough to compare a loss with.
_N_FOR_ERROR = 300
# Of many pictures 50 do, with an error of 10 %: little hangs on it there, and each costs a ranking of them all.
_N_FEWEST, _MANY_IMAGES = 50, 10_000
# Ends of an interval are rarer than a spread: 999 put 25 draws beyond each end of 95 %.
N_FOR_INTERVAL = 999
# The acceleration, a skewness, is taken from groups of pictures that are left out together; with each picture alone it
# would cost as many scores as there are pictures. From 400 groups it is right to 0.001 for shares of an exponential
# distribution and to 0.003 for log-normal ones (1,000 to 20,000 pictures), and moves an end by a hundredth of a spread.
_N_GROUPS = 400
# Numbers in one table of counts: 2 MB, which stay close to the core; with 32 MB a thousand scores took thrice as long.
_N_AT_ONCE = 2**18


def resampled_error(statistic: Statistic, n_images: int, *, seed: int) -> float:
    """Spread of a score over resampled pictures; resamples in which it is not defined are left out.

    Returns:
        One standard error; infinite for a single picture, NaN where the score is not defined.
    """
    if n_images < 2:
        return math.inf
    n_draws = max(_N_FEWEST, _N_FOR_ERROR * _MANY_IMAGES // max(n_images, _MANY_IMAGES))
    draws = _draws(statistic, n_images, n_draws, np.random.default_rng(seed))
    return float(draws.std(ddof=1)) if draws.size > 1 else math.nan


def resampled_interval(
    statistic: Statistic, n_images: int, *, confidence: float, seed: int
) -> tuple[float, float] | None:
    """Bias-corrected and accelerated interval of a score over resampled pictures, at least two.

    Resamples in which the score is not defined are left out. Where correction and acceleration are not defined, the
    percentiles of the resampled scores are given.

    Returns:
        Low and high, equal if all resamples score the same; `None` if they do so only where the score is defined.

    Source: Efron 1987, better bootstrap confidence intervals.
    """
    rng = np.random.default_rng(seed)
    draws = _draws(statistic, n_images, N_FOR_INTERVAL, rng)
    if draws.size < N_FOR_INTERVAL and (draws.size < 2 or np.ptp(draws) == 0):
        return None
    corrected = None if np.ptp(draws) == 0 else _corrected(statistic, draws, n_images, confidence, rng)
    if corrected is not None:
        return corrected
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _draws(statistic: Statistic, n_images: int, n_draws: int, rng: np.random.Generator) -> Floats:
    drawn = np.concatenate([statistic(counts) for counts in counted(n_images, n_draws, rng)])
    return np.asarray(drawn[np.isfinite(drawn)], dtype=np.float64)


def _corrected(
    statistic: Statistic, draws: Floats, n_images: int, confidence: float, rng: np.random.Generator
) -> tuple[float, float] | None:
    n_groups = min(n_images, _N_GROUPS)
    group_of = rng.permutation(n_images) % n_groups

    def of_groups(groups: Ints, axis: int) -> Any:  # noqa: ARG001  scipy's signature; it is always the last
        rows = groups.reshape(-1, groups.shape[-1])
        return statistic(_counts(rows, n_groups)[:, group_of]).reshape(groups.shape[:-1])

    # What scipy warns of, or divides by nought for, is answered here by the percentiles.
    with warnings.catch_warnings(), np.errstate(invalid="ignore", divide="ignore"):
        warnings.simplefilter("ignore", DegenerateDataWarning)
        found = bootstrap(
            (np.arange(n_groups),),
            of_groups,
            n_resamples=0,
            bootstrap_result=SimpleNamespace(bootstrap_distribution=draws),
            batch=max(1, _N_AT_ONCE // n_images),
            vectorized=True,
            confidence_level=confidence,
            method="BCa",
        ).confidence_interval
    low, high = float(found.low), float(found.high)
    return None if math.isnan(low) or math.isnan(high) else (low, high)


def counted(n_images: int, n_draws: int, rng: np.random.Generator) -> Iterator[Counts]:
    """How often each picture counts in each resample, (any, n_images), `n_draws` in all."""
    n_at_once = max(1, _N_AT_ONCE // n_images)
    for begin in range(0, n_draws, n_at_once):
        n = min(n_at_once, n_draws - begin)
        yield _counts(rng.integers(0, n_images, (n, n_images)), n_images)


def _counts(rows: Ints, n: int) -> Counts:
    """How often each of n things stands in each row: (n_draws, any) numbers below n → (n_draws, n)."""
    places = rows + n * np.arange(len(rows))[:, None]
    return np.bincount(places.ravel(), minlength=n * len(rows)).reshape(-1, n).astype(np.float64)

"""The studentised bootstrap: how many of its own standard errors a score strays, seen in resamples.

Where few pictures carry most of a score, as a few certain errors do in `log_loss` and a few wild ones in `r2`, a sample
that happens to lack them has a score that is too good and an error that is too small, both at once. Scores in units of
their own errors know that; plain resampled scores, also bias-corrected and accelerated ones, do not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.stats import t as student

from autobackbone.metrics.resampling import N_FOR_INTERVAL, Counts, Floats, counted

Graded = Callable[[Counts], tuple[Floats, Floats]]
"""Scores and their standard errors, both (n_draws,), from how often each picture counts, (n_draws, n_images)."""


# Of resamples: with five pictures one in 600 shows a single one of them, with four one in 64.
_MOST_WITHOUT_SPREAD = 0.005


class Scale(NamedTuple):
    """A scale on which a score strays about as far everywhere.

    Args:
        to: the scale, rising with the score.
        back: its inverse.
        slope: its derivative.
    """

    to: Callable[[Floats], Floats]
    back: Callable[[Floats], Floats]
    slope: Callable[[Floats], Floats]


PLAIN = Scale(lambda value: value, lambda on_scale: on_scale, np.ones_like)
"""Of what may be anything, such as a difference."""
LOSS = Scale(np.log, np.exp, lambda loss: 1 / loss)
"""Of what is above 0."""
EXPLAINED = Scale(lambda r2: -np.log1p(-r2), lambda on_scale: -np.expm1(-on_scale), lambda r2: 1 / (1 - r2))
"""Of what is below 1, by the logarithm of what is missing."""


def studentised_interval(
    graded: Graded, n_images: int, *, scale: Scale, confidence: float, seed: int, worst: int | None = None
) -> tuple[float, float] | None:
    """Interval of a score whose own standard error is known in every resample.

    Args:
        graded: what resamples score.
        n_images: pictures of a resample.
        scale: on which the score strays.
        confidence: between 0 and 1.
        seed: of the resamples.
        worst: a picture that counts once more for the end that it draws the score to: another one as bad may just as
            well have been missed. `None` for none.

    Resamples in which that is not defined are left out. Where some of them have no spread at all, as with four pictures
    and fewer, Student's t takes their place.

    Returns:
        Low and high; `None` where the score or its error is not defined, or the score is at an end of its scale.

    Source: Efron 1982, the jackknife, the bootstrap and other resampling plans, chapter 10; Davison and Hinkley 1997,
    section 5.2, on scales.
    """
    rng = np.random.default_rng(seed)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        place, unit = _on(scale, *graded(np.ones((1, n_images))))
        if not (np.isfinite(place[0]) and 0 < unit[0] < math.inf):
            return None
        drawn = [_on(scale, *graded(counts)) for counts in counted(n_images, N_FOR_INTERVAL, rng)]
        places, units = (np.concatenate(parts) for parts in zip(*drawn, strict=True))
        strays = (places - place[0]) / units
        strays = strays[~np.isnan(strays)]
        is_shown = strays.size > 0 and np.isinf(strays).mean() <= _MOST_WITHOUT_SPREAD
        tails = np.array([(1 + confidence) / 2, (1 - confidence) / 2])
        # No mean of two that may be infinite.
        found = np.quantile(strays, tails, method="inverted_cdf") if is_shown else np.full(2, math.inf)
        if not np.isfinite(found).all():
            found = student.ppf(tails, n_images - 1)
        low, high = scale.back(place[0] - found * unit[0])
        if worst is not None:
            once_more = np.ones((1, n_images))
            once_more[0, worst] = 2
            drawn_to, its_unit = _on(scale, *graded(once_more))
            lower, higher = scale.back(drawn_to[0] - found * its_unit[0])
            # The minimum and maximum that pass over NaN.
            if drawn_to[0] < place[0]:
                low = np.fmin(low, lower)
            else:
                high = np.fmax(high, higher)
    return float(low), float(high)


def _on(scale: Scale, scores: Floats, errors: Floats) -> tuple[Floats, Floats]:
    return scale.to(scores), errors * scale.slope(scores)

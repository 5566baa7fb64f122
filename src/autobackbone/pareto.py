"""Which trials are worth having: front, hypervolume, knee, and the smallest that is good enough.

Everywhere here `scores` are maximised and `latencies` are minimised, both `(n,)` in the same order.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

# With one picture on which two models disagree, loss and standard error are the same number, 1/n, reached by two
# formulas. "Within one standard error" must not hang on their last bit.
_ROUNDING = 1e-9


class Reference(NamedTuple):
    """The worst score and the highest latency that still count."""

    score: float
    latency_ms: float


def front_mask(scores: ArrayLike, latencies: ArrayLike, noise: ArrayLike | None = None) -> NDArray[np.bool_]:
    """Tell which points are on the front.

    A point beats another when its score is higher at a latency that is lower or tied, or its score is equal at a lower
    latency. Two latencies tie when their intervals `latency ± noise` touch. The front is the one set in which no
    point beats another and which beats every point outside. Without noise that is the usual set of points that nothing
    beats. With noise the difference matters: "tied" is not transitive, and in a long chain of neighbours, each tied
    with the next, every point but the last would be beaten by one that is itself beaten.

    Equal points stay together, so the answer does not depend on the order of rows. A row with a NaN is never on the
    front and beats nothing.

    Args:
        scores: (n,), higher is better.
        latencies: (n,) milliseconds, lower is better.
        noise: (n,) milliseconds, half-widths of at least 0; NaN counts as 0, `None` is 0 for all.

    Returns:
        (n,) bool, in the order of the rows.

    Raises:
        ValueError: shapes differ, or a noise is negative.

    Example:
        >>> front_mask([0.80, 0.90, 0.85], [1.0, 2.0, 3.0]).tolist()
        [True, True, False]
        >>> front_mask([0.80, 0.90], [1.99, 2.0], noise=[0.01, 0.01]).tolist()
        [False, True]

    Source: the kernel of an acyclic relation, von Neumann and Morgenstern 1944; O(n log n).
    """
    mask = np.zeros(np.shape(scores), dtype=np.bool_)
    for first in islice(front_layers(scores, latencies, noise), 1):
        mask[first] = True
    return mask


def front_layers(
    scores: ArrayLike, latencies: ArrayLike, noise: ArrayLike | None = None
) -> Iterator[NDArray[np.int64]]:
    """The front, then the front of the others, and so on, until all rows without a NaN have come.

    Args:
        scores: (n,), as for `front_mask`, and so are the others.
        latencies: (n,) milliseconds.
        noise: (n,) milliseconds.

    Yields:
        The rows of a layer, ascending.

    Raises:
        ValueError: shapes differ, or a noise is negative.

    Example:
        >>> [rows.tolist() for rows in front_layers([0.80, 0.90, 0.85, 0.80], [1.0, 2.0, 3.0, 4.0])]
        [[0, 1], [2], [3]]
    """
    score, latency = _columns(scores, latencies)
    half = np.zeros_like(latency) if noise is None else np.nan_to_num(_like(noise, latency, "noise"), nan=0.0)
    if (half < 0).any():
        raise ValueError(f"noise must be at least 0 in every row; {half.min()} came. Give half-widths in milliseconds.")
    low, high = latency - half, latency + half
    rows = np.flatnonzero(~np.isnan(score) & ~np.isnan(latency))
    # Whoever beats a point stands before it in this order, so one walk settles each point of a layer for good.
    rows = rows[np.lexsort((latency[rows], -score[rows]))]
    while len(rows):
        likely = rows[~_is_hopeless(low[rows], high[rows])]
        layer = likely[_walk(score[likely], low[likely], high[likely])]
        yield np.sort(layer)
        rows = rows[~np.isin(rows, layer)]


def _is_hopeless(lows: Floats, highs: Floats) -> NDArray[np.bool_]:
    """Points that one before them undercuts beyond all noise: it beats them, or whoever beats it does.

    Of 100,000 random points this leaves some tens for the walk, which is a loop in Python.
    """
    lowest_before = np.minimum.accumulate(np.concatenate(([np.inf], highs)))[:-1]
    return lowest_before < lows


def _walk(scores: Floats, lows: Floats, highs: Floats) -> list[int]:
    """Positions that stay, of points sorted by falling score, then by rising latency."""
    kept: list[int] = []
    low_above = np.inf  # the lowest low among kept points of a higher score
    low_here = high_here = np.inf  # the lowest low and high among kept points of this score
    previous = np.nan
    for i, (score, low, high) in enumerate(zip(scores.tolist(), lows.tolist(), highs.tolist(), strict=True)):
        if score != previous:
            low_above, low_here, high_here, previous = min(low_above, low_here), np.inf, np.inf, score
        is_beaten = (score < scores[0] and low_above <= high) or high_here < low
        if not is_beaten:
            kept.append(i)
            low_here, high_here = min(low_here, low), min(high_here, high)
    return kept


def hypervolume(scores: ArrayLike, latencies: ArrayLike, reference: tuple[float, float]) -> float:
    """Measure the area between the points and a reference: one number for how good a whole front is.

    Args:
        scores: (n,), higher is better; NaN rows count for nothing.
        latencies: (n,) milliseconds.
        reference: the score and the latency of the corner; points that are not better in both count for nothing.

    Returns:
        The area, in units of score times milliseconds, exact.

    Example:
        >>> hypervolume([2.0, 3.0], [1.0, 2.0], reference=(0.0, 4.0))
        8.0

    Source: Zitzler and Thiele 1998, the size of the space covered.
    """
    score, latency = _columns(scores, latencies)
    corner = Reference(*reference)
    is_inside = (score > corner.score) & (latency < corner.latency_ms)
    order = np.argsort(latency[is_inside], kind="stable")
    best_so_far = np.maximum.accumulate(score[is_inside][order])
    heights = np.diff(best_so_far, prepend=corner.score)
    return float(np.sum(heights * (corner.latency_ms - latency[is_inside][order])))


def knee(scores: ArrayLike, latencies: ArrayLike) -> int:
    """Find the point of the front from which either way costs most.

    It lies furthest above the straight line between the two ends of the front, on a logarithmic latency axis: the bend
    that the eye sees in the plot. Without a bend it is the fastest point.

    Args:
        scores: (n,), higher is better.
        latencies: (n,) milliseconds, above 0.

    Returns:
        The row of the knee.

    Raises:
        ValueError: no row has a score and a latency, or a latency is not above 0.

    Example:
        >>> knee([0.5, 0.9, 0.91], [1.0, 2.0, 8.0])
        1

    Source: Das 1999, On characterizing the knee of the Pareto curve.
    """
    score, latency = _columns(scores, latencies)
    rows = np.flatnonzero(front_mask(score, latency))
    _require_rows(rows)
    if (latency[rows] <= 0).any():
        raise ValueError(f"latencies must be above 0 milliseconds for a logarithmic axis; {latency.min()} came.")
    rows = rows[np.argsort(latency[rows], kind="stable")]
    heights = _share_of_span(score[rows]) - _share_of_span(np.log(latency[rows]))
    return int(rows[int(np.argmax(heights))])


def _share_of_span(values: Floats) -> Floats:
    span = values[-1] - values[0]
    return (values - values[0]) / span if span > 0 else np.zeros_like(values)


def good_enough(
    scores: ArrayLike,
    latencies: ArrayLike,
    losses_to_top: ArrayLike,
    standard_errors: ArrayLike,
    tolerance: float,
    *,
    noise: ArrayLike | None = None,
) -> int:
    """Choose the fastest point of the front that is as good as the top scorer, as far as the pictures can tell.

    Args:
        scores: (n,), higher is better.
        latencies: (n,) milliseconds.
        losses_to_top: (n,), how much worse each is than the top scorer on the same pictures, positive when worse; NaN
            where that is not known, which is never good enough.
        standard_errors: (n,), of those losses; a loss within one is good enough.
        tolerance: the largest loss that is good enough whatever the standard error, at least 0, in the metric's unit.
        noise: (n,) milliseconds, as in `front_mask`.

    Returns:
        The row to choose; equal latencies are settled by the higher score, then by the earlier row. The top scorer is
        always good enough, so there is an answer wherever there is a front.

    Raises:
        ValueError: no row has a score and a latency, or the tolerance is negative.

    Example:
        >>> good_enough([0.90, 0.91, 0.95], [1.0, 2.0, 9.0], [0.05, 0.004, 0.0], [0.01, 0.01, 0.0], tolerance=0.005)
        1

    Source: the one-standard-error rule, Breiman et al. 1984.
    """
    score, latency = _columns(scores, latencies)
    mask = good_enough_mask(score, latency, losses_to_top, standard_errors, tolerance, noise=noise)
    rows = np.flatnonzero(mask)
    return int(rows[np.lexsort((-score[rows], latency[rows]))[0]])


def good_enough_mask(
    scores: ArrayLike,
    latencies: ArrayLike,
    losses_to_top: ArrayLike,
    standard_errors: ArrayLike,
    tolerance: float,
    *,
    noise: ArrayLike | None = None,
) -> NDArray[np.bool_]:
    """Tell which points of the front are as good as the top scorer; arguments and errors are those of `good_enough`.

    Returns:
        (n,) bool, with at least one `True`: the top scorer.

    Example:
        >>> good_enough_mask([0.94, 0.9, 0.95], [1.0, 2.0, 9.0], [0.004, 0.05, 0.0], [0.01, 0.01, 0.0], 0.005).tolist()
        [True, False, True]
    """
    if not tolerance >= 0:
        raise ValueError(
            f"tolerance must be at least 0 in the metric's unit, not {tolerance!r}; 0.005 is half a point."
        )
    score, latency = _columns(scores, latencies)
    loss, error = _like(losses_to_top, score, "losses_to_top"), _like(standard_errors, score, "standard_errors")
    on_front = front_mask(score, latency, noise)
    _require_rows(np.flatnonzero(on_front))
    is_close = (loss <= error * (1 + _ROUNDING)) & (loss <= tolerance * (1 + _ROUNDING))
    is_top = score == score[on_front].max()
    return np.asarray(on_front & (is_close | is_top), dtype=np.bool_)


def _require_rows(rows: NDArray[np.intp]) -> None:
    if rows.size == 0:
        raise ValueError("a front needs at least one row with a score and a latency; none came.")


def _columns(scores: ArrayLike, latencies: ArrayLike) -> tuple[Floats, Floats]:
    score = np.asarray(scores, dtype=np.float64)
    if score.ndim != 1:
        raise ValueError(f"scores must have the shape (n,), not {score.shape}.")
    return score, _like(latencies, score, "latencies")


def _like(values: ArrayLike, score: Floats, name: str) -> Floats:
    column = np.asarray(values, dtype=np.float64)
    if column.shape != score.shape:
        raise ValueError(f"{name} must have the shape of the other columns, {score.shape}; {column.shape} came.")
    return column

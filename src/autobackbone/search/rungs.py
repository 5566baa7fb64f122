"""Who goes on after a rung: decided by score and latency together. Pure: knows nothing of Optuna or of networks.

Latency is known before any training, so a trial can be judged at its own: it goes on if it is among the best of its
rung by non-domination, and it is hopeless when no plausible end would put it on the front.

Scores are maximised here. Source: successive halving, Jamieson and Talwalkar 2016; its asynchronous form, Li et al.
2020; with several objectives, Schmucker et al. 2021.
"""

from __future__ import annotations

import statistics
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autobackbone.pareto import front_mask, hypervolume

# Half of each rung goes on, to a rung twice as high. Thirds saved as much on synthetic curves, and lost more of the
# front where curves saturate at different speeds or cross.
HALVING = 2
# Fewer gains than this tell nothing of the largest.
_ENOUGH = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """What is known of one trial.

    Args:
        number: of the trial.
        latency_ms: its latency.
        noise_ms: half-width within which latencies tie.
        scores: after each epoch, maximised; that of its head, where nothing was trained by epochs.
        n_epochs: that it was trained; 0 for a frozen network.
        has_ended: whether it was trained to its end, so that it may stand on the front.
    """

    number: int
    latency_ms: float
    scores: tuple[float, ...]
    n_epochs: int
    noise_ms: float = 0.0
    has_ended: bool = False

    def best(self, n_epochs: int | None = None) -> float:
        """The best score of so many epochs: that of the weights which are kept."""
        return max(self.scores[:n_epochs])


def rungs(n_epochs: int) -> tuple[int, ...]:
    """Epochs after which a training of so many epochs is compared with others, its end left out.

    Example:
        >>> rungs(2), rungs(10), rungs(16)
        ((1,), (1, 2, 4), (1, 2, 4, 8))
    """
    found, rung = [], 1
    while HALVING * rung <= n_epochs:
        found.append(rung)
        rung *= HALVING
    return tuple(found)


def gains(curves: Sequence[Curve], rung: int) -> list[float]:
    """What the trials that went to their end gained after a rung, at least 0 each."""
    return [curve.best() - curve.best(rung) for curve in curves if curve.has_ended and curve.n_epochs > rung]


def plausible_gain(seen: Sequence[float]) -> float:
    """How much a trial may yet gain: twice the most that others gained.

    They were chosen for a good beginning, and who begins well often gains less; hence the margin. Infinite where fewer
    than three were seen: nothing is known to be hopeless then.

    Example:
        >>> plausible_gain([0.02, 0.0, 0.01]), plausible_gain([0.02, 0.0])
        (0.04, inf)
    """
    return 2 * max(seen) if len(seen) >= _ENOUGH else float("inf")


def is_hopeless(curve: Curve, others: Sequence[Curve]) -> bool:
    """Whether no plausible end puts a trial on the front: a trial that ended is better by then and not slower.

    Args:
        curve: of a trial that has not ended.
        others: all of the study's trials; gains are read off those that ended.
    """
    end = curve.best() + plausible_gain(gains(others, curve.n_epochs))
    return any(
        other.has_ended
        and other.best() > end
        and other.latency_ms - other.noise_ms <= curve.latency_ms + curve.noise_ms
        for other in others
    )


def leading(curves: Sequence[Curve], rung: int, n: int) -> set[int]:
    """The numbers of the n best of a rung: layer after layer of trials that none outside it beats on both.

    Within the last layer that has room the likeliest to enlarge the front come first, then the better scores.
    """
    left = [curve for curve in curves if curve.n_epochs >= rung]
    chosen: list[int] = []
    while left and len(chosen) < n:
        mask = front_mask(
            [curve.best(rung) for curve in left],
            [curve.latency_ms for curve in left],
            noise=[curve.noise_ms for curve in left],
        )
        layer = [curve for curve, is_on in zip(left, mask, strict=True) if is_on]
        if len(chosen) + len(layer) > n:
            layer.sort(key=lambda curve: (-growth(curve, curves), -curve.best(rung), curve.number))
        chosen += [curve.number for curve in layer]
        left = [curve for curve, is_on in zip(left, mask, strict=True) if not is_on]
    return set(chosen[:n])


def growth(curve: Curve, curves: Sequence[Curve]) -> float:
    """By how much the front's hypervolume is expected to grow if a trial goes on to its end.

    It is expected to gain what others that went further have gained since its rung, and may still gain. The corner is
    the same for whoever is compared: below the worst score of all, and a tenth above the highest latency.

    Args:
        curve: of one trial; one that has ended adds nothing.
        curves: of all trials, this one among them or not.
    """
    every = [*(other for other in curves if other.number != curve.number), curve]
    ended = [other for other in every if other.has_ended]
    end = curve.best() + _expected_gain(curve, every)
    all_scores = np.array([other.best() for other in every])
    corner = (float(all_scores.min()) - _margin(all_scores), 1.1 * max(other.latency_ms for other in every))
    scores, latencies = [other.best() for other in ended], [other.latency_ms for other in ended]
    return hypervolume([*scores, end], [*latencies, curve.latency_ms], corner) - hypervolume(scores, latencies, corner)


def _expected_gain(curve: Curve, curves: Sequence[Curve], known: dict[int, float | None] | None = None) -> float:
    """What others gained after the same rung and may still gain, the median: who leads at a rung keeps its lead. Where
    none went further, what this one gained since the rung before. Who has ended gains nothing.

    Args:
        curve: of one trial.
        curves: of all.
        known: by rung, what was found for others, since it is the same for all that stand there.
    """
    if curve.has_ended:
        return 0.0
    known = {} if known is None else known
    rung = curve.n_epochs
    if rung not in known:
        further = [other for other in curves if other.n_epochs > rung]
        gained = [other.best() - other.best(rung) + _expected_gain(other, curves, known) for other in further]
        known[rung] = statistics.median(gained) if gained else None
    found = known[rung]
    if found is not None:
        return found
    before = rung // HALVING
    return curve.best() - curve.best(before) if before else 0.0


def promotable(curves: Sequence[Curve], paused: Collection[int], *, is_last_call: bool = False) -> set[int]:
    """Which paused trials are among the best half of the rung where they stand.

    Args:
        curves: of all trials that were trained at all, hopeless ones included: they count in their rungs.
        paused: numbers of those that wait at a rung.
        is_last_call: nothing new will come, so halves are rounded up: each rung sends one on.
    """
    by_number = {curve.number: curve for curve in curves}
    found: set[int] = set()
    for rung in {by_number[number].n_epochs for number in paused}:
        n_there = sum(curve.n_epochs >= rung for curve in curves)
        n = -(-n_there // HALVING) if is_last_call else n_there // HALVING
        here = {number for number in paused if by_number[number].n_epochs == rung}
        found |= here & leading(curves, rung, n)
    return found


def _margin(scores: NDArray[np.float64]) -> float:
    """So that the worst one counts, too."""
    return float(np.ptp(scores)) or abs(float(scores[0])) or 1.0

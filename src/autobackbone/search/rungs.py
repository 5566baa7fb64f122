"""Who goes on after a rung: decided by score and latency together. Pure: knows nothing of Optuna or of networks.

Latency is known before any training, so a trial can be judged at its own: it goes on if it is among the best of its
rung by non-domination, and it is hopeless when no plausible end would put it on the front.

Scores are maximised here. Source: successive halving, Jamieson and Talwalkar 2016; its asynchronous form, Li et al.
2020; with several objectives, Schmucker et al. 2021.
"""

from __future__ import annotations

import bisect
import statistics
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from autobackbone.pareto import Floats, front_layers, hypervolume

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
    return Standing(others).is_hopeless(curve)


class Standing:
    """All trials at one moment, for questions that are asked of many of them: what is common is computed once.

    Args:
        curves: of all trials.
    """

    def __init__(self, curves: Sequence[Curve]) -> None:
        self.curves = curves
        self.by_number = {curve.number: curve for curve in curves}
        self._expected: dict[int, float | None] = {}
        self._grown: dict[int, float] = {}
        self._gains: dict[int, float] = {}

    def is_hopeless(self, curve: Curve) -> bool:
        """As the function says, among these trials."""
        rung = curve.n_epochs
        if rung not in self._gains:
            self._gains[rung] = plausible_gain(gains(self.curves, rung))
        lows, bests = self._best_by_latency
        n = bisect.bisect_right(lows, curve.latency_ms + curve.noise_ms)
        return n > 0 and bests[n - 1] > curve.best() + self._gains[rung]

    def growth(self, curve: Curve) -> float:
        """As the function says, of one of these trials."""
        if curve.number not in self._grown:
            self._grown[curve.number] = growth(curve, self.curves) if curve.has_ended else self._growth(curve)
        return self._grown[curve.number]

    def _growth(self, curve: Curve) -> float:
        scores, latencies, corner, whole = self._front
        end = curve.best() + _expected_gain(curve, self.curves, self._expected)
        return hypervolume(np.append(scores, end), np.append(latencies, curve.latency_ms), corner) - whole

    @cached_property
    def _front(self) -> tuple[Floats, Floats, tuple[float, float], float]:
        """Scores and latencies of those that ended, the corner, and their hypervolume."""
        scores, latencies = _ends([curve for curve in self.curves if curve.has_ended])
        corner = _corner(self.curves)
        return scores, latencies, corner, hypervolume(scores, latencies, corner)

    @cached_property
    def _best_by_latency(self) -> tuple[list[float], list[float]]:
        """Of those that ended, from which latency on there is one that is so good."""
        ended = sorted((curve.latency_ms - curve.noise_ms, curve.best()) for curve in self.curves if curve.has_ended)
        return [low for low, _ in ended], list(accumulate((best for _, best in ended), max))


def leading(curves: Sequence[Curve], rung: int, n: int) -> set[int]:
    """The numbers of the n best of a rung: layer after layer of trials that none outside it beats on both.

    Within the last layer that has room the likeliest to enlarge the front come first, then the better scores.
    """
    return _leading(Standing(curves), rung, n)


def _leading(standing: Standing, rung: int, n: int) -> set[int]:
    there = [curve for curve in standing.curves if curve.n_epochs >= rung]
    best = [curve.best(rung) for curve in there]
    chosen: list[int] = []
    for rows in front_layers(best, [curve.latency_ms for curve in there], [curve.noise_ms for curve in there]):
        if len(chosen) >= n:
            break
        layer = rows.tolist()
        if len(chosen) + len(layer) > n:
            layer.sort(key=lambda row: (-standing.growth(there[row]), -best[row], there[row].number))
        chosen += [there[row].number for row in layer]
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
    scores, latencies = _ends([other for other in every if other.has_ended])
    end, corner = curve.best() + _expected_gain(curve, every), _corner(every)
    whole = hypervolume(scores, latencies, corner)
    return hypervolume(np.append(scores, end), np.append(latencies, curve.latency_ms), corner) - whole


def _ends(ended: Sequence[Curve]) -> tuple[Floats, Floats]:
    return np.array([curve.best() for curve in ended], float), np.array([curve.latency_ms for curve in ended], float)


def _corner(curves: Sequence[Curve]) -> tuple[float, float]:
    all_scores = np.array([curve.best() for curve in curves])
    return float(all_scores.min()) - _margin(all_scores), 1.1 * max(curve.latency_ms for curve in curves)


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
    return promoted(Standing(curves), paused, is_last_call=is_last_call)


def promoted(standing: Standing, paused: Collection[int], *, is_last_call: bool) -> set[int]:
    """As `promotable` says, of trials at one moment."""
    by_number = standing.by_number
    found: set[int] = set()
    for rung in {by_number[number].n_epochs for number in paused}:
        n_there = sum(curve.n_epochs >= rung for curve in standing.curves)
        n = -(-n_there // HALVING) if is_last_call else n_there // HALVING
        here = {number for number in paused if by_number[number].n_epochs == rung}
        found |= here & _leading(standing, rung, n)
    return found


def _margin(scores: NDArray[np.float64]) -> float:
    """So that the worst one counts, too."""
    return float(np.ptp(scores)) or abs(float(scores[0])) or 1.0

"""Whether more time is worth it: by how much the front has grown of late."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autobackbone.pareto import hypervolume
from autobackbone.records import Trial

# Fewer fine-tuned trials than this tell nothing of what others would find.
_FEWEST = 16
LEAST_GROWTH = 0.005
"""A share of the front's hypervolume that as many trials again should add, to be worth their time."""


def recent_growth(trials: Sequence[Trial], sign: float) -> float | None:
    """By what share of its hypervolume the front has grown with the later half of all fine-tuned trials.

    As many trials again are hardly expected to bring more: of a sequence of draws, each half finds fewer records than
    the one before.

    Args:
        trials: of one run.
        sign: turns a score so that more is better.

    Returns:
        At least 0; `None` where fewer than 16 fine-tuned trials have ended.

    Example:
        >>> recent_growth([], 1.0) is None
        True
    """
    ended = [trial for trial in trials if trial.state in {"finished", "stopped"} and trial.score is not None]
    tuned = sorted(
        (trial for trial in ended if trial.n_unfrozen > 0), key=lambda one: (one.finished_at_s or 0.0, one.number)
    )
    if len(tuned) < _FEWEST:
        return None
    later = {trial.number for trial in tuned[len(tuned) // 2 :]}
    known = [trial for trial in ended if trial.state == "finished"]
    scores = np.array([sign * (trial.score or 0.0) for trial in known])
    latencies = np.array([trial.latency_ms or 0.0 for trial in known])
    # Frozen networks cannot diverge: one training that did must not make all others look alike.
    base = min((score for score, one in zip(scores, known, strict=True) if one.n_unfrozen == 0), default=scores.min())
    height = scores.max() - base if scores.max() > base else abs(base) or 1.0
    corner = (float(base - height), 1.1 * float(latencies.max()))
    is_before = np.array([trial.number not in later for trial in known])
    whole = hypervolume(scores, latencies, corner)
    before = hypervolume(scores[is_before], latencies[is_before], corner)
    return max(0.0, whole - before) / whole if whole > 0 else 0.0

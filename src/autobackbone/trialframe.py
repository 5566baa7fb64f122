"""Trials as a table of pandas, one row each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from autobackbone.choosing import scored_share
from autobackbone.records import Trial

_COLUMNS = (
    "number",
    "state",
    "reason",
    "backbone",
    "image_size",
    "n_unfrozen",
    "n_blocks",
    "lr",
    "score",
    "score_se",
    "latency_ms",
    "latency_p95_ms",
    "images_per_s",
    "preprocess_ms",
    "n_params",
    "megabytes",
    "train_seconds",
    "finished_at_s",
    "on_front",
    "test_score",
    "test_score_low",
    "test_score_high",
    "n_epochs",
    "latency_noise_ms",
    "resize",
    "n_blocks_kept",
    "fold_score",
    "fold_se",
    "fold_score_low",
    "fold_score_high",
    "overfits",
    "balanced_score",
    "scored_share",
)
# Also where no trial has them.
_NUMERIC = (
    "lr",
    "score",
    "latency_ms",
    "latency_p95_ms",
    "images_per_s",
    "preprocess_ms",
    "score_se",
    "balanced_score",
    "test_score",
    "test_score_low",
    "test_score_high",
    "n_blocks_kept",
    "fold_score",
    "fold_se",
    "fold_score_low",
    "fold_score_high",
    "scored_share",
)
# Noted by the search for itself.
_OWN = frozenset({"strength", "forward_s", "scored_share", "fitted_share", "n_compared", "n_validation", "legs"})


def frame_of(trials: Sequence[Trial]) -> pd.DataFrame:
    """A row for each trial, in the order given; further searched parameters have a column of their own.

    Example:
        >>> frame_of([])["score"].dtype
        dtype('float64')
    """
    rows = [_row(trial) for trial in trials]
    frame = pd.DataFrame(rows, columns=None if rows else list(_COLUMNS))
    return frame.astype(dict.fromkeys(_NUMERIC, "float64"))


def _row(trial: Trial) -> dict[str, Any]:
    told = {"state": trial.shown_state, "scored_share": None if trial.score is None else scored_share(trial)}
    return {name: told[name] if name in told else getattr(trial, name) for name in _COLUMNS} | searched(trial)


def searched(trial: Trial) -> dict[str, Any]:
    """Parameters beyond backbone, size, depth and rate."""
    extras: Mapping[str, Any] = trial.extras
    return {name: value for name, value in extras.items() if name not in _OWN}

"""A trial's training once more: the same candidate, for a number of epochs, with the views it had."""

from __future__ import annotations

import numpy as np

from autobackbone.metrics import Metric, to_maximised
from autobackbone.records import Candidate, Trial
from autobackbone.search.evaluate import LEGS
from autobackbone.training.tuner import MIN_EPOCHS, STEP_PRECISION


def candidate_again(trial: Trial, *, n_epochs: int) -> Candidate:
    """With the precision that it was trained in: measured again, another one may be the faster."""
    searched = {name: value for name, value in trial.extras.items() if name != LEGS}
    extras = {STEP_PRECISION: "float32", **searched, "n_epochs": n_epochs}
    return Candidate(**trial.body._asdict(), n_unfrozen=trial.n_unfrozen, lr=trial.lr, extras=extras)


def useful_epochs(trial: Trial, metric: Metric) -> int:
    """How many epochs its best rung had, or as few as a training can have."""
    best = 1 + int(np.argmax([to_maximised(metric, value) for value in trial.rung_scores]))
    return max(MIN_EPOCHS, best)


def views_of(trial: Trial) -> int:
    """With how many views its last leg was trained."""
    legs = trial.extras.get(LEGS) or [{}]
    return int(legs[-1].get("n_views", 1))

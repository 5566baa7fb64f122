"""The front on pictures that the search never saw."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from autobackbone.errors import MetricError, TrialError
from autobackbone.metrics import interval, score
from autobackbone.records import Trial
from autobackbone.search import trialfiles
from autobackbone.search.costs import EXACT_FACTOR, SETUP_S
from autobackbone.search.levelling import levelling_s
from autobackbone.search.study import note_test_score
from autobackbone.search.workshop import Workshop


def expected_s(shop: Workshop, front: Sequence[Trial]) -> float:
    """Seconds that confirming a front takes, its latencies measured side by side included."""
    return sum(_pass_s(shop, trial) for trial in front) + levelling_s(shop, front) + 1.0


def _pass_s(shop: Workshop, trial: Trial) -> float:
    n_test = len(shop.bundle.indices("test"))
    return shop.costs.forward_s.get(trial.body, 0.0) * n_test * EXACT_FACTOR + SETUP_S


def confirm(shop: Workshop, front: Sequence[Trial]) -> None:
    """Score each trial of the front once on the test part; where time is short, the first ones of the given order.

    The test part chooses nothing: these scores are only shown.
    """
    indices = shop.bundle.indices("test")
    if len(indices) == 0:
        shop.reporter.say("there is no test part: scores stay unconfirmed")
        return
    slack_s = max(4.0, 0.04 * (shop.clock.budget.wall_clock_s or 0.0))
    for trial in front:
        if trial.test_score is not None:  # an earlier sitting has measured it: once is enough
            continue
        if _pass_s(shop, trial) > shop.clock.left_s() + slack_s:
            shop.reporter.say(f"trial {trial.number} stays unconfirmed: the time is up")
            continue
        shop.reporter.progress(shop.use_share(), f"confirming trial {trial.number}")
        try:
            _confirm_one(shop, trial, indices)
        except (TrialError, MetricError) as error:
            shop.reporter.say(f"trial {trial.number} stays unconfirmed: {error}")


def _confirm_one(shop: Workshop, trial: Trial, indices: NDArray[np.int64]) -> None:
    predictions = shop.predict(shop.network_of(trial), trial, indices)
    trialfiles.save_predictions(shop.run, trial.number, trialfiles.TEST, predictions)
    labels = shop.bundle.labels[indices]
    value = score(shop.metric, predictions, labels)
    note_test_score(shop.study, trial.number, value, interval(shop.metric, predictions, labels, seed=shop.seed))

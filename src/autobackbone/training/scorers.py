"""How trainings are scored: by a metric, turned so that more is better."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autobackbone.errors import MetricError
from autobackbone.metrics import Metric, score, to_maximised


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scorers:
    """The scores of one metric on one data set.

    Args:
        metric: of the search.
        labels: of the validation pictures, (n_validation,) or (n_validation, k).
    """

    metric: Metric
    labels: NDArray[Any]

    def score(self, predictions: NDArray[np.float32]) -> float:
        """Of what is said of the validation pictures, (n_validation, n_outputs)."""
        return to_maximised(self.metric, score(self.metric, predictions, self.labels))

    def score_passed(self, predictions: NDArray[np.float32], labels: NDArray[Any]) -> float:
        """Of training pictures; NaN where it is not defined: no training shall end for want of it."""
        try:
            return to_maximised(self.metric, score(self.metric, predictions, labels))
        except MetricError:
            return math.nan

"""The head that a fit gives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from autobackbone.records import Task
from autobackbone.tasks import predictions_of

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A linear head with the scaling of features folded in.

    Args:
        weight: (n_outputs, n_features) float32.
        bias: (n_outputs,) float32.
        strength: the inverse penalty that inner folds chose; the middle one where each output has its own.
        n_pictures: how many it was fitted on; `None` for a head that was read from a file.
    """

    weight: Floats
    bias: Floats
    strength: float
    n_pictures: int | None = None

    def predictions(self, features: Floats, task: Task) -> Floats:
        """What it says of features: (n_images, n_features) → (n_images, n_outputs), see `predictions_of`."""
        outputs = torch.from_numpy(features) @ torch.from_numpy(self.weight).T + torch.from_numpy(self.bias)
        return np.asarray(predictions_of(outputs, task).numpy(), dtype=np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """A linear map on standardised features.

    Args:
        coef: (n_outputs, n_features).
        intercept: (n_outputs,).
        strength: the inverse penalty.
        n_pictures: how many it was fitted on.
    """

    coef: NDArray[np.float64]
    intercept: NDArray[np.float64]
    strength: float
    n_pictures: int

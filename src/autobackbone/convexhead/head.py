"""The head that a fit gives."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from autobackbone.records import Task
from autobackbone.tasks import predictions_of

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
BLOCK = 4096
"""Pictures whose features are copied at once: a second matrix of all of them may be more than memory holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A linear head with the scaling of features folded in.

    Args:
        weight: (n_outputs, n_features) float32.
        bias: (n_outputs,) float32.
        strength: the inverse penalty that inner folds chose; the middle one where each output has its own.
        n_pictures: how many it was fitted on; `None` for a head that was read from a file.
        out_of_fold: (n_images, n_outputs) float32, what heads that were fitted on the way say of the training pictures
            that they have not seen; NaN where there is nothing, `None` where there is nothing of any picture.
    """

    weight: Floats
    bias: Floats
    strength: float
    n_pictures: int | None = None
    out_of_fold: Floats | None = field(default=None, repr=False)

    def arrays(self) -> dict[str, Floats]:
        """Give the weight and the bias as a file wants them.

        safetensors writes an array as it lies in memory: a ridge's columns would be read as rows.
        """
        return {"weight": np.ascontiguousarray(self.weight), "bias": np.ascontiguousarray(self.bias)}

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
        out_of_fold: as in `Head`.
    """

    coef: NDArray[np.float64]
    intercept: NDArray[np.float64]
    strength: float
    n_pictures: int
    out_of_fold: Floats | None

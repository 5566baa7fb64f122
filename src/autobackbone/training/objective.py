"""What a training minimises, and what its outputs mean."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from autobackbone.backbones.head import scale_outputs
from autobackbone.imbalance import class_weights as weights_of_classes
from autobackbone.imbalance import positive_weights
from autobackbone.records import Balancing, Task
from autobackbone.tasks import predictions_of

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Objective:
    """The loss of a task, and its outputs.

    Numbers are learned standardised, whatever their unit: a step of the optimiser moves a weight by about the learning
    rate, and so should mean the same for shares and for thousands.

    Args:
        task: what the labels are.
        centre: (n_targets,) mean of the training part's numbers; empty for other tasks.
        spread: (n_targets,) their standard deviation.
        weights: (n_classes,) how much a picture of each class counts, or (n_labels,) one with each label; empty where
            all count the same.
    """

    task: Task = "classification"
    centre: Floats
    spread: Floats
    weights: Floats = field(default_factory=lambda: np.zeros(0))

    @classmethod
    def of(cls, task: Task, labels: NDArray[Any], *, class_weights: Balancing = "none") -> Objective:
        """For the labels of a training part, whose classes or labels may be made to count the same."""
        if task != "regression":
            weigh = weights_of_classes if task == "classification" else positive_weights
            weights = weigh(labels) if class_weights == "balanced" else np.zeros(0)
            return cls(task=task, centre=np.zeros(0), spread=np.ones(0), weights=weights)
        spread = labels.std(axis=0)
        return cls(task=task, centre=labels.mean(axis=0), spread=np.where(spread > 0, spread, 1.0))

    def begin(self, network: nn.Module) -> None:
        """Let a network whose outputs are numbers in their own units give standardised ones."""
        if self.task == "regression":
            scale_outputs(network, 1 / self.spread, -self.centre / self.spread)

    def end(self, network: nn.Module) -> None:
        """Undo `begin`."""
        if self.task == "regression":
            scale_outputs(network, self.spread, self.centre)

    def loss(self, outputs: Tensor, labels: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
        """Cross-entropy of classes or of each label, or the mean squared error of standardised numbers.

        Args:
            outputs: (n, n_outputs) float32 of a network in training.
            labels: (n,) int64 classes; (n, n_labels) of 0 and 1; or (n, n_targets) numbers in their own units.
            label_smoothing: share of the target that is spread over the other classes, or drawn to one half.
        """
        weights = self._like(self.weights, outputs) if len(self.weights) else None
        if self.task == "classification":
            if weights is None:
                return functional.cross_entropy(outputs, labels, label_smoothing=label_smoothing)
            each = functional.cross_entropy(outputs, labels, label_smoothing=label_smoothing, reduction="none")
            # torch's own weights divide by their sum in the batch, in which a rare picture would count less for being
            # there, and spread smoothed targets over the rare classes most.
            return (each * weights[labels]).mean()
        if self.task == "multilabel":
            smoothed = labels.to(outputs.dtype) * (1 - label_smoothing) + label_smoothing / 2
            return functional.binary_cross_entropy_with_logits(outputs, smoothed, pos_weight=weights)
        standardised = (labels - self._like(self.centre, labels)) / self._like(self.spread, labels)
        return functional.mse_loss(outputs, standardised.to(outputs.dtype))

    def predictions(self, outputs: Tensor) -> Tensor:
        """What outputs of a network in training say, in the labels' own units: (n, n_outputs) float32."""
        found = predictions_of(outputs, self.task)
        if self.task != "regression":
            return found
        return found * self._like(self.spread, found) + self._like(self.centre, found)

    @staticmethod
    def _like(values: Floats, other: Tensor) -> Tensor:
        return torch.as_tensor(values, dtype=other.dtype, device=other.device)

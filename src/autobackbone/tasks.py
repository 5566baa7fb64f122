"""What the outputs of a network mean in each task."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autobackbone.records import Task


def predictions_of(outputs: Tensor, task: Task) -> Tensor:
    """What a network's outputs say.

    Args:
        outputs: (n, n_outputs): logits of classes or labels, or numbers in their own units.
        task: what they are outputs for.

    Returns:
        (n, n_outputs) float32: probabilities of classes, which add up to 1; of labels, each for itself; or the numbers.

    Example:
        >>> predictions_of(torch.tensor([[0.0, 0.0]]), "classification").tolist()
        [[0.5, 0.5]]
        >>> predictions_of(torch.tensor([[0.0, 0.0]]), "regression").tolist()
        [[0.0, 0.0]]
    """
    exact = outputs.float()
    if task == "classification":
        return torch.softmax(exact, dim=1)
    return torch.sigmoid(exact) if task == "multilabel" else exact


def can_be_learned(labels: NDArray[np.generic], task: Task) -> bool:
    """Whether labels differ at all: two classes, a label that some have and some have not, two numbers.

    Args:
        labels: (n,) or (n, k), as a data bundle holds them.
        task: what they are.
    """
    columns = labels[:, None] if task == "classification" else labels
    return len(labels) > 1 and bool((columns != columns[0]).any())

"""What the outputs of a network mean in each task."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autobackbone.errors import ArgumentError
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


def said_by(predictions: NDArray[np.float32], task: Task, classes: tuple[str | int, ...]) -> NDArray[Any]:
    """What predictions come to, as people read them.

    Args:
        predictions: (n, n_outputs), as `predictions_of` gives them.
        task: what they are predictions of.
        classes: in the order of their columns.

    Returns:
        The likeliest class of each picture, (n,); the numbers, (n, n_targets) float32, or (n,) of a single one; or 1
        for each label of a probability above 0.5, else 0, (n, n_labels) int64.

    Example:
        >>> said_by(np.array([[0.2, 0.8]], np.float32), "classification", ("cat", "dog")).tolist()
        ['dog']
    """
    if task == "regression":
        return predictions[:, 0] if predictions.shape[1] == 1 else predictions
    if task == "multilabel":
        return (predictions > 0.5).astype(np.int64)
    return np.asarray([classes[code] for code in predictions.argmax(axis=1)])


def names_of(has_label: NDArray[np.generic], classes: tuple[str | int, ...]) -> str:
    """The labels of one picture in one text, as a table of labels may have them.

    Args:
        has_label: (n_labels,) true or 1 for each that it has.
        classes: the names of all.

    Example:
        >>> names_of(np.array([1, 0, 1]), ("cat", "dog", "cow"))
        'cat|cow'
    """
    return "|".join(str(name) for name, is_there in zip(classes, has_label, strict=True) if is_there)


def require_probabilities(task: Task) -> None:
    """Raises: ArgumentError: numbers are predicted; they have no probabilities."""
    if task == "regression":
        raise ArgumentError("numbers have no probabilities: use predict(images), which gives the numbers themselves.")


def can_be_learned(labels: NDArray[np.generic], task: Task) -> bool:
    """Whether labels differ at all: two classes, a label that some have and some have not, two numbers.

    Args:
        labels: (n,) or (n, k), as a data bundle holds them.
        task: what they are.
    """
    columns = labels[:, None] if task == "classification" else labels
    return len(labels) > 1 and bool((columns != columns[0]).any())

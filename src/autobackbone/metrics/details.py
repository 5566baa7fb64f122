"""What a single score hides: which classes are taken for which, how each label and each number is met."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torchmetrics.functional.classification import multiclass_confusion_matrix, multilabel_stat_scores

from autobackbone.metrics.resampling import Floats
from autobackbone.metrics.values import precisions


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelScore:
    """How one of several labels is met, where a probability above 0.5 says that it is there.

    Args:
        n: pictures that have it.
        precision: of the pictures said to have it, the share that have; NaN where none is said to.
        recall: of the pictures that have it, the share said to; NaN where none has it.
        average_precision: over all thresholds; NaN where none has it.
    """

    n: int
    precision: float
    recall: float
    average_precision: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberScore:
    """How one of the numbers is met, in its own unit.

    Args:
        mean_absolute_error: of predictions.
        bias: mean of prediction less truth: above 0 where too much is predicted.
        spread: standard deviation of the truth, to hold these against.
    """

    mean_absolute_error: float
    bias: float
    spread: float


def confusions(probabilities: ArrayLike, labels: ArrayLike) -> NDArray[np.int64]:
    """Count pictures by class and by what they are taken for.

    Args:
        probabilities: (n_images, n_classes).
        labels: (n_images,) codes of classes.

    Returns:
        (n_classes, n_classes): a row for each class, a column for each likeliest one.

    Example:
        >>> confusions([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]], [0, 1, 1]).tolist()
        [[1, 0], [1, 1]]
    """
    said, truth = torch.from_numpy(np.array(probabilities, np.float64)), torch.from_numpy(np.array(labels, np.int64))
    counts = multiclass_confusion_matrix(said.argmax(dim=1), truth, said.shape[1], validate_args=False)
    return np.asarray(counts.numpy(), dtype=np.int64)


def label_scores(probabilities: Floats, labels: NDArray[Any]) -> tuple[LabelScore, ...]:
    """How each label is met.

    Args:
        probabilities: (n_images, n_labels), each from 0 to 1 on its own.
        labels: (n_images, n_labels) of 0 and 1.

    Example:
        >>> (only,) = label_scores(np.array([[0.9], [0.6], [0.2]]), np.array([[1], [0], [1]]))
        >>> only.precision, only.recall, round(only.average_precision, 4)
        (0.5, 0.5, 0.8333)
    """
    said, truth = torch.from_numpy((probabilities > 0.5).astype(np.int64)), torch.from_numpy(labels.astype(np.int64))
    counted = multilabel_stat_scores(said, truth, truth.shape[1], average="none", validate_args=False).reshape(-1, 5)
    n_right, n_wrong, _, _, n_there = counted.double().numpy().T
    with np.errstate(invalid="ignore"):
        precision, recall = n_right / (n_right + n_wrong), n_right / n_there
    average = precisions(np.asarray(probabilities, np.float64), labels.astype(np.int64))
    return tuple(
        LabelScore(n=int(n), precision=float(p), recall=float(r), average_precision=float(a))
        for n, p, r, a in zip(n_there, precision, recall, average, strict=True)
    )


def number_scores(predictions: Floats, labels: Floats) -> tuple[NumberScore, ...]:
    """How each number is met.

    Args:
        predictions: (n_images, n_targets).
        labels: the same.

    Example:
        >>> number_scores(np.array([[1.0], [4.0]]), np.array([[1.0], [2.0]]))
        (NumberScore(mean_absolute_error=1.0, bias=1.0, spread=0.5),)
    """
    off, truth = np.asarray(predictions, np.float64) - labels, np.asarray(labels, np.float64)
    return tuple(
        NumberScore(mean_absolute_error=float(error), bias=float(bias), spread=float(spread))
        for error, bias, spread in zip(np.abs(off).mean(axis=0), off.mean(axis=0), truth.std(axis=0), strict=True)
    )

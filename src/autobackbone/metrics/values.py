"""Scores that are no means over pictures, as torchmetrics computes them; what cannot be missed is left out."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics.functional.classification import (
    multiclass_f1_score,
    multiclass_recall,
    multilabel_average_precision,
    multilabel_f1_score,
)
from torchmetrics.functional.regression import mean_squared_error, r2_score

from autobackbone.metrics.known import Metric
from autobackbone.metrics.resampling import Floats
from autobackbone.records import Task

_FAR_FROM_NOUGHT = 1e4


def value_of(metric: Metric, predictions: Floats, labels: NDArray[Any]) -> float:
    """The score of all pictures; known metrics only, and no means over pictures. NaN where all is left out.

    Args:
        metric: of the score.
        predictions: (n_images, n_outputs).
        labels: (n_images,) or (n_images, n_outputs).
    """
    found, truth = torch.from_numpy(np.ascontiguousarray(predictions)), torch.from_numpy(np.ascontiguousarray(labels))
    return _VALUES[metric.task, metric.name](found, truth)


def _balanced_accuracy(probabilities: Tensor, labels: Tensor) -> float:
    found = probabilities.argmax(dim=1)
    recalls = multiclass_recall(found, labels, probabilities.shape[1], average="none", validate_args=False)
    return float(recalls[torch.unique(labels)].mean())


def _class_f1_macro(probabilities: Tensor, labels: Tensor) -> float:
    found = probabilities.argmax(dim=1)
    return float(multiclass_f1_score(found, labels, probabilities.shape[1], average="macro", validate_args=False))


def _label_f1_macro(probabilities: Tensor, labels: Tensor) -> float:
    found = (probabilities > 0.5).long()
    scores = multilabel_f1_score(found, labels, labels.shape[1], average="none", validate_args=False)
    return _mean(scores.reshape(-1)[(found + labels).any(dim=0)])


def _label_f1_micro(probabilities: Tensor, labels: Tensor) -> float:
    found = (probabilities > 0.5).long()
    if not (found + labels).any():
        return math.nan
    return float(multilabel_f1_score(found, labels, labels.shape[1], average="micro", validate_args=False))


def _mean_average_precision(probabilities: Tensor, labels: Tensor) -> float:
    return _mean(_precisions(probabilities, labels)[labels.any(dim=0)])


def precisions(probabilities: Floats, labels: NDArray[Any]) -> Floats:
    """Average precision of each label, (n_labels,); NaN where no picture has it."""
    found, truth = torch.from_numpy(np.ascontiguousarray(probabilities)), torch.from_numpy(np.ascontiguousarray(labels))
    return np.asarray(_precisions(found, truth).numpy(), dtype=np.float64)


def _precisions(probabilities: Tensor, labels: Tensor) -> Tensor:
    has_any = labels.any(dim=0)
    of_labels = torch.full((labels.shape[1],), math.nan, dtype=torch.float64)
    if has_any.any():
        own = probabilities[:, has_any], labels[:, has_any]
        each = multilabel_average_precision(*own, int(has_any.sum()), average="none", validate_args=False)
        # In single precision one may come out above 1.
        of_labels[has_any] = each.reshape(-1).clamp(0, 1).double()
    return of_labels


def _rmse(numbers: Tensor, labels: Tensor) -> float:
    return float(mean_squared_error(numbers, labels, squared=False, num_outputs=labels.shape[1]).mean())


def _r2(numbers: Tensor, labels: Tensor) -> float:
    varies = (labels != labels[0]).any(dim=0)
    if not varies.any():
        return math.nan
    # It subtracts sums of squares, whose digits are used up far from nought, and takes a sum below 1e-4 for none.
    centre, spread = labels[:, varies].median(dim=0).values, labels[:, varies].std(dim=0) / _FAR_FROM_NOUGHT
    return float(r2_score((numbers[:, varies] - centre) / spread, (labels[:, varies] - centre) / spread))


def _mean(scores: Tensor) -> float:
    return float(scores.mean()) if len(scores) else math.nan


_VALUES: dict[tuple[Task, str], Callable[[Tensor, Tensor], float]] = {
    ("classification", "balanced_accuracy"): _balanced_accuracy,
    ("classification", "f1_macro"): _class_f1_macro,
    ("regression", "r2"): _r2,
    ("regression", "rmse"): _rmse,
    ("multilabel", "map"): _mean_average_precision,
    ("multilabel", "f1_micro"): _label_f1_micro,
    ("multilabel", "f1_macro"): _label_f1_macro,
}

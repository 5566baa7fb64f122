"""Predictions and labels as a metric needs them, or a word on why they are not."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from autobackbone.errors import MetricError
from autobackbone.metrics.known import Metric
from autobackbone.metrics.resampling import Floats

# A softmax in half precision may end this far above 1.
_ROUNDING = 1e-3
# Squares of numbers are added up, divided by others, and squared again.
_LARGEST = 1e100


def checked(metric: Metric, predictions: ArrayLike, labels: ArrayLike) -> tuple[Floats, NDArray[Any]]:
    """Take what can be scored.

    Returns:
        Predictions (n_images, n_outputs), and labels: int64 of a classification, (n_images,), and of several labels,
        (n_images, n_labels); float64 of a regression, (n_images, n_targets).

    Raises:
        MetricError: shapes, values or labels are not of this kind.
    """
    table, truth = np.asarray(predictions, dtype=np.float64), np.asarray(labels)
    _check_shapes(metric, table, truth)
    if metric.task == "regression":
        return _numbers(metric, table, truth)
    if not np.isfinite(table).all() or table.min() < 0 or table.max() > 1 + _ROUNDING:
        raise MetricError(f"{metric.name} needs probabilities from 0 to 1, not logits. NaN means a diverged training.")
    return table, _zeros_and_ones(truth) if metric.task == "multilabel" else _codes(metric, truth)


def _check_shapes(metric: Metric, table: Floats, truth: NDArray[Any]) -> None:
    has_columns = metric.task != "classification"
    is_table = table.ndim == 2 and table.shape[1] == metric.n_outputs
    if not is_table or truth.shape != (table.shape if has_columns else table.shape[:1]) or truth.size == 0:
        kind = "numbers" if metric.task == "regression" else "probabilities"
        wanted = f"(n_images, {metric.n_outputs})"
        raise MetricError(
            f"{metric.name} needs {kind} {wanted} and labels {wanted if has_columns else '(n_images,)'}, at least one "
            f"picture; {table.shape} and {truth.shape} came."
        )


def _codes(metric: Metric, truth: NDArray[Any]) -> NDArray[Any]:
    if not np.issubdtype(truth.dtype, np.integer) or truth.min() < 0 or truth.max() >= metric.n_outputs:
        raise MetricError(
            f"labels must be whole numbers from 0 to {metric.n_outputs - 1}; {truth.dtype} from {truth.min()} to "
            f"{truth.max()} came."
        )
    return truth.astype(np.int64)


def _zeros_and_ones(truth: NDArray[Any]) -> NDArray[Any]:
    if not np.isin(truth, (0, 1)).all():
        raise MetricError(
            f"labels must be 1 where a picture has the label and 0 where it has not; {truth.dtype} from {truth.min()} "
            f"to {truth.max()} came."
        )
    return truth.astype(np.int64)


def _numbers(metric: Metric, table: Floats, truth: NDArray[Any]) -> tuple[Floats, NDArray[Any]]:
    if not np.isfinite(table).all():
        raise MetricError(f"{metric.name} needs finite numbers as predictions. NaN means a diverged training.")
    if truth.dtype.kind not in "fiu" or not np.isfinite(truth).all():
        raise MetricError(
            f"labels must be finite numbers; {truth.dtype} came{' with NaN or infinity' * (truth.dtype.kind == 'f')}. "
            "Leave out the pictures that have none."
        )
    numbers = truth.astype(np.float64)
    largest = max(np.abs(table).max(), np.abs(numbers).max())
    if largest > _LARGEST:
        raise MetricError(
            f"{metric.name} is for numbers up to {_LARGEST:.0e}; {largest:.3g} came. Divide predictions and labels by "
            "a constant."
        )
    return table, numbers

"""Probabilities that mean what they say: one temperature, fitted on pictures that trained nothing.

Everywhere here `probabilities` are `(n_images, n_classes)` with `labels` `(n_images,)`, whole numbers from 0, or, where
a picture has several labels, `(n_images, n_labels)` with labels of the same shape, each 0 or 1. Rows with a NaN are
pictures that were not reached; they count for nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from torchmetrics.functional.classification import binary_calibration_error, multiclass_calibration_error

from autobackbone.crossfitting import Scored, halves
from autobackbone.errors import MetricError

_LOWEST, _HIGHEST = 0.2, 5.0
# Drawn networks of accuracy 0.87 that needed no temperature: the one that was settled on 15 pictures cost a log loss of
# 0.10 on the mean, on 30 of 0.03, on 100 of 0.005.
_LEAST_IMAGES = 30
_N_BINS = 15
# The smallest numbers of single precision, in which predictions are stored, that have a logarithm to be trusted.
_TINY, _EPSILON = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).epsneg)


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """How far probabilities can be trusted, as the network gives them and as they are corrected.

    Args:
        temperature: by which logits are divided: above 1 the network was too sure, 1 leaves all as it is.
        ece_before: expected calibration error, 0 to 1: by how much a probability is off on average.
        ece_after: the same of corrected probabilities.
        log_loss_before: nats, of several labels per picture the mean over them.
        log_loss_after: the same of corrected probabilities.
        measured_on: `test` are pictures that the temperature has not seen; `validation` means that each half was
            corrected by a temperature fitted on the other, so that it has not seen them either.
        n_images: how many pictures that stands on.
    """

    temperature: float
    ece_before: float
    ece_after: float
    log_loss_before: float
    log_loss_after: float
    measured_on: Literal["validation", "test"]
    n_images: int

    def __str__(self) -> str:
        """What it comes to, in one sentence.

        Example:
            >>> print(Calibration(temperature=1.3, ece_before=0.041, ece_after=0.012, log_loss_before=0.412,
            ...                   log_loss_after=0.395, measured_on="test", n_images=503))
            On 503 test pictures probabilities are off by 4.1 points, corrected (temperature 1.30) by 1.2.
        """
        both = (
            f"On {self.n_images:,} {self.measured_on} pictures probabilities are off by {100 * self.ece_before:.1f} "
            f"points, corrected (temperature {self.temperature:.2f}) by {100 * self.ece_after:.1f}"
        )
        if self.temperature != 1:
            return f"{both}."
        return f"{both}: they stay as they are, since no temperature is sure to help pictures that did not settle it."


def calibration_of(validation: Scored, test: Scored | None = None) -> Calibration:
    """Settle a temperature on the validation pictures, and measure what it does on pictures that did not settle it.

    Raises:
        MetricError: shapes do not fit, or no picture was reached.
    """
    temperature = settled_temperature(*validation)
    probabilities, labels = _reached(*(validation if test is None else test))
    if test is None and temperature != 1:
        after = _cross_fitted(probabilities, labels)
    else:
        after = calibrated(probabilities, temperature, multilabel=labels.ndim == 2)
    return Calibration(
        temperature=temperature,
        ece_before=expected_calibration_error(probabilities, labels),
        ece_after=expected_calibration_error(after, labels),
        log_loss_before=_log_loss(probabilities, labels),
        log_loss_after=_log_loss(after, labels),
        measured_on="validation" if test is None else "test",
        n_images=len(labels),
    )


def settled_temperature(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """The fitted temperature where it can be trusted, else 1.

    It is 1 with fewer than 30 pictures; where fitted on each half it does not lower the log loss of the other by more
    than one standard error; and where no picture was wrong, since the least loss then asks for all certainty that there
    is. Drawn networks of accuracy 0.94 that were twice too sure, their temperature from 30 pictures: a log loss of 0.17
    as they were, of 0.32 with the temperature that fitted best, of 0.17 so.

    Raises:
        MetricError: shapes do not fit, or no picture was reached.
    """
    table, truth = _reached(probabilities, labels)
    if len(truth) < _LEAST_IMAGES or _is_perfect(table, truth):
        return 1.0
    gains = _log_losses(table, truth) - _log_losses(_cross_fitted(table, truth), truth)
    is_better = gains.mean() > gains.std(ddof=1) / math.sqrt(len(gains))
    return fit_temperature(table, truth) if is_better else 1.0


def fit_temperature(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """The temperature of the least log loss, from 0.2 to 5.

    It needs no logits: softmax(log p / T) is softmax(logits / T).

    Raises:
        MetricError: shapes do not fit, or no picture was reached.

    Example:
        >>> too_sure = np.where(np.eye(2)[[0] * 100], 0.999, 0.001)
        >>> round(fit_temperature(too_sure, [0] * 80 + [1] * 20), 2)  # 0.999 is meant to be 0.8
        4.98

    Source: Guo et al. 2017, On calibration of modern neural networks.
    """
    table, truth = _reached(probabilities, labels)
    logits, target = _logits(table, is_multilabel=truth.ndim == 2), torch.from_numpy(truth)
    found = minimize_scalar(
        lambda log_temperature: float(_losses(logits / math.exp(log_temperature), target).mean()),
        bounds=(math.log(_LOWEST), math.log(_HIGHEST)),
        method="bounded",
    )
    return math.exp(found.x)


def calibrated(probabilities: ArrayLike, temperature: float, *, multilabel: bool) -> NDArray[np.float32]:
    """Probabilities whose logits are divided by a temperature; the likeliest class stays the same.

    Args:
        probabilities: as this module takes them; a temperature of 1 gives them back as they are.
        temperature: above 0.
        multilabel: whether each column is a label of its own, yes or no.

    Example:
        >>> calibrated([[0.9, 0.1]], 2.0, multilabel=False).round(2).tolist()
        [[0.75, 0.25]]
    """
    table = np.asarray(probabilities, dtype=np.float32)
    if temperature == 1:
        return table
    logits = _logits(table, is_multilabel=multilabel) / temperature
    corrected = torch.sigmoid(logits) if multilabel else torch.softmax(logits, dim=1)
    return corrected.to(torch.float32).numpy()


def expected_calibration_error(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """By how much probabilities are off, on average, in 15 bins of equal width.

    Of classes it looks at the likeliest one; of several labels it is the mean over them.

    Returns:
        From 0 to 1. It is never 0 on few pictures, also if the probabilities are right.

    Raises:
        MetricError: shapes do not fit, or no picture was reached.

    Example:
        >>> round(expected_calibration_error([[0.9, 0.1]] * 10, [0] * 6 + [1] * 4), 3)
        0.3

    Source: Naeini et al. 2015, Obtaining well calibrated probabilities using Bayesian binning.
    """
    table, truth = _reached(probabilities, labels)
    # torchmetrics gives exactly 1 a bin of its own, and takes whatever is above, as by rounding, for logits.
    said, target = torch.from_numpy(table).clamp(0, 1 - _EPSILON), torch.from_numpy(truth)
    if target.ndim == 1:
        return float(multiclass_calibration_error(said, target, num_classes=said.shape[1], n_bins=_N_BINS))
    columns = zip(said.T.contiguous(), target.T.contiguous(), strict=True)
    each = [binary_calibration_error(column, truths, n_bins=_N_BINS) for column, truths in columns]
    return float(torch.stack(each).mean())


def _reached(probabilities: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    table, truth = np.asarray(probabilities, dtype=np.float32), np.asarray(labels, dtype=np.int64)
    if table.ndim != 2 or truth.shape not in (table.shape[:1], table.shape):
        raise MetricError(
            "calibration needs probabilities (n_images, n_classes) and labels (n_images,) or, with several labels per "
            f"picture, of the same shape; {table.shape} and {truth.shape} came."
        )
    is_reached = ~np.isnan(table).any(axis=1)
    if not is_reached.any():
        raise MetricError(f"calibration needs at least one picture that was reached; none of {len(table)} was.")
    return table[is_reached], truth[is_reached]


def _cross_fitted(probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float32]:
    """Each half with the temperature of the other.

    The halves are measured together: the calibration error of fewer pictures is larger by chance.
    """
    corrected = np.empty_like(probabilities)
    one, other = halves(labels)
    for fitted, measured in ((one, other), (other, one)):
        temperature = fit_temperature(probabilities[fitted], labels[fitted])
        corrected[measured] = calibrated(probabilities[measured], temperature, multilabel=labels.ndim == 2)
    return corrected


def _is_perfect(probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> bool:
    if labels.ndim == 2:
        return bool(((probabilities > 0.5) == labels).all())
    return bool((probabilities.argmax(axis=1) == labels).all())


def _log_loss(probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    return float(_log_losses(probabilities, labels).mean())


def _log_losses(probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Of each picture, (n,), the mean over its labels."""
    each = _losses(_logits(probabilities, is_multilabel=labels.ndim == 2), torch.from_numpy(labels))
    return np.asarray(each.numpy(), dtype=np.float64)


def _losses(logits: Tensor, labels: Tensor) -> Tensor:
    if labels.ndim == 2:
        return binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction="none").mean(dim=1)
    return cross_entropy(logits, labels, reduction="none")


def _logits(probabilities: NDArray[Any], *, is_multilabel: bool) -> Tensor:
    table = torch.from_numpy(probabilities).to(torch.float64)
    return torch.logit(table, eps=_EPSILON) if is_multilabel else table.clamp_min(_TINY).log()

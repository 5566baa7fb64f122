"""Scored pictures, and two halves of them: what is fitted on one is measured on the other."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

ScoredPart = Literal["validation", "test"]
"""A part of the pictures of which predictions are stored."""


class Scored(NamedTuple):
    """What a network said of some pictures, and the truth.

    Args:
        predictions: (n_images, n_outputs): probabilities of classes or of labels, or numbers; a row with a NaN is a
            picture that was not reached.
        labels: (n_images,) classes, or (n_images, n_outputs), in the same order.
    """

    predictions: NDArray[np.float32]
    labels: NDArray[Any]


def halves(labels: NDArray[Any], *, seed: int = 0) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split pictures into two halves at random; where a picture has one class, either has half of each class.

    Args:
        labels: (n_images,) classes as whole numbers, or numbers to predict, or (n_images, n_labels).
        seed: the same one gives the same halves.

    Returns:
        The rows of each half; the first has one more if their number is odd.

    Example:
        >>> one, other = halves(np.array([0, 0, 0, 0, 1, 1]))
        >>> np.bincount(np.array([0, 0, 0, 0, 1, 1])[one]).tolist(), len(other)
        ([2, 1], 3)
    """
    rows = np.random.default_rng(seed).permutation(len(labels))
    if labels.ndim == 1 and np.issubdtype(labels.dtype, np.integer):
        rows = rows[np.argsort(labels[rows], kind="stable")]
    return rows[::2], rows[1::2]

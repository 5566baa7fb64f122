"""What stands for classes where there are none: tenths of numbers, the rarest label of a picture, a greedy deal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from autobackbone.records import Task

Codes = np.ndarray[Any, np.dtype[np.int64]]
Labels = np.ndarray[Any, Any]

_N_BINS = 10
# So many pictures a bin, that each part has one of each.
_LEAST_IN_BIN = 10
_CHOSEN_SHARE = 0.2


def strata_of(labels: Labels, task: Task) -> Codes:
    """A code for each picture, that parts and beginnings of an order shall hold in proportion.

    Args:
        labels: (n,) int64 codes of classes, which are their own strata; (n, n_targets) numbers, whose strata are the
            tenths of the one direction in which they vary most; (n, n_labels) of 0 and 1, where it is the picture's
            rarest label.
        task: what they are.

    Returns:
        (n,) int64.

    Example:
        >>> strata_of(np.array([[1, 0], [1, 1], [0, 0], [1, 0]]), "multilabel").tolist()
        [0, 1, 2, 0]
    """
    if task == "classification":
        return np.asarray(labels, dtype=np.int64)
    if task == "multilabel":
        return _rarest(labels)
    n_bins = max(1, min(_N_BINS, len(labels) // _LEAST_IN_BIN))
    ranks: Labels = pd.Series(_main_direction(labels)).rank(method="first").to_numpy()
    return np.asarray((ranks - 1) * n_bins // max(1, len(labels)), dtype=np.int64)


def _main_direction(labels: Labels) -> Labels:
    """(n,) the first principal component of standardised numbers."""
    centred = labels - labels.mean(axis=0)
    scaled = centred / np.where(centred.std(axis=0) > 0, centred.std(axis=0), 1.0)
    _, vectors = np.linalg.eigh(scaled.T @ scaled)
    return np.asarray(scaled @ vectors[:, -1])


def _rarest(labels: Labels) -> Codes:
    n_labels = labels.shape[1]
    rarest_first = np.argsort(labels.sum(axis=0), kind="stable")
    firsts = labels[:, rarest_first].argmax(axis=1)
    return np.asarray(np.where(labels.any(axis=1), rarest_first[firsts], n_labels), dtype=np.int64)


def one_fifth_greedily(labels: Labels, groups: Codes | None, seed: int) -> np.ndarray[Any, np.dtype[np.intp]]:
    """Choose about one picture in five so that each label is chosen in the same share, in whole groups.

    Labels are dealt out from the rarest on: each picture, or group of them, goes to the side that still wants more of
    that label.

    Args:
        labels: (n, n_labels) of 0 and 1.
        groups: (n,) int64, or `None`.
        seed: of the order, and of ties.

    Returns:
        Numbers of the chosen pictures, ascending; at least one, and not all.

    Source: Sechidis et al. 2011, iterative stratification.
    """
    units = np.arange(len(labels)) if groups is None else np.unique(groups, return_inverse=True)[1]
    n_units = int(units.max()) + 1
    # A unit's labels and, as a last column, its pictures.
    amounts = np.zeros((n_units, labels.shape[1] + 1))
    np.add.at(amounts, units, np.column_stack([labels, np.ones(len(labels))]))
    is_chosen = _deal(amounts, np.random.default_rng(seed))
    if is_chosen.all() or not is_chosen.any():
        is_chosen[:] = False
        is_chosen[np.argmin(np.abs(amounts[:, -1] - _CHOSEN_SHARE * len(labels)))] = True
    return np.flatnonzero(is_chosen[units])


def _deal(amounts: Labels, generator: np.random.Generator) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which units are chosen, (n_units,) bool."""
    shares = np.array([1 - _CHOSEN_SHARE, _CHOSEN_SHARE])
    wanted = shares[:, None] * amounts.sum(axis=0)
    side = np.full(len(amounts), -1)
    order = generator.permutation(len(amounts))
    for _ in range(amounts.shape[1]):
        waiting = order[side[order] < 0]
        left = amounts[waiting, :-1].sum(axis=0)
        is_label_left = bool((left > 0).any())
        label = int(np.argmin(np.where(left > 0, left, np.inf))) if is_label_left else -1
        for unit in waiting[amounts[waiting, label] > 0]:
            needs = wanted[:, label] if wanted[0, label] != wanted[1, label] else wanted[:, -1]
            chosen = int(needs[1] > needs[0])
            side[unit] = chosen
            wanted[chosen] -= amounts[unit]
        if not is_label_left:
            break
    return np.asarray(side == 1)

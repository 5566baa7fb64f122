"""Rows of memory-mapped stores, and the order in which training and validation take them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, Sampler, SequentialSampler


class Rows(Dataset[tuple[Tensor, Tensor]]):
    """Rows of a memory-mapped store, fetched a batch at a time: no per-picture Python.

    Args:
        views: stores, each (n_pictures, …), memory-mapped; a picture comes from one of them, drawn anew each time.
        places: (n_views, n_rows) where the pictures lie in each of them.
        labels: (n_rows,) int64.
        augment: applied to a fetched batch; `None` for nothing.
        seed: of the draws of views.
    """

    def __init__(
        self,
        views: Sequence[NDArray[Any]],
        places: NDArray[np.int64],
        labels: NDArray[np.int64],
        *,
        augment: Callable[[Tensor], Tensor] | None = None,
        seed: int = 0,
    ) -> None:
        self.views, self.places, self.labels, self.augment = tuple(views), places, labels, augment
        self.generator = np.random.default_rng(seed)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: list[int]) -> tuple[Tensor, Tensor]:
        places = self.places[:, rows]
        batch = self.views[0][places[0]]
        drawn = self.generator.integers(len(self.views), size=len(rows))
        for number, view in enumerate(self.views[1:], start=1):
            batch[drawn == number] = view[places[number][drawn == number]]
        inputs = torch.from_numpy(batch)
        return inputs if self.augment is None else self.augment(inputs), torch.from_numpy(self.labels[rows])


Batches = DataLoader[tuple[Tensor, Tensor]]


def shuffled(rows: Rows, batch_size: int, *, seed: int) -> Batches:
    """Each row once an epoch, in an order that the seed tells."""
    return _batches(rows, RandomSampler(rows, generator=torch.Generator().manual_seed(seed)), batch_size)


def in_order(rows: Rows, batch_size: int) -> Batches:
    """Each row once, in its place."""
    return _batches(rows, SequentialSampler(rows), batch_size)


def _batches(rows: Rows, order: Sampler[int], batch_size: int) -> Batches:
    return DataLoader(rows, sampler=BatchSampler(order, batch_size, drop_last=False), batch_size=None)

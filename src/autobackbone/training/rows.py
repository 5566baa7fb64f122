"""Rows of memory-mapped stores, and the order in which training and validation take them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, WeightedRandomSampler

from autobackbone.data import Pixels
from autobackbone.imbalance import class_weights
from autobackbone.records import Balancing
from autobackbone.training.ranks import ALONE, Ranks
from autobackbone.training.views import Augment


class Rows(Dataset[tuple[Tensor, Tensor]]):
    """Rows of a memory-mapped store, fetched a batch at a time: no per-picture Python.

    Args:
        views: stores, each (n_pictures, …), memory-mapped, or pictures that stay encoded; a picture comes from one of
            them, drawn anew each time.
        places: (n_views, n_rows) where the pictures lie in each of them.
        labels: (n_rows,) int64, or (n_rows, k) numbers.
        augment: applied to a fetched batch; `None` for nothing.
        seed: of the draws of views and of augmentation, of each epoch its own.
    """

    def __init__(
        self,
        views: Sequence[NDArray[Any] | Pixels],
        places: NDArray[np.int64],
        labels: NDArray[Any],
        *,
        augment: Augment | None = None,
        seed: int = 0,
    ) -> None:
        self.views, self.places, self.labels, self.augment, self.seed = tuple(views), places, labels, augment, seed
        self.begin_epoch(0)

    def begin_epoch(self, epoch: int) -> None:
        """Draw from now on what this epoch draws, whatever was drawn before: training may go on in another process."""
        self.generator = np.random.default_rng([self.seed, epoch])
        if self.augment is not None:
            self.augment.begin(epoch_seed(self.seed, epoch))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: list[int]) -> tuple[Tensor, Tensor]:
        return self.part(rows, range(len(rows)))

    def part(self, batch_rows: list[int], part: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Some of the rows of a batch, just as they are in all of it: what is drawn is drawn for all."""
        drawn = self.generator.integers(len(self.views), size=len(batch_rows))[list(part)]
        rows = [batch_rows[one] for one in part]
        places = self.places[:, rows]
        batch = self.views[0][places[0]]
        for number, view in enumerate(self.views[1:], start=1):
            moved = view[places[number][drawn == number]]
            # A view that half precision cannot hold is stored in float32.
            batch = batch.astype(np.result_type(batch, moved), copy=False)
            batch[drawn == number] = moved
        inputs = torch.from_numpy(batch)
        return inputs if self.augment is None else self.augment(inputs), torch.from_numpy(self.labels[rows])


Batches = DataLoader[tuple[Tensor, Tensor]]


def shuffled(
    rows: Rows, batch_size: int, *, seed: int, sampling: Balancing = "none", ranks: Ranks = ALONE, n_least: int = 1
) -> Batches:
    """Each row once an epoch, in an order that the seed tells; or as many, drawn with replacement, each class as often.

    Args:
        rows: their labels are codes of classes where these are balanced.
        batch_size: rows at once, of all ranks together.
        seed: of the order, of each epoch its own.
        sampling: whether classes are balanced.
        ranks: of whose rows in each batch this gives the part of one.
        n_least: rows that a part has, if its batch has so many: some may count nothing.
    """
    sampler = _ShuffledBatches(rows, batch_size, seed, sampling)
    return DataLoader(_Parts(rows, ranks, n_least), sampler=sampler, batch_size=None)


def in_order(rows: Rows, batch_size: int, *, ranks: Ranks = ALONE) -> Batches:
    """Each row once, in its place; of several ranks every nth, or one that does not count where there is none.

    Args:
        rows: all of them.
        batch_size: rows at once, of this rank.
        ranks: which ones are its own.
    """
    own = ranks.part_of(len(rows))
    return DataLoader(rows, sampler=BatchSampler(own, batch_size, drop_last=False), batch_size=None)


class _Parts(Dataset[tuple[Tensor, Tensor]]):
    """Of each batch what one of several ranks has."""

    def __init__(self, rows: Rows, ranks: Ranks, n_least: int) -> None:
        self.rows, self.ranks, self.n_least = rows, ranks, n_least

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, batch: list[int]) -> tuple[Tensor, Tensor]:
        return self.rows.part(batch, self.ranks.part_of(len(batch), self.n_least))


class _ShuffledBatches(BatchSampler):
    """Each epoch has an order of its own, whatever came before it."""

    def __init__(self, rows: Rows, batch_size: int, seed: int, sampling: Balancing) -> None:
        self.rows, self.seed, self.generator = rows, seed, torch.Generator()
        super().__init__(self._sampler(sampling), batch_size, drop_last=False)

    def _sampler(self, sampling: Balancing) -> RandomSampler | WeightedRandomSampler:
        if sampling == "none":
            return RandomSampler(self.rows, generator=self.generator)
        weights = class_weights(self.rows.labels)[self.rows.labels]
        return WeightedRandomSampler(weights.tolist(), len(self.rows), replacement=True, generator=self.generator)

    def set_epoch(self, epoch: int) -> None:
        """Lightning tells it at the start of each epoch."""
        self.generator.manual_seed(epoch_seed(self.seed, epoch))
        self.rows.begin_epoch(epoch)


def epoch_seed(seed: int, epoch: int) -> int:
    """One number from two, far from that of any other two."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])

"""Which form a dataset has, and what it holds."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from autobackbone.data import hugging_face
from autobackbone.data.arrays import from_arrays
from autobackbone.data.data_modules import NOTE, is_data_loader, is_data_module, splits_of
from autobackbone.data.folders import from_folder
from autobackbone.data.listings import from_listing, is_listing
from autobackbone.data.shards import from_shards, is_shards
from autobackbone.data.splits import from_splits
from autobackbone.data.spooling import Spooling, from_iterable, is_iterable, is_only_iterable
from autobackbone.data.torch_datasets import from_dataset, is_map_style
from autobackbone.data.torchvision_datasets import from_torchvision, is_torchvision
from autobackbone.errors import DataError

if TYPE_CHECKING:
    from autobackbone.data.sources import Found
    from autobackbone.records import Task

_FORMS = (
    "a dataset is a folder with one sub-folder per class, a CSV file or data frame with paths and labels, a tuple "
    "(X, y) of pictures and labels, a map-style torch dataset of (picture, label), such as torchvision's, a Hugging "
    "Face dataset, a LightningDataModule, tar shards (a folder, a pattern or a list), an iterable of (picture, label) "
    "or a function that makes one, or a dict of such by part"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    channels: tuple[int, ...] | None
    task: Task | None
    label: str | Sequence[str] | None
    spooling: Spooling


@dataclass(frozen=True, slots=True, kw_only=True)
class _Way:
    """One form of datasets: how it is known, how it is taken, whether `label=` means something in it, and whether its
    pictures come only once.
    """

    accepts: Callable[[Any], bool]
    take: Callable[[Any, _Asked], Found]
    has_columns: bool = False
    is_streamed: bool = False


@dataclass(slots=True, kw_only=True)
class _Shares:
    """The time of those parts of a dict that stream; not frozen, for it is spent."""

    seconds: float | None
    n_parts: int

    @contextmanager
    def next(self) -> Iterator[float | None]:
        """Give the next part its share; what it leaves is for those after it."""
        if self.seconds is None:
            yield None
            return
        begun = time.monotonic()
        yield self.seconds / self.n_parts
        self.seconds = max(0.0, self.seconds - (time.monotonic() - begun))
        self.n_parts -= 1


def find(
    dataset: Any,
    channels: tuple[int, ...] | None,
    *,
    task: Task | None = None,
    label: str | Sequence[str] | None = None,
    spooling: Spooling | None = None,
) -> Found:
    """Find the pictures and labels of any accepted form of dataset.

    Args:
        dataset: see `survey`.
        channels: which channels will be taken of each picture.
        task: what the labels are; `None` to read it from them.
        label: the columns of labels in a table; `None` for the usual one.
        spooling: where pictures are put that come only once; `None` for the system's temporary folder.

    Raises:
        DataError: another form, or one that cannot be used.
    """
    asked = _Asked(channels=channels, task=task, label=label, spooling=spooling or Spooling())
    way = _way_of(dataset)
    if way is None:
        raise DataError(f"{_FORMS}; {type(dataset).__name__} came.")
    if label is not None and not way.has_columns:
        raise DataError(
            "label= names columns of a CSV file, a data frame or a Hugging Face dataset, or entries of JSON in shards; "
            f"{type(dataset).__name__} came with it."
        )
    return way.take(dataset, asked)


def _way_of(dataset: Any) -> _Way | None:
    return next((way for way in _WAYS if way.accepts(dataset)), None)


def _splits(splits: Mapping[Any, Any], asked: _Asked) -> Found:
    streaming = {name for name, dataset in splits.items() if _streams(dataset)}
    shares = _Shares(seconds=asked.spooling.seconds, n_parts=len(streaming))

    def find_part(name: str, dataset: Any, task: Task | None) -> Found:
        if name not in streaming:
            return find(dataset, asked.channels, task=task, label=asked.label)
        with shares.next() as seconds:
            spooling = asked.spooling.of_part(name, seconds)
            return find(dataset, asked.channels, task=task, label=asked.label, spooling=spooling)

    return from_splits(splits, find_part, asked.task)


def _streams(dataset: Any) -> bool:
    way = _way_of(dataset.dataset if is_data_loader(dataset) else dataset)
    return way is not None and way.is_streamed


def _data_module(module: Any, asked: _Asked) -> Found:
    found = _splits(splits_of(module), asked)
    return replace(found, notes=(*found.notes, NOTE))


def _data_loader(loader: Any, asked: _Asked) -> Found:
    found = find(loader.dataset, asked.channels, task=asked.task, label=asked.label, spooling=asked.spooling)
    return replace(found, notes=(*found.notes, NOTE))


def _folder(folder: str | os.PathLike[str], asked: _Asked) -> Found:
    if asked.task not in (None, "classification"):
        raise DataError(
            f"a folder with one sub-folder per class is a classification; task={asked.task!r} came. Give its labels as "
            "a CSV file or data frame with the columns 'file' and 'label'."
        )
    return from_folder(folder)


def _is_pair(dataset: Any) -> bool:
    return isinstance(dataset, tuple) and len(dataset) == 2


def _has_items(dataset: Any) -> bool:
    return is_map_style(dataset) and not _is_pictures_alone(dataset) and not is_only_iterable(dataset)


def _is_pictures_alone(dataset: Any) -> bool:
    return isinstance(dataset, (np.ndarray, bytes)) or hasattr(dataset, "detach")


def _comes_once(dataset: Any) -> bool:
    return is_iterable(dataset) and not _is_pictures_alone(dataset)


# The first that accepts: what is more special stands before what it looks like, too.
_WAYS = (
    _Way(accepts=lambda given: isinstance(given, Mapping), take=_splits, has_columns=True),
    _Way(accepts=is_data_module, take=_data_module, has_columns=True),
    _Way(accepts=is_data_loader, take=_data_loader, has_columns=True),
    _Way(
        accepts=is_listing,
        take=lambda given, asked: from_listing(given, asked.label, asked.task),
        has_columns=True,
    ),
    _Way(accepts=is_shards, take=lambda given, asked: from_shards(given, asked.label, asked.task), has_columns=True),
    _Way(
        accepts=lambda given: hugging_face.kind_of(given) == "Dataset",
        take=lambda given, asked: hugging_face.from_hugging_face(given, asked.label, asked.task),
        has_columns=True,
    ),
    _Way(
        accepts=lambda given: hugging_face.kind_of(given) == "IterableDataset",
        take=lambda given, asked: hugging_face.from_stream(given, asked.spooling, asked.label, asked.task),
        has_columns=True,
        is_streamed=True,
    ),
    _Way(accepts=lambda given: isinstance(given, (str, os.PathLike)), take=_folder),
    _Way(accepts=_is_pair, take=lambda given, asked: from_arrays(given[0], given[1], asked.channels, asked.task)),
    _Way(accepts=is_torchvision, take=lambda given, asked: from_torchvision(given, asked.task)),
    _Way(accepts=_has_items, take=lambda given, asked: from_dataset(given, asked.task)),
    _Way(
        accepts=_comes_once,
        take=lambda given, asked: from_iterable(given, asked.spooling, asked.task),
        is_streamed=True,
    ),
)

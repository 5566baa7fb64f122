"""Which form a dataset has, and what it holds."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from autobackbone.data import hugging_face
from autobackbone.data.arrays import from_arrays
from autobackbone.data.folders import from_folder
from autobackbone.data.listings import from_listing, is_listing
from autobackbone.data.splits import from_splits
from autobackbone.data.torch_datasets import from_dataset, is_map_style
from autobackbone.errors import DataError

if TYPE_CHECKING:
    from autobackbone.data.sources import Found
    from autobackbone.records import Task

_FORMS = (
    "a dataset is a folder with one sub-folder per class, a CSV file or data frame with paths and labels, a tuple "
    "(X, y) of pictures and labels, a map-style torch dataset of (picture, label), a Hugging Face dataset, or a dict "
    "of such by part"
)


def find(
    dataset: Any,
    channels: tuple[int, ...] | None,
    *,
    task: Task | None = None,
    label: str | Sequence[str] | None = None,
) -> Found:
    """Find the pictures and labels of any accepted form of dataset.

    Args:
        dataset: see `survey`.
        channels: which channels will be taken of each picture.
        task: what the labels are; `None` to read it from them.
        label: the columns of labels in a table; `None` for the usual one.

    Raises:
        DataError: another form, or one that cannot be used.
    """
    if isinstance(dataset, Mapping):
        return from_splits(dataset, partial(_part, channels=channels, label=label), task)
    if is_listing(dataset):
        return from_listing(dataset, label, task)
    if hugging_face.kind_of(dataset) == "Dataset":
        return hugging_face.from_hugging_face(dataset, label, task)
    if label is not None:
        raise DataError(
            "label= names columns of a CSV file, a data frame or a Hugging Face dataset; "
            f"{type(dataset).__name__} came with it."
        )
    if isinstance(dataset, (str, os.PathLike)):
        _require_classes(task)
        return from_folder(dataset)
    if isinstance(dataset, tuple) and len(dataset) == 2:
        return from_arrays(*dataset, channels, task)
    is_pictures_alone = isinstance(dataset, (np.ndarray, bytes)) or hasattr(dataset, "detach")
    if is_map_style(dataset) and not is_pictures_alone:
        return from_dataset(dataset, task)
    raise DataError(f"{_FORMS}; {type(dataset).__name__} came.")


def _part(dataset: Any, task: Task | None, **of_all: Any) -> Found:
    return find(dataset, of_all["channels"], task=task, label=of_all["label"])


def _require_classes(task: Task | None) -> None:
    if task not in (None, "classification"):
        raise DataError(
            f"a folder with one sub-folder per class is a classification; task={task!r} came. Give its labels as a "
            "CSV file or data frame with the columns 'file' and 'label'."
        )

"""Datasets of torchvision, read past their transforms: files by their paths, arrays as they lie in memory.

They are known by their type, so that torchvision need not be imported.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from autobackbone.data.arrays import ArraySource
from autobackbone.data.folders import FolderSource
from autobackbone.data.joining import PartSource
from autobackbone.data.labels import as_labelled
from autobackbone.data.sources import Found
from autobackbone.data.torch_datasets import as_array, from_dataset, named
from autobackbone.errors import DataError

if TYPE_CHECKING:
    from autobackbone.data.sources import Source
    from autobackbone.records import Task

_OURS = "torchvision.datasets."
_IN_MEMORY = frozenset({f"{_OURS}cifar", f"{_OURS}mnist", f"{_OURS}usps"})
"""Modules whose datasets hold all pictures in `data` and all labels in `targets`."""


def is_torchvision(dataset: Any) -> bool:
    """Whether torchvision's own code reads the items of a dataset, or of what it is a subset of."""
    whole, _ = _unwrapped(dataset)
    return _reader(whole).startswith(_OURS)


def from_torchvision(dataset: Any, task: Task | None = None) -> Found:
    """Take a dataset of torchvision, or a `Subset` of one.

    Its transform prepares pictures for one network, and changes them at random perhaps: here it is not applied, which
    is told. A target transform is.

    Args:
        dataset: see `is_torchvision`.
        task: what the labels are; `None` to read it from them.

    Raises:
        DataError: labels are missing or not of the task.
    """
    whole, indices = _unwrapped(dataset)
    found = _whole(whole, task)
    transform = getattr(whole, "transform", None)
    if transform is not None:
        line = f"pictures are taken as they are stored: the transform of {type(whole).__name__} is not applied"
        found = replace(found, notes=(*found.notes, f"{line} ({', '.join(step_names(transform))})"))
    return found if indices is None else _taken(found, indices)


def step_names(transform: Any) -> list[str]:
    """Name the steps of a transform, those within others, too.

    Example:
        >>> step_names(len)
        ['len']
    """
    steps = getattr(transform, "transforms", None)
    if isinstance(steps, Iterable):
        return [name for step in steps for name in step_names(step)]
    return [getattr(transform, "__name__", type(transform).__name__)]


def _unwrapped(dataset: Any) -> tuple[Any, np.ndarray[Any, Any] | None]:
    """What a subset, perhaps of a subset, is taken from, and which of its items, (n,) int64; `None` for all."""
    indices = None
    while type(dataset).__name__ == "Subset" and type(dataset).__module__ == "torch.utils.data.dataset":
        own = np.asarray(dataset.indices, dtype=np.int64)
        indices = own if indices is None else own[indices]
        dataset = dataset.dataset
    return dataset, indices


def _reader(dataset: Any) -> str:
    """The module of the class that reads items: a user's own may do anything with them."""
    return next((base.__module__ for base in type(dataset).__mro__ if "__getitem__" in vars(base)), "")


def _whole(dataset: Any, task: Task | None) -> Found:
    if _has_files(dataset):
        paths = [os.path.abspath(path) for path, _ in dataset.samples]  # noqa: PTH100  # a Path for each costs a second
        source: Source = _files(os.path.abspath(dataset.root), paths)  # noqa: PTH100
        return _labelled(dataset, source, [code for _, code in dataset.samples], task)
    if _reader(dataset) in _IN_MEMORY and np.ndim(dataset.targets) == 1:
        pictures = as_array(dataset.data) if hasattr(dataset.data, "detach") else np.asarray(dataset.data)
        source = ArraySource(pictures=pictures, names=tuple(map(str, range(len(pictures)))))
        return _labelled(dataset, source, np.asarray(dataset.targets).tolist(), task)
    return from_dataset(_bare(dataset), task)


def _has_files(dataset: Any) -> bool:
    """Whether it is a folder of pictures that torchvision's own loader opens."""
    loader = getattr(getattr(dataset, "loader", None), "__module__", "")
    return _reader(dataset) == loader == f"{_OURS}folder" and bool(dataset.samples)


def _files(root: str, paths: list[str]) -> FolderSource:
    above = root.rstrip(os.sep) + os.sep
    names = (path.removeprefix(above) for path in paths)  # what lies elsewhere keeps its whole path
    return FolderSource(root=Path(root), names=tuple(name.replace(os.sep, "/") for name in names))


def _labelled(dataset: Any, source: Source, targets: list[Any], task: Task | None) -> Found:
    change: Callable[[Any], Any] | None = dataset.target_transform
    try:
        labels = targets if change is None else [change(target) for target in targets]
    except Exception as error:
        raise DataError(f"the target_transform of {type(dataset).__name__} raised {error!r}.") from error
    read = as_labelled(labels, task)
    # Changed codes mean something else than the names.
    is_named = change is None and read.task != "regression"
    classes = named(read.classes, dataset) if is_named else read.classes
    return Found(source=source, classes=classes, labels=read.labels, task=read.task)


def _bare(dataset: Any) -> Any:
    """The same dataset without the transform of its pictures; one of pictures and labels together stays."""
    if getattr(dataset, "transform", None) is None:
        return dataset
    bare = copy.copy(dataset)
    bare.transform = None
    # Some datasets read through this pair of the two transforms.
    if type(getattr(bare, "transforms", None)).__name__ == "StandardTransform":
        bare.transforms = copy.copy(bare.transforms)
        bare.transforms.transform = None
    return bare


def _taken(found: Found, indices: np.ndarray[Any, Any]) -> Found:
    """Some pictures, and the classes that these have."""
    if found.task != "classification":
        return replace(found, source=PartSource(whole=found.source, indices=indices), labels=found.labels[indices])
    codes, labels = np.unique(found.labels[indices], return_inverse=True)
    return replace(
        found,
        source=PartSource(whole=found.source, indices=indices),
        classes=tuple(found.classes[code] for code in codes),
        labels=labels.astype(np.int64),
    )

"""Labels that come with the type of their column: names of classes beside codes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from autobackbone.data.classes import missing
from autobackbone.data.labels import Labelled, as_labelled
from autobackbone.data.sources import NoLabelsError
from autobackbone.errors import DataError

if TYPE_CHECKING:
    from autobackbone.records import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelColumn:
    """What is known of a column of labels before its cells are read.

    Args:
        name: of the column.
        classes: names by code, where cells are codes, or lists of them; else `None`.
        is_list: whether a cell is a list.
        is_real: whether cells are real numbers, even where all are whole.
    """

    name: str
    classes: tuple[str, ...] | None = None
    is_list: bool = False
    is_real: bool = False


def labelled(cells: Sequence[Any], column: LabelColumn, task: Task | None = None) -> Labelled:
    """Read the cells of a column: classes are named and keep the order of their codes; a code of -1 is no label.

    Args:
        cells: one a picture.
        column: what is known of them.
        task: what they are; `None` to read it from the column's type and its cells.

    Raises:
        NoLabelsError: no picture has a label.
        DataError: some have none, or the labels are not of the task.

    Example:
        >>> labelled([1, 0, 1], LabelColumn(name="label", classes=("dog", "ant"))).classes
        ('dog', 'ant')
    """
    is_missing = np.array([cell is None or (column.classes is not None and _is_unknown(cell)) for cell in cells])
    if is_missing.all():
        raise NoLabelsError("none of the pictures has a label")
    try:
        read = _read(cells, column, task, np.flatnonzero(is_missing))
    except DataError as error:
        raise DataError(f"column {column.name!r}: {error}") from error
    is_one_number = read.task == "regression" and read.labels.shape[1] == 1
    return replace(read, classes=(column.name,)) if is_one_number else read


def _read(cells: Sequence[Any], column: LabelColumn, task: Task | None, unlabelled: np.ndarray[Any, Any]) -> Labelled:
    if unlabelled.size:
        raise missing(unlabelled)
    if column.classes is not None and column.is_list and task in (None, "multilabel"):
        return _several(cells, column.classes)
    if column.classes is not None and not column.is_list and task in (None, "classification"):
        return _single(cells, column.classes)
    return as_labelled(cells, "regression" if task is None and column.is_real and not column.is_list else task)


def _is_unknown(cell: Any) -> bool:
    return not isinstance(cell, (list, tuple, np.ndarray)) and cell == -1


def _single(cells: Sequence[Any], names: tuple[str, ...]) -> Labelled:
    codes = np.asarray(cells, dtype=np.int64)
    found, places = np.unique(codes, return_inverse=True)
    _require_named(found, names)
    return Labelled(task="classification", classes=tuple(names[code] for code in found), labels=places.astype(np.int64))


def _several(cells: Sequence[Any], names: tuple[str, ...]) -> Labelled:
    codes = np.array([code for cell in cells for code in cell], np.int64)
    rows = np.repeat(np.arange(len(cells)), [len(cell) for cell in cells])
    found, places = np.unique(codes, return_inverse=True)
    if not found.size:
        raise DataError("a multilabel task needs labels; every picture came with none.")
    _require_named(found, names)
    labels = np.zeros((len(cells), len(found)), np.int64)
    labels[rows, places] = 1
    return Labelled(task="multilabel", classes=tuple(names[code] for code in found), labels=labels)


def _require_named(codes: np.ndarray[Any, Any], names: tuple[str, ...]) -> None:
    wrong = codes[(codes < 0) | (codes >= len(names))]
    if wrong.size:
        raise DataError(f"{len(names)} classes are named, so codes run from 0 to {len(names) - 1}; {wrong[0]} came.")

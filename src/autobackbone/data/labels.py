"""Labels in any form that users write, as a task and numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import pandas as pd

from autobackbone.data.classes import Array, encode_labels, missing, plain
from autobackbone.errors import DataError
from autobackbone.records import Task

_FORM = (
    "labels are one class a picture, one or several numbers, a matrix of 0 and 1 with a column for each label, or a "
    "list of names for each picture"
)
# Between the names of several labels in one text.
_SEPARATORS = re.compile(r"[|;,]")

# Of the largest number: single precision has seven digits, and three of them should tell pictures apart.
_LEAST_SPREAD = 1e-4
# Single precision holds 1e-38 to 3e38, and a network adds up many of them.
_LARGEST, _SMALLEST = 1e30, 1e-30


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Labelled:
    """Labels as a task and numbers.

    Args:
        task: what they are.
        classes: names of classes, of labels, or of the numbers to predict, in the order of codes or columns.
        labels: classification: (n,) int64 codes; multilabel: (n, n_labels) int64, 0 or 1; regression: (n, n_targets)
            float64.
    """

    task: Task
    classes: tuple[str | int, ...]
    labels: Array


def as_labelled(labels: Any, task: Task | None = None, names: Sequence[str] | None = None) -> Labelled:
    """Read labels of any task.

    If no task is said, numbers with a fraction are a regression, and a matrix of other numbers than 0 and 1 is one of
    several. Matrices of 0 and 1 and lists of names are a multilabel task, unless each row of a matrix has a single 1:
    that is a class, with a column for each. All else is a classification.

    Args:
        labels: one entry a picture: numbers, texts, lists of names; an array (n,) or (n, k), a series, or a table.
        task: what they are; `None` to read it from them.
        names: of the columns of a matrix; `None` takes those of a table, or their numbers.

    Raises:
        DataError: labels are missing, or not of the task.

    Example:
        >>> as_labelled([["cat", "dog"], [], ["dog"]]).labels.tolist()
        [[1, 1], [0, 0], [0, 1]]
        >>> as_labelled([0.5, 1.5]).task
        'regression'
    """
    if task is not None and task not in get_args(Task):
        raise DataError(f"task is 'classification', 'regression', 'multilabel' or None; {task!r} came.")
    if isinstance(labels, pd.DataFrame):
        names = [str(name) for name in labels.columns] if names is None else names
        labels = labels.to_numpy()
    values = _values(labels)
    if _is_texts(values) and task == "multilabel":
        return _from_names([[part.strip() for part in _SEPARATORS.split(str(text)) if part.strip()] for text in values])
    if _is_lists_of_names(values, task):
        return _from_names([_names(entry) for entry in values])
    matrix = _matrix(values, names)
    if matrix is not None and matrix.shape[1] > 1:
        return _from_matrix(matrix, task, names)
    column = values if matrix is None else matrix[:, 0]
    if task == "multilabel":
        if matrix is not None and values.ndim == 2 and np.isin(matrix, (0, 1)).all():
            return _from_matrix(matrix, task, names)
        raise DataError(
            "a multilabel task takes a matrix of 0 and 1 with a column for each label, a list of names for each "
            "picture, or texts such as 'cat|dog'; one number for each came."
        )
    if task == "regression" or (task is None and _has_fractions(column)):
        return _from_numbers(_floats(column)[:, None], names)
    classes, codes = encode_labels(column)
    return Labelled(task="classification", classes=classes, labels=codes)


def _values(labels: Any) -> Array:
    """One entry a picture, (n,) of any objects or (n, k, …) of numbers."""
    if isinstance(labels, np.ndarray):
        return labels
    if isinstance(labels, pd.Series):
        return np.asarray(labels, dtype=object)
    entries = [plain(label) for label in labels]
    if entries and all(isinstance(entry, np.ndarray) and entry.shape == entries[0].shape for entry in entries):
        return np.stack(entries)
    values = np.empty(len(entries), dtype=object)
    values[:] = entries
    return values


def _is_texts(values: Array) -> bool:
    return values.ndim == 1 and values.size > 0 and all(isinstance(value, str) for value in values)


def _is_lists_of_names(values: Array, task: Task | None) -> bool:
    """Lists of texts, or lists of unequal lengths, or of codes where a multilabel task is said."""
    if values.ndim != 1 or values.dtype != object or not any(_is_list(value) for value in values):
        return False
    if any(isinstance(value, (set, frozenset)) for value in values):
        return True
    entries = [value for value in values if _is_list(value)]
    is_text = any(isinstance(name, str) for entry in entries for name in entry)
    lengths = {len(entry) for entry in entries}
    is_codes = task == "multilabel" and not all(name in (0, 1) for entry in entries for name in entry)
    return is_text or len(lengths) > 1 or 0 in lengths or is_codes


def _is_list(value: Any) -> bool:
    return isinstance(value, Collection) and not isinstance(value, (str, bytes, dict))


def _names(entry: Any) -> list[Any]:
    if not _is_list(entry):
        raise DataError(f"every picture needs a list of names, which may be empty; {entry!r} came.")
    return list(entry)


def _from_names(entries: Sequence[Sequence[Any]]) -> Labelled:
    classes, codes = encode_labels([name for entry in entries for name in entry])
    if not classes:
        raise DataError("a multilabel task needs labels; every picture came with none.")
    rows = np.repeat(np.arange(len(entries)), [len(entry) for entry in entries])
    labels = np.zeros((len(entries), len(classes)), np.int64)
    labels[rows, codes] = 1
    return Labelled(task="multilabel", classes=classes, labels=labels)


def _matrix(values: Array, names: Sequence[str] | None) -> Array | None:
    """(n, k) numbers, a row a picture; `None` where entries are single ones that may be texts."""
    if values.ndim == 1:
        if not any(_is_list(value) for value in values):
            return None
        values = _stacked(values)
    if values.ndim != 2 or 0 in values.shape:
        raise DataError(f"{_FORM}; an array of shape {values.shape} came.")
    if values.shape[1] == 1 and values.dtype.kind not in "buif":
        return values
    return _floats(values, names)


def _stacked(values: Array) -> Array:
    try:
        return np.asarray([list(value) for value in values], dtype=object)
    except (TypeError, ValueError) as error:
        raise DataError(f"{_FORM}; entries of different kinds came.") from error


def _floats(values: Array, names: Sequence[str] | None = None) -> Array:
    """Finite numbers.

    Raises:
        DataError: texts, missing numbers, or infinite ones.
    """
    if values.dtype == object:
        values = np.where(pd.isna(values), np.nan, values)
    try:
        floats = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        value, place = _first_text(values)
        raise DataError(
            f"numbers to predict, or 0 and 1 for each label, are numbers; {value!r} came, {_place(place, names)}."
        ) from error
    is_missing = np.isnan(floats).reshape(len(floats), -1).any(axis=1)
    if is_missing.any():
        raise missing(np.flatnonzero(is_missing))
    if np.isinf(floats).any():
        row, *column = map(int, np.argwhere(np.isinf(floats))[0])
        raise DataError(
            f"numbers to predict are finite; {floats[(row, *column)]} came, {_place((row, *column), names)}. Leave out "
            "that picture, or give its number."
        )
    return floats


def _first_text(values: Array) -> tuple[Any, tuple[int, ...]]:
    """What is no number, and where it stands."""
    for place in np.ndindex(values.shape):
        try:
            float(values[place])
        except (TypeError, ValueError, OverflowError):
            return plain(values[place]), place
    return "another kind of object", (0,)


def _place(place: Sequence[int], names: Sequence[str] | None) -> str:
    row, *columns = place
    if not columns:
        return f"in row {row}"
    return f"in row {row} of column {(columns[0] if names is None else names[columns[0]])!r}"


def _has_fractions(values: Array) -> bool:
    """Whether any is a number that is not whole, and none is a text."""
    if values.dtype.kind in "bui" or any(isinstance(value, str) for value in values):
        return False
    numbers = [value for value in values if isinstance(value, (float, np.floating)) and math.isfinite(value)]
    return any(not float(value).is_integer() for value in numbers)


def _from_matrix(matrix: Array, task: Task | None, names: Sequence[str] | None) -> Labelled:
    is_binary = bool(np.isin(matrix, (0, 1)).all())
    classes = _column_names(matrix, names)
    if task == "regression" or (task is None and not is_binary):
        return _from_numbers(matrix, names)
    if not is_binary:
        wrong = matrix[~np.isin(matrix, (0, 1))][0]
        raise DataError(f"a matrix of labels for task={task!r} has a 1 where a label is there, else 0; {wrong:g} came.")
    is_one_hot = bool((matrix.sum(axis=1) == 1).all())
    if task == "multilabel" or not is_one_hot:
        if task == "classification":
            row = int(np.flatnonzero(matrix.sum(axis=1) != 1)[0])
            raise DataError(f"a class is a single 1 in each row; row {row} has {matrix[row].sum():g} of them.")
        return Labelled(task="multilabel", classes=classes, labels=matrix.astype(np.int64))
    codes, found = matrix.argmax(axis=1), np.flatnonzero(matrix.any(axis=0))
    return Labelled(
        task="classification", classes=tuple(classes[code] for code in found), labels=np.searchsorted(found, codes)
    )


def _from_numbers(matrix: Array, names: Sequence[str] | None) -> Labelled:
    classes = _column_names(matrix, names, single="value")
    with np.errstate(over="ignore"):
        size, spread = np.abs(matrix).max(axis=0, initial=0.0), np.ptp(matrix, axis=0) if len(matrix) else 0.0
    too_close = np.flatnonzero((spread > 0) & (spread < _LEAST_SPREAD * size))
    if too_close.size:
        raise DataError(
            f"numbers of {classes[too_close[0]]!r} lie so close together for their size that a network, which counts "
            "in single precision, cannot tell them apart. Subtract a constant from them."
        )
    out_of_reach = np.flatnonzero((size > _LARGEST) | ((spread > 0) & (size < _SMALLEST)))
    if out_of_reach.size:
        column = out_of_reach[0]
        raise DataError(
            f"numbers of {classes[column]!r} reach up to {size[column]:.3g}, and a network, which counts in single "
            f"precision, gives numbers from {_SMALLEST:.0e} to {_LARGEST:.0e}. Divide or multiply them by a constant."
        )
    return Labelled(task="regression", classes=classes, labels=matrix)


def _column_names(matrix: Array, names: Sequence[str] | None, single: str | None = None) -> tuple[str | int, ...]:
    n_columns = matrix.shape[1]
    if names is not None and len(names) != n_columns:
        raise DataError(f"every column of labels needs a name; {n_columns} columns and {len(names)} names came.")
    if names is not None:
        return tuple(names)
    return (single,) if n_columns == 1 and single else tuple(range(n_columns))

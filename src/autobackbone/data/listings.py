"""A table of picture files and their labels: a CSV file or a data frame."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from autobackbone.data.classes import missing
from autobackbone.data.folders import PART_NAMES, FolderSource
from autobackbone.data.labels import as_labelled
from autobackbone.data.sources import Found, from_home
from autobackbone.errors import DataError

if TYPE_CHECKING:
    from autobackbone.records import Task

_FILE, _LABEL, _SPLIT, _GROUP = "file", "label", "split", "group"
_FORM = (
    f"a table has a column '{_FILE}' with paths of pictures and a column '{_LABEL}', or columns that label= names; "
    f"'{_SPLIT}' and '{_GROUP}' are optional"
)


def is_listing(dataset: Any) -> bool:
    """Whether a dataset is a data frame or the path of a CSV file."""
    if isinstance(dataset, pd.DataFrame):
        return True
    if not isinstance(dataset, (str, os.PathLike)):
        return False
    path = from_home(dataset)
    return path.suffix.lower() == ".csv" and not os.path.isdir(path)  # noqa: PTH112  says no where Path raises


def from_listing(
    dataset: pd.DataFrame | str | os.PathLike[str], label: str | Sequence[str] | None = None, task: Task | None = None
) -> Found:
    """Take a table of pictures, one row each.

    Args:
        dataset: a data frame, whose paths are relative to the working directory, or the path of a CSV file, whose paths
            are relative to its folder. The column `file` has the paths; `split`, if it is there, train, val or test of
            each; `group`, if it is there, what is kept in one part.
        label: the columns of labels; `None` for the one called `label`. Several are several numbers, or 0 and 1 for
            each of several labels.
        task: what the labels are; `None` to read it from them.

    Raises:
        DataError: the file cannot be read, columns are missing, a file is listed twice, a part is not known.

    Example:
        >>> table = pd.DataFrame({"file": ["a.jpg", "b.jpg"], "label": [0.5, 1.5]})
        >>> from_listing(table).task
        'regression'
    """
    table, root = _read(dataset)
    columns = _label_columns(table, label)
    if len(table) == 0:
        raise DataError(f"{_FORM}; a table without rows came.")
    names = _names(table)
    try:
        given = [_stripped(label) for label in table[columns[0]]] if len(columns) == 1 else table[columns]
        read = as_labelled(given, task)
    except DataError as error:
        raise DataError(f"column{'s' if len(columns) > 1 else ''} {', '.join(map(repr, columns))}: {error}") from error
    if len(columns) == 1 and read.task == "regression":
        read = replace(read, classes=(columns[0],))
    return Found(
        source=FolderSource(root=root, names=names),
        classes=read.classes,
        labels=read.labels,
        task=read.task,
        given=_parts(table),
        groups=_groups(table),
        column=partial(column_of, dataset),
    )


def _stripped(label: Any) -> Any:
    """Spaces around a name make no other class; one that has nothing else is missing."""
    return (label.strip() or None) if isinstance(label, str) else label


def column_of(dataset: pd.DataFrame | str | os.PathLike[str], name: str) -> list[Any]:
    """One column of a table.

    Raises:
        DataError: there is none of this name.
    """
    table, _ = _read(dataset)
    if name not in table.columns:
        raise DataError(f"the table has no column {name!r}; it has {', '.join(map(repr, table.columns[:20]))}.")
    return table[name].tolist()


def _read(dataset: pd.DataFrame | str | os.PathLike[str]) -> tuple[pd.DataFrame, Path]:
    if isinstance(dataset, pd.DataFrame):
        return dataset.reset_index(drop=True), Path.cwd()
    path = from_home(dataset)
    try:
        # A label called "NA" is a text; an empty cell is missing.
        with warnings.catch_warnings():
            # Else a row with one cell more than the header would move all others by one.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(path, keep_default_na=False, na_values=[""], dtype={_FILE: str}, index_col=False)
    except FileNotFoundError as error:
        raise DataError(
            f"a dataset is a folder, or a CSV file with paths and labels; nothing is at '{path}'."
        ) from error
    except pd.errors.ParserWarning as error:
        raise DataError(
            f"'{path}' has rows with more cells than its header, such as those with a comma at the end or a decimal "
            "comma. Quote texts that hold commas, and write numbers with a point."
        ) from error
    except (OSError, ValueError) as error:  # pandas' own errors are of these kinds
        raise DataError(f"'{path}' cannot be read as CSV: {error}. {_FORM}.") from error
    return table, path.absolute().parent


def _label_columns(table: pd.DataFrame, label: str | Sequence[str] | None) -> list[str]:
    wanted = [_LABEL] if label is None else [label] if isinstance(label, str) else list(label)
    absent = [name for name in (_FILE, *wanted) if name not in table.columns]
    if absent or not wanted:
        there = ", ".join(repr(name) for name in table.columns[:20])
        raise DataError(f"{_FORM}; there is no {', '.join(map(repr, absent)) or 'label'} among {there}.")
    return wanted


def _names(table: pd.DataFrame) -> tuple[str, ...]:
    is_empty = table[_FILE].isna().to_numpy()
    if is_empty.any():
        raise DataError(f"every row needs a path in '{_FILE}'; row {int(is_empty.argmax())} has none.")
    names = tuple(os.fspath(name) if isinstance(name, os.PathLike) else str(name) for name in table[_FILE])
    # As objects: pandas would hand texts to pyarrow, where that is installed, which takes no half surrogate.
    is_repeated = pd.Series(names, dtype=object).duplicated().to_numpy()
    if is_repeated.any():
        raise DataError(
            f"every picture has one row; {int(is_repeated.sum())} are listed again, such as "
            f"'{names[int(is_repeated.argmax())]}'. Several labels of one stand in its row, in columns of 0 and 1."
        )
    return names


def _parts(table: pd.DataFrame) -> np.ndarray[Any, np.dtype[np.int8]] | None:
    if _SPLIT not in table.columns:
        return None
    written = table[_SPLIT].astype(str).str.strip().str.lower()
    is_unknown = ~written.isin(list(PART_NAMES)).to_numpy()
    if is_unknown.any():
        wrong = table[_SPLIT].iloc[int(is_unknown.argmax())]
        raise DataError(f"'{_SPLIT}' says {', '.join(PART_NAMES)} in each row; {wrong!r} came.")
    parts: np.ndarray[Any, np.dtype[np.int8]] = written.map(PART_NAMES).to_numpy().astype(np.int8)
    if not (parts == PART_NAMES["train"]).any():
        raise DataError(f"'{_SPLIT}' has no row that says train: there is nothing to train on.")
    return parts


def _groups(table: pd.DataFrame) -> np.ndarray[Any, Any] | None:
    if _GROUP not in table.columns:
        return None
    is_missing = table[_GROUP].isna().to_numpy()
    if is_missing.any():
        raise DataError(f"column '{_GROUP}': {str(missing(np.flatnonzero(is_missing))).replace('label', 'group')}")
    return table[_GROUP].to_numpy()

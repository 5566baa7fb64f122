"""A dict of splits, `{"train": …, "val": …, "test": …}`: what each part is, in any other form of dataset."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from autobackbone.data.folders import PART_NAMES
from autobackbone.data.joining import joined
from autobackbone.data.parts import TRAIN
from autobackbone.data.sources import Found, NoLabelsError
from autobackbone.data.spooling import n_streamed
from autobackbone.errors import DataError

if TYPE_CHECKING:
    from autobackbone.records import Task

_FORM = (
    "a dict is a split: its keys are 'train' and perhaps 'val' (or 'validation') and 'test', its values datasets of "
    "any other form"
)
Finder = Callable[[str, Any, "Task | None"], Found]
"""Finds the pictures of a part: its name, its dataset, and its task, `None` to read it from the labels."""


def from_splits(splits: Mapping[Any, Any], find: Finder, task: Task | None = None) -> Found:
    """Take a dict of splits as one dataset whose split is given.

    Pictures come in the order train, validation, test, which is that of `groups=` and `times=`. The labels of the
    training part say what is to be told apart: classes that only another part has are refused, and the task of all
    parts is that of the training part. A part without any label is left out.

    Args:
        splits: datasets by name of part, as a folder's parts are called.
        find: finds the pictures of one.
        task: what the labels are; `None` to read it from those of the training part.

    Raises:
        DataError: other keys, no training part, or parts that do not go together; what is wrong with one part is told
            with its name.
    """
    codes = _part_codes(splits)
    (train,) = (name for name, code in codes.items() if code == TRAIN)
    founds = {train: _found(train, splits[train], find, task)}
    if len(founds[train].labels) == 0:
        raise DataError(f"{_FORM}; {train!r} has no picture: there is nothing to train on.")
    notes = []
    for name in codes:
        if name == train:
            continue
        try:
            founds[name] = _found(name, splits[name], find, founds[train].task)
        except NoLabelsError as error:
            notes.append(f"{name!r} is not used: {error}")
    # However the dict is ordered: what a run notes of it is ordered by name.
    founds = {name: founds[name] for name in sorted(founds, key=codes.__getitem__)}
    classes = _classes(founds, train)
    sizes = [len(found.labels) for found in founds.values()]
    return Found(
        source=joined([found.source for found in founds.values()], list(founds)),
        classes=classes,
        labels=np.concatenate([_recoded(found, classes) for found in founds.values()]),
        task=founds[train].task,
        given=np.repeat(np.array([codes[name] for name in founds], np.int8), sizes),
        groups=_groups(founds),
        notes=(*notes, *(f"{name}: {note}" for name, found in founds.items() for note in found.notes)),
        column=_column(list(founds.values())),
    )


def _part_codes(splits: Mapping[Any, Any]) -> dict[str, int]:
    codes: dict[str, int] = {}
    for name in splits:
        code = PART_NAMES.get(name.lower()) if isinstance(name, str) else None
        if code is None:
            raise DataError(f"{_FORM}; the key {name!r} came. Leave it out, or give it one of these names.")
        if code in codes.values():
            other = next(known for known in codes if codes[known] == code)
            raise DataError(f"{_FORM}; {other!r} and {name!r} are the same part. Join them, or leave one out.")
        codes[name] = code
    if TRAIN not in codes.values():
        raise DataError(f"{_FORM}; there is no 'train' among {list(splits)}.")
    return codes


def _found(name: str, dataset: Any, find: Finder, task: Task | None) -> Found:
    if isinstance(dataset, Mapping):
        raise DataError(f"{_FORM}; {name!r} is a dict itself.")
    try:
        found = find(name, dataset, task)
    except NoLabelsError:
        raise
    except DataError as error:
        raise DataError(f"the part {name!r}: {error}") from error
    if found.given is not None:
        raise DataError(f"{_FORM}; {name!r} brings a split of its own. Give that alone, or leave its split out.")
    return found


def _classes(founds: Mapping[str, Found], train: str) -> tuple[str | int, ...]:
    """Those of the training part; of several labels a picture, those that others have beside them, too."""
    known = founds[train].classes
    for name, found in founds.items():
        more = tuple(label for label in found.classes if label not in known)
        if found.task == "multilabel":
            known += more
        elif more:
            raise DataError(
                f"every class or number must be in the part {train!r}; only in {name!r}: "
                f"{', '.join(map(repr, more[:10]))}. {train!r} has {', '.join(map(repr, known[:10]))}. Rename or "
                f"remove the others.{_of_cut(train, founds[train])}"
            )
    return known


def _of_cut(name: str, found: Found) -> str:
    n_came = n_streamed(found.source)
    if n_came is None:
        return ""
    return f" Of {name!r} only the first {n_came:,} pictures came in time: shuffle it, or give more time."


def _recoded(found: Found, classes: tuple[str | int, ...]) -> np.ndarray[Any, Any]:
    """The labels of one part in the classes or columns of all."""
    place = {label: index for index, label in enumerate(classes)}
    places = np.array([place[label] for label in found.classes], np.int64)
    if found.task == "classification":
        codes: np.ndarray[Any, Any] = places[found.labels]
        return codes
    if found.task == "regression" and len(found.classes) < len(classes):
        raise DataError(f"every part has the same numbers to predict; {classes} and {found.classes} came.")
    labels = np.zeros((len(found.labels), len(classes)), found.labels.dtype)
    labels[:, places] = found.labels
    return labels


def _groups(founds: Mapping[str, Found]) -> np.ndarray[Any, Any] | None:
    given = [found.groups for found in founds.values() if found.groups is not None]
    if not given:
        return None
    if len(given) < len(founds):
        raise DataError("every part has groups, or none; some tables have a column 'group' and others have not.")
    return np.concatenate([np.asarray(groups, dtype=object) for groups in given])


def _column(founds: Sequence[Found]) -> Callable[[str], list[Any]] | None:
    columns = [found.column for found in founds if found.column is not None]
    if len(columns) < len(founds):
        return None
    return lambda name: [cell for column in columns for cell in column(name)]

"""What a network says of picture files, one file at a time."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import UnidentifiedImageError

from autobackbone.data.pictures import open_picture, picture_suffixes, quiet_pillow
from autobackbone.errors import DataError
from autobackbone.tasks import names_of

if TYPE_CHECKING:
    from PIL.Image import Image

    from autobackbone.selection import Selection


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What a network says of one file.

    Args:
        path: the file.
        values: as `columns` names them; empty if the file could not be read.
        problem: why the file could not be read; empty if it could.
    """

    path: Path
    values: tuple[str, ...] = ()
    problem: str = ""


def columns(selection: Selection) -> tuple[str, ...]:
    """What is said of a file: its class and that class's probability; its labels and the probability of each; or the
    numbers.
    """
    names = tuple(str(name) for name in selection.classes)
    if selection.task == "regression":
        return names
    return ("labels", *names) if selection.task == "multilabel" else ("class", "probability")


def predictions(selection: Selection, paths: Iterable[Path], trial: int | None = None) -> Iterator[Prediction]:
    """Predict each picture; one that cannot be read costs only itself.

    Args:
        selection: the run whose network predicts.
        paths: files, or folders, which are walked for pictures in order of name.
        trial: number of a trial of the front; `None` for the chosen one.

    Raises:
        RunError: the trial has no network.
    """
    for path in _files(paths):
        try:
            values = _values(selection, _opened(path), trial)
        except DataError as error:
            yield Prediction(path=path, problem=str(error))
            continue
        yield Prediction(path=path, values=values)


def _values(selection: Selection, picture: Image, trial: int | None) -> tuple[str, ...]:
    if selection.task == "regression":
        return tuple(f"{value:.6g}" for value in np.ravel(selection.predict([picture], trial)))
    (row,) = selection.predict_proba([picture], trial)
    if selection.task == "multilabel":
        return (names_of(row > 0.5, selection.classes), *(f"{probability:.4f}" for probability in row))
    code = int(row.argmax())
    return str(selection.classes[code]), f"{row[code]:.4f}"


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if os.path.isdir(path):  # noqa: PTH112  # Path.is_dir raises for a name too long
            found = (file for file in path.rglob("*") if file.suffix.lower() in picture_suffixes() and file.is_file())
            yield from sorted(found)
        else:
            yield path


def _opened(path: Path) -> Image:
    try:
        with quiet_pillow():
            picture = open_picture(path)
            picture.load()
    except UnidentifiedImageError as error:
        raise DataError("no picture of a format that is read here") from error
    except Exception as error:  # decoders meet broken bytes with any exception
        raise DataError(getattr(error, "strerror", None) or str(error)) from error
    return picture

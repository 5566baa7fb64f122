"""Classes of picture files, one file at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import UnidentifiedImageError

from autobackbone.data.pictures import open_picture, picture_suffixes
from autobackbone.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

    from autobackbone.selection import Selection


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What a network says of one file.

    Args:
        path: the file.
        label: the likeliest class; empty if the file could not be read.
        probability: of that class, 0 to 1.
        problem: why the file could not be read; empty if it could.
    """

    path: Path
    label: str = ""
    probability: float = 0.0
    problem: str = ""


def predictions(selection: Selection, paths: Iterable[Path], trial: int | None = None) -> Iterator[Prediction]:
    """Predict the class of each picture; one that cannot be read costs only itself.

    Args:
        selection: the run whose network predicts.
        paths: files, or folders, which are walked for pictures in order of name.
        trial: number of a trial of the front; `None` for the chosen one.

    Raises:
        RunError: the trial has no network.
    """
    for path in _files(paths):
        try:
            (row,) = selection.predict_proba([_opened(path)], trial)
        except DataError as error:
            yield Prediction(path=path, problem=str(error))
            continue
        code = int(row.argmax())
        yield Prediction(path=path, label=str(selection.classes[code]), probability=float(row[code]))


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            found = (file for file in path.rglob("*") if file.suffix.lower() in picture_suffixes() and file.is_file())
            yield from sorted(found)
        else:
            yield path


def _opened(path: Path) -> Image:
    try:
        picture = open_picture(path)
        picture.load()
    except UnidentifiedImageError as error:
        raise DataError("no picture of a format that is read here") from error
    except Exception as error:  # decoders meet broken bytes with any exception
        raise DataError(getattr(error, "strerror", None) or str(error)) from error
    return picture

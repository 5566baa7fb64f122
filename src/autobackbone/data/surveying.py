"""What a dataset holds and how it is split, before any picture is decoded."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pandas as pd

from autobackbone.data.arrays import from_arrays
from autobackbone.data.folders import from_folder
from autobackbone.data.parts import PART_CODES, Codes, Parts, Rare, encode_groups, split_parts
from autobackbone.data.pictures import quiet_pillow
from autobackbone.data.preparation import Preparation
from autobackbone.data.torch_datasets import from_dataset, is_map_style
from autobackbone.errors import DataError

if TYPE_CHECKING:
    from autobackbone.data.sources import Found, Source
    from autobackbone.records import ImageSize, Resize

_N_HEADERS = 16
_FORMS = (
    "a dataset is a folder with one sub-folder per class, a tuple (X, y) of pictures and labels, or a map-style torch "
    "dataset of (picture, label)"
)


class DataWarning(UserWarning):
    """Something in the data was left out, and the work goes on without it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Survey:
    """What a dataset holds; n pictures in a fixed order.

    Args:
        source: where the pictures come from.
        classes: in the order of their codes.
        names: n names, for a folder the paths in it.
        labels: (n,) int64 codes into `classes`; -1 for pictures of a class that was left out.
        parts: (n,) int8 codes of `PART_CODES`, or `LEFT_OUT`.
        skipped: one line for whatever was passed over or made.
        preparation: how pictures become pixels; its value range may still be open.
        picture_size_hint: median (height, width) of a few pictures, `None` where none could be read.
    """

    source: Source
    classes: tuple[str | int, ...]
    names: tuple[str, ...]
    labels: Codes
    parts: Parts
    skipped: tuple[str, ...]
    preparation: Preparation
    picture_size_hint: ImageSize | None = None

    def __post_init__(self) -> None:
        self.labels.setflags(write=False)
        self.parts.setflags(write=False)

    def counts(self) -> pd.DataFrame:
        """Count pictures: one row a class, the columns train, validation and test."""
        return count_pictures(self.labels, self.parts, self.classes)


def survey(
    dataset: Any,
    *,
    task: str | None = None,
    groups: Any = None,
    seed: int = 0,
    resize: Resize = "squash",
    interpolation: str = "bicubic",
    rare: Rare = "leave_out",
    value_range: tuple[float, float] | None = None,
    channels: tuple[int, ...] | None = None,
) -> Survey:
    """Read what a dataset holds and split it, without decoding pictures where that can be helped.

    A split that the dataset brings is kept; what is missing of it is made of the training part, stratified and seeded.

    Args:
        dataset: a folder with one sub-folder per class (with or without train, val and test above them); `(X, y)`; or
            a map-style torch dataset of (picture, label).
        task: `None` or `"classification"`.
        groups: one entry a picture, or a function of a picture's name; a group is kept in one part.
        seed: same seed, same split.
        resize: see `Preparation`.
        interpolation: see `Preparation`.
        rare: what to do with classes too rare for the split (fewer than 5 pictures, or too few groups).
        value_range: see `Preparation`; `None` measures it when decoding, where it is needed.
        channels: see `Preparation`.

    Returns:
        The survey.

    Raises:
        DataError: a dataset that cannot be used, saying why and what to do.

    Warns:
        DataWarning: classes were left out.

    Example:
        >>> from sklearn.datasets import load_digits
        >>> digits = load_digits()
        >>> survey((digits.images, digits.target)).counts().sum().to_dict()
        {'train': 1149, 'validation': 288, 'test': 360}
    """
    _check_choices(task, rare)
    preparation = Preparation(resize=resize, interpolation=interpolation, value_range=value_range, channels=channels)
    found = find(dataset, preparation.channels)
    _check_classes(found)
    names = found.source.names
    split = split_parts(found.labels, found.classes, given=found.given, groups=encode_groups(groups, names), seed=seed)
    notes = found.notes + split.notes
    if split.rare:
        notes += (_report_rare(found, split.rare, rare),)
    classes, labels = _without(found, split.rare)
    checked = Survey(
        source=found.source,
        classes=classes,
        names=names,
        labels=labels,
        parts=split.parts,
        skipped=notes,
        preparation=preparation,
        picture_size_hint=_size_hint(found.source, len(names)),
    )
    return replace(checked, skipped=notes + check_parts(checked.counts()))


def find(dataset: Any, channels: tuple[int, ...] | None) -> Found:
    """Find the pictures and labels of any accepted form of dataset."""
    if isinstance(dataset, (str, os.PathLike)):
        return from_folder(dataset)
    if isinstance(dataset, tuple) and len(dataset) == 2:
        return from_arrays(*dataset, channels)
    is_pictures_alone = isinstance(dataset, (np.ndarray, pd.DataFrame, dict, bytes)) or hasattr(dataset, "detach")
    if is_map_style(dataset) and not is_pictures_alone:
        return from_dataset(dataset)
    raise DataError(f"{_FORMS}; {type(dataset).__name__} came.")


def count_pictures(labels: Codes, parts: Parts, classes: tuple[str | int, ...]) -> pd.DataFrame:
    """Count pictures by class and part, left-out ones nowhere."""
    columns = {
        part: np.bincount(labels[(parts == code) & (labels >= 0)], minlength=len(classes))
        for part, code in PART_CODES.items()
    }
    return pd.DataFrame(columns, index=pd.Index(classes, name="class", dtype=object))


def check_parts(counts: pd.DataFrame) -> tuple[str, ...]:
    """Demand pictures of every class in the training part; note where one is missing in another part.

    Raises:
        DataError: a class without pictures to train on, or a part without any picture.
    """
    untrained = counts.index[counts["train"] == 0].tolist()
    if untrained:
        raise DataError(
            f"no picture to train on is left of the classes {untrained}: "
            f"{counts.loc[untrained].to_dict('index')}. Add pictures, remove those classes, or use smaller groups."
        )
    empty = [part for part in PART_CODES if counts[part].sum() == 0]
    if empty:
        raise DataError(f"no picture is left in the part {empty[0]}: {counts.sum().to_dict()}. Add pictures or groups.")
    absent = {part: counts.index[counts[part] == 0].tolist() for part in ("validation", "test")}
    return tuple(f"no pictures in {part} of the classes {names}" for part, names in absent.items() if names)


def _check_choices(task: str | None, rare: str) -> None:
    if task not in (None, "classification"):
        raise DataError(f"only task='classification' is available; task={task!r} came.")
    if rare not in get_args(Rare):
        raise DataError(f"rare is 'leave_out' or 'error'; {rare!r} came.")


def _check_classes(found: Found) -> None:
    if len(found.classes) < 2:
        which = f"only {found.classes[0]!r}" if found.classes else "none"
        raise DataError(
            f"at least two classes are needed to tell apart; {which} was found, with {len(found.labels)} pictures. "
            "For a folder, give the one that holds the class folders."
        )


def _report_rare(found: Found, rare: tuple[int, ...], choice: Rare) -> str:
    sizes = np.bincount(found.labels, minlength=len(found.classes))
    named = ", ".join(f"{found.classes[code]!r} ({sizes[code]})" for code in rare[:10])
    line = f"{len(rare)} classes too rare for the split: {named}{', …' if len(rare) > 10 else ''}"
    remedy = "A class needs 5 pictures, and with groups as many groups as parts."
    if choice == "error":
        raise DataError(f"{line}. {remedy} Add pictures, or leave them out with rare='leave_out'.")
    if len(found.classes) - len(rare) < 2:
        raise DataError(f"{line}; fewer than two classes would be left. {remedy}")
    warnings.warn(f"{line}, left out. {remedy}", DataWarning, stacklevel=3)
    return f"{line}, left out"


def _without(found: Found, rare: tuple[int, ...]) -> tuple[tuple[str | int, ...], Codes]:
    kept = [code for code in range(len(found.classes)) if code not in set(rare)]
    recode = np.full(len(found.classes), -1, np.int64)
    recode[kept] = np.arange(len(kept))
    return tuple(found.classes[code] for code in kept), recode[found.labels]


def _size_hint(source: Source, n: int) -> ImageSize | None:
    # A dataset without headers must decode a picture for its size: three will do.
    n_looks = min(n, _N_HEADERS if source.is_thread_safe else 3)
    sizes = []
    with quiet_pillow():
        for index in np.unique(np.linspace(0, n - 1, n_looks, dtype=np.int64)):
            try:
                sizes.append(source.picture_size(int(index)))
            except Exception:  # noqa: BLE001, S112  # a broken picture raises anything; decoding reports it
                continue
    if not sizes:
        return None
    height, width = np.median(sizes, axis=0)
    return int(height), int(width)

"""What a dataset holds and how it is split, before any picture is decoded."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import numpy as np
import pandas as pd

from autobackbone.data.chronology import encode_times, split_by_time
from autobackbone.data.finding import find
from autobackbone.data.parts import (
    LEAST_OF_CLASS,
    PART_CODES,
    TRAIN,
    Codes,
    Labels,
    Parts,
    Rare,
    Split,
    encode_groups,
    split_parts,
)
from autobackbone.data.pictures import quiet_pillow
from autobackbone.data.preparation import Preparation
from autobackbone.data.spooling import Spooling
from autobackbone.data.strata import strata_of
from autobackbone.errors import DataError
from autobackbone.records import counted

if TYPE_CHECKING:
    from autobackbone.data.sources import Found, Source
    from autobackbone.records import ImageSize, Part, Resize, Task

_Coded = TypeVar("_Coded")
_N_HEADERS = 16


class DataWarning(UserWarning):
    """Something in the data was left out, and the work goes on without it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Survey:
    """What a dataset holds; n pictures in a fixed order.

    Args:
        source: where the pictures come from.
        classes: names of classes, labels, or numbers to predict, in the order of codes or columns.
        names: n names, for a folder the paths in it.
        labels: (n,) int64 codes into `classes`, -1 for pictures of a class that was left out; (n, n_labels) int64 of 0
            and 1; or (n, n_targets) float64.
        parts: (n,) int8 codes of `PART_CODES`, or `LEFT_OUT`.
        skipped: one line for whatever was passed over or made.
        preparation: how pictures become pixels; its value range may still be open.
        picture_size_hint: median (height, width) of a few pictures, `None` where none could be read.
        task: what the labels are.
        made: the parts that were made out of the training part; the others were given, or follow times, and are kept.
        groups: (n,) int64 codes of the user's groups, each in one part; `None` without.
    """

    source: Source
    classes: tuple[str | int, ...]
    names: tuple[str, ...]
    labels: Labels
    parts: Parts
    skipped: tuple[str, ...]
    preparation: Preparation
    picture_size_hint: ImageSize | None = None
    task: Task = "classification"
    made: tuple[Part, ...] = ()
    groups: Codes | None = None

    def __post_init__(self) -> None:
        self.labels.setflags(write=False)
        self.parts.setflags(write=False)

    @property
    def strata(self) -> Codes:
        """(n,) int64: classes, or what stands for them."""
        return strata_of(self.labels, self.task)

    def counts(self) -> pd.DataFrame:
        """Count pictures: one row a class or label, or one for all; the columns train, validation and test."""
        return count_pictures(self.labels, self.parts, self.classes, self.task)

    def sizes(self) -> dict[Part, int]:
        """How many pictures each part has."""
        return part_sizes(self.parts)


def survey(
    dataset: Any,
    *,
    task: Task | None = None,
    label: str | Sequence[str] | None = None,
    groups: Any = None,
    times: Any = None,
    seed: int = 0,
    resize: Resize = "squash",
    interpolation: str = "bicubic",
    rare: Rare = "leave_out",
    value_range: tuple[float, float] | None = None,
    channels: tuple[int, ...] | None = None,
    spooling: Spooling | None = None,
) -> Survey:
    """Read what a dataset holds and split it, without decoding pictures where that can be helped.

    A split that the dataset brings is kept; what is missing of it is made of the training part, stratified and seeded.

    Args:
        dataset: a folder with one sub-folder per class (with or without train, val and test above them); a CSV file or
            data frame with paths and labels; `(X, y)`; a map-style torch dataset of (picture, label), such as
            torchvision's; a Hugging Face dataset; a `LightningDataModule`; tar shards, by a folder, a pattern or a
            list; an iterable of (picture, label), or a function that makes one, gone through once; or a dict of such,
            by part: `{"train": …, "val": …, "test": …}`.
        task: what the labels are; `None` to read it from them, see `as_labelled`.
        label: the columns of labels in a table or a Hugging Face dataset, or the entries in the JSON of shards; `None`
            for the one called `label`.
        groups: one entry a picture, a function of a picture's name, or the name of a table's column; a group is kept
            in one part. `None` for those of a table's column `group`.
        times: one entry a picture, a function of its name, or the name of a table's column: the last pictures score,
            the first are trained on. `None` for a random split.
        seed: same seed, same split.
        resize: see `Preparation`.
        interpolation: see `Preparation`.
        rare: what to do with classes too rare for the split (fewer than 5 pictures to make parts of, or too few
            groups), unless a given part has pictures of them, too: then they stay, and what is made has none of them.
        value_range: see `Preparation`; `None` measures it when decoding, where it is needed.
        channels: see `Preparation`.
        spooling: where pictures are put that come only once; `None` for the system's temporary folder.

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
    if rare not in get_args(Rare):
        raise DataError(f"rare is 'leave_out' or 'error'; {rare!r} came.")
    preparation = Preparation(resize=resize, interpolation=interpolation, value_range=value_range, channels=channels)
    found = find(dataset, preparation.channels, task=task, label=label, spooling=spooling)
    if found.task == "multilabel":
        found = _without_rare_labels(found, rare)
    _check_labels(found)
    names = found.source.names
    coded = _coded(encode_groups, found, "groups", found.groups if groups is None else groups)
    if times is None:
        split = split_parts(found.labels, found.task, given=found.given, groups=coded, seed=seed)
    else:
        _require_free_to_split(found, groups)
        split = split_by_time(_coded(encode_times, found, "times", times))
    notes = found.notes + split.notes
    if split.rare:
        notes += (_report_rare(found, split, coded, rare),)
    classes, labels = (found.classes, found.labels) if found.task != "classification" else _without(found, split.rare)
    checked = Survey(
        source=found.source,
        classes=classes,
        names=names,
        labels=labels,
        parts=split.parts,
        skipped=notes,
        preparation=preparation,
        picture_size_hint=_size_hint(found.source, len(names)),
        task=found.task,
        made=split.made,
        groups=coded,
    )
    return replace(checked, skipped=notes + check_parts(checked.counts(), checked.sizes()))


def _coded(encode: Callable[[Any, tuple[str, ...]], _Coded], found: Found, argument: str, given: Any) -> _Coded:
    """What `groups=` or `times=` says of each picture; a text names a column of a table."""
    if not isinstance(given, str):
        return encode(given, found.source.names)
    if found.column is None:
        raise DataError(f"{argument} has one entry a picture; the name of a column, {given!r}, is for tables alone.")
    cells = found.column(given)
    try:
        return encode(cells, found.source.names)
    except DataError as error:
        raise DataError(f"column {given!r}: {error}") from error


def _require_free_to_split(found: Found, groups: Any) -> None:
    """Nothing else may make the split where times do; columns of a table are named, since nobody has asked for them."""
    if found.given is not None:
        other = "a split of the dataset's own (of a table, its column 'split'; of a folder, train and its like)"
        remedy = "Leave times out, or remove that"
    elif groups is not None:
        other, remedy = "groups", "Leave one of them out"
    elif found.groups is not None:
        other = "the groups that the table's column 'group' holds"
        remedy = "Rename or remove that column, or leave times out to have groups kept together"
    else:
        return
    raise DataError(f"times makes the split, so it cannot go with {other}. {remedy}.")


def part_sizes(parts: Parts) -> dict[Part, int]:
    """How many pictures each part has, left-out ones nowhere."""
    return {part: int((parts == code).sum()) for part, code in PART_CODES.items()}


def count_pictures(
    labels: Labels, parts: Parts, classes: tuple[str | int, ...], task: Task = "classification"
) -> pd.DataFrame:
    """Count pictures by class or label (by nothing where numbers are predicted) and part, left-out ones nowhere."""
    if task == "regression":
        return pd.DataFrame([part_sizes(parts)], index=pd.Index(["pictures"], name="class", dtype=object))
    if task == "multilabel":
        sums = {part: labels[parts == code].sum(axis=0) for part, code in PART_CODES.items()}
        return pd.DataFrame(sums, index=pd.Index(classes, name="class", dtype=object))
    columns = {
        part: np.bincount(labels[(parts == code) & (labels >= 0)], minlength=len(classes))
        for part, code in PART_CODES.items()
    }
    return pd.DataFrame(columns, index=pd.Index(classes, name="class", dtype=object))


def check_parts(counts: pd.DataFrame, sizes: Mapping[Part, int]) -> tuple[str, ...]:
    """Demand pictures of every class in the training part; note where one is missing in another part.

    Args:
        counts: pictures by class and part.
        sizes: pictures by part.

    Raises:
        DataError: a class without pictures to train on, or a part without any picture.
    """
    untrained = counts.index[counts["train"] == 0].tolist()
    if untrained:
        raise DataError(
            f"no picture to train on is left of the classes {untrained}: "
            f"{counts.loc[untrained].to_dict('index')}. Add pictures, remove those classes, or use smaller groups."
        )
    empty = [part for part in PART_CODES if sizes[part] == 0]
    if empty:
        raise DataError(f"no picture is left in the part {empty[0]}: {dict(sizes)}. Add pictures or groups.")
    absent = {part: counts.index[counts[part] == 0].tolist() for part in ("validation", "test")}
    return tuple(f"no pictures in {part} of the classes {names}" for part, names in absent.items() if names)


def _check_labels(found: Found) -> None:
    if found.task == "classification" and len(found.classes) < 2:
        which = f"only {found.classes[0]!r}" if found.classes else "none"
        raise DataError(
            f"at least two classes are needed to tell apart; {which} was found, with {len(found.labels)} pictures. "
            "For a folder, give the one that holds the class folders."
        )
    if found.task == "regression":
        constant = [name for name, of in zip(found.classes, found.labels.T, strict=True) if of.min() == of.max()]
        if constant:
            raise DataError(f"numbers to predict must differ; all are the same in {', '.join(map(repr, constant))}.")


def _without_rare_labels(found: Found, choice: Rare) -> Found:
    """The same without labels that too few pictures have, or have not, to be in every part."""
    n_with = found.labels.sum(axis=0)
    is_rare = np.minimum(n_with, len(found.labels) - n_with) < LEAST_OF_CLASS
    if not is_rare.any():
        return found
    named = ", ".join(f"{found.classes[k]!r} ({n_with[k]})" for k in np.flatnonzero(is_rare)[:10])
    line = f"{int(is_rare.sum())} labels that too few of {len(found.labels)} pictures have or have not: {named}"
    remedy = f"A label needs {LEAST_OF_CLASS} pictures with it, and as many without."
    if choice == "error":
        raise DataError(f"{line}. {remedy} Add pictures, or leave them out with rare='leave_out'.")
    if is_rare.all():
        raise DataError(f"{line}; no label would be left. {remedy}")
    warnings.warn(f"{line}, left out. {remedy}", DataWarning, stacklevel=3)
    kept = np.flatnonzero(~is_rare)
    classes = tuple(found.classes[k] for k in kept)
    return replace(found, classes=classes, labels=found.labels[:, kept], notes=(*found.notes, f"{line}, left out"))


def _report_rare(found: Found, split: Split, groups: Codes | None, choice: Rare) -> str:
    rare = list(split.rare)
    named = ", ".join(_with_counts(found, rare[:10], groups, 1 + len(split.made))) + (", …" if len(rare) > 10 else "")
    line = f"{len(rare)} classes too rare for the split: {named}"
    needs = f"a class needs {LEAST_OF_CLASS} pictures, and with groups as many groups as parts"
    remedy = f"{needs[0].upper()}{needs[1:]}. Add pictures{'' if groups is None else ', or make groups smaller'}"
    if found.given is not None:
        made = " and ".join(sorted(split.made, reverse=True))
        remedy = f"What is missing ({made}) is made of those to train on, of which {needs}. Add some, or give it, too"
    if choice == "error":
        raise DataError(f"{line}. {remedy}, or leave these classes out with rare='leave_out'.")
    if len(found.classes) - len(rare) < 2:
        raise DataError(f"{line}; fewer than two classes would be left. {remedy}.")
    warnings.warn(f"{line}, left out. {remedy}.", DataWarning, stacklevel=3)
    return f"{line}, left out"


def _with_counts(found: Found, codes: list[int], groups: Codes | None, n_parts: int) -> list[str]:
    """Classes and their pictures; where a split was given, how many of these it has to train on; where there are
    pictures enough, how few groups they lie in.

    Args:
        found: the dataset.
        codes: of classes.
        groups: (n,) int64 codes, or `None`.
        n_parts: that each class has to have pictures in, and so groups.
    """
    return [f"{found.classes[code]!r} ({_count(found, found.labels == code, groups, n_parts)})" for code in codes]


def _count(found: Found, is_of_class: np.ndarray[Any, np.dtype[np.bool_]], groups: Codes | None, n_parts: int) -> str:
    is_dealt = is_of_class if found.given is None else is_of_class & (found.given == TRAIN)
    n, n_dealt = int(is_of_class.sum()), int(is_dealt.sum())
    count = f"{n}" if found.given is None else f"{n_dealt} to train on, {n - n_dealt} in given parts"
    if groups is None or n_dealt < LEAST_OF_CLASS:
        return count
    return f"{count}, in {counted(len(np.unique(groups[is_dealt])), 'group')} for {n_parts} parts"


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
                size = source.picture_size(int(index))
            except Exception:  # noqa: BLE001, S112  # a broken picture raises anything; decoding reports it
                continue
            if len(size) == 2 and 0 not in size:  # an array in place of a picture has any shape
                sizes.append(size)
    if not sizes:
        return None
    height, width = np.median(sizes, axis=0)
    return int(height), int(width)

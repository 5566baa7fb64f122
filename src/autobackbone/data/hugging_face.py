"""Datasets of the Hugging Face library, known by their type, so that it need not be imported."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from autobackbone.data.contents import fingerprint_of, size_of
from autobackbone.data.labelling import LabelColumn, labelled
from autobackbone.data.labels import Labelled, as_labelled
from autobackbone.data.pictures import open_content, read_content
from autobackbone.data.sources import UNREADABLE, Fingerprint, Found, digest_picture
from autobackbone.data.spooling import Spooling, each, notes_on, spool
from autobackbone.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

    from autobackbone.records import ImageSize, Task

_FORM = "a Hugging Face dataset has a column of pictures (datasets.Image) and one of labels, such as ClassLabel"
_USUAL = ("label", "labels")
_PICTURE = "image"


@dataclass(frozen=True, slots=True, kw_only=True)
class HuggingFaceSource:
    """Pictures of one column, read encoded as they are stored; named by their row.

    Args:
        rows: the dataset with this column alone, undecoded.
        column: its name.
        feature: the type of the column, a `datasets.Image`.
        names: n names.
    """

    rows: Any = field(repr=False)
    column: str
    feature: Any = field(repr=False)
    names: tuple[str, ...] = field(repr=False)

    @property
    def is_thread_safe(self) -> bool:
        """Say yes: Arrow tables do not change, and each reading makes its own copy."""
        return True

    def read(self, index: int) -> Image.Image:
        """Open the picture."""
        cell = self.rows[index][self.column]
        content = content_of(cell)
        if content is None:  # behind an address, or within an archive
            remote: Image.Image = self.feature.decode_example(cell)
            return remote
        return _in_mode(open_content(content), self.feature)

    def fingerprint(self, index: int) -> Fingerprint:
        """Digest the encoded bytes."""
        try:
            content = content_of(self.rows[index][self.column])
            if content is None:
                return Fingerprint(digest=digest_picture(self.read(index)), is_deep=False)
        except Exception:  # noqa: BLE001  # decoding meets it again and reports it
            return UNREADABLE
        found = fingerprint_of(content)
        if self.feature.mode is None:
            return found
        return Fingerprint(digest=hashlib.sha256(found.digest + self.feature.mode.encode()).digest(), is_deep=False)

    def picture_size(self, index: int) -> ImageSize:
        """Read the header."""
        content = content_of(self.rows[index][self.column])
        if content is not None:
            return size_of(content)
        image = self.read(index)
        return image.height, image.width


def kind_of(dataset: Any) -> str | None:
    """Give the name of the library's class that a dataset is of, `Dataset` or `IterableDataset`; `None` for others."""
    for base in type(dataset).__mro__:
        if base.__module__.startswith("datasets.") and base.__name__ in ("Dataset", "IterableDataset"):
            return base.__name__
    return None


def from_hugging_face(dataset: Any, label: str | Sequence[str] | None = None, task: Task | None = None) -> Found:
    """Take a `datasets.Dataset` with a column of pictures.

    Pictures are read as they are stored: a transform that was set on the dataset is not applied. Of several columns of
    pictures the one called `image` is taken.

    Args:
        dataset: of the library.
        label: the columns of labels; `None` for the only one of classes, or else the one called `label` or `labels`.
            A list of classes is a multilabel task, real numbers are a regression.
        task: what the labels are; `None` to read it from the columns' types.

    Raises:
        DataError: columns are missing or cannot be told apart, or labels are not of the task.
    """
    import datasets

    if len(dataset) == 0:
        raise DataError(f"{_FORM}; an empty one came.")
    picture, columns = columns_of(dataset.features, label)
    feature, plain = dataset.features[picture], dataset.with_format(None)
    read = _labels([_cells(plain, column.name) for column in columns], columns, task)
    encoded = plain.select_columns([picture]).cast_column(picture, datasets.Image(decode=False))
    names = tuple(map(str, range(len(dataset))))
    is_transformed = dataset.format["type"] == "custom"
    return Found(
        source=HuggingFaceSource(rows=encoded, column=picture, feature=feature, names=names),
        classes=read.classes,
        labels=read.labels,
        task=read.task,
        notes=("pictures are taken as they are stored: the transform set on the dataset is not applied",)
        if is_transformed
        else (),
        column=partial(_cells, plain),
    )


def from_stream(
    dataset: Any, spooling: Spooling, label: str | Sequence[str] | None = None, task: Task | None = None
) -> Found:
    """Take a `datasets.IterableDataset`, row after row, encoded where it has it so.

    Args:
        dataset: of the library, that knows its columns.
        spooling: where pictures are put.
        label: see `from_hugging_face`.
        task: see `from_hugging_face`.

    Raises:
        DataError: columns are missing or cannot be told apart, labels are not of the task, or reading fails.
    """
    import datasets

    picture, columns = columns_of(dataset.features, label)
    feature, names = dataset.features[picture], [column.name for column in columns]
    rows = dataset.with_format(None).select_columns([picture, *names])
    rows = rows.cast_column(picture, datasets.Image(decode=False))
    pairs = ((_streamed(row[picture], feature), [row[name] for name in names]) for row in rows)
    spooled = spool(each(pairs, "the dataset"), spooling, "the dataset")
    read = _labels([list(cells) for cells in zip(*spooled.labels, strict=True)], columns, task)
    return Found(
        source=spooled.source,
        classes=read.classes,
        labels=read.labels,
        task=read.task,
        notes=notes_on(spooled, spooling),
    )


def columns_of(features: Any, label: str | Sequence[str] | None) -> tuple[str, tuple[LabelColumn, ...]]:
    """Choose the column of pictures and those of labels.

    Args:
        features: types of columns by name, as a dataset of the library has them.
        label: the columns of labels; `None` to choose.

    Raises:
        DataError: there are none, or several.
    """
    import datasets

    if features is None:
        raise DataError(f"{_FORM}; this one does not know its columns. Tell it: dataset.cast(datasets.Features(…)).")
    pictures = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
    if not pictures:
        raise DataError(
            f"{_FORM}; its columns are {_listed(features)}. Paths become pictures by "
            "dataset.cast_column('image', datasets.Image())."
        )
    if len(pictures) > 1 and _PICTURE not in pictures:
        raise DataError(
            f"{_FORM}; {', '.join(map(repr, pictures))} are pictures. Leave others out with remove_columns, or call "
            f"one {_PICTURE!r}."
        )
    picture = pictures[0] if len(pictures) == 1 else _PICTURE
    others = {name: _described(name, feature) for name, feature in features.items() if name not in pictures}
    if label is None:
        return picture, (_usual(others, features),)
    wanted = [label] if isinstance(label, str) else list(label)
    absent = [name for name in wanted if name not in others]
    if absent or not wanted:
        raise DataError(f"label= names columns of labels; {absent} came, and there are {_listed(features)}.")
    return picture, tuple(others[name] for name in wanted)


def content_of(cell: Any) -> bytes | None:
    """The bytes of an undecoded cell; `None` where they lie elsewhere than on the disk.

    Raises:
        DataError: the cell is empty.
        OSError: the file that it names cannot be read.
    """
    if cell is None or (cell["bytes"] is None and cell["path"] is None):
        raise DataError("this row has no picture.")
    if cell["bytes"] is not None:
        content: bytes = cell["bytes"]
        return content
    return None if "://" in cell["path"] else read_content(Path(cell["path"]))


def _streamed(cell: Any, feature: Any) -> bytes | Image.Image | Exception:
    """The bytes of a cell, or what the library makes of one that lies elsewhere; what was raised where it cannot be
    read.
    """
    try:
        content = content_of(cell)
        if content is not None and feature.mode is None:
            return content
        image: Image.Image = feature.decode_example(cell) if content is None else open_content(content)
        return _in_mode(image, feature)
    except Exception as error:  # noqa: BLE001  # an address or a broken picture raises anything; decoding reports it
        return error


def _usual(others: dict[str, LabelColumn], features: Any) -> LabelColumn:
    named = [column for column in others.values() if column.classes is not None]
    usual = [column for column in (named or others.values()) if column.name in _USUAL]
    chosen = named if len(named) == 1 else usual
    if len(chosen) == 1:
        return chosen[0]
    what = f"{', '.join(repr(column.name) for column in named)} are all classes" if named else "none has classes"
    raise DataError(f"{_FORM}; of {_listed(features)}, {what}. Say which: label='…'.")


def _described(name: str, feature: Any) -> LabelColumn:
    inner = getattr(feature, "feature", None)
    of = feature if inner is None else inner
    names, dtype = getattr(of, "names", None), str(getattr(of, "dtype", ""))
    return LabelColumn(
        name=name,
        classes=None if names is None else tuple(map(str, names)),
        is_list=inner is not None,
        is_real=dtype.startswith("float"),
    )


def _labels(cells: list[list[Any]], columns: tuple[LabelColumn, ...], task: Task | None) -> Labelled:
    """Read the cells of columns, a list for each."""
    if len(columns) == 1:
        return labelled(cells[0], columns[0], task)
    names = [column.name for column in columns]
    try:
        return as_labelled(pd.DataFrame(dict(zip(names, cells, strict=True))), task)
    except DataError as error:
        raise DataError(f"columns {', '.join(map(repr, names))}: {error}") from error


def _cells(dataset: Any, name: str) -> list[Any]:
    if name not in dataset.column_names:
        raise DataError(
            f"the dataset has no column {name!r}; it has {', '.join(map(repr, dataset.column_names[:20]))}."
        )
    return list(dataset.select_columns([name])[:][name])


def _listed(features: Any) -> str:
    return ", ".join(f"{name!r} ({type(feature).__name__})" for name, feature in list(features.items())[:20])


def _in_mode(image: Image.Image, feature: Any) -> Image.Image:
    return image if feature.mode is None or image.mode == feature.mode else image.convert(feature.mode)

"""Tar shards: `key.jpg` beside `key.cls` or `key.json`, as the WebDataset library lays them out.

An archive is read where it lies: nothing of it is ever written to the disk, so that its members' names lead nowhere.

Source: https://github.com/webdataset/webdataset, the file format.
"""

from __future__ import annotations

import glob
import json
import os
import re
import tarfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from autobackbone.data.contents import fingerprint_of, size_of
from autobackbone.data.folders import PART_NAMES
from autobackbone.data.labelling import LabelColumn, labelled
from autobackbone.data.labels import Labelled, as_labelled
from autobackbone.data.parts import TRAIN
from autobackbone.data.pictures import open_content, picture_suffixes
from autobackbone.data.sources import UNREADABLE, Fingerprint, Found, natural_key, printable
from autobackbone.errors import DataError
from autobackbone.records import counted

if TYPE_CHECKING:
    from PIL import Image

    from autobackbone.records import ImageSize, Task

_FORM = (
    "tar shards hold pictures key.jpg (or any other kind) with their labels in key.cls, or key.json with 'label' or "
    "what label= names"
)
_SUFFIX, _PACKED = ".tar", (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_BLOCK = 512
_MAX_LABEL_BYTES = 1_000_000
_LABEL = "label"
_GLOB = re.compile(r"[*?\[]")
_RANGE = re.compile(r"\{(\d{1,9})\.\.(\d{1,9})\}")
_PART_WORD = re.compile(r"(?:^|[^a-z])(train|validation|valid|val|test)(?=[^a-z]|$)")


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardSource:
    """Pictures within tar archives, read by where their bytes lie.

    Args:
        shards: paths of archives.
        names: n names: of the archive's file, `/`, and of the member.
        which: (n,) int64 numbers of archives.
        starts: (n,) int64: the first byte.
        sizes: (n,) int64: how many bytes.
    """

    shards: tuple[Path, ...]
    names: tuple[str, ...] = field(repr=False)
    which: np.ndarray[Any, np.dtype[np.int64]] = field(repr=False)
    starts: np.ndarray[Any, np.dtype[np.int64]] = field(repr=False)
    sizes: np.ndarray[Any, np.dtype[np.int64]] = field(repr=False)

    @property
    def is_thread_safe(self) -> bool:
        """Say yes: each reading opens its own file."""
        return True

    def read(self, index: int) -> Image.Image:
        """Open the picture."""
        return open_content(self._content(index))

    def fingerprint(self, index: int) -> Fingerprint:
        """Digest the picture's bytes."""
        try:
            return fingerprint_of(self._content(index))
        except (OSError, DataError, MemoryError):
            return UNREADABLE

    def picture_size(self, index: int) -> ImageSize:
        """Read the picture's header."""
        return size_of(self._content(index))

    def _content(self, index: int) -> bytes:
        shard, size = self.shards[int(self.which[index])], int(self.sizes[index])
        with shard.open("rb") as file:
            file.seek(int(self.starts[index]))
            content = file.read(size)
        if len(content) < size:
            raise DataError(f"the archive '{printable(str(shard))}' has become shorter.")
        return content


@dataclass(frozen=True, slots=True, kw_only=True)
class _Member:
    name: str
    start: int
    size: int


def is_shards(dataset: Any) -> bool:
    """Whether a dataset is an archive, a pattern or a list of such, or a folder that has archives and no folders."""
    if isinstance(dataset, (list, tuple)):
        return bool(dataset) and all(_is_path(path) and _has_suffix(os.fspath(path)) for path in dataset)
    if not _is_path(dataset):
        return False
    text = os.path.expanduser(os.fspath(dataset))  # noqa: PTH111  a pattern is no path
    if os.path.isdir(text):  # noqa: PTH112  says no where Path raises
        return _is_folder_of_shards(Path(text))
    return _has_suffix(text)


def from_shards(dataset: Any, label: str | Sequence[str] | None = None, task: Task | None = None) -> Found:
    """Take tar shards; each archive is gone through once, for the places of its pictures and for its labels.

    Args:
        dataset: an archive `.tar`; a pattern such as `"data/part-*.tar"` or `"data/part-{000..131}.tar"`; a list of
            archives; or a folder of them, with or without `train/`, `val/`, `test/` between. Where each archive's name
            says train, val or test, and some say train, that is a given split.
        label: the entries of `key.json` that are labels; `None` for `key.cls`, or else the one called `label`.
        task: what the labels are; `None` to read it from them.

    Raises:
        DataError: no archive, one that is damaged or packed, pictures without labels, or labels not of the task.
    """
    shards = _shards(dataset)
    names: list[str] = []
    labels: list[Any] = []
    places: list[tuple[int, int, int]] = []
    n_passed = 0
    folder = Path(os.path.commonpath([str(shard.parent) for shard in shards]))
    for number, shard in enumerate(shards):
        within = shard.relative_to(folder).as_posix()
        with shard.open("rb") as file:
            samples, passed = _samples(shard)
            n_passed += passed
            for key, members in samples.items():
                picture = _picture(shard, key, members)
                if picture is None:
                    continue
                names.append(f"{within}/{picture.name}")
                labels.append(_label(file, shard, key, members, label))
                places.append((number, picture.start, picture.size))
    if not names:
        raise DataError(f"{_FORM}; no picture is in {counted(len(shards), 'archive')}, such as '{_shown(shards[0])}'.")
    read = _labelled(labels, label, task)
    which, starts, sizes = np.array(places, np.int64).T
    given = _given(shards, folder)
    return Found(
        source=ShardSource(shards=shards, names=tuple(names), which=which, starts=starts, sizes=sizes),
        classes=read.classes,
        labels=read.labels,
        task=read.task,
        given=None if given is None else given[which],
        notes=_notes(n_passed, given is not None),
    )


def _is_path(path: Any) -> bool:
    return isinstance(path, (str, os.PathLike)) and isinstance(os.fspath(path), str)


def _has_suffix(text: str) -> bool:
    return text.lower().endswith((_SUFFIX, *_PACKED))


def _is_folder_of_shards(folder: Path) -> bool:
    """Archives in it, or in folders that are called as parts are."""
    try:
        entries = [path for path in folder.iterdir() if not path.name.startswith(".")]
        folders = [path for path in entries if path.is_dir()]
        if not folders:
            return any(_has_suffix(path.name) for path in entries)
        are_parts = all(path.name.lower() in PART_NAMES for path in folders)
        return are_parts and all(_is_folder_of_shards(path) for path in folders if path.name.lower() in PART_NAMES)
    except OSError:
        return False  # the folder's own source says why


def _shards(dataset: Any) -> tuple[Path, ...]:
    given = dataset if isinstance(dataset, (list, tuple)) else [dataset]
    texts = [os.path.expanduser(os.fspath(path)) for path in given]  # noqa: PTH111
    found: list[Path] = []
    for path in (Path(path).absolute() for text in texts for path in _spelled_out(text)):
        if path.name.lower().endswith(_PACKED):
            raise DataError(
                f"'{_shown(path)}' is packed, so that no picture can be reached in it. Unpack it to a .tar."
            )
        if not os.path.isfile(path):  # noqa: PTH113  says no where Path raises
            raise DataError(f"a tar shard is a file; nothing is at '{_shown(path)}'.")
        found.append(path)
    if not found:
        raise DataError(f"no file matches {', '.join(map(repr, texts))}: give a pattern such as 'data/part-*.tar'.")
    return tuple(dict.fromkeys(found))


def _spelled_out(text: str) -> Iterator[str]:
    """The archives of a folder, a pattern, or a path; in natural order, one by one: a range may be long."""
    if os.path.isdir(text):  # noqa: PTH112
        found = [path for path in Path(text).rglob("*") if path.is_file() and _has_suffix(path.name)]
        yield from sorted((str(path) for path in found if not path.name.startswith(".")), key=natural_key)
    elif numbers := _RANGE.search(text):
        first, last = numbers.groups()
        before, after = text[: numbers.start()], text[numbers.end() :]
        for number in range(int(first), int(last) + 1):
            yield from _spelled_out(f"{before}{number:0{len(first)}d}{after}")
    elif _GLOB.search(text) and not os.path.exists(text):  # noqa: PTH110
        yield from sorted(glob.glob(text, recursive=True), key=natural_key)  # noqa: PTH207  it may have a root of its own
    else:
        yield text


def _samples(shard: Path) -> tuple[dict[str, list[_Member]], int]:
    """The members of each key, and how many were passed over: links, devices, what has no key."""
    samples: dict[str, list[_Member]] = defaultdict(list)
    n_passed = 0
    for member in _members(shard):
        folder, slash, name = member.name.rpartition("/")
        key, dot, _ = name.partition(".")
        # A link may lead anywhere; a sparse file's bytes do not lie together.
        if not member.isreg() or member.issparse() or not key or not dot:
            n_passed += not member.isdir()
            continue
        place = _Member(name=member.name, start=member.offset_data, size=member.size)
        samples[f"{folder}{slash}{key}"].append(place)
    return samples, n_passed


def _members(shard: Path) -> Iterator[tarfile.TarInfo]:
    """All members of an archive that is whole.

    Raises:
        DataError: it is none, is cut off, or cannot be read.
    """
    try:
        n_bytes, end = shard.stat().st_size, 0
        with tarfile.open(shard, "r:") as archive:
            for member in archive:
                end = member.offset_data + -(-member.size // _BLOCK) * _BLOCK if member.isreg() else member.offset_data
                if member.offset_data + member.size > n_bytes and member.isreg():
                    raise _cut_off(shard)
                yield member
        # Python reads an archive that ends between two members as a whole one.
        with shard.open("rb") as file:
            file.seek(end)
            if len(file.read(_BLOCK)) < _BLOCK:
                raise _cut_off(shard)
    except EOFError as error:
        raise _cut_off(shard) from error
    except (tarfile.TarError, OSError) as error:
        if "unexpected end of data" in str(error):
            raise _cut_off(shard) from error
        raise DataError(f"'{_shown(shard)}' cannot be read as a tar archive: {error}.") from error


def _cut_off(shard: Path) -> DataError:
    return DataError(f"the archive '{_shown(shard)}' is cut off before its end. Fetch or write it again.")


def _picture(shard: Path, key: str, members: list[_Member]) -> _Member | None:
    pictures = [member for member in members if os.path.splitext(member.name)[1].lower() in picture_suffixes()]  # noqa: PTH122
    if len(pictures) > 1:
        named = ", ".join(printable(member.name) for member in pictures[:3])
        raise DataError(f"{_FORM}; '{_shown(shard)}' has several for '{printable(key)}': {named}.")
    return pictures[0] if pictures else None


def _label(file: Any, shard: Path, key: str, members: list[_Member], label: str | Sequence[str] | None) -> Any:
    """What the label's file of one picture says: a text, or what JSON holds; a list where several are asked for."""
    by_kind = {member.name.rpartition(".")[2].lower(): member for member in members}
    kind = "json" if label is not None or "cls" not in by_kind else "cls"
    if kind not in by_kind:
        raise DataError(f"{_FORM}; '{_shown(shard)}' has none for '{printable(key)}'.")
    text = _text(file, shard, by_kind[kind])
    if kind == "cls":
        return text.strip()
    try:
        entries = json.loads(text)
        return (
            entries[label or _LABEL] if label is None or isinstance(label, str) else [entries[name] for name in label]
        )
    except (ValueError, RecursionError) as error:
        raise DataError(f"'{_shown(shard)}': {printable(by_kind[kind].name)} is no JSON: {error}.") from error
    except (KeyError, TypeError) as error:
        there = f"{', '.join(map(repr, list(entries)[:20]))}" if isinstance(entries, dict) else type(entries).__name__
        raise DataError(
            f"{_FORM}; '{_shown(shard)}': {printable(by_kind[kind].name)} has {printable(there)}. Say which: label='…'."
        ) from error


def _text(file: Any, shard: Path, member: _Member) -> str:
    if member.size > _MAX_LABEL_BYTES:
        raise DataError(
            f"'{_shown(shard)}': {printable(member.name)} takes {member.size:,} bytes, too many for a label."
        )
    file.seek(member.start)
    try:
        text: str = file.read(member.size).decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"'{_shown(shard)}': {printable(member.name)} is no text in UTF-8.") from error
    return text


def _labelled(labels: list[Any], label: str | Sequence[str] | None, task: Task | None) -> Labelled:
    if label is not None and not isinstance(label, str):
        return as_labelled(pd.DataFrame(labels, columns=list(label)), task)
    values = [_stripped(value) for value in labels]
    return labelled(_as_numbers(values), LabelColumn(name=label or _LABEL), task)


def _stripped(value: Any) -> Any:
    return (value.strip() or None) if isinstance(value, str) else value


def _as_numbers(values: list[Any]) -> list[Any]:
    """Numbers, where every text is one: a file `.cls` has texts alone."""
    for number in (int, float):
        try:
            return [_number(number, value) if isinstance(value, str) else value for value in values]
        except ValueError:
            continue
    return values


def _number(kind: type[int | float], text: str) -> int | float:
    if "_" in text:  # Python reads 1_0 as 10
        raise ValueError(text)
    return kind(text)


def _given(shards: tuple[Path, ...], folder: Path) -> np.ndarray[Any, np.dtype[np.int8]] | None:
    """The part of each archive, where each one's path says it and some are to train on."""
    words = [set(_PART_WORD.findall(shard.relative_to(folder).as_posix().lower())) for shard in shards]
    codes = [{PART_NAMES[word] for word in of} for of in words]
    if not all(len(of) == 1 for of in codes) or {TRAIN} not in codes or len({*map(frozenset, codes)}) < 2:
        return None
    return np.array([of.pop() for of in codes], np.int8)


def _notes(n_passed: int, is_split: bool) -> tuple[str, ...]:  # noqa: FBT001
    notes = []
    if n_passed:
        notes.append(f"{counted(n_passed, 'member')} of archives are links or have no key and kind: not used")
    if is_split:
        notes.append("the names of archives say which part they are: that split is kept")
    return tuple(notes)


def _shown(path: Path) -> str:
    return printable(str(path))

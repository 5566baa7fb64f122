"""Pictures that come one after the other, and only once: put on the disk as they come, to be read in any order."""

from __future__ import annotations

import io
import json
import os
import struct
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from autobackbone.data.classes import plain
from autobackbone.data.contents import fingerprint_of, size_of
from autobackbone.data.joining import PartSource
from autobackbone.data.labels import as_labelled
from autobackbone.data.pictures import is_deep, open_content, quiet_pillow, read_content, upright
from autobackbone.data.sources import UNREADABLE, Fingerprint, Found, digest_picture
from autobackbone.data.store import free_bytes
from autobackbone.data.torch_datasets import as_picture, named
from autobackbone.errors import DataError
from autobackbone.runfolder import full_disk_told
from autobackbone.scratch import scratch_folder

if TYPE_CHECKING:
    from autobackbone.data.sources import Source
    from autobackbone.records import ImageSize, Task

_FORM = (
    "an iterable gives pairs (picture, label), the picture a path, the bytes of a file, a Pillow image, an array "
    "(H, W, C) or a tensor (C, H, W)"
)
_FILE, _ARRAY, _PIXELS = 0, 1, 2
"""How a picture is kept: a file's bytes, NumPy's own format, or the pixels of a Pillow image behind its form."""

_AS_PNG = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
"""Modes that PNG keeps bit for bit."""

_DIGEST_BYTES = 32
# What the disk must have left: the decoded pictures come after these, and then the run.
_LEAST_FREE_SHARE, _LEAST_FREE_BYTES = 0.05, 200_000_000
_TELLING_S = 0.2
_HEADER = struct.Struct(">I")


@dataclass(frozen=True, slots=True, kw_only=True)
class Spooling:
    """Where pictures are put, and how many.

    Args:
        folder: of the disk that takes them; `None` for the system's temporary one.
        seconds: after which no more are taken; `None` for no limit.
        n_most: how many are taken at most; `None` for all.
        on_progress: called with the number of pictures so far, now and then.
    """

    folder: Path | None = None
    seconds: float | None = None
    n_most: int | None = None
    on_progress: Callable[[int], None] | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SpooledSource:
    """Pictures that were put on the disk, in one file; named by their place.

    Args:
        file: that holds them, one after the other.
        ends: (n,) int64: where each one ends.
        kinds: (n,) uint8: how each is kept.
        digests: (n, 32) uint8, of the pictures as they came.
        are_deep: (n,) bool: which are above 8 bits.
        keeper: keeps the file as long as this is used.
    """

    file: Path
    ends: np.ndarray[Any, np.dtype[np.int64]] = field(repr=False)
    kinds: np.ndarray[Any, np.dtype[np.uint8]] = field(repr=False)
    digests: np.ndarray[Any, np.dtype[np.uint8]] = field(repr=False)
    are_deep: np.ndarray[Any, np.dtype[np.bool_]] = field(repr=False)
    keeper: _Keeper = field(repr=False)

    @property
    def names(self) -> tuple[str, ...]:
        """Give the places."""
        return tuple(map(str, range(len(self.ends))))

    @property
    def is_thread_safe(self) -> bool:
        """Say yes: each reading opens the file anew."""
        return True

    def read(self, index: int) -> Image.Image | np.ndarray[Any, Any]:
        """Give the picture, of the kind that it came as."""
        content = self._content(index)
        if self.kinds[index] == _ARRAY:
            array: np.ndarray[Any, Any] = np.load(io.BytesIO(content), allow_pickle=False)
            return array
        return _image_of(content) if self.kinds[index] == _PIXELS else open_content(content)

    def fingerprint(self, index: int) -> Fingerprint:
        """Give what was digested as the picture came."""
        return Fingerprint(digest=self.digests[index].tobytes(), is_deep=bool(self.are_deep[index]))

    def picture_size(self, index: int) -> ImageSize:
        """Read the header of a file; other kinds are read."""
        if self.kinds[index] == _FILE:
            return size_of(self._content(index))
        picture = self.read(index)
        return (picture.height, picture.width) if isinstance(picture, Image.Image) else picture.shape[:2]

    def _content(self, index: int) -> bytes:
        begin = int(self.ends[index - 1]) if index else 0
        with self.file.open("rb") as file:
            file.seek(begin)
            return file.read(int(self.ends[index]) - begin)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spooled:
    """What came.

    Args:
        source: the pictures.
        labels: one a picture.
        is_cut: whether more would have come.
    """

    source: Source
    labels: list[Any]
    is_cut: bool


def is_iterable(dataset: Any) -> bool:
    """Whether a dataset can only be gone through: an iterator, an `IterableDataset`, or a function that makes one."""
    is_one = isinstance(dataset, Iterable) and not isinstance(dataset, (str, bytes, np.ndarray, set, frozenset))
    return is_one or (callable(dataset) and not isinstance(dataset, type))


def is_only_iterable(dataset: Any) -> bool:
    """Whether it is one of torch's `IterableDataset`, whose items have no numbers, though they seem to have."""
    return any(
        base.__name__ == "IterableDataset" and base.__module__ == "torch.utils.data.dataset"
        for base in type(dataset).__mro__
    )


def from_iterable(dataset: Any, spooling: Spooling, task: Task | None = None) -> Found:
    """Take pairs (picture, label) as they come, once.

    Args:
        dataset: an iterable, or a function that takes nothing and gives one. Its `classes`, if it has any, name the
            labels 0, 1, ….
        spooling: where they are put.
        task: what the labels are; `None` to read it from them.

    Raises:
        DataError: items of another form, none at all, labels that are not of the task, or too small a disk; whatever
            the iterable raises is told with the number of the item.
    """
    name = getattr(dataset, "__name__", type(dataset).__name__)
    spooled = spool(_pairs(dataset, name), spooling, name)
    read = as_labelled(spooled.labels, task)
    classes = named(read.classes, dataset) if read.task != "regression" else read.classes
    return Found(
        source=spooled.source, classes=classes, labels=read.labels, task=read.task, notes=notes_on(spooled, spooling)
    )


def spool(pairs: Iterator[tuple[Any, Any]], spooling: Spooling, name: str) -> Spooled:
    """Put pictures on the disk as they come, and keep their labels.

    The file lies in a folder of its own, which is removed when the source is no longer used, or, if the process is
    killed, when the next one comes.

    Args:
        pairs: of a picture and its label.
        spooling: where, and how many.
        name: of what gives them, for errors.

    Raises:
        DataError: no pair comes, a picture is none, or the disk is too small.
    """
    keeper = _Keeper(spooling.folder)
    path = keeper.folder / "pictures"
    ends: list[int] = []
    kinds, digests, deep, labels = bytearray(), bytearray(), bytearray(), []
    begun = told = time.monotonic()
    is_cut = False
    with _told_of_disk(), quiet_pillow(), path.open("wb") as file:
        for picture, label in pairs:
            is_late = spooling.seconds is not None and time.monotonic() - begun > spooling.seconds
            if is_late or len(ends) == spooling.n_most:
                is_cut = True
                break
            content, kind, found = _kept(picture, len(ends), name)
            file.write(content)
            ends.append((ends[-1] if ends else 0) + len(content))
            kinds.append(kind)
            digests += found.digest
            deep.append(found.is_deep)
            labels.append(plain(label))
            if time.monotonic() - told > _TELLING_S:
                told = time.monotonic()
                _check_disk(file, keeper.folder)
                if spooling.on_progress is not None:
                    spooling.on_progress(len(ends))
    if not ends:
        raise DataError(
            f"{_FORM}; {name} gave none. What can be gone through only once is empty afterwards: give a function that "
            "makes it anew."
        )
    source: Source = SpooledSource(
        file=path,
        ends=np.array(ends, np.int64),
        kinds=np.frombuffer(bytes(kinds), np.uint8),
        digests=np.frombuffer(bytes(digests), np.uint8).reshape(-1, _DIGEST_BYTES),
        are_deep=np.frombuffer(bytes(deep), np.uint8).astype(np.bool_),
        keeper=keeper,
    )
    if is_cut:
        source = PartSource(whole=source, indices=np.arange(len(ends), dtype=np.int64))
    return Spooled(source=source, labels=labels, is_cut=is_cut)


def notes_on(spooled: Spooled, spooling: Spooling) -> tuple[str, ...]:
    """Tell that not all was taken."""
    if not spooled.is_cut:
        return ()
    n = len(spooled.labels)
    if spooling.n_most is not None:
        return (f"the first {n:,} pictures are used, as when the run began",)
    why = f"since more would not have come within {spooling.seconds:,.0f} s; classes that come later are missing"
    return (f"the first {n:,} pictures are used, {why}. Give more time to use all",)


def n_streamed(source: Source) -> int | None:
    """How many pictures were taken from an iterable that would have given more; `None` where all were taken."""
    within = source
    while isinstance(within, PartSource):
        if isinstance(within.whole, SpooledSource) and len(within.indices) == len(within.whole.ends):
            return len(within.indices)
        within = within.whole
    return None


def _pairs(dataset: Any, name: str) -> Iterator[tuple[Any, Any]]:
    try:
        iterator = iter(dataset() if callable(dataset) and not isinstance(dataset, Iterable) else dataset)
    except Exception as error:
        raise DataError(f"{_FORM}; {name} raised {error!r}.") from error
    for index, item in enumerate(each(iterator, name)):
        if not isinstance(item, (tuple, list)) or len(item) != 2:
            what = f"{len(item)} values" if isinstance(item, (tuple, list)) else type(item).__name__
            raise DataError(f"{_FORM}; item {index} of {name} is {what}.")
        yield item[0], item[1]


def each(iterator: Iterator[Any], name: str) -> Iterator[Any]:
    """Give items; what is raised on the way is told with the number of the item.

    Raises:
        DataError: the iterator raises.
    """
    n_given = 0
    while True:
        try:
            item = next(iterator)
        except StopIteration:
            return
        except Exception as error:
            raise DataError(f"{name} raised {error!r} instead of item {n_given}.") from error
        yield item
        n_given += 1


def _kept(picture: Any, index: int, name: str) -> tuple[bytes, int, Fingerprint]:
    """How a picture is kept, and its fingerprint; nothing of one that cannot be read: decoding reports it."""
    if isinstance(picture, (bytes, bytearray, memoryview)):
        content = bytes(picture)
        return content, _FILE, fingerprint_of(content)
    try:
        if isinstance(picture, (str, Path)):
            content = read_content(picture)
            return content, _FILE, fingerprint_of(content)
        if isinstance(picture, Image.Image):
            found = Fingerprint(digest=digest_picture(picture), is_deep=is_deep(picture))
            return (*_encoded(upright(picture)), found)
    except Exception:  # noqa: BLE001  # a broken file raises anything
        return b"", _FILE, UNREADABLE
    array = picture if isinstance(picture, np.ndarray) or hasattr(picture, "detach") else None
    if array is None:
        raise DataError(f"{_FORM}; the picture of item {index} of {name} is {type(picture).__name__}.")
    array = np.asarray(as_picture(array))
    if array.dtype.kind not in "buif":
        raise DataError(f"{_FORM}; the picture of item {index} of {name} is an array of {array.dtype}.")
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue(), _ARRAY, Fingerprint(digest=digest_picture(array), is_deep=is_deep(array))


def _encoded(image: Image.Image) -> tuple[bytes, int]:
    file = io.BytesIO()
    if image.mode in _AS_PNG:
        image.save(file, "PNG", compress_level=1)
        return file.getvalue(), _FILE
    whole = image.convert("RGBA") if image.mode in ("PA", "RGBa", "La") else image
    form = json.dumps([whole.mode, *whole.size]).encode()
    return _HEADER.pack(len(form)) + form + whole.tobytes(), _PIXELS


def _image_of(content: bytes) -> Image.Image:
    (n_bytes,) = _HEADER.unpack_from(content)
    begin = _HEADER.size + n_bytes
    mode, width, height = json.loads(content[_HEADER.size : begin])
    return Image.frombytes(mode, (width, height), content[begin:])


def _told_of_disk() -> Any:
    return full_disk_told(
        lambda error: DataError(
            f"there is no room for the pictures that come: {error}. Free some of the disk, or give another cache_dir."
        )
    )


def _check_disk(file: IO[bytes], folder: Path) -> None:
    """Leave room for what comes after.

    Raises:
        DataError: the disk is nearly full.
    """
    free = free_bytes(folder)
    if free < _LEAST_FREE_BYTES or free < _LEAST_FREE_SHARE * file.tell():
        raise DataError(
            f"the pictures that come have taken {file.tell() / 1e9:.1f} GB in '{folder.parent}', which has "
            f"{free / 1e9:.1f} GB left. Free some of the disk, give another cache_dir, or fewer pictures."
        )


class _Keeper:
    """A folder that is there as long as this is."""

    def __init__(self, within: Path | None) -> None:
        held = ExitStack()
        try:
            self.folder = held.enter_context(scratch_folder(within))
        except OSError as error:
            raise DataError(f"pictures that come only once need a folder, and making it failed: {error}.") from error
        weakref.finalize(self, _let_go, held, os.getpid())


def _let_go(held: ExitStack, owner: int) -> None:
    # A process that was forked off has this, too, and must not take the folder from its owner.
    if os.getpid() == owner:
        held.close()

"""Pictures that come one after the other, and only once: put on the disk as they come, to be read in any order."""

from __future__ import annotations

import io
import json
import os
import struct
import time
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from autobackbone.data.classes import plain
from autobackbone.data.contents import fingerprint_of, size_of
from autobackbone.data.joining import JoinedSource, PartSource
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
_FILE, _ARRAY, _PIXELS, _REASON = 0, 1, 2, 3
"""How a picture is kept: a file's bytes, NumPy's own format, or the pixels of a Pillow image behind its form; or, where
it could not be read, why.
"""

_AS_PNG = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
"""Modes that PNG keeps bit for bit."""

_DIGEST_BYTES = 32
# What the disk must have left: the decoded pictures come after these, and then the run.
_LEAST_FREE_SHARE, _LEAST_FREE_BYTES = 0.05, 200_000_000
_TELLING_S = 0.2
_HEADER = struct.Struct(">I")
_LONG_S = 10.0

NMost = int | Mapping[str, int] | None
"""How many pictures are taken of what streams: of one dataset, or by the name of each part that was cut off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spooling:
    """Where pictures are put, and how many.

    Args:
        folder: of the disk that takes them; `None` for the system's temporary one.
        seconds: after which no more are taken; `None` for no limit.
        n_most: how many are taken at most; `None` for all; of a dict of splits by part, a part that is not named whole.
        on_progress: called with the number of pictures so far, now and then.
        is_known: whether the same has been gone through before, and came to an end where `n_most` sets none.
    """

    folder: Path | None = None
    seconds: float | None = None
    n_most: NMost = None
    on_progress: Callable[[int], None] | None = None
    is_known: bool = False

    def of_part(self, name: str, seconds: float | None) -> Spooling:
        """The same for one part of a dict of splits, which may take so many seconds."""
        n_most = self.n_most.get(name) if isinstance(self.n_most, Mapping) else None
        return replace(self, seconds=seconds, n_most=n_most)


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
        """Give the picture, of the kind that it came as.

        Raises:
            DataError: it could not be read as it came.
        """
        content = self._content(index)
        if self.kinds[index] == _REASON:
            raise DataError(content.decode())
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
    watch, is_cut = _Watch(spooling=spooling, name=name, folder=keeper.folder), False
    with _told_of_disk(), quiet_pillow(), path.open("wb") as file:
        for picture, label in pairs:
            if watch.is_late() or len(ends) == spooling.n_most:
                is_cut = True
                break
            content, kind, found = _kept(picture, len(ends), name)
            file.write(content)
            ends.append((ends[-1] if ends else 0) + len(content))
            kinds.append(kind)
            digests += found.digest
            deep.append(found.is_deep)
            labels.append(plain(label))
            watch.look(len(ends), file)
    if not ends and is_cut:
        raise DataError(
            f"the first picture of {name} took longer than the {spooling.seconds:,.1f} s that there were for reading. "
            "Give more time."
        )
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


def n_streamed(source: Source) -> NMost:
    """How many pictures were taken from an iterable that would have given more; `None` where all were taken.

    Of a dict of splits by the name of each part that was cut off.
    """
    within = source
    while isinstance(within, PartSource):
        if isinstance(within.whole, SpooledSource) and len(within.indices) == len(within.whole.ends):
            return len(within.indices)
        within = within.whole
    if not isinstance(within, JoinedSource):
        return None
    by_part = {name: n_streamed(of) for name, of in zip(within.prefixes, within.sources, strict=True)}
    return {name: n for name, n in by_part.items() if isinstance(n, int)} or None


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
    """How a picture is kept, and its fingerprint; of one that cannot be read the reason, which decoding reports.

    Args:
        picture: as it came; an exception where reading it ended so.
        index: of its pair.
        name: of what gives it.
    """
    if isinstance(picture, Exception):
        reason = str(picture) or type(picture).__name__
        return reason.encode("utf-8", "backslashreplace"), _REASON, UNREADABLE
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
    except Exception as error:  # noqa: BLE001  # a broken file raises anything
        return _kept(error, index, name)
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


@dataclass(slots=True, kw_only=True)
class _Watch:
    """What is looked at and told while pictures come; not frozen, for it keeps the time."""

    spooling: Spooling
    name: str
    folder: Path
    begun: float = field(default_factory=time.monotonic)
    told: float = field(default_factory=time.monotonic)
    is_warned: bool = False

    def is_late(self) -> bool:
        """Whether no more may be taken."""
        return self.spooling.seconds is not None and time.monotonic() - self.begun > self.spooling.seconds

    def look(self, n: int, file: IO[bytes]) -> None:
        """Check the disk and tell how many there are, now and then.

        Raises:
            DataError: the disk is nearly full.
        """
        if time.monotonic() - self.told <= _TELLING_S:
            return
        self.told = time.monotonic()
        _check_disk(file, self.folder)
        if self.spooling.on_progress is not None:
            self.spooling.on_progress(n)
        given = self.spooling
        is_bounded = given.is_known or given.seconds is not None or given.n_most is not None
        if not is_bounded and not self.is_warned and self.told - self.begun > _LONG_S:
            self.is_warned = True
            _warn_of_no_end(n, self.name)


def _warn_of_no_end(n: int, name: str) -> None:
    warnings.warn(
        f"{n:,} pictures of {name} have come, and nothing says how many will: all are taken. If it has no end, give a "
        "new search a budget of time, such as Budget(wall_clock_s=3600, n_trials=20), or cut it off by "
        "itertools.islice(pictures, 10_000).",
        stacklevel=2,
    )


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

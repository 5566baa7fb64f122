"""Decoded pixels on disk: each picture opened once, every size written in the same pass, whole or not at all."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from PIL import Image
from PIL import __version__ as pillow_version

from autobackbone.data.pictures import ChannelsError, as_rgb
from autobackbone.data.preparation import Preparation, fit
from autobackbone.data.sources import printable
from autobackbone.errors import DataError
from autobackbone.runfolder import full_disk_told

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from autobackbone.data.sources import Fingerprint, Source
    from autobackbone.records import ImageSize

_LOG = logging.getLogger(__name__)
_FORMAT = 1
_READABLE = "readable.json"
_ABANDONED_S = 86_400.0
_T = TypeVar("_T")

Unreadable = dict[int, str]
"""Why a picture could not be read, by its number."""


def fingerprints(source: Source, n_workers: int) -> list[Fingerprint]:
    """Digest every picture, in order."""
    return list(mapped(source.fingerprint, len(source.names), threads_for(source, n_workers)))


def store_key(prints: list[Fingerprint], preparation: Preparation) -> str:
    """Name a store by its content: the pictures, their preparation, and the Pillow that resizes them."""
    facts = json.dumps([_FORMAT, pillow_version, preparation.to_json()], sort_keys=True)
    sha = hashlib.sha256(facts.encode())
    for fingerprint in prints:
        sha.update(fingerprint.digest)
    return sha.hexdigest()[:32]


def store_root(cache_dir: str | Path, prints: list[Fingerprint], preparation: Preparation) -> Path:
    """Say where the store of these pictures lies in a cache folder."""
    return Path(cache_dir).expanduser() / "data" / store_key(prints, preparation)


def pixels_path(root: Path, image_size: ImageSize) -> Path:
    """Say where the pixels of one size lie."""
    return root / f"pixels-{image_size[0]}x{image_size[1]}.npy"


def pixels_files(root: Path, image_size: ImageSize) -> tuple[Path, Path]:
    """Say where all that belongs to the pixels of one size lies; the last file tells that the others are whole."""
    return pixels_path(root, image_size), _facts_path(root, image_size)


def is_stored(root: Path, image_size: ImageSize) -> bool:
    """Tell whether the pixels of one size are there, whole: what is damaged counts as not there, and is made anew."""
    return _facts(_facts_path(root, image_size)) is not None and _opens(pixels_path(root, image_size))


def ensure_pixels(
    root: Path,
    source: Source,
    preparation: Preparation,
    image_sizes: tuple[ImageSize, ...],
    *,
    n_workers: int,
    on_progress: Callable[[int, int], None] | None = None,
) -> Unreadable:
    """Store the sizes that are not stored yet.

    Several processes may do this at once: each writes aside and puts its work in place at the end; the last one wins
    with the same bytes.

    Args:
        root: the store's folder.
        source: n pictures.
        preparation: how they become pixels; its value range is settled.
        image_sizes: (height, width) each.
        n_workers: threads, at least 1; Pillow decodes outside Python's lock.
        on_progress: called with (pictures done, n) after each picture.

    Returns:
        The unreadable pictures among all; their rows are zeros.

    Raises:
        ChannelsError: a picture whose channels cannot be read.
        DataError: the disk is too small.
    """
    _remove_abandoned(root)
    missing = tuple(size for size in image_sizes if not is_stored(root, size))
    if missing:
        root.mkdir(parents=True, exist_ok=True)
        _check_disk(root, len(source.names), missing)
        with _told_of_disk(), _written_whole(root) as aside:
            arrays = [_new_pixels(aside, len(source.names), size) for size in missing]
            _write(arrays, aside, source, preparation, missing, n_workers=n_workers, on_progress=on_progress)
    found = (_facts(_facts_path(root, size)) or {} for size in image_sizes)
    return dict(sorted(reason for facts in found for reason in facts.items()))


def ensure_readable(
    root: Path,
    source: Source,
    preparation: Preparation,
    *,
    n_workers: int,
    on_progress: Callable[[int, int], None] | None = None,
) -> Unreadable:
    """Open every picture once and keep nothing but which ones cannot be read; what was found before is remembered.

    Raises:
        ChannelsError: a picture whose channels cannot be read.
    """
    known = (_facts(path) for path in (*root.glob("pixels-*.json"), *root.glob(_READABLE)))
    found = next((facts for facts in known if facts is not None), None)
    if found is not None:
        return found
    root.mkdir(parents=True, exist_ok=True)
    with _told_of_disk(), _written_whole(root) as aside:
        unreadable = _decode([], source, preparation, (), n_workers=n_workers, on_progress=on_progress)
        (aside / _READABLE).write_text(json.dumps({"unreadable": unreadable}), encoding="utf-8")
    return unreadable


def bytes_of(n: int, image_sizes: Iterable[ImageSize]) -> int:
    """What n decoded pictures take in these sizes."""
    return sum(n * height * width * 3 for height, width in image_sizes)


def free_bytes(root: Path) -> int:
    """Give what the disk under a store's folder, which need not exist, has free."""
    existing = next(folder for folder in (root, *root.parents) if folder.exists())
    return shutil.disk_usage(existing).free


def stored_bytes(root: Path) -> int:
    """Give what all sizes in a store take."""
    return sum(path.stat().st_size for path in root.glob("pixels-*.npy"))


def _facts(path: Path) -> Unreadable | None:
    """The unreadable pictures that a file names; `None` if it is not there or damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["unreadable"]
        return {int(index): str(reason) for index, reason in found.items()}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        _LOG.warning("%s is damaged (%s); it is made anew", path, error)
        return None


def _opens(path: Path) -> bool:
    """Whether an array is there in its full length."""
    try:
        np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        return False
    except (OSError, ValueError, EOFError) as error:
        _LOG.warning("%s is damaged (%s); it is made anew", path, error)
        return False
    return True


def _write(
    arrays: list[np.memmap[Any, np.dtype[np.uint8]]],
    aside: Path,
    source: Source,
    preparation: Preparation,
    image_sizes: tuple[ImageSize, ...],
    *,
    n_workers: int,
    on_progress: Callable[[int, int], None] | None,
) -> None:
    unreadable = _decode(arrays, source, preparation, image_sizes, n_workers=n_workers, on_progress=on_progress)
    for array, size in zip(arrays, image_sizes, strict=True):
        array.flush()
        n = len(source.names)
        facts = {"n": n, "image_size": size, "preparation": preparation.to_json(), "unreadable": unreadable}
        _facts_path(aside, size).write_text(json.dumps(facts), encoding="utf-8")


def _decode(
    arrays: list[np.memmap[Any, np.dtype[np.uint8]]],
    source: Source,
    preparation: Preparation,
    image_sizes: tuple[ImageSize, ...],
    *,
    n_workers: int,
    on_progress: Callable[[int, int], None] | None,
) -> Unreadable:
    def decode_one(index: int) -> str | None:
        rgb = rgb_or_reason(source, index, preparation)
        if isinstance(rgb, str):
            return rgb
        for array, size in zip(arrays, image_sizes, strict=True):
            array[index] = fit(rgb, size, preparation)
        return None

    unreadable: Unreadable = {}
    n = len(source.names)
    for index, reason in enumerate(mapped(decode_one, n, threads_for(source, n_workers))):
        if reason is not None:
            unreadable[index] = reason
        if on_progress is not None:
            on_progress(index + 1, n)
    return unreadable


def rgb_or_reason(source: Source, index: int, preparation: Preparation) -> Image.Image | str:
    """Read a picture; where it cannot be, say why.

    Raises:
        ChannelsError: its channels cannot be read.
    """
    try:
        return as_rgb(source.read(index), value_range=preparation.value_range, channels=preparation.channels)
    except ChannelsError as error:
        raise ChannelsError(f"picture '{printable(source.names[index])}': {error}") from error
    except Exception as error:  # noqa: BLE001  # decoders meet broken bytes with any exception; the reason is kept
        return f"{type(error).__name__}: {error}"


def threads_for(source: Source, n_workers: int) -> int:
    """How many threads may read at once."""
    return n_workers if source.is_thread_safe else 1


def mapped(function: Callable[[int], _T], n: int, n_threads: int) -> Iterator[_T]:
    """Give a function's answers to 0, 1, … n - 1, in order, computed by so many threads."""
    if n_threads <= 1:
        yield from map(function, range(n))
        return
    pool = ThreadPoolExecutor(n_threads, thread_name_prefix="decode")
    try:
        yield from pool.map(function, range(n))
    finally:
        # After Ctrl-C the pictures that are still waiting would be decoded for nothing.
        pool.shutdown(wait=True, cancel_futures=True)


def _remove_abandoned(root: Path) -> None:
    """Remove what killed processes left a day ago or earlier; what is younger may be another process at work."""
    for aside in root.glob("partial-*"):
        with suppress(FileNotFoundError):
            if time.time() - aside.stat().st_mtime > _ABANDONED_S:
                shutil.rmtree(aside, ignore_errors=True)


def _told_of_disk() -> AbstractContextManager[None]:
    """Raises: DataError: the disk, a quota or the largest file allowed is too small after all."""
    return full_disk_told(
        lambda error: DataError(
            f"there is no room for the decoded pictures: {error}. Free some of the disk, give another cache_dir, or "
            "allow smaller image_sizes."
        )
    )


@contextmanager
def _written_whole(root: Path) -> Iterator[Path]:
    aside = Path(tempfile.mkdtemp(prefix="partial-", dir=root))
    try:
        yield aside
        # The facts say that the pixels are whole, so they come last.
        for path in sorted(aside.iterdir(), key=lambda path: path.suffix == ".json"):
            path.replace(root / path.name)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _new_pixels(folder: Path, n: int, image_size: ImageSize) -> np.memmap[Any, np.dtype[np.uint8]]:
    path = pixels_path(folder, image_size)
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(n, *image_size, 3))
    if hasattr(os, "posix_fallocate"):
        # A disk that fills up under a sparse memory map kills the process; reserved space cannot run out.
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def _check_disk(root: Path, n: int, image_sizes: tuple[ImageSize, ...]) -> None:
    needed, free = bytes_of(n, image_sizes), free_bytes(root)
    if needed > free:
        raise DataError(
            f"the decoded pictures need {needed / 1e9:.1f} GB and '{root}' has {free / 1e9:.1f} GB free. "
            "Free some, choose another cache folder, or ask for fewer or smaller image sizes."
        )


def _facts_path(root: Path, image_size: ImageSize) -> Path:
    return pixels_path(root, image_size).with_suffix(".json")

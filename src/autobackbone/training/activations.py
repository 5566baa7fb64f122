"""What enters the first trainable block, computed once: a frozen prefix gives the same in every epoch and every trial.

Stores lie in the cache, half precision, memory-mapped, one file for each (pictures, backbone, weights, image size,
cut). The cache is capped and leaves a tenth of the disk free; the least recently used store leaves first.
"""

from __future__ import annotations

import gc
import hashlib
import json
import logging
import math
import os
import platform
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Self
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from autobackbone.errors import TrialError
from autobackbone.runfolder import FULL

_LOG = logging.getLogger(__name__)
# Machines that share a cache may give their processes the same numbers.
_HERE = re.sub(r"[^0-9A-Za-z-]", "-", platform.node())
# A tenth is kept free for the run itself.
_DISK_SHARE = 0.9
_ABANDONED_S = 86_400.0
# Another process may remove a store right after it was made.
_N_TRIES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationCache:
    """Where stores of activations lie, and how much of the disk they may take.

    Args:
        folder: made when first written to.
        max_bytes: cap over all stores.
        in_use: stores that this process holds open: removing one would free nothing.
        promised: bytes of stores that this process writes now.
    """

    folder: Path
    max_bytes: int
    in_use: WeakValueDictionary[Path, NDArray[Any]] = field(
        default_factory=WeakValueDictionary, init=False, repr=False, compare=False
    )
    promised: dict[Path, int] = field(default_factory=dict, init=False, repr=False, compare=False)

    def path(self, **key: Any) -> Path:
        """The file of one store, named by all that its content depends on."""
        text = json.dumps(key, sort_keys=True)
        return self.folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.npy"

    def make_room_for(self, n_bytes: int) -> None:
        """Remove the least recently used stores, none that this process holds open, until this size fits.

        Raises:
            NoRoomError: it would not fit if all of them left; none has left then.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._remove_abandoned()
        facts = stores_in(self.folder)
        sizes = {file: of.st_size for file, of in facts.items()}
        promised = sum(self.promised.values())
        used, free = sum(sizes.values()) + promised, shutil.disk_usage(self.folder).free - promised
        if used + n_bytes <= self.max_bytes and n_bytes <= free * _DISK_SHARE:
            return
        gc.collect()  # a training that has ended may still hold its stores, in a circle
        idle = sorted((file for file in sizes if file not in self.in_use), key=lambda file: facts[file].st_mtime)
        while used + n_bytes > self.max_bytes or n_bytes > free * _DISK_SHARE:
            leaving = sum(sizes[file] for file in idle)
            if used - leaving + n_bytes > self.max_bytes or n_bytes > (free + leaving) * _DISK_SHARE:
                raise NoRoomError(f"there is no room for {n_bytes:,} bytes of activations in '{self.folder}'")
            oldest = idle.pop(0)
            used, free = used - sizes[oldest], free + sizes[oldest]
            with suppress(PermissionError):  # on Windows, of a store that another process holds open
                oldest.unlink(missing_ok=True)

    def opened(self, path: Path) -> NDArray[Any] | None:
        """A whole store, memory-mapped, read-only, the latest used from now on; `None` if it is not there."""
        store: NDArray[Any] | None
        try:
            os.utime(path)
            store = self.in_use.get(path)
            if store is None:
                store = self.in_use[path] = np.load(path, mmap_mode="r", allow_pickle=False)
        except FileNotFoundError:  # another process may remove it at any time
            return None
        except (OSError, ValueError, EOFError) as error:
            _LOG.warning("%s is damaged (%s); it is made anew", path, error)
            with suppress(PermissionError):
                path.unlink(missing_ok=True)
            return None
        return store

    def remove_unfinished(self, pid: int) -> None:
        """Remove what a process of this machine that was ended was writing."""
        for file in self.folder.glob(f"*.{_HERE}-{pid}.part"):
            file.unlink(missing_ok=True)

    def _remove_abandoned(self) -> None:
        """Remove what killed processes left a day ago or earlier; what is younger may be another process at work. What
        this one writes now looks old where the clock was set meanwhile.
        """
        written = set(map(_aside, self.promised))
        for file in self.folder.glob("*.part"):
            if file in written:
                continue
            with suppress(FileNotFoundError):
                if time.time() - file.lstat().st_mtime > _ABANDONED_S:
                    file.unlink()


def activation_cache(folder: Path, gigabytes: float | None = None) -> ActivationCache:
    """The cache in a folder, which is made if it is not there; what is beyond its cap leaves at once.

    Args:
        folder: of the stores.
        gigabytes: its cap, 10**9 bytes; `None` for a tenth of what the disk has free beside it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stored_bytes = sum(of.st_size for of in stores_in(folder).values())
    usual = (stored_bytes + shutil.disk_usage(folder).free) // 10
    cache = ActivationCache(folder=folder, max_bytes=usual if gigabytes is None else int(gigabytes * 1e9))
    cache.make_room_for(0)
    return cache


def stores_in(folder: Path) -> dict[Path, os.stat_result]:
    """All whole stores, with their sizes and when each was last used."""
    found = {}
    for file in folder.glob("*.npy"):
        with suppress(FileNotFoundError):  # another process may remove it at any time
            found[file] = file.stat()
    return found


class NoRoomError(Exception):
    """Neither the cap nor the disk leaves room for a store."""


def stored(
    cache: ActivationCache,
    path: Path,
    compute: Callable[[], Iterator[Tensor]],
    *,
    n_rows: int,
    until: float | None = None,
) -> NDArray[Any]:
    """The store at `path`, made first if it is not there.

    Args:
        cache: its cap is kept.
        path: from `cache.path`; the pictures and their order are part of what names it.
        compute: begins the computing, and gives the activations of some pictures after the other, each (n, …).
        n_rows: all pictures.
        until: `time.monotonic()` at which the attempt is given up.

    Returns:
        (n_rows, …), one row for each picture in order, memory-mapped, read-only: float16, or float32 where an
        activation is beyond half precision.

    Raises:
        NoRoomError: the cap or the disk is too small.
        TrialError: time ended first, or an activation is no number.
    """
    for _ in range(_N_TRIES):
        store = cache.opened(path)
        if store is not None:
            return store
        try:
            _compute(StoreWriter(cache, path, n_rows), compute(), until)
        except TooLargeError:
            _compute(StoreWriter(cache, path, n_rows, dtype=np.float32), compute(), until)
    store = cache.opened(path)
    if store is None:
        raise NoRoomError(
            f"what was written to '{path}' is not there: another process removes it, or the disk is broken"
        )
    return store


class TooLargeError(Exception):
    """An activation is beyond what half precision can hold."""


class StoreWriter:
    """Writes one store from first row to last, whole or not at all.

    Not through a memory map: a disk that fills up is an error then, not the end of the process.

    Args:
        cache: its cap is kept.
        path: from `cache.path`.
        n_rows: so many rows make it whole.
        dtype: of the store.
    """

    def __init__(
        self, cache: ActivationCache, path: Path, n_rows: int, *, dtype: type[np.float16 | np.float32] = np.float16
    ) -> None:
        self._cache, self._path, self._n_rows, self._dtype = cache, path, n_rows, dtype
        self._aside = _aside(path)
        self._file: BinaryIO | None = None
        self._n_written = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.give_up()

    def give_up(self) -> None:
        """Leave nothing of what is not whole."""
        self._cache.promised.pop(self._path, None)
        if self._file is not None:
            with suppress(OSError):  # a full disk is told once more of what still waits to be written
                self._file.close()
        self._aside.unlink(missing_ok=True)

    def add(self, values: Tensor) -> None:
        """Write the next rows, (n, …); after the last one the store is there.

        Raises:
            NoRoomError: the cap or the disk is too small.
            TooLargeError: a value is beyond the type of the store.
            TrialError: a value is no number.
        """
        rows = _checked(values, self._dtype)
        try:
            if self._file is None:
                self._file = self._begin(rows.shape[1:])
            self._file.write(rows.tobytes())
            self._n_written += len(rows)
            if self._n_written == self._n_rows:
                self._file.close()
                self._aside.replace(self._path)
                self._cache.promised.pop(self._path, None)
        except FileNotFoundError as error:  # of another process, whose clock differs or was set
            raise NoRoomError(f"'{self._aside}' was removed while it was written") from error
        except OSError as error:
            if error.errno not in FULL:
                raise
            raise NoRoomError(f"there was no room for '{self._aside}': {error}") from error

    def _begin(self, shape: tuple[int, ...]) -> BinaryIO:
        whole = (self._n_rows, *shape)
        n_bytes = math.prod(whole) * np.dtype(self._dtype).itemsize
        self._cache.make_room_for(n_bytes)
        self._cache.promised[self._path] = n_bytes
        file = self._aside.open("wb")
        descr = np.lib.format.dtype_to_descr(np.dtype(self._dtype))
        np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": whole})
        return file


def _aside(path: Path) -> Path:
    """Where this process writes a store until it is whole."""
    return path.with_suffix(f".{_HERE}-{os.getpid()}.part")


def _compute(writer: StoreWriter, chunks: Iterator[Tensor], until: float | None) -> None:
    with writer:
        for values in chunks:
            if until is not None and time.monotonic() > until:
                raise TrialError("time ended while its activations were computed")
            writer.add(values)


def _checked(values: Tensor, dtype: type[np.float16 | np.float32]) -> NDArray[Any]:
    largest = float(values.abs().max())
    if not math.isfinite(largest):
        raise TrialError("its activations are no numbers")
    if largest > float(np.finfo(dtype).max):
        raise TooLargeError
    return np.asarray(values.float().cpu().numpy(), dtype=dtype)

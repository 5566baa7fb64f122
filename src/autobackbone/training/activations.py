"""What enters the first trainable block, computed once: a frozen prefix gives the same in every epoch and every trial.

Stores lie in the cache, half precision, memory-mapped, one file for each (pictures, backbone, weights, image size,
cut). The cache is capped; the least recently used store leaves first.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from autobackbone.errors import TrialError

_BATCH_SIZE = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationCache:
    """Where stores of activations lie, and how much of the disk they may take.

    Args:
        folder: made when first written to.
        max_bytes: cap over all stores.
    """

    folder: Path
    max_bytes: int

    def path(self, **key: Any) -> Path:
        """The file of one store, named by all that its content depends on."""
        text = json.dumps(key, sort_keys=True)
        return self.folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.npy"

    def has_room_for(self, n_bytes: int) -> bool:
        """Whether a store of this size may be made; older stores leave for it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        # A tenth is kept free for the run itself.
        return n_bytes <= self.max_bytes and n_bytes <= shutil.disk_usage(self.folder).free * 0.9 + self._used_bytes()

    def make_room_for(self, n_bytes: int) -> None:
        """Remove the least recently used stores until this size fits."""
        files = sorted(self.folder.glob("*.npy"), key=lambda file: file.stat().st_mtime)
        used = self._used_bytes()
        for file in files:
            if used + n_bytes <= self.max_bytes:
                return
            used -= file.stat().st_size
            file.unlink(missing_ok=True)

    def _used_bytes(self) -> int:
        return sum(file.stat().st_size for file in self.folder.glob("*.npy"))


def stored(
    cache: ActivationCache,
    path: Path,
    compute: Callable[[NDArray[np.int64]], Tensor],
    *,
    indices: NDArray[np.int64],
    n_pictures: int,
    until: float | None = None,
) -> NDArray[Any]:
    """The store at `path`, made first if it is not there.

    Args:
        cache: its cap is kept.
        path: from `cache.path`.
        compute: indices of pictures (n,) → activations (n, …), any float type.
        indices: pictures to store; rows of others are zeros, which take no room on most file systems.
        n_pictures: rows of the store.
        until: `time.monotonic()` at which the attempt is given up.

    Returns:
        (n_pictures, …), memory-mapped, read-only: float16, or float32 where an activation is beyond half precision.

    Raises:
        TrialError: time ended first, or an activation is no number.
    """
    if not path.is_file():
        try:
            _compute(cache, path, compute, np.float16, indices=indices, n_pictures=n_pictures, until=until)
        except _TooLargeError:
            _compute(cache, path, compute, np.float32, indices=indices, n_pictures=n_pictures, until=until)
    os.utime(path)
    store: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    return store


class _TooLargeError(Exception):
    """An activation is beyond what half precision can hold."""


def _compute(
    cache: ActivationCache,
    path: Path,
    compute: Callable[[NDArray[np.int64]], Tensor],
    dtype: type[np.float16 | np.float32],
    *,
    indices: NDArray[np.int64],
    n_pictures: int,
    until: float | None,
) -> None:
    shape = (n_pictures, *compute(indices[:1]).shape[1:])
    cache.make_room_for(math.prod(shape) * np.dtype(dtype).itemsize)
    temporary = path.with_suffix(f".{os.getpid()}.part")
    try:
        store = np.lib.format.open_memmap(temporary, mode="w+", dtype=dtype, shape=shape)
        for start in range(0, len(indices), _BATCH_SIZE):
            if until is not None and time.monotonic() > until:
                raise TrialError("time ended while its activations were computed")
            batch = indices[start : start + _BATCH_SIZE]
            store[batch] = _checked(compute(batch), dtype)
        store.flush()
        del store
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _checked(values: Tensor, dtype: type[np.float16 | np.float32]) -> NDArray[Any]:
    largest = float(values.abs().max())
    if not math.isfinite(largest):
        raise TrialError("its activations are no numbers")
    if largest > float(np.finfo(dtype).max):
        raise _TooLargeError
    return np.asarray(values.float().cpu().numpy(), dtype=dtype)

"""Folders for what is needed only while something runs; those that a kill has left are removed by the next."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

_PREFIX = "autobackbone-scratch-"
_LOCK = "lock"
# Younger ones may be about to be locked.
_OLD_S = 60.0


@contextmanager
def scratch_folder(within: Path | None = None) -> Iterator[Path]:
    """Give a new folder of this process; removed at the end.

    It is held under a lock, which the operating system lets go if the process dies.

    Args:
        within: the folder to make it in, made if need be; `None` for the system's temporary one.
    """
    base = Path(tempfile.gettempdir()) if within is None else within
    base.mkdir(parents=True, exist_ok=True)
    _remove_left(base)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
    lock = FileLock(folder / _LOCK)
    try:
        # Where none can be had, nobody removes the folder but us.
        with suppress(OSError, NotImplementedError):
            lock.acquire()
        yield folder
    finally:
        lock.release()
        shutil.rmtree(folder, ignore_errors=True)


def _remove_left(base: Path) -> None:
    """Remove old folders of this user that nobody holds."""
    for folder in base.glob(f"{_PREFIX}*"):
        with suppress(OSError, Timeout, NotImplementedError):
            if _is_ours(folder) and time.time() - (folder / _LOCK).stat().st_mtime > _OLD_S:
                with FileLock(folder / _LOCK, timeout=0):
                    shutil.rmtree(folder, ignore_errors=True)


def _is_ours(folder: Path) -> bool:
    """Whether this user made it; a link of somebody else's may lead anywhere."""
    return not folder.is_symlink() and (not hasattr(os, "getuid") or folder.stat().st_uid == os.getuid())

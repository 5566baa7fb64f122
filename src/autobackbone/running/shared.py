"""A folder that several machines see, on their disks or behind an address that fsspec knows."""

from __future__ import annotations

import posixpath
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from autobackbone.errors import ArgumentError, TrialError
from autobackbone.runfolder import written_whole


class SharedFolder:
    """Files by name, each whole or not there.

    Args:
        address: of the folder: a path, or as fsspec knows it.

    Raises:
        ArgumentError: nothing here reads such addresses.
    """

    def __init__(self, address: str) -> None:
        import fsspec  # with the extra alone

        try:
            # A path may hold what parts addresses.
            files, path = fsspec.core.url_to_fs(address) if "://" in address else (fsspec.filesystem("file"), address)
        except (ImportError, ValueError) as error:
            raise ArgumentError(
                f"shared is a folder that all machines see, and {address!r} cannot be used: {error}. Install what "
                "reads it, such as s3fs, or give another one."
            ) from error
        self._files: Any = files
        self._path: str = path
        self.address = address

    def require_writable(self) -> None:
        """Write a small file there, and remove it.

        Raises:
            ArgumentError: that cannot be done.
        """
        trace = f".written-{secrets.token_hex(4)}"
        try:
            with self._told_of_trouble(f"written to {trace!r}"):
                self._files.makedirs(self._path, exist_ok=True)
                self._files.pipe_file(self._of(trace), b"")
                self._files.rm(self._of(trace))
        except TrialError as error:
            raise ArgumentError(f"shared is a folder that can be written, and {error}. Give another one.") from error

    def put(self, file: Path, name: str) -> None:
        """Copy a file there, in place of what has its name.

        Raises:
            TrialError: it cannot be written.
        """
        target = self._of(name)
        aside = f"{target}.{secrets.token_hex(4)}.part"
        with self._told_of_trouble(f"copied to {name!r}"):
            self._files.makedirs(posixpath.dirname(target), exist_ok=True)
            try:
                self._files.put_file(str(file), aside)
                self._files.mv(aside, target)
            except BaseException:
                with suppress(Exception):
                    self._files.rm(aside)
                raise

    def get(self, name: str, file: Path) -> None:
        """Copy one from there, whole.

        Raises:
            TrialError: it cannot be read.
        """
        with self._told_of_trouble(f"read from {name!r}"), written_whole(file) as temporary:
            self._files.get_file(self._of(name), str(temporary))

    def has(self, name: str) -> bool:
        """Whether it is there."""
        with self._told_of_trouble(f"looked for at {name!r}"):
            return bool(self._files.exists(self._of(name)))

    def names(self, folder: str) -> list[str]:
        """Names of the files in a folder; none where there is no such folder."""
        with self._told_of_trouble(f"listed in {folder!r}"):
            try:
                found = self._files.ls(self._of(folder), detail=False, refresh=True)
            except FileNotFoundError:
                return []
        return sorted(f"{folder}/{posixpath.basename(str(one).rstrip('/'))}" for one in found)

    def remove(self, folder: str) -> None:
        """Remove a folder with all that is in it, as far as that can be."""
        with suppress(Exception):
            self._files.rm(self._of(folder), recursive=True)

    def _of(self, name: str) -> str:
        return posixpath.join(self._path, name)

    @contextmanager
    def _told_of_trouble(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            raise TrialError(f"a file could not be {what} of {self.address!r}: {error}") from error

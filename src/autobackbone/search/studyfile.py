"""The study's file: opened, looked through, and its troubles told in words whenever they come to light."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar
from urllib.parse import quote

from optuna.storages import BaseStorage, RDBStorage
from sqlalchemy import event
from sqlalchemy.engine import ExceptionContext

from autobackbone.errors import RunError
from autobackbone.runfolder import RunFolder
from autobackbone.search.solewriter import SoleWriter

# A write waits so long for another program that reads, such as a dashboard.
_PATIENCE_S = 30.0
# What SQLite says where a file is shorter than it tells of itself; all else of its kind is said of writes.
_SHORT = frozenset({sqlite3.SQLITE_IOERR_READ, sqlite3.SQLITE_IOERR_SHORT_READ, sqlite3.SQLITE_IOERR_CORRUPTFS})
_NO_ROOM = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR})
_NO_RIGHTS = frozenset({sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH})
_HELD = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_FORMAT})


@dataclass(frozen=True, slots=True)
class StudyFile:
    """A study in a SQLite file of its own.

    Args:
        path: of the file.
    """

    path: Path
    first_name: ClassVar[str] = "autobackbone"

    def __str__(self) -> str:
        """Where it is, as people say it."""
        return repr(str(self.path))

    def noted(self) -> None:
        """Nothing: it moves with its run folder."""

    def open_storage(self, *, is_read_only: bool = False, say: Callable[[str], object] | None = None) -> BaseStorage:  # noqa: ARG002  as a server
        """Optuna's storage in the file, made if it is not there; what SQLite says of it later is a `RunError`, too.

        Who may write is taken to be the only one who does, see `SoleWriter`.

        Raises:
            RunError: the file is damaged, or cannot be used.
        """
        file = self.path
        if is_read_only and not file.is_file():
            raise RunError(f"{self} is not there: the run has no study. It was damaged, or never begun.")
        url = f"sqlite:///{quote(str(file.resolve()))}"
        if is_read_only:
            # Twice: the address is unquoted once by SQLAlchemy and once by SQLite.
            url = f"sqlite:///file:{quote(quote(str(file.resolve())))}?mode=ro&uri=true"
        try:
            _look_through(self, is_read_only=is_read_only)
            storage = RDBStorage(url, engine_kwargs={"connect_args": {"timeout": _PATIENCE_S}})
        except RunError:
            raise
        except Exception as error:  # noqa: BLE001  in tables from elsewhere Optuna may fail in any way
            said = _said(error)
            raise _told(self, said, is_read_only=is_read_only) or self.damaged(said) from said

        def told(context: ExceptionContext) -> RunError | None:
            return _told(self, context.original_exception, is_read_only=is_read_only, is_open=True)

        event.listen(storage.engine, "handle_error", told)
        return storage if is_read_only else SoleWriter(storage)

    def require_usable(self) -> None:
        """Nothing: its disk is the run folder's, which is held by now."""

    def require_study(self, run: RunFolder) -> None:
        """Make sure that trials which have files are in the study.

        Raises:
            RunError: there are files of trials, and no study.
        """
        run.require_study()

    def damaged(self, why: object) -> RunError:
        """The error for a file that no trials can be read from."""
        return RunError(
            f"{self} is damaged: {why}. Put a whole copy of it in its place, or search again in another run_dir. "
            "Networks and predictions lie beside it in 'trials'."
        )

    def unfinished(self) -> RunError:
        """The error for a file that no study has been written to, or half of one."""
        return RunError(
            f"{self} holds no whole study: the run was cut off in its first moment, or the file is another one. "
            "Give this run_dir to select_backbone, which goes on, or the folder that a search made."
        )


def _look_through(place: StudyFile, *, is_read_only: bool) -> None:
    """Make sure that a file is whole before hours of trials are added to it, or what it says is believed.

    Raises:
        RunError: it is not.
        sqlite3.Error: it cannot be read at all.
    """
    file = place.path
    if not file.is_file() or file.stat().st_size == 0:
        if is_read_only:
            raise place.unfinished()
        return
    address = f"file:{quote(str(file.resolve()))}?mode={'ro' if is_read_only else 'rw'}"
    with closing(sqlite3.connect(address, uri=True, timeout=_PATIENCE_S)) as connection:
        (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    if found != "ok":
        raise place.damaged(" ".join(str(found).split()))
    if is_read_only and "studies" not in tables:
        raise place.unfinished()


def _said(error: BaseException) -> BaseException:
    """What SQLite itself said, without the statements of those in between; the error, where it said nothing."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, sqlite3.Error):
        found = found.__cause__
    return found or error


def _told(
    place: StudyFile, error: BaseException | None, *, is_read_only: bool, is_open: bool = False
) -> RunError | None:
    """What SQLite says of a file, in words; `None` for what is no trouble of the file, and Optuna's own to answer."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None or "too many SQL variables" in str(error):  # then Optuna asks for less at once
        # Of a text that is none Python itself says so, without a code.
        is_damaged = isinstance(error, sqlite3.OperationalError) and "Could not decode" in str(error)
        return place.damaged("a text in it is none") if is_damaged else None
    run, why, kind = RunFolder(path=place.path.parent), f"{error} ({place.path.name})", code & 0xFF
    if is_read_only and kind == sqlite3.SQLITE_READONLY:
        return _for_readers(place, is_half_written=code == sqlite3.SQLITE_READONLY_ROLLBACK, is_open=is_open)
    if kind in _DAMAGED or code in _SHORT:
        return place.damaged(error)
    if kind in _NO_ROOM | _NO_RIGHTS:
        return run.unwritable(why, is_full=kind in _NO_ROOM)
    if kind in _HELD:
        return RunError(
            f"{place} is held by another program: {error}. Close what has opened it, and the same call with this "
            "run_dir goes on."
        )
    return None


def _for_readers(place: StudyFile, *, is_half_written: bool, is_open: bool) -> RunError:
    """What who only reads is told where something would have to be written."""
    if is_half_written:
        return RunError(
            f"{place} waits to be mended: a process died while it wrote, and who only reads cannot undo that. "
            "Give this run_dir to select_backbone, which does."
        )
    if is_open:
        return RunError(f"{place} is open for reading alone: select_backbone adds to it, nobody else.")
    return place.unfinished()  # Optuna makes the tables that it misses

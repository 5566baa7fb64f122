"""The study's file: opened, looked through, and its troubles told in words whenever they come to light."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage, RDBStorage
from optuna.storages._cached_storage import _CachedStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import event
from sqlalchemy.engine import ExceptionContext

from autobackbone.errors import RunError
from autobackbone.runfolder import RunFolder

# A write waits so long for another program that reads, such as a dashboard.
_PATIENCE_S = 30.0
# What SQLite says where a file is shorter than it tells of itself; all else of its kind is said of writes.
_SHORT = frozenset({sqlite3.SQLITE_IOERR_READ, sqlite3.SQLITE_IOERR_SHORT_READ, sqlite3.SQLITE_IOERR_CORRUPTFS})
_NO_ROOM = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR})
_NO_RIGHTS = frozenset({sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH})
_HELD = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_FORMAT})


class SoleWriter(_CachedStorage):
    """Optuna's own cache for the one process that writes: a trial is read again only where it was written to since.

    Optuna reads all that runs anew at each look, since other processes might write; what pauses at a rung runs for it,
    and one ask takes three looks. With 290 of 1,000 trials paused an ask took 0.9 s on two busy cores, mostly for that.

    Args:
        backend: the file, which no other process writes to as long as the run is held.
    """

    def __init__(self, backend: RDBStorage) -> None:
        super().__init__(backend)
        self._whole: set[int] = set()
        self._stale: set[int] = set()

    def delete_study(self, study_id: int) -> None:
        """As Optuna does; another study may get its numbers."""
        self._whole.clear()
        self._stale.clear()
        super().delete_study(study_id)

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """As Optuna does."""
        trial_id = super().create_new_trial(study_id, template_trial)
        self._stale.add(trial_id)
        return trial_id

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        """As Optuna does."""
        self._stale.add(trial_id)
        super().set_trial_param(trial_id, param_name, param_value_internal, distribution)

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """As Optuna does."""
        self._stale.add(trial_id)
        return super().set_trial_state_values(trial_id, state, values)

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        """As Optuna does."""
        self._stale.add(trial_id)
        super().set_trial_intermediate_value(trial_id, step, intermediate_value)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """As Optuna does."""
        self._stale.add(trial_id)
        super().set_trial_user_attr(trial_id, key, value)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """As Optuna does."""
        self._stale.add(trial_id)
        super().set_trial_system_attr(trial_id, key, value)

    def _read_trials_from_remote_storage(self, study_id: int) -> None:
        if study_id not in self._whole:
            super()._read_trials_from_remote_storage(study_id)
            self._whole.add(study_id)
            return
        with self._lock:
            for trial_id in sorted(self._stale):
                of, _ = self._trial_id_to_study_id_and_number[trial_id]
                if of == study_id:
                    self._add_trials_to_cache(study_id, [self._backend.get_trial(trial_id)])
                    self._stale.remove(trial_id)


def open_storage(file: Path, *, is_read_only: bool = False) -> BaseStorage:
    """Optuna's storage in a SQLite file, made if it is not there; what SQLite says of it later is a `RunError`, too.

    Who may write is taken to be the only one who does, see `SoleWriter`.

    Raises:
        RunError: the file is damaged, or cannot be used.
    """
    url = f"sqlite:///{quote(str(file.resolve()))}"
    if is_read_only:
        # Twice: the address is unquoted once by SQLAlchemy and once by SQLite.
        url = f"sqlite:///file:{quote(quote(str(file.resolve())))}?mode=ro&uri=true"
    try:
        _look_through(file, is_read_only=is_read_only)
        storage = RDBStorage(url, engine_kwargs={"connect_args": {"timeout": _PATIENCE_S}})
    except RunError:
        raise
    except Exception as error:  # noqa: BLE001  in tables from elsewhere Optuna may fail in any way
        said = _said(error)
        raise _told(file, said, is_read_only=is_read_only) or damaged(file, said) from said

    def told(context: ExceptionContext) -> RunError | None:
        return _told(file, context.original_exception, is_read_only=is_read_only, is_open=True)

    event.listen(storage.engine, "handle_error", told)
    return storage if is_read_only else SoleWriter(storage)


def damaged(file: Path, why: object) -> RunError:
    """The error for a file that no trials can be read from."""
    return RunError(
        f"{str(file)!r} is damaged: {why}. Put a whole copy of it in its place, or search again in another run_dir. "
        "Networks and predictions lie beside it in 'trials'."
    )


def unfinished(file: Path) -> RunError:
    """The error for a file that no study has been written to, or half of one."""
    return RunError(
        f"{str(file)!r} holds no whole study: the run was cut off in its first moment, or the file is another one. "
        "Give this run_dir to select_backbone, which goes on, or the folder that a search made."
    )


def file_of(study: optuna.Study) -> Path:
    """Where a study lies."""
    backend = getattr(study._storage, "_backend", None)  # noqa: SLF001  there is no public way
    database = str(backend.engine.url.database) if isinstance(backend, RDBStorage) else "study.db"
    return Path(unquote(database.removeprefix("file:")) if database.startswith("file:") else database)


def _look_through(file: Path, *, is_read_only: bool) -> None:
    """Make sure that a file is whole before hours of trials are added to it, or what it says is believed.

    Raises:
        RunError: it is not.
        sqlite3.Error: it cannot be read at all.
    """
    if not file.is_file() or file.stat().st_size == 0:
        if is_read_only:
            raise unfinished(file)
        return
    address = f"file:{quote(str(file.resolve()))}?mode={'ro' if is_read_only else 'rw'}"
    with closing(sqlite3.connect(address, uri=True, timeout=_PATIENCE_S)) as connection:
        (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    if found != "ok":
        raise damaged(file, " ".join(str(found).split()))
    if is_read_only and "studies" not in tables:
        raise unfinished(file)


def _said(error: BaseException) -> BaseException:
    """What SQLite itself said, without the statements of those in between; the error, where it said nothing."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, sqlite3.Error):
        found = found.__cause__
    return found or error


def _told(file: Path, error: BaseException | None, *, is_read_only: bool, is_open: bool = False) -> RunError | None:
    """What SQLite says of a file, in words; `None` for what is no trouble of the file, and Optuna's own to answer."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None or "too many SQL variables" in str(error):  # then Optuna asks for less at once
        # Of a text that is none Python itself says so, without a code.
        is_damaged = isinstance(error, sqlite3.OperationalError) and "Could not decode" in str(error)
        return damaged(file, "a text in it is none") if is_damaged else None
    run, why, kind = RunFolder(path=file.parent), f"{error} ({file.name})", code & 0xFF
    if is_read_only and kind == sqlite3.SQLITE_READONLY:
        return _for_readers(file, is_half_written=code == sqlite3.SQLITE_READONLY_ROLLBACK, is_open=is_open)
    if kind in _DAMAGED or code in _SHORT:
        return damaged(file, error)
    if kind in _NO_ROOM | _NO_RIGHTS:
        return run.unwritable(why, is_full=kind in _NO_ROOM)
    if kind in _HELD:
        return RunError(
            f"{str(file)!r} is held by another program: {error}. Close what has opened it, and the same call with this "
            "run_dir goes on."
        )
    return None


def _for_readers(file: Path, *, is_half_written: bool, is_open: bool) -> RunError:
    """What who only reads is told where something would have to be written."""
    if is_half_written:
        return RunError(
            f"{str(file)!r} waits to be mended: a process died while it wrote, and who only reads cannot undo that. "
            "Give this run_dir to select_backbone, which does."
        )
    if is_open:
        return RunError(f"{str(file)!r} is open for reading alone: select_backbone adds to it, nobody else.")
    return unfinished(file)  # Optuna makes the tables that it misses

"""The study in a PostgreSQL server: opened, waited for when it is away, and its troubles told in words."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from optuna.storages import RDBStorage
from sqlalchemy import NullPool, event
from sqlalchemy.engine import Dialect, ExceptionContext

from autobackbone.errors import RunError
from autobackbone.runfolder import RunFolder
from autobackbone.servers import DRIVERS, Server

# Once it has been reached, it is waited for so long: a server that is started anew is back by then.
_PATIENCE_S = 30.0
_PAUSE_S = 0.25
# Of PostgreSQL's library, unless the address says otherwise: a host that does not answer, and one that has vanished, is
# known as such in seconds, and not when the operating system gives up.
_USUAL: Mapping[str, Any] = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
    "fallback_application_name": "autobackbone",
}
# Two runs that make the tables at once: the later one finds them there.
_N_OPENINGS = 5
_MADE_BY_ANOTHER = frozenset({"23505", "42P07", "42710"})
_AWAY = ("08", "57P0")
_DENIED = ("28",)
_NO_ROOM = frozenset({"53100", "53200"})
_CROWDED = frozenset({"53300"})
_NO_DATABASE = "3D000"
_NO_RIGHTS = frozenset({"42501"})
_CLOSED = frozenset({"25006"})
_NO_TABLES = frozenset({"42P01", "42703", "3F000"})
# Of two transactions that wait for each other one is given up: Optuna tries again.
_OPTUNAS = frozenset({"40001", "40P01"})
_NAME = re.compile(r"autobackbone-[0-9a-f]{12}")


def new_name() -> str:
    """A name for the study of a new run, which no other run in any server has."""
    return f"autobackbone-{secrets.token_hex(6)}"


def is_name(text: object) -> bool:
    """Whether a run's study may be called so."""
    return isinstance(text, str) and _NAME.fullmatch(text) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyServer:
    """A study in a PostgreSQL server, among those of other runs.

    Args:
        server: where.
        first_name: of the run's first study; one that has grown has a number behind it.
    """

    server: Server
    first_name: str

    def __str__(self) -> str:
        """Where it is, as people say it."""
        return f"{self.first_name!r} in {str(self.server)!r}"

    def noted(self) -> dict[str, str]:
        """What the run folder notes of it: no password, and nothing that tells how to connect."""
        return {"server": str(self.server), "study": self.first_name}

    def open_storage(self, *, is_read_only: bool = False, say: Callable[[str], object] | None = None) -> RDBStorage:
        """Optuna's storage in the server; its tables are made, unless it is only read.

        From then on the server is waited for when it is away between two transactions, up to half a minute: none is
        ever sent twice.

        Args:
            is_read_only: whether every transaction is a reading one.
            say: told when it is waited for.

        Raises:
            RunError: there is no driver, it cannot be reached, or what it holds cannot be used; so later on, too.
        """
        storage = self._opened(is_read_only=is_read_only)

        def connected(dialect: Dialect, _: object, arguments: list[Any], options: dict[str, Any]) -> Any:
            away = dialect.loaded_dbapi.OperationalError
            return self._patiently(lambda: dialect.connect(*arguments, **options), away, say or (lambda _: None))

        def told(context: ExceptionContext) -> RunError | None:
            if context.is_pre_ping:  # a connection that does not answer is replaced, whatever it says
                context.is_disconnect = True
                return None
            if not isinstance(context.original_exception, context.dialect.loaded_dbapi.Error):
                return None  # Ctrl-C, or a mistake of ours
            is_away = context.is_disconnect or context.connection is None
            return self._told(context.original_exception, is_away=is_away, is_read_only=is_read_only, is_open=True)

        event.listen(storage.engine, "do_connect", connected)
        event.listen(storage.engine, "handle_error", told)
        return storage

    def require_usable(self) -> None:
        """Make sure that it can be searched in, before hours of work.

        Raises:
            RunError: it cannot.
        """
        self.open_storage().engine.dispose()

    def require_study(self, run: RunFolder) -> None:
        """Make sure that trials which have files are in the study: a new study would count them anew.

        Raises:
            RunError: there are files of trials, and no study.
        """
        if not run.has_trial_files():
            return
        storage = self.open_storage()
        try:
            storage.get_study_id_from_name(self.first_name)
        except KeyError as error:
            raise RunError(
                f"there is no study {self}, and there are files of trials in {str(run.path)!r}. Give the server that "
                "has it by storage=, put it back, or give another run_dir."
            ) from error
        finally:
            storage.engine.dispose()

    def damaged(self, why: object) -> RunError:
        """The error for a study that no trials can be read from."""
        return RunError(
            f"the study {self} cannot be used: {why}. Put it back from a copy of the database, or search again in "
            "another run_dir. Networks and predictions lie in the run folder, in 'trials'."
        )

    def unfinished(self) -> RunError:
        """The error for a server that has no such study, or half of one."""
        return RunError(
            f"there is no study {self}: it lies in another server, was deleted there, or the run was cut off in its "
            "first moment. Give the server that has it by storage=; or give this run_dir to select_backbone, which "
            "goes on with a run that had tried nothing."
        )

    def _opened(self, *, is_read_only: bool) -> RDBStorage:
        for n_left in reversed(range(_N_OPENINGS)):
            try:
                return RDBStorage(
                    # All else is told beside it: so nothing that prints an address shows a password.
                    f"postgresql+{_driver(self.server)}://",
                    engine_kwargs=_engine_options(self.server, is_read_only=is_read_only),
                    skip_table_creation=is_read_only,
                )
            except RunError:
                raise
            except Exception as error:  # noqa: BLE001  in tables from elsewhere Optuna may fail in any way
                said = _said(error)
                if _state_of(said) in _MADE_BY_ANOTHER and n_left:
                    time.sleep(_PAUSE_S)
                    continue
                # Before there is a connection the driver knows no codes.
                kinds = {kind.__name__ for kind in type(said).__mro__}
                is_away = "OperationalError" in kinds and not _state_of(said)
                told = self._told(said, is_away=is_away, is_read_only=is_read_only, is_open=False)
                raise told or self.damaged(_line(said)) from said
        raise AssertionError

    def _patiently(self, connect: Callable[[], Any], away: type[Exception], say: Callable[[str], object]) -> Any:
        """A connection, waited for while the server is away."""
        until, is_waiting = time.monotonic() + _PATIENCE_S, False
        while True:
            try:
                connection = connect()
            except away:
                if time.monotonic() >= until:
                    raise
            else:
                if is_waiting:
                    say(f"the server {self.server} answers again")
                return connection
            if not is_waiting:
                say(f"the server {self.server} does not answer: it is waited for, up to {_PATIENCE_S:.0f} s")
            is_waiting = True
            time.sleep(_PAUSE_S)

    def _told(
        self, error: BaseException | None, *, is_away: bool, is_read_only: bool, is_open: bool
    ) -> RunError | None:
        """What the driver says, in words; `None` for what is Optuna's own to answer."""
        state, why = _state_of(error), _line(error)
        if state in _OPTUNAS or (is_open and state.startswith("23")):
            return None
        if is_away or state.startswith((*_AWAY, *_DENIED)) or state in _CROWDED or state == _NO_DATABASE:
            return self._unreachable(why, state, is_open=is_open)
        if is_read_only and state in _CLOSED | _NO_TABLES:
            # Of tables that are not there, Optuna would make those that it misses.
            is_write = state in _CLOSED and is_open
            return RunError(f"the study {self} is open for reading alone.") if is_write else self.unfinished()
        if state in _NO_ROOM | _NO_RIGHTS | _CLOSED:
            remedy = "Free some of its disk or memory" if state in _NO_ROOM else "Let this user create and write there"
            return RunError(
                f"the study {self} cannot be read or written: {why}. What had ended is kept. {remedy}, and the same "
                "call with this run_dir goes on."
            )
        return self.damaged(why)

    def _unreachable(self, why: str, state: str, *, is_open: bool) -> RunError:
        """What to do where there is no connection; what is not known by its code is told by its words."""
        if state.startswith(_DENIED) or any(word in why for word in ("password", "pg_hba", "role ")):
            remedy = (
                "Give the user in storage=, and the password there, in PGPASSWORD or in ~/.pgpass; it is noted nowhere"
            )
        elif state == _NO_DATABASE or ("database" in why and "does not exist" in why):
            remedy = f"Make it, as by `createdb {self.server.database}`, or name another in storage="
        elif state in _CROWDED or "too many" in why or "connection slots" in why:
            remedy = "Close other connections to it, or let it have more"
        else:
            remedy = "Start it, or name another in storage="
        if not is_open:
            return RunError(f"the database {str(self.server)!r} cannot be reached: {why}. {remedy}.")
        return RunError(
            f"the database {str(self.server)!r} cannot be reached any more: {why}. What had ended is kept there. "
            f"{remedy}; then the same call with this run_dir goes on."
        )


def _driver(server: Server) -> str:
    """The one that is named, or installed.

    Raises:
        RunError: there is none.
    """
    wanted = (server.driver,) if server.driver else DRIVERS
    driver = next((name for name in wanted if find_spec(name) is not None), None)
    if driver is None:
        raise RunError(
            f"a study in a PostgreSQL server needs {' or '.join(wanted)}, which is not installed. "
            'Run `pip install "autobackbone[postgresql]"`, or leave storage= out: the study is then a file of the run.'
        )
    return driver


def _engine_options(server: Server, *, is_read_only: bool) -> dict[str, Any]:
    where = {"host": server.host, "port": server.port, "user": server.user, "dbname": server.database}
    named = {name: value for name, value in where.items() if value is not None}
    options: dict[str, Any] = {"connect_args": {**_USUAL, **server.options, **named, **server.secrets}}
    if is_read_only:
        # Who looks holds no connection while nothing is asked.
        return {**options, "poolclass": NullPool, "execution_options": {"postgresql_readonly": True}}
    return {**options, "pool_pre_ping": True}


def server_of(storage: RDBStorage) -> Server:
    """Where a storage that was opened here is."""
    told = storage.engine_kwargs["connect_args"]
    return Server(user=told.get("user"), host=told.get("host"), port=told.get("port"), database=told["dbname"])


def _said(error: BaseException) -> BaseException:
    """What the driver itself said, without the statements of those in between."""
    found: BaseException = error
    while found.__cause__ is not None:
        found = found.__cause__
    return found


def _state_of(error: BaseException | None) -> str:
    """PostgreSQL's code for what happened, as psycopg and psycopg2 call it; empty where there is none."""
    return getattr(error, "sqlstate", None) or getattr(error, "pgcode", None) or ""


def _line(error: object) -> str:
    """The first line of what was said; the others repeat it, or guess."""
    return next(iter(str(error).strip().splitlines()), "").strip().rstrip(".")

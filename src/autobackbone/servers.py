"""Database servers that hold studies: how they are named, and which of them this user has named.

A run folder says where its study lies, and may come from anybody. So what it says is only compared: whom to connect to,
and how, is always what the user named, now or earlier on this machine.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from autobackbone.errors import ArgumentError
from autobackbone.runfolder import write_text

_SCHEMES = ("postgresql", "postgres")
DRIVERS = ("psycopg2", "psycopg")
_SECRETS = ("password", "sslpassword")
# These would name another place than the address does.
_ELSEWHERE = ("hostaddr", "service", "dbname", "user")


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A database in a PostgreSQL server; printed, it shows no password.

    Args:
        driver: of Python, one of `DRIVERS`; empty for whichever is installed.
        user: `None` for the one that PostgreSQL's own library takes, as for the host and the port.
        host: a name, a number, or the folder of a socket.
        port: from 1 to 65535.
        database: its name.
        options: further ones of PostgreSQL's library, such as `sslmode`.
        secrets: passwords, by the name of the option.
    """

    driver: str = ""
    user: str | None = None
    host: str | None = None
    port: int | None = None
    database: str
    options: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        """Its address without password and options."""
        return self._address("postgresql", {})

    @property
    def place(self) -> tuple[str | None, int | None, str]:
        """What makes it this database and no other, whoever looks into it."""
        return self.host, self.port, self.database

    def noted(self) -> str:
        """All of its address but what is secret."""
        return self._address(f"postgresql+{self.driver}" if self.driver else "postgresql", self.options)

    def _address(self, scheme: str, options: Mapping[str, str]) -> str:
        """With the folder of a socket as an option, as everybody reads it."""
        host, port = self.host or "", f":{self.port}" if self.port is not None else ""
        if host.startswith("/"):
            options = {"host": host, **({"port": port[1:]} if port else {}), **options}
            host = port = ""
        user = f"{quote(self.user, safe='')}@" if self.user is not None else ""
        where = f"[{host}]" if ":" in host else quote(host, safe="")
        query = f"?{urlencode(options, safe='/')}" if options else ""
        return f"{scheme}://{user}{where}{port}/{quote(self.database, safe='')}{query}"


def as_server(given: Server | str | None) -> Server | None:
    """The server that an argument names; `None` for none.

    Raises:
        ArgumentError: it names none. What came is not repeated: it may hold a password.
    """
    if given is None or isinstance(given, Server):
        return given
    if not isinstance(given, str):
        raise _refused(f"a {type(given).__name__} came")
    scheme, is_address, _ = given.partition("://")
    name, _, driver = scheme.partition("+")
    if not is_address or not scheme.isascii() or not name.isalnum():
        raise _refused("a text without postgresql:// came")
    if name not in _SCHEMES:
        raise _refused(f"{name}://… came. Without storage= the study is a SQLite file in the run folder")
    if driver not in ("", *DRIVERS):
        raise _refused(f"{scheme}://… came, and the drivers that can be used are {' and '.join(DRIVERS)}")
    if not given.isprintable() or " " in given:
        raise _refused("one with spaces or control characters came")
    return _parsed(given, driver)


def _parsed(text: str, driver: str) -> Server:
    try:
        parts = urlsplit(text)
    except ValueError:
        raise _refused("one whose host cannot be read came") from None
    if parts.fragment:
        raise _refused("one with a # came; in a name or a password that is written as %23")
    login, _, where = parts.netloc.rpartition("@")
    user, has_password, password = login.partition(":")
    host, port = _host_and_port(where)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    secrets = {name: options.pop(name) for name in _SECRETS if name in options}
    if has_password:
        secrets["password"] = unquote(password)
    elsewhere = [name for name in _ELSEWHERE if name in options]
    if elsewhere:
        raise _refused(f"one with the option {elsewhere[0]} came; user, host and database stand in the address itself")
    host = options.pop("host", host)
    number = _port(options.pop("port", port))
    database = unquote(parts.path.removeprefix("/"))
    if not database or "/" in parts.path.removeprefix("/"):
        raise _refused("one without the name of one database came")
    return Server(
        driver=driver,
        user=unquote(user) or None,
        host=host if host.startswith("/") else host.lower() or None,
        port=number,
        database=database,
        options=options,
        secrets=secrets,
    )


def _host_and_port(where: str) -> tuple[str, str]:
    if where.startswith("["):
        host, _, port = where[1:].partition("]")
        return host, port.removeprefix(":")
    host, _, port = where.partition(":")
    return unquote(host), port


def _port(text: str) -> int | None:
    if not text:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= 5 and 0 < int(text) < 2**16):
        raise _refused("one whose port is no number from 1 to 65535 came; in a password : is written as %3A, @ as %40")
    return int(text)


def _refused(came: str) -> ArgumentError:
    return ArgumentError(
        'storage is the address of a PostgreSQL database, such as "postgresql://me@db.example.org/optuna", or None; '
        f"{came}."
    )


def named_before(place: tuple[str | None, int | None, str]) -> Server | None:
    """The server at a place, as the user named it last on this machine; `None` if that was never."""
    return next((server for server in _named() if server.place == place), None)


def remember(server: Server) -> bool:
    """Note that the user has named a server, without its password; whether it could be noted."""
    others = [one.noted() for one in _named() if one.place != server.place]
    file = _file()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, json.dumps([server.noted(), *others], indent=1))
    except OSError:
        return False
    return True


def _named() -> Iterator[Server]:
    """The latest first; a line that cannot be read names nobody."""
    try:
        lines = json.loads(_file().read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return
    for line in lines if isinstance(lines, list) else ():
        with suppress(ArgumentError):
            server = as_server(line)
            if server is not None:
                yield server


def _file() -> Path:
    """Of this user alone: a cache may be shared, and whoever adds a line here speaks for them."""
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "autobackbone" / "servers.json"

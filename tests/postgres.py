"""A real PostgreSQL server for tests: made in a temporary folder, stopped and started as they like."""

from __future__ import annotations

import itertools
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

USER, PASSWORD = "tester", "s3cret-Wörd/@:"


def programs() -> Path | None:
    """Where a server's programs are; Debian keeps them off the path."""
    found = shutil.which("initdb")
    folders = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: int(folder.parent.name), reverse=True
    )
    return next(
        (one for one in (*([Path(found).parent] if found else []), *folders) if (one / "pg_ctl").exists()), None
    )


def _unprivileged() -> dict[str, Any]:
    """Whom its programs run as: they refuse to run as root."""
    if os.geteuid() != 0:
        return {}
    import pwd

    there = {entry.pw_name: entry for entry in pwd.getpwall()}
    user = there.get("postgres") or there["nobody"]
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


class Postgres:
    """One server on this machine alone. Over its port it wants the password, through its socket it does not."""

    def __init__(self, bin_folder: Path, folder: Path):
        self._bin, self.folder, self._data = bin_folder, folder, folder / "data"
        self._as = _unprivileged()
        self._numbers = itertools.count()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        (folder / "password").write_text(PASSWORD, encoding="utf-8")
        if self._as:
            for path in (folder, folder / "password"):
                shutil.chown(path, self._as["user"], self._as["group"])
        self._run(
            *(
                "initdb",
                "--no-sync",
                "--encoding=UTF8",
                "--locale=C",
                f"--username={USER}",
                f"--pwfile={folder}/password",
            ),
            *("--auth-local=trust", "--auth-host=scram-sha-256", f"--pgdata={self._data}"),
        )
        self.start()

    def _run(self, program: str, *arguments: str) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        made = subprocess.run(
            [self._bin / program, *arguments],
            cwd=self.folder,
            env=environment | {"LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            **self._as,
        )
        assert made.returncode == 0, made.stdout.decode()

    def start(self) -> None:
        """Start it, and come back once it answers."""
        options = (
            f"-c listen_addresses=127.0.0.1 -c port={self.port} -c unix_socket_directories={self.folder} "
            "-c fsync=off -c full_page_writes=off -c max_connections=40 -c shared_buffers=16MB"
        )
        self._run("pg_ctl", "start", "-w", "-D", str(self._data), "-l", str(self.folder / "log"), "-o", options)

    def stop(self, mode: str = "fast") -> None:
        """Stop it, as by a restart of its machine (`fast`) or at once (`immediate`)."""
        self._run("pg_ctl", "stop", "-w", "-m", mode, "-D", str(self._data))

    def new_database(self) -> str:
        """The name of one that is empty."""
        name = f"db{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name}", database="postgres")
        return name

    def execute(self, statement: str, *, database: str) -> list[tuple[object, ...]]:
        """Run a statement as the owner of everything."""
        import psycopg2

        with closing(psycopg2.connect(host=str(self.folder), port=self.port, user=USER, dbname=database)) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return cursor.fetchall() if cursor.description else []

    def address(self, database: str, *, user: str = USER, password: str | None = None) -> str:
        """Over its port with a password, as it stands in a URL; else through its socket."""
        if password is None:
            return f"postgresql://{user}@/{database}?host={self.folder}&port={self.port}"
        return f"postgresql://{user}:{password}@127.0.0.1:{self.port}/{database}"


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """The server of this session."""
    pytest.importorskip("psycopg2", reason="no driver for PostgreSQL is installed")
    found = programs()
    if found is None:
        pytest.skip("no PostgreSQL server is installed here: `apt-get install postgresql` brings its programs")
    # Not pytest's own folder: who runs the server may not look into that.
    with tempfile.TemporaryDirectory(prefix="postgres-", ignore_cleanup_errors=True) as folder:
        server = Postgres(found, Path(folder))
        try:
            yield server
        finally:
            server.stop("immediate")


@pytest.fixture
def named_servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a user who has named no server yet."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in [name for name in os.environ if name.startswith("PG")]:
        monkeypatch.delenv(name)
    return tmp_path / "config"

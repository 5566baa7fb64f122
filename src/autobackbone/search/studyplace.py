"""Where a study lies: in a file of its run folder, or in a server."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import optuna
from optuna.storages import RDBStorage

from autobackbone.errors import ArgumentError, RunError
from autobackbone.runfolder import RunFolder
from autobackbone.search.studyfile import StudyFile
from autobackbone.search.studyserver import StudyServer, is_name, new_name, server_of
from autobackbone.servers import Server, as_server, named_before

StudyPlace = StudyFile | StudyServer
_STORAGE = "storage"


def place_for(run: RunFolder, given: Server | None) -> StudyPlace:
    """Where the study of a run is to be, or is if it has begun; see `place_of_run`."""
    if run.exists():
        return place_of_run(run, run.read_facts(), given)
    return StudyFile(run.study_file) if given is None else StudyServer(server=given, first_name=new_name())


def place_of_run(run: RunFolder, facts: Mapping[str, Any], given: Server | None) -> StudyPlace:
    """Where the study of a run is. Nothing is connected to that the user has not named, now or before.

    Args:
        run: its folder.
        facts: what that says.
        given: the server as the user has named it now.

    Raises:
        RunError: it is in a server that the user never named; or a server was named, and it is in a file.
    """
    noted = facts.get(_STORAGE)
    if noted is None:
        if given is not None:
            raise RunError(
                f"the study of the run {str(run.path)!r} is the file 'study.db' in it, and storage={str(given)!r} "
                "came. Leave storage= out, or give another run_dir."
            )
        return StudyFile(run.study_file)
    server, name = _noted(run, noted)
    named = given or named_before(server.place)
    if named is None:
        raise RunError(
            f"the study of the run {str(run.path)!r} is, as that says, in the database {str(server)!r}, which you have "
            "not named on this machine; a run folder has nobody connected to by itself. If you know it, say so: "
            f'open_run(…, storage="{server}"), or --storage on the command line.'
        )
    return StudyServer(server=named, first_name=name)


def _noted(run: RunFolder, noted: Any) -> tuple[Server, str]:
    """What a run folder says, which may be anything."""
    try:
        server, name = as_server(noted["server"]), noted["study"]
    except (ArgumentError, LookupError, TypeError):
        server, name = None, None
    if server is None or not is_name(name):
        raise run.damaged(f"{_STORAGE!r} must be null, or tell the server and the name of a study")
    return server, name


def as_place(given: StudyPlace | Path) -> StudyPlace:
    """A place as it is, or a path as that of a file."""
    return StudyFile(given) if isinstance(given, Path) else given


def place_of(study: optuna.Study) -> StudyPlace:
    """Where a study lies, to be told in words."""
    backend = getattr(study._storage, "_backend", None)  # noqa: SLF001  there is no public way
    if not isinstance(backend, RDBStorage):
        return StudyFile(Path("study.db"))
    if backend.engine.dialect.name == "postgresql":
        return StudyServer(server=server_of(backend), first_name=study.study_name)
    database = str(backend.engine.url.database)
    return StudyFile(Path(unquote(database.removeprefix("file:")) if database.startswith("file:") else database))

"""Whole searches whose study lies in a real PostgreSQL server: continued, read, watched, and cut off."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path
from urllib.parse import quote

import pytest
from tests.conftest import TINY, command, make_pictures
from tests.postgres import PASSWORD
from tests.search.test_studyserver import answered

from autobackbone import Budget, open_run, plan, select_backbone
from autobackbone.errors import ArgumentError, RunError, RunLockedError
from autobackbone.progress import Silent
from autobackbone.runfolder import RunFolder
from autobackbone.search import studyserver

DATASET = make_pictures()


class Hears(Silent):
    """Keeps what is said, and does something at a line that says so."""

    def __init__(self, part="", then=None):
        self.lines, self._part, self._then = [], part, then

    def say(self, line):
        self.lines.append(line)
        if self._then is not None and self._part in line:
            then, self._then = self._then, None
            then()


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def search(cache, random_weights, tmp_path, named_servers):
    def run(budget=Budget(n_trials=0), **given):  # noqa: B008  frozen
        usual = {"run_dir": tmp_path / "run", "cache_dir": cache, "weights": random_weights(TINY), "progress": False}
        usual |= {"backbones": TINY, "image_sizes": [32], "space": {"n_epochs": 2, "n_blocks_kept": None}}
        return select_backbone(DATASET, budget, **usual | given)

    return run


@pytest.fixture
def address(postgres):
    """Of an empty database, over its port, with the password."""
    return postgres.address(postgres.new_database(), password=quote(PASSWORD, safe=""))


@pytest.fixture
def with_password(monkeypatch):
    monkeypatch.setenv("PGPASSWORD", PASSWORD)


def without_password(address):
    return address.replace(":" + quote(PASSWORD, safe=""), "")


def told(trials):
    return [(trial.number, trial.state, trial.score, trial.latency_ms, trial.lr) for trial in trials]


def stored(run, named_servers):
    """All texts that a search has left."""
    files = [
        file for folder in (run, named_servers) for file in folder.rglob("*") if file.suffix in (".json", ".jsonl", "")
    ]
    return {file.name: file.read_text(encoding="utf-8") for file in files if file.is_file()}


def test_a_run_whose_study_is_in_a_server_is_read_and_continued_without_naming_it(
    search, address, named_servers, with_password, tmp_path
):
    heard = Hears()
    first = search(Budget(n_trials=1), storage=address, progress=heard)
    assert {trial.n_unfrozen > 0 for trial in first.trials} == {True, False}
    assert not list(first.path.glob("study.db*"))
    texts = stored(first.path, named_servers) | {"lines": "\n".join(heard.lines), "repr": repr(first)}
    assert json.loads(texts["servers.json"]) == [without_password(address)]
    assert json.loads(texts["run.json"])["storage"]["server"] == without_password(address)
    assert not [name for name, text in texts.items() if PASSWORD in text or quote(PASSWORD, safe="") in text]
    name = json.loads(texts["run.json"])["storage"]["study"]
    assert f"the study is '{name}' in '{without_password(address)}'" in heard.lines

    moved = Path(shutil.move(first.path, tmp_path / "moved"))
    again = open_run(moved)
    assert told(again.trials) == told(first.trials)
    assert again.study.study_name == name
    assert again.predict(DATASET[0][:2]).shape == (2,)
    shown = command("show", moved, "--all")
    assert (shown.code, TINY in shown.out) == (0, True)
    third = search(Budget(n_trials=1), run_dir=moved)
    assert told(third.trials)[: len(first.trials)] == told(first.trials)
    assert len(third.trials) == len(first.trials) + 1
    fourth = again.more(Budget(n_trials=0), dataset=DATASET, cache_dir=tmp_path, progress=False)
    assert told(fourth.trials) == told(third.trials)
    with RunFolder(path=moved).held(), pytest.raises(RunLockedError, match="is being worked on by"):
        search(run_dir=moved)


@pytest.mark.slow
def test_a_search_starts_from_the_front_of_a_run_in_a_server(search, address, with_password, tmp_path):
    first = search(Budget(n_trials=1), storage=address)
    tuned = {(one.n_unfrozen, one.lr) for one in first.front if one.n_unfrozen > 0}
    for number, warm in enumerate((first, first.path)):
        heard = Hears()
        search(Budget(n_trials=0), run_dir=tmp_path / str(number), warm_start=warm, progress=heard)
        noted = json.loads((tmp_path / str(number) / "run.json").read_text(encoding="utf-8"))["warm_start"]["front"]
        assert {(one["n_unfrozen"], one["lr"]) for one in noted if one["n_unfrozen"] > 0} == tuned


def test_what_a_search_needs_of_a_server_is_told_before_anything_is_read(search, address, postgres, tmp_path):
    for storage, error, words in (
        (f"mysql://me:{quote(PASSWORD)}@h/db", ArgumentError, r"mysql://… came"),
        (address.replace("tester", "nobody_here"), RunError, "password authentication failed"),
        (postgres.address("no_such"), RunError, "Make it, as by `createdb no_such`"),
        ("postgresql://127.0.0.1:1/db", RunError, r"Start it, or name another in storage="),
    ):
        heard = Hears()
        with pytest.raises(error, match=words):
            search(storage=storage, progress=heard)
        assert heard.lines == []
        assert not list((tmp_path / "run").glob("*.json"))
    with pytest.raises(ArgumentError, match="storage is the address of a PostgreSQL database"):
        plan(DATASET, "1min", storage="postgresql://")
    refused = command("select", tmp_path, "--storage", f"mysql://me:{quote(PASSWORD)}@h/db")
    assert refused.code == 1
    assert "mysql://… came" in refused.err


@pytest.mark.slow
def test_a_study_that_is_not_where_it_is_looked_for_is_told(search, address, postgres):
    first = search(storage=address)
    facts = json.loads((first.path / "run.json").read_text())
    other = postgres.address(postgres.new_database())
    with pytest.raises(
        RunError, match=r"there is no study 'autobackbone-.*and there are files of trials in .*storage="
    ):
        search(storage=other)
    assert json.loads((first.path / "run.json").read_text()) == facts
    with pytest.raises(RunError, match=r"there is no study 'autobackbone-"):
        _ = open_run(first.path, storage=other).trials
    # A database that has another name by now is named once; then the run knows it.
    new = postgres.new_database()
    before = address.rpartition("/")[2]
    postgres.execute(f"DROP DATABASE {new}", database="postgres")
    postgres.execute(
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{before}'", database="postgres"
    )
    postgres.execute(f"ALTER DATABASE {before} RENAME TO {new}", database="postgres")
    again = search(storage=postgres.address(new))
    assert told(again.trials) == told(first.trials)
    assert told(open_run(first.path).trials) == told(first.trials)


@pytest.mark.slow
def test_a_copy_of_a_run_folder_shares_its_study_and_is_told_so_where_it_lacks_files(search, postgres, tmp_path):
    first = search(storage=postgres.address(postgres.new_database()))
    shutil.copytree(first.path, tmp_path / "copy")
    search(Budget(n_trials=1))
    with pytest.raises(RunError, match=r"copy/trials/0001/validation\.npy' is not there"):
        search(Budget(n_trials=1), run_dir=tmp_path / "copy")


def test_a_run_in_a_file_takes_no_server(search, address):
    first = search()
    with pytest.raises(RunError, match=r"is the file 'study\.db' in it, and storage=.* came\. Leave storage= out"):
        search(storage=address)
    with pytest.raises(RunError, match=r"Leave storage= out"):
        _ = open_run(first.path, storage=address).trials
    assert open_run(first.path).trials


@pytest.mark.slow
def test_a_server_that_is_started_anew_in_the_midst_of_a_search_ends_nothing(search, postgres):
    def restart():
        postgres.stop()
        threading.Timer(0.5, postgres.start).start()

    heard = Hears("trial 0: ", restart)
    result = search(Budget(n_trials=1), storage=postgres.address(postgres.new_database()), progress=heard)
    assert [trial.state for trial in result.trials] == ["finished", "finished"]
    waited = [line for line in heard.lines if line.startswith("the server ")]
    assert len(waited) == 2
    assert waited[0].endswith(" does not answer: it is waited for, up to 30 s")
    assert waited[1].endswith(" answers again")


@pytest.mark.slow
def test_a_server_that_stops_in_the_midst_of_a_search_costs_no_trial_that_ended(
    search, postgres, monkeypatch, tmp_path
):
    monkeypatch.setattr(studyserver, "_PATIENCE_S", 0.5)
    address, heard = postgres.address(postgres.new_database()), Hears("trial 0: ", postgres.stop)
    try:
        with pytest.raises(RunError, match=r"cannot be reached any more: .*What had ended is kept there\. Start it"):
            search(Budget(n_trials=1), storage=address, progress=heard)
    finally:
        postgres.start()
    (kept,) = open_run(tmp_path / "run").trials
    result = search(Budget(n_trials=1))
    assert told(result.trials)[0][:3] == told([kept])[0][:3]
    assert [trial.state for trial in result.trials] == ["finished", "finished"]


def test_a_dashboard_shows_the_trial_that_is_being_trained(search, postgres):
    from optuna_dashboard import wsgi

    shown = []

    def look():
        app = wsgi(address.replace("postgresql:", "postgresql+psycopg2:"))
        (study,) = answered(app, "/api/studies")["study_summaries"]
        shown.extend(answered(app, f"/api/studies/{study['study_id']}", "after=0")["trials"])

    address, heard = postgres.address(postgres.new_database()), Hears("paused after epoch 1 of 2", look)
    result = search(Budget(n_trials=1), storage=address, progress=heard)
    assert [trial["state"] for trial in shown] == ["Complete", "Running"]
    assert [trial.state for trial in result.trials] == ["finished", "finished"]

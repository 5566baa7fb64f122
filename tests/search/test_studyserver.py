"""A study in a real PostgreSQL server: what goes wrong there is told in words, and nothing that was told is lost."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from io import BytesIO
from urllib.parse import quote

import pytest
from sqlalchemy import event
from tests.postgres import PASSWORD
from tests.search.test_studyfile import SPACE, add_trials, facts

from autobackbone.errors import RunError
from autobackbone.search import studyserver
from autobackbone.search.study import (
    adopt_abandoned,
    begin_sitting,
    connected,
    end_sitting,
    grown,
    has_ended,
    load_study,
    note_test_score,
    open_study,
    read_sound_trials,
    read_trials,
    record,
)
from autobackbone.search.studyplace import place_of
from autobackbone.search.studyserver import StudyServer, is_name, new_name
from autobackbone.servers import as_server


@pytest.fixture
def place(postgres):
    """A new study in a database of its own."""
    return in_database(postgres.address(postgres.new_database()))


def in_database(address, name=None):
    return StudyServer(server=as_server(address), first_name=name or new_name())


def opened(place, **told):
    return open_study(place, is_higher_better=True, metric_name="accuracy", seed=0, **told)


def noted(trials):
    return facts(trials), [(trial.rung_scores, trial.image_size, trial.extras, trial.test_score) for trial in trials]


def test_a_study_in_a_server_holds_what_one_in_a_file_does(place, tmp_path):
    kept = []
    for where in (place, tmp_path / "study.db"):
        study = opened(where)
        add_trials(study)
        running = study.ask(SPACE.distributions())
        paused = replace(read_trials(study)[0], number=running.number, rung_scores=(0.5, 0.25), score=0.5)
        record(study, paused)
        study.enqueue_trial({"backbone": "net"})
        note_test_score(study, 1, 0.5, (0.25, 0.75))
        end_sitting(study, begin_sitting(study), 3.0, is_completed=True)
        assert adopt_abandoned(study, paused.number.__eq__) == 1
        again = load_study(where)
        assert has_ended(again)
        kept.append(noted(read_sound_trials(again)))
    assert kept[0] == kept[1]
    assert [state for _, state, *_ in kept[0][0]] == ["finished"] * 3 + ["running", "failed"]


def test_runs_in_one_server_do_not_see_each_other_and_grow_by_themselves(place):
    other = replace(place, first_name=new_name())
    first, second = opened(place), opened(other)
    add_trials(first, n=2)
    add_trials(second, n=1)
    more = SPACE.distributions() | {"backbone": type(SPACE.distributions()["backbone"])(("net", "other"))}
    further = grown(first, more)
    assert further.study_name == f"{place.first_name}-2"
    assert opened(place).study_name == load_study(place).study_name == f"{place.first_name}-2"
    assert facts(read_trials(load_study(place))) == facts(read_trials(first))
    assert load_study(other).study_name == other.first_name
    assert len(read_trials(second)) == 1
    assert str(place_of(load_study(other))) == str(other)


def test_many_runs_may_begin_in_an_empty_database_at_once(place):
    places = [replace(place, first_name=new_name()) for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        names = list(pool.map(lambda one: opened(one).study_name, places))
    assert names == [one.first_name for one in places]
    assert all(read_trials(load_study(one)) == [] for one in places)


def test_who_reads_writes_nothing_and_makes_no_tables(postgres, place):
    tables = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
    with pytest.raises(RunError, match=r"there is no study 'autobackbone-.*Give the server that has it by storage="):
        load_study(place)
    assert postgres.execute(tables, database=place.server.database) == []
    writing = opened(place)
    add_trials(writing)
    used = (
        f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{place.server.database}' AND pid <> pg_backend_pid()"
    )
    n_writing = postgres.execute(used, database=place.server.database)
    reading = load_study(place)
    with pytest.raises(RunError, match="is open for reading alone"):
        reading.set_user_attr("a", 1)
    with pytest.raises(RunError, match="is open for reading alone"):
        add_trials(reading)
    assert len(read_trials(reading)) == 3
    with pytest.raises(RunError, match="there is no study 'autobackbone-"):
        load_study(replace(place, first_name=new_name()))
    # Who looks keeps no connection; who has written lets go of theirs.
    wait_until(lambda: postgres.execute(used, database=place.server.database) == n_writing)
    with connected(writing):
        assert len(read_trials(writing)) == 3
    wait_until(lambda: postgres.execute(used, database=place.server.database) == [(0,)])
    assert len(read_trials(writing)) == 3


def wait_until(is_so):
    deadline = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_password_is_used_and_shown_nowhere(postgres, monkeypatch, tmp_path):
    database, secret = postgres.new_database(), quote(PASSWORD, safe="")
    place = in_database(postgres.address(database, password=secret))
    add_trials(opened(place))
    study = load_study(place)
    assert len(read_trials(study)) == 3
    shown = [
        str(place),
        repr(place),
        str(place.noted()),
        str(study._storage._backend.engine.url),
        study._storage._backend.url,
    ]
    without = replace(place, server=as_server(str(place.server)))
    with pytest.raises(RunError, match=r"no password supplied\. Give .*in PGPASSWORD or in ~/\.pgpass") as none:
        load_study(without)
    with pytest.raises(RunError, match=r"password authentication failed .*it is noted nowhere") as wrong:
        load_study(in_database(postgres.address(database, password="hunter2" + secret)))
    shown += [str(none.value), str(wrong.value)]
    assert not [text for text in shown if "hunter2" in text or PASSWORD in text or secret in text]
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    assert len(read_trials(load_study(without))) == 3
    monkeypatch.delenv("PGPASSWORD")
    escaped = PASSWORD.replace("\\", "\\\\").replace(":", "\\:")
    (tmp_path / "pgpass").write_text(f"127.0.0.1:{postgres.port}:{database}:*:{escaped}\n", encoding="utf-8")
    (tmp_path / "pgpass").chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "pgpass"))
    assert len(read_trials(load_study(without))) == 3


def test_what_cannot_be_reached_is_told_with_what_to_do(postgres):
    database = postgres.new_database()
    for address, words in (
        (postgres.address("no_such"), r'database "no_such" does not exist\. Make it, as by `createdb no_such`'),
        (
            postgres.address(database, user="nobody_here"),
            r'role "nobody_here" does not exist\. Give the user in storage=',
        ),
        (f"postgresql://127.0.0.1:1/{database}", r"Connection refused\. Start it, or name another in storage="),
        (f"postgresql:///{database}?host=/no/such/folder", r"No such file or directory\. Start it"),
        ("postgresql://no-such-host.invalid/db", r"no-such-host\.invalid.*\. Start it, or name another"),
        (f"postgresql://127.0.0.1/{database}?nonsense=1", r"cannot be used: .*nonsense"),
    ):
        for use in (opened, load_study):
            with pytest.raises(RunError, match=words) as caught:
                use(in_database(address))
            assert "SQL:" not in str(caught.value)


def test_without_a_driver_the_extra_is_named(postgres, monkeypatch, place):
    monkeypatch.setattr(studyserver, "find_spec", lambda name: None)
    with pytest.raises(
        RunError, match=r"needs psycopg2 or psycopg, which .*pip install \"autobackbone\[postgresql\]\""
    ):
        opened(place)
    monkeypatch.undo()
    address = place.server.noted().replace("postgresql:", "postgresql+psycopg2:")
    assert opened(in_database(address)).study_name


def test_the_other_driver_does_as_well(postgres, place, monkeypatch):
    pytest.importorskip("psycopg", reason="psycopg 3 is not installed")
    monkeypatch.setattr(studyserver, "_PATIENCE_S", 0.0)
    third = in_database(place.server.noted().replace("postgresql:", "postgresql+psycopg:"), place.first_name)
    study = opened(third)
    with connected(study):
        add_trials(study)
        assert facts(read_trials(load_study(third))) == facts(read_trials(load_study(place)))
        with pytest.raises(RunError, match="is open for reading alone"):
            load_study(third).set_user_attr("a", 1)
        with pytest.raises(RunError, match=r"database .*no_such.* does not exist\. Make it"):
            load_study(in_database(postgres.address("no_such").replace("postgresql:", "postgresql+psycopg:")))
        postgres.stop()
        try:
            with pytest.raises(
                RunError, match=r"cannot be reached any more: .*the same call with this run_dir goes on"
            ):
                add_trials(study)
        finally:
            postgres.start()
        add_trials(study)
        assert len(read_trials(study)) == 6


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_server_that_is_started_anew_is_waited_for(postgres, place, mode):
    lines = []
    study = opened(place, say=lines.append)
    add_trials(study)
    kept = facts(read_trials(study))
    postgres.stop(mode)
    back = threading.Timer(1.0, postgres.start)
    back.start()
    add_trials(study)
    back.join()
    assert facts(read_trials(load_study(place)))[:3] == kept
    assert len(read_trials(study)) == 6
    assert lines == [
        f"the server {place.server} does not answer: it is waited for, up to 30 s",
        f"the server {place.server} answers again",
    ]


def test_a_server_that_stays_away_is_told_and_the_same_call_goes_on(postgres, place, monkeypatch):
    monkeypatch.setattr(studyserver, "_PATIENCE_S", 0.5)
    study, reading = opened(place), load_study(place)
    add_trials(study)
    kept = facts(read_trials(study))
    postgres.stop()
    try:
        for use in (lambda: study.set_user_attr("a", 1), lambda: read_trials(reading), lambda: add_trials(study)):
            with pytest.raises(
                RunError, match=r"cannot be reached any more: .* What had ended is kept there\. Start it"
            ):
                use()
        with pytest.raises(RunError, match=r"cannot be reached: .*Start it, or name another"):
            opened(place)
    finally:
        postgres.start()
    assert facts(read_trials(opened(place))) == kept
    add_trials(study)
    assert len(read_trials(reading)) == 6


@pytest.mark.slow
def test_a_server_that_goes_in_the_midst_of_a_transaction_is_told_and_nothing_is_written_twice(postgres, place):
    """Every one of a trial's writes in turn is cut off; the trial is never there twice, nor half told."""
    study = opened(place)
    cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}' AND pid <> pg_backend_pid()"
    n_told, at = 0, 0
    while True:
        at += 1
        n_statements = iter(range(1, 10**6))

        def before(*_, at=at, counted=n_statements):
            if next(counted) == at:
                postgres.execute(cut.format(place.server.database), database="postgres")

        engine = study._storage._backend.engine
        n_before = sum(trial.state == "finished" for trial in read_trials(study))
        event.listen(engine, "before_cursor_execute", before)
        try:
            add_trials(study, n=1)
        except RunError as error:
            n_told += "cannot be reached any more" in str(error)
        finally:
            event.remove(engine, "before_cursor_execute", before)
        n_after = sum(trial.state == "finished" for trial in read_sound_trials(load_study(place)))
        if next(n_statements) <= at:  # it was over before
            assert n_after == n_before + 1
            break
        assert n_after <= n_before + 1
        adopt_abandoned(study)
    assert n_told > 10
    assert [trial.number for trial in read_trials(study)] == list(range(len(read_trials(study))))


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_what_is_no_trouble_of_the_server_stays_what_it_is(place, error):
    """Ctrl-C while the server works, and a mistake of ours."""
    study = opened(place)
    add_trials(study)

    def during(*_):
        raise error("pressed")

    engine = study._storage._backend.engine
    event.listen(engine, "do_execute", during)
    with pytest.raises(error, match="pressed"):
        study.set_user_attr("a", 1)
    event.remove(engine, "do_execute", during)
    add_trials(study, n=1)
    assert len(read_trials(load_study(place))) == 4


def test_a_server_without_rights_is_told(postgres, place):
    add_trials(opened(place))
    name = place.server.database
    postgres.execute(f"CREATE ROLE reader_{name} LOGIN", database=name)
    reader = replace(place, server=replace(place.server, user=f"reader_{name}"))
    for use in (opened, load_study):
        with pytest.raises(
            RunError, match=r"cannot be read or written: permission denied .*Let this user create and write"
        ):
            use(reader)
    postgres.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader_{name}", database=name)
    assert len(read_trials(load_study(reader))) == 3
    with pytest.raises(RunError, match=r"cannot be read or written: permission denied"):
        opened(reader)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ("DROP TABLE trials CASCADE", "there is no study|cannot be used"),
        ("DROP TABLE studies CASCADE", "there is no study|cannot be used"),
        ("ALTER TABLE trials DROP COLUMN number", "there is no study|cannot be used"),
        ("UPDATE trial_user_attributes SET value_json = '{'", "cannot be used: .*Put it back from a copy"),
        ("UPDATE trial_user_attributes SET value_json = '3'", "cannot be used: .*Put it back from a copy"),
        ("UPDATE alembic_version SET version_num = 'v9.9.9'", "cannot be used: .*"),
    ],
)
def test_tables_that_are_damaged_are_told(postgres, place, damage, told):
    add_trials(opened(place))
    postgres.execute(damage, database=place.server.database)
    with pytest.raises(RunError, match=told) as caught:
        read_sound_trials(load_study(place))
    assert "SQL:" not in str(caught.value)


def test_the_dashboard_reads_a_trial_while_it_runs(place):
    from optuna_dashboard import wsgi

    study = opened(place)
    add_trials(study)
    study.ask(SPACE.distributions())
    # As `optuna-dashboard` opens an address.
    from optuna_dashboard._storage_url import get_storage

    app = wsgi(get_storage(place.server.noted().replace("postgresql:", "postgresql+psycopg2:")))
    (summary,) = answered(app, "/api/studies")["study_summaries"]
    assert summary["study_name"] == place.first_name
    trials = answered(app, f"/api/studies/{summary['study_id']}", "after=0")["trials"]
    assert [trial["state"] for trial in trials] == ["Complete"] * 3 + ["Running"]


def answered(app, path, query=""):
    import json
    from wsgiref.util import setup_testing_defaults

    environ = {"PATH_INFO": path, "QUERY_STRING": query, "wsgi.input": BytesIO()}
    setup_testing_defaults(environ)
    said = []
    body = b"".join(app(environ, lambda status, headers, *_: said.append(status)))
    assert said == ["200 OK"], said
    return json.loads(body)


def test_names_of_studies_are_those_that_runs_have():
    names = {new_name() for _ in range(99)}
    assert len(names) == 99
    assert all(map(is_name, names))
    for other in ("autobackbone", "autobackbone-2", "autobackbone-0123456789ab-2", "mine", None, 3, ["autobackbone"]):
        assert not is_name(other)

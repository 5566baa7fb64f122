"""A study's file that is damaged, full, held or half written is told in words, whenever it comes to light."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from autobackbone.errors import RunError
from autobackbone.records import Candidate
from autobackbone.search import studyfile
from autobackbone.search.space import Space
from autobackbone.search.study import load_study, open_study, read_sound_trials, read_trials, tell

SPACE = Space(image_sizes={"net": ((32, 32),)}, n_blocks={"net": 4})
PAGE = 4096


def opened(file):
    return open_study(file, is_higher_better=True, metric_name="accuracy", seed=0)


def add_trials(study, n=3):
    begun = Candidate(backbone="net", image_size=(32, 32), n_unfrozen=1, lr=1e-3).begun(4)
    for index in range(n):
        number = study.ask(SPACE.distributions()).number
        tell(study, replace(begun, number=number, score=0.5 + index / 100, latency_ms=3.0), "finished")


def facts(trials):
    return [(trial.number, trial.state, trial.backbone, trial.score, trial.latency_ms) for trial in trials]


@pytest.fixture
def file(tmp_path):
    add_trials(opened(tmp_path / "study.db"))
    return tmp_path / "study.db"


def require_told(file, error):
    """The file, what is wrong with it and what to do; neither SQL nor the name of a library in between."""
    said = str(error)
    assert "study.db" in said
    assert "Put a whole copy of it in its place, or search again in another run_dir" in said
    assert "SELECT" not in said
    assert "SQL:" not in said
    assert "sqlalche" not in said


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: content[:100],
        lambda content: b"these are no trials\n" * 999,
        lambda content: content[:16] + b"\0" * 84 + content[100:],
    ],
    ids=["half", "header alone", "text", "no header"],
)
@pytest.mark.parametrize("use", [lambda file: read_trials(load_study(file)), opened], ids=["read", "continued"])
def test_a_damaged_study_is_named(file, damage, use):
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(RunError, match=r"study\.db' is damaged: ") as caught:
        use(file)
    require_told(file, caught.value)


@pytest.mark.parametrize("use", [lambda file: read_sound_trials(load_study(file)), opened], ids=["read", "continued"])
def test_whichever_page_is_lost_that_is_told_or_does_no_harm(file, use):
    whole, kept = file.read_bytes(), facts(read_trials(load_study(file)))
    n_told = 0
    for page in range(len(whole) // PAGE):
        file.write_bytes(whole[: page * PAGE] + b"\xa5" * PAGE + whole[(page + 1) * PAGE :])
        try:
            use(file)
        except RunError as error:
            require_told(file, error)
            n_told += 1
        else:
            assert facts(read_trials(load_study(file))) == kept
    assert n_told >= len(whole) // PAGE // 2


def test_whatever_single_byte_is_wrong_is_told_or_read(file):
    whole = file.read_bytes()
    rng = np.random.default_rng(0)
    written = np.flatnonzero(np.frombuffer(whole, np.uint8))
    n_told = 0
    for place in rng.choice(written, 150, replace=False):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ int(rng.integers(1, 256))]) + whole[place + 1 :])
        try:
            read_sound_trials(load_study(file))
        except RunError:
            n_told += 1
    assert n_told > 0


def test_damage_that_comes_while_a_study_is_open_is_told(file):
    reading, writing = load_study(file), opened(file)
    file.write_bytes(b"x" * file.stat().st_size)
    for use in (lambda: read_trials(reading), lambda: reading.trials, lambda: writing.set_user_attr("a", 1)):
        with pytest.raises(RunError, match=r"study\.db' is damaged: ") as caught:
            use()
        require_told(file, caught.value)


@pytest.mark.parametrize("content", [b"", None], ids=["empty", "another program's"])
def test_a_file_without_a_study_is_told(tmp_path, content):
    file = tmp_path / "study.db"
    if content is None:
        with contextlib.closing(sqlite3.connect(file)) as other:
            other.execute("CREATE TABLE notes (line TEXT)")
    else:
        file.write_bytes(content)
    with pytest.raises(RunError, match=r"holds no whole study: .* Give this run_dir"):
        load_study(file)
    with pytest.raises(RunError, match=r"study\.db' is not there"):
        load_study(tmp_path / "none" / "study.db")


def test_a_disk_without_room_is_told_and_nothing_that_was_told_is_lost(file):
    resource = pytest.importorskip("resource")
    study, kept = opened(file), facts(read_trials(load_study(file)))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size, limits[1]))
    try:
        for use in (lambda: study.set_user_attr("long", "x" * 100_000), lambda: add_trials(study, n=100)):
            with pytest.raises(RunError, match=r"has no room: .*study\.db.*Free some of its disk, and the same call"):
                use()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    found = facts(read_trials(load_study(file)))
    assert found[: len(kept)] == kept
    add_trials(study, n=1)
    assert len(read_trials(load_study(file))) == len(found) + 1


def test_a_disk_without_room_for_a_new_study_is_told_and_it_begins_once_there_is(tmp_path):
    resource = pytest.importorskip("resource")
    file, limits = tmp_path / "study.db", resource.getrlimit(resource.RLIMIT_FSIZE)
    for n_bytes in (0, PAGE, 10 * PAGE):
        resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, limits[1]))
        try:
            with pytest.raises(RunError, match=r"has no room: .*Nothing was tried yet.*same call.*begins"):
                opened(file)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    add_trials(opened(file))
    assert len(read_trials(load_study(file))) == 3


def test_a_study_that_another_program_holds_is_told(file, monkeypatch):
    monkeypatch.setattr(studyfile, "_PATIENCE_S", 0.05)
    study = opened(file)
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(RunError, match=r"study\.db' is held by another program: .*Close what has opened it"):
            study.set_user_attr("a", 1)
        other.execute("ROLLBACK")
    study.set_user_attr("a", 1)
    assert load_study(file).user_attrs["a"] == 1


def test_a_write_that_a_kill_cut_off_is_undone_by_who_goes_on(file):
    kept = facts(read_trials(load_study(file)))
    code = (
        "import os, sqlite3, sys\n"
        "half = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "half.execute('PRAGMA cache_size = 2')\n"
        "half.execute('BEGIN')\n"
        "half.execute('UPDATE trial_user_attributes SET value_json = hex(zeroblob(200000))')\n"
        "os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(file)], check=False)
    assert file.with_name("study.db-journal").stat().st_size > 0
    with pytest.raises(RunError, match="waits to be mended: a process died while it wrote"):
        load_study(file)
    assert facts(read_trials(opened(file))) == kept
    assert facts(read_trials(load_study(file))) == kept

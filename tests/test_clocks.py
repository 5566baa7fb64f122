"""Clocks that jump: the wall clock is set, a machine sleeps, or has been started anew between two sittings."""

from __future__ import annotations

import ast
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image
from tests.conftest import TINY, make_pictures
from tests.sittings import Sittings, entries_of

import autobackbone
from autobackbone import Budget, open_run, select_backbone
from autobackbone.progress import Silent
from autobackbone.search.study import n_tuned

SOURCE = Path(autobackbone.__file__).parent
# Where the wall clock may be read, and what for: the age of files that killed processes left, the name of a run folder
# and when a run began; and when a task of a cluster has to end, of which machines can agree on nothing else. Nothing
# else that is waited for, measured or budgeted.
WALL_CLOCK = {
    "_api.py": "datetime.now",
    "runfacts.py": "datetime.now",
    "data/store.py": "time.time",
    "plugins/sklearn.py": "datetime.now",
    "running/cluster.py": "time.time",
    "running/clustertasks.py": "time.time",
    "scratch.py": "time.time",
    "training/activations.py": "time.time",
}
DAY_S = 86_400
# A wall clock that shows what stands in a file, for whatever a process has loaded.
SHIFTED = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile long long *shift;

__attribute__((constructor)) static void open_shift(void) {
    const char *path = getenv("WALL_CLOCK_SHIFT");
    int file = path ? open(path, O_RDONLY) : -1;
    if (file >= 0) {
        void *found = mmap(NULL, sizeof(long long), PROT_READ, MAP_SHARED, file, 0);
        shift = found == MAP_FAILED ? NULL : found;
        close(file);
    }
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int code = (int)syscall(SYS_clock_gettime, clock, now);
    if (shift && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += *shift;
    return code;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec precise;
    clock_gettime(CLOCK_REALTIME, &precise);
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *kept) {
    struct timespec precise;
    clock_gettime(CLOCK_REALTIME, &precise);
    if (kept)
        *kept = precise.tv_sec;
    return precise.tv_sec;
}
"""


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Files in given parts, which no folds mix."""
    folder = tmp_path_factory.mktemp("photos")
    for number, (picture, label) in enumerate(zip(*make_pictures(), strict=True)):
        file = folder / ("train", "train", "val", "test")[number % 4] / f"class {label}" / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(file)
    return folder


@pytest.fixture(scope="module")
def asked(photos, random_weights):
    return {
        "dataset": str(photos),
        "backbones": TINY,
        "image_sizes": 32,
        "weights": str(random_weights(TINY)),
        "space": {"n_epochs": 2, "n_blocks_kept": None},
        "budget": {"n_trials": 3},
    }


def came_to(run_dir):
    """What each trial of a run was, and came to."""
    return [(t.state, t.body, t.n_unfrozen, t.lr, t.score, t.rung_scores) for t in open_run(run_dir).trials]


def reads_of_the_wall_clock(file):
    names = {ast.unparse(node.func) for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)}
    wall = ("time.time", "time.time_ns", "datetime.now", "datetime.today", "datetime.utcnow", "date.today")
    return {name for name in names if name.removeprefix("datetime.") in wall or name in wall}


def test_the_wall_clock_is_read_for_names_and_the_age_of_litter_alone():
    found = {str(file.relative_to(SOURCE)): reads_of_the_wall_clock(file) for file in SOURCE.rglob("*.py")}
    assert {name: ", ".join(reads) for name, reads in found.items() if reads} == WALL_CLOCK


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux" or shutil.which("cc") is None, reason="no clock can be built here")
def test_a_wall_clock_that_is_set_in_the_midst_changes_no_trial(asked, tmp_path):
    """By days, forwards and backwards, while the first trial trains: all comes out as it would have."""
    (tmp_path / "clock.c").write_text(SHIFTED)
    library, shift = tmp_path / "clock.so", tmp_path / "shift"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(tmp_path / "clock.c")], check=True)
    shift.write_bytes((0).to_bytes(8, sys.byteorder))
    given = asked | {"cache_dir": str(tmp_path / "cache")}
    with Sittings(given, LD_PRELOAD=str(library), WALL_CLOCK_SHIFT=str(shift)) as sittings:
        for name, days in (("as it is", 0), ("forwards", 40), ("backwards", -4000)):
            with shift.open("r+b") as kept:
                kept.write((0).to_bytes(8, sys.byteorder))
            diary = tmp_path / f"{name}.jsonl"
            costs = {} if name == "as it is" else {"costs": str(tmp_path / "as it is")}
            sittings.begin(tmp_path / name, diary, **costs)
            while not any("leg" in entry for entry in entries_of(diary)):
                assert sittings.ended(0.01) is None
            with shift.open("r+b") as kept:
                kept.write((days * DAY_S).to_bytes(8, sys.byteorder, signed=True))
            assert sittings.ended(120) == 0
            if days:
                trials = open_run(tmp_path / name).study.trials
                jumped = (trials[-1].datetime_start - trials[0].datetime_start).total_seconds()
                assert abs(jumped / DAY_S - days) < 1  # it was set, for all that runs there
            assert came_to(tmp_path / name) == came_to(tmp_path / "as it is")
            assert not list((tmp_path / "cache").rglob("*.part"))


class Jumps(Silent):
    """Has the clocks of this process jump ahead when something begins."""

    def __init__(self, patch, what, seconds):
        self.lines, self._patch, self._what, self._seconds = [], patch, what, seconds

    def say(self, line):
        self.lines.append(line)

    def progress(self, share, detail):
        if self._seconds and detail.startswith(self._what):
            for name in ("monotonic", "perf_counter"):
                self._patch.setattr(time, name, _ahead(getattr(time, name), self._seconds))
            self._seconds = 0


def _ahead(clock, seconds):
    """The same clock, from now on so many seconds later: as one that goes on while a machine sleeps."""
    return lambda: clock() + seconds


@pytest.fixture
def search(asked, tmp_path):
    def run(name, budget, **changes):
        given = asked | {"cache_dir": tmp_path / "cache", "run_dir": tmp_path / name, "progress": False} | changes
        given.pop("budget")
        return select_backbone(given.pop("dataset"), budget, **given)

    return run


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_machine_that_sleeps_costs_a_search_without_a_clock_nothing(search, tmp_path, monkeypatch, workers):
    search("awake", Budget(n_trials=3))
    jumps = Jumps(monkeypatch, "trial", 36_000.0)
    search("asleep", Budget(n_trials=3), workers=workers, costs=tmp_path / "awake", progress=jumps)
    monkeypatch.undo()
    awake, asleep = came_to(tmp_path / "awake"), came_to(tmp_path / "asleep")
    assert [one[:4] for one in asleep] == [one[:4] for one in awake]
    for one, other in zip(asleep, awake, strict=True):
        assert one[4] == pytest.approx(other[4], abs=1e-4)
    assert not any("left out" in line or "worker" in line for line in jumps.lines)


SLOW = [pytest.param(what, marks=pytest.mark.slow) for what in ("reading pictures", "latency")]


@pytest.mark.parametrize("what", ["screening", "trial", *SLOW])
def test_a_machine_that_sleeps_beyond_the_budget_ends_the_run_and_a_further_one_goes_on(
    search, tmp_path, monkeypatch, what
):
    clock, begun = time.perf_counter, time.perf_counter()
    jumps = Jumps(monkeypatch, what, 36_000.0)
    result = search("run", Budget(wall_clock_s=600, n_trials=3), progress=jumps)
    monkeypatch.undo()
    assert clock() - begun < 60
    assert any(trial.state == "finished" and trial.n_unfrozen == 0 for trial in result.trials)
    assert result.best in result.front
    assert result.study.user_attrs["ledger"]["is_completed"]
    again = search("run", Budget(wall_clock_s=600, n_trials=2))
    assert [(t.number, t.state, t.score) for t in again.trials[: len(result.trials)]] == [
        (t.number, t.state, t.score) for t in result.trials
    ]
    tuned = [trial for trial in again.trials[len(result.trials) :] if trial.n_unfrozen and trial.rung_scores]
    assert len(tuned) == 2


def own_clock(seconds):
    """A command that runs another one, whose monotonic clock is ahead by so much."""
    inside = ["unshare", "--user", "--map-root-user", "--fork", "--kill-child", "--time", "--monotonic", str(seconds)]
    has_it = shutil.which("unshare") and subprocess.run([*inside, "true"], capture_output=True, check=False)
    return inside if has_it and has_it.returncode == 0 else None


@pytest.mark.slow
@pytest.mark.skipif(own_clock(1) is None, reason="this system gives no process a clock of its own")
def test_a_run_goes_on_after_its_machine_was_started_anew(asked, tmp_path):
    """The clock counts from another zero then: what is used of the budget is what the run has noted."""
    given = asked | {"cache_dir": str(tmp_path / "cache"), "budget": {"wall_clock_s": 300, "n_trials": 4}}
    diaries = [tmp_path / "before.jsonl", tmp_path / "after.jsonl"]
    with Sittings(given) as sittings:
        sitting = sittings.begin(tmp_path / "run", diaries[0])
        while sum("leg" in entry for entry in entries_of(diaries[0])) < 3:
            assert sittings.ended(0.01) is None
        os.kill(sitting, signal.SIGKILL)
        assert sittings.ended(30) == -signal.SIGKILL
    before = came_to(tmp_path / "run")
    with Sittings(given, inside=own_clock(10_000_000)) as sittings:
        sittings.begin(tmp_path / "run", diaries[1])
        assert sittings.ended(120) == 0
    (line,) = [entry["said"] for entry in entries_of(diaries[1]) if "the run goes on" in entry.get("said", "")]
    assert 0 <= float(re.search(r"(\d+) s of its budget are used", line)[1]) < 100
    after = came_to(tmp_path / "run")
    for one, other in zip(before, after, strict=False):
        assert one[0] != "finished" or one == other
    result = open_run(tmp_path / "run")
    assert n_tuned(result.study) == 4
    assert max(trial.finished_at_s for trial in result.trials if trial.finished_at_s) < 300

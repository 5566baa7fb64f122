"""`kill -9` at any moment: whoever begins the same search again loses nothing that had ended, and repeats nothing."""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import signal
import sqlite3
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file
from tests.conftest import TINY, make_pictures
from tests.running.conftest import HAS_PROC, is_running, workers_of
from tests.sittings import Sittings, Writes, entries_of, legs_in

from autobackbone import Budget, course, open_run, select_backbone
from autobackbone.costrecord import read_costs
from autobackbone.metrics import score
from autobackbone.runfolder import RunFolder
from autobackbone.search import steps
from autobackbone.search.study import n_tuned, record
from autobackbone.search.trialfiles import read_labels

pytestmark = pytest.mark.skipif(not HAS_PROC, reason="this system does not tell which processes there are")
OTHER = "test_efficientnet.r160_in1k"
ENDED = ("COMPLETE", "PRUNED", "FAIL")
# What may lie in the folder of a trial that has ended.
KEPT = {
    "head.safetensors",
    "weights.safetensors",
    "validation.npy",
    "test.npy",
    "folds.npy",
    "out_of_fold.npy",
}
# A worker that dies thrice in a row takes its backbone out of the search.
MOST_DEATHS = 2


@dataclass(frozen=True, kw_only=True)
class Noted:
    """A trial as the database has it."""

    state: str
    values: tuple[float, ...]
    params: tuple[tuple[str, float], ...]
    facts: dict[str, Any]

    @property
    def scores(self):
        return self.facts.get("rung_scores", [])


def noted_in(run_dir, copy):
    """All trials, by number, and whether the budget is completed; read from a copy, which SQLite may mend."""
    if not (run_dir / "study.db").exists():
        return {}, False
    copy.mkdir()
    for file in run_dir.glob("study.db*"):
        shutil.copy(file, copy)
    with closing(sqlite3.connect(copy / "study.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
        if "trials" not in tables:
            return {}, False
        (attributes,) = ([json.loads(v) for k, v in _all(database, "study_user_attributes") if k == "ledger"],)
        rows = database.execute("SELECT trial_id, number, state FROM trials").fetchall()
        found = {number: _noted(database, trial_id, state) for trial_id, number, state in rows}
    return found, any(ledger["is_completed"] for ledger in attributes)


def _all(database, table):
    return database.execute(f"SELECT key, value_json FROM {table}").fetchall()


def _noted(database, trial_id, state):
    def of(what, table):
        return database.execute(f"SELECT {what} FROM {table} WHERE trial_id = ? ORDER BY 1", (trial_id,)).fetchall()

    facts = [json.loads(text) for key, text in of("key, value_json", "trial_user_attributes") if key == "facts"]
    return Noted(
        state=state,
        values=tuple(value for _, value in of("objective, value", "trial_values")),
        params=tuple(of("param_name, param_value", "trial_params")),
        facts=facts[0] if facts else {},
    )


def require_nothing_lost(before, after):
    for number, one in before.items():
        other = after[number]
        if one.state in ENDED:
            assert other == one, number
        elif one.scores:
            assert other.params == one.params
            assert other.scores[: len(one.scores)] == one.scores, number
            assert other.state != "FAIL"


def kill_until_it_ends(sittings, folder, draw, n_kills, longest_s, *, workers=0):
    """Kill a search at random moments, so many times at most, and begin it again until it ends.

    Returns:
        How many kills there were, of the search and of its worker together, and the diaries of all sittings.
    """
    run_dir, diaries, cut, known, seen, n_done = folder / "run", [], Counter(), {}, set(), 0
    for number in range(n_kills + 1):
        diary = folder / f"diary {number}.jsonl"
        diaries.append(diary)
        sitting, n_deaths = sittings.begin(run_dir, diary), 0
        while True:
            is_last = n_done == n_kills
            code = sittings.ended(300) if is_last else ended_before(sittings, diary, draw, longest_s)
            if code is not None:
                break
            assert not is_last, "the search hangs"
            living = workers_of(sitting) if workers else []
            seen.update(living)
            n_done += 1
            cut.update(legs_in(diary)[-max(1, workers) :])
            if living and n_deaths < MOST_DEATHS and draw.random() < 0.5:
                n_deaths += 1
                os.kill(draw.choice(living), signal.SIGKILL)
                continue
            os.kill(sitting, signal.SIGKILL)
            code = sittings.ended(30)
            break
        last, is_completed = noted_in(run_dir, folder / f"copy {number}")
        require_nothing_lost(known, last)
        known = last
        if code == 0:
            break
        if code == -signal.SIGKILL and is_completed:  # at its very last step
            (run_dir / "lock.holder").unlink(missing_ok=True)
            break
        assert code == -signal.SIGKILL, (code, entries_of(diary)[-3:])
    require_none_left(seen)
    require_nothing_repeated(known, diaries, cut, is_alone=workers < 2)
    return n_done, diaries


def ended_before(sittings, diary, draw, longest_s):
    """How a sitting has ended before a random moment, counted from its beginning or from its first leg; else `None`."""
    if draw.random() < 0.5:
        while not legs_in(diary):
            code = sittings.ended(0.02)
            if code is not None:
                return code
    return sittings.ended(draw.uniform(0, longest_s))


def stages_of(diaries):
    """In which stage each sitting ended."""
    last = [[entry["stage"] for entry in entries_of(diary) if "stage" in entry][-1:] for diary in diaries]
    return dict(Counter(stage[0] if stage else "plan" for stage in last))


def require_none_left(workers):
    until = time.monotonic() + 30
    while any(map(is_running, workers)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not [worker for worker in workers if is_running(worker)]


def require_nothing_repeated(noted, diaries, cut, *, is_alone):
    """No candidate was tried twice, and no leg began again but those that were cut off, each as often as it was; of
    several side by side no more than that can be told from outside than how many these were at most.
    """
    tried = Counter(one.params for one in noted.values() if one.state != "FAIL")
    assert max(tried.values()) == 1
    begun = Counter(leg for diary in diaries for leg in legs_in(diary))
    for number, one in noted.items():
        legs = one.facts.get("extras", {}).get("legs", [])
        assert [leg["n_before"] for leg in legs] == [0, *(leg["pause_at"] for leg in legs)][: len(legs)]
        assert begun[number] - len(legs) <= cut[number] or not is_alone, number
    done = {number: len(one.facts.get("extras", {}).get("legs", [])) for number, one in noted.items()}
    assert sum(n - done[number] for number, n in begun.items()) <= cut.total()


def require_whole(run_dir, n_trials):
    """Every file parses, nothing temporary is left, and the run can be used as one that nobody has disturbed."""
    facts = json.loads((run_dir / "run.json").read_text())
    with (run_dir / "pictures.csv").open(newline="") as rows:
        assert len({len(row) for row in csv.reader(rows)}) == 1
    assert read_costs(run_dir / "costs.jsonl")
    with Image.open(run_dir / "front.png") as picture:
        picture.load()
    known = {"run.json", "pictures.csv", "costs.jsonl", "study.db", "front.png", "trials", "lock"}
    assert {file.name for file in run_dir.iterdir()} - {"similar.csv"} == known
    result = open_run(run_dir)
    numbers = {f"{trial.number:04d}" for trial in result.trials}
    for file in run_dir.glob("trials/*/*"):
        assert file.parent.name in numbers
        assert file.name in KEPT
        assert load_file(file) if file.suffix == ".safetensors" else np.load(file).size
    labels = read_labels(result._run, "validation", facts["task"])
    for trial in result.trials:
        assert trial.state in ("finished", "stopped", "failed")
        if trial.state == "finished":
            said = np.load(run_dir / "trials" / f"{trial.number:04d}" / "validation.npy")
            assert score(result.metric, said, labels) == pytest.approx(trial.score), trial.number
    assert n_tuned(result.study) == n_trials
    assert result.study.user_attrs["ledger"]["is_completed"]
    for trial in result.front:
        assert trial.test_score is not None
        model = result.model(trial.number)
        assert model(torch.zeros(1, 3, *trial.image_size)).shape == (1, 3)
    assert result.best in result.front


@pytest.fixture
def asked(random_weights, tmp_path):
    def make(**changes):
        weights = {name: str(random_weights(name)) for name in (TINY, OTHER)}
        space = {"n_epochs": 4, "n_blocks_kept": None}
        given = {"backbones": [TINY, OTHER], "image_sizes": [32, 40], "weights": weights, "space": space}
        given["metric"] = "log_loss"  # no two networks have the same
        return given | {"cache_dir": str(tmp_path / "cache"), "budget": {"n_trials": 6}} | changes

    return make


@pytest.fixture
def photos(tmp_path):
    """Files in given parts, which no folds mix."""
    for number, (picture, label) in enumerate(zip(*make_pictures(), strict=True)):
        file = tmp_path / "photos" / ("train", "train", "val", "test")[number % 4] / f"class {label}" / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(file)
    return str(tmp_path / "photos")


def kill_often(asked, folder, n_kills, longest_s, *, seed):
    """So many kills, over as many runs as that takes."""
    draw, n_left, n_trials = random.Random(seed), n_kills, asked["budget"]["n_trials"]
    workers = asked.get("workers", 0)
    (folder / "temporary").mkdir()
    shared = sorted(Path("/dev/shm").glob("*")) if Path("/dev/shm").is_dir() else []
    with Sittings(asked, TMPDIR=str(folder / "temporary")) as sittings:
        for number in range(n_kills + 1):
            run = folder / f"{number}"
            run.mkdir()
            n_done, diaries = kill_until_it_ends(sittings, run, draw, n_left, longest_s, workers=workers)
            n_left -= n_done
            print(f"seed {seed}, run {number}: {n_done} kills, sittings by their last stage {stages_of(diaries)}")  # noqa: T201
            require_whole(run / "run", n_trials)
            if n_left == 0:
                break
    assert n_left == 0
    assert not list((folder / "temporary").iterdir())
    assert not [file for file in Path("/dev/shm").glob("*") if file not in shared]


def test_a_search_that_is_killed_goes_on_as_if_nothing_had_been(asked, photos, tmp_path):
    given = asked(dataset=photos, image_sizes=[32], backbones=TINY, budget={"n_trials": 1})
    given["weights"] = given["weights"][TINY]
    kill_often(given, tmp_path, 3, 1.0, seed=0)


@pytest.fixture
def search(asked, photos, tmp_path):
    """In this process."""

    def run(budget, **changes):
        given = asked(backbones=TINY, image_sizes=32) | {"run_dir": tmp_path / "run", "progress": False} | changes
        given["space"] |= {"label_smoothing": 0.0, "lr": 1e-3, "n_unfrozen": 3}
        return select_backbone(photos, **given | {"budget": budget, "weights": given["weights"][TINY]})

    return run


def test_a_diary_holds_each_leg_that_killing_waits_for(search, tmp_path):
    trials = search(Budget(n_trials=1), progress=Writes(tmp_path / "diary.jsonl")).trials
    (tuned,) = [trial.number for trial in trials if trial.n_unfrozen > 0]
    assert set(legs_in(tmp_path / "diary.jsonl")) == {tuned}


class DeadError(BaseException):
    """Like a kill: nothing holds it up."""


def test_a_search_that_dies_in_its_last_moment_is_given_no_further_budget(search, tmp_path, monkeypatch):
    def die(*_):
        raise DeadError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(course, "_draw", die)
        with pytest.raises(DeadError, match=r"^killed$"):
            search(Budget(n_trials=1))
    before = open_run(tmp_path / "run").trials
    assert search(Budget(n_trials=1)).trials == before


def test_what_ends_at_its_rung_is_scored_as_its_files_are(search, tmp_path, monkeypatch):
    """A process that dies between the files of a leg and its note leaves files that are further than the study."""

    def die(study, facts, **ending):
        if len(facts.rung_scores) == 2:
            # A second epoch that is no better leaves the first one's files; these are better on any machine.
            file = max((tmp_path / "run" / "trials").glob("*/validation.npy"))
            said, labels = np.load(file), read_labels(RunFolder(path=tmp_path / "run"), "validation", "classification")
            np.save(file, 0.5 * said + 0.5 * np.eye(said.shape[1], dtype=np.float32)[labels])
            raise KeyboardInterrupt
        record(study, facts, **ending)

    with monkeypatch.context() as patch:
        patch.setattr(steps, "record", die)
        (paused,) = [trial for trial in search(Budget(n_trials=1)).trials if trial.state == "running"]
    assert paused.n_epochs == 1
    result = search(Budget(wall_clock_s=0.5, n_trials=1))  # no time for anything
    trial = result.trials[paused.number]
    said = np.load(tmp_path / "run" / "trials" / f"{trial.number:04d}" / "validation.npy")
    labels = read_labels(result._run, "validation", "classification")
    assert trial.state == "finished"
    assert trial.score == pytest.approx(score(result.metric, said, labels))
    assert trial.score != paused.score


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("given_parts", [True, False])
def test_kills_at_random_moments_lose_nothing(asked, photos, tmp_path, seed, given_parts):
    given = asked(**{"dataset": photos} if given_parts else {})
    kill_often(given, tmp_path, 13, 5.0, seed=seed)


@pytest.mark.slow
@pytest.mark.parametrize(("given_parts", "workers"), [(True, 1), (False, 1), (True, 2)])
def test_kills_of_a_search_or_its_worker_lose_nothing(asked, photos, tmp_path, given_parts, workers):
    given = asked(workers=workers, **{"dataset": photos} if given_parts else {})
    kill_often(given, tmp_path, 13, 12.0, seed=3)

"""Whole searches that train in several worker processes side by side."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from PIL import Image
from tests.conftest import TINY
from tests.running.conftest import HAS_PROC, is_running, workers_of

from autobackbone import Budget, course, select_backbone
from autobackbone.latency import remembered
from autobackbone.progress import Silent
from autobackbone.running.pool import WorkerPool
from autobackbone.search import levelling

pytestmark = pytest.mark.skipif(not HAS_PROC, reason="this system does not tell which processes there are")
ROOT = Path(__file__).parents[2]
OTHER = "test_efficientnet.r160_in1k"
SCRIPT = """
import sys
from pathlib import Path
from autobackbone import Budget, select_backbone
from tests.conftest import TINY, make_pictures
folder = Path(sys.argv[1])
select_backbone(
    make_pictures(), Budget(n_trials=2), backbones=TINY, image_sizes=32, weights=sys.argv[2], workers=2,
    run_dir=folder / "run", cache_dir=folder / "cache", space={"n_epochs": 100_000, "n_blocks_kept": None},
)
"""


class Tells(Silent):
    """Keeps what is said, and calls with each training that begins."""

    def __init__(self, call=lambda _: None):
        self.said, self.call = [], call

    def say(self, line):
        self.said.append(line)

    def progress(self, share, detail):
        if detail.startswith("trial"):
            self.call(detail)


@pytest.fixture(scope="module")
def photos(pictures, tmp_path_factory):
    """Files in given parts, which no folds mix."""
    folder = tmp_path_factory.mktemp("photos")
    for number, (picture, label) in enumerate(zip(*pictures, strict=True)):
        file = folder / ("train", "train", "val", "test")[number % 4] / f"class {label}" / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(file)
    return folder


@pytest.fixture
def search(photos, random_weights, tmp_path):
    def run(budget, dataset=photos, **arguments):
        given = {"backbones": TINY, "image_sizes": 32, "weights": random_weights(TINY), "progress": False}
        given |= {"run_dir": tmp_path / "run", "cache_dir": tmp_path / "cache"}
        given |= {"space": {"n_epochs": 3, "n_blocks_kept": None}}
        return select_backbone(dataset, budget, **given | arguments)

    return run


def tuned_of(result):
    return [trial for trial in result.trials if trial.n_unfrozen]


@pytest.mark.slow
def test_a_search_trains_side_by_side_loses_one_trial_with_a_worker_and_goes_on_with_any_number(search):
    seen, killed = [], []

    def look(_):
        workers = workers_of(os.getpid())
        seen.append(len(workers))
        if len(workers) == 2 and not killed:
            # Whichever of them is idle has this training in a moment, and neither ends one before that.
            killed.extend(workers)
            for worker in workers:
                os.kill(worker, signal.SIGSTOP)
            for worker, signum in zip(workers, (signal.SIGKILL, signal.SIGCONT), strict=True):
                threading.Timer(5.0, os.kill, (worker, signum)).start()

    lines = Tells(look)
    result = search(Budget(n_trials=5), workers=2, progress=lines)
    assert max(seen) == 2
    trials = tuned_of(result)
    assert len(trials) == 5
    # Whichever leg it was: a first one fails its trial, a later one ends it where it stood.
    (lost,) = [one for one in trials if "its worker process was killed by signal 9 (SIGKILL)" in one.reason]
    assert lost.state == ("finished" if lost.rung_scores else "failed")
    assert all(one.rung_scores and one.state != "failed" for one in trials if one is not lost)
    assert result.best in result.front
    assert result.study.user_attrs["ledger"]["is_completed"]
    assert not workers_of(os.getpid())
    assert not (result.path / ".worker").exists()
    assert not list(result.path.glob("trials/*/*.ckpt"))
    for workers in (0, None):
        again = search(Budget(n_trials=1), workers=workers)
        assert len(again.trials) > len(result.trials)
        result = again


@pytest.mark.slow
def test_on_several_gpus_each_has_a_worker_by_itself_and_who_cannot_cross_trains_here(search, monkeypatch, pictures):
    """The devices are made up; the trainings of what stays in this process are real."""
    asked = []
    monkeypatch.setattr(course, "_n_gpus", lambda _: 4)
    side_by_side = course.training_side_by_side
    monkeypatch.setattr(
        course,
        "training_side_by_side",
        lambda workers, *of, groups, **given: asked.append((workers, groups)) or side_by_side(workers, *of, **given),
    )
    search(Budget(n_trials=0))
    assert asked == [(4, [(0,), (1,), (2,), (3,)])]
    lines = Tells()
    search(Budget(n_trials=1), pictures, cache_gb=1e-6, progress=lines, run_dir=None)
    assert asked[1][0] == 0
    assert any(line.startswith("1 of 4 GPUs trains: other processes need pictures on the disk") for line in lines.said)


@pytest.mark.slow
def test_no_latency_is_measured_while_a_worker_trains(search, random_weights, monkeypatch):
    training, beside, tune = set(), [], WorkerPool.tune

    def watched_tune(pool, candidate, *of, **given):
        training.add(threading.get_ident())
        try:
            return tune(pool, candidate, *of, **given)
        finally:
            training.discard(threading.get_ident())

    monkeypatch.setattr(WorkerPool, "tune", watched_tune)

    def watched(inner):
        def measure(*of, **given):
            beside.append((inner.__name__, len(training)))
            return inner(*of, **given)

        return measure

    monkeypatch.setattr(remembered, "measure", watched(remembered.measure))
    monkeypatch.setattr(levelling, "measure_together", watched(levelling.measure_together))
    weights = {name: random_weights(name) for name in (TINY, OTHER)}
    search(Budget(n_trials=6), workers=2, backbones=[TINY, OTHER], weights=weights)
    assert {name for name, _ in beside} == {"measure", "measure_together"}
    assert {n for _, n in beside} == {0}


@pytest.mark.slow
def test_ctrl_c_ends_all_workers_and_the_run_goes_on(search, press_ctrl_c):
    begun = []

    def look(detail):
        begun.append(detail)
        if len(begun) == 2:
            press_ctrl_c()

    lines = Tells(look)
    before = time.monotonic()
    endless = {"n_epochs": 100_000, "n_blocks_kept": None}
    left = search(Budget(n_trials=4), workers=2, progress=lines, space=endless)
    assert time.monotonic() - before < 120
    assert any("interrupted" in line for line in lines.said)
    assert not workers_of(os.getpid())
    assert not (left.path / ".worker").exists()
    again = search(Budget(n_trials=0), workers=0, space=endless)
    assert len(again.trials) >= len(left.trials)


@pytest.mark.slow
def test_a_run_that_is_killed_leaves_no_worker(random_weights, tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or str(ROOT) for path in [str(ROOT), *sys.path])}
    line = [sys.executable, "-c", SCRIPT, str(tmp_path), str(random_weights(TINY))]
    with subprocess.Popen(line, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL) as parent:
        try:
            until = time.monotonic() + 120
            while len(workers_of(parent.pid)) < 2 and time.monotonic() < until:
                assert parent.poll() is None
                time.sleep(0.05)
            workers = workers_of(parent.pid)
        finally:
            parent.kill()
    assert len(workers) == 2
    until = time.monotonic() + 30
    while any(map(is_running, workers)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(is_running, workers))

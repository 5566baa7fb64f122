"""Whole searches that train in a worker process."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.conftest import TINY, make_pictures
from tests.running.conftest import HAS_PROC, is_running, workers_of

from autobackbone import Budget, select_backbone
from autobackbone.errors import ArgumentError, TrialError
from autobackbone.progress import Silent
from autobackbone.search import trialfiles
from autobackbone.training.tuner import Tuner

pytestmark = pytest.mark.skipif(not HAS_PROC, reason="this system does not tell which processes there are")
ROOT = Path(__file__).parents[2]
# Begun as a user would: no `if __name__ == "__main__":` around it.
SCRIPT = """
import sys
from pathlib import Path
from autobackbone import Budget, select_backbone
from tests.conftest import TINY, make_pictures
folder = Path(sys.argv[1])
select_backbone(
    make_pictures(), Budget(n_trials=1), backbones=TINY, image_sizes=32, weights=sys.argv[2], workers=1,
    run_dir=folder / "run", cache_dir=folder / "cache", space={"n_epochs": 100_000, "n_blocks_kept": None},
)
"""


class Tells(Silent):
    """Keeps what is said and which trainings begin, and calls with each of these."""

    def __init__(self, call=lambda _: None):
        self.said, self.begun, self.call = [], [], call

    def say(self, line):
        self.said.append(line)

    def progress(self, share, detail):
        if detail.startswith("trial"):
            self.begun.append(detail)
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
    def run(name, budget, dataset=photos, **arguments):
        given = {"backbones": TINY, "image_sizes": 32, "weights": random_weights(TINY), "progress": False}
        given |= {"run_dir": tmp_path / name, "cache_dir": tmp_path / f"cache of {name}"}
        given |= {"space": {"n_epochs": 3, "n_blocks_kept": None}}
        return select_backbone(dataset, budget, **given | arguments)

    return run


def test_a_search_in_a_worker_tries_and_finds_the_same(search, tmp_path):
    here = search("here", Budget(n_trials=3))
    seen, lines = [], Tells(lambda _: seen.extend(workers_of(os.getpid())))
    there = search("there", Budget(n_trials=3), workers=1, costs=tmp_path / "here", progress=lines)
    assert len(there.trials) == len(here.trials)
    for one, other in zip(there.trials, here.trials, strict=True):
        assert (one.state, one.body, one.n_unfrozen, one.lr) == (other.state, other.body, other.n_unfrozen, other.lr)
        assert one.extras.get("legs") == other.extras.get("legs")
        assert one.score == pytest.approx(other.score, abs=1e-4)
        assert one.rung_scores == pytest.approx(other.rung_scores, abs=1e-4)
        assert one.train_scores == pytest.approx(other.train_scores, abs=1e-4)
    assert there.best.number == here.best.number
    assert "had not been recorded" not in "\n".join(lines.said)
    # One worker trained all of it, and nothing is left of it.
    assert len(set(seen)) == 1
    assert not workers_of(os.getpid())
    assert not (there.path / ".worker").exists()


@pytest.mark.slow
def test_a_worker_that_is_killed_fails_one_trial(search, order):
    order.write_text("SIGKILL")
    lines = Tells()
    result = search("run", Budget(n_trials=2), workers=1, metric="obedient:Obedient", progress=lines)
    assert not order.exists()
    failed = [trial for trial in result.trials if trial.state == "failed"]
    assert [trial.reason for trial in failed] == ["its worker process was killed by signal 9 (SIGKILL)"]
    tuned = [trial for trial in result.trials if trial.n_unfrozen and trial.rung_scores]
    assert len(tuned) == 1
    assert result.best in result.front
    assert result.study.user_attrs["ledger"]["is_completed"]
    assert not workers_of(os.getpid())


@pytest.fixture
def here_alone(monkeypatch):
    """A function: from then on nothing can be trained in this process."""

    def forbid():
        monkeypatch.setattr(Tuner, "tune", lambda *_, **__: pytest.fail("it was trained in this process"))

    return forbid


def folds_said(result, trial):
    return trialfiles.load_predictions(result._run, trial.number, trialfiles.FOLDS)


@pytest.mark.slow
def test_folds_are_trained_in_the_worker_of_the_search_and_say_the_same(search, tmp_path, here_alone):
    dataset, budget = make_pictures(n_per_class=20), Budget(n_trials=1)
    here = search("here", budget, dataset)
    here_alone()
    seen, lines = [], Tells(lambda _: seen.extend(workers_of(os.getpid())))
    there = search("there", budget, dataset, workers=1, costs=tmp_path / "here", progress=lines)
    (one,), (other,) = ([trial for trial in of.trials if trial.n_unfrozen] for of in (here, there))
    assert one.fold_score is not None
    np.testing.assert_allclose(folds_said(there, other), folds_said(here, one), atol=1e-4)
    assert (other.fold_score, other.fold_se) == pytest.approx((one.fold_score, one.fold_se), abs=1e-4)
    assert there.choice.reason == here.choice.reason
    assert "had not been recorded" not in "\n".join(lines.said)
    assert sum("without fold" in detail for detail in lines.begun) == 5
    assert len(set(seen)) == 1
    assert not workers_of(os.getpid())


@pytest.mark.slow
def test_a_worker_that_is_killed_in_a_fold_costs_that_trial_its_folds(search):
    def kill_in_a_moment(detail):
        if "without fold 2" in detail:
            (worker,) = workers_of(os.getpid())
            # It cannot end its training before it is killed, however fast it is.
            os.kill(worker, signal.SIGSTOP)
            threading.Timer(2.0, os.kill, (worker, signal.SIGKILL)).start()

    lines = Tells(kill_in_a_moment)
    result = search("run", Budget(n_trials=1), make_pictures(n_per_class=20), workers=1, progress=lines)
    (tuned,) = [trial for trial in result.trials if trial.n_unfrozen]
    reason = "its worker process was killed by signal 9 (SIGKILL)"
    assert f"trial {tuned.number} is not scored by folds: {reason}" in lines.said
    assert (tuned.state, tuned.fold_score) == ("finished", None)
    assert all(trial.fold_score is not None for trial in result.trials if trial.n_unfrozen == 0)
    assert result.best in result.front
    assert result.study.user_attrs["ledger"]["is_completed"]
    assert not workers_of(os.getpid())


@pytest.mark.slow
def test_more_trains_in_a_worker_where_that_is_said_again(search, tmp_path, here_alone):
    result = search("run", Budget(n_trials=0), workers=1)
    here_alone()
    seen, cache = [], tmp_path / "cache of run"
    lines = Tells(lambda _: seen.extend(workers_of(os.getpid())))
    again = result.more(Budget(n_trials=1), workers=1, cache_dir=cache, progress=lines)
    (tuned,) = [trial for trial in again.trials if trial.n_unfrozen]
    assert tuned.rung_scores
    assert len(set(seen)) == 1
    assert not workers_of(os.getpid())
    with pytest.raises(ArgumentError, match=r"workers is 0, to train in this process, or how many.*; -2"):
        result.more(Budget(n_trials=1), workers=-2, cache_dir=cache)


def kill_the_next_worker():
    """Kill the worker of this process, as soon as there is one."""
    for _ in range(6000):
        for worker in workers_of(os.getpid()):
            os.kill(worker, signal.SIGKILL)
            return
        time.sleep(0.01)


@pytest.mark.slow
def test_what_is_trained_again_is_trained_in_a_worker_where_that_is_said(search, tmp_path, here_alone):
    dataset, cache = make_pictures(n_per_class=16), tmp_path / "cache of run"
    result = search("run", Budget(n_trials=1), dataset)
    (tuned,) = [trial for trial in result.trials if trial.n_unfrozen]
    kept = trialfiles.load_predictions(result._run, tuned.number, trialfiles.VALIDATION)
    here_alone()
    network = result.retrain(tuned, cache_dir=cache, workers=1)
    is_validation = trialfiles.read_pictures(result._run)["part"] == "validation"
    found = result._reader.predicted(network, dataset[0][is_validation.to_numpy()])
    np.testing.assert_allclose(found, kept, atol=5e-3)
    assert not workers_of(os.getpid())
    assert not (result.path / ".worker").exists()
    with pytest.raises(ArgumentError, match="workers is 0, to train in this process, or how many"):
        result.refit(tuned, cache_dir=cache, workers=-1)


@pytest.mark.slow
def test_a_refit_in_a_worker_gives_the_same_network_and_one_that_is_killed_says_so(search, tmp_path, here_alone):
    cache = tmp_path / "cache of run"
    result = search("run", Budget(n_trials=1), make_pictures(n_per_class=16))
    (tuned,) = [trial for trial in result.trials if trial.n_unfrozen]
    before = result.refit(tuned, cache_dir=cache)
    here_alone()
    again = result.refit(tuned, cache_dir=cache, workers=1)
    for name, value in before.model.state_dict().items():
        torch.testing.assert_close(again.model.state_dict()[name], value, atol=1e-3, rtol=1e-3)
    assert again.test_score == before.test_score
    assert not workers_of(os.getpid())
    thread = threading.Thread(target=kill_the_next_worker)
    thread.start()
    with pytest.raises(TrialError, match=r"its worker process was killed by signal 9 \(SIGKILL\)"):
        result.retrain(tuned, cache_dir=cache, workers=1)
    thread.join()
    assert not (result.path / ".worker").exists()


def test_ctrl_c_leaves_no_worker_and_the_run_goes_on_without_one(search, press_ctrl_c):
    lines = Tells(lambda _: press_ctrl_c())
    left = search("run", Budget(n_trials=10_000), workers=1, progress=lines)
    assert any("interrupted" in line for line in lines.said)
    assert not workers_of(os.getpid())
    assert not (left.path / ".worker").exists()
    again = search("run", Budget(n_trials=0), workers=0)
    assert len(again.trials) >= len(left.trials)


@pytest.mark.slow
def test_a_run_that_is_killed_leaves_no_worker(random_weights, tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or str(ROOT) for path in [str(ROOT), *sys.path])}
    line = [sys.executable, "-c", SCRIPT, str(tmp_path), str(random_weights(TINY))]
    with subprocess.Popen(line, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL) as parent:
        try:
            until = time.monotonic() + 120
            while not list((tmp_path / "run" / "trials").glob("*/checkpoint.ckpt")) and time.monotonic() < until:
                assert parent.poll() is None
                time.sleep(0.05)
            (worker,) = workers_of(parent.pid)
        finally:
            parent.kill()
    until = time.monotonic() + 30
    while is_running(worker) and time.monotonic() < until:
        time.sleep(0.05)
    assert not is_running(worker)


def test_a_metric_of_the_script_itself_needs_this_process(search, monkeypatch):
    from torchmetrics.classification import MulticlassAccuracy

    import __main__

    monkeypatch.setattr(__main__, "make", lambda: MulticlassAccuracy(num_classes=3), raising=False)
    with pytest.raises(ArgumentError, match=r"'__main__:make' is defined in the script.*workers=0"):
        search("run", Budget(n_trials=1), workers=1, metric="__main__:make")


def test_pictures_in_memory_without_room_need_this_process(search, pictures):
    with pytest.raises(ArgumentError, match=r"decoded to 32x32 px they have no room.*workers=0"):
        search("run", Budget(n_trials=1), pictures, workers=1, cache_gb=1e-6)


@pytest.mark.slow
def test_a_search_on_two_devices_tries_and_finds_the_same(search, tmp_path):
    here = search("here", Budget(n_trials=3))
    seen, lines = [], Tells(lambda _: seen.append(workers_of(os.getpid())))
    there = search("there", Budget(n_trials=3), devices_per_trial=2, costs=tmp_path / "here", progress=lines)
    assert {len(workers) for workers in seen if workers} == {2}
    assert workers_of(os.getpid()) == []
    ours, theirs = ([one for one in run.trials if one.n_unfrozen > 0] for run in (here, there))
    assert [(one.n_unfrozen, one.lr, len(one.rung_scores)) for one in ours] == [
        (one.n_unfrozen, one.lr, len(one.rung_scores)) for one in theirs
    ]
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one.score, other.score, atol=0.2)  # a picture of ten that lies between two classes
    assert not (there.path / ".worker").exists()
    retrained = there.retrain(theirs[0].number, cache_dir=tmp_path / "cache of there", devices_per_trial=2)
    again = there.retrain(theirs[0].number, cache_dir=tmp_path / "cache of there")
    for name, value in again.state_dict().items():
        torch.testing.assert_close(retrained.state_dict()[name], value, atol=1e-2, rtol=1e-2)


@pytest.mark.slow
def test_no_process_of_a_group_outlives_a_search_that_is_killed(random_weights, tmp_path):
    script = SCRIPT.replace("workers=1", "devices_per_trial=2")
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path), str(random_weights(TINY))],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    ) as parent:
        until, workers = time.monotonic() + 120, []
        while len(workers) < 2 and time.monotonic() < until:
            time.sleep(0.1)
            workers = workers_of(parent.pid)
        time.sleep(10)  # so that they are at work
        parent.send_signal(signal.SIGKILL)
    assert len(workers) == 2
    until = time.monotonic() + 30
    while any(map(is_running, workers)) and time.monotonic() < until:
        time.sleep(0.1)
    assert not any(map(is_running, workers))

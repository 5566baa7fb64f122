"""Real worker processes: they train what this process would, and what ends them costs one training."""

import os
import signal
import threading
import time

import numpy as np
import pytest
import torch
from tests.conftest import TINY
from tests.running.conftest import HAS_PROC, is_running

from autobackbone.backbones.build import normalisation
from autobackbone.backbones.source import BackboneSource
from autobackbone.backbones.weights import WeightSource
from autobackbone.data import decode, survey
from autobackbone.errors import EpochTooLongError, MetricError, TrialError, TrialMemoryError
from autobackbone.metrics import metric_for
from autobackbone.records import Candidate
from autobackbone.running.child import Bounds, resident_bytes
from autobackbone.running.worker import WorkerTuner
from autobackbone.screening import screen
from autobackbone.search.foldheads import Folds
from autobackbone.training.activations import ActivationCache
from autobackbone.training.pausing import Leg
from autobackbone.training.scorers import Scorers
from autobackbone.training.stores import Stores
from autobackbone.training.tuner import STEP_PRECISION, Tuner

pytestmark = pytest.mark.skipif(not HAS_PROC, reason="this system does not tell which processes there are")
SIZE, CPU = (32, 32), torch.device("cpu")
# Left to a clock, either of two trainings may be the one in bfloat16.
EXACT = {STEP_PRECISION: "float32"}


def candidate(**changes):
    given = {"n_unfrozen": 2, "lr": 1e-3, "extras": {"n_epochs": 3, **EXACT}} | changes
    return Candidate(backbone=TINY, image_size=SIZE, **given)


@pytest.fixture(scope="module")
def made(pictures, random_weights, order, tmp_path_factory):
    """The tuner of this process, the source of its networks, their metric, and a screened head."""
    folder = tmp_path_factory.mktemp("worker")
    bundle = decode(survey(pictures), [SIZE], cache_dir=folder / "cache")
    source = BackboneSource({TINY: WeightSource(kind="file", path=random_weights(TINY))}, n_classes=3)
    metric = metric_for("obedient:Obedient", n_outputs=3)
    scorers = Scorers(metric=metric, labels=bundle.labels[bundle.indices("validation")])
    cache = ActivationCache(folder=folder / "activations", max_bytes=10**9)
    stores = Stores(bundle=bundle, source=source, cache=cache, device=CPU, seed=0, owner="a run")
    local = Tuner(stores=stores, score=scorers.score, score_passed=scorers.score_passed)
    head = screen(source.network(TINY, SIZE), bundle, SIZE, normalisation(TINY), seed=0, device=CPU).head
    return {"local": local, "source": source, "metric": metric}, head


@pytest.fixture
def head(made):
    return made[1]


@pytest.fixture
def new_worker(made, tmp_path):
    """A function: bounds to a worker that is begun at its first training; all are ended."""
    begun = []

    def make(**bounds):
        worker = WorkerTuner(**made[0], folder=tmp_path / ".worker", bounds=Bounds(**bounds))
        begun.append(worker.__enter__())
        return worker

    yield make
    for worker in begun:
        worker.__exit__(None, None, None)


@pytest.fixture(scope="module")
def warm(made, tmp_path_factory):
    """One worker for all that does not end it."""
    with WorkerTuner(**made[0], folder=tmp_path_factory.mktemp("warm") / ".worker") as worker:
        yield worker


def test_a_worker_trains_the_same_network_leg_by_leg(made, warm, head, tmp_path):
    local = made[0]["local"]
    legs = [
        [Leg(checkpoint=tmp_path / name, n_before=n, pause_at=end) for n, end in ((0, 1), (1, None))]
        for name in ("here", "there")
    ]
    local.tune(candidate(), head, leg=legs[0][0])
    here, expected = local.tune(candidate(), head, leg=legs[0][1], n_views=2)
    warm.tune(candidate(), head, leg=legs[1][0])
    pid = warm.pid
    there, outcome = warm.tune(candidate(), head, leg=legs[1][1], n_views=2, until=time.monotonic() + 600)
    assert (warm.pid, is_running(pid)) == (pid, True)
    np.testing.assert_allclose(outcome.rung_scores, expected.rung_scores, atol=1e-4)
    np.testing.assert_allclose(outcome.train_scores, expected.train_scores, atol=1e-4)
    np.testing.assert_allclose(outcome.predictions, expected.predictions, atol=1e-4)
    for name in ("best_epoch", "n_epochs", "is_cut_short", "precision", "n_planned"):
        assert getattr(outcome, name) == getattr(expected, name), name
    assert not there.training
    for name, value in here.state_dict().items():
        torch.testing.assert_close(there.state_dict()[name], value, atol=1e-4, rtol=1e-4)


def test_a_worker_trains_without_a_fold_as_this_process_does(made, warm, head):
    local = made[0]["local"]
    folds = Folds.of(local.stores.bundle, seed=0)
    said = {}
    for fold, bundle in enumerate(folds.without[:2]):
        here, expected = local.dealt(bundle, folds.pool).tune(candidate(), head, n_views=2)
        there, outcome = warm.dealt(bundle, folds.pool).tune(candidate(), head, n_views=2)
        for name in ("rung_scores", "best_epoch", "n_epochs", "is_cut_short", "precision", "n_planned"):
            assert getattr(outcome, name) == getattr(expected, name), name
        said[fold] = there.state_dict()
        for name, value in here.state_dict().items():
            torch.testing.assert_close(said[fold][name], value, atol=1e-4, rtol=1e-4)
    # What was left out makes a difference.
    assert any(
        (said[0][name] - value).abs().max() > 1e-3 for name, value in said[1].items() if value.is_floating_point()
    )
    # The search's own parts are what they were.
    _, outcome = warm.tune(candidate(), head)
    assert len(outcome.rung_scores) == 3


def test_what_a_worker_has_found_out_is_known_here(made, warm, head):
    stores, wanted = made[0]["local"].stores, candidate(n_unfrozen=1)
    assert not stores.settled(wanted.body, 1).is_verified
    warm.tune(wanted, head)
    assert stores.settled(wanted.body, 1).entry is not None
    assert stores.is_stored(wanted.body, 1)
    warm.let_go()


def test_what_trials_raise_is_raised_here_and_the_worker_stays(warm, head, order, tmp_path):
    warm.tune(candidate(), head)
    pid = warm.pid
    with pytest.raises(TrialError, match="the loss became"):
        warm.tune(candidate(n_unfrozen=3, lr=1e30, extras={"n_epochs": 4}), head)
    with pytest.raises(EpochTooLongError, match="s were left") as slow:
        warm.tune(candidate(), head, until=time.monotonic() - 1)
    assert slow.value.epoch_s > 0
    with pytest.raises(TrialError, match="its checkpoint is damaged or not there"):
        warm.tune(candidate(), head, leg=Leg(checkpoint=tmp_path / "none", n_before=1))
    order.write_text("out of memory")
    with pytest.raises(TrialMemoryError, match="out of memory"):
        warm.tune(candidate(), head)
    order.write_text("bug")
    with pytest.raises(MetricError, match=r"ZeroDivisionError\('a bug'\)"):
        warm.tune(candidate(), head)
    assert warm.tune(candidate(), head)[1].n_epochs == 3
    assert warm.pid == pid


@pytest.mark.parametrize("what", ["print", "SIGINT"])
def test_neither_what_is_printed_nor_ctrl_c_disturbs_a_worker(warm, head, order, what):
    warm.tune(candidate(), head)
    pid = warm.pid
    order.write_text(what)
    _, outcome = warm.tune(candidate(), head)
    assert len(outcome.rung_scores) == 3
    assert not order.exists()
    assert warm.pid == pid


def test_a_worker_that_is_killed_fails_its_training_and_a_new_one_takes_its_place(warm, head, order, tmp_path):
    order.write_text("SIGKILL")
    (tmp_path / ".checkpoint.01ab.part").touch()  # as if it had been writing
    with pytest.raises(TrialError, match=r"^its worker process was killed by signal 9 \(SIGKILL\)$"):
        warm.tune(candidate(), head, leg=Leg(checkpoint=tmp_path / "checkpoint", pause_at=1))
    assert warm.pid is None
    assert not list(tmp_path.glob("*checkpoint*"))
    assert warm.start_s() > 0
    assert warm.tune(candidate(), head)[1].n_epochs == 3
    assert warm.start_s() == 0  # a warm one needs no time


@pytest.mark.slow
def test_a_worker_that_does_not_end_in_time_is_ended(warm, head, order, monkeypatch):
    warm.tune(candidate(), head)
    pid = warm.pid
    monkeypatch.setattr(warm, "bounds", Bounds(late_s=0.5))
    order.write_text("hang")
    with pytest.raises(TrialError, match=r"went on for more than 0\.5 s beyond its time"):
        warm.tune(candidate(), head, until=time.monotonic() + 6)
    assert not is_running(pid)
    assert not order.exists()


def _first(find, seconds=60):
    """What is found, as soon as something is."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found = find()
        if found is not None:
            return found
        time.sleep(0.02)
    return None


def test_a_worker_that_gives_no_sign_is_ended(new_worker, head):
    worker, stopped = new_worker(silent_s=1.5), []

    def stop():
        stopped.append(_first(lambda: worker.pid))
        os.kill(stopped[0], signal.SIGSTOP)

    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(TrialError, match=r"gave no sign for 1\.5 s"):
        worker.tune(candidate(), head)
    thread.join()
    assert not is_running(stopped[0])


def test_a_worker_that_takes_too_much_memory_is_ended(new_worker, head):
    worker = new_worker(memory_bytes=5_000_000)
    with pytest.raises(TrialMemoryError, match="took more than 5 MB of memory"):
        worker.tune(candidate(), head)
    assert worker.pid is None


@pytest.mark.slow
def test_what_memory_has_taught_a_worker_is_known_here(made, warm, head, order):
    stores, wanted = made[0]["local"].stores, candidate(n_unfrozen=4, extras={"n_epochs": 2, "batch_size": 8})
    order.write_text("out of memory once")
    warm.tune(wanted, head)
    assert not order.exists()
    assert stores.settled(wanted.body, 4).n_at_once == 4


@pytest.mark.slow
def test_a_worker_ended_for_its_memory_is_followed_by_one_with_half_as_many_pictures(
    made, warm, head, order, monkeypatch
):
    local, wanted = made[0]["local"], candidate(n_unfrozen=3, extras={"n_epochs": 2, "batch_size": 8})
    warm.tune(wanted, head)
    pid = warm.pid
    monkeypatch.setattr(warm, "bounds", Bounds(memory_bytes=resident_bytes(pid) + 150_000_000))
    order.write_text("grow")
    _, outcome = warm.tune(wanted, head)
    assert not order.exists()
    assert not is_running(pid)
    assert outcome.n_epochs == 2
    assert local.stores.settled(wanted.body, 3).n_at_once == 4
    # Steps of as many pictures at once as there were, whole and halved, were measured.
    measured = {of.rpartition(", ")[2] for of in local.stores.record._n_used if "3 unfrozen, " in of}
    assert measured >= {"8 pictures", "4 pictures"}
    order.write_text("grow again")
    with pytest.raises(TrialMemoryError, match=r"its worker process took more than [\d,]+ MB of memory"):
        warm.tune(wanted, head)
    order.unlink()
    assert local.stores.settled(wanted.body, 3).n_at_once == 2  # once more, not until one fits


def test_ctrl_c_ends_the_worker(new_worker, head, press_ctrl_c):
    worker, seen = new_worker(), []
    thread = threading.Thread(target=lambda: seen.append(_first(lambda: worker.pid)))
    thread.start()
    press_ctrl_c()
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012
        worker.tune(candidate(), head)
        time.sleep(10)
    thread.join()
    assert not is_running(seen[0])

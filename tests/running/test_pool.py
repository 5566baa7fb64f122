"""Several real worker processes: trainings run side by side, and what ends one of them leaves the others alone."""

import json
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.conftest import TINY
from tests.running.conftest import HAS_PROC, is_running, workers_of

from autobackbone.backbones.build import normalisation
from autobackbone.backbones.source import BackboneSource
from autobackbone.backbones.weights import WeightSource
from autobackbone.data import decode, survey
from autobackbone.errors import TrialError
from autobackbone.metrics import metric_for
from autobackbone.records import Candidate
from autobackbone.running.child import Bounds
from autobackbone.running.pool import WorkerPool, training_side_by_side
from autobackbone.screening import screen
from autobackbone.search.foldheads import Folds
from autobackbone.training.activations import ActivationCache
from autobackbone.training.pausing import Leg
from autobackbone.training.scorers import Scorers
from autobackbone.training.stores import Stores
from autobackbone.training.tuner import STEP_PRECISION, Tuner

pytestmark = pytest.mark.skipif(not HAS_PROC, reason="this system does not tell which processes there are")
SIZE, CPU = (32, 32), torch.device("cpu")
EXACT = {STEP_PRECISION: "float32"}
ENDLESS = {"n_epochs": 100_000, **EXACT}


def candidate(**changes):
    given = {"n_unfrozen": 2, "lr": 1e-3, "extras": {"n_epochs": 3, **EXACT}} | changes
    return Candidate(backbone=TINY, image_size=SIZE, **given)


@pytest.fixture(scope="module")
def made(pictures, random_weights, tmp_path_factory):
    """What trains here, and a screened head."""
    folder = tmp_path_factory.mktemp("pool")
    bundle = decode(survey(pictures), [SIZE], cache_dir=folder / "cache")
    source = BackboneSource({TINY: WeightSource(kind="file", path=random_weights(TINY))}, n_classes=3)
    metric = metric_for("accuracy", n_outputs=3)
    scorers = Scorers(metric=metric, labels=bundle.labels[bundle.indices("validation")])
    cache = ActivationCache(folder=folder / "activations", max_bytes=10**9)
    stores = Stores(bundle=bundle, source=source, cache=cache, device=CPU, seed=0, owner="a run")
    local = Tuner(stores=stores, score=scorers.score, score_passed=scorers.score_passed)
    head = screen(source.network(TINY, SIZE), bundle, SIZE, normalisation(TINY), seed=0, device=CPU).head
    return {"local": local, "source": source, "metric": metric}, head


@pytest.fixture(scope="module")
def head(made):
    return made[1]


@pytest.fixture(scope="module")
def pool(made, tmp_path_factory):
    """Two workers for all tests but those that use theirs up."""
    folder = tmp_path_factory.mktemp("two") / ".worker"
    with WorkerPool(**made[0], folder=folder, n_workers=2, n_threads=1) as pool:
        yield pool
    assert not folder.exists()


def pids(pool):
    return [worker.pid for worker in pool.workers]


def until_true(is_true, seconds=60):
    until = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < until, "it did not come true"
        time.sleep(0.02)


@pytest.mark.slow
def test_two_train_side_by_side_and_give_what_is_trained_here(made, pool, head, tmp_path):
    wanted = [candidate(n_unfrozen=depth) for depth in (1, 2)]
    legs = [Leg(checkpoint=tmp_path / f"{i}", n_before=0, pause_at=2) for i in range(2)]
    expected = [made[0]["local"].tune(one, head) for one in wanted]
    assert pool.start_s() > 0
    with ThreadPoolExecutor(2) as threads:
        first = list(threads.map(lambda one, leg: pool.tune(one, head, leg=leg)[1], wanted, legs))
    begun = pids(pool)
    assert len(set(begun)) == 2
    assert sorted(workers_of(os.getpid())) == sorted(begun)
    # They live on though the threads that needed them first have ended, and are waited for by nobody.
    assert pool.start_s() == 0
    rest = [Leg(checkpoint=leg.checkpoint, n_before=2) for leg in legs]
    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(lambda one, leg: pool.tune(one, head, leg=leg), wanted, rest))
    assert pids(pool) == begun
    for (network, outcome), (here, other), paused in zip(found, expected, first, strict=True):
        np.testing.assert_allclose(outcome.rung_scores, other.rung_scores, atol=1e-4)
        assert outcome.rung_scores[:2] == pytest.approx(paused.rung_scores, abs=1e-6)
        for name, value in here.state_dict().items():
            torch.testing.assert_close(network.state_dict()[name], value, atol=1e-3, rtol=1e-3)
    setups = [json.loads((worker.folder / "setup.json").read_text()) for worker in pool.workers]
    assert [setup["n_threads"] for setup in setups] == [1, 1]


def test_a_leg_goes_on_where_its_network_is_kept(pool, head, tmp_path):
    legs = [Leg(checkpoint=tmp_path / f"{i}", n_before=0, pause_at=1) for i in range(2)]
    both = threading.Barrier(2)

    def begin(leg):
        with pool._borrowed(leg) as worker:
            both.wait(30)
            return worker

    with ThreadPoolExecutor(2) as threads:
        keepers = list(threads.map(begin, legs))
    assert keepers[0] is not keepers[1]
    for leg, keeper in [*zip(legs, keepers, strict=True), (legs[0], keepers[0])]:
        with pool._borrowed(leg) as worker:
            assert worker is keeper
    pool.let_go()


@pytest.mark.slow
def test_folds_are_trained_in_the_pool_too(made, pool, head):
    local = made[0]["local"]
    folds = Folds.of(local.stores.bundle, seed=0)
    here, _ = local.dealt(folds.without[0], folds.pool).tune(candidate(), head)
    there, _ = pool.dealt(folds.without[0], folds.pool).tune(candidate(), head)
    for name, value in here.state_dict().items():
        torch.testing.assert_close(there.state_dict()[name], value, atol=1e-3, rtol=1e-3)


def test_a_worker_that_is_killed_fails_its_training_alone(pool, head, tmp_path):
    errors, outcomes = [], []

    def train(wanted, leg):
        try:
            outcomes.append(pool.tune(wanted, head, leg=leg)[1])
        except TrialError as error:
            errors.append(str(error))

    endless = candidate(extras=ENDLESS)
    killed, other = (Leg(checkpoint=tmp_path / name, pause_at=end) for name, end in (("a", 90_000), ("b", 3)))
    thread = threading.Thread(target=train, args=(endless, killed))
    thread.start()
    until_true(lambda: len(pool._idle) == 1)
    (busy,) = {0, 1} - set(pool._idle)
    until_true(lambda: pool.workers[busy].pid is not None)
    train(candidate(extras={"n_epochs": 4, **EXACT}), other)
    os.kill(pool.workers[busy].pid, signal.SIGKILL)
    thread.join(60)
    assert errors == ["its worker process was killed by signal 9 (SIGKILL)"]
    assert [outcome.n_epochs for outcome in outcomes] == [3]
    assert pool.tune(candidate(), head)[1].n_epochs == 3


def test_what_is_given_up_ends_at_once_and_nothing_begins_any_more(made, head, tmp_path):
    with WorkerPool(**made[0], folder=tmp_path / ".worker", n_workers=2, n_threads=1) as pool:
        threads = ThreadPoolExecutor(2)
        going = [threads.submit(pool.tune, candidate(extras=ENDLESS), head) for _ in range(2)]
        until_true(lambda: all(worker.is_warm for worker in pool.workers))
        begun = pids(pool)
        pool.give_up()
        for future in going:
            with pytest.raises(TrialError, match="it was given up, since the search ended in the midst of it"):
                future.result(30)
        assert not any(map(is_running, begun))
        with pytest.raises(TrialError, match="it was given up"):
            pool.tune(candidate(), head)
        threads.shutdown()
    assert not (tmp_path / ".worker").exists()


def test_workers_share_threads_memory_and_devices(made, head, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    given = {**made[0], "folder": tmp_path / ".worker"}
    with training_side_by_side(2, **given, bounds=Bounds(memory_bytes=10**10), groups=[(0, 1), (2, 3)]) as pool:
        assert (pool.n_at_once, pool.n_threads) == (2, 2)
        assert [worker.bounds.memory_bytes for worker in pool.workers] == [5 * 10**9] * 2
        begun = pool.workers[1].begin(pool.workers[1].folder, 1)
        assert b"CUDA_VISIBLE_DEVICES=6,7" in Path(f"/proc/{begun.pids[0]}/environ").read_bytes().split(b"\0")
    # Also what was begun for somebody who waits for it no more ends with the pool.
    assert not is_running(begun.pids[0])
    with training_side_by_side(0, **given) as runner:
        assert runner is made[0]["local"]
        assert runner.n_at_once == 1

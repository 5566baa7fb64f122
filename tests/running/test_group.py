"""Real worker processes that train together: they train what this process would, and end together."""

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.conftest import TINY
from tests.running.conftest import HAS_PROC, is_running

from autobackbone.backbones.build import normalisation
from autobackbone.backbones.source import BackboneSource
from autobackbone.backbones.weights import WeightSource
from autobackbone.data import decode, survey
from autobackbone.errors import EpochTooLongError, MetricError, TrialError
from autobackbone.handing import as_handed
from autobackbone.metrics import metric_for
from autobackbone.records import Candidate
from autobackbone.running.child import Bounds
from autobackbone.running.crossing import write_setup
from autobackbone.running.group import Group
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
PARENT = """
import sys, time
from pathlib import Path
from autobackbone.running.group import Group
group = Group(Path(sys.argv[1]), 2)
print(*group.pids, flush=True)
time.sleep(600)
"""

LONELY = """
from pathlib import Path

from pytorch_lightning.callbacks import Callback

ORDER = Path({order!r})


class Lonely(Callback):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_rank == 1 and trainer.current_epoch == 1 and ORDER.exists():
            order = ORDER.read_text()
            ORDER.unlink()
            raise MemoryError if order == "memory" else ZeroDivisionError("a bug")
"""


def candidate(**changes):
    # Of 26 pictures the last batch has two: of three processes one has none of it.
    extras = {"n_epochs": 3, "batch_size": 8, STEP_PRECISION: "float32"}
    given = {"n_unfrozen": 2, "lr": 1e-3, "extras": extras} | changes
    return Candidate(backbone=TINY, image_size=SIZE, **given)


@pytest.fixture(scope="module")
def make(pictures, random_weights, order, tmp_path_factory):
    """A function: a tuner of this process with stores of its own, the source of its networks, and their metric."""
    folder = tmp_path_factory.mktemp("group")
    bundle = decode(survey(pictures), [SIZE], cache_dir=folder / "cache")
    source = BackboneSource({TINY: WeightSource(kind="file", path=random_weights(TINY))}, n_classes=3)
    metric = metric_for("obedient:Obedient", n_outputs=3)
    scorers = Scorers(metric=metric, labels=bundle.labels[bundle.indices("validation")])

    def made(name):
        cache = ActivationCache(folder=folder / name, max_bytes=10**9)
        stores = Stores(bundle=bundle, source=source, cache=cache, device=CPU, seed=0, owner="a run")
        local = Tuner(stores=stores, score=scorers.score, score_passed=scorers.score_passed)
        return {"local": local, "source": source, "metric": metric}

    return made


@pytest.fixture(scope="module")
def local(make):
    return make("here")["local"]


@pytest.fixture(scope="module")
def head(local):
    stores = local.stores
    network = stores.source.network(TINY, SIZE)
    return screen(network, stores.bundle, SIZE, normalisation(TINY), seed=0, device=CPU).head


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    """The folder of a logger that both are handed."""
    return tmp_path_factory.mktemp("logs")


@pytest.fixture(scope="module")
def lonely(order):
    """The file in which the second process alone is told what to raise, in its second epoch."""
    file = order.with_name("order of the second")
    order.with_name("lonely.py").write_text(LONELY.format(order=str(file)))
    return file


@pytest.fixture(scope="module")
def pair(make, logs, lonely, tmp_path_factory):
    """Two processes for all tests here, begun anew where one ended them."""
    of = make("there")
    handed = as_handed(
        None, "lonely:Lonely", ("pytorch_lightning.loggers:CSVLogger", {"save_dir": str(logs), "name": "told"})
    )
    of["local"] = replace(of["local"], handed=handed)
    with WorkerTuner(**of, folder=tmp_path_factory.mktemp("pair") / "a ü%20" / ".worker", n_ranks=2) as worker:
        yield worker


def _pids(worker):
    return worker._child.pids


def _require_same(there, outcome, here, expected):
    np.testing.assert_allclose(outcome.rung_scores, expected.rung_scores, atol=1e-4)
    np.testing.assert_allclose(outcome.train_scores, expected.train_scores, atol=1e-4)
    np.testing.assert_allclose(outcome.predictions, expected.predictions, atol=1e-4)
    for name in ("best_epoch", "n_epochs", "is_cut_short", "precision", "n_planned"):
        assert getattr(outcome, name) == getattr(expected, name), name
    for name, value in here.state_dict().items():
        torch.testing.assert_close(there.state_dict()[name], value, atol=1e-3, rtol=1e-3)


def test_two_processes_train_the_same_network_leg_by_leg(local, pair, head, tmp_path):
    legs = [
        [Leg(checkpoint=tmp_path / name, n_before=n, pause_at=end) for n, end in ((0, 1), (1, 2), (2, None))]
        for name in ("here", "there")
    ]
    for one, tuner in ((0, local), (1, pair)):
        tuner.tune(candidate(), head, n_views=2, leg=legs[one][0])
    pids = _pids(pair)
    pair.let_go()  # so that what goes on is built anew
    pair.tune(candidate(), head, n_views=2, leg=legs[1][1])
    # What one process paused two go on with, and the other way round.
    local.tune(candidate(), head, n_views=2, leg=legs[0][1])
    here, expected = local.tune(candidate(), head, n_views=2, leg=legs[1][2])
    there, outcome = pair.tune(candidate(), head, n_views=2, leg=legs[0][2], until=time.monotonic() + 600)
    _require_same(there, outcome, here, expected)
    assert _pids(pair) == pids


def test_activations_are_stored_and_costs_are_noted_once(make, pair, head):
    wanted, stores = candidate(n_unfrozen=1, extras={"n_epochs": 1}), pair.local.stores
    before = set(stores.cache.folder.glob("*"))
    pair.tune(wanted, head, n_views=2)
    assert len(set(stores.cache.folder.glob("*")) - before) == 2  # the pictures, and a view of them
    assert stores.is_stored(wanted.body, 1)
    noted = {of: n for of, n in stores.record._n_used.items() if ", 1 unfrozen" in of}
    assert set(noted.values()) == {1}
    assert any(of.endswith("1 unfrozen, 4 pictures on 2 devices") for of in noted)
    assert stores.settled(wanted.body, 1).entry is not None


def test_a_logger_hears_of_a_training_once(pair, head, logs):
    before = set(logs.glob("told/*"))
    _, outcome = pair.tune(candidate(), head)
    (told,) = set(logs.glob("told/*")) - before
    rows = [line.split(",") for line in (told / "metrics.csv").read_text().splitlines()]
    scores = [row[rows[0].index("validation_score")] for row in rows[1:]]
    np.testing.assert_allclose([float(one) for one in scores if one], outcome.rung_scores, atol=1e-6)


def test_two_processes_train_without_a_fold_what_one_does(local, pair, head):
    folds = Folds.of(local.stores.bundle, seed=0)
    here, expected = local.dealt(folds.without[0], folds.pool).tune(candidate(), head)
    there, outcome = pair.dealt(folds.without[0], folds.pool).tune(candidate(), head)
    for name, value in here.state_dict().items():
        torch.testing.assert_close(there.state_dict()[name], value, atol=1e-3, rtol=1e-3)
    assert outcome.n_epochs == expected.n_epochs == 3


def test_what_both_raise_is_raised_here_and_they_stay(pair, head, order, tmp_path):
    pair.tune(candidate(), head)
    pids = _pids(pair)
    with pytest.raises(TrialError, match=r"^the loss became .* at lr 1\.0e\+30$"):
        pair.tune(candidate(n_unfrozen=3, lr=1e30), head)
    with pytest.raises(EpochTooLongError, match="s were left") as slow:
        pair.tune(candidate(), head, until=time.monotonic() - 1)
    assert slow.value.epoch_s > 0
    with pytest.raises(TrialError, match=r"^it cannot go on: its checkpoint is damaged or not there"):
        pair.tune(candidate(), head, leg=Leg(checkpoint=tmp_path / "none", n_before=1))
    order.write_text("bug")
    with pytest.raises(MetricError, match=r"ZeroDivisionError\('a bug'\)"):
        pair.tune(candidate(), head)
    assert pair.tune(candidate(), head)[1].n_epochs == 3
    assert _pids(pair) == pids


def _when(order_is_obeyed, do):
    """Have something done as soon as an order is obeyed."""

    def wait():
        until = time.monotonic() + 60
        while order_is_obeyed.exists() and time.monotonic() < until:
            time.sleep(0.02)
        do()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


@pytest.mark.parametrize("rank", [1, pytest.param(0, marks=pytest.mark.slow)])
def test_where_one_is_killed_both_end_and_new_ones_take_their_place(pair, head, order, rank):
    pair.tune(candidate(), head)
    pids = _pids(pair)
    order.write_text("hang")  # the first one scores; the other one waits for it
    thread = _when(order, lambda: os.kill(pids[rank], signal.SIGKILL))
    named = rf"^rank {rank} of its 2 worker processes was killed by signal 9 \(SIGKILL\)$"
    with pytest.raises(TrialError, match=named):
        pair.tune(candidate(), head)
    thread.join()
    assert not any(map(is_running, pids))
    assert pair.start_s() > 0
    assert pair.tune(candidate(), head)[1].n_epochs == 3


@pytest.mark.slow
def test_where_one_gives_no_sign_both_end(pair, head, order, monkeypatch):
    pair.tune(candidate(), head)
    pids = _pids(pair)
    monkeypatch.setattr(pair, "bounds", Bounds(silent_s=3))
    order.write_text("hang")
    thread = _when(order, lambda: os.kill(pids[1], signal.SIGSTOP))
    with pytest.raises(TrialError, match=r"^rank 1 of its 2 worker processes gave no sign for 3 s$"):
        pair.tune(candidate(), head)
    thread.join()
    assert not any(map(is_running, pids))


@pytest.mark.slow
def test_both_end_where_one_does_not_end_in_time(pair, head, order, monkeypatch):
    pair.tune(candidate(), head)
    pids = _pids(pair)
    monkeypatch.setattr(pair, "bounds", Bounds(late_s=0.5))
    order.write_text("hang")
    with pytest.raises(TrialError, match=r"^its 2 worker processes went on for more than 0\.5 s beyond its time$"):
        pair.tune(candidate(), head, until=time.monotonic() + 6)
    assert not any(map(is_running, pids))


@pytest.mark.slow
def test_where_memory_is_too_small_new_ones_take_half_as_many_pictures(pair, head, order):
    wanted, stores = candidate(n_unfrozen=4), pair.local.stores
    pair.tune(candidate(), head)
    pids = _pids(pair)
    order.write_text("out of memory once")
    _, outcome = pair.tune(wanted, head)
    assert outcome.n_epochs == 3
    assert not any(map(is_running, pids))
    assert stores.settled(wanted.body, 4).n_at_once == 4


@pytest.mark.slow
def test_one_that_fails_alone_in_the_midst_ends_all_of_them(pair, head, lonely):
    pair.tune(candidate(), head)
    pids = _pids(pair)
    lonely.write_text("bug")
    with pytest.raises(RuntimeError, match=r"(?s)^a bug in the worker process:.rank 1 of its 2 .*ZeroDivisionError"):
        pair.tune(candidate(), head)
    assert not any(map(is_running, pids))
    lonely.write_text("memory")
    wanted = candidate(n_unfrozen=3)
    _, outcome = pair.tune(wanted, head)
    assert outcome.n_epochs == 3
    assert not lonely.exists()
    assert pair.local.stores.settled(wanted.body, 3).n_at_once == 4


@pytest.mark.slow
def test_who_fails_alone_is_named_and_the_others_do_not_wait_for_ever(make, tmp_path):
    setup = tmp_path / "setup"
    setup.mkdir()
    given = make("alone")
    write_setup(setup, given["local"], given["metric"], given["source"])
    group = Group(setup, 2)
    try:
        group.tell({"do": "let go"})  # is not answered
        for rank, (_, child) in enumerate(group.members()):
            folder = setup if rank == 0 else tmp_path / "nowhere"
            child.tell({"do": "set up", "folder": str(folder), "rank": rank, "n_ranks": 2})
        answer = None
        until = time.monotonic() + 120
        while answer is None and time.monotonic() < until:
            answer = group.answer(0.25)
        assert answer["is"] == "failed"
        assert answer["message"].startswith("rank 1 of its 2 worker processes: ")
        assert "nowhere" in answer["message"]
        assert group.is_alive()  # the first one waits for the other
        assert not group.is_whole
    finally:
        group.end()


def test_no_group_outlives_its_parent(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as parent:
        workers = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(workers) == 2
        assert all(map(is_running, workers))
        parent.send_signal(signal.SIGKILL)
    until = time.monotonic() + 30
    while any(map(is_running, workers)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(is_running, workers))

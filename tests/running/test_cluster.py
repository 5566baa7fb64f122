"""A real cluster of Ray, its machines in processes of their own, one of which is killed in the middle."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.conftest import TINY
from tests.running.conftest import HAS_PROC, is_running

from autobackbone import Budget, select_backbone
from autobackbone.backbones.build import normalisation
from autobackbone.backbones.source import BackboneSource
from autobackbone.backbones.weights import WeightSource
from autobackbone.data import decode, survey
from autobackbone.errors import ArgumentError, TrialError
from autobackbone.metrics import metric_for
from autobackbone.progress import Silent
from autobackbone.records import Candidate
from autobackbone.runners import RunnerRay
from autobackbone.running.child import Bounds
from autobackbone.running.cluster import RayTuner
from autobackbone.screening import screen
from autobackbone.search.foldheads import Folds
from autobackbone.training.activations import ActivationCache
from autobackbone.training.pausing import Leg
from autobackbone.training.scorers import Scorers
from autobackbone.training.stores import Stores
from autobackbone.training.tuner import STEP_PRECISION, Tuner

ray = pytest.importorskip("ray", reason="needs the extra `ray`")
pytestmark = pytest.mark.skipif(not HAS_PROC, reason="this system does not tell which processes there are")
SIZE, CPU = (32, 32), torch.device("cpu")


def candidate(**changes):
    # Left to a clock, either of two trainings may be the one in bfloat16.
    given = {"n_unfrozen": 2, "lr": 1e-3, "extras": {"n_epochs": 3, STEP_PRECISION: "float32"}} | changes
    return Candidate(backbone=TINY, image_size=SIZE, **given)


@pytest.fixture(scope="module")
def cluster(order, tmp_path_factory):
    """Two machines for trainings and a head that trains nothing; each has a cache of its own."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        # Nobody but this machine can reach it.
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_DISABLE_IMPORT_WARNING", "1")
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        patch.setenv("AUTOBACKBONE_CACHE", str(tmp_path_factory.mktemp("machine")))
        at_sigterm = signal.getsignal(signal.SIGTERM)  # which Ray takes for itself
        found = Cluster(initialize_head=True, head_node_args={**ROOM, "num_cpus": 0, "include_dashboard": False})
        found.machines = [found.add_node(num_cpus=1, **ROOM) for _ in range(2)]
        signal.signal(signal.SIGTERM, at_sigterm)
        yield found
        ray.shutdown()
        found.shutdown()
        signal.signal(signal.SIGTERM, at_sigterm)


def same_modules():
    """Machines find modules where this process does."""
    return {"env_vars": {"PYTHONPATH": os.pathsep.join(sys.path)}}


ROOM = {"object_store_memory": 80_000_000}


@pytest.fixture(scope="module")
def made(pictures, random_weights, order, tmp_path_factory):
    """The tuner of this process, the source of its networks, their metric, and a screened head."""
    folder = tmp_path_factory.mktemp("here")
    bundle = decode(survey(pictures), [SIZE], cache_dir=folder / "cache")
    source = BackboneSource({TINY: WeightSource(kind="file", path=random_weights(TINY))}, n_classes=3)
    metric = metric_for("obedient:Obedient", n_outputs=3)
    scorers = Scorers(metric=metric, labels=bundle.labels[bundle.indices("validation")])
    cache = ActivationCache(folder=folder / "activations", max_bytes=10**9)
    stores = Stores(bundle=bundle, source=source, cache=cache, device=CPU, seed=0, owner="a run")
    local = Tuner(stores=stores, score=scorers.score, score_passed=scorers.score_passed)
    head = screen(source.network(TINY, SIZE), bundle, SIZE, normalisation(TINY), seed=0, device=CPU).head
    return {"local": local, "source": source, "metric": metric}, head


@pytest.fixture(scope="module")
def photos(pictures, tmp_path_factory):
    """Files in given parts, which no folds mix."""
    folder = tmp_path_factory.mktemp("photos")
    for number, (picture, label) in enumerate(zip(*pictures, strict=True)):
        file = folder / ("train", "train", "val", "test")[number % 4] / f"class {label}" / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(file)
    return folder


@pytest.fixture(
    params=[
        pytest.param("the same paths", marks=pytest.mark.slow),
        "a folder",
        pytest.param("an address", marks=pytest.mark.slow),
    ]
)
def tuner(request, cluster, made, tmp_path):
    shared = {"the same paths": None, "a folder": tmp_path / "seen", "an address": f"file://{tmp_path}/seen"}
    how = RunnerRay(address=cluster.address, shared=shared[request.param], runtime_env=same_modules())
    at_sigterm = signal.getsignal(signal.SIGTERM)
    with RayTuner(**made[0], folder=tmp_path / ".worker", how=how) as found:
        assert signal.getsignal(signal.SIGTERM) is at_sigterm
        yield found
    assert not (tmp_path / ".worker").exists()


def test_a_cluster_trains_the_same_network_leg_by_leg(made, tuner, tmp_path):
    local, head = made[0]["local"], made[1]
    legs = [
        [Leg(checkpoint=tmp_path / name / "c.ckpt", n_before=n, pause_at=end) for n, end in ((0, 1), (1, None))]
        for name in ("here", "there")
    ]
    for of in legs:
        of[0].checkpoint.parent.mkdir()
    local.tune(candidate(), head, leg=legs[0][0])
    here, expected = local.tune(candidate(), head, leg=legs[0][1], n_views=2)
    tuner.tune(candidate(), head, leg=legs[1][0])
    assert legs[1][0].checkpoint.is_file()
    there, outcome = tuner.tune(candidate(), head, leg=legs[1][1], n_views=2, until=time.monotonic() + 600)
    np.testing.assert_allclose(outcome.rung_scores, expected.rung_scores, atol=1e-4)
    np.testing.assert_allclose(outcome.predictions, expected.predictions, atol=1e-4)
    for name in ("best_epoch", "n_epochs", "is_cut_short", "precision", "n_planned"):
        assert getattr(outcome, name) == getattr(expected, name), name
    assert not there.training
    for name, value in here.state_dict().items():
        torch.testing.assert_close(there.state_dict()[name], value, atol=1e-4, rtol=1e-4)
    assert not list((tmp_path / ".worker" / "jobs").iterdir())


@pytest.mark.slow
def test_a_machine_that_is_lost_costs_nothing_but_time(made, cluster, order, tmp_path):
    local, head = made[0]["local"], made[1]
    legs = [
        [Leg(checkpoint=tmp_path / f"{name}.ckpt", n_before=n, pause_at=end) for n, end in ((0, 1), (1, None))]
        for name in ("here", "there")
    ]
    local.tune(candidate(), head, leg=legs[0][0])
    _, expected = local.tune(candidate(), head, leg=legs[0][1])
    how = RunnerRay(address=cluster.address, runtime_env=same_modules())
    with RayTuner(**made[0], folder=tmp_path / ".worker", how=how) as tuner:
        assert tuner.n_at_once == 2
        tuner.tune(candidate(), head, leg=legs[1][0])
        order.write_text("hang")
        killer = threading.Thread(target=lose_who_trains, args=(cluster, order))
        killer.start()
        _, outcome = tuner.tune(candidate(), head, leg=legs[1][1], until=time.monotonic() + 300)
        killer.join()
        end = time.monotonic() + 120
        while tuner.n_at_once == 2:  # the head waits for some heartbeats before it believes it
            assert time.monotonic() < end
            time.sleep(0.5)
    np.testing.assert_allclose(outcome.rung_scores, expected.rung_scores, atol=1e-4)
    np.testing.assert_allclose(outcome.predictions, expected.predictions, atol=1e-4)
    # From its rung on: the first epoch was not trained again.
    assert outcome.n_epochs == 2


@pytest.mark.slow
def test_a_search_that_loses_a_machine_loses_nothing_else(cluster, photos, random_weights, order, tmp_path):
    machine = cluster.add_node(num_cpus=1, **ROOM)
    cluster.machines.append(machine)
    lines, threads = [], []

    class Tells(Silent):
        def say(self, line):
            lines.append(line)

        def progress(self, share, detail):
            if detail.startswith("trial") and not threads:
                order.write_text("hang")
                threads.append(threading.Thread(target=lose_who_trains, args=(cluster, order)))
                threads[0].start()

    how = RunnerRay(address=cluster.address, shared=f"file://{tmp_path}/seen", runtime_env=same_modules())
    given = {"backbones": TINY, "image_sizes": 32, "weights": random_weights(TINY), "metric": "obedient:Obedient"}
    given |= {"run_dir": tmp_path / "run", "cache_dir": tmp_path / "cache", "progress": Tells()}
    given |= {"space": {"n_epochs": 3, "n_blocks_kept": None}, "runner": how}
    result = select_backbone(photos, Budget(n_trials=4), **given)
    threads[0].join()
    tuned = [trial for trial in result.trials if trial.n_unfrozen > 0]
    assert (len(tuned), [trial for trial in tuned if trial.state == "failed"]) == (4, [])
    # The run goes on without a cluster, as any other.
    again = select_backbone(photos, Budget(n_trials=1), **given | {"runner": None, "progress": False})
    assert len([trial for trial in again.trials if trial.n_unfrozen > 0]) == 5
    # Of the search nothing is left in the shared folder, but the pictures that the next one needs.
    assert sorted(file.name for file in (tmp_path / "seen").iterdir()) == ["data"]
    assert not (tmp_path / "run" / ".worker").exists()


def lose_who_trains(cluster, order):
    """Once an order to hang is obeyed, kill the machine whose process obeyed it, with all that runs on it."""
    told = order.with_name("hangs")
    while not (told.exists() and told.read_text()):
        time.sleep(0.1)
    pid = int(told.read_text())
    told.unlink()
    parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    (machine,) = [one for one in cluster.machines if one.all_processes["raylet"][0].process.pid == parent]
    cluster.machines.remove(machine)
    cluster.remove_node(machine, allow_graceful=False)
    while is_running(pid):  # it sees that its machine is gone
        time.sleep(0.1)


@pytest.mark.slow
def test_a_process_that_dies_costs_nothing_and_what_trials_raise_is_raised_here(made, cluster, order, tmp_path):
    head = made[1]
    how = RunnerRay(address=cluster.address, runtime_env=same_modules(), max_retries=1)
    with RayTuner(**made[0], folder=tmp_path / ".worker", how=how) as tuner:
        order.write_text("SIGKILL")
        _, outcome = tuner.tune(candidate(), head)
        assert (len(outcome.rung_scores), order.exists()) == (3, False)
        with pytest.raises(TrialError, match="the loss became"):
            tuner.tune(candidate(n_unfrozen=3, lr=1e30, extras={"n_epochs": 4}), head)


@pytest.mark.slow
def test_a_task_that_hangs_is_cancelled_at_its_end(made, cluster, order, tmp_path):
    how = RunnerRay(address=cluster.address, runtime_env=same_modules())
    with RayTuner(**made[0], folder=tmp_path / ".worker", how=how, bounds=Bounds(late_s=1.0)) as tuner:
        tuner.tune(candidate(), made[1])
        order.write_text("hang")
        with pytest.raises(TrialError, match="went on for more than 1 s beyond its time"):
            tuner.tune(candidate(), made[1], until=time.monotonic() + 15)
        _, outcome = tuner.tune(candidate(), made[1])
        assert len(outcome.rung_scores) == 3


@pytest.mark.slow
def test_a_cluster_trains_without_a_fold_as_this_process_does(made, tuner):
    local = made[0]["local"]
    folds = Folds.of(local.stores.bundle, seed=0)
    here, _ = local.dealt(folds.without[0], folds.pool).tune(candidate(), made[1])
    there, _ = tuner.dealt(folds.without[0], folds.pool).tune(candidate(), made[1])
    for name, value in here.state_dict().items():
        torch.testing.assert_close(there.state_dict()[name], value, atol=1e-4, rtol=1e-4)


def test_what_no_machine_has_is_told_at_once(made, cluster, tmp_path):
    for how, message in (
        (RunnerRay(address=cluster.address, num_gpus=1), "a task of 1 CPUs and 1 GPUs fits on none"),
        (RunnerRay(address="127.0.0.1:1"), "no cluster of Ray answers at '127.0.0.1:1': .*refused"),
        (RunnerRay(address=cluster.address, num_cpus=7), "a task of 7 CPUs fits on none"),
        (RunnerRay(address=cluster.address, shared="nowhere://x"), "shared is a folder that all machines see"),
    ):
        with (
            pytest.raises(ArgumentError, match=message),
            RayTuner(**made[0], folder=tmp_path / ".worker", how=how),
        ):
            pass
        assert not (tmp_path / ".worker").exists()


@pytest.mark.slow
def test_a_metric_that_machines_cannot_import_is_told(made, cluster, tmp_path):
    how = RunnerRay(address=cluster.address)
    with (
        RayTuner(**made[0], folder=tmp_path / ".worker", how=how) as tuner,
        pytest.raises(ArgumentError, match=r"needs a metric that all machines can import.*No module named 'obedient'"),
    ):
        tuner.tune(candidate(), made[1])

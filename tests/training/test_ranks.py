"""Two processes that train together give what one gives, decide the same, and end together."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pytorch_lightning.strategies import FSDPStrategy
from tests.training import together

from autobackbone.errors import ArgumentError
from autobackbone.training import ranks as module
from autobackbone.training.pausing import Leg
from autobackbone.training.ranks import ALONE, Ranks, require_devices

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("together")


@pytest.fixture(scope="module")
def alone(folder):
    """What one process gives."""
    return json.loads(json.dumps(together.cases(ALONE, folder)))


@pytest.fixture(scope="module")
def both(folder):
    """What each of two gives."""
    path = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
    environment = {**os.environ, "PYTHONPATH": path}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.training.together", str(rank), "2", str(folder)],
            env=environment,
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        for process in processes:
            _, printed = process.communicate(timeout=240)
            assert process.returncode == 0, printed
    finally:
        for process in processes:
            process.kill()
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def _require_same(found, expected, *, has_predictions=True):
    for name in ("rung_scores", "train_scores", *(("predictions",) if has_predictions else ())):
        np.testing.assert_allclose(found[name], expected[name], atol=1e-5, err_msg=name)
    assert found["weights"].keys() == expected["weights"].keys()
    for name, values in expected["weights"].items():
        np.testing.assert_allclose(found["weights"][name], values, atol=1e-5, err_msg=name)
    for name in ("n_epochs", "is_cut_short"):
        assert found[name] == expected[name], name


ALIKE = ["plain", "in two passes", "balanced", "one row to score", "nothing to score", "paused", "went on", "nowhere"]


@pytest.mark.parametrize("case", [*ALIKE, "late at the others", "plain again"])
def test_two_processes_train_what_one_does(alone, both, case):
    expected = alone["plain" if case == "late at the others" else case]
    _require_same(both[0][case], expected)
    _require_same(both[1][case], expected, has_predictions=False)


def test_a_training_goes_on_with_another_number_of_processes(alone, both, folder):
    assert both
    went_on = together.trained(ALONE, leg=Leg(checkpoint=folder / "by 2.ckpt", n_before=1))
    _require_same(went_on, alone["went on"])
    assert not both[0]["nowhere"]["is_there"]


def test_one_row_more_in_the_last_batch_makes_a_difference(alone):
    """Else the weight of a short batch could be wrong, and nothing above would tell."""
    shorter = together.trained(ALONE, recipe=together.replace(together.RECIPE, batch_size=together.N_TRAIN))
    assert not np.allclose(shorter["rung_scores"], alone["plain"]["rung_scores"], atol=1e-3)


@pytest.mark.parametrize("case", ["statistics", "statistics of few"])
def test_moving_statistics_are_those_of_all_processes(both, case):
    first, second = (one[case]["weights"] for one in both)
    assert {"layers.1.running_mean", "layers.1.running_var"} <= first.keys()
    assert first == second


@pytest.mark.parametrize(
    ("case", "error", "message", "of_others"),
    [
        ("a number that is none", "TrialError", "the loss became nan at lr 3.0e-02", "TrialError"),
        ("a score that is none", "MetricError", "not defined", "FollowedError"),
        ("late at the first", "EpochTooLongError", "time ended inside the first epoch", "EpochTooLongError"),
        ("statistics of one", "TrialError", "no variance to normalise by. Give another batch_size", "TrialError"),
        ("a failure", "TrialError", "a reason", "FollowedError"),
    ],
)
def test_what_ends_one_process_ends_both(alone, both, case, error, message, of_others):
    assert both[0][case]["error"] == error
    assert message in both[0][case]["message"]
    assert both[1][case]["error"] == of_others
    assert alone[case]["error"] == error


def test_the_first_process_decides_and_has_what_all_have(both):
    for one in both:
        assert one["a decision"]["by"] == 0
        assert math.isnan(one["a decision"]["nan"][0])
        assert one["a decision"]["nan"][1] == 0.1 + 0.2
    assert [one["gathered"] for one in both] == [[[], [0.0, 1.0, 2.0]], []]


@given(n=st.integers(1, 9), n_rows=st.integers(1, 40), n_least=st.integers(1, 3))
def test_each_row_is_one_rank_s_and_counts_the_same(n, n_rows, n_least):
    ranks, losses = [Ranks(rank=rank, n=n) for rank in range(n)], np.random.default_rng(0).normal(size=n_rows)
    parts = [one.part_of(n_rows, n_least) for one in ranks]
    assert all(len(part) == len(set(part)) >= min(n_least, n_rows) for part in parts)
    own = [np.array(part[: max(1, one.n_own(n_rows))]) for part, one in zip(parts, ranks, strict=True)]
    counted = [rows[: one.n_own(n_rows)] for rows, one in zip(own, ranks, strict=True)]
    assert sorted(np.concatenate(counted).tolist()) == list(range(n_rows))
    weighed = [one.weight(n_rows) * losses[rows].mean() for rows, one in zip(own, ranks, strict=True)]
    np.testing.assert_allclose(np.mean(weighed), losses.mean(), atol=1e-12)


def test_devices_that_are_not_there_are_named(monkeypatch):
    require_devices(1, torch.device("mps"))
    monkeypatch.setattr(module.os, "cpu_count", lambda: 3)
    require_devices(3, torch.device("cpu"))
    with pytest.raises(ArgumentError, match=r"4 processes on the CPU, and 3 cores are there\. Give fewer"):
        require_devices(4, torch.device("cpu"))
    with pytest.raises(ArgumentError, match=r"^devices_per_trial=2 needs 2 GPUs, and 0 can be seen here\. Give fewer"):
        require_devices(2, torch.device("cuda"))
    with pytest.raises(ArgumentError, match=r"trainings run on 'mps' here\. Give devices_per_trial=1"):
        require_devices(2, torch.device("mps"))
    monkeypatch.setattr(module.torch.cuda, "device_count", lambda: 4)
    require_devices(4, torch.device("cuda"))


def test_fsdp_is_configured_where_there_are_gpus_and_refused_elsewhere(monkeypatch):
    """No more than that: Lightning refuses to train so on a CPU."""
    arguments = Ranks(rank=1, n=2).trainer_arguments(torch.device("cuda"), "fsdp")
    strategy = arguments["strategy"]
    assert isinstance(strategy, FSDPStrategy)
    assert strategy.process_group_backend == "cpu:gloo,cuda:nccl"
    assert strategy.kwargs["use_orig_params"]
    assert strategy.cluster_environment.creates_processes_externally
    assert (strategy.cluster_environment.world_size(), strategy.cluster_environment.local_rank()) == (2, 1)
    monkeypatch.setattr(module.torch.cuda, "device_count", lambda: 4)
    require_devices(2, torch.device("cuda"), "fsdp")
    for n, device in ((1, "cuda"), (2, "cpu")):
        with pytest.raises(
            ArgumentError, match=rf"^strategy='fsdp' needs GPUs .*; {n} of '{device}' came\. Give strat"
        ):
            require_devices(n, torch.device(device), "fsdp")


def test_each_rank_has_a_gpu_of_its_own():
    second = Ranks(rank=1, n=2)
    assert second.device(torch.device("cuda")) == torch.device("cuda", 1)
    assert second.device(torch.device("cpu")) == torch.device("cpu")
    assert ALONE.device(torch.device("cuda", 3)) == torch.device("cuda", 3)
    assert ALONE.trainer_arguments(torch.device("cuda", 3)) == {"accelerator": "gpu", "devices": [3]}
    given = second.trainer_arguments(torch.device("cuda"))
    assert (given["accelerator"], given["devices"], given["use_distributed_sampler"]) == ("gpu", [0, 1], False)
    assert given["strategy"].process_group_backend == "cpu:gloo,cuda:nccl"
    assert second.trainer_arguments(torch.device("cpu"))["strategy"].process_group_backend == "gloo"

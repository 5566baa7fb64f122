from __future__ import annotations

import inspect
import json
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from autobackbone import Budget, Limits, Target, plan, select_backbone
from autobackbone.errors import ArgumentError, AutobackboneError, BackboneError, BudgetError, DataError
from autobackbone.settings import as_settings

DIGITS = load_digits()
EMPTY = inspect.Parameter.empty
DEFAULTS = {name: one.default for name, one in inspect.signature(plan).parameters.items() if one.default is not EMPTY}
DEFAULTS = {**DEFAULTS, "space": {}}
DEFAULTS.pop("progress", None)
DATA = (DIGITS.images[:60], DIGITS.target[:60] % 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"metric": ["accuracy"]}, "metric is the name of one"),
        ({"groups": 5}, "groups has one entry a picture"),
        ({"channels": 3}, r"channels is \(i, j, k\)"),
        ({"weights": 5}, "weights is a file, a folder"),
        ({"weights": {"resnet18": 5}}, "weights is a file, a folder"),
        ({"weights": b"/weights"}, "weights is a file, a folder"),
        ({"seed": 2**32}, "seed is a whole number from 0 to 4294967295"),
        ({"seed": 1.5}, "seed is a whole number"),
        ({"workers": -2}, "workers is 0, to train in this process, or how many worker processes train; -2 came"),
        ({"workers": True}, "workers is 0, to train in this process, or how many worker processes train; True came"),
        ({"devices_per_trial": 0}, "devices_per_trial is a whole number from 1, not 0"),
        ({"devices_per_trial": True}, "devices_per_trial is a whole number from 1, not True"),
        (
            {"devices_per_trial": 2, "workers": 0},
            r"devices_per_trial=2 trains in that many processes, and workers=0 in this one alone\. Give workers=1",
        ),
        ({"runner": "dask"}, r"runner is 'ray', RunnerRay\(…\), or None for this machine, not 'dask'"),
        ({"runner": "ray", "workers": 2}, "leave workers and devices_per_trial out"),
        ({"runner": "ray", "devices_per_trial": 2}, "leave workers and devices_per_trial out"),
        ({"cache_dir": ""}, "cache_dir is the path of a folder, or None; there can be none at ''"),
        ({"cache_dir": "x" * 300}, "cache_dir is the path of a folder, or None; there can be none at"),
        ({"cache_dir": "\0"}, "cache_dir is the path of a folder, or None; there can be none at"),
        ({"run_dir": ""}, "run_dir is the path of a folder, or None; there can be none at ''"),
    ],
)
def test_an_argument_of_the_wrong_kind_is_told_at_the_door(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        plan(DATA, 60, **arguments)


@pytest.mark.parametrize(
    ("given", "noted"),
    [
        (None, None),
        ("taken_at", "taken_at"),
        (np.arange(60), {"in_memory": "one entry a picture"}),
        (str.lower, {"in_memory": "a function of a picture's name"}),
    ],
)
def test_what_lives_in_memory_is_noted_by_its_kind(given: Any, noted: Any) -> None:
    asked = as_settings(DATA, 60, **{**DEFAULTS, "times": given, "channels": [2, 1, 0]}).asked()
    assert asked["times"] == noted
    assert json.loads(json.dumps(asked)) == asked
    assert asked["channels"] == [2, 1, 0]
    assert asked["groups"] is None


def test_a_group_function_that_fails_names_the_picture() -> None:
    with pytest.raises(DataError, match="for '0' it raised ZeroDivisionError"):
        plan(DATA, 60, groups=lambda _: 1 // 0)


def test_weights_of_a_name_that_nobody_knows_are_told(tmp_path: Any) -> None:
    (tmp_path / "net.pth").touch()
    with pytest.raises(BackboneError, match="resnet1888"):
        plan(DATA, 60, weights={"resnet1888": tmp_path / "net.pth"})


@pytest.mark.parametrize("value", ["10min", [1], True, float("nan"), -1])
def test_records_take_numbers_only(value: Any) -> None:
    for make in (
        lambda: Budget(wall_clock_s=value),
        lambda: Limits(latency_ms=value),
        lambda: Limits(megabytes=value),
        lambda: Target(n_threads=value),
        lambda: Target(batch_size=value),
    ):
        with pytest.raises(AutobackboneError, match="must be"):
            make()


def test_records_take_numpy_numbers() -> None:
    assert Budget(wall_clock_s=float(np.float64(60)), n_trials=int(np.int64(3))) == Budget(
        wall_clock_s=np.float32(60),  # type: ignore[arg-type]
        n_trials=np.int64(3),  # type: ignore[arg-type]
    )
    with pytest.raises(BudgetError, match="n_trials must be a whole number"):
        Budget(n_trials=True)


@pytest.mark.parametrize("inside", [".", "runs/1"])
def test_a_run_may_not_lie_in_the_folder_of_the_pictures(tmp_path: Any, inside: str) -> None:
    with pytest.raises(ArgumentError, match="run_dir is a folder outside the dataset"):
        plan(tmp_path, 60, run_dir=f"{tmp_path}/{inside}")


@pytest.mark.parametrize("progress", [0, 1, "yes", object()])
def test_a_reporter_that_cannot_report_is_told_before_anything_is_made(progress: Any, tmp_path: Any) -> None:
    with pytest.raises(ArgumentError, match="progress is True, False, or an object with say, stage"):
        select_backbone(DATA, 60, progress=progress, run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_default_that_is_named_is_the_same_argument() -> None:
    bare, named = (
        as_settings(DATA, 60, **DEFAULTS | {"metric": metric, "task": task})
        for metric, task in ((None, None), ("accuracy", "classification"))
    )
    assert bare.decisive() == named.decisive()

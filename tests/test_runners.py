"""What users say of where trainings run is checked where they say it."""

from pathlib import Path

import pytest

from autobackbone.errors import ArgumentError
from autobackbone.runners import RunnerRay


def test_a_shared_folder_is_whole_wherever_a_machine_works(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert RunnerRay(shared="seen").shared_address == str(tmp_path / "seen")
    assert RunnerRay(shared=Path("seen")).shared_address == str(tmp_path / "seen")
    assert RunnerRay(shared="s3://bucket/folder").shared_address == "s3://bucket/folder"
    assert RunnerRay().shared_address is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"address": ""}, "address is that of a cluster's head"),
        ({"address": 6379}, "address is that of a cluster's head.*6379 came"),
        ({"num_cpus": 0}, "num_cpus is a whole number of at least 1; 0 came"),
        ({"num_cpus": True}, "num_cpus is a whole number of at least 1; True came"),
        ({"num_gpus": -1}, "num_gpus is at least 0, or None; -1 came"),
        ({"num_gpus": float("nan")}, "num_gpus is at least 0, or None; nan came"),
        ({"max_retries": 1.5}, "max_retries is a whole number of at least 0; 1.5 came"),
        ({"shared": ""}, "shared is a folder, an address"),
        ({"shared": 3}, "shared is a folder, an address.*3 came"),
        ({"runtime_env": "pip"}, "runtime_env is a mapping as Ray knows it, or None; 'pip' came"),
    ],
)
def test_what_cannot_be_is_told(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        RunnerRay(**arguments)

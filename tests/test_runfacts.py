"""What a run folder notes of its pictures decides how it goes on."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tests.conftest import TINY

from autobackbone import Budget, select_backbone
from autobackbone.data import together
from autobackbone.errors import RunError

NO_TRIALS = Budget(n_trials=0)


@pytest.fixture(scope="module")
def search(random_weights, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")

    def run(dataset, run_dir, budget, **arguments):
        given = {"backbones": TINY, "weights": random_weights(TINY), "cache_dir": cache, "progress": False}
        given |= {"run_dir": run_dir, "image_sizes": 32, "space": {"n_blocks_kept": None}}
        return select_backbone(dataset, budget, **given | arguments)

    return run


@pytest.fixture(scope="module")
def copied(pictures):
    """The suite's pictures, and half of them again, mirrored."""
    some = np.arange(0, len(pictures[0]), 2)
    mirrored = [np.asarray(Image.fromarray(picture[:, ::-1])) for picture in pictures[0][some]]
    return np.concatenate([pictures[0], mirrored]), np.concatenate([pictures[1], pictures[1][some]])


def parts_of(run_dir):
    return pd.read_csv(run_dir / "pictures.csv")["part"].tolist()


def facts_of(run_dir):
    return json.loads((run_dir / "run.json").read_text(encoding="utf-8"))


@pytest.mark.slow
def test_copies_lie_in_one_part_and_a_run_that_goes_on_keeps_them_there(search, copied, tmp_path, monkeypatch):
    first = search(copied, tmp_path / "run", NO_TRIALS)
    groups, parts = facts_of(tmp_path / "run")["copies"], parts_of(tmp_path / "run")
    assert groups == [[2 * index, 42 + index] for index in range(21)]
    assert all(parts[one] == parts[other] for one, other in groups)
    assert any("42 pictures are copies in 21 groups" in line for line in first.notes)
    monkeypatch.setattr(together, "_SHARE", 1e-9)  # now there would be no time to look
    again = search(copied, tmp_path / "run", Budget(n_trials=1, wall_clock_s=300))
    assert parts_of(tmp_path / "run") == parts
    assert len(again.trials) == len(first.trials) + 1


@pytest.mark.slow
def test_a_run_that_had_no_time_to_look_goes_on_without(search, copied, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(together, "_SHARE", 1e-9)
        first = search(copied, tmp_path / "run", Budget(n_trials=0, wall_clock_s=300))
    assert facts_of(tmp_path / "run")["copies"] is None
    assert any(line.startswith("copies were not looked for") for line in first.notes)
    parts = parts_of(tmp_path / "run")
    search(copied, tmp_path / "run", Budget(n_trials=1))
    assert parts_of(tmp_path / "run") == parts
    search(copied, tmp_path / "other", NO_TRIALS)
    assert parts_of(tmp_path / "other") != parts


def test_the_copies_that_a_run_notes_are_held_against_its_split(search, copied, tmp_path):
    search(copied, tmp_path / "run", NO_TRIALS)
    facts = facts_of(tmp_path / "run")
    for other, error in (
        (None, "dataset has changed"),
        ([[0, 10**6]], "dataset has changed"),
        ([[0, "1"]], "'copies' must be null or a list of lists"),
        ({}, "'copies' must be null or a list of lists"),
    ):
        (tmp_path / "run" / "run.json").write_text(json.dumps(facts | {"copies": other}), encoding="utf-8")
        with pytest.raises(RunError, match=error):
            search(copied, tmp_path / "run", NO_TRIALS)

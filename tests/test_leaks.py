"""What 200 trials of one search leave in memory, in shared memory and in temporary folders: next to nothing."""

from __future__ import annotations

from pathlib import Path
from statistics import median

import pytest
from PIL import Image
from tests.conftest import TINY, make_pictures
from tests.running.conftest import HAS_PROC
from tests.sittings import Sittings, entries_of

from autobackbone import open_run

N_TRIALS, N_WARM = 200, 50
# Of the search and of its worker, from the 50th trial to the 200th.
MOST_GROWTH_BYTES = 20_000_000


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not HAS_PROC, reason="this system does not tell what a process holds")
@pytest.mark.parametrize("workers", [0, 1])
def test_memory_stays_flat_over_two_hundred_trials(random_weights, tmp_path, workers):
    for number, (picture, label) in enumerate(zip(*make_pictures(), strict=True)):
        # In given parts, which no folds mix: folds of what is on the front would take longer than all of this.
        file = tmp_path / "photos" / ("train", "train", "val", "test")[number % 4] / f"class {label}" / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(file)
    asked = {
        "dataset": str(tmp_path / "photos"),
        "metric": "log_loss",  # no two networks have the same
        "backbones": TINY,
        "image_sizes": 32,
        "weights": str(random_weights(TINY)),
        "cache_dir": str(tmp_path / "cache"),
        "space": {"n_epochs": 2, "n_blocks_kept": None},
        "budget": {"n_trials": N_TRIALS},
        "workers": workers,
    }
    (tmp_path / "temporary").mkdir()
    before = sorted(Path("/dev/shm").glob("*"))
    with Sittings(asked, TMPDIR=str(tmp_path / "temporary")) as sittings:
        sittings.begin(tmp_path / "run", tmp_path / "diary.jsonl")
        assert sittings.ended(1700) == 0
    assert not list((tmp_path / "temporary").iterdir())
    assert not [file for file in Path("/dev/shm").glob("*") if file not in before]
    trials = open_run(tmp_path / "run").trials
    assert sum(trial.n_unfrozen > 0 for trial in trials) == N_TRIALS
    # By trial, at its first leg; a worker is not there before the first one.
    held = {
        entry["leg"]: entry["held"] for entry in reversed(list(entries_of(tmp_path / "diary.jsonl"))) if "leg" in entry
    }
    numbers = [trial.number for trial in trials if trial.n_unfrozen > 0]
    for process in range(1 + workers):
        seen = [held[number][process] for number in numbers[1:]]
        warm, late = seen[N_WARM - 10 : N_WARM + 10], seen[-20:]
        told = ", ".join(f"{one / 1e6:.0f}" for one in seen[:: N_TRIALS // 10])
        print(f"workers={workers}, process {process}: {told} MB, grown by {(median(late) - median(warm)) / 1e6:.1f} MB")  # noqa: T201
        assert median(late) - median(warm) < MOST_GROWTH_BYTES

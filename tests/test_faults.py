"""A disk of a run that fills up or is read-only: nothing is lost, and people are told what to do."""

from __future__ import annotations

import warnings

import pytest
from tests.conftest import TINY, make_pictures
from tests.smalldisk import leave, needs_small_disk, on_small_disk, read_only_view

from autobackbone import Budget, open_run, select_backbone
from autobackbone.course import _draw, _not_recorded
from autobackbone.errors import RunError, TrialDiskError
from autobackbone.progress import Silent
from autobackbone.search import trialfiles

# Nothing; the files of the run; half of the study's tables. A whole study takes 112 KB.
ROOMS_KB = (0, 12, 80)


def time_of(name):
    """A split that follows times has no folds, which take most of the time elsewhere and write nothing of their own."""
    return int(name) % 14


def search(run_dir, cache, weights, reporter=False):  # noqa: FBT002  as the argument of the facade
    return select_backbone(
        make_pictures(),
        Budget(n_trials=0),
        backbones=TINY,
        image_sizes=[32, 48],
        weights=weights,
        cache_dir=cache,
        run_dir=run_dir,
        space={"n_epochs": 2, "n_blocks_kept": None},
        times=time_of,
        progress=reporter,
    )


def ended(selection):
    """What each trial that has ended well came to."""
    return [[trial.number, trial.score] for trial in selection.trials if trial.state == "finished"]


class Fills(Silent):
    """Fills a disk once the first trial has ended."""

    def __init__(self, disk):
        self.disk, self.ballast = disk, None

    def say(self, line):
        if line.startswith("trial 0: "):
            self.ballast = leave(self.disk, 0)


def begun_beside_little_room(disk, cache, weights):
    """For each room: what was told, the trials that were kept, and those that there were in the end."""
    found = {}
    for room in (*ROOMS_KB, None):
        run_dir, told, kept, fills = disk / f"{room} KB", "", [], Fills(disk)
        if room is not None:
            fills.ballast = leave(disk, room * 1024)
        try:
            search(run_dir, cache, weights, False if room is not None else fills)
        except RunError as error:
            told = str(error)
        if (run_dir / "run.json").is_file() and (run_dir / "study.db").is_file():
            try:
                kept = ended(open_run(run_dir))
            except RunError as error:  # cut off before there was a study
                kept = str(error)
        fills.ballast.unlink()
        found[str(room)] = [told, kept, ended(search(run_dir, cache, weights))]
    return found


@pytest.mark.slow
@needs_small_disk
def test_a_disk_that_is_full_at_any_moment_of_a_run_is_told_and_nothing_is_lost(random_weights, tmp_path):
    (tmp_path / "disk").mkdir()
    found = on_small_disk(begun_beside_little_room, 64_000, tmp_path / "disk", tmp_path / "cache", random_weights(TINY))
    for room, (told, kept, after) in found.items():
        assert "has no room: " in told, room
        assert "Free some of its disk, and the same call with this run_dir " in told
        assert "SQL" not in told
        if isinstance(kept, str):
            assert "holds no whole study" in kept or "waits to be mended" in kept
        else:
            assert after[: len(kept)] == kept
        assert len(after) == 2
    tolds = [told for told, _, _ in found.values()]
    # The disk was full before anything was there, in the files of the run, in its study, and beside a trial that ended.
    assert "lock.holder" in tolds[0]
    assert "Nothing was tried yet" in tolds[0]
    assert "run.json" in tolds[1] or "pictures.csv" in tolds[1] or "study.db" in tolds[1]
    assert "study.db" in tolds[2]
    assert "What had ended is kept, and open_run opens it" in tolds[3]
    assert [number for number, _ in found["None"][1]] == [0]


def used_on_a_disk_that_is_full_and_then_read_only(disk, cache, weights):
    """What a run that is there tells of either."""
    first = search(disk / "run", cache, weights)
    said = {"before": ended(first)}
    ballast = leave(disk, 0)
    for fault in ("full", "read-only"):
        place = disk if fault == "full" else read_only_view(disk)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            refit = open_run(place / "run").refit(dataset=make_pictures(), cache_dir=cache, budget="2min")
        warned = [str(warning.message) for warning in caught if "refit" in str(warning.message)]
        predicted = refit.model(refit.model.transform(make_pictures()[0][0])[None])
        said[fault] = [refit.path, str(refit), warned, list(predicted.shape), refit.test_score]
        said[f"{fault}, read"] = ended(open_run(place / "run"))
    said["told"] = []
    ballast.unlink()
    for run_dir in (place / "run", place / "another"):
        try:
            search(run_dir, cache, weights)
        except RunError as error:
            said["told"].append(str(error))
    return said


@pytest.mark.slow
@needs_small_disk
def test_a_refit_that_cannot_be_kept_is_given_all_the_same_and_a_read_only_run_can_be_read(random_weights, tmp_path):
    (tmp_path / "disk").mkdir()
    said = on_small_disk(
        used_on_a_disk_that_is_full_and_then_read_only,
        16_000,
        tmp_path / "disk",
        tmp_path / "cache",
        random_weights(TINY),
    )
    for fault, reason in (("full", "there was no room for"), ("read-only", "Read-only file system")):
        path, sentence, warned, shape, score = said[fault]
        assert path is None
        assert reason in sentence
        assert "save .model.state_dict() elsewhere" in sentence
        (warning,) = warned
        assert warning.startswith("the refit of trial ")
        assert reason in warning
        assert shape == [1, 3]
        assert 0 <= score <= 1
        assert said[f"{fault}, read"] == said["before"]
    assert len(said["told"]) == 2
    assert all("cannot write a run to" in told and "Give another run_dir" in told for told in said["told"])


def test_a_head_without_room_is_an_error_of_the_disk(tmp_path, random_weights, monkeypatch):
    """Where not one network can be screened for want of room, limits are not what is told."""

    def full(run, number, head):
        raise TrialDiskError("there was no room") from OSError(28, "No space left on device", "head.safetensors")

    monkeypatch.setattr(trialfiles, "save_head", full)
    with pytest.raises(RunError, match=r"has no room: .*No space left on device: 'head\.safetensors'"):
        search(tmp_path / "run", tmp_path / "cache", random_weights(TINY))


def test_a_picture_of_the_front_that_cannot_be_kept_costs_no_result(tmp_path, random_weights):
    result = search(
        tmp_path / "run",
        tmp_path / "cache",
        random_weights(TINY),
    )
    lines = []

    class Listens(Silent):
        def say(self, line):
            lines.append(line)

    drawn = (result.path / "front.png").read_bytes()
    assert drawn.startswith(b"\x89PNG")
    (result.path / "front.png").unlink()
    (result.path / "front.png").mkdir()
    _draw(result, result._run, Listens())
    assert len(lines) == 1
    assert lines[0].startswith("the picture of the front is not kept: ")
    assert not list(result.path.glob(".front.png.*"))


def test_costs_that_had_not_been_recorded_are_counted():
    assert _not_recorded(1).startswith("1 cost had not been recorded and was measured here: ")
    assert _not_recorded(2).startswith("2 costs had not been recorded and were measured here: ")

"""A run on another target: other latencies, front and choice, and the same trials; and a search for a table."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from tests.conftest import TINY, command, make_pictures

from autobackbone import Budget, Limits, Target, open_run, plan, select_backbone
from autobackbone.choosing import comparable, on_one_scale
from autobackbone.errors import ArgumentError, RunError, TargetError
from autobackbone.retargeting import repriced
from autobackbone.timings import Timing

OTHER = "test_efficientnet.r160_in1k"


@pytest.fixture(scope="module")
def weights(random_weights):
    return {name: random_weights(name) for name in (TINY, OTHER)}


@pytest.fixture(scope="module")
def asked(weights, tmp_path_factory):
    """Of two small networks, at one size."""
    folder = tmp_path_factory.mktemp("retargeted")
    given = {"backbones": [TINY, OTHER], "image_sizes": [32], "weights": weights, "progress": False}
    return given | {"cache_dir": folder / "cache", "space": {"n_epochs": 2, "n_blocks_kept": (3, 4)}}


@pytest.fixture(scope="module")
def run(asked, tmp_path_factory):
    pictures, labels = make_pictures(n_per_class=70)
    noisy = (pictures + np.random.default_rng(1).normal(0, 200, pictures.shape)).clip(0, 255).astype(np.uint8)
    folder = tmp_path_factory.mktemp("runs") / "run"
    return select_backbone((noisy, labels), Budget(n_trials=3), run_dir=folder, **asked).path


def table_of(trials, latency_ms):
    """A table in which each body takes what a function says."""
    bodies = dict.fromkeys(trial.body for trial in trials)
    return tuple(
        Timing(
            backbone=body.backbone,
            image_size=body.image_size,
            n_blocks_kept=body.n_blocks_kept,
            latency_ms=latency_ms(body),
        )
        for body in bodies
    )


def files_of(folder):
    return {file: file.stat().st_mtime_ns for file in folder.rglob("*") if file.is_file()}


def test_a_table_turns_the_front_round(run, tmp_path):
    selection, before = open_run(run), files_of(run)
    # Whole networks are the fast ones there.
    slow_when_cut = table_of(selection.trials, lambda body: 5.0 if body.n_blocks_kept is None else 50.0)
    moved = selection.retarget(Target(timings=slow_when_cut, name="a phone"), cache_dir=tmp_path)
    assert moved.target.startswith("a phone (")
    assert [(one.number, one.score) for one in moved.trials] == [(one.number, one.score) for one in selection.trials]
    # What is slow there stays only for a score that nothing fast has; pictures are few, so that folds give the scores.
    judged = {one.number: one.score for one in on_one_scale(comparable(moved.trials))}
    fast = max(judged[one.number] for one in moved.front if one.latency_ms == 5.0)
    assert moved.front[0].latency_ms == 5.0
    assert all(judged[one.number] > fast for one in moved.front if one.latency_ms == 50.0)
    assert moved.best in moved.front
    assert moved.is_retargeted
    assert not selection.is_retargeted
    assert files_of(run) == before
    stopped = [trial.number for trial in moved.trials if trial.state == "stopped"]
    assert (moved.stopped_before is None) == (not stopped)
    pictures, kept = make_pictures(n_per_class=1)[0], selection.front[-1].number
    np.testing.assert_array_equal(moved.predict_proba(pictures, kept), selection.predict_proba(pictures, kept))


@pytest.mark.slow
def test_what_was_stopped_under_the_old_target_is_told(run, tmp_path):
    selection = open_run(run)
    trials = selection.trials
    timings = table_of(trials, lambda _: 5.0)
    moved = selection.retarget(Target(timings=timings, name="a phone"), cache_dir=tmp_path)
    first = moved.trials[0]
    object.__setattr__(first, "state", "stopped")
    assert re.search(r"stopped under cpu \(.*, and perhaps good here: \d+ of \d+ trials, numb", moved.stopped_before)
    assert moved.stopped_before in repr(moved)


@pytest.mark.slow
def test_a_runtime_is_timed_here(run, tmp_path):
    moved = open_run(run).retarget(Target(runtime="onnxruntime", n_threads=1), cache_dir=tmp_path)
    assert "onnxruntime, float32" in moved.target
    assert all(trial.latency_ms > 0 for trial in moved.trials if trial.state == "finished")
    again = open_run(run).retarget(Target(n_threads=1), cache_dir=tmp_path)
    assert "onnxruntime" not in again.target


def test_limits_are_of_the_other_target(run, tmp_path):
    selection = open_run(run)
    timings = table_of(selection.trials, lambda body: 5.0 if body.n_blocks_kept is None else 50.0)
    target = Target(timings=timings, name="a phone")
    moved = selection.retarget(target, limits=Limits(latency_ms=10), cache_dir=tmp_path)
    assert {trial.latency_ms for trial in moved.front} == {5.0}
    assert any("latency_ms 50 is above the limit of 10" in trial.reason for trial in moved.trials)
    with pytest.raises(RunError, match=r"no trial of .* can be used on a phone.*above the limit of 1"):
        selection.retarget(target, limits=Limits(latency_ms=1), cache_dir=tmp_path)


def test_a_body_that_the_table_lacks_is_left_out(run, tmp_path):
    selection = open_run(run)
    timings = table_of([one for one in selection.trials if one.n_blocks_kept is None], lambda _: 5.0)
    moved = selection.retarget(Target(timings=timings, name="a phone"), cache_dir=tmp_path)
    lacking = [trial for trial in moved.trials if trial.n_blocks_kept is not None and trial.score is not None]
    assert lacking
    assert all(trial.state == "failed" and "has no latency of it" in trial.reason for trial in lacking)
    # Nothing is left of what the search measured under its own target.
    figures = [name for name in moved.to_frame().columns if name.startswith("latency_") or name == "images_per_s"]
    assert len(figures) == 4
    assert moved.to_frame().loc[[trial.number for trial in lacking], figures].isna().all(axis=None)


def test_trials_that_had_failed_keep_nothing_of_the_old_target(run):
    selection = open_run(run)
    body = selection.trials[-1].body
    trials = [replace(one, state="failed") if one.body == body else one for one in selection.trials]
    found = repriced(
        trials,
        selection.metric,
        Target(timings=table_of(trials, lambda _: 5.0), name="a phone"),
        Limits(),
        network_of=lambda _: None,
        book=None,
        backbones=selection._reader.backbones,
        say=lambda _: None,
    )
    assert any(one.latency_ms == 5.0 for one in found.trials)
    for one in found.trials:
        if one.body == body:
            assert (one.state, one.latency_ms, one.latency_p95_ms, one.latency_noise_ms) == ("failed", None, None, None)
            assert one.images_per_s is None


@pytest.mark.slow
def test_a_search_takes_its_latencies_from_a_table(asked, tmp_path):
    rows = [
        f"{TINY},32,32,,30,45,",
        f"{TINY},32,32,4,20,,",
        f"{OTHER},32,32,,10,12,0.5",
        f"{OTHER},64,64,,10,12,0.5",
    ]
    file = tmp_path / "board.csv"
    file.write_text(
        "backbone,height,width,n_blocks_kept,latency_ms,latency_p95_ms,latency_noise_ms\n" + "\n".join(rows)
    )
    target, dataset = Target.from_csv(file), make_pictures(n_per_class=20)
    given = {**asked, "backbones": None, "image_sizes": None, "target": target, "run_dir": tmp_path / "run"}
    found = select_backbone(dataset, Budget(n_trials=1), **given)
    latencies = {trial.body: (trial.latency_ms, trial.latency_p95_ms) for trial in found.trials}
    assert set(latencies.values()) == {(30.0, 45.0), (20.0, 20.0), (10.0, 12.0)}
    assert {body.image_size for body in latencies} == {(32, 32), (64, 64)}
    assert found.target == "board (4 latencies measured there), batch 1"
    assert found.front[0].latency_ms == 10.0
    noted = json.loads((tmp_path / "run" / "run.json").read_text())["arguments"]["target"]
    assert len(noted["timings"]) == 4
    went_on = found.more(Budget(n_trials=1), dataset=dataset, cache_dir=asked["cache_dir"], progress=False)
    assert len(went_on.trials) > len(found.trials)
    assert "Target.from_json(" in found.reproduce()


def test_a_table_without_what_is_asked_for_is_told_before_anything(asked, tmp_path):
    target = Target(
        timings=(Timing(backbone=TINY, image_size=(32, 32), n_blocks_kept=4, latency_ms=9.0),), name="a phone"
    )
    with pytest.raises(TargetError, match=f"the table of a phone has no latency of {TINY}.* whole"):
        plan(make_pictures(), 60, **{**asked, "backbones": [TINY], "target": target})


@pytest.mark.slow
def test_the_command_line_shows_another_target(run, tmp_path, monkeypatch):
    monkeypatch.setenv("AUTOBACKBONE_CACHE", str(tmp_path / "cache"))
    done = command("retarget", run, "--threads", 1)
    assert done.code == 0
    assert "choose: trial" in done.out
    assert "picture of the front" not in done.out
    (tmp_path / "t.csv").write_text(f"backbone,height,width,latency_ms\n{TINY},32,32,7\n")
    done = command("retarget", run, "--timings", tmp_path / "t.csv", "--all")
    assert "target: t (1 latency measured there), batch 1" in done.out
    done = command("retarget", run, "--timings", tmp_path / "t.csv", "--threads", 1)
    assert done.code == 1
    assert "of which n_threads of this one say nothing" in done.err


def test_a_table_and_an_option_of_this_machine_do_not_go_together(tmp_path):
    from autobackbone.clirun import target_of

    with pytest.raises(ArgumentError, match="of which device of this one say nothing"):
        target_of(tmp_path / "t.csv", device="cpu", runtime="torch", batch_size=1, n_threads=None)

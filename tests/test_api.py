"""The whole way on real, small networks: from arrays and folders to a model that predicts."""

import errno
import json
import math
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torchmetrics
from PIL import Image
from sklearn.metrics import balanced_accuracy_score
from sqlalchemy import event
from sqlalchemy.engine import Engine
from tests.conftest import TINY, command, make_pictures

from autobackbone import Budget, Limits, RunnerRay, Target, open_run, plan, select_backbone
from autobackbone.choosing import scored_on
from autobackbone.costrecord import SITTING, read_costs
from autobackbone.errors import (
    ArgumentError,
    AutobackboneError,
    BackboneError,
    BudgetError,
    DataError,
    LimitsError,
    MetricError,
    RunError,
    RunLockedError,
    SpaceError,
    TargetError,
    WeightsError,
)
from autobackbone.progress import Silent
from autobackbone.records import Latency
from autobackbone.runfolder import RunFolder
from autobackbone.search import trialfiles, turns
from autobackbone.search.scouting import scouted

COLUMNS = [
    *("number", "state", "reason", "backbone", "image_size", "n_unfrozen", "n_blocks", "lr", "score", "score_se"),
    *(
        "latency_ms",
        "latency_p95_ms",
        "images_per_s",
        "preprocess_ms",
        "n_params",
        "megabytes",
        "train_seconds",
        "finished_at_s",
    ),
    *("on_front", "test_score", "test_score_low", "test_score_high"),
]
TWO_TRIALS = Budget(n_trials=2)
QUICK = {"image_sizes": 32, "space": {"n_epochs": 2, "n_blocks_kept": None}, "progress": False}


class Listens(Silent):
    """Keeps what is said."""

    def __init__(self, lines):
        self.say = lines.append


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def weights(random_weights):
    return random_weights(TINY)


@pytest.fixture(scope="module")
def search(cache, weights):
    def run(dataset, budget=TWO_TRIALS, **arguments):
        given = {"backbones": TINY, "weights": weights, "cache_dir": cache} | QUICK | arguments
        return select_backbone(dataset, budget, **given)

    return run


@pytest.fixture(scope="module")
def given_parts(pictures, tmp_path_factory):
    """Files in given parts, which no folds mix: as the arrays, in a fraction of the time."""
    folder = tmp_path_factory.mktemp("given")
    for number, (picture, label) in enumerate(zip(*pictures, strict=True)):
        file = folder / ("train", "train", "val", "test")[number % 4] / f"class {label}" / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(file)
    return folder


@pytest.fixture(scope="module")
def selection(search, pictures, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("runs") / "run"
    return search(pictures, Budget(n_trials=3), image_sizes=[32, 48], run_dir=run_dir)


def test_all_that_was_tried_is_in_the_table(selection):
    frame = selection.to_frame()
    assert list(frame.columns[: len(COLUMNS)]) == COLUMNS
    assert frame["number"].tolist() == list(range(len(frame)))
    finished = frame[frame["state"] == "finished"]
    assert set(finished["n_unfrozen"] > 0) == {True, False}
    assert finished[["score", "latency_ms", "latency_p95_ms", "images_per_s", "preprocess_ms"]].notna().all(axis=None)
    assert (finished["latency_p95_ms"] >= finished["latency_ms"]).all()
    assert finished["finished_at_s"].is_monotonic_increasing
    assert frame.loc[frame["n_unfrozen"] == 0, "lr"].isna().all()
    assert (frame.loc[frame["state"] == "finished", "n_epochs"] == 2 * (finished["n_unfrozen"] > 0)).all()
    assert frame["overfits"].dtype == bool
    assert frame["n_blocks_kept"].isna().all()  # nothing is cut where nothing shall be


def test_each_trial_says_how_well_it_fits_its_training_pictures(selection):
    for trial in selection.trials:
        assert len(trial.train_scores) == max(1, len(trial.rung_scores))
        assert all(0 <= score <= 1 for score in trial.train_scores)
    assert [trial.number for trial in selection.trials if trial.overfits] == []  # two epochs are too few to say so
    assert len(selection.advice) <= 1  # of a frozen head


def test_the_front_is_confirmed_and_usable(selection, pictures):
    assert selection.front
    latencies = [trial.latency_ms for trial in selection.front]
    assert latencies == sorted(latencies)
    for trial in selection.front:
        assert 0 <= trial.test_score <= 1
        model = selection.model(trial)
        assert not model.training
        assert model(model.transform(pictures[0][0])[None]).shape == (1, 3)
    assert selection.best in selection.front
    assert selection.choice.reason.startswith(f"trial {selection.best.number} ")


def test_predictions_are_those_of_the_stored_validation_and_test(selection, pictures):
    """The model that the user holds says what the search scored, picture by picture."""
    import pandas as pd

    table = pd.read_csv(selection.path / "pictures.csv")
    for part, name, score in (("test", "test.npy", selection.best.test_score), ("validation", "validation.npy", None)):
        rows = np.flatnonzero(table["part"] == part)
        stored = np.load(selection.path / "trials" / f"{selection.best.number:04d}" / name)
        now = selection.predict_proba(pictures[0][rows], calibrated=False)
        np.testing.assert_allclose(now, stored, atol=0.02)
        if score is not None:
            assert (selection.predict(pictures[0][rows]) == pictures[1][rows]).mean() == pytest.approx(score)


def test_only_the_front_keeps_weights(selection):
    kept = {int(file.parent.name) for file in selection.path.glob("trials/*/weights.safetensors")}
    assert {trial.number for trial in selection.front} <= kept
    # What folds have taken from the front keeps its network: they may bring it back.
    assert all(
        trial.fold_score is not None for trial in selection.trials if trial.number in kept and not trial.on_front
    )
    others = [trial for trial in selection.trials if trial.number not in kept and trial.n_unfrozen]
    for trial in others:
        is_stopped = trial.state == "stopped"
        with pytest.raises(
            RunError, match="is stopped and has no model" if is_stopped else "kept for the front of the search alone"
        ):
            selection.model(trial)
    with pytest.raises(RunError, match="there is no trial 999"):
        selection.model(999)
    with pytest.raises(ArgumentError, match=r"a trial is one of `trials`, or its number; \[0\] came"):
        selection.model([0])
    with pytest.raises(ArgumentError, match="one or more of latency_ms, n_params, megabytes; none came"):
        selection.best_under(None)


def test_the_picture_of_the_front_is_drawn(selection):
    assert selection.plot().axes
    with Image.open(selection.path / "front.png") as picture:
        assert picture.size[0] > 400


def test_the_study_is_optunas(selection):
    assert [trial.number for trial in selection.study.trials] == [trial.number for trial in selection.trials]
    assert [direction.name for direction in selection.study.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert len(selection.study.best_trials) >= 1


def test_the_dashboard_reads_the_run(selection):
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        Path(sys.executable).parent / "optuna-dashboard",
        f"sqlite:///{selection.path / 'study.db'}",
        *("--host", "127.0.0.1", "--port", str(port)),
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            studies = _get(f"http://127.0.0.1:{port}/api/studies")
            (study,) = studies["study_summaries"]
            detail = _get(f"http://127.0.0.1:{port}/api/studies/{study['study_id']}?after=0")
        finally:
            server.kill()
    assert study["study_name"] == "autobackbone"
    assert len(detail["trials"]) == len(selection.trials)


def _get(url):
    for _ in range(150):
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return json.load(answer)
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"{url} did not answer")


def test_a_folder_of_files_and_a_given_split(search, tmp_path):
    x, y = make_pictures(n_per_class=12, n_classes=2)
    for i, (picture, label) in enumerate(zip(x, y, strict=True)):
        part = ("train", "train", "valid", "test")[i % 4]
        folder = tmp_path / "photos" / part / f"class {label}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / f"{i}.png")
    result = search(tmp_path / "photos", run_dir=tmp_path / "run", metric="log_loss")
    assert result.classes == ("class 0", "class 1")
    finished = [trial.score for trial in result.trials if trial.state == "finished"]
    assert min(trial.score for trial in result.front) == min(finished)
    files = sorted((tmp_path / "photos" / "test").rglob("*.png"))
    assert set(result.predict(files)) <= {"class 0", "class 1"}
    assert result.predict(files[0]).shape == (1,)


def test_a_search_of_heads_only(search, pictures, tmp_path):
    result = search(pictures, run_dir=tmp_path / "run", space={"n_unfrozen": 0, "n_blocks_kept": None})
    assert {trial.n_unfrozen for trial in result.trials} == {0}
    assert result.best.test_score is not None


def test_cut_networks_are_candidates_of_their_own(search, given_parts, tmp_path):
    space = {"n_epochs": 1, "n_blocks_kept": 4}
    result = search(given_parts, Budget(n_trials=6), run_dir=tmp_path / "run", space=space)
    cut = [trial for trial in result.trials if trial.n_blocks_kept is not None]
    assert {trial.n_blocks_kept for trial in cut} == {4}
    assert {trial.n_unfrozen == 0 for trial in cut} == {True, False}
    whole = {trial.image_size: trial for trial in result.trials if trial.n_blocks_kept is None}
    for trial in cut:
        assert trial.n_blocks == 4
        assert trial.n_params < whole[trial.image_size].n_params
        assert trial.megabytes < whole[trial.image_size].megabytes
        assert trial.n_unfrozen <= 4
    frame = result.to_frame()
    assert frame.loc[frame["n_blocks_kept"].notna(), "number"].tolist() == [trial.number for trial in cut]


@pytest.mark.slow
def test_the_model_of_a_cut_network_says_what_was_scored(search, pictures, tmp_path):
    import pandas as pd

    cuts = {"n_unfrozen": 0, "n_blocks_kept": 4}
    search(pictures, run_dir=tmp_path / "run", space=cuts, image_sizes=48)
    (tmp_path / "run").rename(tmp_path / "moved")
    result = open_run(tmp_path / "moved")
    rows = np.flatnonzero(pd.read_csv(result.path / "pictures.csv")["part"] == "validation")
    cut = [trial for trial in result.trials if trial.n_blocks_kept is not None]
    assert cut
    for trial in cut:
        stored = np.load(result.path / "trials" / f"{trial.number:04d}" / "validation.npy")
        np.testing.assert_allclose(result.predict_proba(pictures[0][rows], trial, calibrated=False), stored, atol=1e-3)
        assert sum(p.numel() for p in result.model(trial).parameters()) == trial.n_params
        assert f"first {trial.n_blocks_kept} blocks" in str(trial)


def test_cuts_that_no_backbone_has_are_named(search, pictures, tmp_path):
    with pytest.raises(SpaceError, match="fewer blocks than a backbone has, and these have 5 to 5; 20 came"):
        search(pictures, run_dir=tmp_path / "run", space={"n_blocks_kept": 20})


@pytest.mark.slow
def test_pictures_that_have_no_room_decoded_are_searched_all_the_same(search, given_parts, tmp_path):
    lines = []
    asked = {"space": {"n_epochs": 1, "n_blocks_kept": 4}}
    given = {"cache_dir": tmp_path / "cache", "cache_gb": 1e-6, "progress": Listens(lines)}
    result = search(given_parts, Budget(n_trials=1), run_dir=tmp_path / "run", **given, **asked)
    assert any("first blocks alone are not tried, since their features have no room" in line for line in lines)
    assert any("stay encoded" in line for line in result.notes)
    assert not list((tmp_path / "cache").rglob("pixels-*.npy"))
    assert result.best.test_score is not None
    assert any(trial.state == "finished" and trial.n_unfrozen for trial in result.trials)
    stored = search(given_parts, Budget(n_trials=0), run_dir=tmp_path / "stored", **asked)
    assert result.trials[0].score == pytest.approx(stored.trials[0].score)


def time_of(name):
    """A split that follows times has no folds; each class is in each part."""
    return int(name) % 14


def test_continuing_adds_trials_and_keeps_the_old_ones(search, pictures, tmp_path):
    first = search(pictures, Budget(n_trials=1), run_dir=tmp_path / "run", times=time_of)
    before = [(trial.number, trial.score) for trial in first.trials if trial.state == "finished"]
    second = search(pictures, Budget(n_trials=2), run_dir=tmp_path / "run", times=time_of)
    after = [(trial.number, trial.score) for trial in second.trials if trial.state == "finished"]
    assert set(before) < set(after)
    assert len(second.trials) == len(first.trials) + 2
    assert {trial.state for trial in second.trials} <= {"finished", "stopped"}
    assert not list((tmp_path / "run").glob("trials/*/checkpoint.ckpt"))
    with pytest.raises(RunError, match=r"begun with seed=0 \(now 1\)"):
        search(pictures, run_dir=tmp_path / "run", times=time_of, seed=1)
    same = search(
        pictures, Budget(n_trials=0), run_dir=tmp_path / "run", times=time_of, tolerance=0.5
    )  # the default, by its name
    assert len(same.trials) == len(second.trials)
    with pytest.raises(RunError, match=r"begun with tolerance=0\.5, and 2\.0 came"):
        search(pictures, run_dir=tmp_path / "run", times=time_of, tolerance=2)
    with pytest.raises(RunError, match="begun with preparation="):
        search(pictures, run_dir=tmp_path / "run", times=time_of, channels=(2, 1, 0))
    with pytest.raises(RunError, match="dataset has changed"):
        search((255 - pictures[0], pictures[1]), run_dir=tmp_path / "run", times=time_of)
    # A table of pictures that was lost comes back; predictions that were are told before anything is spent.
    table = (tmp_path / "run" / "pictures.csv").read_bytes()
    (tmp_path / "run" / "pictures.csv").unlink()
    search(pictures, Budget(n_trials=0), run_dir=tmp_path / "run", times=time_of)
    assert (tmp_path / "run" / "pictures.csv").read_bytes() == table
    (tmp_path / "run" / "trials" / "0000" / "validation.npy").unlink()
    with pytest.raises(RunError, match=r"validation\.npy' is not there"):
        search(pictures, run_dir=tmp_path / "run", times=time_of)


def _validation(result):
    return np.flatnonzero(trialfiles.read_pictures(result._run)["part"] == "validation")


@pytest.fixture(scope="module")
def uneven():
    """Seven times as many pictures of two classes as of the third, in noise, so that it is missed."""
    pictures, labels = make_pictures(n_per_class=40)
    pictures = (pictures + np.random.default_rng(1).normal(0, 200, pictures.shape)).clip(0, 255).astype(np.uint8)
    kept = (labels < 2) | (np.arange(len(labels)) % 7 == 0)
    return pictures[kept], labels[kept]


@pytest.mark.slow
def test_uneven_classes_are_told_scored_and_answered(search, uneven, cache, tmp_path):
    lines = []
    words = ["none", "balanced"]
    # No rungs: whatever is tried ends, and no latency decides which of them do.
    space = {"n_epochs": 1, "n_blocks_kept": None, "class_weights": words, "sampling": words}
    given = {"space": space, "image_sizes": 32, "run_dir": tmp_path / "run", "progress": Listens(lines)}
    search(uneven, Budget(n_trials=2), **given)
    result = search(uneven, Budget(n_trials=6), **given)
    assert any(re.search(r"uneven classes: 2\d pictures to train on of 1, 3 of 2; plain", line) for line in lines)
    assert any("uneven classes" in note for note in result.notes)
    for trial in result.trials:
        if trial.score is not None:
            predicted = trialfiles.load_predictions(result._run, trial.number, trialfiles.VALIDATION)
            truth = result._reader.labels("validation")
            assert trial.balanced_score == pytest.approx(balanced_accuracy_score(truth, predicted.argmax(1)))
    frame = result.to_frame()
    assert (frame["balanced_score"] != frame["score"]).any()
    tuned = frame[frame["n_unfrozen"] > 0]
    assert set(tuned["class_weights"]) | set(tuned["sampling"]) <= set(words)
    assert set(frame.loc[frame["n_unfrozen"] == 0, "class_weights"]) == {"none"}
    drawn = next(trial for trial in result.trials if trial.extras.get("sampling") == "balanced")
    again = result._reader.predicted(result.retrain(drawn, cache_dir=cache), uneven[0][_validation(result)])
    kept = trialfiles.load_predictions(result._run, drawn.number, trialfiles.VALIDATION)
    # A tail is fed half-precision activations, which may be computed another way.
    np.testing.assert_allclose(again, kept, atol=2e-2)
    asked = [trial for trial in result.study.trials if "sampling" in trial.params]
    assert {trial.params["sampling"] for trial in asked} == set(words)
    with pytest.raises(RunError, match="begun with space="):
        search(uneven, **given | {"space": space | {"sampling": "balanced"}})
    shown = command("show", result.path)
    assert re.search(r"score\s+balanced\s+(folds\s+)?test", shown.out)


@pytest.mark.slow
def test_a_weight_that_is_fixed_weighs_heads_and_is_there_when_they_are_fitted_again(search, uneven, cache, tmp_path):
    given = {"image_sizes": 32, "budget": Budget(n_trials=0)}
    plain = search(uneven, **given, space={"n_blocks_kept": 4}, run_dir=tmp_path / "plain")
    space = {"n_blocks_kept": 4, "class_weights": "balanced"}
    weighed = search(uneven, **given, space=space, run_dir=tmp_path / "weighed")
    for one, other in zip(weighed.trials, plain.trials, strict=True):  # the whole network and its cut
        rare = [
            np.load(run.path / "trials" / f"{trial.number:04d}" / "validation.npy")[:, 2].mean()
            for run, trial in ((weighed, one), (plain, other))
        ]
        assert rare[0] > rare[1]
    assert set(weighed.to_frame()["class_weights"]) == {"balanced"}
    again = weighed.retrain(0, dataset=uneven, cache_dir=cache)
    picture = again.transform(uneven[0][0])[None]
    with torch.inference_mode():
        torch.testing.assert_close(again(picture), weighed.model(0)(picture), atol=1e-4, rtol=1e-3)


@pytest.mark.slow
def test_where_not_all_pairs_can_pass_a_part_of_the_pictures_says_which_ones_do(
    search, random_weights, tmp_path, monkeypatch
):
    def no_time_for_all(bodies, scouts):
        begun = time.monotonic()
        left_s = lambda: 40.0 + begun - time.monotonic()  # noqa: E731
        return scouted(bodies, replace(scouts, left_s=left_s, pass_s=lambda _: 15.0))

    # Of what the clock and real sizes say, as little as makes so few pictures many.
    monkeypatch.setattr(turns, "scouted", no_time_for_all)
    monkeypatch.setattr("autobackbone.search.scouting._LEAST_PICTURES", 20)
    monkeypatch.setattr("autobackbone.search.scouting._LOOK_S", 0.0)
    other = "test_efficientnet.r160_in1k"
    lines = []
    given = {
        "run_dir": tmp_path / "run",
        "progress": Listens(lines),
        "backbones": [TINY, other],
        "weights": {name: random_weights(name) for name in (TINY, other)},
        "image_sizes": [32, 48],
    }
    result = search(make_pictures(60), Budget(wall_clock_s=60.0, n_trials=4), **given)
    (said,) = [line for line in lines if "pictures first" in line]
    assert said.endswith("3 are compared on 36 pictures first")
    frozen = [trial for trial in result.trials if trial.n_unfrozen == 0]
    parts = [trial for trial in frozen if trial.state == "stopped"]
    wholes = [trial for trial in frozen if trial.state == "finished"]
    # Something usable first, on all pictures; then each other pair on a part, and the better half of them on all.
    assert frozen[0] == wholes[0]
    assert len({trial.body for trial in parts}) == len(parts) == 3
    assert wholes[0].body not in {trial.body for trial in parts}
    assert wholes[1].body in {trial.body for trial in parts}
    assert all(trial.extras["scored_share"] == 1 for trial in wholes)
    assert all("training pictures, scored on" in trial.reason and trial.score is not None for trial in parts)
    assert all(scored_on(trial).replace("pictures", "validation pictures") in trial.reason for trial in parts)
    assert all(scored_on(trial) for trial in parts)
    assert not any(trial.on_front for trial in parts)
    # Trained is what has passed all pictures.
    tuned = [trial for trial in result.trials if trial.n_unfrozen > 0]
    assert any(trial.state == "finished" for trial in tuned)
    assert {trial.body for trial in tuned} <= {trial.body for trial in wholes}
    assert "n_compared" not in result.to_frame().columns
    # A later sitting does not compare them again.
    again = search(make_pictures(60), Budget(wall_clock_s=60.0, n_trials=1), **given)
    assert len([t for t in again.trials if t.n_unfrozen == 0 and t.state == "stopped"]) == 3


def test_a_run_that_is_held_is_not_touched(search, pictures, tmp_path):
    with RunFolder(path=tmp_path / "run").held(), pytest.raises(RunLockedError, match="being worked on"):
        search(pictures, run_dir=tmp_path / "run")


def test_limits_are_checked_before_training(search, given_parts, tmp_path):
    with pytest.raises(LimitsError, match=r"none of 2 pairs.*n_params=1000.*the nearest, test_resnet.*parameters"):
        search(given_parts, run_dir=tmp_path / "run", image_sizes=[32, 48], limits=Limits(n_params=1000))
    result = search(given_parts, run_dir=tmp_path / "kept", limits=Limits(latency_ms=10_000, megabytes=50))
    assert all(trial.megabytes <= 50 for trial in result.trials)
    judged = [trial.score if trial.fold_score is None else trial.fold_score for trial in (result.best, *result.front)]
    assert judged[0] == max(judged)


@pytest.mark.parametrize("budget", [0.2, 6.0])
def test_a_tiny_budget_ends_in_time_with_something_usable(search, pictures, tmp_path, budget):
    begun = time.monotonic()
    result = search(pictures, budget, run_dir=tmp_path / "run")
    assert result.predict(pictures[0][:2]).shape == (2,)
    assert time.monotonic() - begun < budget + 15  # a bound for a hung run, not a benchmark


def test_the_plan_trains_nothing_and_leaves_no_run(pictures, weights, cache, tmp_path):
    planned = plan(
        pictures, "1min", backbones=TINY, weights=weights, cache_dir=cache, run_dir=tmp_path / "run", progress=False
    )
    assert not (tmp_path / "run").exists()
    text = str(planned)
    for part in ("target: cpu", "42 of 3 classes", TINY, "download: 0 MB", "expected: read", "budget: 60 s"):
        assert part in text


class Keeps(Silent):
    """Keeps what was said, and does something once the fourth trial was told."""

    def __init__(self, after_the_fourth=lambda: None):
        self.said = []
        self.after_the_fourth = after_the_fourth

    def say(self, line):
        self.said.append(line)
        if line.startswith("trial 4"):
            self.after_the_fourth()


def test_ctrl_c_keeps_what_is_there_and_the_run_goes_on(search, given_parts, tmp_path, press_ctrl_c):
    reporter = Keeps(press_ctrl_c)
    left = search(given_parts, Budget(n_trials=10_000), run_dir=tmp_path / "run", progress=reporter)
    assert any("interrupted" in line for line in reporter.said)
    assert left.best in left.front
    before = len(open_run(tmp_path / "run").trials)
    assert before == len(left.trials) >= 5
    again = search(given_parts, Budget(n_trials=1), run_dir=tmp_path / "run")
    assert len(again.trials) >= before
    assert not [trial for trial in again.trials if trial.state == "running"]


@pytest.mark.slow
def test_ctrl_c_in_the_midst_of_a_read_of_the_study_does_not_lock_it(search, pictures, tmp_path, press_ctrl_c):
    reporter, asked, pressed = Keeps(), [], []

    def press(_connection, _cursor, statement, *_):
        """At the first read between two parameters of the trial that is asked after the fourth."""
        if any(line.startswith("trial 4") for line in reporter.said) and not pressed:
            if asked and statement.startswith("SELECT"):
                pressed.append(statement)
                signal.raise_signal(signal.SIGINT)
            asked.extend([statement] if statement.startswith("INSERT INTO trial_params") else [])

    event.listen(Engine, "after_cursor_execute", press)
    try:
        # One is screened, so that trial 4 is one of those that were asked.
        left = search(pictures, Budget(n_trials=10_000), run_dir=tmp_path / "run", progress=reporter)
    finally:
        event.remove(Engine, "after_cursor_execute", press)
    assert pressed
    assert any("interrupted" in line for line in reporter.said)
    assert left.trials[-1].state == "failed"
    assert "interrupted" in left.trials[-1].reason


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"resize": "stretch"}, ArgumentError, "'squash', 'pad' or 'crop', not 'stretch'"),
        ({"seed": -1}, ArgumentError, "seed is a whole number"),
        ({"tolerance": -1}, ArgumentError, "tolerance is at least 0"),
        ({"target": "cpu"}, ArgumentError, r"target is a Target\(…\)"),
        ({"limits": {"latency_ms": 3}}, ArgumentError, r"limits is a Limits\(…\)"),
        ({"metric": "acuracy"}, MetricError, "accuracy"),
        ({"task": "detection"}, ArgumentError, "classification"),
        ({"space": {"lrr": 1}}, SpaceError, "Did you mean 'lr'"),
        ({"backbones": "resnet5000"}, BackboneError, "resnet"),
        ({"backbones": "resnet50.a1_in1k", "weights": None}, WeightsError, "weights="),
        ({"image_sizes": [0]}, DataError, "image size"),
        ({"target": Target(device="cuda:7")}, TargetError, "cuda"),
        ({"runner": RunnerRay(address="127.0.0.1:1")}, ArgumentError, "no cluster of Ray answers at '127.0.0.1:1'"),
        ({"runner": RunnerRay(address="local", shared="/proc/nowhere")}, ArgumentError, "shared is a folder that can"),
    ],
)
def test_wrong_arguments_are_named_before_anything_is_made(search, pictures, tmp_path, arguments, error, message):
    with pytest.raises(error, match=message) as caught:
        search(pictures, run_dir=tmp_path / "run", **arguments)
    assert isinstance(caught.value, AutobackboneError)
    assert not (tmp_path / "run" / "study.db").exists()


@pytest.mark.parametrize(("budget", "message"), [("soon", "cannot read 'soon'"), (-3, "above 0"), (None, "seconds")])
def test_budgets_that_cannot_be_read(search, pictures, budget, message):
    with pytest.raises(BudgetError, match=message):
        search(pictures, budget)


@pytest.mark.slow
def test_the_newcomers_three_run_the_whole_way(random_weights, cache, tmp_path):
    """Screened and fine-tuned, with random weights from local files: real ones cannot be had without a network."""
    names = ("resnet50.a1_in1k", "efficientnet_b0.ra_in1k", "inception_v3.tf_adv_in1k")
    result = select_backbone(
        make_pictures(n_per_class=10, n_classes=2),
        Budget(n_trials=3),
        backbones=names,
        image_sizes=[96],
        weights={name: random_weights(name) for name in names},
        cache_dir=cache,
        run_dir=tmp_path / "run",
        space={"n_epochs": 1, "n_unfrozen": 1},
        progress=False,
    )
    of = {name: [trial for trial in result.trials if trial.backbone == name] for name in names}
    assert sum(map(len, of.values())) == len(result.trials)
    for all_trials in of.values():
        cut = [trial for trial in all_trials if trial.n_blocks_kept is not None]
        assert cut
        trials = [trial for trial in all_trials if trial not in cut]
        assert [(trial.state, trial.n_unfrozen, trial.reason[:7]) for trial in trials] == [
            ("finished", 0, "a linea"),
            ("finished", 1, "weights"),
        ]
        assert result.model(trials[0])(torch.zeros(1, 3, 96, 96)).shape == (1, 2)


@pytest.mark.slow
def test_what_paused_when_it_was_interrupted_goes_on_in_the_next_sitting(search, given_parts, tmp_path):
    class Leaves(Silent):
        def say(self, line):
            if "paused after epoch 1 of 8" in line:
                raise KeyboardInterrupt

    given = {"run_dir": tmp_path / "run", "space": {"n_epochs": 8, "n_blocks_kept": None}}
    left = search(given_parts, Budget(n_trials=3), progress=Leaves(), **given)
    (waiting,) = [trial for trial in left.trials if trial.state == "running"]
    assert waiting.n_epochs == 1
    assert left.best.n_unfrozen == 0
    again = search(given_parts, Budget(n_trials=3), **given)
    assert len(again.trials) == len(left.trials) + 2  # it counts among the three
    went_on = again.trials[waiting.number]
    assert went_on.rung_scores[:1] == waiting.rung_scores
    assert {trial.state for trial in again.trials} <= {"finished", "stopped"}
    assert any(trial.n_epochs == 8 for trial in again.trials)


def test_a_disk_that_is_full_leaves_a_front_that_is_confirmed(search, pictures, tmp_path, monkeypatch):
    def full(tensors, file):
        if file.name.startswith(".weights"):
            raise OSError(errno.ENOSPC, "No space left on device")
        save(tensors, file)

    lines, save = [], trialfiles.save_file
    monkeypatch.setattr(trialfiles, "save_file", full)
    result = search(pictures, Budget(n_trials=1), run_dir=tmp_path / "run", progress=Listens(lines))
    assert any("is not kept: there was no room for" in line for line in lines)
    assert result.front
    assert {trial.n_unfrozen for trial in result.front} == {0}  # a head is enough to build a frozen network again
    assert all(trial.test_score is not None for trial in result.front)


def facts_that_repeat(trial):
    """What a search that repeats another one has to have in common with it."""
    return (
        *(trial.number, trial.state, trial.body, trial.n_unfrozen, trial.lr, trial.score, trial.rung_scores),
        *(trial.latency_ms, trial.extras.get("legs"), trial.on_front),
    )


@pytest.fixture(scope="module")
def many():
    return make_pictures(n_per_class=250, side=24)


@pytest.mark.slow
def test_recorded_costs_give_the_same_trials_again(search, many, tmp_path, monkeypatch):
    asked = {"image_sizes": 24, "space": {"n_epochs": (2, 4), "n_blocks_kept": 4}}
    first = search(many, Budget(n_trials=3), run_dir=tmp_path / "first", cache_dir=tmp_path / "a", **asked)
    # Whatever is measured now would be something else, and what lies in the first one's cache is there already.
    slower = iter(range(1, 100))

    def measured(network, *_, **__):
        return Latency(p50_ms=float(next(slower)), p95_ms=200.0, noise_ms=0.0, images_per_s=1.0, n_repeats=9)

    monkeypatch.setattr("autobackbone.latency.remembered.measure", measured)
    lines = []
    for cache in ("a", "b"):
        again = search(
            many,
            Budget(n_trials=3),
            run_dir=tmp_path / f"again in {cache}",
            cache_dir=tmp_path / cache,
            costs=tmp_path / "first",
            progress=Listens(lines),
            **asked,
        )
        assert [*map(facts_that_repeat, again.trials)] == [*map(facts_that_repeat, first.trials)]
        assert again.best.number == first.best.number
        # Nothing else was measured, and nothing was left out.
        assert read_costs(again._run.costs_file) == read_costs(first._run.costs_file)
        assert "recorded by" in again.notes[-1]
    assert "not measured here" in "\n".join(lines)
    assert "had not been recorded" not in "\n".join(lines)
    assert {trial.n_unfrozen > 0 for trial in first.trials} == {True, False}


@pytest.mark.slow
def test_what_was_not_recorded_is_told(search, pictures, tmp_path):
    lines = []
    search(pictures, Budget(n_trials=0), run_dir=tmp_path / "first", image_sizes=[32])
    search(
        pictures,
        Budget(n_trials=0),
        run_dir=tmp_path / "second",
        image_sizes=[32, 48],
        costs=tmp_path / "first",
        progress=Listens(lines),
    )
    assert "had not been recorded and w" in "\n".join(lines)


@pytest.mark.slow
def test_costs_are_of_the_same_target_and_a_clock_is_told(search, pictures, tmp_path):
    first = search(pictures, Budget(n_trials=0, wall_clock_s=60), run_dir=tmp_path / "first", image_sizes=[32])
    with pytest.raises(ArgumentError, match="costs is a run for the same target"):
        search(pictures, TWO_TRIALS, costs=first.path, target=Target(batch_size=2), run_dir=tmp_path / "other")
    lines = []
    asked = {"costs": first.path, "run_dir": tmp_path / "second", "image_sizes": [32]}
    second = search(pictures, Budget(n_trials=0), progress=Listens(lines), **asked)
    assert "was ended by a clock" in "\n".join(lines)
    costs, again = (read_costs(run._run.costs_file) for run in (first, second))
    of = next(of for of in costs if of.startswith("latency of"))
    assert again[of][0] == costs[of][0]
    # Whoever goes on with it takes them from nowhere else.
    with pytest.raises(RunError, match="begun with costs="):
        search(pictures, Budget(n_trials=1), **{**asked, "costs": second.path})


@pytest.mark.slow
def test_a_run_with_costs_goes_on_and_measures(search, given_parts, cache, tmp_path):
    first = search(given_parts, Budget(n_trials=0), run_dir=tmp_path / "first", image_sizes=[32])
    asked = {"run_dir": tmp_path / "second", "image_sizes": [32]}
    second = search(given_parts, Budget(n_trials=0), costs=first.path, **asked)
    before = read_costs(second._run.costs_file)
    shutil.rmtree(first.path)  # nothing of it is needed any more
    lines = []
    given = {"dataset": given_parts, "cache_dir": cache, "progress": Listens(lines)}
    third = second.more(Budget(n_trials=1, wall_clock_s=60), **given)
    told = f"latencies and seconds are measured from here on, no more those that {str(first.path)!r} recorded"
    assert lines.count(told) == 1
    assert len(third.trials) == len(second.trials) + 1
    after = read_costs(third._run.costs_file)
    assert all(after[of][: len(noted)] == noted for of, noted in before.items())
    assert len(after[SITTING]) == 2
    note = "a later sitting measured latencies and seconds itself"
    assert third.notes == (*second.notes, note)
    # So does the same call without costs, and what was said is said again, and noted once.
    again = search(given_parts, Budget(n_trials=1), progress=Listens(lines), **asked)
    assert lines.count(told) == 2
    assert again.notes == third.notes


@pytest.mark.parametrize("metric", ["r2", "mae"])
def test_where_all_that_is_trained_on_is_the_same_that_is_told(search, pictures, tmp_path, metric):
    lines = ["file,label,split"]
    for i, picture in enumerate(pictures[0][:24]):
        Image.fromarray(picture).save(tmp_path / f"{i}.png")
        lines.append(f"{i}.png,0.5,train" if i < 16 else f"{i}.png,{i},{('val', 'test')[i % 2]}")
    (tmp_path / "list.csv").write_text("\n".join(lines))
    with pytest.raises(LimitsError, match="screened: the 16 training pictures do not differ in their labels") as caught:
        search(tmp_path / "list.csv", Budget(n_trials=0), run_dir=tmp_path / "run", metric=metric)
    assert "time" not in str(caught.value)
    assert str(caught.value).count("do not differ") == 1


class Failing(torchmetrics.SumMetric):
    """A number of the truth alone, on which it is tried, and not of what a head says, which is never as sure."""

    higher_is_better = True  # type: ignore[assignment]

    def update(self, predictions, _):
        super().update(predictions.min())

    def compute(self):
        return super().compute() + 1 if super().compute() == 0 else torch.tensor(math.nan)


def test_a_metric_that_is_no_number_is_told(search, pictures, tmp_path):
    with pytest.raises(LimitsError, match="screened: Failing is no finite number on the validation pictures") as caught:
        search(pictures, Budget(n_trials=0), run_dir=tmp_path / "run", metric=Failing())
    assert "time" not in str(caught.value)


def test_costs_go_with_trials_alone(pictures, search, tmp_path):
    (tmp_path / "costs.jsonl").touch()
    with pytest.raises(ArgumentError, match="no clock ends"):
        search(pictures, "1min", costs=tmp_path)
    (tmp_path / "costs.jsonl").unlink()
    with pytest.raises(ArgumentError, match=r"there is no costs\.jsonl in"):
        search(pictures, TWO_TRIALS, costs=tmp_path, run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()

"""A trial trained again is the trial that was; on more pictures it is a second one beside it."""

from __future__ import annotations

import json
import math
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from tests.conftest import TINY, make_pictures

from autobackbone import Budget, Limits, Target, open_run, select_backbone
from autobackbone.errors import ArgumentError, RunError, TrialError
from autobackbone.metrics import metric_for
from autobackbone.optimism import optimism_of
from autobackbone.progress import Silent
from autobackbone.records import Trial
from autobackbone.refitting import _scores
from autobackbone.retraining import _SAME_HEAD, Retrainer
from autobackbone.search import trialfiles


@pytest.fixture(scope="module")
def searched(tmp_path_factory, random_weights):
    """A small search that trained two networks, its pictures and its cache."""
    folder, dataset = tmp_path_factory.mktemp("again"), make_pictures(n_per_class=16)
    result = select_backbone(
        dataset,
        Budget(n_trials=2),
        backbones=TINY,
        weights={TINY: random_weights(TINY)},
        image_sizes=[64],
        run_dir=folder / "run",
        cache_dir=folder / "cache",
        space={"n_epochs": 4, "n_blocks_kept": None},
        progress=False,
    )
    return result, dataset, folder / "cache"


def test_every_trained_trial_is_the_same_when_it_is_trained_again(searched):
    result, dataset, cache = searched
    tuned = [trial for trial in result.trials if trial.n_unfrozen > 0 and trial.state == "finished"]
    assert tuned
    for trial in tuned:
        network = result.retrain(trial, cache_dir=cache)
        found = result._reader.predicted(network, dataset[0][_validation(result)])
        kept = trialfiles.load_predictions(result._run, trial.number, trialfiles.VALIDATION)
        np.testing.assert_allclose(found, kept, atol=5e-3)


def _validation(result):
    pictures = trialfiles.read_pictures(result._run)
    return np.flatnonzero(pictures["part"] == "validation")


def test_a_frozen_trial_is_the_same_too(searched):
    result, dataset, cache = searched
    frozen = next(trial for trial in result.trials if trial.n_unfrozen == 0)
    network = open_run(result.path).retrain(frozen.number, dataset=dataset, cache_dir=cache)
    picture = network.transform(dataset[0][0])[None]
    with torch.inference_mode():
        np.testing.assert_allclose(network(picture), result.model(frozen)(picture), atol=1e-4)


def test_a_refit_is_a_second_network_that_is_compared_on_the_same_pictures(searched):
    result, dataset, cache = searched
    before = {name: tensor.clone() for name, tensor in result.model().state_dict().items()}
    refit = result.refit(on="train+val", budget="5min", cache_dir=cache)
    assert refit.path.is_file()
    assert refit.gain_low <= refit.gain <= refit.gain_high
    assert 0 <= refit.test_score_low <= refit.test_score <= refit.test_score_high <= 1
    # The gain is the difference of both test scores.
    assert refit.gain == pytest.approx(refit.test_score - result.best.test_score, abs=1e-9)
    assert str(refit) == refit.sentence
    assert refit.model.classes == result.classes
    assert refit.model.transform(dataset[0][0]).shape == (3, 64, 64)
    again = open_run(result.path)
    assert all(torch.equal(before[name], tensor) for name, tensor in again.model().state_dict().items())


def test_a_refit_is_compared_with_a_network_that_was_not_confirmed(searched, tmp_path):
    result, dataset, cache = searched
    shutil.copytree(result.path, tmp_path / "run")
    frozen = next(trial for trial in result.trials if trial.n_unfrozen == 0)
    (tmp_path / "run" / "trials" / f"{frozen.number:04d}" / trialfiles.TEST).unlink(missing_ok=True)
    refit = open_run(tmp_path / "run").refit(frozen.number, on="train", dataset=dataset, cache_dir=cache)
    # Trained on the same pictures, it is the same network.
    assert refit.gain == pytest.approx(0.0, abs=1e-9)
    assert refit.gain_low <= 0.0 <= refit.gain_high
    assert "cannot be had" not in refit.sentence


def test_a_refit_learns_from_the_validation_pictures(searched):
    result, _, cache = searched
    frozen = next(trial for trial in result.trials if trial.n_unfrozen == 0)
    alone, both = (result.refit(frozen, on=on, cache_dir=cache).model for on in ("train", "train+val"))
    weights = [model.state_dict()["fc.weight"] for model in (result.model(frozen), alone, both)]
    # Whether training pictures pass in bfloat16 is up to the clock, so that the same head is so only but for rounding.
    same, other = (float((one - weights[0]).norm() / weights[0].norm()) for one in weights[1:])
    assert same < _SAME_HEAD < other


def test_what_is_wanted_of_a_refit_is_checked(searched):
    result, dataset, cache = searched
    with pytest.raises(ArgumentError, match=r"on is .train\+val. or .train., not .test."):
        result.refit(on="test", cache_dir=cache)
    with pytest.raises(ArgumentError, match="give dataset=, as for the search"):
        open_run(result.path).refit(cache_dir=cache)
    other = (dataset[0][::-1].copy(), dataset[1])
    with pytest.raises(RunError, match="the dataset has changed since the run"):
        open_run(result.path).refit(dataset=other, cache_dir=cache)
    fewer = (dataset[0][:20], dataset[1][:20])
    with pytest.raises(RunError, match="pictures of the run are not in the dataset"):
        open_run(result.path).retrain(dataset=fewer, cache_dir=cache)


def test_a_refit_whose_time_ends_before_an_epoch_says_what_to_do(searched, monkeypatch):
    result, _, cache = searched
    tuned = next(trial for trial in result.trials if trial.n_unfrozen > 0)
    retrainer = result._retrainer(tuned, None, cache)
    with pytest.raises(TrialError, match=r"^the time ended after .* training pictures had passed\. Raise budget\.$"):
        retrainer.refitted(tuned, "train+val", time.monotonic() - 1)
    # As if the head had just been fitted when it ended.
    monkeypatch.setattr(Retrainer, "_fitted_head", lambda self, trial, *_: self._head_of(trial))
    shutil.rmtree(cache / "activations", ignore_errors=True)
    with pytest.raises(TrialError, match=r"(ended|left).*\. Raise budget\.$"):
        retrainer.refitted(tuned, "train+val", time.monotonic() - 1)


def test_an_ensemble_of_networks_that_are_gone_says_which_file(searched, tmp_path):
    result, *_ = searched
    shutil.copytree(result.path, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "trials")
    with pytest.raises(RunError, match=r"has no weights here|is not there|cannot be read"):
        open_run(tmp_path / "run").ensemble()


def test_differences_of_r2_are_no_points():
    r2 = metric_for("r2", "regression", n_outputs=1)
    assert ", +0.1 (-0.1 to +0.3) against the network before" in _scores(r2, 0.5, (0.1, -0.1, 0.3), np.zeros(4, bool))
    trial = Trial(
        number=0, state="finished", reason="", backbone=TINY, image_size=(32, 32), n_unfrozen=0, n_blocks=5, lr=0.0,
        score=-0.127, score_se=0.1, test_score=-0.453, test_score_low=-0.9, test_score_high=0.1, latency_ms=1.0,
    )  # fmt: skip
    optimism = optimism_of([trial], trial, r2)
    assert "r2 -0.127 in validation, -0.453 in test, so that the former was 0.33 ± 0.27 better." in str(optimism)


def test_optimism_compares_validation_with_test(searched):
    result, *_ = searched
    best, optimism = result.best, result.optimism
    stood = best.score if best.fold_score is None else best.fold_score
    assert optimism.of_best == pytest.approx(stood - best.test_score)
    assert optimism.n_trials == len(result.front)
    assert math.isfinite(optimism.standard_error)
    assert f"{100 * best.test_score:.1f} %" in str(optimism)


def test_the_lines_that_are_printed_repeat_the_run(searched, tmp_path, monkeypatch):
    result, dataset, _ = searched
    script = result.reproduce()
    assert result._facts["split_digest"] in script
    assert f"run.retrain({result.best.number}, dataset=dataset)" in script
    lines = script.replace("dataset = ...", "dataset = given")
    threads = torch.get_num_threads()
    try:
        found = {"given": dataset}
        exec(compile(lines, "script", "exec"), found)
    finally:
        torch.set_num_threads(threads)
    picture = found["network"].transform(dataset[0][0])[None]
    with torch.inference_mode():
        torch.testing.assert_close(found["network"](picture), result.model()(picture), atol=1e-4, rtol=1e-3)
    # The other half is a search that Python can read, and that comes out the same.
    search = "\n".join(
        line.removeprefix("# ") for line in script.splitlines() if line.startswith(("# selection", "#     ", "# )"))
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AUTOBACKBONE_CACHE", str(tmp_path / "cache"))
    exec(compile(search, "search", "exec"), found)
    for one, other in zip(found["selection"].trials, result.trials, strict=True):
        assert (one.body, one.n_unfrozen, one.lr, one.state) == (other.body, other.n_unfrozen, other.lr, other.state)
        assert (one.latency_ms, one.score) == (other.latency_ms, other.score)


def test_a_search_that_trained_side_by_side_is_not_said_to_come_out_the_same(searched, tmp_path):
    result, *_ = searched
    shutil.copytree(result.path, tmp_path / "run")
    assert "the same trials come out" in open_run(tmp_path / "run").reproduce()
    with (tmp_path / "run" / "costs.jsonl").open("a", encoding="utf-8") as lines:
        lines.write(json.dumps({"of": "side by side", "is": 4}) + "\n")
    script = open_run(tmp_path / "run").reproduce()
    assert "ran side by side, and ended in an order that no record can repeat" in script
    assert "costs=" not in script
    assert "the same trials come out" not in script


def test_a_head_that_a_clock_cut_short_is_the_recorded_one(searched, tmp_path):
    result, dataset, cache = searched
    shutil.copytree(result.path, tmp_path / "run")
    again = open_run(tmp_path / "run")
    frozen = next(trial for trial in again.trials if trial.n_unfrozen == 0)
    head = trialfiles.load_head(again._run, frozen.number)
    trialfiles.save_head(again._run, frozen.number, replace(head, weight=2 * head.weight, strength=7.0))
    network = again.retrain(frozen, dataset=dataset, cache_dir=cache)
    np.testing.assert_allclose(network.get_classifier().weight.detach(), 2 * head.weight, rtol=1e-5)
    kept = result.retrain(frozen.number, dataset=dataset, cache_dir=cache)
    np.testing.assert_allclose(kept.get_classifier().weight.detach(), head.weight, rtol=0.05, atol=0.05)


def test_labels_that_were_corrected_since_are_not_passed_over(searched):
    result, (pictures, labels), cache = searched
    corrected = labels.copy()
    corrected[0] = (labels[0] + 1) % 3
    for again in (result.refit, result.retrain):
        with pytest.raises(RunError, match=r"has changed since .* began: 1 label now differ.* Search again with these"):
            again(dataset=(pictures, corrected), cache_dir=cache)


@pytest.fixture(scope="module")
def given_split(tmp_path_factory, random_weights):
    """A run on a split that was given, in which the first two test pictures are copies."""
    tmp_path = tmp_path_factory.mktemp("given")
    pictures, labels = make_pictures(n_per_class=16)
    table = tmp_path / "pictures"
    table.mkdir()

    rows = []
    for index, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        part = ("train", "train", "val", "test")[index % 4]
        Image.fromarray(picture).save(table / f"{index}.png")
        rows.append((f"{index}.png", part, int(label)))
    # A test picture is a training picture, mirrored.
    Image.fromarray(pictures[0][:, ::-1]).save(table / "3.png")
    # The next one is a validation picture.
    Image.fromarray(pictures[2][:, ::-1]).save(table / "7.png")
    frame = pd.DataFrame(rows, columns=["file", "split", "label"])
    frame.to_csv(table / "labels.csv", index=False)
    return select_backbone(
        table / "labels.csv",
        Budget(n_trials=0),
        backbones=TINY,
        weights={TINY: random_weights(TINY)},
        image_sizes=[64],
        run_dir=tmp_path / "run",
        cache_dir=tmp_path / "cache",
        space={"n_blocks_kept": None},
        progress=False,
    )


def time_of(name):
    """Pictures of one class follow each other: the first of each are the first."""
    return int(name) % 14


def arguments_printed(result):
    """Those of the search anew, as the lines that are printed would call it."""
    lines = result.reproduce().splitlines()
    begin = lines.index("# selection = select_backbone(")
    call = "\n".join(line.removeprefix("# ") for line in lines[begin : lines.index("# )", begin) + 1])
    found = {}
    names = {"Budget": Budget, "Limits": Limits, "Target": Target, "dataset": None}
    exec(call, names | {"select_backbone": lambda *_, **arguments: found.update(arguments)})
    return found, [line for line in lines[begin:] if "=..." in line]


@pytest.mark.slow
def test_the_search_that_is_printed_makes_the_same_split_and_choice(tmp_path, random_weights):
    dataset = make_pictures()
    asked = {"times": time_of, "rare": "error", "tolerance": 2.0, "channels": (2, 1, 0), "value_range": (0.0, 300.0)}
    asked |= {"stop_early": True}
    folders = {"cache_dir": tmp_path / "cache", "progress": False, "run_dir": tmp_path / "run"}
    result = select_backbone(
        dataset,
        Budget(n_trials=0),
        backbones=TINY,
        weights=random_weights(TINY),
        image_sizes=[32],
        space={"n_blocks_kept": None},
        **asked,
        **folders,
    )
    printed, left_open = arguments_printed(result)
    assert {name: printed[name] for name in asked} == asked | {"times": ...}
    assert left_open == ["#     times=...,  # a function of a picture's name, which lay in memory: put the same here"]
    assert not {"groups", "sampler"} & printed.keys()
    assert printed.pop("costs") == str(result.path)
    again = select_backbone(
        dataset, Budget(n_trials=0), **printed | folders | {"times": time_of, "run_dir": tmp_path / "again"}
    )
    assert again._facts["split_digest"] == result._facts["split_digest"]
    for fact in ("arguments", "asked", "preparation", "tolerance"):
        assert again._facts[fact] == result._facts[fact]


def searched_anew(result):
    """The comment above the search anew, as one line."""
    lines = result.reproduce().splitlines()
    end = lines.index("# selection = select_backbone(")
    begin = max(index for index in range(end) if not lines[index]) + 1
    return " ".join(line.removeprefix("# ") for line in lines[begin:end])


def test_paths_mean_the_same_from_anywhere(searched, monkeypatch):
    result, *_ = searched
    monkeypatch.chdir(result.path.parent)
    script = open_run(result.path.name).reproduce()
    assert script == result.reproduce()
    assert f"open_run({str(result.path)!r})" in script
    assert f"costs={str(result.path)!r}," in script


class Presses(Silent):
    """Presses Ctrl-C once the first network was screened."""

    def __init__(self, press):
        self.press = press

    def say(self, line):
        if line.startswith("trial 0"):
            self.press()


@pytest.mark.slow
def test_what_was_interrupted_says_so_and_its_search_comes_to_the_end(tmp_path, random_weights, press_ctrl_c):
    dataset, folders = make_pictures(n_per_class=16), {"cache_dir": tmp_path / "cache"}
    left = select_backbone(
        dataset,
        Budget(n_trials=2),
        backbones=TINY,
        weights=random_weights(TINY),
        image_sizes=[32],
        space={"n_epochs": 2, "n_blocks_kept": None},
        run_dir=tmp_path / "run",
        progress=Presses(press_ctrl_c),
        **folders,
    )
    said = searched_anew(left)
    assert "has not come to its end: it was interrupted, or is still going on" in said
    assert "the trials that had ended come out the same, those that were cut off are trained further" in said
    assert "#     Budget(n_trials=2)," in left.reproduce()
    printed, _ = arguments_printed(left)
    whole = select_backbone(
        dataset, Budget(n_trials=2), run_dir=tmp_path / "again", progress=False, **printed | folders
    )
    ended = [trial for trial in left.trials if trial.state == "finished"]
    assert ended
    for one, other in zip(ended, (whole.trials[trial.number] for trial in ended), strict=True):
        assert (one.body, one.n_unfrozen, one.lr, one.score) == (other.body, other.n_unfrozen, other.lr, other.score)
    assert searched_anew(whole) == "The same search anew, with what this one measured: the same trials come out."


@pytest.mark.slow
def test_a_search_without_the_clock_of_the_run_is_not_called_the_same(tmp_path, random_weights):
    asked = {"backbones": TINY, "weights": random_weights(TINY), "space": {"n_blocks_kept": None}, "progress": False}
    folders = {"run_dir": tmp_path / "run", "cache_dir": tmp_path / "cache"}
    dataset = make_pictures()
    timed = Budget(wall_clock_s=60, n_trials=0)
    result = select_backbone(dataset, timed, image_sizes=[32], **asked, **folders)
    said = searched_anew(result)
    assert said.startswith("Not the same search: that of the run had a clock, of 60 s, and this one has none.")
    assert "each of 1 pair of" in said
    assert "the run screened" not in said
    assert "costs=" not in result.reproduce()
    # As if it had had no time for more.
    facts = json.loads((result.path / "run.json").read_text(encoding="utf-8"))
    facts["image_sizes"] = [[TINY, [[side, side] for side in (32, 48, 64)]]]
    (result.path / "run.json").write_text(json.dumps(facts), encoding="utf-8")
    said = searched_anew(open_run(result.path))
    assert "each of 3 pairs of backbone and image size that keeps the limits is screened; the run screened 1." in said
    assert "So other trials come out" in said


@pytest.mark.slow
def test_a_search_of_several_sittings_is_not_called_the_same(searched, tmp_path):
    result, dataset, cache = searched
    shutil.copytree(result.path, tmp_path / "run")
    more = open_run(tmp_path / "run").more(Budget(n_trials=1), dataset=dataset, cache_dir=cache, progress=False)
    assert "A search anew, in one sitting; the run had 2." in searched_anew(more)
    (tmp_path / "run" / "costs.jsonl").unlink()
    assert searched_anew(open_run(tmp_path / "run")).startswith("A search anew, in one sitting. What is tried")


def test_a_run_from_before_they_were_noted_prints_what_it_knows(searched, tmp_path):
    result, *_ = searched
    old = Path(shutil.copytree(result.path, tmp_path / "old"))
    facts = {name: value for name, value in result._facts.items() if name != "asked"}
    (old / "run.json").write_text(json.dumps(facts), encoding="utf-8")
    printed, left_open = arguments_printed(open_run(old))
    assert printed["metric"] == "accuracy"
    assert not left_open


def test_scores_without_copies_of_a_given_split(given_split):
    result = given_split
    found = result.scores_without_copies()
    assert set(found) == {"test"}
    predictions, truth = result._reader.predictions(result.best, "test"), result._reader.labels("test")
    is_right = predictions.argmax(axis=1) == truth
    assert found["test"] == pytest.approx(is_right[1:].mean())
    assert any("a copy in the training part" in note for note in result.notes)


@pytest.mark.parametrize(("on", "n_copies"), [("train", 1), ("train+val", 2)])
def test_a_refit_is_compared_without_copies_of_what_it_was_trained_on(given_split, on, n_copies):
    result = given_split
    before, truth = result._reader.predictions(result.best, "test"), result._reader.labels("test")
    was_right = before.argmax(axis=1) == truth
    refit = result.refit(on=on, cache_dir=result.path.parent / "cache")
    assert refit.n_test == len(truth) - n_copies == 12 - n_copies
    assert refit.gain == pytest.approx(refit.test_score - was_right[n_copies:].mean(), abs=1e-9)
    assert f"on the {12 - n_copies} of 12 test pictures without a copy among those it was trained on" in str(refit)


def test_where_every_test_picture_has_a_copy_that_is_said():
    accuracy = metric_for("accuracy", n_outputs=2)
    said = _scores(accuracy, 0.9, (0.01, -0.01, 0.03), np.ones(4, np.bool_))
    assert said.startswith("test accuracy 90.0 % on test pictures that all have a copy among those it was trained on, ")
    said = _scores(accuracy, 0.9, (0.01, -0.01, 0.03), np.zeros(4, np.bool_))
    assert said.startswith("test accuracy 90.0 %, +1 (-1 to +3) points")
    assert _scores(accuracy, math.nan, (math.nan,) * 3, np.zeros(0, np.bool_)) == "there is no test part to score it on"
    r2 = metric_for("r2", "regression", n_outputs=1)
    lone = _scores(r2, math.nan, (math.nan,) * 3, np.array([True, False]))
    assert lone.startswith("its test r2 is not defined on the 1 of 2 test pictures without a copy")

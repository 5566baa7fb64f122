"""Every task through the whole way: labels, split, heads, training, scores, predictions, the command line."""

from __future__ import annotations

import csv
import statistics

import numpy as np
import pandas as pd
import pytest
import torchmetrics
from PIL import Image
from tests.conftest import TINY, command, make_pictures

from autobackbone import Budget, open_run, select_backbone
from autobackbone.choosing import as_they_stand, comparable, on_one_scale
from autobackbone.errors import ArgumentError
from autobackbone.metrics import interval, score
from autobackbone.tasks import can_be_learned


@pytest.fixture(scope="module")
def cards(tmp_path_factory):
    """60 pictures of stripes with what can be told of them in a CSV file: numbers and labels."""
    folder = tmp_path_factory.mktemp("cards")
    pictures, labels = make_pictures(n_per_class=20)
    generator = np.random.default_rng(1)
    rows = []
    for index, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        light = generator.uniform(0.4, 1.0)
        Image.fromarray((picture * light).astype(np.uint8)).save(folder / f"{index}.png")
        rows.append((f"{index}.png", 1000 * light, label / 7, int(label == 0), int(light > 0.7)))
    table = pd.DataFrame(rows, columns=["file", "light", "angle", "is_flat", "is_bright"])
    table.to_csv(folder / "labels.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def search(cards, random_weights, tmp_path_factory):
    """A function: a small search on the table, by what else is asked."""
    cache = tmp_path_factory.mktemp("cache")

    def run(name, **asked):
        given = {"space": {"n_epochs": 4, "n_blocks_kept": None}, "image_sizes": [64], "progress": False}
        given |= {"backbones": TINY, "weights": {TINY: random_weights(TINY)}, "cache_dir": cache}
        run_dir = tmp_path_factory.mktemp("runs") / name
        return select_backbone(cards / "labels.csv", Budget(n_trials=1), run_dir=run_dir, **given | asked)

    return run


@pytest.fixture(scope="module")
def regression(search):
    return search("regression", label=["light", "angle"])


@pytest.fixture(scope="module")
def multilabel(search):
    return search("multilabel", label=["is_flat", "is_bright"])


def test_numbers_are_learned_in_their_own_units(regression, cards):
    assert (regression.task, regression.classes) == ("regression", ("light", "angle"))
    assert regression.metric.name == "r2"
    assert any(trial.n_unfrozen > 0 and trial.state == "finished" for trial in regression.trials)
    files = [cards / f"{index}.png" for index in range(60)]
    found = regression.predict(files)
    assert found.shape == (60, 2)
    table = pd.read_csv(cards / "labels.csv")
    # Lights are hundreds and angles are tenths: both are said in their own unit.
    for column, name in enumerate(("light", "angle")):
        assert np.corrcoef(found[:, column], table[name])[0, 1] > 0.5
        assert abs(found[:, column].mean() - table[name].mean()) < table[name].std()
    with pytest.raises(ArgumentError, match="numbers have no probabilities"):
        regression.predict_proba(files)


@pytest.mark.parametrize("which", ["regression", "multilabel"])
def test_scores_are_those_of_the_stored_predictions(which, request):
    result = request.getfixturevalue(which)
    for trial in result.trials:
        labels = result._reader.labels("validation")
        assert trial.score == pytest.approx(
            score(result.metric, result._reader.predictions(trial, "validation"), labels)
        )
        assert 0 <= trial.score_se < np.inf
    best, truth = result.best, result._reader.labels("test")
    stored = result._reader.predictions(best, "test")
    assert best.test_score == pytest.approx(score(result.metric, stored, truth))
    assert (best.test_score_low, best.test_score_high) == pytest.approx(interval(result.metric, stored, truth))


@pytest.mark.parametrize("which", ["regression", "multilabel"])
def test_every_network_of_the_front_says_what_was_scored(which, request, cards):
    result = request.getfixturevalue(which)
    names = pd.read_csv(result.path / "pictures.csv").query("part == 'test'")["name"]
    for trial in result.front:
        found = result._reader.predicted(result.model(trial), [cards / name for name in names])
        kept = result._reader.predictions(trial, "test")
        np.testing.assert_allclose(found, kept, atol=2e-3 * max(1.0, np.abs(kept).max()))


def test_labels_are_each_there_or_not(multilabel, cards):
    assert (multilabel.task, multilabel.classes) == ("multilabel", ("is_flat", "is_bright"))
    assert multilabel.metric.name == "map"
    files = [cards / f"{index}.png" for index in range(60)]
    probabilities, found = multilabel.predict_proba(files, calibrated=False), multilabel.predict(files)
    np.testing.assert_array_equal(found, (probabilities > 0.5).astype(int))
    assert set(probabilities.sum(axis=1).round()) != {1.0}
    table = pd.read_csv(cards / "labels.csv")
    assert (found == table[["is_flat", "is_bright"]].to_numpy()).mean() > 0.7


def test_a_run_is_the_same_when_it_is_opened_again(regression, cards):
    again = open_run(regression.path)
    assert again.metric.spec == regression.metric.spec
    np.testing.assert_allclose(again.predict([cards / "0.png"]), regression.predict([cards / "0.png"]), rtol=1e-6)


def standing(trials):
    """By what each is judged: by folds, where there are some."""
    return {trial.number: trial.score for trial in as_they_stand(on_one_scale(comparable(trials)))}


def test_a_loss_in_the_unit_of_the_labels_is_minimised(search):
    result = search("mae", label="light", metric="mae", resize="pad")
    assert not result.metric.is_higher_better
    assert result.predict([Image.new("RGB", (40, 40))]).shape == (1,)
    scores = standing(result.trials)
    assert min(scores[trial.number] for trial in result.front) == min(scores.values())
    assert "light" not in str(result.choice.reason)
    assert "mae" in str(result)


def test_a_metric_of_torchmetrics_counts(search):
    result = search("own", label="light", metric=torchmetrics.MeanAbsolutePercentageError())
    assert result.metric.name == "MeanAbsolutePercentageError"
    scores = standing(result.trials)
    assert scores[result.best.number] <= statistics.median(scores.values())
    assert open_run(result.path).best.score == result.best.score


def test_the_command_line_says_what_the_task_is_about(regression, multilabel, cards, tmp_path):
    shown = command("show", regression.path)
    assert shown.code == 0
    assert "score is r2" in shown.out
    rows = {}
    for name, result in (("regression", regression), ("multilabel", multilabel)):
        file = tmp_path / f"{name}.csv"
        assert command("predict", result.path, cards / "0.png", cards / "1.png", "--csv", file).code == 0
        with file.open(newline="", encoding="utf-8") as opened:
            rows[name] = list(csv.reader(opened))
    assert rows["regression"][0] == ["path", "light", "angle"]
    assert float(rows["regression"][1][1]) == pytest.approx(regression.predict([cards / "0.png"])[0, 0], rel=1e-4)
    assert rows["multilabel"][0] == ["path", "labels", "is_flat", "is_bright"]
    named = set(filter(None, rows["multilabel"][1][1].split("|")))
    assert named == {
        name
        for name, value in zip(rows["multilabel"][0][2:], rows["multilabel"][1][2:], strict=True)
        if float(value) > 0.5
    }


def test_the_plan_tells_the_task(cards):
    shown = command("select", cards / "labels.csv", "--label", "light,angle", "--dry-run", "--budget", "30s")
    assert shown.code == 0
    assert "60 with numbers to predict" in shown.out
    shown = command("select", cards / "labels.csv", "--label", "is_flat,is_bright", "--dry-run", "--task", "multilabel")
    assert "60 with 2 labels, each there or not" in shown.out
    refused = command("select", cards / "labels.csv", "--dry-run")
    assert refused.code == 1
    assert "there is no 'label' among 'file', 'light'" in refused.err


@pytest.mark.parametrize(
    ("labels", "task", "wanted"),
    [
        (np.array([0, 0, 0]), "classification", False),
        (np.array([0, 1]), "classification", True),
        (np.array([[1.0], [1.0]]), "regression", False),
        (np.array([[1.0, 2.0], [1.0, 3.0]]), "regression", True),
        (np.array([[0, 1], [0, 1]]), "multilabel", False),
        (np.array([[0, 1]]), "multilabel", False),
    ],
)
def test_what_does_not_differ_cannot_be_learned(labels, task, wanted):
    assert can_be_learned(labels, task) is wanted

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from tests.conftest import TINY, make_pictures
from tests.test_runfolder import FACTS

from autobackbone import Budget, Selection, open_run, select_backbone
from autobackbone.calibration import calibrated, calibration_of, settled_temperature
from autobackbone.crossfitting import Scored
from autobackbone.errors import ArgumentError, DataError, LimitsError, RunError
from autobackbone.exporting.transform import as_pictures
from autobackbone.metrics import score
from autobackbone.picking import mean_of

X, Y = make_pictures(n_per_class=70, n_classes=3)
# Noise, so that random networks differ in what they see.
X = (X + np.random.default_rng(1).normal(0, 200, X.shape)).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def run(random_weights, tmp_path_factory):
    """A real run whose validation part has 33 pictures: frozen, cut and tuned networks of random weights."""
    folder = tmp_path_factory.mktemp("runs")
    return select_backbone(
        (X, Y),
        Budget(n_trials=3),
        backbones=TINY,
        image_sizes=[32],
        weights=random_weights(TINY),
        cache_dir=folder / "cache",
        run_dir=folder / "run",
        space={"n_epochs": 2, "n_blocks_kept": (1, 3)},
        progress=False,
    ).path


@pytest.fixture
def selection(run):
    return open_run(run)


def judged(trial):
    """The score that choices stand on: by folds, where pictures are few."""
    return trial.score if trial.fold_score is None else trial.fold_score


def test_each_word_names_a_trial_of_the_front(selection):
    front = selection.front
    assert selection.select("speed") == front[0]
    assert judged(selection.select("accuracy")) == max(map(judged, front))
    assert selection.select("balanced") == selection.knee()
    assert selection.select("training_speed").train_seconds <= selection.select("accuracy").train_seconds
    assert all(selection.select(word) in front for word in ("balanced", "training_speed"))
    with pytest.raises(ArgumentError, match="not 'cheap'"):
        selection.select("cheap")


def test_a_network_within_limits_is_found_beyond_the_front_and_can_be_used(selection):
    beaten = next(trial for trial in selection.trials if trial.n_unfrozen == 0)
    # What the clock of this machine has beaten could be on another one's front, or the smallest there.
    small = replace(beaten, n_params=9, on_front=False)
    selection.trials = [small if one == beaten else one for one in selection.trials]
    assert selection.best_under(n_params=10).number == beaten.number
    assert selection.predict_proba(X[:2], selection.best_under(n_params=10)).shape == (2, 3)
    with pytest.raises(LimitsError, match=rf"keeps n_params=8; the nearest, trial {beaten.number} .* has 9 parameters"):
        selection.best_under(n_params=8)


def test_limits_that_a_trial_keeps_give_it_or_a_better_one_that_has_a_network(selection):
    for trial in selection.trials:
        limits = {"latency_ms": trial.latency_ms, "n_params": trial.n_params, "megabytes": trial.megabytes}
        if trial.state == "finished" and (trial.on_front or trial.n_unfrozen == 0):
            best = selection.best_under(**limits)
            assert judged(best) >= judged(trial)
            assert all(getattr(best, name) <= limit for name, limit in limits.items())
            assert selection.model(best).classes == (0, 1, 2)


def test_a_trial_whose_network_is_gone_is_not_offered(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    before = open_run(tmp_path / "run")
    top = before.best_under(1e9)
    for file in (tmp_path / "run" / "trials" / f"{top.number:04d}").glob("*.safetensors"):
        file.unlink()
    after = open_run(tmp_path / "run")
    assert after.best_under(1e9).number != top.number
    with pytest.raises(RunError, match="is not there" if top.n_unfrozen == 0 else "has no weights here"):
        after.model(top)


def test_the_fastest_that_is_good_enough(selection):
    for trial in selection.front:
        assert selection.fastest_at_least(judged(trial)).latency_ms <= trial.latency_ms
    with pytest.raises(LimitsError, match=r"accuracy of at least 100\.0 %; the best is trial"):
        selection.fastest_at_least(1.0)


@pytest.fixture
def too_sure(run, tmp_path):
    """A copy of the run whose best trial is right on two thirds of the validation pictures, and sure of all."""
    shutil.copytree(run, tmp_path / "run")
    selection = open_run(tmp_path / "run")
    table = pd.read_csv(selection.path / "pictures.csv")
    labels = table.loc[table["part"] == "validation", "label"].to_numpy()
    said = np.where(np.arange(3) == (labels + (np.arange(len(labels)) % 3 == 0))[:, None] % 3, 0.98, 0.01)
    np.save(selection.path / "trials" / f"{selection.best.number:04d}" / "validation.npy", said.astype(np.float32))
    return Scored(said, labels), open_run(selection.path), selection.best.number


def test_probabilities_are_corrected_by_the_temperature_and_classes_stay(too_sure):
    scored, selection, number = too_sure
    temperature = settled_temperature(*scored)
    assert temperature > 2
    raw = selection.predict_proba(X, number, calibrated=False)
    network = selection.model(number)
    with torch.inference_mode():
        logits = torch.cat([network(network.transform(picture)[None]) for picture in X])
    np.testing.assert_allclose(raw, torch.softmax(logits, dim=1), atol=1e-4)
    corrected = selection.predict_proba(X, number)
    np.testing.assert_array_equal(corrected, calibrated(raw, temperature, multilabel=False))
    np.testing.assert_allclose(corrected, torch.softmax(logits / temperature, dim=1), atol=1e-4)
    assert (selection.predict(X, number) == raw.argmax(axis=1)).all()


def test_calibration_is_measured_on_the_test_part_where_there_is_one(too_sure):
    scored, selection, number = too_sure
    found = selection.calibration(number)
    assert (found.measured_on, found.n_images) == ("test", 42)
    assert found.temperature == settled_temperature(*scored)
    (selection.path / "trials" / f"{number:04d}" / "test.npy").unlink()
    halved = selection.calibration(number)
    assert (halved.measured_on, halved.n_images) == ("validation", len(scored.labels))
    assert halved == calibration_of(scored)
    share_right = (scored.predictions.argmax(axis=1) == scored.labels).mean()
    assert halved.ece_before == pytest.approx(0.98 - share_right, abs=1e-5)
    assert halved.ece_after < 0.1


def test_one_network_or_more_predict_together(selection):
    together = selection.ensemble()
    assert all(member in selection.front for member in together.members)
    assert together.latency_ms == pytest.approx(sum(member.latency_ms for member in together.members))
    labels, reader = selection._reader.pooled_labels(), selection._reader
    firsts = [score(selection.metric, reader.fold_predictions(trial)[0], labels) for trial in selection.front]
    assert together.score >= max(firsts) - 1e-9
    said = [selection.predict_proba(X, member, calibrated=False) for member in together.members]
    np.testing.assert_allclose(together.predict_proba(X), mean_of(said, together.weights), atol=1e-6)
    if len(together.members) == 1:
        assert together.test_score == pytest.approx(together.members[0].test_score)
    fastest = selection.select("speed")
    assert selection.ensemble(fastest.latency_ms).members == (fastest,)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_labels_and_numbers_are_chosen_and_predicted_together_as_well(task, random_weights, tmp_path):
    labels = (
        np.stack([Y == 0, Y > 0], axis=1).astype(int) if task == "multilabel" else np.stack([Y + 0.5, 3.0 - Y], axis=1)
    )
    selection = select_backbone(
        (X, labels),
        Budget(n_trials=0),
        task=task,
        backbones=TINY,
        image_sizes=32,
        weights=random_weights(TINY),
        cache_dir=tmp_path / "cache",
        run_dir=tmp_path / "run",
        space={"n_unfrozen": 0, "n_blocks_kept": 3},
        progress=False,
    )
    top = selection.select("accuracy")
    assert judged(selection.fastest_at_least(judged(top))) == judged(top)
    assert judged(selection.best_under(n_params=1e9)) == max(map(judged, selection.trials))
    together = selection.ensemble()
    said = [selection.predict(X[:9], member) for member in together.members]
    if task == "regression":
        np.testing.assert_allclose(together.predict(X[:9]), mean_of(said, together.weights), rtol=1e-4)
        with pytest.raises(ArgumentError, match="numbers have no probabilities"):
            together.predict_proba(X[:9])
    else:
        assert together.predict(X[:9]).shape == (9, 2)
        assert selection.calibration().measured_on == "test"
        raw, temperature = selection.predict_proba(X[:9], calibrated=False), selection.calibration().temperature
        np.testing.assert_array_equal(selection.predict_proba(X[:9]), calibrated(raw, temperature, multilabel=True))


@pytest.fixture
def complementary(run, tmp_path):
    """A copy of the run in which two frozen networks know the even and the odd pictures of the validation part."""
    shutil.copytree(run, tmp_path / "run")
    selection = open_run(tmp_path / "run")
    pair = [trial for trial in selection.trials if trial.n_unfrozen == 0][:2]
    table = pd.read_csv(selection.path / "pictures.csv")
    labels = table.loc[table["part"] == "validation", "label"].to_numpy()
    rows = np.arange(len(labels))
    for i, trial in enumerate(pair):
        said = np.zeros((len(labels), 3), np.float32)
        said[rows, labels] = np.where(rows % 2 == i, 0.9, 0.4)
        said[rows, (labels + 1) % 3] = np.where(rows % 2 == i, 0.1, 0.6)
        np.save(selection.path / "trials" / f"{trial.number:04d}" / "validation.npy", said)
    # Both on the front, whatever the clock of this machine says; without folds they are judged by that part.
    first, second = (replace(trial, score=0.5, fold_score=None, fold_se=None) for trial in pair)
    selection.front = [replace(first, latency_ms=1.0), replace(second, latency_ms=2.0)]
    return selection


def test_two_that_complement_each_other_predict_together(complementary):
    together = complementary.ensemble()
    assert together.is_better
    assert (together.members, together.score) == (tuple(complementary.front), 1)
    assert together.latency_ms == 3
    said = [complementary.predict_proba(X, trial, calibrated=False) for trial in together.members]
    np.testing.assert_allclose(together.predict_proba(X), mean_of(said, together.weights), atol=1e-6)
    assert together.predict(X).tolist() == together.predict_proba(X).argmax(axis=1).tolist()
    assert len(complementary.ensemble(2.5).members) == 1
    with pytest.raises(LimitsError, match=r"the fastest, trial \d+ .*, takes 1\.00 ms"):
        complementary.ensemble(0.5)


def test_numbers_are_no_probabilities(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    facts = json.loads((run / "run.json").read_text())
    (tmp_path / "run" / "run.json").write_text(json.dumps(facts | {"task": "regression"}))
    selection = open_run(tmp_path / "run")
    with pytest.raises(ArgumentError, match="numbers have no probabilities"):
        selection.calibration(0)
    with pytest.raises(ArgumentError, match="numbers have no probabilities"):
        selection.predict_proba(X[:1], 0)


def test_pictures_come_in_many_forms():
    assert len(as_pictures(np.zeros((5, 16, 16)))) == 5
    assert len(as_pictures(np.zeros((5, 16, 16, 3)))) == 5
    assert len(as_pictures(np.zeros((16, 16, 3)))) == 1
    assert len(as_pictures(np.zeros((16, 16)))) == 1
    assert as_pictures([]) == []


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (None, "a list of paths"),
        (["gone.jpg"], "1 of 1 pictures are not there"),
        (np.zeros(4), "shape"),
        ([torch.zeros(3, 4, 4)], "a picture is a path, .* Tensor came"),
        ([str(Path.cwd())], "is a folder. Give its pictures"),
    ],
)
def test_what_is_no_picture_is_named(images, message):
    with pytest.raises(DataError, match=message):
        as_pictures(images)


@pytest.mark.parametrize("path", [None, 7, b"run", ["run"]])
def test_a_run_is_opened_by_its_path(path):
    with pytest.raises(ArgumentError, match=rf"takes the path of a run folder, not {re.escape(repr(path))}\. Give"):
        open_run(path)


@pytest.mark.parametrize(
    "preparation", [{"resize": "stretch"}, {"resise": "crop"}, {"value_range": 3}, {"channels": "rgb"}]
)
def test_a_preparation_that_cannot_be_read_is_told_when_the_run_is_opened(tmp_path, preparation):
    (tmp_path / "run.json").write_text(json.dumps(FACTS | {"preparation": preparation}))
    with pytest.raises(RunError, match=r"run\.json' is damaged: 'preparation' cannot be read .*Put it back"):
        open_run(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps(FACTS))
    assert isinstance(open_run(str(tmp_path)), Selection)

"""A real run on pictures of which a twentieth were given the label of another class."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from tests.conftest import TINY, command, make_pictures
from tests.test_runfolder import FACTS

from autobackbone import open_run, select_backbone
from autobackbone.data import Preparation
from autobackbone.errors import ArgumentError, RunError
from autobackbone.loading import RunReader
from autobackbone.reviewing import contradictions
from autobackbone.runfolder import RunFolder
from autobackbone.search.frozen import judges_of
from autobackbone.search.trialfiles import write_pictures

COLUMNS = ["name", "label", "label_probability", "part", "suggested_probability", "suggested", "score"]
PICTURES, TRUTH = make_pictures(n_per_class=70)
NAMES = np.array(["ant", "bee", "cow"])


def search(random_weights, folder, labels, **arguments):
    """A frozen network of random weights at four sizes."""
    return select_backbone(
        (PICTURES, labels),
        "5min",
        backbones=TINY,
        image_sizes=[32, 40, 48, 56],
        weights=random_weights(TINY),
        cache_dir=folder / "cache",
        run_dir=folder / "run",
        space={"n_unfrozen": 0, "n_blocks_kept": None},
        progress=False,
        **arguments,
    )


def numbers_of(frame):
    """Which pictures a table names: those of an array are named by their numbers."""
    return frame["name"].astype(int).to_numpy()


@pytest.fixture(scope="module")
def wrong():
    return np.sort(np.random.default_rng(0).choice(len(TRUTH), 10, replace=False))


@pytest.fixture(scope="module")
def run(random_weights, tmp_path_factory, wrong):
    labels = TRUTH.copy()
    labels[wrong] = (labels[wrong] + 1) % 3
    return search(random_weights, tmp_path_factory.mktemp("classes"), NAMES[labels]).path


def test_wrong_labels_of_both_parts_are_found_with_the_right_suggestion(run, wrong):
    selection = open_run(run)
    found = selection.suspects()
    assert list(found.columns) == COLUMNS
    pictures = pd.read_csv(selection.path / "pictures.csv")
    judged = pictures.loc[wrong, "part"].isin(["train", "validation"])
    assert set(found["part"]) == {"train", "validation"} == set(pictures.loc[wrong[judged], "part"])
    assert set(numbers_of(found)) >= set(wrong[judged])
    first = found.head(judged.sum())
    assert np.isin(numbers_of(first), wrong).mean() >= 0.8
    planted = found[np.isin(numbers_of(found), wrong)]
    assert (planted["suggested"] == NAMES[TRUTH[numbers_of(planted)]]).all()
    assert (planted["label"] != planted["suggested"]).all()
    assert (found["suggested_probability"] > found["label_probability"]).all()
    assert found["score"].is_monotonic_decreasing
    assert (found["part"].to_numpy() == pictures["part"].to_numpy()[numbers_of(found)]).all()


def test_the_few_best_frozen_trials_judge_and_keep_what_they_said(run):
    selection = open_run(run)
    kept = {int(file.parent.name) for file in run.glob("trials/*/out_of_fold.npy")}
    judges = judges_of(selection.trials, selection.metric)
    assert len(selection.trials) > len(judges) == 3
    assert kept == {trial.number for trial in judges}
    n_train = (pd.read_csv(run / "pictures.csv")["part"] == "train").sum()
    for trial in judges:
        said = np.load(run / "trials" / f"{trial.number:04d}" / "out_of_fold.npy")
        assert (said.dtype, said.shape) == (np.float32, (n_train, 3))
        assert np.isfinite(said).all()


def test_fewer_are_the_first_ones_and_looking_writes_nothing(run):
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    selection = open_run(run)
    pd.testing.assert_frame_equal(selection.suspects(3), selection.suspects().head(3))
    assert {file: file.read_bytes() for file in run.rglob("*") if file.is_file()} == before


@pytest.mark.parametrize("n", [0, -1, 2.5, "many", True])
def test_how_many_is_a_number(run, n):
    with pytest.raises(ArgumentError, match="how many suspects are wanted, a whole number above 0"):
        open_run(run).suspects(n)


@pytest.fixture
def copy_of_run(run, tmp_path):
    return shutil.copytree(run, tmp_path / "run")


def test_without_out_of_fold_predictions_the_validation_pictures_are_judged_alone(copy_of_run):
    for file in copy_of_run.glob("trials/*/out_of_fold.npy"):
        file.unlink()
    found = open_run(copy_of_run).suspects()
    assert set(found["part"]) == {"validation"}
    assert len(found) > 0


def test_what_is_read_first_stays_in_sight_where_a_terminal_is_too_narrow_for_all(run):
    found = open_run(run).suspects(5)
    found["name"] = "validation/bee/" + found["name"]
    shown = found.to_string(line_width=80, max_cols=4).splitlines()[0]
    assert shown.split() == ["name", "label", "...", "suggested", "score"]


def test_damaged_predictions_are_named(copy_of_run):
    file = next(copy_of_run.glob("trials/*/out_of_fold.npy"))
    np.save(file, np.zeros((2, 3), np.float32))
    with pytest.raises(RunError, match=r"out_of_fold\.npy' is damaged: its shape must be"):
        open_run(copy_of_run).suspects()


def test_the_command_prints_and_writes_what_the_library_gives(run, tmp_path):
    found = open_run(run).suspects(4)
    printed = command("suspects", run, "--n", "4")
    assert printed.code == 0
    lines = printed.out.splitlines()
    assert lines[0].startswith("judged by trial ")
    texts = ["name", "label", "part", "suggested"]
    places = [COLUMNS.index(name) for name in texts]
    assert [[line.split()[place] for place in places] for line in lines[3:]] == found[texts].to_numpy().tolist()
    written = command("suspects", run, "--n", "4", "--csv", tmp_path / "suspects.csv")
    assert written.code == 0
    again = pd.read_csv(tmp_path / "suspects.csv", dtype={"name": str})
    pd.testing.assert_frame_equal(again, found, check_dtype=False)


def test_similar_pictures_were_looked_for(run):
    found = open_run(run).similar()
    parts = pd.read_csv(run / "pictures.csv")["part"].to_numpy()
    assert list(found.columns) == ["name", "part", "other_name", "other_part", "similarity"]
    assert len(found) > 0, "stripes of one direction and colour look alike"
    assert set(parts[numbers_of(found)]) == {"validation"}
    assert set(parts[found["other_name"].astype(int)]) == {"train"}
    assert found["name"].is_unique


@pytest.mark.slow
def test_several_labels_are_judged_one_by_one(random_weights, tmp_path):
    is_striped = np.column_stack([TRUTH == 0, TRUTH != 1, TRUTH == 2]).astype(np.int64)
    wrong = np.array([5, 80, 150, 205])
    labels = is_striped.copy()
    labels[wrong, 0] = 1 - labels[wrong, 0]
    selection = search(random_weights, tmp_path, labels, task="multilabel")
    found = selection.suspects()
    parts = pd.read_csv(selection.path / "pictures.csv")["part"].to_numpy()
    judged = wrong[parts[wrong] != "test"]
    assert set(numbers_of(found)) >= set(judged)
    shown = found.set_index(numbers_of(found))
    names = {picture: "|".join(str(k) for k in np.flatnonzero(row)) for picture, row in enumerate(is_striped)}
    assert [shown.loc[picture, "suggested"] for picture in judged] == [names[picture] for picture in judged]
    assert (found["label_probability"] < 0.5).all()


@pytest.mark.slow
def test_numbers_far_from_what_is_said_are_judged_in_their_unit(random_weights, tmp_path):
    generator = np.random.default_rng(0)
    numbers = 100.0 * TRUTH + generator.normal(0, 5, len(TRUTH))
    wrong = np.array([5, 80, 150, 205])
    numbers[wrong] += 400
    selection = search(random_weights, tmp_path, numbers, task="regression")
    found = selection.suspects(6)
    parts = pd.read_csv(selection.path / "pictures.csv")["part"].to_numpy()
    judged = wrong[parts[wrong] != "test"]
    assert set(numbers_of(found.head(len(judged)))) == set(judged)
    np.testing.assert_allclose(found["label"].head(len(judged)), numbers[numbers_of(found.head(len(judged)))])
    assert found["label_probability"].isna().all()
    printed = command("suspects", selection.path, "--n", "2")
    assert printed.code == 0
    assert "probability" not in printed.out


def noted(folder, labels, copies, task="classification"):
    """What reads a run that has noted copies among ten pictures, the last of them left out."""
    run = RunFolder(path=folder)
    run.write_facts(FACTS | {"copies": copies})
    parts = ["train", "train", "validation", "test", "train", "test", "train", "validation", "train", "left out"]
    write_pictures(run, [f"{row}.png" for row in range(10)], np.asarray(labels), parts)
    return RunReader(run=run, task=task, classes=("ant", "bee", "cow"), preparation=Preparation(), weights=None)


def test_copies_that_contradict_are_listed_with_those_that_agree(tmp_path):
    labels = [0, 1, 2, 0, 0, 1, 0, 1, 2, -1]
    # The second group agrees, and of the third one the other picture is left out.
    found = contradictions(noted(tmp_path, labels, [[0, 3, 7], [4, 6], [8, 9], [1, 2]]))
    assert found.to_numpy().tolist() == [
        ["0.png", "train", "ant", 0],
        ["3.png", "test", "ant", 0],
        ["7.png", "validation", "bee", 0],
        ["1.png", "train", "bee", 1],
        ["2.png", "validation", "cow", 1],
    ]
    assert list(found.columns) == ["name", "part", "label", "group"]


def test_several_labels_that_contradict_are_listed_in_one_text(tmp_path):
    labels = np.zeros((10, 3), np.int64)
    labels[[1, 5]] = [[1, 0, 1], [1, 0, 0]]
    found = contradictions(noted(tmp_path, labels, [[1, 5], [2, 3]], "multilabel"))
    assert found["label"].tolist() == ["ant|cow", "ant"]


def test_numbers_of_copies_may_differ(tmp_path):
    found = contradictions(noted(tmp_path, np.arange(30.0).reshape(10, 3), [[1, 5]], "regression"))
    assert found.empty


def test_a_run_that_has_not_looked_for_copies_lists_none(tmp_path):
    with pytest.raises(RunError, match="has not looked for copies: its notes tell how much time that takes"):
        contradictions(noted(tmp_path, [0] * 10, None))


def test_copies_of_a_real_run_are_listed(copy_of_run):
    assert open_run(copy_of_run).contradictions().empty
    pictures = pd.read_csv(copy_of_run / "pictures.csv", dtype={"name": str})
    (one, *_), (other, *_) = (np.flatnonzero(pictures["label"] == code).tolist() for code in (0, 1))
    facts = json.loads((copy_of_run / "run.json").read_text(encoding="utf-8"))
    copies = {"copies": [[one, other]]}
    (copy_of_run / "run.json").write_text(json.dumps(facts | copies), encoding="utf-8")
    found = open_run(copy_of_run).contradictions()
    assert found["name"].tolist() == [str(one), str(other)]
    assert found["part"].tolist() == pictures["part"][[one, other]].tolist()
    assert found["label"].tolist() == facts["classes"][:2]

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from autobackbone.data import LEFT_OUT, TEST, DataWarning, survey
from autobackbone.data.surveying import check_parts
from autobackbone.errors import DataError

PICTURES = np.random.default_rng(0).integers(0, 256, (20, 6, 5, 3), np.uint8)
LABELS = ["a", "b"] * 10


def test_a_folder_is_surveyed(tree):
    found = survey(tree)
    assert found.classes == ("ant", "bee", "cat")
    assert found.counts().sum(axis=1).tolist() == [20, 20, 20]
    assert found.counts()["test"].tolist() == [4, 4, 4]
    assert found.picture_size_hint == (12, 10)
    assert found.skipped == ()


def test_arrays_lists_and_datasets_of_the_same_pictures_agree():
    tensors = torch.from_numpy(PICTURES).permute(0, 3, 1, 2)
    forms = [
        (PICTURES, LABELS),
        ([Image.fromarray(picture) for picture in PICTURES], np.array(LABELS)),
        list(zip(PICTURES, LABELS, strict=True)),
        [(tensor, label) for tensor, label in zip(tensors, LABELS, strict=True)],
    ]
    surveys = [survey(form, seed=3) for form in forms]
    for found in surveys[1:]:
        assert found.classes == surveys[0].classes
        assert found.names == surveys[0].names
        assert np.array_equal(found.labels, surveys[0].labels)
        assert np.array_equal(found.parts, surveys[0].parts)
        assert found.picture_size_hint == (6, 5)


def test_rare_classes_are_named_and_left_out():
    labels = ["rare"] * 3 + LABELS[3:]
    with pytest.warns(DataWarning, match=r"1 classes too rare for the split: 'rare' \(3\), left out"):
        found = survey((PICTURES, labels))
    assert found.classes == ("a", "b")
    assert (found.parts[:3] == LEFT_OUT).all()
    assert (found.labels[:3] == -1).all()
    assert [found.classes[code] for code in found.labels[3:]] == labels[3:]
    assert any("'rare' (3), left out" in line for line in found.skipped)
    with pytest.raises(DataError, match=r"'rare'.*rare='leave_out'"):
        survey((PICTURES, labels), rare="error")


def test_a_class_that_too_few_groups_hold_is_left_out_for_that():
    labels, groups = np.repeat(["a", "b", "c"], 20), np.arange(60) % 10
    groups[40:] = 100 + np.arange(20) % 2
    pictures = np.zeros((60, 4, 4), np.uint8)
    with pytest.warns(
        DataWarning, match=r"'c' \(20, in 2 groups for 3 parts\), left out\. .*, or make groups smaller\."
    ):
        found = survey((pictures, labels), groups=groups)
    assert found.classes == ("a", "b")
    few = np.append(labels, ["d"] * 3)
    with pytest.warns(DataWarning, match=r"'c' \(20, in 2 groups for 3 parts\), 'd' \(3\), left out"):
        survey((np.zeros((63, 4, 4), np.uint8), few), groups=np.append(groups, [7, 8, 9]))


def test_too_few_classes_are_refused():
    with pytest.raises(DataError, match=r"at least two classes.*only 'a' was found, with 20 pictures"):
        survey((PICTURES, ["a"] * 20))
    with pytest.raises(DataError, match="fewer than two classes would be left"):
        survey((PICTURES, ["rare"] * 3 + ["a"] * 17))


def test_groups_as_a_function_of_the_path(tree):
    found = survey(tree, groups=lambda name: name.rsplit("/", 1)[1][0])
    for start in "0123456789":
        members = [i for i, name in enumerate(found.names) if name.rsplit("/", 1)[1][0] == start]
        assert len(set(found.parts[members])) == 1


def test_groups_that_leave_nothing_to_train_on_are_refused():
    # Two classes share three groups: one for each part, so one class or the other may lack a part, but never training.
    labels, groups = np.tile([0, 1], 15), np.repeat(["x", "y", "z"], 10)
    found = survey((np.zeros((30, 4, 4), np.uint8), labels), groups=groups)
    assert (found.counts() == 5).all(axis=None)
    counts = found.counts()
    counts.loc[1, "train"] = 0
    with pytest.raises(DataError, match=r"no picture to train on is left of the classes \[1\]"):
        check_parts(counts, found.sizes())
    with pytest.raises(DataError, match="no picture is left in the part test"):
        check_parts(found.counts(), {**found.sizes(), "test": 0})


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (PICTURES, "ndarray came"),
        ({"X": PICTURES}, "a dict is a split: .*the key 'X' came"),
        (7, "int came"),
        (torch.zeros(3, 3, 4, 4), "Tensor came"),
        ((PICTURES, LABELS[:-1]), "20 pictures and 19 labels"),
        ((PICTURES, None), "NoneType came"),
        ((PICTURES.reshape(20, -1), LABELS), r"X.reshape\(n, H, W\)"),
        ((np.zeros((20, 6, 5, 5)), LABELS), r"channels=\(i, j, k\)"),
        ((PICTURES.transpose(0, 3, 1, 2), LABELS), "must come last"),
        ((["a.jpg"] * 20, LABELS), r"X\[0\] is str"),
        ((PICTURES.astype(str), LABELS), "an array of <U3"),
        ((PICTURES, np.full(20, 0.5)), "numbers to predict must differ; all are the same in 'value'"),
        (pd.DataFrame({"path": ["a.jpg"], "label": [1]}), "there is no 'file' among 'path', 'label'"),
        ([], "empty list"),
        ([(PICTURES[0], 0, 1)], "item 0 of list is 3 values"),
        ([PICTURES[0]], "item 0 of list is ndarray"),
    ],
)
def test_what_is_no_dataset_is_refused(dataset, message):
    with pytest.raises(DataError, match=message):
        survey(dataset)


def test_choices_are_checked():
    with pytest.raises(DataError, match="'regression', 'multilabel' or None; 'ranking' came"):
        survey((PICTURES, LABELS), task="ranking")  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"label= names columns .* tuple came with it"):
        survey((PICTURES, LABELS), label="age")
    with pytest.raises(DataError, match="rare is 'leave_out' or 'error'; 'drop'"):
        survey((PICTURES, LABELS), rare="drop")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="resize is"):
        survey((PICTURES, LABELS), resize="zoom")  # type: ignore[arg-type]


def test_channels_let_other_pictures_in():
    found = survey((np.zeros((20, 6, 5, 7), np.uint8), LABELS), channels=(6, 0, 1))
    assert found.preparation.channels == (6, 0, 1)


def test_a_given_split_needs_no_made_one(tmp_path):
    for name in ("train/a/1.png", "train/b/1.png", "val/a/1.png", "val/b/1.png", "test/a/1.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (9, 9)).save(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = survey(tmp_path)
    assert [name for name, part in zip(found.names, found.parts, strict=True) if part == TEST] == ["test/a/1.png"]
    assert found.skipped == ("no pictures in test of the classes ['b']",)


def partly_given(folder, n_train):
    """A listing with 20 test pictures of z, so many to train on, and no validation part."""
    rows = [(part, label) for label in "ab" for part in ["train"] * 10 + ["test"] * 3]
    rows += [("train", "z")] * n_train + [("test", "z")] * 20
    for index in range(len(rows)):
        Image.new("L", (9, 9), index).save(folder / f"{index}.png")
    files = [str(folder / f"{index}.png") for index in range(len(rows))]
    return pd.DataFrame({"file": files, "split": [part for part, _ in rows], "label": [label for _, label in rows]})


@pytest.mark.parametrize("rare", ["leave_out", "error"])
def test_a_given_part_keeps_a_class_with_few_pictures_to_train_on(tmp_path, rare):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = survey(partly_given(tmp_path, 4), rare=rare)
    assert found.counts().loc["z"].tolist() == [4, 0, 20]
    assert "no pictures in validation of the classes ['z']" in found.skipped


def test_a_class_that_a_given_part_loses_is_told_with_what_to_do(tmp_path):
    told = (
        r"1 classes too rare for the split: 'z' \(0 to train on, 20 in given parts\), left out\. What is missing "
        r"\(validation\) is made of those to train on, of which a class needs 5 pictures.* Add some, or give it, too\."
    )
    table = partly_given(tmp_path, 0)
    with pytest.warns(DataWarning, match=told):
        assert survey(table).classes == ("a", "b")
    with pytest.raises(DataError, match=r"Add some, or give it, too, or leave these classes out with rare='leave_out'"):
        survey(table, rare="error")


def test_digits_need_no_words():
    digits = load_digits()
    found = survey((digits.images, digits.target))
    assert found.classes == tuple(range(10))
    assert found.counts().shape == (10, 3)
    with pytest.raises(ValueError, match="read-only"):
        found.parts[0] = 0

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits
from tests.data.conftest import fill, noise
from torch.utils.data import TensorDataset

from autobackbone.data import TEST, TRAIN, VALIDATION, survey
from autobackbone.data.finding import find
from autobackbone.errors import DataError

DIGITS = load_digits()


def arrays(n: int, labels, seed: int = 0):
    return np.stack([noise(seed + index) for index in range(n)]), labels


def test_each_part_may_have_another_form(tmp_path, tree):
    fill(tmp_path / "more" / "bee", 3)
    fill(tmp_path / "more" / "ant", 4)
    table = pd.DataFrame({"file": [str(tree / "cat" / f"{index}.png") for index in range(5)], "label": ["cat"] * 5})
    found = find({"train": tree, "val": tmp_path / "more", "test": table}, None)
    assert found.classes == ("ant", "bee", "cat")
    assert found.given is not None
    assert [int((found.given == part).sum()) for part in (TRAIN, VALIDATION, TEST)] == [60, 7, 5]
    assert found.labels.tolist() == [0] * 20 + [1] * 20 + [2] * 20 + [0] * 4 + [1] * 3 + [2] * 5
    assert found.source.names[0] == "train/ant/0.png"
    assert found.source.names[66] == "val/bee/2.png"
    assert np.array_equal(np.asarray(found.source.read(66)), np.asarray(find(tmp_path / "more", None).source.read(6)))
    assert found.source.picture_size(66) == (12, 10)
    assert found.source.fingerprint(71) == find(tree, None).source.fingerprint(44)
    assert found.source.is_thread_safe


def test_the_split_is_kept_and_what_is_missing_is_made_of_the_training_part():
    both = (DIGITS.images, DIGITS.target)
    surveyed = survey({"train": both, "test": (DIGITS.images[:50], DIGITS.target[:50])})
    assert surveyed.sizes() == {"train": 1437, "validation": 360, "test": 50}
    assert surveyed.made == ("validation",)
    assert surveyed.parts[-50:].tolist() == [TEST] * 50


def test_validation_may_be_called_as_folders_are_and_parts_come_in_any_order():
    found = find({"Test": arrays(2, ["a", "b"]), "validation": arrays(1, ["b"]), "TRAIN": arrays(2, ["b", "a"])}, None)
    assert found.given is not None
    # However they are ordered: run.json, too, orders them by name.
    assert found.given.tolist() == [TRAIN, TRAIN, VALIDATION, TEST, TEST]
    assert found.labels.tolist() == [1, 0, 1, 0, 1]


def test_the_task_is_that_of_the_training_part():
    found = find({"val": arrays(2, [1, 2]), "train": arrays(3, [0.5, 1.5, 2.0])}, None)
    assert found.task == "regression"
    assert found.labels.ravel().tolist() == [0.5, 1.5, 2.0, 1, 2]


def test_several_labels_a_picture_are_joined_by_name():
    found = find({"train": arrays(2, [["a"], ["b", "c"]]), "val": arrays(2, [["d", "a"], []])}, None)
    assert found.classes == ("a", "b", "c", "d")
    assert found.labels.tolist() == [[1, 0, 0, 0], [0, 1, 1, 0], [1, 0, 0, 1], [0, 0, 0, 0]]


def test_groups_of_every_table_are_kept_and_columns_are_found():
    table = pd.DataFrame(
        {"file": list("abc"), "label": ["x", "y", "x"], "group": [1, 2, 1], "day": [3, 1, 2]},
    )
    found = find({"train": table, "val": table}, None)
    assert found.groups is not None
    assert found.groups.tolist() == [1, 2, 1, 1, 2, 1]
    assert found.column is not None
    assert found.column("day") == [3, 1, 2, 3, 1, 2]
    with pytest.raises(DataError, match="every part has groups, or none"):
        find({"train": table, "val": table.drop(columns="group")}, None)


def test_a_group_by_a_column_that_lies_in_two_parts_is_told():
    table = pd.DataFrame({"file": list("abcdef"), "label": list("xyxyxy"), "who": [1, 2, 3, 1, 2, 3]})
    surveyed = survey({"train": table, "val": table, "test": table}, groups="who")
    assert any("3 groups lie in more than one given part" in line for line in surveyed.skipped)


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"train": 1, "dev": 2}, r"the key 'dev' came"),
        ({1: 1}, r"the key 1 came"),
        ({"val": 1, "validation": 1}, r"'val' and 'validation' are the same part"),
        ({"val": 1}, r"there is no 'train' among \['val'\]"),
        ({}, r"there is no 'train'"),
        ({"train": {"train": 1}}, r"'train' is a dict itself"),
        (
            {"train": (np.zeros((0, 8, 8)), []), "test": arrays(1, [5])},
            r"'train' has no picture: there is nothing",
        ),
        ({"train": 7}, r"the part 'train': a dataset is .* int came"),
        ({"train": arrays(2, [0, 1]), "test": arrays(1, [5])}, r"only in 'test': 5\. 'train' has 0, 1"),
        ({"train": arrays(2, [0, 1]), "test": arrays(1, [0.5])}, r"the part 'test': labels are classes; 0\.5 came"),
    ],
)
def test_what_does_not_go_together_is_told(splits, message):
    with pytest.raises(DataError, match=message):
        find(splits, None)


def test_a_part_with_a_split_of_its_own_is_refused(tmp_path):
    for part in ("train", "val"):
        for name in ("ant", "bee"):
            fill(tmp_path / part / name, 2)
    with pytest.raises(DataError, match=r"'train' brings a split of its own"):
        find({"train": tmp_path}, None)


def test_a_source_that_is_not_thread_safe_makes_all_so():
    import torch

    dataset = TensorDataset(torch.zeros(2, 3, 4, 4), torch.tensor([0, 1]))
    assert not find({"train": arrays(2, [0, 1]), "test": dataset}, None).source.is_thread_safe

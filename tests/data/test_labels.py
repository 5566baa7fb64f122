from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from autobackbone.data.labels import as_labelled
from autobackbone.errors import DataError

NAMES = st.lists(st.sets(st.sampled_from(["ant", "bee", "cat"])), min_size=1).filter(any)


@given(NAMES)
def test_lists_of_names_and_their_matrix_say_the_same(entries):
    read = as_labelled([sorted(entry) for entry in entries])
    assert read.task == "multilabel"
    assert [{read.classes[k] for k in np.flatnonzero(row)} for row in read.labels] == entries
    again = as_labelled(read.labels, "multilabel", [str(name) for name in read.classes])
    assert (again.labels == read.labels).all()
    assert again.classes == read.classes


@pytest.mark.parametrize(
    ("labels", "task", "classes"),
    [
        ([1, 0, 1], "classification", (0, 1)),
        (["a", "b"], "classification", ("a", "b")),
        ([0.5, 1.0], "regression", ("value",)),
        (np.array([0.5, 1.0], np.float32)[:, None], "regression", ("value",)),
        ([torch.tensor([0.5, 2.0]), torch.tensor([1.5, 1.0])], "regression", (0, 1)),
        (torch.tensor([[3, 1], [2, 7]]), "regression", (0, 1)),
        (np.array([[1, 1], [0, 0]]), "multilabel", (0, 1)),
        (pd.DataFrame({"cat": [1, 1], "dog": [0, 1]}), "multilabel", ("cat", "dog")),
        ([[0, 2], [1]], "multilabel", (0, 1, 2)),
        ([{"a"}, set()], "multilabel", ("a",)),
        (np.eye(3)[[2, 0]], "classification", (0, 2)),
        (pd.DataFrame({"cat": [1, 0], "dog": [0, 1]}), "classification", ("cat", "dog")),
        (pd.Series(["a", "b"], dtype="category"), "classification", ("a", "b")),
    ],
)
def test_the_task_is_read_from_the_labels(labels, task, classes):
    read = as_labelled(labels)
    assert (read.task, read.classes) == (task, classes)


def test_a_said_task_decides_what_numbers_are():
    assert as_labelled([1, 5, 9], "regression").labels.tolist() == [[1.0], [5.0], [9.0]]
    assert as_labelled(np.eye(2), "multilabel").labels.tolist() == [[1, 0], [0, 1]]
    assert as_labelled([[0, 1], [1, 0]], "regression").labels.dtype == np.float64
    assert as_labelled([[1, 0], [0, 1]], "classification").labels.tolist() == [0, 1]
    assert as_labelled(["cat|dog", "", "dog, ant"], "multilabel").labels.tolist() == [[0, 1, 1], [0, 0, 0], [1, 0, 1]]
    assert as_labelled(["a", "a;b"]).classes == ("a", "a;b")


@pytest.mark.parametrize(
    ("labels", "task", "message"),
    [
        ([0.5, None], None, "1 are missing.*the first at 1"),
        ([0.5, float("nan")], None, "1 are missing"),
        ([[0.5, 1.0], [np.nan, 1.0]], None, "1 are missing.*first at 1"),
        ([0.5, 1.0], "classification", "looks like a measurement.*task='regression'"),
        (["a", "b"], "regression", "'a' came"),
        ([1, 0], "multilabel", "or texts such as 'cat|dog'; one number for each came"),
        (np.array([[0, 2.5], [1, 0]]), "multilabel", "a 1 where a label is there, else 0; 2.5 came"),
        ([[1, 1], [1, 0]], "classification", "a single 1 in each row; row 0 has 2"),
        ([["a"], "b"], None, "a list of names, which may be empty; 'b' came"),
        ([[], []], None, "every picture came with none"),
        (np.zeros((2, 2, 2)), None, r"an array of shape \(2, 2, 2\) came"),
        ([1], "ranking", "'ranking' came"),
    ],
)
def test_labels_that_are_not_of_the_task_are_refused(labels, task, message):
    with pytest.raises(DataError, match=message):
        as_labelled(labels, task)


@pytest.mark.parametrize(("offset", "is_told"), [(0.0, False), (100.0, False), (1e12, True), (-1e7, True)])
def test_numbers_that_single_precision_cannot_tell_apart_are_told(offset, is_told):
    numbers = offset + np.linspace(0, 1, 40)
    if is_told:
        with pytest.raises(DataError, match=r"lie so close together for their size .* Subtract a constant"):
            as_labelled(numbers, "regression")
    else:
        assert as_labelled(numbers, "regression").labels.shape == (40, 1)


@pytest.mark.parametrize(
    ("labels", "task", "message"),
    [
        ([0.5, 1.5, float("inf")], None, "numbers to predict are finite; inf came, in row 2"),
        ([0.5, -np.inf, np.inf], "regression", "-inf came, in row 1"),
        (pd.DataFrame({"a": [1.5, 2], "b": [3, np.inf]}), None, "inf came, in row 1 of column 'b'"),
        ([[0.5, 1.0], [np.inf, np.nan]], None, "1 are missing.*the first at 1"),
        ([[0.5, 1.0], [-np.inf, np.inf]], None, "-inf came, in row 1 of column 0"),
        (["0.1", "0.2", "wet", "0.4"], "regression", "are numbers; 'wet' came, in row 2"),
        (["0.1", "0.2", "inf"], "regression", "inf came, in row 2"),
        (pd.DataFrame({"a": [1.5, 2], "b": ["3", "x"]}), None, "'x' came, in row 1 of column 'b'"),
        (np.array([["1", "2"], ["3", "4,5"]], dtype=object), "regression", "'4,5' came, in row 1 of column 1"),
        ([0.5, pd.NA, 1.5], "regression", "1 are missing.*the first at 1"),
        ([0.5, [1], 1.5], "regression", "entries of different kinds came"),
        ([10**400, 0.5], "regression", "in row 0"),
        ([0.5, "wet", 1.5, 2.5], None, r"1 texts and 3 others came, the first of the rarer kind 'wet' in row 1"),
        (["a", "b", 3, "a"], None, r"3 texts and 1 others came, the first of the rarer kind 3 in row 2"),
        ([1, 2, 2, 0.5], "classification", "0.5 came, in row 3, which looks like a measurement"),
        ([1, 2, 2, np.inf], "classification", "inf of type float came, in row 3"),
    ],
)
def test_what_is_wrong_is_named_with_its_row(labels, task, message):
    with pytest.raises(DataError, match=message):
        as_labelled(labels, task)


@pytest.mark.parametrize("size", [1e31, 1e150, 1.7e308, 1e-31, 1e-150])
def test_numbers_that_single_precision_cannot_hold_are_told(size):
    with pytest.raises(DataError, match=r"numbers of 'value' reach up to .* Divide or multiply them by a constant"):
        as_labelled(np.array([-size, 0.0, size / 3, size]), "regression")
    assert as_labelled(np.array([0.0, 1e29, 2e29]), "regression").task == "regression"

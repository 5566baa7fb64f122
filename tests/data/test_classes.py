from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from autobackbone.data.classes import encode_labels
from autobackbone.errors import DataError

KINDS = [list, tuple, np.array, pd.Series, lambda y: np.array(y)[:, None]]


@given(st.lists(st.integers(-5, 5), min_size=1) | st.lists(st.text(max_size=3), min_size=1), st.sampled_from(KINDS))
def test_codes_name_the_label_and_classes_are_sorted(labels, kind):
    if kind not in (list, tuple) and any("\0" in str(label) for label in labels):
        return  # numpy cuts a trailing NUL off by itself
    classes, codes = encode_labels(kind(labels))
    assert [classes[code] for code in codes] == labels
    assert list(classes) == sorted(set(labels))
    assert all(type(name) in (int, str) for name in classes)


@pytest.mark.parametrize(
    "labels",
    [
        [1.0, 0.0, 1.0],
        [True, False, True],
        np.array([1, 0, 1], np.uint8),
        np.array([True, False, True]),
        [np.float32(1), np.int8(0), 1],
        [torch.tensor(1), torch.tensor(0), torch.tensor(1)],
        torch.tensor([1, 0, 1]),
    ],
)
def test_every_kind_of_number_is_an_int_class(labels):
    classes, codes = encode_labels(labels)
    assert classes == (0, 1)
    assert {type(name) for name in classes} == {int}
    assert codes.tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0.5, 1.0], "0.5 came.*say task=.regression"),
        ([1, "a"], "all numbers or all texts"),
        ([1, None], "1 are missing.*the first at 1"),
        ([1.0, float("nan")], "missing"),
        (["a", None], "missing"),
        ([[0, 1], [1, 0]], r"shape \(n,\); \(2, 2\) came"),
        (np.eye(3), r"shape \(n,\); \(3, 3\) came"),
        ([{"a"}, {"b"}], "lists or other objects"),
        ([b"a", b"b"], "of type bytes"),
        ([float("inf"), 1.0], "inf of type float"),
    ],
)
def test_labels_that_are_no_classes_are_refused(labels, message):
    with pytest.raises(DataError, match=message):
        encode_labels(labels)

from __future__ import annotations

import datetime as dt

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autobackbone.data import TEST, TRAIN, VALIDATION, survey
from autobackbone.data.chronology import encode_times, split_by_time
from autobackbone.errors import DataError

PICTURES, LABELS = np.zeros((50, 4, 4), np.uint8), np.arange(50) % 2


@given(st.lists(st.integers(0, 30), min_size=20, max_size=80))
def test_nothing_is_trained_on_that_is_later_than_what_scores(times):
    try:
        ranks = encode_times(times, tuple(map(str, range(len(times)))))
        parts = split_by_time(ranks).parts
    except DataError:
        return  # too few different times
    order = [np.asarray(times)[parts == part] for part in (TRAIN, VALIDATION, TEST)]
    assert order[0].max() < order[1].min()
    assert order[1].max() < order[2].min()


@pytest.mark.parametrize(
    "times",
    [
        np.arange(50),
        [dt.date(2024, 1, 1) + dt.timedelta(days=k) for k in range(50)],
        pd.date_range("2024-01-01", periods=50),
        [f"2024-{1 + k // 5:02d}-{1 + k % 5:02d}" for k in range(50)],
        int,
    ],
)
def test_times_come_in_any_form_that_can_be_sorted(times):
    found = survey((PICTURES, LABELS), times=times)
    assert (found.parts == np.repeat([TRAIN, VALIDATION, TEST], [32, 8, 10])).all()
    assert "split by time: the first 32 to train, then 8, then 10" in found.skipped


def test_a_table_names_a_column(tmp_path):
    table = pd.DataFrame({"file": [f"{k}.png" for k in range(50)], "label": LABELS, "taken": np.arange(50)[::-1]})
    table.to_csv(tmp_path / "labels.csv", index=False)
    for dataset in (table, tmp_path / "labels.csv"):
        assert (survey(dataset, times="taken").parts[:10] == TEST).all()
    with pytest.raises(DataError, match="no column 'day'; it has 'file', 'label', 'taken'"):
        survey(table, times="day")
    with pytest.raises(DataError, match="a split of the dataset's own"):
        survey(table.assign(split="train"), times="taken")


@pytest.mark.parametrize(
    ("times", "message"),
    [
        (np.arange(49), "times has one entry a picture; 49 entries and 50"),
        ([None, *range(49)], "picture '0' has None"),
        (np.zeros(50), "all are 0.0"),
        (np.arange(50) // 25, "the 2 different times leave one empty"),
        ([*range(49), "late"], "numbers, dates or texts that can be sorted"),
        ("taken", "is for tables alone"),
    ],
)
def test_times_that_make_no_split_are_refused(times, message):
    with pytest.raises(DataError, match=message):
        survey((PICTURES, LABELS), times=times)


def test_times_and_groups_do_not_go_together():
    with pytest.raises(DataError, match="cannot go with groups"):
        survey((PICTURES, LABELS), times=np.arange(50), groups=np.arange(50) // 2)

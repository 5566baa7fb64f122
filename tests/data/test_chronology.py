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
        [f"2024:05:{1 + k // 5:02d} {1 + k % 5:02d}:00:00" for k in range(50)],  # as cameras write it
        [dt.date(2024, 1, 1), *(f"2024-02-{1 + k // 5:02d} 0{k % 5}:00" for k in range(49))],
        [f" {k + 1} " for k in range(50)],  # as texts 10 is before 9
        int,
        str,
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
        ([*range(49), "late"], "'late' of picture '49' is not a number as the others are, the only one of 50 pictures"),
        ([*range(48), "  ", ""], "picture '48' has None, NaN or an empty cell, one of 2 such among 50 pictures"),
        (["01.02.2024", "31.01.2024"] * 25, "'01.02.2024' of picture '0' is neither a number nor a date, one of 50"),
        ([*range(49), dt.date(2024, 1, 1)], "of several kinds that cannot be sorted"),
        ("taken", "is for tables alone"),
    ],
)
def test_times_that_make_no_split_are_refused(times, message):
    with pytest.raises(DataError, match=message):
        survey((PICTURES, LABELS), times=times)


@given(st.lists(st.integers(6 * 10**14, 4 * 10**15), min_size=2, max_size=20, unique=True))
def test_dates_that_are_written_have_the_order_of_those_that_are_meant(microseconds):
    days = pd.to_datetime(microseconds, unit="us").to_pydatetime().tolist()
    names = tuple(map(str, range(len(days))))
    forms = ("{}", "{:%Y:%m:%d %H:%M:%S.%f}", "{:%Y%m%dT%H%M%S.%f}", "{:%Y/%m/%d %H:%M:%S.%f}")
    written = [forms[k % len(forms)].format(day) for k, day in enumerate(days)]
    written[0] = str(days[0].replace(tzinfo=dt.UTC).astimezone(dt.timezone(dt.timedelta(hours=9))))
    assert encode_times(written, names).tolist() == encode_times(days, names).tolist()


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (
            "soon",
            "column 't': .*'soon' of picture '7.png' is not a date as the others are, the only one of 50 pictures",
        ),
        ("", "column 't': every picture needs a time; picture '7.png' has None, NaN or an empty cell, the only one"),
        (" ", "column 't': every picture needs a time; picture '7.png'"),
        ("17", "'17' of picture '7.png' is not a date as the others are"),
    ],
)
def test_a_cell_that_is_no_time_is_named(tmp_path, cell, message):
    days = [f"{dt.date(2024, 1, 1) + dt.timedelta(days=k)}" for k in range(50)]
    days[7] = cell
    table = pd.DataFrame({"file": [f"{k}.png" for k in range(50)], "label": LABELS, "t": days})
    table.to_csv(tmp_path / "x.csv", index=False)
    for dataset in (table, tmp_path / "x.csv"):
        with pytest.raises(DataError, match=message):
            survey(dataset, times="t")


def test_times_and_groups_do_not_go_together():
    with pytest.raises(DataError, match="cannot go with groups"):
        survey((PICTURES, LABELS), times=np.arange(50), groups=np.arange(50) // 2)


def test_times_do_not_go_with_a_column_of_groups_which_is_named():
    table = pd.DataFrame({"file": [f"{k}.png" for k in range(50)], "label": LABELS, "t": range(50)})
    grouped = table.assign(group=np.arange(50) // 2)
    with pytest.raises(
        DataError, match=r"the table's column 'group' holds. Rename or remove that column, or leave times"
    ):
        survey(grouped, times="t")
    with pytest.raises(DataError, match=r"cannot go with groups. Leave one of them out"):
        survey(grouped, times="t", groups="group")
    assert (survey(grouped.rename(columns={"group": "house"}), times="t").parts == survey(table, times="t").parts).all()

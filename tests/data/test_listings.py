from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from autobackbone.data import TEST, TRAIN, VALIDATION, decode, survey
from autobackbone.errors import DataError


@pytest.fixture
def table(tree):
    """60 pictures with a number, two labels that are there or not, a split and a group."""
    names = [f"{folder.name}/{index}.png" for folder in sorted(tree.iterdir()) for index in range(20)]
    n = np.arange(len(names))
    return pd.DataFrame(
        {"file": names, "size": n / 7, "red": n % 2, "round": (n % 3 == 0).astype(int), "kind": n // 20}
    )


def test_a_csv_file_reads_paths_beside_it(tree, table, tmp_path):
    table.to_csv(tree / "labels.csv", index=False)
    found = survey(tree / "labels.csv", label="size")
    assert (found.task, found.classes) == ("regression", ("size",))
    assert found.labels[:, 0].tolist() == pytest.approx(table["size"].tolist())
    bundle = decode(found, [8], cache_dir=tmp_path / "cache")
    assert bundle.pixels(8).any(axis=(1, 2, 3)).all()
    assert bundle.task == "regression"


def test_a_frame_reads_paths_beside_the_working_directory(tree, table, monkeypatch):
    monkeypatch.chdir(tree)
    found = survey(table, label=["red", "round"])
    assert (found.task, found.classes) == ("multilabel", ("red", "round"))
    assert found.source.picture_size(0) == (12, 10)
    assert survey(table, label="kind").task == "classification"
    assert survey(table, label=["size", "kind"]).labels.shape == (60, 2)


def test_a_split_column_is_kept_and_a_group_column_is_kept_whole(table):
    parts = np.resize(["train", "val", " Test "], len(table))
    found = survey(table.assign(split=parts), label="kind")
    assert (found.parts == np.resize([TRAIN, VALIDATION, TEST], len(table))).all()
    grouped = survey(table.assign(group=np.arange(60) // 3), label="size")
    assert all(len(set(grouped.parts[3 * k : 3 * k + 3])) == 1 for k in range(20))
    assert set(grouped.parts) == {TRAIN, VALIDATION, TEST}
    named = survey(table, label="size", groups=np.arange(60) // 4)
    assert all(len(set(named.parts[4 * k : 4 * k + 4])) == 1 for k in range(15))


def test_groups_are_a_column_by_its_name(tree, table):
    houses = table.assign(house=np.arange(60) // 4, group=np.arange(60) // 3)
    houses.to_csv(tree / "labels.csv", index=False)
    for dataset in (houses, tree / "labels.csv"):
        for name, size in (("house", 4), ("group", 3)):
            found = survey(dataset, label="size", groups=name)
            assert (found.groups == np.arange(60) // size).all()
            assert (found.parts == survey(table, label="size", groups=np.arange(60) // size).parts).all()
    with pytest.raises(DataError, match="no column 'room'; it has 'file'"):
        survey(houses, label="size", groups="room")
    with pytest.raises(DataError, match="column 'house': every picture needs a group; picture 'ant/5"):
        survey(houses.assign(house=houses["house"].where(houses.index != 5)), label="size", groups="house")
    with pytest.raises(DataError, match="groups has one entry a picture; the name of a column, 'group', is for tables"):
        survey((np.zeros((60, 4, 4), np.uint8), np.arange(60) % 2), groups="group")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.rename(columns={"file": "path"}), "there is no 'file' among 'path', 'size'"),
        (lambda t: t.drop(columns="size"), "there is no 'size'"),
        (lambda t: pd.concat([t, t.head(2)]), "2 are listed again, such as 'ant/0.png'"),
        (lambda t: t.assign(size=t["size"].where(t.index != 3)), "column 'size': .*1 are missing.*the first at 3"),
        (lambda t: t.assign(split="holdout"), "says train, val.*'holdout' came"),
        (lambda t: t.assign(split="test"), "no row that says train"),
        (lambda t: t.assign(group=[None] * 60), "every picture needs a group; 60 are missing"),
        (lambda t: t.assign(file=t["file"].where(t.index != 5)), "row 5 has none"),
        (lambda t: t.head(0), "without rows"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(table, change, message):
    with pytest.raises(DataError, match=message):
        survey(change(table), label="size")


def test_a_file_that_is_no_table_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"a CSV file with paths and labels; nothing is at '.*labels.csv'"):
        survey(tmp_path / "labels.csv")
    (tmp_path / "labels.csv").write_bytes(b"")
    with pytest.raises(DataError, match="cannot be read as CSV"):
        survey(tmp_path / "labels.csv")


def test_a_folder_has_classes_and_no_columns(tree):
    with pytest.raises(DataError, match="columns 'file' and 'label'"):
        survey(tree, task="regression")
    with pytest.raises(DataError, match="label= names columns"):
        survey(tree, label="size")


@pytest.mark.parametrize(("header", "cells"), [("file,size", "0,5"), ("file,label", "c/0.png,a")], ids=str)
def test_rows_with_more_cells_than_the_header_are_not_read_shifted(tmp_path, header, cells):
    rows = "\n".join(f"{index}.png,{cells}" for index in range(30))
    (tmp_path / "labels.csv").write_text(f"{header}\n{rows}\n")
    with pytest.raises(DataError, match="more cells than its header"):
        survey(tmp_path / "labels.csv", label=header.split(",")[1])


def test_spaces_around_a_name_make_no_other_class(table):
    names = np.resize(["cat", " cat", "dog ", "dog"], len(table))
    assert survey(table.assign(label=names)).classes == ("cat", "dog")


def test_a_cell_that_is_no_number_is_named_with_its_row_and_column(table, tmp_path):
    cells = [f"{value}" for value in table["size"]]
    cells[7] = "about 2"
    table.assign(size=cells).to_csv(tmp_path / "labels.csv", index=False)
    with pytest.raises(DataError, match=r"column 'size': .*'about 2' came, in row 7"):
        survey(tmp_path / "labels.csv", label="size", task="regression")
    with pytest.raises(DataError, match=r"columns 'red', 'size': .*'about 2' came, in row 7 of column 'size'"):
        survey(tmp_path / "labels.csv", label=["red", "size"])
    infinite = table.assign(size=table["size"].where(table.index != 9, np.inf))
    with pytest.raises(DataError, match="column 'size': numbers to predict are finite; inf came, in row 9"):
        survey(infinite, label="size")

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from autobackbone.errors import RunError
from autobackbone.runfolder import RunFolder
from autobackbone.screening import Features
from autobackbone.search import similar
from autobackbone.search.similar import note_similar, read_similar

N_TRAIN, N_OTHERS = 60, 10


@pytest.fixture
def told():
    return []


@pytest.fixture
def shop(tmp_path, told):
    """What is asked of a workshop, around a real run folder."""
    return SimpleNamespace(
        run=RunFolder(path=tmp_path),
        bundle=SimpleNamespace(names=[f"{i}.png" for i in range(N_TRAIN + N_OTHERS)], copies=None),
        clock=SimpleNamespace(left_s=lambda: 1e6),
        reporter=SimpleNamespace(say=told.append),
    )


def reached():
    """Features in a mixed order; of the validation pictures 3.png is nearly 20.png and 5.png nearly 40.png."""
    generator = np.random.default_rng(0)
    train = generator.normal(size=(N_TRAIN, 64)).astype(np.float32)
    others = generator.normal(size=(N_OTHERS, 64)).astype(np.float32)
    train_indices = generator.permutation(np.arange(N_OTHERS, N_OTHERS + N_TRAIN))
    other_indices = generator.permutation(N_OTHERS)
    for other, picture, noise in ((3, 20, 0.01), (5, 40, 0.2)):
        near = train[train_indices == picture] + noise * generator.normal(size=64)
        others[other_indices == other] = near
    return Features(train=train, train_indices=train_indices, others=others, other_indices=other_indices, seconds=1.0)


def test_pairs_are_told_and_kept_by_name_the_most_similar_first(shop, told):
    note_similar(shop, reached())
    table = read_similar(shop.run)
    assert table[["name", "part", "other_name", "other_part"]].to_numpy().tolist() == [
        ["3.png", "validation", "20.png", "train"],
        ["5.png", "validation", "40.png", "train"],
    ]
    assert table["similarity"].is_monotonic_decreasing
    assert (table["similarity"] > 0.5).all()
    (line,) = told
    assert line.startswith("2 of 10 validation pictures look much like a training picture")
    assert "such as '3.png' and '20.png'" in line
    assert "give groups=" in line


def test_known_copies_are_not_told_again(shop, told):
    codes = np.arange(N_TRAIN + N_OTHERS)
    codes[20] = codes[3]
    shop.bundle.copies = codes
    note_similar(shop, reached())
    assert read_similar(shop.run)["name"].tolist() == ["5.png"]
    assert told[0].startswith("1 of 10 validation pictures looks much like")


@pytest.mark.parametrize(("n", "is_doubted"), [(10, True), (9, True), (8, False)])
def test_where_nearly_all_are_similar_that_says_little(n, is_doubted):
    table = pd.DataFrame([("3.png", "validation", "20.png", "train", 0.74)] * n, columns=list(similar._COLUMNS))
    line = similar.similar_line(table, 10)
    assert ("so many say little" in line) == is_doubted
    assert ("scores flatter" in line) != is_doubted
    assert "groups=" in line


def test_none_are_an_empty_table_and_no_line(shop, told):
    found = reached()
    none = Features(
        train=found.train, train_indices=found.train_indices, others=-found.train[:1], other_indices=np.array([0]),
        seconds=1.0,
    )  # fmt: skip
    note_similar(shop, none)
    assert len(read_similar(shop.run)) == 0
    assert told == []


def test_it_is_looked_for_once_and_only_where_there_is_time_for_it(shop, told, monkeypatch):
    shop.clock.left_s = lambda: 1e-9
    note_similar(shop, reached())
    with pytest.raises(RunError, match="has not looked for similar pictures: it does so with the first network"):
        read_similar(shop.run)
    shop.clock.left_s = lambda: 1e6
    monkeypatch.setattr(similar, "_MOST_PICTURES", N_TRAIN - 1)
    note_similar(shop, reached())
    assert not shop.run.similar_file.exists()
    monkeypatch.setattr(similar, "_MOST_PICTURES", N_TRAIN)
    note_similar(shop, reached())
    assert len(told) == 1
    note_similar(shop, reached())
    assert len(told) == 1


def test_where_memory_is_too_small_the_search_goes_on(shop, told, monkeypatch):
    def full(*_):
        raise MemoryError

    monkeypatch.setattr(similar, "nearest_of", full)
    note_similar(shop, reached())
    assert told == ["similar pictures were not looked for: out of memory"]


@pytest.mark.parametrize("content", ["", "name\n1\n", "name,part,other_name,other_part,similarity\na,b,c,d,much\n"])
def test_a_damaged_table_is_named(shop, content):
    shop.run.similar_file.write_text(content)
    with pytest.raises(RunError, match=r"similar\.csv' cannot be read .*Put it back"):
        read_similar(shop.run)


def test_names_are_read_as_they_are(shop):
    shop.run.similar_file.write_text("name,part,other_name,other_part,similarity\nNA,validation,01,train,0.9\n")
    assert read_similar(shop.run).iloc[0].tolist() == ["NA", "validation", "01", "train", 0.9]

"""Two runs of which it is known where they differ: copies of one, the predictions of its chosen trial changed."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from tests.conftest import TINY, command, make_pictures

from autobackbone import Budget, compare, open_run, select_backbone
from autobackbone.errors import ArgumentError
from autobackbone.metrics import paired_interval, score

X, Y = make_pictures(n_per_class=70)
X = (X + np.random.default_rng(1).normal(0, 200, X.shape)).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def run(random_weights, tmp_path_factory):
    folder = tmp_path_factory.mktemp("compared")
    return select_backbone(
        (X, np.array(["ant", "bee", "cow"])[Y]),
        Budget(n_trials=0),
        backbones=TINY,
        image_sizes=[32, 40],
        weights=random_weights(TINY),
        cache_dir=folder / "cache",
        run_dir=folder / "run",
        space={"n_unfrozen": 0, "n_blocks_kept": None},
        progress=False,
    ).path


@pytest.fixture
def other(run, tmp_path):
    return open_run(shutil.copytree(run, tmp_path / "other"))


def edit(selection, **facts):
    file = selection.path / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | facts))


def rename(selection, name="picture {}"):
    """Pictures have names, as files do, and not numbers."""
    table = pd.read_csv(selection.path / "pictures.csv")
    table["name"] = [name.format(number) for number in range(len(table))]
    table.to_csv(selection.path / "pictures.csv", index=False)


def worsen(selection, seed=0):
    """A fifth of the test pictures of the chosen trial is told wrong."""
    file = selection.path / "trials" / f"{selection.best.number:04d}" / "test.npy"
    said = np.load(file)
    rows = np.random.default_rng(seed).choice(len(said), len(said) // 5, replace=False)
    said[rows] = np.roll(said[rows], 1, axis=1)
    np.save(file, said)


def test_a_run_against_itself_differs_by_nothing(run):
    found = compare(run, run)
    assert found.paired.part == "test"
    assert found.paired.n_shared == int((pd.read_csv(run / "pictures.csv")["part"] == "test").sum())
    assert found.paired.gain == 0
    assert found.paired.low < 0 < found.paired.high
    assert found.names == (str(run), str(run))
    assert found.notes == ()
    assert "no more than chance may do" in found.sentence


def test_a_score_of_a_part_of_the_pictures_says_so(run):
    found = compare(run, run)
    extras = {"scored_share": 6 / 39, "n_validation": 39}
    part = [replace(one, extras={**one.extras, **extras}, fold_score=None) for one in found.trials[0]]
    assert "on 6 of 39 pictures" not in str(found)
    assert "on 6 of 39 pictures, test" in str(replace(found, trials=(tuple(part), found.trials[1])))


def test_the_difference_is_paired_over_the_same_pictures_and_turns_with_the_order(run, other):
    worsen(other)
    forth, back = compare(run, other), compare(other, run)
    labels = other._reader.labels("test")
    before, after = (one._reader.predictions(one.best, "test") for one in (open_run(run), other))
    low, high = paired_interval(forth.metric, before, after, labels)
    assert forth.paired.gain == pytest.approx(score(forth.metric, after, labels) - score(forth.metric, before, labels))
    assert (forth.paired.low, forth.paired.high) == pytest.approx((-high, -low))
    assert back.paired.gain == pytest.approx(-forth.paired.gain)
    assert f"run: {len(forth.trials[0])} trials" in str(forth)
    assert forth.sentence in str(forth)
    assert repr(forth) == f"<Comparison of accuracy: {forth.sentence}>"


def test_where_data_differ_pictures_count_that_both_kept_apart(run, other, tmp_path):
    first = open_run(shutil.copytree(run, tmp_path / "first"))
    for one in (first, other):
        rename(one)
    table = pd.read_csv(other.path / "pictures.csv")
    tested = np.flatnonzero(table["part"] == "test")
    table.loc[tested[:5], "name"] = [f"another {i}" for i in range(5)]
    table.loc[tested[5:7], "label"] = (table.loc[tested[5:7], "label"] + 1) % 3
    table.to_csv(other.path / "pictures.csv", index=False)
    edit(other, data_digest="another")
    found = compare(first.path, other.path)
    assert found.paired.n_shared == len(tested) - 7
    said = first._reader.predictions(first.best, "test")[7:]
    assert found.paired.scores[0] == pytest.approx(score(found.metric, said, first._reader.labels("test")[7:]))
    assert "pictures are taken for the same where part, name and label are" in str(found)
    assert "2 pictures with another label" in str(found)
    assert "7 test pictures of the larger part are not in both runs" in str(found)


def test_where_no_picture_is_shared_it_says_so(run, other):
    edit(other, data_digest="another")
    found = compare(run, other.path)
    assert found.paired is None
    assert "pictures have numbers for names" in str(found)
    rename(other)
    assert "no test picture is in both runs" in str(compare(other.path, run))


def test_without_a_test_part_validation_pictures_count_and_it_says_what_they_are_worth(run, other):
    for file in other.path.glob("trials/*/test.npy"):
        file.unlink()
    found = compare(run, other)
    assert found.paired.part == "validation"
    assert "validation pictures have chosen both trials, and flatter both" in found.notes
    begun = open_run(other.path)
    begun.trials = [replace(one, state="failed", score=None) for one in begun.trials]
    nothing = compare(run, begun)
    assert nothing.paired is None
    assert f"nothing is chosen in {str(other.path)!r}: no trial has finished" in str(nothing)
    assert nothing.plot().axes[0].get_legend().get_texts()[1].get_text().endswith("(no trial has finished)")


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"classes": ["ant", "bee", "dog"]}, "two runs of the same classes: .*'cow'.* and .*'dog'.* came"),
        ({"metric": "log_loss"}, "two runs of the same metric: 'accuracy' and 'log_loss' came"),
    ],
)
def test_runs_that_have_too_little_in_common_are_refused(run, other, facts, message):
    edit(other, **facts)
    with pytest.raises(ArgumentError, match=message):
        compare(run, other.path)


def test_both_fronts_are_in_one_table_and_one_picture(run, other, tmp_path):
    edit(other, target_line="another machine $\\frac{$")
    found = compare(run, other.path)
    frame = found.to_frame()
    assert len(frame) == sum(trial.on_front for trials in found.trials for trial in trials)
    assert frame["is_chosen"].sum() == 2
    (axes,) = found.plot().axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["run", "other"]
    assert "another machine" in axes.get_xlabel()
    assert "different targets" in str(found)
    done = command("compare", run, other.path, "--plot", tmp_path / "fronts.png")
    assert done.code == 0, done.err
    assert (tmp_path / "fronts.png").read_bytes().startswith(b"\x89PNG")
    done = command("compare", run, other.path, "--plot", tmp_path / "fronts")
    assert f"written: {tmp_path / 'fronts'}\n" in done.out
    assert (tmp_path / "fronts").read_bytes().startswith(b"\x89PNG")
    (tmp_path / "ex").mkdir()
    done = command("compare", run, other.path, "--plot", tmp_path / "ex")
    assert done.code == 1
    assert "it is a folder. Name a file in it" in done.err
    assert not (tmp_path / "ex.png").exists()

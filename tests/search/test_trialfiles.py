from __future__ import annotations

import errno
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from safetensors import SafetensorError

from autobackbone.convexhead import Head
from autobackbone.errors import RunError, TrialError
from autobackbone.runfolder import RunFolder
from autobackbone.search import trialfiles

if TYPE_CHECKING:
    from pathlib import Path

PICTURES = "name,label,part\nant/1.png,0,train\nNA,1,validation\n"


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(path=tmp_path)


def test_the_table_of_pictures_takes_names_as_they_are(run):
    run.pictures_file.write_text(PICTURES)
    table = trialfiles.read_pictures(run)
    assert table["name"].tolist() == ["ant/1.png", "NA"]
    assert table["label"].tolist() == [0, 1]


@pytest.mark.parametrize("content", [None, b"", b"\xff\x00", b"x,y\n1,2\n", b"name,label,part\na,ant,train\n"])
def test_a_damaged_table_of_pictures_is_an_error_that_names_it(run, content):
    if content is not None:
        run.pictures_file.write_bytes(content)
    with pytest.raises(RunError, match=r"pictures\.csv' cannot be read .* Put it back"):
        trialfiles.read_pictures(run)


def test_predictions_of_another_shape_are_damaged(run):
    trialfiles.save_predictions(run, 3, trialfiles.VALIDATION, np.zeros((4, 2), np.float32))
    assert trialfiles.load_predictions(run, 3, trialfiles.VALIDATION, shape=(4, 2)).shape == (4, 2)
    with pytest.raises(RunError, match=r"is damaged: its shape must be \(5, 2\), and \(4, 2\) came"):
        trialfiles.load_predictions(run, 3, trialfiles.VALIDATION, shape=(5, 2))
    with pytest.raises(RunError, match=r"test\.npy' is not there"):
        trialfiles.load_predictions(run, 3, trialfiles.TEST)


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_head_is_read_as_it_was_whatever_its_order_in_memory(run, order):
    weight = np.asarray([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], dtype=np.float32, order=order)
    bias = np.arange(4, dtype=np.float32)[::2]
    trialfiles.save_head(run, 3, Head(weight=weight, bias=bias, strength=1.0))
    read = trialfiles.load_head(run, 3)
    np.testing.assert_array_equal(read.weight, weight)
    np.testing.assert_array_equal(read.bias, bias)


def test_trials_without_their_study_are_not_counted_anew(run):
    run.require_study()  # nothing was tried yet
    trialfiles.save_predictions(run, 0, trialfiles.VALIDATION, np.zeros((4, 2), np.float32))
    with pytest.raises(RunError, match=r"study\.db' is missing or empty"):
        run.require_study()
    run.study_file.touch()
    with pytest.raises(RunError, match=r"study\.db' is missing or empty"):
        run.require_study()
    run.study_file.write_bytes(b"SQLite")
    run.require_study()


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), SafetensorError("I/O error")])
def test_a_full_disk_fails_the_trial_alone_and_leaves_no_litter(run, monkeypatch, error):
    def fills_up(tensors, file):
        Path(file).write_bytes(b"half")
        raise error

    monkeypatch.setattr(trialfiles, "save_file", fills_up)
    with pytest.raises(TrialError, match="Free some of the disk"):
        trialfiles.save_weights(run, 3, {})
    assert list(run.trial_folder(3).iterdir()) == []

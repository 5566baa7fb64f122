import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.test_runfolder import FACTS

from autobackbone import Selection, open_run
from autobackbone.errors import ArgumentError, DataError, RunError
from autobackbone.exporting.transform import as_pictures


def test_pictures_come_in_many_forms():
    assert len(as_pictures(np.zeros((5, 16, 16)))) == 5
    assert len(as_pictures(np.zeros((5, 16, 16, 3)))) == 5
    assert len(as_pictures(np.zeros((16, 16, 3)))) == 1
    assert len(as_pictures(np.zeros((16, 16)))) == 1
    assert as_pictures([]) == []


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (None, "a list of paths"),
        (["gone.jpg"], "1 of 1 pictures are not there"),
        (np.zeros(4), "shape"),
        ([torch.zeros(3, 4, 4)], "a picture is a path, .* Tensor came"),
        ([str(Path.cwd())], "is a folder. Give its pictures"),
    ],
)
def test_what_is_no_picture_is_named(images, message):
    with pytest.raises(DataError, match=message):
        as_pictures(images)


@pytest.mark.parametrize("path", [None, 7, b"run", ["run"]])
def test_a_run_is_opened_by_its_path(path):
    with pytest.raises(ArgumentError, match=rf"takes the path of a run folder, not {re.escape(repr(path))}\. Give"):
        open_run(path)


@pytest.mark.parametrize(
    "preparation", [{"resize": "stretch"}, {"resise": "crop"}, {"value_range": 3}, {"channels": "rgb"}]
)
def test_a_preparation_that_cannot_be_read_is_told_when_the_run_is_opened(tmp_path, preparation):
    (tmp_path / "run.json").write_text(json.dumps(FACTS | {"preparation": preparation}))
    with pytest.raises(RunError, match=r"run\.json' is damaged: 'preparation' cannot be read .*Put it back"):
        open_run(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps(FACTS))
    assert isinstance(open_run(str(tmp_path)), Selection)

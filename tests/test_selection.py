import numpy as np
import pytest

from autobackbone.errors import DataError
from autobackbone.selection import _as_list


def test_pictures_come_in_many_forms():
    assert len(_as_list(np.zeros((5, 16, 16)))) == 5
    assert len(_as_list(np.zeros((5, 16, 16, 3)))) == 5
    assert len(_as_list(np.zeros((16, 16, 3)))) == 1
    assert _as_list([]) == []


@pytest.mark.parametrize(
    ("images", "message"),
    [(None, "a list of paths"), (["gone.jpg"], "1 of 1 pictures are not there"), (np.zeros((4, 4)), "shape")],
)
def test_what_is_no_picture_is_named(images, message):
    with pytest.raises(DataError, match=message):
        _as_list(images)

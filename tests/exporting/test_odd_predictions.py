"""Odd files asked about: an answer, or an error of this library's that names the file."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.conftest import TINY
from tests.data.oddities import WAYS, as_pillow_reads, encoded, flipped, whole

from autobackbone.backbones.build import build, normalisation
from autobackbone.data import Preparation
from autobackbone.data.pictures import quiet_pillow
from autobackbone.errors import DataError
from autobackbone.exporting.transform import Transform, as_pictures, normalise, to_input

PREPARATION = Preparation(value_range=(0.0, 65535.0))


@pytest.fixture(scope="module")
def network():
    return build(TINY, n_classes=2, image_size=(16, 16)).eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image, "MAX_IMAGE_PIXELS", 10**6)
        yield tmp_path_factory.mktemp("asked")


def answer(network, file):
    """What the network says of a file, (n_outputs,), or `None` where an error names it."""
    transform = Transform(image_size=(16, 16), preparation=PREPARATION, normalisation=normalisation(TINY))
    with quiet_pillow(), torch.inference_mode():
        try:
            (picture,) = as_pictures([file])
            return network(to_input(transform, picture)[None])[0]
        except DataError as error:
            told = str(error)
    assert str(file) in told
    assert "object at" not in told
    return None


def expected(network, content):
    pixels = torch.from_numpy(np.array(as_pillow_reads(content, PREPARATION)))[None]
    with torch.inference_mode():
        return network(normalise(pixels, normalisation(TINY)))[0]


@pytest.mark.parametrize("way", WAYS)
def test_a_sound_file_of_any_kind_is_answered_and_a_quarter_of_one_is_named(network, folder, way):
    file = folder / "asked.png"
    file.write_bytes(whole(way))
    torch.testing.assert_close(answer(network, file), expected(network, whole(way)))
    file.write_bytes(whole(way)[: len(whole(way)) // 4])
    assert answer(network, file) is None


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(WAYS), st.lists(st.integers(0, 10**5), max_size=6), st.floats(0.1, 1), st.binary(max_size=20))
def test_a_damaged_file_is_answered_as_pillow_reads_it_or_named(network, folder, way, bits, share, tail):
    content = flipped(whole(way), bits)
    content = content[: int(share * len(content))] + tail
    file = folder / "asked.png"
    file.write_bytes(content)
    said = answer(network, file)
    if said is not None:
        torch.testing.assert_close(said, expected(network, content))


def no_numbers():
    return encoded(Image.fromarray(np.full((16, 16), np.nan, np.float32)), "TIFF")


def bomb():
    return encoded(Image.new("1", (1500, 1500)), "PNG")


@pytest.mark.parametrize(
    ("make", "reason"),
    [(no_numbers, "NaN or infinite"), (bomb, "decompression bomb"), (bytes, "identify")],
)
def test_what_cannot_be_read_is_named_with_the_reason(folder, make, reason):
    file = folder / "שלום\n.png"
    file.write_bytes(make())
    transform = Transform(image_size=(16, 16), preparation=PREPARATION, normalisation=normalisation(TINY))
    with pytest.raises(DataError, match=rf"שלום\\n\.png' cannot be read as a picture: .*{reason}.*Leave it out\.$"):
        to_input(transform, file)


@pytest.mark.parametrize(
    ("picture", "why"),
    [
        (
            np.full((16, 16, 3), 0.5),
            r"^an array \(16, 16, 3\) of float64 has more than 8 bits, .* Give it as uint8, from",
        ),
        (
            np.zeros((3, 16, 16), np.uint8),
            r"^an array \(3, 16, 16\) of uint8 has other channels .* come last.* Turn it",
        ),
    ],
)
def test_what_other_pictures_than_those_trained_on_lack_is_told(picture, why):
    transform = Transform(
        image_size=(16, 16), preparation=replace(PREPARATION, value_range=None), normalisation=normalisation(TINY)
    )
    with pytest.raises(DataError, match=why) as told:
        to_input(transform, picture)
    # What a search is asked, no prediction takes.
    assert "value_range" not in str(told.value)
    assert "channels=" not in str(told.value)


@pytest.mark.parametrize("name", ["x" * 300, "nul\0byte", "a/" * 3000, "self.png"])
def test_names_that_lead_nowhere_are_told(tmp_path, name):
    (tmp_path / "self.png").symlink_to("self.png")
    with pytest.raises(DataError, match="1 of 1 pictures are not there, the first '"):
        as_pictures([tmp_path / name])

"""The graph's pixels are Pillow's, whatever the size of the picture and of the network's input."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from autobackbone.data import Preparation, to_pixels
from autobackbone.errors import ArgumentError
from autobackbone.exporting.onnx_graph import session
from autobackbone.exporting.preprocessing import pillow_may_go_down_first, preprocessing
from autobackbone.exporting.transform import Transform
from autobackbone.records import Normalisation

GREY_LEVELS = Normalisation(mean=(0.0, 0.0, 0.0), std=(1 / 255,) * 3, interpolation="bicubic")
SIDES = st.integers(1, 400)


def noise(height, width, n=1):
    return np.random.default_rng(height * 1000 + width).integers(0, 256, (n, height, width, 3), dtype=np.uint8)


def in_graph(preparation, image_size, pictures):
    run = session(preprocessing(image_size, preparation, GREY_LEVELS))
    return run(pictures).transpose(0, 2, 3, 1)


@pytest.mark.parametrize("resize", ["squash", "pad", "crop"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sides=st.tuples(SIDES, SIDES), image_size=st.sampled_from([(32, 32), (48, 64), (96, 160)]))
def test_pixels_are_those_of_pillow(resize, interpolation, sides, image_size):
    """Pictures of noise, on which any other place, weight or order of rounding shows."""
    preparation = Preparation(resize=resize, interpolation=interpolation)
    (picture,) = pictures = noise(*sides)
    found = in_graph(preparation, image_size, pictures)[0].round(3)
    np.testing.assert_array_equal(found, to_pixels(picture, image_size, preparation))


@pytest.mark.parametrize("sides", [(300, 20), (20, 300), (300, 300), (31, 33)])
def test_both_orders_of_passes_are_those_of_pillow(sides):
    picture = noise(*sides)
    found = in_graph(Preparation(), (32, 32), picture)[0].round(3)
    np.testing.assert_array_equal(found, to_pixels(picture[0], (32, 32), Preparation()))


def test_where_pillow_goes_down_first_that_is_seen():
    picture = Image.fromarray(noise(300, 20)[0])
    by = Image.Resampling.BICUBIC
    down_first = np.asarray(picture.resize((20, 32), by).resize((32, 32), by))
    across_first = np.asarray(picture.resize((32, 300), by).resize((32, 32), by))
    assert not np.array_equal(down_first, across_first)
    expected = down_first if pillow_may_go_down_first() else across_first
    assert np.array_equal(np.asarray(picture.resize((32, 32), by)), expected)


def test_several_pictures_are_each_prepared_as_alone_and_normalised_as_ever():
    norm = Normalisation(mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3), interpolation="bicubic")
    pictures, preparation = noise(50, 70, n=3), Preparation(resize="pad")
    found = session(preprocessing((32, 48), preparation, norm))(pictures)
    transform = Transform(image_size=(32, 48), preparation=preparation, normalisation=norm)
    expected = np.stack([transform(picture).numpy() for picture in pictures])
    assert found.shape == (3, 3, 32, 48)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_what_jumps_from_pixel_to_pixel_is_refused():
    with pytest.raises(ArgumentError, match=r"by bilinear or bicubic; this run did by 'nearest'.*with_preprocessing=F"):
        preprocessing((32, 32), Preparation(interpolation="nearest"), GREY_LEVELS)

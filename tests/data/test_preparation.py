from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from autobackbone.data import Preparation, to_pixels
from autobackbone.errors import DataError

SIDES = st.integers(1, 60)
RESIZES = st.sampled_from(["squash", "pad", "crop"])


@given(SIDES, SIDES, st.integers(8, 40), st.integers(8, 40), RESIZES)
def test_every_picture_fills_its_size_and_a_plain_one_stays_plain(height, width, to_height, to_width, resize):
    colour = (10, 200, 90)
    picture = Image.new("RGB", (width, height), colour)
    pixels = to_pixels(picture, (to_height, to_width), Preparation(resize=resize))
    assert pixels.shape == (to_height, to_width, 3)
    assert pixels.dtype == np.uint8
    border = (124, 116, 104) if resize == "pad" else colour
    assert {tuple(colour) for colour in pixels.reshape(-1, 3).tolist()} <= {colour, border}
    assert (pixels == colour).all(axis=-1).any()


@given(RESIZES, st.integers(8, 30), st.integers(8, 30))
def test_at_its_own_size_a_picture_is_untouched(resize, height, width):
    picture = np.random.default_rng(height * width).integers(0, 256, (height, width, 3), np.uint8)
    assert np.array_equal(to_pixels(picture, (height, width), Preparation(resize=resize)), picture)


def test_squash_and_pad_keep_both_ends_and_crop_cuts_them():
    picture = np.full((10, 40, 3), 128, np.uint8)
    picture[:, :4] = (255, 0, 0)
    picture[:, -4:] = (0, 0, 255)
    ends = {}
    for resize in ("squash", "pad", "crop"):
        row = to_pixels(picture, (20, 20), Preparation(resize=resize))[10]
        ends[resize] = bool((row[:, 0] > 200).any() and (row[:, 2] > 200).any())
    assert ends == {"squash": True, "pad": True, "crop": False}


@given(
    RESIZES,
    st.sampled_from(["bilinear", "bicubic", "lanczos"]),
    st.none() | st.tuples(st.floats(-1e6, 0), st.floats(1, 1e6)),
    st.none() | st.tuples(*[st.integers(0, 12)] * 3),
)
def test_a_preparation_survives_json(resize, interpolation, value_range, channels):
    preparation = Preparation(resize=resize, interpolation=interpolation, value_range=value_range, channels=channels)
    assert Preparation.from_json(json.loads(json.dumps(preparation.to_json()))) == preparation


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"resize": "stretch"}, "resize is 'squash', 'pad' or 'crop'; 'stretch'"),
        ({"interpolation": "cubic"}, "bicubic.*'cubic' came"),
        ({"value_range": (5, 5)}, "low below high"),
        ({"value_range": (0, float("inf"))}, "both finite"),
        ({"value_range": 255}, r"value_range is \(low, high\)"),
        ({"channels": (0, 1)}, r"channels is \(i,\) or \(i, j, k\)"),
        ({"channels": (0, 1, -1)}, "whole numbers from 0"),
        ({"channels": 3}, "3 came"),
    ],
)
def test_a_wrong_preparation_cannot_exist(wrong, message):
    with pytest.raises(DataError, match=message):
        Preparation(**wrong)

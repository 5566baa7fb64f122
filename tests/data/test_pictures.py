from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from autobackbone.data.pictures import (
    ChannelsError,
    as_rgb,
    header_size,
    is_deep,
    open_bytes,
    open_picture,
    picture_formats,
    quiet_pillow,
)
from autobackbone.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)

# What each EXIF orientation asks a viewer to do to the stored pixels.
UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: np.rot90,
}


def saved(image: Image.Image, kind: str, **options: object) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return open_bytes(buffer.getvalue())


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_rotation_is_applied(orientation, kind):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = saved(Image.fromarray(PIXELS), kind, exif=exif)
    assert np.array_equal(np.asarray(as_rgb(image)), UPRIGHT[orientation](PIXELS))


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_header_gives_the_upright_size(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "turned.jpg"
    Image.fromarray(PIXELS).save(path, exif=exif)
    assert header_size(path) == np.asarray(as_rgb(path)).shape[:2]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_damaged_exif_does_not_lose_the_pixels(kind):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x011A] = 6, "maker", 72.0
    whole, rng = exif.tobytes(), np.random.default_rng(0)
    for _ in range(200):
        damaged = bytearray(whole)
        damaged[rng.integers(len(damaged))] = rng.integers(256)
        with quiet_pillow():
            assert as_rgb(saved(Image.fromarray(PIXELS), kind, exif=bytes(damaged))).size in {(9, 6), (6, 9)}


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "GIF"])
def test_grey_is_repeated(kind):
    grey = PIXELS[..., 0]
    assert np.array_equal(np.asarray(as_rgb(saved(Image.fromarray(grey), kind))), np.stack([grey] * 3, axis=-1))


def test_one_bit_is_black_and_white():
    bits = PIXELS[..., 0] > 127
    assert np.array_equal(np.asarray(as_rgb(saved(Image.fromarray(bits), "PNG")))[..., 1], bits * np.uint8(255))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_laid_on_white(mode):
    image = Image.new(mode, (3, 1), 0)
    image.putpixel((0, 0), (0, 0, 0, 255) if mode == "RGBA" else (0, 255))
    image.putpixel((1, 0), (0, 0, 0, 51) if mode == "RGBA" else (0, 51))
    assert np.asarray(as_rgb(saved(image, "PNG")))[0, :, 0].tolist() == [0, 204, 255]


@pytest.mark.parametrize("transparency", [1, b"\xff\x00"])
def test_palette_comes_out_right_with_transparency(transparency):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 0, 0])
    image.putpixel((1, 0), 1)
    opaque = as_rgb(saved(image, "PNG"))
    seen_through = as_rgb(saved(image, "PNG", transparency=transparency))
    assert np.asarray(opaque)[0].tolist() == [[10, 20, 30], [200, 0, 0]]
    assert np.asarray(seen_through)[0].tolist() == [[10, 20, 30], [255, 255, 255]]


def test_a_transparent_colour_of_rgb_is_white():
    image = Image.new("RGB", (2, 1), (1, 2, 3))
    image.putpixel((1, 0), (9, 9, 9))
    assert np.asarray(as_rgb(saved(image, "PNG", transparency=(9, 9, 9))))[0].tolist() == [[1, 2, 3], [255] * 3]


@pytest.mark.parametrize(("kind", "tolerance"), [("TIFF", 0), ("JPEG", 3)])
def test_cmyk_comes_out_in_the_right_colours(kind, tolerance):
    # A JPEG stores the four inks inverted, as Adobe does; a TIFF does not.
    image = saved(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), kind)
    assert image.mode == "CMYK"
    assert np.abs(np.asarray(as_rgb(image)).astype(int) - (255, 0, 0)).max() <= tolerance


def test_of_an_animation_the_first_frame_counts(tmp_path):
    first, second = Image.new("RGB", (4, 4), (255, 0, 0)), Image.new("RGB", (4, 4), (0, 0, 255))
    path = tmp_path / "moving.gif"
    first.save(path, save_all=True, append_images=[second])
    assert as_rgb(path).getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_modes_above_8_bits_are_mapped_by_the_range(mode):
    values = np.array([[0, 1000, 2000, 3000]], {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode])
    image = saved(Image.fromarray(values), "TIFF")
    assert image.mode == mode
    assert is_deep(image)
    assert np.asarray(as_rgb(image, value_range=(1000, 2000)))[0, :, 0].tolist() == [0, 0, 255, 255]


def test_above_8_bits_without_a_range_is_refused():
    with pytest.raises(DataError, match=r"above 8 bits \(uint16\).*value_range"):
        as_rgb(np.array([[3000]], np.uint16))
    with pytest.raises(DataError, match=r"above 8 bits \(float64\)"):
        as_rgb(np.array([[0.5]]))


DTYPES = st.sampled_from([np.uint8, np.uint16, np.int16, np.int64, np.float32, np.float64])


@given(
    arrays.arrays(DTYPES.map(np.dtype), (3, 4), elements=st.integers(0, 250)),
    st.integers(0, 100),
    st.integers(1, 150),
)
def test_the_range_keeps_order_and_reaches_both_ends(values, low, width):
    grey = np.asarray(as_rgb(values, value_range=(low, low + width)))[..., 0]
    assert (grey[values <= low] == 0).all()
    assert (grey[values >= low + width] == 255).all()
    order = np.argsort(values, axis=None, kind="stable")
    assert (np.diff(grey.reshape(-1)[order].astype(int)) >= 0).all()


@given(arrays.arrays(np.uint8, st.tuples(st.integers(1, 5), st.integers(1, 5), st.sampled_from([1, 3]))))
def test_8_bit_arrays_are_taken_as_they_are(values):
    assert np.array_equal(np.asarray(as_rgb(values)), np.broadcast_to(values, (*values.shape[:2], 3)))
    assert as_rgb(values.astype(np.int64)) == as_rgb(values)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused(bad):
    with pytest.raises(DataError, match="NaN or infinite"):
        as_rgb(np.array([[0.0, bad]]), value_range=(0, 1))


@pytest.mark.parametrize("shape", [(5, 5, 2), (5, 5, 5), (3, 5, 5)])
def test_other_channels_are_refused_by_name(shape):
    with pytest.raises(ChannelsError, match=r"channels=\(i, j, k\)"):
        as_rgb(np.zeros(shape, np.uint8))


def test_channels_first_is_recognised():
    with pytest.raises(ChannelsError, match="must come last"):
        as_rgb(np.zeros((3, 5, 5), np.uint8))


def test_channels_are_taken_in_order():
    values = np.arange(5, dtype=np.uint8).reshape(1, 1, 5)
    assert as_rgb(values, channels=(4, 0, 2)).getpixel((0, 0)) == (4, 0, 2)
    assert as_rgb(values, channels=(3,)).getpixel((0, 0)) == (3, 3, 3)
    assert as_rgb(Image.new("RGBA", (1, 1), (1, 2, 3, 4)), channels=(2, 1, 0)).getpixel((0, 0)) == (3, 2, 1)
    with pytest.raises(ChannelsError, match="has 5 channels"):
        as_rgb(values, channels=(0, 1, 5))


@pytest.mark.parametrize("shape", [(0, 4), (4, 0, 3)])
def test_a_picture_without_pixels_is_refused(shape):
    with pytest.raises(DataError, match="at least one pixel"):
        as_rgb(np.zeros(shape, np.uint8))


def test_what_would_start_another_program_is_not_opened(tmp_path):
    assert "EPS" not in picture_formats()
    path = tmp_path / "harmless.jpg"
    Image.fromarray(PIXELS).save(path, "EPS")
    with pytest.raises(OSError, match="cannot identify"):
        open_picture(path)


def test_the_file_is_closed(tmp_path: Path):
    path = tmp_path / "a.gif"
    Image.new("L", (2, 2)).save(path, save_all=True, append_images=[Image.new("L", (2, 2), 9)])
    image = open_picture(path)
    path.unlink()
    assert as_rgb(image).size == (2, 2)

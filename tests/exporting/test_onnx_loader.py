"""The loader that may be copied reads pictures as the search does."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.data.oddities import WAYS, whole

from autobackbone.data.pictures import as_rgb
from autobackbone.exporting import onnx_loader
from autobackbone.exporting.onnx_loader import to_pixels


@pytest.mark.parametrize("way", WAYS)
def test_files_of_any_kind_are_the_same_pixels(way, tmp_path):
    file = tmp_path / "picture"
    file.write_bytes(whole(way))
    assert np.array_equal(to_pixels(file.read_bytes()), np.asarray(as_rgb(file)))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_pictures_are_upright(orientation, tmp_path):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = tmp_path / "turned.jpg"
    picture.save(file, exif=exif)
    assert np.array_equal(to_pixels(file.read_bytes()), np.asarray(as_rgb(file)))


@pytest.mark.parametrize(
    ("mode", "dtype", "settings"),
    [
        ("grey", np.uint16, {"value_range": (0.0, 65535.0)}),
        ("grey", np.uint16, {"value_range": (100.0, 4000.0), "channels": (0,)}),
        ("RGB", np.uint8, {"channels": (2, 1, 0)}),
        ("RGBA", np.uint8, {"channels": (3,)}),
        ("RGB", np.uint8, {"value_range": (0.0, 10.0)}),
    ],
)
def test_ranges_and_channels_are_those_of_the_search(mode, dtype, settings, tmp_path):
    shape = {"grey": (9, 11), "RGB": (9, 11, 3), "RGBA": (9, 11, 4)}[mode]
    values = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype=dtype)
    file = tmp_path / "picture.png"
    Image.fromarray(values).save(file)
    assert np.array_equal(to_pixels(file.read_bytes(), **settings), np.asarray(as_rgb(file, **settings)))


def test_deep_pictures_without_a_range_are_told():
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 4), 999, np.uint16)).save(buffer, "PNG")
    with pytest.raises(ValueError, match="a picture above 8 bits"):
        to_pixels(buffer.getvalue())


def test_a_copy_of_the_file_needs_numpy_pillow_and_onnxruntime_alone(tmp_path):
    copy = tmp_path / "onnx_loader.py"
    copy.write_bytes(Path(onnx_loader.__file__).read_bytes())
    code = "import sys, onnx_loader; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert not {"torch", "timm", "autobackbone", "onnx", "pandas", "sklearn", "torchvision"} & set(done.stdout.split())

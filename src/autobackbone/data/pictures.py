"""One picture in whatever form it comes, as 8-bit RGB."""

from __future__ import annotations

import io
import stat
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from warnings import catch_warnings, filterwarnings

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from autobackbone.data.soundness import check_content, check_strips
from autobackbone.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from autobackbone.records import ImageSize

Picture = Image.Image | np.ndarray[Any, Any] | str | Path
"""A Pillow image, an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), or the path of a picture file."""

_DEEP_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
_WHITE = (255, 255, 255, 255)
# Not ImageOps.exif_transpose: it also rewrites the EXIF block, and raises on one that is a little damaged.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Pillow only recognises the first five and cannot draw them; EPS would start Ghostscript on a stranger's file.
_NOT_DECODED = frozenset({"BUFR", "GRIB", "HDF5", "MPEG", "WMF", "EPS"})


class ChannelsError(DataError):
    """A picture whose channels cannot be read as grey, RGB or RGBA: a wrong setting, not a broken picture."""


class DepthError(DataError):
    """A picture above 8 bits, and nothing tells what is black and what is white."""


@cache
def picture_formats() -> tuple[str, ...]:
    """Name the formats that are decoded, as Pillow spells them."""
    Image.init()
    return tuple(sorted(set(Image.OPEN) - _NOT_DECODED))


@cache
def picture_suffixes() -> frozenset[str]:
    """Name the suffixes of picture files, in lower case and with the dot.

    Example:
        >>> ".jpg" in picture_suffixes(), ".csv" in picture_suffixes()
        (True, False)
    """
    formats = picture_formats()
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in formats)


def open_picture(path: str | Path) -> Image.Image:
    """Open a picture file; its pixels are decoded when they are first asked for.

    The bytes are read at once, so that no file stays open: Pillow keeps the handle of an animated file.

    Raises:
        DataError: the file is damaged in a way that Pillow passes over.
        OSError: it cannot be read; Pillow raises other kinds too.
    """
    return open_content(read_content(path))


def open_content(content: bytes) -> Image.Image:
    """Open a picture file's content as `open_picture` opens the file, with the same errors."""
    check_content(content)
    image = open_bytes(content)
    check_strips(image)
    return image


def read_content(path: str | Path) -> bytes:
    """Read the bytes of a picture file.

    Raises:
        OSError: it cannot be read, or is no ordinary file: a pipe is waited for, and a device may never end.
    """
    return _ordinary(path).read_bytes()


def _ordinary(path: str | Path) -> Path:
    file = Path(path)
    if not stat.S_ISREG(file.stat().st_mode):
        raise OSError("no ordinary file but a folder, pipe, socket or device")
    return file


def open_bytes(content: bytes) -> Image.Image:
    """Open a picture file's content, in one of `picture_formats` only."""
    try:
        return Image.open(io.BytesIO(content), formats=picture_formats())
    except UnidentifiedImageError:  # its own message tells where the bytes lie in memory
        raise UnidentifiedImageError("cannot identify it as a picture of a format that is read here") from None


def header_size(path: str | Path) -> ImageSize:
    """Read (height, width) as seen, EXIF rotation applied, from a file's header alone."""
    with _ordinary(path).open("rb") as file, Image.open(file, formats=picture_formats()) as image:
        return seen_size(image)


def seen_size(image: Image.Image) -> ImageSize:
    """Give (height, width) as seen, EXIF rotation applied, of an image that is open and not decoded."""
    # Of a TIFF, Pillow gives the size as seen already.
    is_turned = image.format != "TIFF" and image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
    return (image.width, image.height) if is_turned else (image.height, image.width)


def is_deep(picture: Picture) -> bool:
    """Tell whether a picture needs a value range: an array other than uint8 and bool, or a file above 8 bits."""
    if isinstance(picture, np.ndarray):
        return picture.dtype not in (np.uint8, np.bool_)
    image = picture if isinstance(picture, Image.Image) else open_picture(picture)
    return image.mode in _DEEP_MODES


def as_rgb(
    picture: Picture, *, value_range: tuple[float, float] | None = None, channels: tuple[int, ...] | None = None
) -> Image.Image:
    """Bring a picture to 8-bit RGB, upright.

    EXIF rotation is applied; grey is repeated; palettes and CMYK are converted; transparency is laid on white; of an
    animation the first frame counts.

    Args:
        picture: see `Picture`.
        value_range: what becomes 0 and 255 in arrays and in pictures above 8 bits; beyond it is clipped. Pictures of
            8 bits that are no arrays are not touched by it. `None` takes uint8 as it is.
        channels: which channels of a picture to take, from 0: one (grey) or three (red, green, blue).

    Returns:
        A Pillow image of mode RGB.

    Raises:
        ChannelsError: neither 1, 3 nor 4 channels and no `channels`.
        DataError: no picture's shape, no pixels, NaN or infinite values, or values above 8 bits without a range.
        OSError: a file that cannot be read; Pillow raises other kinds too.

    Example:
        >>> as_rgb(np.array([[0.0, 1.0]]), value_range=(0, 1)).getpixel((1, 0))
        (255, 255, 255)
    """
    if isinstance(picture, np.ndarray):
        return _array_as_rgb(picture, value_range, channels)
    image = upright(picture if isinstance(picture, Image.Image) else open_picture(picture))
    if 0 in image.size:
        raise DataError(f"a picture needs at least one pixel; one of {image.width} x {image.height} came.")
    if image.mode in _DEEP_MODES:
        return _array_as_rgb(np.asarray(image), value_range, channels)
    if channels is not None:
        return _array_as_rgb(np.asarray(_without_palette(image)), None, channels)
    if image.has_transparency_data:
        return _on_white(image.convert("RGBA"))
    return image.convert("RGB")


def to_array(picture: Picture, channels: tuple[int, ...] | None = None) -> np.ndarray[Any, Any]:
    """Give the raw values of a picture as (H, W) or (H, W, C), `channels` taken; for measuring its range."""
    array = picture if isinstance(picture, np.ndarray) else np.asarray(_as_image(picture))
    return _taken(array, channels)


def _as_image(picture: Image.Image | str | Path) -> Image.Image:
    return picture if isinstance(picture, Image.Image) else open_picture(picture)


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Silence Pillow's own warnings about odd files: what matters is whether the pixels come out.

    Filters belong to the whole process, so this stands around a pass over the pictures, never inside a thread.
    """
    with catch_warnings():
        filterwarnings("ignore", module=r"PIL\.")
        filterwarnings("ignore", category=Image.DecompressionBombWarning)
        yield


def upright(image: Image.Image) -> Image.Image:
    """Decode an image and turn it as its EXIF block says."""
    image.load()
    try:
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except SyntaxError:
        return image  # Pillow's word for a damaged EXIF block; the pixels beside it are sound
    return image if turn is None else image.transpose(turn)


def _without_palette(image: Image.Image) -> Image.Image:
    if image.mode not in ("P", "PA"):
        return image
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def _array_as_rgb(
    array: np.ndarray[Any, Any], value_range: tuple[float, float] | None, channels: tuple[int, ...] | None
) -> Image.Image:
    values = _taken(array, channels)
    if values.size == 0:
        raise DataError(f"a picture needs at least one pixel; an array of shape {array.shape} came.")
    pixels = _to_uint8(values, value_range)
    if pixels.ndim == 2 or pixels.shape[2] == 1:
        return Image.fromarray(np.ascontiguousarray(pixels.reshape(pixels.shape[:2]))).convert("RGB")
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return _on_white(image) if image.mode == "RGBA" else image


def _taken(array: np.ndarray[Any, Any], channels: tuple[int, ...] | None) -> np.ndarray[Any, Any]:
    check_channels(array.shape, channels)
    if channels is None:
        return array
    taken: np.ndarray[Any, Any] = np.atleast_3d(array)[..., list(channels)]
    return taken


def check_channels(shape: tuple[int, ...], channels: tuple[int, ...] | None) -> None:
    """Make sure that an array of this shape is one picture, after `channels` were taken.

    Raises:
        ChannelsError: its channels are others.
        DataError: it is no picture at all.
    """
    if len(shape) not in (2, 3):
        raise DataError(f"a picture is an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4); {shape} came.")
    n_channels = shape[2] if len(shape) == 3 else 1
    if channels is not None and max(channels) >= n_channels:
        raise ChannelsError(f"channels={channels} counts from 0, and a picture has {n_channels} channels: {shape}.")
    if channels is None and n_channels not in (1, 3, 4):
        hint = " Its channels seem to come first: they must come last." if shape[0] in (1, 3, 4) else ""
        raise ChannelsError(
            f"pictures need 1, 3 or 4 channels, (H, W, C); one of shape {shape} came.{hint} "
            "Say which to take as red, green and blue: channels=(i, j, k)."
        )


def _to_uint8(values: np.ndarray[Any, Any], value_range: tuple[float, float] | None) -> np.ndarray[Any, Any]:
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype.kind not in "uif":
        raise DataError(f"a picture holds whole or real numbers; an array of {values.dtype} came.")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise DataError("the picture holds NaN or infinite values.")
    if value_range is not None:
        low, high = value_range
        scaled = (values.astype(np.float64) - low) * (255.0 / (high - low))
        mapped: np.ndarray[Any, Any] = np.rint(scaled.clip(0.0, 255.0)).astype(np.uint8)
        return mapped
    if values.dtype != np.uint8 and (values.dtype.kind == "f" or values.min() < 0 or values.max() > 255):
        raise DepthError(
            f"a picture above 8 bits ({values.dtype}) needs to know what is black and what is white. "
            "Give value_range=(low, high)."
        )
    return values.astype(np.uint8)


def _on_white(image: Image.Image) -> Image.Image:
    return Image.alpha_composite(Image.new("RGBA", image.size, _WHITE), image).convert("RGB")

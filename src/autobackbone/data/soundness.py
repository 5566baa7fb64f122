"""Damage that a file tells of and Pillow passes over, so that half a picture would count as a whole one."""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

from PIL.TiffImagePlugin import PLANAR_CONFIGURATION, TiffImageFile

from autobackbone.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

_JPEG_2000 = (b"\x00\x00\x00\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51")
"""How a file begins: with boxes around the picture, or the picture alone."""

_END_OF_JPEG_2000 = b"\xff\xd9"
_PNG = b"\x89PNG\r\n\x1a\n"
_LENGTH, _HEAD, _TAIL = 4, 8, 4
"""Bytes of a chunk: its length, what stands before its data (length and kind), and its checksum behind."""

_APART = 2
"""The planar configuration of a TIFF that stores each channel by itself."""


def check_content(content: bytes) -> None:
    """Compare the checksums of a PNG's pixels, which Pillow leaves unread, and look for the end of a JPEG 2000.

    Raises:
        DataError: the pixels are not those that were written, or not all of them.
    """
    if content.startswith(_PNG):
        _check_png(content)
    # Its pixels never hold these two bytes.
    if content.startswith(_JPEG_2000) and content.rfind(_END_OF_JPEG_2000) < 0:
        raise DataError("this JPEG 2000 breaks off before its end: the file is truncated.")


def _check_png(content: bytes) -> None:
    place, view = len(_PNG), memoryview(content)
    while place + _HEAD + _TAIL <= len(content):
        n_bytes, kind = struct.unpack_from(">I4s", content, place)
        end = place + _HEAD + n_bytes
        # A chunk that is cut off is left to Pillow, which knows whether all pixels are there.
        if kind == b"IDAT" and end + _TAIL <= len(content):
            (written,) = struct.unpack_from(">I", content, end)
            if zlib.crc32(view[place + _LENGTH : end]) != written:
                raise DataError("the pixels of this PNG do not match their checksum: the file is damaged.")
        place = end + _TAIL


def check_strips(image: Image.Image) -> None:
    """Count the pixels in the strips or tiles of a TIFF that is open and not decoded: Pillow leaves others black.

    Raises:
        DataError: some pixels are in none.
    """
    if not isinstance(image, TiffImageFile):
        return
    n_layers = len(image.getbands()) if image.tag_v2.get(PLANAR_CONFIGURATION) == _APART else 1
    # One tile of libtiff's stands for the whole picture, whose strips libtiff counts itself.
    n_layers = 1 if image.use_load_libtiff else n_layers
    boxes = [tile.extents for tile in image.tile if tile.extents is not None]
    held = sum((right - left) * (lower - upper) for left, upper, right, lower in boxes)
    if held < n_layers * image.width * image.height:
        raise DataError("the strips of this TIFF do not hold all of its pixels: the file is damaged.")

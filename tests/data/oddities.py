"""Odd, broken and hostile picture files, made by code, and the way that a search takes from them to pixels."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageOps
from tests.data.conftest import noise

from autobackbone.data import LEFT_OUT, DataBundle, DataWarning, Preparation, Survey, decode, printable, survey

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SIDE = 16
"""Pictures are made in the size that they are decoded to, so that whole ones come out to the bit."""

_MOVING = {"save_all": True}
_WAYS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "jpeg": ("RGB", "JPEG", {"quality": 90}),
    "progressive jpeg": ("RGB", "JPEG", {"progressive": True}),
    "jpeg with restarts": ("RGB", "JPEG", {"restart_marker_blocks": 1}),
    "grey jpeg": ("L", "JPEG", {}),
    "cmyk jpeg": ("CMYK", "JPEG", {}),
    "png": ("RGB", "PNG", {}),
    "grey png": ("LA", "PNG", {}),
    "png in one bit": ("1", "PNG", {}),
    "png with alpha": ("RGBA", "PNG", {}),
    "png with palette": ("P", "PNG", {"transparency": 3}),
    "moving png": ("RGB", "PNG", _MOVING),
    "webp": ("RGB", "WEBP", {}),
    "lossless webp": ("RGBA", "WEBP", {"lossless": True}),
    "moving webp": ("RGB", "WEBP", _MOVING),
    "gif": ("P", "GIF", {}),
    "gif with transparency": ("P", "GIF", {"transparency": 3}),
    "moving gif": ("P", "GIF", _MOVING),
    "bmp": ("RGB", "BMP", {}),
    "bmp with palette": ("P", "BMP", {}),
    "tiff": ("RGB", "TIFF", {"tiffinfo": {278: 4}}),  # in strips of four rows
    "tiff with palette": ("P", "TIFF", {}),
    "lzw tiff": ("RGB", "TIFF", {"compression": "tiff_lzw", "strip_size": 4 * 3 * SIDE}),
    "deflate tiff": ("RGB", "TIFF", {"compression": "tiff_adobe_deflate"}),
    "packbits tiff": ("L", "TIFF", {"compression": "packbits"}),
    "jpeg tiff": ("RGB", "TIFF", {"compression": "jpeg"}),
    "tiff of pages": ("RGB", "TIFF", _MOVING),
    "jpeg 2000": ("RGB", "JPEG2000", {}),
    "avif": ("RGB", "AVIF", {}),
    "tga": ("RGB", "TGA", {}),
    "packed tga": ("RGB", "TGA", {"compression": "tga_rle"}),
    "pcx": ("RGB", "PCX", {}),
    "ppm": ("RGB", "PPM", {}),
    "sgi": ("RGB", "SGI", {}),
    "ico": ("RGBA", "ICO", {}),
    "bmp ico": ("RGBA", "ICO", {"bitmap_format": "bmp"}),
    "qoi": ("RGB", "QOI", {}),
    "dds": ("RGB", "DDS", {}),
}
WAYS = tuple(_WAYS)
"""Ways to write a picture: formats, compressions, modes."""

Taken = dict[str, "np.ndarray[Any, Any] | None"]
"""Pixels by the file's name, `None` for one that was left out and named."""


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    """A picture as a file's content."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@functools.cache
def whole(way: str, side: int = SIDE, *, is_smooth: bool = False) -> bytes:
    """The content of a sound file, of noise or of ramps, which compress well: each row differs from the others."""
    mode, kind, options = _WAYS[way]
    first, second = (_drawn(seed, side, mode, is_smooth=is_smooth) for seed in (0, 1))
    if options is _MOVING:
        options = {**options, "append_images": [second]}
    return encoded(first, kind, **options)


def _drawn(seed: int, side: int, mode: str, *, is_smooth: bool) -> Image.Image:
    image = Image.fromarray(ramps(side) if is_smooth else noise(seed, side, side))
    if mode in ("RGBA", "LA"):
        image.putalpha(Image.fromarray(noise(seed + 7, side, side)[..., 0]))
    return image.convert(mode)


def ramps(side: int) -> np.ndarray[Any, Any]:
    """Colours that change by one from pixel to pixel."""
    column, row = np.mgrid[:side, :side]
    return np.stack([row % 256, column % 256, (row + column) % 256], axis=2).astype(np.uint8)


def flipped(content: bytes, bits: Any) -> bytes:
    """The same with some bits, by number, turned over."""
    changed = bytearray(content)
    for bit in bits:
        changed[bit // 8 % len(changed)] ^= 1 << bit % 8
    return bytes(changed)


def as_pillow_reads(content: bytes, preparation: Preparation) -> np.ndarray[Any, Any] | None:
    """What Pillow itself makes of a file's content, in the size that is decoded to; `None` where it raises."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = Image.open(io.BytesIO(content))
            image.load()
            return _shown(image, preparation)
        except Exception:  # noqa: BLE001  # it raises anything
            return None


def _shown(image: Image.Image, preparation: Preparation) -> np.ndarray[Any, Any]:
    with contextlib.suppress(SyntaxError):  # a damaged EXIF block
        image = ImageOps.exif_transpose(image)
    if image.mode[0] in "IF":
        low, high = preparation.value_range or (0.0, 255.0)
        levels = (np.asarray(image, np.float64) - low) * (255.0 / (high - low))
        image = Image.fromarray(np.rint(levels.clip(0, 255)).astype(np.uint8))
    elif image.has_transparency_data:
        seen_through, image = image.convert("RGBA"), Image.new("RGBA", image.size, "white")
        image.alpha_composite(seen_through)
    return np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def folder_of(folder: Path, files: Mapping[str, bytes], n_sound: int | None = None) -> Path:
    """A dataset of two classes with these files in the first, among nine times as many sound ones."""
    photos = folder / "photos"
    for name in "ab":
        (photos / name).mkdir(parents=True)
    sound = folder / "sound.png"
    Image.new("RGB", (SIDE, SIDE), (9, 99, 199)).save(sound)
    for index in range(9 * len(files) + 20 if n_sound is None else n_sound):
        os.link(sound, photos / "ab"[index % 2] / f"sound{index}.png")
    for name, content in files.items():
        (photos / "a" / name).write_bytes(content)
    return photos


def taken(folder: Path, files: Mapping[str, bytes], **asked: Any) -> tuple[Taken, DataBundle]:
    """What a search makes of files: a folder is surveyed, decoded and looked at."""
    bundle = decoded(survey(folder_of(folder, files), **asked), folder / "cache")
    every = pixels_of(bundle)
    return {name: every[f"a/{name}"] for name in files}, bundle


def decoded(found: Survey, cache: Path, **asked: Any) -> DataBundle:
    """The dataset, decoded: of what is left out, all have a reason and the first is named, and nothing else is told."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        bundle = decode(found, [SIDE], cache_dir=cache, **asked)
    lost = np.flatnonzero(bundle.parts == LEFT_OUT)
    (facts,) = bundle.root.glob("*.json")
    reasons = json.loads(facts.read_text(encoding="utf-8"))["unreadable"]
    assert sorted(map(int, reasons)) == lost.tolist()
    assert all(reasons.values())
    assert [warning.category for warning in caught] == [DataWarning] * bool(len(lost)), [str(one) for one in caught]
    if len(lost):
        told = f"{len(lost)} of {len(bundle.names)} pictures cannot be read: '{printable(bundle.names[lost[0]])}'"
        assert str(caught[0].message).startswith(told)
        assert any(line.startswith(told) for line in bundle.skipped)
    return bundle


def pixels_of(bundle: DataBundle) -> Taken:
    """What the bundle holds of each picture."""
    pixels = np.array(bundle.pixels(SIDE)[np.arange(len(bundle.names))])
    is_lost = bundle.parts == LEFT_OUT
    return {name: None if is_lost[index] else pixels[index] for index, name in enumerate(bundle.names)}

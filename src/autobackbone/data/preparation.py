"""How a picture becomes pixels: the one path for the store, for prediction and for whatever is exported."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from PIL import Image, ImageOps

from autobackbone.data.pictures import Picture, as_rgb
from autobackbone.errors import DataError
from autobackbone.records import ImageSize, Resize

if TYPE_CHECKING:
    from collections.abc import Mapping

_INTERPOLATIONS = tuple(filter_.name.lower() for filter_ in Image.Resampling)
# ImageNet's mean colour, where most backbones see "nothing".
BORDER = (124, 116, 104)


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """How a picture becomes pixels.

    Args:
        resize: `squash` keeps everything and changes the aspect ratio; `pad` keeps everything, centred on a border;
            `crop` keeps the aspect ratio and cuts the longer side on both ends.
        interpolation: Pillow's name: nearest, box, bilinear, hamming, bicubic or lanczos.
        value_range: what becomes 0 and 255 in arrays and in pictures above 8 bits; `None` where all have 8 bits.
        channels: the channels to take, from 0: one, or three as red, green and blue; `None` takes them as they are.

    Raises:
        DataError: a value outside these.

    Example:
        >>> Preparation.from_json(Preparation(resize="pad").to_json()) == Preparation(resize="pad")
        True
    """

    resize: Resize = "squash"
    interpolation: str = "bicubic"
    value_range: tuple[float, float] | None = None
    channels: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.resize not in get_args(Resize):
            raise DataError(f"resize is 'squash', 'pad' or 'crop'; {self.resize!r} came.")
        if self.interpolation not in _INTERPOLATIONS:
            raise DataError(f"interpolation is one of {', '.join(_INTERPOLATIONS)}; {self.interpolation!r} came.")
        if self.value_range is not None:
            object.__setattr__(self, "value_range", _checked_range(self.value_range))
        if self.channels is not None:
            object.__setattr__(self, "channels", _checked_channels(self.channels))

    def to_json(self) -> dict[str, Any]:
        """Give a plain dict that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> Preparation:
        """Read what `to_json` gave, also after a way through JSON."""
        return cls(**facts)


def to_pixels(picture: Picture, image_size: ImageSize, preparation: Preparation) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Turn one picture into pixels, exactly as the store does.

    Args:
        picture: a Pillow image, a path, or an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4).
        image_size: height and width in pixels.
        preparation: how; transparency is always laid on white, EXIF rotation always applied.

    Returns:
        (height, width, 3) uint8, RGB.

    Raises:
        DataError: a picture that cannot be used; a file that cannot be decoded raises what Pillow raises.

    Example:
        >>> to_pixels(np.zeros((5, 9), np.uint8), (4, 6), Preparation()).shape
        (4, 6, 3)
    """
    return fit(
        as_rgb(picture, value_range=preparation.value_range, channels=preparation.channels), image_size, preparation
    )


def fit(rgb: Image.Image, image_size: ImageSize, preparation: Preparation) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Resize an RGB image to (height, width, 3) uint8, straight from the original in one step."""
    resample = Image.Resampling[preparation.interpolation.upper()]
    size = (image_size[1], image_size[0])
    if preparation.resize == "squash":
        return np.asarray(rgb.resize(size, resample))
    if preparation.resize == "crop":
        return np.asarray(ImageOps.fit(rgb, size, resample))
    return np.asarray(_padded(rgb, size, resample))


def _padded(rgb: Image.Image, size: tuple[int, int], resample: Image.Resampling) -> Image.Image:
    # Not ImageOps.pad: it rounds the thin side of a 1 × 1000 picture to 0 pixels and raises.
    scale = min(size[0] / rgb.width, size[1] / rgb.height)
    width, height = (max(1, min(side, round(old * scale))) for side, old in zip(size, rgb.size, strict=True))
    canvas = Image.new("RGB", size, BORDER)
    canvas.paste(rgb.resize((width, height), resample), ((size[0] - width) // 2, (size[1] - height) // 2))
    return canvas


def _checked_range(value_range: Any) -> tuple[float, float]:
    try:
        low, high = (float(value) for value in (() if isinstance(value_range, str) else value_range))
    except (TypeError, ValueError, OverflowError):
        raise DataError(f"value_range is (low, high), what becomes black and white; {value_range!r} came.") from None
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise DataError(f"value_range is (low, high) with low below high, both finite; {value_range!r} came.")
    return low, high


def _checked_channels(channels: Any) -> tuple[int, ...]:
    taken = tuple(channels) if isinstance(channels, (tuple, list)) else ()
    if len(taken) not in (1, 3) or not all(type(index) is int and index >= 0 for index in taken):
        raise DataError(f"channels is (i,) or (i, j, k), whole numbers from 0; {channels!r} came.")
    return taken

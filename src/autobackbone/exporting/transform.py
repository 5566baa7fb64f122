"""From a picture to what the network takes: the very preprocessing that it was trained with."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from autobackbone.data import Preparation, to_pixels
from autobackbone.data.pictures import ChannelsError, DepthError
from autobackbone.errors import DataError
from autobackbone.records import ImageSize, Normalisation


@dataclass(frozen=True, slots=True, kw_only=True)
class Transform:
    """Turns one picture into one input of the network; the search's own pictures went the same way, bit for bit.

    Args:
        image_size: height and width in pixels that the network takes.
        preparation: how a picture becomes pixels: resizing, range of values, channels.
        normalisation: how pixels enter the backbone.
    """

    image_size: ImageSize
    preparation: Preparation
    normalisation: Normalisation

    def __call__(self, picture: Any) -> Tensor:
        """Prepare one picture.

        Args:
            picture: a PIL image, a path, or an array (height, width) or (height, width, channels).

        Returns:
            (3, height, width) float32, normalised.
        """
        # A copy: pixels may be a view of the picture, which torch must not be able to write to.
        pixels = np.array(to_pixels(picture, self.image_size, self.preparation))
        return normalise(torch.from_numpy(pixels)[None], self.normalisation)[0]

    def to_json(self) -> dict[str, Any]:
        """Plain data that `from_json` reads."""
        return {
            "image_size": list(self.image_size),
            "preparation": self.preparation.to_json(),
            "normalisation": asdict(self.normalisation),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Transform:
        """Read what `to_json` wrote."""
        norm = value["normalisation"]
        return cls(
            image_size=(int(value["image_size"][0]), int(value["image_size"][1])),
            preparation=Preparation.from_json(value["preparation"]),
            normalisation=Normalisation(
                mean=tuple(norm["mean"]), std=tuple(norm["std"]), interpolation=norm["interpolation"]
            ),
        )


def to_input(transform: Transform, picture: Any) -> Tensor:
    """One picture of a user's as an input of the network, (3, height, width) float32.

    Raises:
        DataError: it cannot be read as a picture.
    """
    named = repr(str(picture)) if isinstance(picture, (str, Path)) else _in_words(picture)
    try:
        return transform(picture)
    except DepthError as error:
        raise DataError(
            f"{named} has more than 8 bits, and what this network was trained on had 8: what is black and what is "
            "white is not known. Give it as uint8, from 0 for black to 255."
        ) from error
    except ChannelsError as error:
        if transform.preparation.channels is not None:  # it says which ones the network takes
            raise DataError(f"{named} cannot be read as a picture: {error}") from error
        raise DataError(
            f"{named} has other channels than a picture: they are 1, 3 or 4 and come last, (height, width, channels). "
            "Turn it, or take from it what this network was trained on."
        ) from error
    except Exception as error:  # decoders meet broken bytes with any exception
        reason = str(error).removesuffix(".") or type(error).__name__
        raise DataError(f"{named} cannot be read as a picture: {reason}. Leave it out.") from error


def _in_words(picture: Any) -> str:
    if isinstance(picture, np.ndarray):
        return f"an array {picture.shape} of {picture.dtype}"
    return f"a picture of {type(picture).__name__}"


def as_pictures(images: Any) -> Sequence[Any]:
    """Pictures in any form that users give, as a list; files are not opened.

    Raises:
        DataError: they are no pictures, or are not there.

    Example:
        >>> len(as_pictures(np.zeros((5, 16, 16))))
        5
    """
    is_one = isinstance(images, (str, Path)) or hasattr(images, "convert")
    # (height, width, 3) is one colour picture, not a stack of narrow grey ones.
    is_colour = isinstance(images, np.ndarray) and images.ndim == 3 and images.shape[-1] in (3, 4)
    is_grey = isinstance(images, np.ndarray) and images.ndim == 2
    if is_one or is_colour or is_grey:
        images = [images]
    if not isinstance(images, (np.ndarray, Sequence)):
        raise DataError(f"pictures come as a list of paths, PIL images or arrays, or as one array; {images!r} came.")
    if isinstance(images, np.ndarray) and images.ndim < 3:
        raise DataError(
            f"pictures come as a list, or as an array (n, height, width) or (n, height, width, channels); "
            f"an array of shape {images.shape} came. Put a single picture into a list."
        )
    foreign = next((one for one in images if not _is_picture(one)), None)
    if foreign is not None:
        raise DataError(
            f"a picture is a path, a PIL image or an array (height, width[, channels]); {type(foreign).__name__} came."
        )
    # Not Path.is_dir and is_file: they raise for names too long and for folders without rights.
    folder = next((one for one in images if isinstance(one, (str, Path)) and os.path.isdir(one)), None)  # noqa: PTH112
    if folder is not None:
        raise DataError(
            f"{str(folder)!r} is a folder. Give its pictures, such as list(Path({str(folder)!r}).iterdir())."
        )
    missing = [one for one in images if isinstance(one, (str, Path)) and not os.path.isfile(one)]  # noqa: PTH113
    if missing:
        raise DataError(f"{len(missing)} of {len(images)} pictures are not there, the first {str(missing[0])!r}.")
    return list(images)


def _is_picture(one: Any) -> bool:
    return isinstance(one, (str, Path, np.ndarray)) or hasattr(one, "convert")


def normalise(pixels: Tensor, normalisation: Normalisation) -> Tensor:
    """Pixels to the network's input.

    Args:
        pixels: (n, height, width, 3) uint8.
        normalisation: mean and standard deviation of each channel, on the scale 0 to 1.

    Returns:
        (n, 3, height, width) float32. Its memory is laid out channels last, which a CPU's convolutions like better
        (lite0 at 160 px on two cores: 68 pictures/s against 50).
    """
    mean = torch.tensor(normalisation.mean, device=pixels.device) * 255
    std = torch.tensor(normalisation.std, device=pixels.device) * 255
    return ((pixels.to(torch.float32) - mean) / std).permute(0, 3, 1, 2)

"""From a picture to what the network takes: the very preprocessing that it was trained with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from autobackbone.data import Preparation, to_pixels
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

"""Augmentation: pictures moved and zoomed a little, by shares of their own size.

No mirroring: letters, digits and left hands change their meaning by it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

# Shares of the picture's own sides: two pixels of 32, fourteen of 224.
_SHIFT_SHARE = 1 / 16
_ZOOM_SHARE = 0.1
# ImageNet's mean colour, where the moved picture leaves a gap.
_GAP_COLOUR = [124.0, 116.0, 104.0]


def augmented(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Another view of pictures.

    Args:
        pixels: (n, height, width, 3) uint8.
        generator: draws one shift and one zoom for the batch.

    Returns:
        (n, height, width, 3) uint8.

    Example:
        >>> picture = torch.zeros(1, 32, 32, 3, dtype=torch.uint8)
        >>> augmented(picture, torch.Generator().manual_seed(0)).shape
        torch.Size([1, 32, 32, 3])
    """
    down, right, zoom = (2 * torch.rand(3, generator=generator) - 1).tolist()
    _, height, width, _ = pixels.shape
    moved: Tensor = transforms.affine(
        pixels.permute(0, 3, 1, 2),
        angle=0.0,
        translate=[round(right * _SHIFT_SHARE * width), round(down * _SHIFT_SHARE * height)],
        scale=1 + zoom * _ZOOM_SHARE,
        shear=[0.0, 0.0],
        interpolation=InterpolationMode.BILINEAR,
        fill=_GAP_COLOUR,
    )
    return moved.permute(0, 2, 3, 1)


class Augment:
    """Draws a new view of a batch at each call, the same ones for the same seed."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def begin(self, seed: int) -> None:
        """Draw from now on what this seed draws."""
        self.generator.manual_seed(seed)

    def __call__(self, pictures: Tensor) -> Tensor:
        """Give another view of pictures (n, height, width, 3)."""
        return augmented(pictures, self.generator)

"""Pictures that the tests of this room make for themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    from pathlib import Path


def noise(seed: int, height: int = 12, width: int = 10) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def fill(folder: Path, n: int, *, suffix: str = ".png", seed: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    # Seeded by the folder's name too, so that no two pictures of a tree are alike.
    base = seed + sum(map(ord, str(folder.name))) * 1000
    for index in range(n):
        Image.fromarray(noise(base + index)).save(folder / f"{index}{suffix}")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Three classes of 20 pictures."""
    root = tmp_path / "photos"
    for name in ("ant", "bee", "cat"):
        fill(root / name, 20)
    return root

"""Networks for tests: small, with random weights in which no branch is switched off."""

from __future__ import annotations

import copy
from functools import lru_cache

import pytest
import torch
from benchmarks.families import wake
from torchvision import models

from autobackbone.backbones.build import build


@pytest.fixture(scope="session")
def awake():
    """Build a network whose zero-initialised branches (layer scale, last batch norm of a block) take part."""

    # The last one is often wanted again, and to copy a network takes a tenth of building it.
    @lru_cache(maxsize=1)
    def build_awake(name, image_size, n_classes, seed):
        return wake(build(name, n_classes=n_classes, image_size=image_size, seed=seed), seed=seed)

    def make(name, image_size, *, n_classes=3, seed=0):
        return copy.deepcopy(build_awake(name, image_size, n_classes, seed))

    return make


@pytest.fixture(scope="session")
def pictures():
    """Draw random normalised pictures."""

    def draw(image_size, n=4, seed=0):
        return torch.randn(n, 3, *image_size, generator=torch.Generator().manual_seed(seed))

    return draw


@pytest.fixture(scope="session")
def torchvision_weights(tmp_path_factory):
    """A function: an architecture of torchvision to a file of random weights, as torchvision saves them."""
    folder = tmp_path_factory.mktemp("torchvision")

    def make(architecture, **arguments):
        file = folder / f"{architecture}.pth"
        if not file.exists():
            torch.manual_seed(0)
            torch.save(models.get_model(architecture, weights=None, **arguments).state_dict(), file)
        return file

    return make

"""Networks for tests: small, with random weights in which no branch is switched off."""

from __future__ import annotations

import copy
from functools import lru_cache

import pytest
import torch

from autobackbone.backbones.blocks import head_parameter_names
from autobackbone.backbones.build import build
from autobackbone.backbones.head import head_weights, set_head


@pytest.fixture(scope="session")
def awake():
    """Build a network whose zero-initialised branches (layer scale, last batch norm of a block) take part."""

    # The last one is often wanted again, and to copy a network takes a tenth of building it.
    @lru_cache(maxsize=1)
    def build_awake(name, image_size, n_classes, seed):
        model = build(name, n_classes=n_classes, image_size=image_size, seed=seed)
        generator = torch.Generator().manual_seed(seed)
        head = set(head_parameter_names(model))
        for key, parameter in model.named_parameters():
            values = parameter.detach()
            if key not in head and bool((values == values.flatten()[0]).all()):
                parameter.data.add_(torch.empty_like(parameter).uniform_(0.1, 0.3, generator=generator))
        # Some families start from a head of zeros, through which no gradient passes.
        weight, bias = head_weights(model)
        set_head(model, torch.empty_like(weight).normal_(generator=generator), bias)
        return model

    def make(name, image_size, *, n_classes=3, seed=0):
        return copy.deepcopy(build_awake(name, image_size, n_classes, seed))

    return make


@pytest.fixture(scope="session")
def pictures():
    """Draw random normalised pictures."""

    def draw(image_size, n=4, seed=0):
        return torch.randn(n, 3, *image_size, generator=torch.Generator().manual_seed(seed))

    return draw

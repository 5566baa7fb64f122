"""One meaning of `n_unfrozen` for every timm family, shown on the smallest network of each that has weights.

With `n_unfrozen=k` exactly the parameters of the last k blocks and of the head change within three steps, all others
stay bit-equal, and no running statistic moves. Weights are random, and no branch is switched off. Blocks are counted
alike with weights and without.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
import torch
from benchmarks.families import LARGE, QUICK, SLOW
from torch import nn

from autobackbone.backbones.blocks import blocks_of, set_training_mode, trainable_names, unfreeze
from autobackbone.backbones.head import verify_head
from autobackbone.backbones.source import BackboneSource


def test_every_family_is_either_shown_or_left_out():
    assert sorted((*QUICK, *SLOW, *LARGE)) == sorted(timm.list_modules())


def test_every_family_has_its_row_in_the_table_of_cuts():
    rows = json.loads((Path(__file__).parents[2] / "docs" / "benchmarks" / "splits.json").read_text(encoding="utf-8"))
    assert [row["family"] for row in rows] == sorted(timm.list_modules())


@pytest.mark.parametrize("depth", ["last", "middle", "all"])
@pytest.mark.parametrize("family", QUICK)
def test_exactly_the_last_blocks_and_the_head_change(family, depth, awake):
    show(*QUICK[family], depth, awake)


@pytest.mark.slow
@pytest.mark.parametrize("depth", ["last", "middle", "all"])
@pytest.mark.parametrize("family", SLOW)
def test_exactly_the_last_blocks_and_the_head_change_in_every_family(family, depth, awake):
    show(*SLOW[family], depth, awake)


def show(name, side, depth, awake):
    model = awake(name, (side, side))
    n_blocks = len(blocks_of(model))
    assert BackboneSource({}, n_classes=3).n_blocks(name) == n_blocks
    n_unfrozen = {"last": 1, "middle": max(1, n_blocks // 2), "all": n_blocks}[depth]
    images = torch.randn(4, 3, side, side, generator=torch.Generator().manual_seed(3))
    # A first pass: ConViT fills its table of positions in it.
    assert verify_head(model, images)
    before = {key: value.detach().clone() for key, value in (*model.named_parameters(), *model.named_buffers())}
    three_steps(model, n_unfrozen, images)

    after = dict((*model.named_parameters(), *model.named_buffers()))
    changed = {key for key, value in before.items() if not torch.equal(value, after[key])}
    without_gradient = {key for key, value in model.named_parameters() if value.requires_grad and value.grad is None}
    assert changed == trainable_names(model, n_unfrozen)
    assert not without_gradient


def three_steps(model, n_unfrozen, images):
    unfreeze(model, n_unfrozen)
    # No weight decay: it would also move a parameter whose gradient is zero, and so hide a dead one.
    training = [one for one in model.parameters() if one.requires_grad]
    optimiser = torch.optim.AdamW(training, lr=1e-2, weight_decay=0.0)
    for _ in range(3):
        set_training_mode(model)
        optimiser.zero_grad()
        torch.autograd.backward(nn.functional.cross_entropy(model(images), torch.tensor([0, 1, 2, 0])))
        optimiser.step()

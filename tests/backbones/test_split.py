from __future__ import annotations

import copy
import logging

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from autobackbone.backbones.blocks import blocks_of, unfreeze
from autobackbone.backbones.split import packed, split_at

# A network, a size, and where the cut lies for one unfrozen block.
NETWORKS = [
    ("test_resnet.r160_in1k", 64, "layer4"),
    ("test_efficientnet.r160_in1k", 64, "blocks.4"),
    ("test_convnext.r160_in1k", 64, "stages.3"),
    ("test_vit.r160_in1k", 160, "blocks.5"),
    ("deit_tiny_distilled_patch16_224.fb_in1k", 64, "blocks.11"),
    ("mobilenetv3_small_050.lamb_in1k", 64, "conv_head"),
    ("levit_128s.fb_dist_in1k", 224, "stages.2"),
    # A map and its class token enter together, and two branches in a list.
    ("pit_ti_224.in1k", 224, "transformers.2"),
    ("crossvit_tiny_240.in1k", 240, "blocks.2"),
]


@pytest.mark.parametrize(("name", "side", "entry"), NETWORKS)
def test_the_tail_gives_the_networks_logits_on_other_pictures(name, side, entry, awake, pictures):
    model = awake(name, (side, side))
    split = split_at(model, 1, pictures((side, side), 2))
    assert split is not None
    assert split.entry == entry
    others = pictures((side, side), 3, seed=9)
    with torch.no_grad():
        torch.testing.assert_close(split.tail(split.prefix(others)), model(others), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "side"), [(name, side) for name, side, _ in (*NETWORKS[:4], NETWORKS[-1])])
def test_training_the_tail_trains_the_model_as_training_it_whole_would(name, side, awake, pictures):
    size, labels = (side, side), torch.tensor([0, 1, 2, 0])
    whole = awake(name, size)
    other = copy.deepcopy(whole)
    split = split_at(other, 1, pictures(size))
    assert split is not None
    for model in (whole, other):
        unfreeze(model, 1)
    stored = split.prefix(pictures(size))
    for network, entering in ((whole, pictures(size)), (split.tail.train(), stored)):
        optimiser = torch.optim.SGD([one for one in network.parameters() if one.requires_grad], lr=0.1)
        for _ in range(3):
            optimiser.zero_grad()
            torch.autograd.backward(nn.functional.cross_entropy(network(entering), labels))
            optimiser.step()
    torch.testing.assert_close(other.state_dict(), whole.state_dict(), rtol=1e-3, atol=1e-5)


def test_branches_are_packed_side_by_side_and_a_single_tensor_stays():
    branches = [torch.arange(6.0).reshape(2, 3), torch.arange(8.0).reshape(2, 2, 2)]
    assert packed(branches).tolist() == [[0, 1, 2, 0, 1, 2, 3], [3, 4, 5, 4, 5, 6, 7]]
    assert packed(branches[1]) is branches[1]


@settings(max_examples=8, deadline=None)
@given(n_unfrozen=st.integers(1, 4), n_pictures=st.integers(1, 5))
def test_every_depth_and_batch_size_agrees(n_unfrozen, n_pictures, awake, pictures):
    model = awake("test_resnet.r160_in1k", (64, 64))
    split = split_at(model, n_unfrozen, pictures((64, 64), 2))
    assert split is not None
    images = pictures((64, 64), n_pictures)
    with torch.no_grad():
        torch.testing.assert_close(split.tail(split.prefix(images)), model(images))


def test_the_cut_is_as_late_as_the_first_trainable_layer(awake, pictures):
    model = awake("test_vit.r160_in1k", (160, 160))
    entries = [split_at(model, k, pictures((160, 160), 2)) for k in (1, 2, 3)]
    assert [split.entry for split in entries if split] == ["blocks.5", "blocks.4", "blocks.3"]


def test_the_model_is_the_same_afterwards(awake, pictures):
    model = awake("test_resnet.r160_in1k", (64, 64))
    unfreeze(model, 2)
    before = copy.deepcopy(model.state_dict())
    modes = [module.training for module in model.modules()]
    flags = [parameter.requires_grad for parameter in model.parameters()]
    split_at(model, 1, pictures((64, 64), 2))
    assert list(before) == list(model.state_dict())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_the_tail_holds_the_models_own_parameters_and_no_frozen_block(awake, pictures):
    model = awake("test_resnet.r160_in1k", (64, 64))
    split = split_at(model, 2, pictures((64, 64), 2))
    assert split is not None
    own = dict(model.named_parameters())
    held = {name.removeprefix("body."): value for name, value in split.tail.named_parameters()}
    assert all(own[name] is value for name, value in held.items())
    assert not any(name in held for block in blocks_of(model)[:3] for name in block)


def test_stored_activations_carry_no_graph_and_need_no_eval_mode(awake, pictures):
    model = awake("test_resnet.r160_in1k", (64, 64))
    split = split_at(model, 1, pictures((64, 64), 2))
    assert split is not None
    calm = split.prefix(pictures((64, 64)))
    model.train()
    assert torch.equal(split.prefix(pictures((64, 64))), calm)
    assert not calm.requires_grad
    assert model.training


def test_a_tail_in_training_keeps_running_statistics_still(awake, pictures):
    model = awake("test_resnet.r160_in1k", (64, 64))
    unfreeze(model, 1)
    split = split_at(model, 1, pictures((64, 64), 2))
    assert split is not None
    before = copy.deepcopy(dict(model.named_buffers()))
    split.tail.train()(split.prefix(pictures((64, 64))))
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())


def test_positions_that_all_blocks_share_are_there_behind_the_cut(awake, pictures):
    # They are computed by a layer, from no picture.
    model = awake("vit_srelpos_small_patch16_224.sw_in1k", (96, 96))
    split = split_at(model, 1, pictures((96, 96), 2))
    assert split is not None
    assert split.entry == "blocks.11"
    others = pictures((96, 96), 3, seed=9)
    with torch.no_grad():
        torch.testing.assert_close(split.tail(split.prefix(others)), model(others), rtol=1e-4, atol=1e-4)


def test_why_a_cut_does_not_hold_is_logged(awake, pictures, caplog):
    model = awake("efficientvim_m1", (64, 64))
    with caplog.at_level(logging.DEBUG, logger="autobackbone.backbones.split"):
        assert split_at(model, 1, pictures((64, 64), 2)) is None
    assert [record.getMessage() for record in caplog.records] == [
        "EfficientViM has no cut before norm.0: other gradients"
    ]


@pytest.mark.parametrize("n_unfrozen", [1, 2])
def test_a_connection_over_the_cut_leaves_no_split(n_unfrozen, awake, pictures):
    model = awake("efficientvim_m1", (64, 64))
    assert split_at(model, n_unfrozen, pictures((64, 64), 2)) is None


def test_nothing_is_left_to_store_when_all_blocks_train(awake, pictures):
    model = awake("test_resnet.r160_in1k", (64, 64))
    assert split_at(model, len(blocks_of(model)), pictures((64, 64), 2)) is None

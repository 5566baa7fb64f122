from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from autobackbone.backbones.blocks import blocks_of, head_parameter_names, set_training_mode, trainable_names, unfreeze
from autobackbone.backbones.build import build
from autobackbone.errors import BackboneError

NET = build("test_resnet.r160_in1k", n_classes=3, image_size=(64, 64))


BATCH_NORMS = [module for module in NET.modules() if isinstance(module, nn.BatchNorm2d)]


@pytest.mark.parametrize(
    ("name", "n_blocks"),
    [
        ("resnet50.a1_in1k", 5),
        ("tf_efficientnet_lite0.in1k", 8),
        ("efficientnet_b0.ra_in1k", 8),
        ("inception_v3.tv_in1k", 13),
        ("convnext_atto.d2_in1k", 5),
        ("deit_tiny_patch16_224.fb_in1k", 13),
        ("mobilenetv3_small_050.lamb_in1k", 8),
        ("poolformerv2_s12.sail_in1k", 5),
        ("pit_ti_224.in1k", 4),
    ],
)
def test_known_networks_have_known_depth(name, n_blocks):
    side = 224 if name.startswith("pit") else 64 if "inception" not in name else 128
    assert len(blocks_of(build(name, n_classes=3, image_size=(side, side)))) == n_blocks


def test_a_convolution_left_over_is_a_block_and_a_norm_joins_the_one_before():
    late_convolution = blocks_of(build("mobilenetv3_small_050.lamb_in1k", n_classes=3, image_size=(64, 64)))
    late_norm = blocks_of(build("test_vit.r160_in1k", n_classes=3, image_size=(160, 160)))
    assert late_convolution[-1] == ("conv_head.weight", "conv_head.bias")
    assert late_norm[-1][-2:] == ("norm.weight", "norm.bias")


@given(st.integers(0, 5))
def test_the_last_blocks_and_the_head_train_and_nothing_else(n_unfrozen):
    unfreeze(NET, n_unfrozen)
    training = {name for name, parameter in NET.named_parameters() if parameter.requires_grad}
    blocks = blocks_of(NET)
    assert training == set(head_parameter_names(NET)).union(*blocks[len(blocks) - n_unfrozen :])


@given(st.integers(0, 4))
def test_more_unfrozen_blocks_never_freeze_one(n_unfrozen):
    assert trainable_names(NET, n_unfrozen) < trainable_names(NET, n_unfrozen + 1)


@pytest.mark.parametrize("n_unfrozen", [-1, 6])
def test_more_blocks_than_there_are_is_refused(n_unfrozen):
    with pytest.raises(BackboneError, match=f"from 0 to its 5 blocks; {n_unfrozen} came"):
        unfreeze(NET, n_unfrozen)


@given(st.integers(0, 5))
def test_fixed_statistics_stay_in_eval_mode_wherever_they_are(n_unfrozen):
    unfreeze(NET, n_unfrozen)
    assert not any(module.training for module in BATCH_NORMS)


@given(st.integers(0, 5))
def test_batch_statistics_move_in_unfrozen_blocks_only(n_unfrozen):
    unfreeze(NET, n_unfrozen, batch_norm="batch")
    assert all(module.training == module.weight.requires_grad for module in BATCH_NORMS)


@settings(deadline=None)
@given(st.integers(0, 13))
def test_dropout_works_in_the_unfrozen_blocks_and_before_the_head_only(n_unfrozen):
    model = build("test_vit.r160_in1k", n_classes=3, image_size=(160, 160))
    blocks = list(model.get_submodule("blocks").children())
    n_unfrozen = min(n_unfrozen, len(blocks) + 1)
    unfreeze(model, n_unfrozen)
    trains = [block.get_submodule("mlp.drop1").training for block in blocks]
    assert trains == [index >= len(blocks) - n_unfrozen for index in range(len(blocks))]
    assert model.get_submodule("head_drop").training == (n_unfrozen > 0)
    assert model.get_submodule("pos_drop").training == (n_unfrozen > len(blocks))


def test_biases_remembered_in_eval_mode_are_forgotten_before_training():
    model = build("levit_128s.fb_dist_in1k", n_classes=3, image_size=(224, 224))
    attention = model.get_submodule("stages.2.blocks.0.attn")
    with torch.no_grad():
        model(torch.zeros(1, 3, 224, 224))
    assert attention.attention_bias_cache
    unfreeze(model, 1)
    set_training_mode(model)
    assert not attention.attention_bias_cache

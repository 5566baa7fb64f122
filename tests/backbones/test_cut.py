from __future__ import annotations

import copy
import logging
import warnings

import pytest
import torch
from benchmarks.families import QUICK, SLOW
from tests.conftest import TINY
from torch import nn

from autobackbone.backbones.blocks import blocks_of, head_parameter_names, set_training_mode, unfreeze
from autobackbone.backbones.build import build
from autobackbone.backbones.cut import cut_after, cut_entries, pooled
from autobackbone.backbones.head import classifier_layers, features, head_weights, n_features, set_head, verify_head
from autobackbone.backbones.source import BackboneSource
from autobackbone.backbones.split import split_at
from autobackbone.backbones.weights import find_weights
from autobackbone.errors import BackboneError

# A network, a size, how many blocks are kept, what is pooled, and how wide it is.
CUTS = [
    ("resnet18.a1_in1k", 64, 3, "mean of the map", 128),
    ("tf_efficientnet_lite0.in1k", 64, 7, "mean of the map", 192),
    ("convnext_atto.d2_in1k", 64, 3, "mean of the map", 80),
    ("test_vit.r160_in1k", 160, 4, "class token", 64),
    ("swin_tiny_patch4_window7_224.ms_in1k", 64, 2, "mean of the map, channels last", 96),
    # Its pooling stands before the last convolution, and an activation behind it.
    ("mobilenetv3_small_050.lamb_in1k", 64, 7, "mean of the map", 288),
    ("mobilenetv3_small_050.lamb_in1k", 64, 3, "mean of the map", 16),
    ("densenet121.ra_in1k", 64, 3, "mean of the map", 256),
    ("regnetx_002.pycls_in1k", 64, 4, "mean of the map", 152),
    ("mobilevit_xxs.cvnets_in1k", 64, 4, "mean of the map", 48),
    # Two classifiers whose outputs are averaged, and attention biases that are kept in eval mode.
    ("levit_128s.fb_dist_in1k", 224, 2, "mean of the tokens", 128),
    # A stage answers the tokens and the size of their map.
    ("mvitv2_tiny.fb_in1k", 64, 3, "mean of the tokens", 192),
    # Registers stand beside the class token.
    ("vit_tiny_patch16_dinov3_qkvb", 64, 6, "mean of the tokens after 5", 192),
]
FEW = [CUTS[0], CUTS[1], CUTS[3], CUTS[5]]


def both(awake, pictures, name, side, kept):
    whole = awake(name, (side, side))
    short = cut_after(whole, kept, pictures((side, side), 2))
    assert short is not None
    return whole, short


def plain_pooling(pooling, entering):
    if pooling.startswith("mean of the tokens after"):
        return entering[:, int(pooling.split()[-1]) :].mean(1)
    return {
        "mean of the map": lambda: entering.mean((-2, -1)),
        "mean of the map, channels last": lambda: entering.mean((1, 2)),
        "mean of the tokens": lambda: entering.mean(1),
        "class token": lambda: entering[:, 0],
    }[pooling]()


def assert_the_first_blocks_alone(whole, short, kept):
    first, own = blocks_of(whole)[:kept], blocks_of(short)
    stayed = own[-1][len(first[-1]) :]
    assert own == (*first[:-1], (*first[-1], *stayed))
    assert all(one.startswith(("norm.", "fc_norm.")) for one in stayed)
    before = dict(whole.named_parameters())
    names = {name for block in own for name in block}
    assert {name for name, _ in short.named_parameters()} == names.union(head_parameter_names(short))
    assert set(short.state_dict()) < set(whole.state_dict())
    assert all(torch.equal(value, before[name]) for name, value in short.named_parameters() if name in names)
    assert list(classifier_layers(short)) == list(classifier_layers(whole))
    held = {tensor.data_ptr() for tensor in (*whole.parameters(), *whole.buffers())}
    assert held.isdisjoint(tensor.data_ptr() for tensor in (*short.parameters(), *short.buffers()) if tensor.numel())


@pytest.mark.parametrize(("name", "side", "kept", "pooling", "width"), CUTS)
def test_a_cut_is_the_first_blocks_and_its_features_their_output_pooled(
    name, side, kept, pooling, width, awake, pictures
):
    whole, short = both(awake, pictures, name, side, kept)
    assert_the_first_blocks_alone(whole, short, kept)
    entry = cut_entries(whole, pictures((side, side), 2), [kept])[kept]
    assert (entry.pooling, entry.n_features, n_features(short)) == (pooling, width, width)
    others, caught = pictures((side, side), 3, seed=9), []
    with torch.no_grad():
        handle = whole.get_submodule(entry.module).register_forward_pre_hook(lambda _, got: caught.append(got[0]))
        whole(others)
        handle.remove()
        wanted = caught[0]
        for norm in entry.norms:
            wanted = norm(wanted)
        got = features(short, others)
    torch.testing.assert_close(got, plain_pooling(pooling, wanted), rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))


@pytest.mark.parametrize(("name", "side", "kept"), [cut[:3] for cut in (*FEW, CUTS[6], CUTS[7], CUTS[10])])
def test_built_again_it_is_the_same_network_and_takes_its_state(name, side, kept, awake, pictures):
    _, short = both(awake, pictures, name, side, kept)
    again = build(name, n_classes=3, image_size=(side, side), seed=5, n_blocks_kept=kept)
    assert repr(again) == repr(short)
    assert not any(module.training for module in again.modules())
    again.load_state_dict(short.state_dict())
    images = pictures((side, side), 3)
    with torch.no_grad():
        assert torch.equal(again(images), short(images))


@pytest.mark.parametrize(("name", "side", "kept"), [cut[:3] for cut in FEW])
def test_everything_that_works_on_a_whole_network_works_on_it(name, side, kept, awake, pictures):
    _, short = both(awake, pictures, name, side, kept)
    images = pictures((side, side), 2)
    set_head(short, torch.randn(3, n_features(short)), torch.tensor([1.0, 2.0, 3.0]))
    assert verify_head(short, images)
    assert head_weights(short).bias.tolist() == [1, 2, 3]
    twin = copy.deepcopy(short)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch would rather compile, and shapes are read
        traced = torch.jit.trace(short, images)
    more = pictures((side, side), 5)
    with torch.no_grad():
        torch.testing.assert_close(traced(more), short(more))
        assert torch.equal(twin(more), short(more))
        split = split_at(short, 1, images)
        assert split is not None
        torch.testing.assert_close(split.tail(split.prefix(more)), short(more), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("n_unfrozen", [0, 1, 2])
@pytest.mark.parametrize(("name", "side", "kept"), [cut[:3] for cut in FEW])
def test_exactly_the_last_blocks_and_the_head_train(name, side, kept, n_unfrozen, awake, pictures):
    _, short = both(awake, pictures, name, side, kept)
    unfreeze(short, n_unfrozen)
    set_training_mode(short)
    torch.autograd.backward(nn.functional.cross_entropy(short(pictures((side, side), 2)), torch.tensor([0, 1])))
    wanted = {name for block in blocks_of(short)[kept - n_unfrozen :] for name in block}
    moved = {name for name, parameter in short.named_parameters() if parameter.grad is not None}
    assert moved == wanted.union(head_parameter_names(short))


@pytest.mark.parametrize(("name", "side", "kept"), [cut[:3] for cut in FEW])
def test_one_pass_of_the_whole_network_gives_the_features_of_every_cut(name, side, kept, awake, pictures):
    whole = awake(name, (side, side))
    sample, others = pictures((side, side), 2), pictures((side, side), 3, seed=9)
    entries = cut_entries(whole, sample)
    assert kept in entries
    n_passes = []
    handle = whole.register_forward_hook(lambda *_: n_passes.append(1))
    with torch.no_grad():
        found = pooled(whole, entries, others)
        handle.remove()
        assert len(n_passes) == 1
        assert set(found) == {*entries, len(blocks_of(whole))}
        assert torch.equal(found[len(blocks_of(whole))], features(whole, others))
        for k in {kept, max(entries)}:
            short = cut_after(whole, k, sample)
            assert short is not None
            wanted = features(short, others)
            torch.testing.assert_close(found[k], wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().max()))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in whole.modules())


def test_the_model_is_the_same_afterwards(awake, pictures):
    model = awake("test_vit.r160_in1k", (160, 160))
    unfreeze(model, 2)
    before, printed = copy.deepcopy(model.state_dict()), repr(model)
    modes = [module.training for module in model.modules()]
    flags = [parameter.requires_grad for parameter in model.parameters()]
    cut_after(model, 3, pictures((160, 160), 2))
    cut_entries(model, pictures((160, 160), 2))
    assert repr(model) == printed
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_the_classifier_is_drawn_from_its_seed_and_the_global_state_stays(awake, pictures):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    one, same, other = (
        build(TINY, n_classes=3, image_size=(64, 64), seed=seed, n_blocks_kept=2).fc.weight for seed in (0, 0, 1)
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_a_source_cuts_the_pretrained_network(random_weights):
    source = BackboneSource({TINY: find_weights(TINY, random_weights(TINY))}, n_classes=4)
    whole, short = source.network(TINY, (64, 64)), source.network(TINY, (64, 64), 3)
    own, head = whole.state_dict(), set(head_parameter_names(short))
    assert all(torch.equal(value, own[key]) for key, value in short.state_dict().items() if key not in head)
    assert short(torch.zeros(2, 3, 64, 64)).shape == (2, 4)
    assert repr(source.skeleton(TINY, (64, 64), 3)) == repr(short)


@pytest.mark.parametrize("kept", [-1, 0, 5, 6])
def test_a_cut_keeps_at_least_one_block_and_drops_at_least_one(kept, awake, pictures):
    with pytest.raises(BackboneError, match=f"n_blocks_kept of ResNet goes from 1 to 4, .* {kept} came"):
        build(TINY, n_classes=3, image_size=(64, 64), n_blocks_kept=kept)
    model, sample = awake(TINY, (64, 64)), pictures((64, 64), 2)
    with pytest.raises(BackboneError, match=f"n_blocks_kept of ResNet goes from 1 to 4, .* {kept} came"):
        cut_after(model, kept, sample)
    with pytest.raises(BackboneError, match=f"n_blocks_kept of ResNet goes from 1 to 4, .* {kept} came"):
        cut_entries(model, sample, [1, kept])


def test_a_network_that_needs_its_later_blocks_says_so(awake, pictures, caplog):
    with pytest.raises(BackboneError, match=r"EfficientViM must run without .* after 2 of 4.*Keep another number"):
        build("efficientvim_m1", n_classes=3, image_size=(64, 64), n_blocks_kept=2)
    with caplog.at_level(logging.DEBUG, logger="autobackbone.backbones.cut"):
        assert cut_after(awake("efficientvim_m1", (64, 64)), 2, pictures((64, 64), 2)) is None
    assert "EfficientViM must run without its later blocks" in caplog.text


@pytest.mark.parametrize(
    ("name", "side", "kept", "reason"),
    [
        # The class token has met no patch yet.
        ("test_vit.r160_in1k", 160, 1, "its features do not depend on the whole picture"),
        # Two tensors enter its stages.
        ("pit_ti_224.in1k", 224, 2, "its features are no plain pooling"),
    ],
)
def test_why_a_cut_does_not_hold_is_logged(name, side, kept, reason, awake, pictures, caplog):
    model = awake(name, (side, side))
    with caplog.at_level(logging.DEBUG, logger="autobackbone.backbones.cut"):
        assert cut_after(model, kept, pictures((side, side), 2)) is None
    assert [record.getMessage() for record in caplog.records] == [
        f"{type(model).__name__} has no cut after {kept} blocks: {reason}"
    ]


# How many cuts hold in families where not all do. In most where none does, blocks take or answer several tensors
# (CrossViT, EfficientViM, HRNet, PiT, PNASNet, TNT, Twins). A class token that has met no patch yet tells nothing (DeiT
# after its stem, XCiT before its last blocks), and positions are added between the stages of Visformer.
SOME_HOLD = {
    "cait": 23,
    "coat": 0,
    "convit": 1,
    "crossvit": 0,
    "deit": 11,
    "efficientformer": 0,
    "efficientvim": 0,
    "hrnet": 0,
    "pit": 0,
    "pnasnet": 0,
    "selecsls": 1,
    "tnt": 0,
    "twins": 0,
    "visformer": 3,
    "vision_transformer": 5,
    "vision_transformer_hybrid": 11,
    "vision_transformer_relpos": 11,
    "volo": 1,
    "xcit": 1,
}


@pytest.mark.slow
@pytest.mark.parametrize("family", sorted((*QUICK, *SLOW)))
def test_as_many_cuts_hold_as_were_counted(family, awake, pictures):
    name, side = {**QUICK, **SLOW}[family]
    model = awake(name, (side, side))
    n_cuts = len(blocks_of(model)) - 1
    assert len(cut_entries(model, pictures((side, side), 2))) == SOME_HOLD.get(family, n_cuts)

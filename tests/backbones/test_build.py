from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autobackbone.backbones.build import allowed_image_sizes, build, normalisation, own_image_size
from autobackbone.backbones.head import classifier_layers, verify_head
from autobackbone.errors import BackboneError, WeightsError

NET = "test_resnet.r160_in1k"
VIT = "test_vit.r160_in1k"


def test_a_network_is_whole_in_eval_mode_and_of_the_asked_width():
    model = build(NET, n_classes=7, image_size=(64, 96))
    assert not any(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert model(torch.zeros(1, 3, 64, 96)).shape == (1, 7)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others():
    one, same, other = (build(NET, n_classes=3, image_size=(64, 64), seed=seed).state_dict() for seed in (5, 5, 6))
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert not torch.equal(one["fc.weight"], other["fc.weight"])


def test_the_global_random_state_stays_as_it_was():
    before = torch.get_rng_state()
    build(NET, n_classes=3, image_size=(64, 64), seed=11)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("has_classifier", [True, False])
def test_given_weights_are_loaded_all_but_the_classifier(has_classifier):
    source = build(NET, n_classes=10, image_size=(64, 64), seed=1).state_dict()
    given = {key: value for key, value in source.items() if has_classifier or not key.startswith("fc.")}
    loaded = build(NET, n_classes=3, image_size=(64, 64), state_dict=given, seed=2).state_dict()
    fresh = build(NET, n_classes=3, image_size=(64, 64), seed=2).state_dict()
    assert all(torch.equal(value, source[key]) for key, value in loaded.items() if not key.startswith("fc."))
    assert torch.equal(loaded["fc.weight"], fresh["fc.weight"])


def test_given_weights_stay_as_they_were():
    given = build(VIT, n_classes=3, image_size=(160, 160)).state_dict()
    before = {key: value.clone() for key, value in given.items()}
    build(VIT, n_classes=3, image_size=(96, 96), state_dict=given)
    assert list(given) == list(before)
    assert all(torch.equal(given[key], before[key]) for key in before)


def test_position_embeddings_are_resampled_and_the_rest_is_kept():
    source = build(VIT, n_classes=3, image_size=(160, 160), seed=1)
    small = build(VIT, n_classes=3, image_size=(96, 128), state_dict=source.state_dict())
    assert small.get_parameter("pos_embed").shape[1] == 1 + 6 * 8
    assert torch.equal(
        small.get_parameter("blocks.0.attn.qkv.weight"), source.get_parameter("blocks.0.attn.qkv.weight")
    )
    assert small(torch.zeros(1, 3, 96, 128)).shape == (1, 3)


def test_a_missing_tensor_is_named():
    given = build(NET, n_classes=3, image_size=(64, 64)).state_dict()
    del given["layer1.0.conv1.weight"]
    with pytest.raises(WeightsError, match=r"missing layer1\.0\.conv1\.weight"):
        build(NET, n_classes=3, image_size=(64, 64), state_dict=given)


def test_an_unexpected_tensor_is_named():
    given = build(NET, n_classes=3, image_size=(64, 64)).state_dict()
    with pytest.raises(WeightsError, match="unexpected layer9"):
        build(NET, n_classes=3, image_size=(64, 64), state_dict={**given, "layer9.weight": torch.zeros(1)})


def test_a_missing_tensor_is_named_where_the_family_loads_loosely():
    given = build("dla46x_c.in1k", n_classes=3, image_size=(64, 64)).state_dict()
    del given["base_layer.0.weight"]
    with pytest.raises(WeightsError, match=r"missing base_layer\.0\.weight"):
        build("dla46x_c.in1k", n_classes=3, image_size=(64, 64), state_dict=given, seed=1)


def test_weights_of_another_network_are_refused():
    given = build(VIT, n_classes=3, image_size=(160, 160)).state_dict()
    with pytest.raises(WeightsError, match=r"do not fit 'test_resnet.*and \d+ more"):
        build(NET, n_classes=3, image_size=(64, 64), state_dict=given)


def test_inception_takes_its_published_file_with_the_auxiliary_classifier():
    given = build("inception_v3.tv_in1k", n_classes=3, image_size=(299, 299)).state_dict()
    given["AuxLogits.fc.weight"] = torch.zeros(1000, 768)
    model = build("inception_v3.tv_in1k", n_classes=3, image_size=(128, 128), state_dict=given)
    assert torch.equal(model.state_dict()["Mixed_7c.branch1x1.conv.weight"], given["Mixed_7c.branch1x1.conv.weight"])


def test_several_averaged_classifiers_start_alike():
    model = build("deit_tiny_distilled_patch16_224.fb_in1k", n_classes=3, image_size=(64, 64))
    first, second = classifier_layers(model).values()
    assert torch.equal(first.weight, second.weight)
    assert verify_head(model, torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)))


def test_a_pattern_that_never_trains_is_no_parameter():
    model = build("vit_small_patch16_224.dino", n_classes=3, image_size=(32, 32))
    frozen = build("csatv2.r512_in1k", n_classes=3, image_size=(64, 64))
    assert all(parameter.requires_grad for network in (model, frozen) for parameter in network.parameters())


@pytest.mark.parametrize(
    ("name", "message"),
    [("resnet5000", "has no network 'resnet5000'"), ("resnet50.nobody", "the part after the dot is unknown")],
)
def test_an_unknown_name_is_refused(name, message):
    with pytest.raises(BackboneError, match=message):
        build(name, n_classes=3, image_size=(64, 64))


def test_a_network_of_one_size_is_refused_at_another():
    with pytest.raises(BackboneError, match=r"its own \(224, 224\); \(128, 128\) came"):
        build("levit_128s.fb_dist_in1k", n_classes=3, image_size=(128, 128))


def test_facts_come_from_timm():
    assert own_image_size("tf_efficientnet_lite2.in1k") == (260, 260)
    assert normalisation("resnet50.a1_in1k").std == (0.229, 0.224, 0.225)
    assert normalisation("inception_v3.tv_in1k").interpolation == "bicubic"


@pytest.mark.parametrize("name", [NET, VIT, "levit_128s.fb_dist_in1k", "inception_v3.tv_in1k"])
def test_default_sizes_hold_the_own_one_and_at_most_three_smaller(name):
    sizes = allowed_image_sizes(name, None)
    assert sizes[-1] == own_image_size(name)
    assert 1 <= len(sizes) <= 4
    assert sizes == tuple(sorted(set(sizes)))


@settings(max_examples=10, deadline=None)
@given(
    name=st.sampled_from([NET, VIT, "tf_efficientnet_lite0.in1k"]),
    size=st.tuples(st.integers(33, 200), st.integers(33, 200)),
)
def test_an_allowed_size_runs_and_lies_near_the_wanted_one(name, size):
    (allowed,) = allowed_image_sizes(name, [size])
    assert all(abs(got - wanted) <= 16 for got, wanted in zip(allowed, size, strict=True))
    assert build(name, n_classes=2, image_size=allowed)(torch.zeros(1, 3, *allowed)).shape == (1, 2)


def test_a_network_that_can_take_none_of_the_wanted_sizes_has_none():
    assert allowed_image_sizes("levit_128s.fb_dist_in1k", [(128, 128)]) == ()
    assert allowed_image_sizes("levit_128s.fb_dist_in1k", [(128, 128), (224, 224)]) == ((224, 224),)

from __future__ import annotations

import pytest
import torch
from torch import nn

from autobackbone.backbones.build import build
from autobackbone.backbones.head import classifier_layers, features, head_weights, n_features, set_head, verify_head
from autobackbone.errors import BackboneError

# One of each form of classifier that timm has.
FORMS = {
    "one linear layer": ("test_resnet.r160_in1k", 64),
    "a 1×1 convolution": ("dla46x_c.in1k", 64),
    "a hidden layer before": ("mobilenetv3_small_050.lamb_in1k", 64),
    "two tokens averaged": ("deit_tiny_distilled_patch16_224.fb_in1k", 64),
    "two layers averaged": ("levit_128s.fb_dist_in1k", 224),
    "two normed layers averaged": ("repvit_m0_9.dist_300e_in1k", 64),
    "two branches of other widths": ("crossvit_9_240.in1k", 240),
    "one layer for each stage": ("efficientvim_m1", 64),
    "one for each stage, twice": ("efficientvim_m1_dist", 64),
    "an auxiliary layer beside": ("volo_d1_224.sail_in1k", 224),
}


@pytest.fixture(params=list(FORMS.values()), ids=list(FORMS))
def network(request, awake):
    name, side = request.param
    return awake(name, (side, side)), torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))


def test_the_classifier_is_linear_in_the_features_and_can_be_replaced(network):
    model, images = network
    assert verify_head(model, images)
    generator = torch.Generator().manual_seed(2)
    weight, bias = torch.randn(3, n_features(model), generator=generator), torch.randn(3, generator=generator)
    names = list(model.state_dict())
    with torch.no_grad():
        wanted = features(model, images) @ weight.T + bias
        set_head(model, weight, bias)
        torch.testing.assert_close(model(images), wanted, rtol=1e-4, atol=1e-4)
    got = head_weights(model)
    torch.testing.assert_close(got.weight, weight)
    torch.testing.assert_close(got.bias, bias)
    assert list(model.state_dict()) == names


def test_features_leave_no_hook_behind():
    model = build("test_resnet.r160_in1k", n_classes=3, image_size=(64, 64))
    features(model, torch.zeros(2, 3, 64, 64))
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_head_of_another_shape_is_refused():
    model = build("test_resnet.r160_in1k", n_classes=3, image_size=(64, 64))
    with pytest.raises(BackboneError, match=r"takes a head with weight \(3, 96\)"):
        set_head(model, torch.zeros(4, 96), torch.zeros(4))


def test_a_network_without_a_classifier_is_refused():
    with pytest.raises(BackboneError, match="no classifier"):
        classifier_layers(nn.Sequential(nn.Linear(2, 2)))


def test_features_can_carry_a_graph(awake):
    model = awake("test_resnet.r160_in1k", (64, 64))
    parameters = [model.get_parameter(name) for name in ("layer4.0.conv1.weight", "fc.weight")]
    inner, head = torch.autograd.grad(features(model, torch.ones(2, 3, 64, 64)).sum(), parameters, allow_unused=True)
    assert inner.abs().sum() > 0
    assert head is None

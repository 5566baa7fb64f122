"""torchvision's networks: names, sizes, weights as torchvision saves them."""

from __future__ import annotations

import pytest
import torch
from torchvision import models

from autobackbone.backbones import hub
from autobackbone.backbones.blocks import blocks_of
from autobackbone.backbones.every import Backbones
from autobackbone.backbones.fromtorchvision import PREFIX, TorchvisionBackbone, default_names, full_names
from autobackbone.backbones.head import features, verify_head
from autobackbone.errors import BackboneError, WeightsError

EVERY = Backbones()


def one(architecture):
    return EVERY[default_names()[architecture]]


def test_names_stand_for_weights_and_globs_for_many():
    assert EVERY.resolve("torchvision:alexnet") == ("torchvision:alexnet.IMAGENET1K_V1",)
    names = EVERY.resolve(["torchvision:resnet*", "resnet50"])
    assert names[0] == "torchvision:resnet101.IMAGENET1K_V2"
    assert names[-1] == "resnet50.a1_in1k"
    assert len(names) == 6
    assert EVERY.resolve("torchvision:*.IMAGENET1K_SWAG_E2E_V1") == tuple(
        name for name in full_names() if name.endswith("SWAG_E2E_V1")
    )
    assert not any("mnasnet" in name or "FEATURES" in name for name in full_names())


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("torchvision:alexnett", r"Did you mean 'torchvision:alexnet'\?$"),
        ("torchvision:alexnet.IMAGENET1K_V9", "Did you mean 'torchvision:alexnet.IMAGENET1K_V1'"),
        ("torchvision:nothing*", r"no network of torchvision matches 'torchvision:nothing\*'"),
        ("nobody:net", "none of the backbones of your own"),
        ("alexnet", "'torchvision:alexnet'"),
    ],
)
def test_unknown_names_are_told_with_near_ones(name, said):
    with pytest.raises(BackboneError, match=said):
        EVERY.resolve([name])


# The smallest of each of its families: where its classifier and its blocks are is found by the same rules for all.
@pytest.mark.parametrize(
    ("architecture", "size", "n_blocks"),
    [
        ("densenet121", 64, 8),
        pytest.param("googlenet", 64, 12, marks=pytest.mark.slow),
        pytest.param("inception_v3", 96, 16, marks=pytest.mark.slow),
        ("mobilenet_v3_small", 64, 14),
        ("regnet_x_400mf", 64, 5),
        ("resnet18", 64, 5),
        ("shufflenet_v2_x0_5", 64, 5),
        ("squeezenet1_0", 64, 9),
        pytest.param("convnext_tiny", 64, 8, marks=pytest.mark.slow),
        pytest.param("efficientnet_b0", 64, 9, marks=pytest.mark.slow),
        pytest.param("maxvit_t", 224, 6, marks=pytest.mark.slow),
        pytest.param("swin_t", 64, 8, marks=pytest.mark.slow),
        pytest.param("vgg11_bn", 64, 10, marks=pytest.mark.slow),
        pytest.param("vit_b_32", 224, 13, marks=pytest.mark.slow),
        pytest.param("alexnet", 64, 7, marks=pytest.mark.slow),
    ],
)
def test_each_family_has_blocks_and_a_linear_head_and_takes_its_own_weights(
    architecture,
    size,
    n_blocks,
    torchvision_weights,
):
    backbone, images = one(architecture), torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    arguments = {"init_weights": False} if architecture in ("googlenet", "inception_v3") else {}
    file = torchvision_weights(architecture, **arguments)
    tensors = backbone.load_state_dict(backbone.find_weights(file))
    network = backbone.build(n_classes=3, image_size=(size, size), state_dict=tensors)
    assert backbone.n_blocks() == len(blocks_of(network)) == n_blocks
    assert verify_head(network, images)
    # The very features of the network that torchvision makes with these weights.
    own = models.get_model(architecture, weights=None, **arguments)
    own.load_state_dict(torch.load(file, weights_only=True))
    shared = {name for name, tensor in own.state_dict().items() if name in tensors}
    assert shared == tensors.keys()
    assert all(torch.equal(tensors[name], own.state_dict()[name]) for name in shared)
    with torch.no_grad():
        assert features(network, images).isfinite().all()


def test_what_is_published_is_taken_from_torchvision():
    alexnet = one("alexnet")
    weights = models.AlexNet_Weights.IMAGENET1K_V1
    assert alexnet.gmacs((224, 224)) == weights.meta["_ops"]
    assert alexnet.gmacs((112, 112)) == pytest.approx(weights.meta["_ops"] / 4)
    assert alexnet.normalisation().mean == (0.485, 0.456, 0.406)
    assert alexnet.normalisation().interpolation == "bilinear"
    assert one("inception_v3").image_sizes(None)[-1] == (299, 299)


def test_a_network_of_a_fixed_size_is_tried_at_that_alone():
    assert one("vit_b_32").image_sizes(None) == ((224, 224),)
    assert one("vit_b_32").image_sizes([(64, 64)]) == ()
    with pytest.raises(BackboneError, match="of a size that it can take"):
        one("vit_b_32").build(n_classes=2, image_size=(64, 64))


def test_the_first_densenets_have_other_names_in_their_files(torchvision_weights, tmp_path):
    """As the published files have them, from before dots were forbidden in names of modules."""
    tensors = torch.load(torchvision_weights("densenet121"), weights_only=True)
    old = {
        key.replace("norm1.", "norm.1.")
        .replace("norm2.", "norm.2.")
        .replace("conv1.", "conv.1.")
        .replace("conv2.", "conv.2.")
        if "denselayer" in key
        else key: value
        for key, value in tensors.items()
    }
    assert old.keys() != tensors.keys()
    torch.save(old, tmp_path / "densenet121.pth")
    backbone = one("densenet121")
    read = backbone.load_state_dict(backbone.find_weights(tmp_path / "densenet121.pth"))
    assert all(torch.equal(value, tensors[key]) for key, value in read.items())


def test_weights_are_looked_for_where_torch_puts_them(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(hub, "is_answering", lambda _: False)
    squeeze = one("squeezenet1_1")
    with pytest.raises(WeightsError, match=r"Give the file or a folder with 'squeezenet1_1-b8a52dc0\.pth' as weights="):
        squeeze.find_weights(None)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "squeezenet1_1-b8a52dc0.pth").write_bytes(b"")
    assert squeeze.find_weights(None).kind == "cache"
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "squeezenet1_1-b8a52dc0.pth").write_bytes(b"")
    assert squeeze.find_weights(tmp_path / "given").kind == "file"
    monkeypatch.setattr(hub, "is_answering", lambda _: True)
    assert one("alexnet").find_weights(None).download_megabytes == pytest.approx(233, abs=1)


def test_nothing_is_asked_of_a_server_where_that_is_forbidden(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert not hub.is_answering("https://download.pytorch.org")


def test_every_name_has_its_facts():
    for name in full_names():
        assert TorchvisionBackbone(name).gmacs((224, 224)) > 0
        assert all(0 < one < 1 for one in TorchvisionBackbone(name).normalisation().std)
        assert name.startswith(PREFIX)

from __future__ import annotations

import pytest
import torch
from tests.conftest import TINY

from autobackbone.backbones.blocks import blocks_of
from autobackbone.backbones.source import BackboneSource
from autobackbone.backbones.weights import WeightSource, find_weights
from autobackbone.errors import WeightsError

LITE = "tf_efficientnet_lite0.in1k"


@pytest.fixture
def broken(tmp_path):
    """Weights that fail whoever touches them."""
    file = tmp_path / "broken.safetensors"
    file.write_bytes(b"no weights")
    return BackboneSource({name: WeightSource(kind="file", path=file) for name in (TINY, LITE)}, n_classes=3)


@pytest.mark.parametrize("name", [TINY, LITE, "test_vit.r160_in1k"])
def test_blocks_are_counted_as_in_the_loaded_network(name, random_weights):
    source = BackboneSource(
        {name: find_weights(name, {} if name == LITE else {name: random_weights(name)})}, n_classes=3
    )
    assert source.n_blocks(name) == len(blocks_of(source.network(name, (160, 160))))


def test_neither_blocks_nor_a_skeleton_need_weights(broken):
    assert (broken.n_blocks(TINY), broken.n_blocks(LITE)) == (5, 8)
    skeleton = broken.skeleton(TINY, (64, 96))
    assert not skeleton.training
    assert skeleton(torch.zeros(1, 3, 64, 96)).shape == (1, 3)
    with pytest.raises(WeightsError, match="cannot be read as weights"):
        broken.network(TINY, (64, 96))


def test_a_skeleton_has_the_shapes_of_the_network(random_weights):
    source = BackboneSource({TINY: find_weights(TINY, random_weights(TINY))}, n_classes=3)
    skeleton, network = source.skeleton(TINY, (64, 64)), source.network(TINY, (64, 64))
    assert [(name, one.shape) for name, one in skeleton.state_dict().items()] == [
        (name, one.shape) for name, one in network.state_dict().items()
    ]


def test_given_files_are_checked_and_others_are_not_touched(broken, random_weights):
    with pytest.raises(WeightsError, match="cannot be read as weights"):
        broken.check_given()
    BackboneSource({TINY: find_weights(TINY, random_weights(TINY))}, n_classes=3).check_given()
    BackboneSource({TINY: WeightSource(kind="hub")}, n_classes=3).check_given()

"""Networks as ONNX give what they give in torch."""

import sys

import numpy as np
import pytest
import torch
from benchmarks.families import QUICK, wake
from tests.conftest import TINY

from autobackbone.backbones.build import build
from autobackbone.errors import ArgumentError, BackboneError
from autobackbone.exporting.onnx_graph import network_onnx, require_onnx, save_onnx, session, with_ends
from autobackbone.tasks import predictions_of

SIZE = (32, 32)


@pytest.fixture(scope="module")
def exported():
    network = wake(build(TINY, n_classes=3, image_size=SIZE))
    return network, network_onnx(network, SIZE)


def same(network, model, image_size, n):
    inputs = torch.randn(n, 3, *image_size, generator=torch.Generator().manual_seed(n))
    with torch.inference_mode():
        expected = network(inputs).numpy()
    np.testing.assert_allclose(session(model)(inputs.numpy()), expected, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_the_batch_is_free(exported, n):
    same(*exported, SIZE, n)


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [{}, {"n_blocks_kept": 2}], ids=["whole", "cut"])
def test_a_vision_transformer_goes_out_whole_and_cut(arguments):
    network = wake(build("test_vit", n_classes=3, image_size=SIZE, **arguments))
    same(network, network_onnx(network, SIZE), SIZE, 3)


@pytest.mark.slow
@pytest.mark.parametrize("family", QUICK)
def test_a_network_of_each_quick_family_goes_out(family):
    name, side = QUICK[family]
    network = wake(build(name, n_classes=3, image_size=(side, side)))
    same(network, network_onnx(network, (side, side)), (side, side), 3)


@pytest.mark.parametrize("task", ["classification", "multilabel", "regression"])
def test_the_end_says_what_outputs_mean(exported, task):
    network, model = exported
    inputs = torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    temperature = 1.0 if task == "regression" else 1.7
    with torch.inference_mode():
        expected = predictions_of(network(inputs) / temperature, task).numpy()
    found = session(with_ends(model, None, task, temperature))(inputs.numpy())
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


class Moody(torch.nn.Module):
    def forward(self, inputs):
        return inputs.mean((2, 3)) if inputs.mean() > 0 else inputs.amax((2, 3))


def test_what_torch_cannot_export_is_told():
    with pytest.raises(BackboneError, match="Moody must be one that torch can export to ONNX; it said"):
        network_onnx(Moody(), SIZE)


def test_what_is_not_installed_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    monkeypatch.setattr("autobackbone.exporting.onnx_graph.find_spec", lambda name: None)
    with pytest.raises(ArgumentError, match=r"needs onnx and onnxscript and onnxruntime.*autobackbone\[onnx\]"):
        require_onnx()


def test_a_file_that_cannot_be_written_is_named_and_leaves_nothing(exported, tmp_path):
    with pytest.raises(ArgumentError, match=r"cannot write .*nowhere.*Name a file"):
        save_onnx(exported[1], tmp_path / "nowhere" / "network.onnx", {})
    assert list(tmp_path.iterdir()) == []

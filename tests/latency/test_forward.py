"""Each runtime runs the same network, on its own copy, with the threads of its target."""

import math
import shutil

import pytest
import torch
from torch import nn

from autobackbone.errors import TargetError
from autobackbone.latency import forward as forwards
from autobackbone.latency.forward import forward_of, preparing_s
from autobackbone.latency.measure import measure, measure_together
from autobackbone.latency.target import describe, resolve
from autobackbone.records import Target


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ).train()


def settled(**arguments):
    return resolve(Target(n_threads=1, **arguments))


@pytest.mark.parametrize("runtime", ["torch", "onnxruntime", "onnxruntime-int8", "openvino"])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_pass_takes_a_batch_and_gives_what_the_network_gives(runtime, batch_size):
    original = network()
    before = {name: value.clone() for name, value in original.state_dict().items()}
    with torch.inference_mode():
        out = forward_of(original, (16, 24), settled(runtime=runtime)).on_batch(batch_size)()
    (out,) = out if isinstance(out, list) else (out,)
    assert tuple(out.shape) == (batch_size, 8)
    assert original.training
    assert all(torch.equal(value, before[name]) for name, value in original.state_dict().items())


@pytest.mark.parametrize("runtime", ["onnxruntime", "onnxruntime-int8", "openvino"])
def test_latencies_of_a_runtime_are_latencies(runtime):
    target = settled(runtime=runtime)
    latency = measure(network(), (16, 24), target, seconds=0.05)
    assert 0 < latency.p50_ms <= latency.p95_ms
    # Compiled for one size of batch, it would have to be compiled again for another.
    assert math.isnan(latency.images_per_s) if runtime == "openvino" else latency.images_per_s > 0
    assert preparing_s(target) > 0
    assert preparing_s(settled()) == 0.0
    (beside,) = measure_together([(network(), (16, 24))], target, seconds=0.05)
    assert beside.p50_ms > 0
    said = "onnxruntime-int8 (scores are of float32)" if runtime == "onnxruntime-int8" else f"{runtime}, float32"
    assert f"), {said}, batch 1" in describe(target)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler is here")
def test_a_compiled_network_is_compiled_once_and_for_one_batch_size():
    latency = measure(network(), (16, 24), settled(runtime="torch.compile", batch_size=2), seconds=0.05)
    assert 0 < latency.p50_ms <= latency.p95_ms
    assert math.isnan(latency.images_per_s)


def test_what_cannot_be_compiled_is_told(monkeypatch):
    def fails(*_, **__):
        raise RuntimeError("no compiler\nand more")

    monkeypatch.setattr(forwards.nn.Module, "compile", fails)
    with pytest.raises(TargetError, match=r"torch.compile cannot compile .* here: no compiler\. On a CPU it needs"):
        forward_of(network(), (16, 24), settled(runtime="torch.compile"))


def test_a_runtime_that_is_not_installed_is_told(monkeypatch):
    from autobackbone.latency import target as targets

    monkeypatch.setattr(targets, "find_spec", lambda name: None if name == "onnxruntime" else object())
    with pytest.raises(TargetError, match=r"runtime='onnxruntime' needs onnxruntime, not installed here: pip install"):
        resolve(Target(runtime="onnxruntime"))

"""A private copy of a network in the runtime of its target, ready to be timed."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from autobackbone.errors import TargetError
from autobackbone.latency.passing import Pass, timed
from autobackbone.latency.target import dtype_of
from autobackbone.records import ImageSize, Runtime, Target


def _at_once() -> None:
    """What a CPU does is done when it returns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forward:
    """What does the forward passes of one network.

    Args:
        on_batch: of a batch size, a function that does one pass on a given batch of so many pictures.
        device: where it does them.
        wait: returns when the device is done.
        is_for_any_batch: whether another batch size costs no more than its passes.
    """

    on_batch: Callable[[int], Callable[[], object]]
    device: torch.device
    wait: Callable[[], None] = field(default=_at_once)
    is_for_any_batch: bool = True

    def timed(self, batch_size: int) -> Callable[[], Pass]:
        """One pass on a given batch, as a function that returns its seconds."""
        run, is_on_cpu = self.on_batch(batch_size), self.device.type == "cpu"
        return lambda: timed(run, self.wait, is_on_cpu=is_on_cpu)


# Of each runtime, the longest that preparing a network has taken in this process.
_PREPARED_S: dict[Runtime, float] = {}


def forward_of(network: nn.Module, image_size: ImageSize, target: Target) -> Forward:
    """Prepare a network's passes; the network itself stays as it is.

    Args:
        network: takes (n, 3, height, width).
        image_size: height and width in pixels.
        target: as `resolve` returns it.

    Raises:
        TargetError: the target's runtime cannot run it.
    """
    began = time.monotonic()
    forward = _BY_RUNTIME[target.runtime](network, image_size, target)
    _PREPARED_S[target.runtime] = max(_PREPARED_S.get(target.runtime, 0.0), time.monotonic() - began)
    return forward


def preparing_s(target: Target) -> float:
    """Seconds that preparing a network for the target's runtime takes, as far as it was seen: exporting, compiling."""
    return 0.0 if target.runtime == "torch" else _PREPARED_S.get(target.runtime, 0.0)


def _in_torch(network: nn.Module, image_size: ImageSize, target: Target) -> Forward:
    dtype, device = dtype_of(target.precision), torch.device(target.device)
    is_autocast = device.type == "cpu" and dtype != torch.float32
    own_dtype = torch.float32 if is_autocast else dtype
    private = _copied(network, device, own_dtype)

    def on_batch(batch_size: int) -> Callable[[], object]:
        pictures = torch.rand((batch_size, 3, *image_size), device=device, dtype=own_dtype)

        def run() -> object:
            with torch.autocast(device.type, dtype if is_autocast else None, enabled=is_autocast):
                return private(pictures)

        return run

    def wait() -> None:
        if device.type != "cpu":
            torch.accelerator.synchronize(device)

    return Forward(on_batch=on_batch, device=device, wait=wait)


def _copied(network: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """Eval mode, casts and tensors that a network caches inside inference mode must not reach the original."""
    return copy.deepcopy(network).to(device=device, dtype=dtype).eval()


def _compiled(network: nn.Module, image_size: ImageSize, target: Target) -> Forward:
    """Compiled for the target's batch size; the first pass does that."""
    plain = _in_torch(_Compiled(network), image_size, target)
    run = plain.on_batch(target.batch_size)
    try:
        run()
    except Exception as error:  # whatever a compiler may raise
        raise TargetError(
            f"torch.compile cannot compile {type(network).__name__} here: {_first_line(error)}. On a CPU it needs a "
            "C++ compiler; runtime='torch' does without one."
        ) from error
    plain.wait()
    return Forward(on_batch=plain.on_batch, device=plain.device, wait=plain.wait, is_for_any_batch=False)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")


class _Compiled(nn.Module):
    """A network that is compiled at its first pass: a copy of one that was would still be the original's."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self._is_compiled = False

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """(n, 3, height, width) to outputs."""
        if not self._is_compiled:
            self.network.compile()
            self._is_compiled = True
        return self.network(pictures)  # type: ignore[no-any-return]  # whatever module it is


def _in_onnxruntime(network: nn.Module, image_size: ImageSize, target: Target) -> Forward:
    import onnxruntime

    from autobackbone.exporting.onnx_graph import network_onnx
    from autobackbone.exporting.quantising import quantised

    model = network_onnx(_copied(network, torch.device("cpu"), torch.float32), image_size)
    if target.runtime == "onnxruntime-int8":
        # Which numbers come through decides what is lost, not how long it takes.
        drawn = np.random.default_rng(0).standard_normal((2, 3, *image_size), dtype=np.float32)
        model = quantised(model, [drawn])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = target.n_threads or 0
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()

    def on_batch(batch_size: int) -> Callable[[], object]:
        pictures = np.random.default_rng(0).random((batch_size, 3, *image_size), dtype=np.float32)
        return lambda: session.run(None, {given.name: pictures})

    return Forward(on_batch=on_batch, device=torch.device("cpu"))


def _in_openvino(network: nn.Module, image_size: ImageSize, target: Target) -> Forward:
    """Compiled for each batch size: OpenVINO is slower where it does not know the shape beforehand."""
    import openvino

    from autobackbone.exporting.onnx_graph import network_onnx

    exported = network_onnx(_copied(network, torch.device("cpu"), torch.float32), image_size).SerializeToString()
    core = openvino.Core()
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": target.n_threads or 0,
        "INFERENCE_PRECISION_HINT": "f32",  # else bfloat16, where the processor has it
    }

    def on_batch(batch_size: int) -> Callable[[], object]:
        model = core.read_model(exported)
        model.reshape([batch_size, 3, *image_size])
        request = core.compile_model(model, "CPU", settings).create_infer_request()
        pictures = np.random.default_rng(0).random((batch_size, 3, *image_size), dtype=np.float32)
        return lambda: list(request.infer({0: pictures}).values())

    return Forward(on_batch=on_batch, device=torch.device("cpu"), is_for_any_batch=False)


_BY_RUNTIME: Mapping[Runtime, Callable[[nn.Module, ImageSize, Target], Forward]] = {
    "torch": _in_torch,
    "torch.compile": _compiled,
    "onnxruntime": _in_onnxruntime,
    "onnxruntime-int8": _in_onnxruntime,
    "openvino": _in_openvino,
}

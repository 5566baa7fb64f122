"""A network as ONNX: alone, or from pictures to probabilities."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from autobackbone.errors import ArgumentError, BackboneError
from autobackbone.exporting.preprocessing import IR_VERSION, OPSET
from autobackbone.records import ImageSize, Task
from autobackbone.runfolder import written_whole

if TYPE_CHECKING:
    from onnx import ModelProto

_NEEDED = ("onnx", "onnxscript", "onnxruntime")
# Of outputs between torch and ONNX Runtime, as a share of the largest.
_SAME = 1e-3
_AFTER: Mapping[Task, str] = {
    "classification": "scaled = Div (logits, temperature) probabilities = Softmax <axis = 1> (scaled)",
    "multilabel": "scaled = Div (logits, temperature) probabilities = Sigmoid (scaled)",
    "regression": "numbers = Identity (logits)",
}


def require_onnx() -> None:
    """Raises: ArgumentError: a package that exports is not installed."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise ArgumentError(
            f"ONNX needs {' and '.join(missing)}, not installed here: pip install 'autobackbone[onnx]'."
        )


def network_onnx(network: nn.Module, image_size: ImageSize) -> ModelProto:
    """A network alone, and prove in ONNX Runtime that its outputs are the same.

    Args:
        network: (n, 3, height, width) float32 → (n, n_outputs); it stays as it is, but for eval mode.
        image_size: height and width in pixels that it takes.

    Returns:
        `inputs` (batch, 3, *image_size) float32 → `logits` (batch, n_outputs) float32, with the batch free.

    Raises:
        ArgumentError: what exports is not installed.
        BackboneError: the network cannot be exported, or gives other outputs then.
    """
    require_onnx()
    network = network.cpu().eval()
    # Two pictures: of one, torch takes the batch for fixed.
    example = torch.randn(2, 3, *image_size, generator=torch.Generator().manual_seed(0))
    with quiet_exporters(), torch.no_grad():
        try:
            program = torch.onnx.export(
                network,
                (example,),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                input_names=["inputs"],
                output_names=["logits"],
                opset_version=OPSET,
                verbose=False,
            )
        except Exception as error:  # each architecture is refused in its own way
            first = str(error).strip().partition("\n")[0]
            raise BackboneError(
                f"{type(network).__name__} must be one that torch can export to ONNX; it said: {first} "
                "Choose a trial with another backbone."
            ) from error
        assert program is not None
        model: ModelProto = program.model_proto
    model.ir_version = IR_VERSION
    _require_same(network, model, example)
    return model


def with_ends(network: ModelProto, before: ModelProto | None, task: Task, temperature: float) -> ModelProto:
    """A network's graph with what comes before and after it.

    Args:
        network: as `network_onnx` gives it, or quantised.
        before: from pictures to its inputs, as `preprocessing` gives it; `None` to begin with inputs.
        task: what outputs are.
        temperature: by which logits are divided.

    Returns:
        The graph up to `probabilities`, or `numbers`, (batch, n_outputs) float32.
    """
    import onnx.parser
    from onnx.compose import add_prefix, merge_models

    (output,) = network.graph.output
    n_outputs = output.type.tensor_type.shape.dim[1].dim_value
    name = "numbers" if task == "regression" else "probabilities"
    after = onnx.parser.parse_model(f"""
        <ir_version: {IR_VERSION}, opset_import: ["" : {OPSET}]>
        after (float[batch, {n_outputs}] logits) => (float[batch, {n_outputs}] {name})
        <float temperature = {{{temperature!r}}}>
        {{ {_AFTER[task]} }}
    """)
    if task == "regression":
        del after.graph.initializer[:]
    joined = network
    keep = {"rename_inputs": False, "rename_outputs": False}
    if before is not None:
        joined = merge_models(add_prefix(before, "before.", **keep), joined, io_map=[("prepared", "inputs")])
    return merge_models(joined, add_prefix(after, "after.", **keep), io_map=[(output.name, "logits")])


def save_onnx(model: ModelProto, path: Path, facts: Mapping[str, Any]) -> float:
    """Write a graph, whole or not at all, with facts for whoever reads it.

    Args:
        model: the graph.
        path: of the file.
        facts: plain data; each is text, or JSON, in the file.

    Returns:
        Its megabytes, 10**6 bytes.

    Raises:
        ArgumentError: it cannot be written.
    """
    import onnx

    del model.metadata_props[:]
    onnx.helper.set_model_props(
        model, {name: value if isinstance(value, str) else json.dumps(value) for name, value in facts.items()}
    )
    model.producer_name = "autobackbone"
    try:
        onnx.checker.check_model(model)
        with written_whole(path) as temporary:
            temporary.write_bytes(model.SerializeToString())
    except (OSError, ValueError) as error:
        raise ArgumentError(f"cannot write {str(path)!r}: {error}. Name a file in a folder that is there.") from error
    return path.stat().st_size / 1e6


def onnx_outputs(model: ModelProto, inputs: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """What ONNX Runtime gives for inputs, on the CPU."""
    return session(model)(inputs)


class session:  # noqa: N801  a function with a memory
    """ONNX Runtime on a graph with one input and one output, on the CPU."""

    def __init__(self, model: ModelProto) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # its remarks on what it simplifies
        options.intra_op_num_threads = torch.get_num_threads()
        self._run = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        self._input = self._run.get_inputs()[0].name

    def __call__(self, inputs: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """(n, …) → (n, n_outputs)."""
        return np.asarray(self._run.run(None, {self._input: inputs})[0])


@contextmanager
def quiet_exporters() -> Iterator[None]:
    """Silence what exporters say to those who write them: what matters is whether the outputs are the same."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _require_same(network: nn.Module, model: ModelProto, example: torch.Tensor) -> None:
    run = session(model)
    for inputs in (example, example[:1], torch.cat([example, -example[:1]])):
        with torch.no_grad():
            wanted = network(inputs).numpy()
        found = run(inputs.numpy())
        apart = float(np.abs(found - wanted).max()) if found.shape == wanted.shape else np.inf
        if not apart <= _SAME * max(1.0, float(np.abs(wanted).max())):
            raise BackboneError(
                f"{type(network).__name__} gives other outputs as ONNX, by {apart:.2g} for {len(inputs)} pictures. "
                "Choose a trial with another backbone."
            )

"""A network's graph in 8 bits: weights and activations as whole numbers, scaled by what calibration pictures gave."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from autobackbone.exporting.onnx_graph import quiet_exporters
from autobackbone.exporting.preprocessing import IR_VERSION
from autobackbone.scratch import scratch_folder

if TYPE_CHECKING:
    from onnx import ModelProto

# What multiplies, and what stands between such layers. Softmax, norms and the parts of GELU lose much and gain little.
_OPERATORS: Final = (
    "Conv",
    "Gemm",
    "MatMul",
    "Add",
    "Relu",
    "Clip",
    "MaxPool",
    "AveragePool",
    "GlobalAveragePool",
)


def quantised(network: ModelProto, batches: Iterable[np.ndarray[Any, Any]]) -> ModelProto:
    """A network in 8 bits, by ONNX Runtime's static quantisation.

    Weights have a scale for each channel, and 7 bits: with 8, processors without instructions for it (VNNI) overflow in
    sums of two products.

    Args:
        network: as `network_onnx` gives it: without the preprocessing, whose numbers must stay exact.
        batches: (n, 3, height, width) float32 of calibration pictures, as they enter the network.

    Returns:
        The graph, with inputs and outputs as before.
    """
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    (entering,) = network.graph.input
    with scratch_folder() as folder, quiet_exporters(), _quiet_root():
        whole, ready, small = (folder / f"{name}.onnx" for name in ("whole", "ready", "small"))
        onnx.save(network, whole)
        # Folds batch norms into convolutions, so that both become one layer of whole numbers.
        quant_pre_process(whole, ready, skip_symbolic_shape=True)
        quantize_static(
            ready,
            small,
            _Reader(entering.name, batches),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(_OPERATORS),
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )
        model = _loaded(small)
    model.ir_version = IR_VERSION
    return model


class _Reader:
    """Hands calibration batches to the quantiser one by one."""

    def __init__(self, name: str, batches: Iterable[np.ndarray[Any, Any]]) -> None:
        self._feeds: Iterator[dict[str, np.ndarray[Any, Any]]] = ({name: batch} for batch in batches)

    def get_next(self) -> dict[str, np.ndarray[Any, Any]] | None:
        return next(self._feeds, None)


def _loaded(file: Path) -> ModelProto:
    import onnx

    return onnx.load(file)


class _quiet_root:  # noqa: N801
    """The quantiser speaks through the root logger."""

    def __enter__(self) -> None:
        logging.disable(logging.WARNING)

    def __exit__(self, *_: object) -> None:
        logging.disable(logging.NOTSET)

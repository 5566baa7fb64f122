"""Reads pictures for a network that `Selection.to_onnx` wrote, and says what they show.

This file stands alone: it needs numpy, pillow and onnxruntime, and may be copied to where the network runs.

    python onnx_loader.py network.onnx picture.jpg …
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
from PIL import ExifTags, Image, UnidentifiedImageError

_DEEP_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Answer(NamedTuple):
    """What one picture shows.

    Args:
        label: the likeliest class; the labels of a probability above 0.5; or the number, or numbers.
        values: (n_outputs,) float32: probabilities in the order of `OnnxNetwork.classes`, or the numbers.
    """

    label: Any
    values: np.ndarray[Any, Any]


class OnnxNetwork:
    """A network in ONNX Runtime.

    Args:
        path: of the file; it must have its preprocessing in it.
        n_threads: of one pass; 0 for as many as there are cores.
        providers: of ONNX Runtime, the preferred one first.
    """

    def __init__(
        self, path: str | Path, *, n_threads: int = 0, providers: Sequence[str] = ("CPUExecutionProvider",)
    ) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = n_threads
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(str(path), options, providers=list(providers))
        (entering,) = self._session.get_inputs()
        if entering.type != "tensor(uint8)":
            raise ValueError(f"{str(path)!r} has no preprocessing in it. Write it with to_onnx(…) as it is by default.")
        self._input = entering.name
        facts = self._session.get_modelmeta().custom_metadata_map
        self.task: str = facts["task"]
        self.classes: tuple[str | int, ...] = tuple(json.loads(facts["classes"]))
        preparation = json.loads(facts["preparation"])
        self.value_range, self.channels = preparation["value_range"], preparation["channels"]

    def __call__(self, content: bytes) -> Answer:
        """What a picture shows, from the bytes of its file, such as a JPEG."""
        return self.of_pixels(to_pixels(content, self.value_range, self.channels))

    def of_pixels(self, pixels: np.ndarray[Any, Any]) -> Answer:
        """The same from (height, width, 3) uint8, RGB, upright."""
        (values,) = self._session.run(None, {self._input: pixels[None]})[0]
        if self.task == "classification":
            return Answer(self.classes[int(values.argmax())], values)
        if self.task == "multilabel":
            return Answer(tuple(one for one, value in zip(self.classes, values, strict=True) if value > 0.5), values)
        return Answer(float(values[0]) if len(values) == 1 else tuple(map(float, values)), values)


def to_pixels(
    content: bytes, value_range: Sequence[float] | None = None, channels: Sequence[int] | None = None
) -> np.ndarray[Any, Any]:
    """The bytes of a picture file as pixels, as the network's training had them.

    EXIF rotation is applied; grey is repeated; palettes and CMYK are converted; transparency is laid on white; of an
    animation the first frame counts.

    Args:
        content: of the file.
        value_range: what becomes 0 and 255 in pictures above 8 bits.
        channels: which ones to take, from 0: one, or three as red, green and blue.

    Returns:
        (height, width, 3) uint8.

    Raises:
        ValueError: a picture above 8 bits, and no range.
        OSError: it cannot be decoded; Pillow raises other kinds, too.
    """
    try:
        image = _upright(Image.open(io.BytesIO(content)))
    except UnidentifiedImageError:
        raise UnidentifiedImageError(f"{len(content):,} bytes came that are no picture to Pillow.") from None
    if image.mode in _DEEP_MODES:
        return _of_array(np.asarray(image), value_range, channels)
    if channels is not None:
        if image.mode in ("P", "PA"):
            image = image.convert("RGBA" if image.has_transparency_data else "RGB")
        return _of_array(np.asarray(image), None, channels)
    if image.has_transparency_data:
        return np.asarray(_on_white(image.convert("RGBA")))
    return np.asarray(image.convert("RGB"))


def _upright(image: Image.Image) -> Image.Image:
    image.load()
    try:
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except SyntaxError:  # Pillow's word for a damaged EXIF block
        return image
    return image if turn is None else image.transpose(turn)


def _of_array(
    array: np.ndarray[Any, Any], value_range: Sequence[float] | None, channels: Sequence[int] | None
) -> np.ndarray[Any, Any]:
    taken = array if channels is None else np.atleast_3d(array)[..., list(channels)]
    if taken.dtype == np.bool_:
        taken = taken.astype(np.uint8) * np.uint8(255)
    elif value_range is not None:
        low, high = value_range
        scaled = (taken.astype(np.float64) - low) * (255.0 / (high - low))
        taken = np.rint(scaled.clip(0.0, 255.0)).astype(np.uint8)
    elif taken.dtype != np.uint8 and (taken.dtype.kind == "f" or taken.min() < 0 or taken.max() > 255):
        raise ValueError(f"a picture above 8 bits ({taken.dtype}) came, and the network was trained on none.")
    taken = np.atleast_3d(taken.astype(np.uint8))
    if taken.shape[2] == 4:
        return np.asarray(_on_white(Image.fromarray(taken)))
    return np.repeat(taken, 3, axis=2) if taken.shape[2] == 1 else np.ascontiguousarray(taken)


def _on_white(image: Image.Image) -> Image.Image:
    return Image.alpha_composite(Image.new("RGBA", image.size, (255, 255, 255, 255)), image).convert("RGB")


def main(arguments: Sequence[str]) -> None:
    """Say what pictures show, one line each."""
    network = OnnxNetwork(arguments[0])
    for name in arguments[1:]:
        label, values = network(Path(name).read_bytes())
        sys.stdout.write(f"{name}\t{label}\t{' '.join(f'{value:.4f}' for value in values)}\n")


if __name__ == "__main__":
    main(sys.argv[1:])

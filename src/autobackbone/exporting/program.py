"""A network as a program of `torch.export`: it runs without this library, and without the code of its architecture."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from autobackbone.errors import ArgumentError, BackboneError
from autobackbone.exporting.onnx_graph import quiet_exporters
from autobackbone.records import ImageSize
from autobackbone.runfolder import written_whole

SUFFIX = ".pt2"


def save_program(network: nn.Module, image_size: ImageSize, path: Path) -> float:
    """Write a network whose batch is free, whole or not at all.

    Args:
        network: (n, 3, height, width) float32 → (n, n_outputs).
        image_size: height and width in pixels that it takes.
        path: of the file, which ends in `.pt2`.

    Returns:
        Its megabytes, 10**6 bytes.

    Raises:
        ArgumentError: it cannot be written.
        BackboneError: torch cannot export it.
    """
    if path.suffix != SUFFIX:
        raise ArgumentError(f"a program of torch.export ends in {SUFFIX!r}; {path.name!r} came. Rename it.")
    example = torch.zeros(2, 3, *image_size)
    with quiet_exporters(), torch.no_grad():
        try:
            program = torch.export.export(
                network.eval(), (example,), dynamic_shapes=({0: torch.export.Dim("batch")},), strict=False
            )
        except Exception as error:  # each architecture is refused in its own way
            first = str(error).strip().partition("\n")[0]
            raise BackboneError(
                f"{type(network).__name__} must be one that torch.export takes; it said: {first} "
                "Choose a trial with another backbone."
            ) from error
        try:
            with written_whole(path) as temporary, temporary.open("wb") as file:
                torch.export.save(program, file)
        except OSError as error:
            raise ArgumentError(
                f"cannot write {str(path)!r}: {error}. Name a file in a folder that is there."
            ) from error
    return path.stat().st_size / 1e6

"""A network as a folder that timm itself builds: `timm.create_model("local-dir:…", pretrained=True)`."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import timm
import torch
from timm.models import save_for_hf
from torch import nn

from autobackbone.errors import ArgumentError, BackboneError
from autobackbone.records import ImageSize, Normalisation, Resize
from autobackbone.runfolder import written_whole
from autobackbone.scratch import scratch_folder

# What timm reads in a folder.
_CONFIG: Final = "config.json"
_WEIGHTS: Final = "model.safetensors"
# Of logits, as a share of the largest.
_SAME: Final = 1e-4
# timm's words for how a picture is fitted into the network's size.
_CROP_MODES: Final = {"squash": "squash", "crop": "center", "pad": "border"}


def save_local_dir(
    network: nn.Module,
    folder: Path,
    *,
    image_size: ImageSize,
    normalisation: Normalisation,
    resize: Resize,
    interpolation: str,
    classes: Sequence[str | int],
) -> float:
    """Write a whole network of timm, and prove that timm builds the same from it.

    Args:
        network: as `build` gives it, in eval mode on the CPU.
        folder: made if need be; files of these names in it are replaced.
        image_size: height and width in pixels that it takes.
        normalisation: how pixels enter it.
        resize: how a picture is fitted into that size.
        interpolation: by which.
        classes: in the order of its outputs.

    Returns:
        Megabytes of both files, 10**6 bytes.

    Raises:
        ArgumentError: it cannot be written.
        BackboneError: timm builds another network of it.
    """
    data = {
        "input_size": (3, *image_size),
        "mean": normalisation.mean,
        "std": normalisation.std,
        "interpolation": interpolation,
        "crop_pct": 1.0,
        "crop_mode": _CROP_MODES[resize],
    }
    try:
        with scratch_folder() as scratch:
            save_for_hf(
                network,
                str(scratch),
                model_config={"label_names": [str(name) for name in classes]},
                safe_serialization=True,
                data_config=data,
            )
            _require_same(network, scratch, image_size)
            folder.mkdir(parents=True, exist_ok=True)
            for name in (_WEIGHTS, _CONFIG):
                with written_whole(folder / name) as temporary:
                    shutil.copyfile(scratch / name, temporary)
    except OSError as error:
        raise ArgumentError(f"cannot write to {str(folder)!r}: {error}. Name a folder that can be written.") from error
    return sum((folder / name).stat().st_size for name in (_WEIGHTS, _CONFIG)) / 1e6


def _require_same(network: nn.Module, folder: Path, image_size: ImageSize) -> None:
    images = torch.randn(2, 3, *image_size, generator=torch.Generator().manual_seed(0))
    try:
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]), torch.no_grad():
            warnings.simplefilter("ignore")
            wanted = network(images)
            found = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()(images)
            apart = float((found - wanted).abs().max())
            reason = "" if apart <= _SAME * max(1.0, float(wanted.abs().max())) else f"logits differ by {apart:.2g}"
    except (RuntimeError, TypeError, ValueError, KeyError, AssertionError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = " ".join(lines[:2])
    if reason:
        raise BackboneError(
            f"timm cannot build this {type(network).__name__} by its name: {reason.rstrip('.')}. A network that was "
            "cut, or has another head than timm's, goes out by to_onnx, by to_torch_export, or as "
            "model(…).state_dict()."
        )

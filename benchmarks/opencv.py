"""What OpenCV's resizing changes for a network that was trained on Pillow's.

python benchmarks/opencv.py FOLDER    # needs opencv-python-headless
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import timm
import torch
from reporting import machine, write_report

from autobackbone.backbones.build import normalisation
from autobackbone.backbones.weights import find_weights, load_state_dict
from autobackbone.data import Preparation, to_pixels
from autobackbone.data.pictures import as_rgb
from autobackbone.exporting.transform import normalise

BACKBONE = "tf_efficientnet_lite0.in1k"
SIDE = 160
N_PICTURES = 60
WAYS = {
    "INTER_AREA": cv2.INTER_AREA,
    "INTER_LINEAR": cv2.INTER_LINEAR,
    "INTER_CUBIC": cv2.INTER_CUBIC,
    "INTER_LANCZOS4": cv2.INTER_LANCZOS4,
}
OPENING = f"""
{BACKBONE} with its own classifier of ImageNet at {SIDE} px, on pictures that Pillow resized (bicubic), and that OpenCV
did. *Levels* of 255; *probability* is that of the class that was likeliest before.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    files = sorted(parser.parse_args().folder.rglob("*.jpg"))
    files = files[:: max(1, len(files) // N_PICTURES)][:N_PICTURES]
    pictures = [np.asarray(as_rgb(file)) for file in files]
    network = timm.create_model(BACKBONE)
    network.load_state_dict(dict(load_state_dict(BACKBONE, find_weights(BACKBONE, None))))
    network.eval()
    by_pillow = np.stack([to_pixels(picture, (SIDE, SIDE), Preparation()) for picture in pictures])
    before = said(network, by_pillow)
    facts = []
    for name, by in WAYS.items():
        by_opencv = np.stack([cv2.resize(picture, (SIDE, SIDE), interpolation=by) for picture in pictures])
        facts.append({"by": name, **compared(by_pillow, by_opencv, before, said(network, by_opencv))})
    rows = [
        f"| {one['by']} | {one['levels']:.2f} | {one['other']:.0%} | {one['mean']:.3f} | {one['largest']:.3f} |"
        for one in facts
    ]
    sizes = sorted({picture.shape[:2] for picture in pictures})
    report = [
        OPENING,
        f"{machine(torch.get_num_threads())} OpenCV {cv2.__version__}.",
        f"{len(pictures)} pictures of {', '.join(f'{width} × {height}' for height, width in sizes[:3])} px.",
        "",
        "| OpenCV | levels, mean | another likeliest class | probability, mean change | largest change |",
        "|---|---|---|---|---|",
        *rows,
        "",
    ]
    write_report(Path("docs/benchmarks"), "opencv", "\n".join(report), facts)


def said(network: torch.nn.Module, pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Probabilities (n, 1000)."""
    with torch.inference_mode():
        inputs = normalise(torch.from_numpy(pixels), normalisation(BACKBONE))
        return torch.cat([network(some).softmax(1) for some in torch.split(inputs, 15)]).numpy()


def compared(*both: np.ndarray[Any, Any]) -> dict[str, float]:
    """How far pixels, and what is said of them, are apart."""
    one, other, before, after = both
    top = before.argmax(axis=1)
    apart = np.abs(after - before)[np.arange(len(top)), top]
    return {
        "levels": float(np.abs(one.astype(float) - other).mean()),
        "other": float((after.argmax(axis=1) != top).mean()),
        "mean": float(apart.mean()),
        "largest": float(apart.max()),
    }


if __name__ == "__main__":
    main()

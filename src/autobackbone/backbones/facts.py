"""What timm's authors have published about accuracy, size and speed, as two tables in this package.

`tables/FACTS.md` says where each column comes from, on which machine it was measured, and under which licence.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import cast

import pandas as pd

SPEEDS = ("cpu_images_per_s", "gpu_images_per_s", "train_images_per_s")
"""Published speeds: one picture on an i9-10940X, batches on an RTX 4090, training on an RTX 3090."""


@cache
def accuracy() -> pd.DataFrame:
    """Published ImageNet-1k accuracy: `top1`, `top5` (per cent) and `n_params` by (name, image size).

    Example:
        >>> float(accuracy().loc[("resnet50.a1_in1k", 224), "top1"])
        80.382
    """
    return _table("accuracy").set_index(["name", "image_size"])


@cache
def speed() -> pd.DataFrame:
    """Published `gmacs`, `n_params` and images per second by (architecture, image size).

    Example:
        >>> float(speed().loc[("resnet50", 224), "cpu_images_per_s"])
        67.2
    """
    return _table("speed").set_index(["architecture", "image_size"])


@cache
def n_params() -> dict[str, int]:
    """Published parameters by architecture, its ImageNet classifier included.

    Example:
        >>> n_params()["resnet50"]
        25560000
    """
    table = speed()["n_params"]
    return cast("dict[str, int]", table.groupby("architecture").first().to_dict())


def _table(name: str) -> pd.DataFrame:
    path = files("autobackbone.backbones") / "tables" / f"{name}.csv.xz"
    with path.open("rb") as file:
        return pd.read_csv(file, compression="xz")

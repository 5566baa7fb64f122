"""Every pre-trained backbone that the installed timm knows, with what is published about it."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import pandas as pd

from autobackbone.backbones import facts
from autobackbone.backbones.licences import allows_commercial, pretraining_of
from autobackbone.backbones.names import architecture_of, family_of, pretrained_cfg, pretrained_names, resolve_names
from autobackbone.backbones.weights import GivenWeights, loadable
from autobackbone.errors import BackboneError
from autobackbone.records import BackboneInfo

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

_UNKNOWN_LICENCES = frozenset({"", "unknown", "other"})


def catalogue(*, weights: GivenWeights = None) -> pd.DataFrame:
    """Every pre-trained backbone that timm knows here, one row each.

    Accuracy and speeds are those published for the backbone's own input size, and missing where nobody has published
    them at that size. Speeds: `cpu_images_per_s` single pictures on an Intel i9-10940X, `gpu_images_per_s` large
    batches on an NVIDIA RTX 4090, `train_images_per_s` training on an RTX 3090. `file_megabytes` is an estimate: four
    bytes for every parameter.

    Args:
        weights: files that the user has, as `find_weights` takes them; they count in the column `loadable`.

    Returns:
        Columns `name, architecture, tag, family, top1, top5, n_params, gmacs, file_megabytes, cpu_images_per_s,
        gpu_images_per_s, train_images_per_s, input_size` (height, width)`, licence, licence_allows_commercial` (unknown
        counts as no)`, pretraining, loadable` (`"file"`, `"package"`, `"cache"`, `"hub"`, missing if it cannot be).

    Example:
        >>> table = catalogue().set_index("name")
        >>> float(table.loc["inception_v3.tv_in1k", "top1"])
        77.472
    """
    table = _published().copy()
    sources = loadable(pretrained_names(), weights)
    table["loadable"] = pd.Series([sources.get(name) for name in table.index], index=table.index, dtype="object")
    return table.reset_index(drop=True)


def info(name: str, *, weights: GivenWeights = None) -> BackboneInfo:
    """The published facts of one backbone.

    Args:
        name: full name, or an architecture for timm's default weights of it.
        weights: as for `catalogue`.

    Raises:
        BackboneError: timm knows no such backbone, or several match.

    Example:
        >>> info("resnet50").n_params
        25560000
    """
    names = resolve_names(name)
    if len(names) != 1:
        raise BackboneError(f"one backbone was wanted, {name!r} matches {len(names)}; use resolve_names for globs.")
    row = {column: _plain(value) for column, value in _published().loc[names[0]].items()}
    return BackboneInfo(
        name=names[0],
        family=row["family"],
        image_size=row["input_size"],
        n_params=row["n_params"],
        top1=row["top1"],
        top5=row["top5"],
        gmacs=row["gmacs"],
        file_megabytes=row["file_megabytes"],
        cpu_images_per_s=row["cpu_images_per_s"],
        gpu_images_per_s=row["gpu_images_per_s"],
        licence=row["licence"],
        licence_allows_commercial=row["licence_allows_commercial"],
        source=loadable(names, weights).get(names[0]),
    )


@cache
def _published() -> pd.DataFrame:
    accuracy = facts.accuracy().to_dict(orient="index")
    speed = facts.speed().to_dict(orient="index")
    table = pd.DataFrame([_row(name, accuracy, speed) for name in pretrained_names()])
    table["n_params"] = table["n_params"].astype("Int64")
    return table.set_index("name", drop=False).rename_axis(index=None)


def _row(
    name: str,
    accuracy: Mapping[Hashable, Mapping[Hashable, Any]],
    speed: Mapping[Hashable, Mapping[Hashable, Any]],
) -> dict[str, Any]:
    published = pretrained_cfg(name)
    height, width = published.input_size[-2:]
    architecture = architecture_of(name)
    accurate = accuracy.get((name, height), {}) if height == width else {}
    fast = speed.get((architecture, height), {}) if height == width else {}
    licence = None if (published.license or "").lower() in _UNKNOWN_LICENCES else published.license
    n_params = accurate.get("n_params", facts.n_params().get(architecture))
    return {
        "name": name,
        "architecture": architecture,
        "tag": name[len(architecture) + 1 :],
        "family": family_of(name),
        "top1": accurate.get("top1"),
        "top5": accurate.get("top5"),
        "n_params": n_params,
        "gmacs": fast.get("gmacs"),
        "file_megabytes": None if n_params is None else n_params * 4 / 1e6,
        **{column: fast.get(column) for column in facts.SPEEDS},
        "input_size": (height, width),
        "licence": licence,
        "licence_allows_commercial": allows_commercial(licence),
        "pretraining": pretraining_of(name),
    }


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return value
    if pd.isna(value):
        return None
    return value.item() if hasattr(value, "item") else value

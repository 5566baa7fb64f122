"""The known picture that bigger is not always better: published accuracy against size or speed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import numpy as np
from matplotlib.figure import Figure

from autobackbone.backbones.catalogue import catalogue
from autobackbone.backbones.names import resolve_names
from autobackbone.errors import BackboneError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

CatalogueAxis = Literal["n_params", "gmacs", "cpu_images_per_s", "gpu_images_per_s"]

_LABELS: dict[CatalogueAxis, str] = {
    "n_params": "parameters",
    "gmacs": "multiply-adds of one picture, thousand millions",
    "cpu_images_per_s": "pictures per second, one at a time, Intel i9-10940X",
    "gpu_images_per_s": "pictures per second, large batches, NVIDIA RTX 4090",
}
_NEWCOMERS = ("resnet50", "efficientnet_b0", "inception_v3")


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueFacts:
    """What the picture shows.

    Args:
        names: n backbones for which both numbers are published.
        x: (n,) size or speed, above 0.
        top1: (n,) ImageNet accuracy, per cent.
        is_front: (n,) bool, no other is at least as cheap and as accurate, and better in one of them.
        x_label: what `x` is, with its unit and machine.
    """

    names: tuple[str, ...]
    x: NDArray[np.float64]
    top1: NDArray[np.float64]
    is_front: NDArray[np.bool_]
    x_label: str


def plot_catalogue(
    x: CatalogueAxis = "n_params", *, ax: Axes | None = None, highlight: Sequence[str] = _NEWCOMERS
) -> Figure:
    """Draw published ImageNet accuracy against size or speed, one dot a backbone, the front drawn through.

    Args:
        x: the column of the catalogue on the logarithmic axis.
        ax: where to draw; `None` makes a figure.
        highlight: names or globs to mark and name in the legend; those without published numbers are passed over.

    Returns:
        The figure that was drawn into.

    Example:
        >>> plot_catalogue("gmacs").axes[0].get_xscale()
        'log'
    """
    facts = catalogue_facts(x)
    axes = ax if ax is not None else Figure(figsize=(8, 5), layout="constrained").add_subplot()
    _draw(axes, facts)
    for name in resolve_names(highlight) if len(highlight) else ():
        if name in facts.names:
            _label(axes, facts, name)
    axes.legend(loc="lower right")
    return cast("Figure", axes.get_figure(root=True))


def catalogue_facts(x: CatalogueAxis) -> CatalogueFacts:
    """Gather the numbers behind `plot_catalogue`.

    Raises:
        BackboneError: `x` is no such column.

    Example:
        >>> len(catalogue_facts("n_params").names)
        1266
    """
    if x not in get_args(CatalogueAxis):
        raise BackboneError(f"x must be one of {', '.join(get_args(CatalogueAxis))}, not {x!r}.")
    table = catalogue().dropna(subset=["top1", x])
    values, top1 = table[x].to_numpy(float), table["top1"].to_numpy(float)
    costs = -values if x.endswith("_per_s") else values
    return CatalogueFacts(
        names=tuple(table["name"]), x=values, top1=top1, is_front=_is_front(costs, top1), x_label=_LABELS[x]
    )


def _is_front(costs: NDArray[np.float64], top1: NDArray[np.float64]) -> NDArray[np.bool_]:
    # Nothing to do with a run's front: no noise, and thousands of dots, so one sorted pass. Among equal costs the most
    # accurate comes first; who does not rise above all before it is beaten, unless it is that very point again.
    order = np.lexsort((-top1, costs))
    best_before = np.concatenate(([-np.inf], np.maximum.accumulate(top1[order])[:-1]))
    rises = top1[order] > best_before
    front = {(float(costs[i]), float(top1[i])) for i in order[rises]}
    return np.array([point in front for point in zip(costs.tolist(), top1.tolist(), strict=True)], dtype=np.bool_)


def _draw(axes: Axes, facts: CatalogueFacts) -> None:
    axes.scatter(facts.x, facts.top1, s=8, alpha=0.35, label=f"{len(facts.names):,} backbones")
    order = np.argsort(facts.x[facts.is_front])
    style: dict[str, Any] = {"linewidth": 1.5, "color": "tab:orange", "label": "front"}
    axes.plot(facts.x[facts.is_front][order], facts.top1[facts.is_front][order], **style)
    axes.set_xscale("log")
    axes.set_xlabel(facts.x_label)
    axes.set_ylabel("ImageNet top-1, %")
    axes.set_title("Published accuracy of pre-trained networks (timm)")


def _label(axes: Axes, facts: CatalogueFacts, name: str) -> None:
    # In the legend, since names written beside dots cover each other: well-known networks are close neighbours.
    at = facts.names.index(name)
    axes.plot(facts.x[at], facts.top1[at], marker="o", linestyle="none", label=f"{name}: {facts.top1[at]:.1f} %")

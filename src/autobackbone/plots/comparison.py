"""The picture of two runs: both fronts on the same axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from autobackbone.metrics import Metric
from autobackbone.plots.front import COLOURS, FrontFacts, front_facts, scale_latencies
from autobackbone.records import Trial

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MARKERS = ("o", "D")


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontOf:
    """One of the runs.

    Args:
        name: as the legend has it.
        facts: as of the picture of a single run.
    """

    name: str
    facts: FrontFacts


def front_of_run(name: str, trials: Sequence[Trial], target: str, metric: Metric, chosen: int | None) -> FrontOf:
    """Gather what the picture says of one run."""
    return FrontOf(name=name, facts=front_facts(trials, target, metric, chosen))


def draw_fronts(fronts: Sequence[FrontOf], ax: Axes | None = None) -> Figure:
    """Draw the fronts of several runs, the chosen trial of each ringed; up and to the left is better.

    Args:
        fronts: of one metric.
        ax: axes to draw into; `None` makes a figure.
    """
    axes = Figure(figsize=(9.0, 5.0), dpi=120, layout="constrained").subplots() if ax is None else ax
    for place, front in enumerate(fronts):
        _draw(axes, front, COLOURS[place % len(COLOURS)], _MARKERS[place % len(_MARKERS)])
    first = fronts[0].facts
    targets = list(dict.fromkeys(front.facts.target_line for front in fronts))
    axes.set_xlabel(f"latency (ms) on {'; '.join(targets)}", parse_math=False)
    axes.set_ylabel(first.height_label, parse_math=False)
    if not first.is_higher_better:
        axes.invert_yaxis()
    scale_latencies(axes, [point.latency_ms for front in fronts for point in front.facts.points])
    axes.grid(visible=True, color="#E6E6E6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    legend = axes.legend(loc="best", frameon=False, fontsize=9)
    for text in legend.get_texts():
        text.set_parse_math(False)  # a name may hold signs that would be read as a formula
    figure = axes.get_figure(root=True)
    assert figure is not None
    return figure


def _draw(axes: Axes, front: FrontOf, colour: str, marker: str) -> None:
    facts = front.facts
    latencies, heights = [list(of) for of in zip(*facts.steps, strict=True)] if facts.steps else ([], [])
    label = f"{front.name} (no trial has finished)" if not facts.steps else front.name
    axes.plot(
        latencies,
        heights,
        marker=marker,
        color=colour,
        drawstyle="steps-post",
        linewidth=1.3,
        markersize=6,
        label=label,
    )
    for point in facts.points:
        if not point.on_front:
            height = facts.floor if point.is_clipped else point.height
            axes.plot(point.latency_ms, height, marker=marker, color=colour, markersize=4, alpha=0.3)
        if point.number == facts.chosen:
            height = facts.floor if point.is_clipped else point.height
            axes.scatter(
                point.latency_ms, height, s=220, facecolors="none", edgecolors=colour, linewidths=1.6, zorder=5
            )

"""The picture of a run: score against latency, every finished trial, the front drawn through."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from autobackbone.metrics import Metric, scale_of, shown, to_maximised
from autobackbone.records import Trial

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9")
"""Of Okabe and Ito 2008: told apart by people who do not see all colours. Their black is kept for the front."""
_OTHER_COLOUR = "#9A9A9A"
_FRONT_COLOUR = "#222222"
OTHERS = "other backbones"
# Ticks at 1, 2 and 5 of each decade need about this span to give three labels.
_WIDE_SPAN = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontPoint:
    """One finished trial in the picture.

    Args:
        group: its backbone, or `OTHERS` where there are more backbones than colours.
        height: its score as the axis shows it, per cent or nats.
        is_clipped: so far below the front that it is drawn on the lower edge.
        reach_ms: ends of what noise leaves open of its latency; `None` where there is none, or it is not on the front.
        tested: its test score and the ends of that score's 95 % interval, as the axis shows them; `None` where it is
            not confirmed, or not on the front.
    """

    number: int
    backbone: str
    group: str
    latency_ms: float
    height: float
    is_frozen: bool
    on_front: bool
    is_clipped: bool
    reach_ms: tuple[float, float] | None = None
    tested: tuple[float, float, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontFacts:
    """All that the picture says.

    Args:
        points: finished trials with a score and a latency, in the order of their numbers.
        groups: what has a colour of its own, most telling first; `OTHERS`, if any, is last.
        steps: latency and height of the front's points, fastest first.
        floor: the height of the lower edge.
        chosen: number of the ringed point, `None` for no ring.
        chosen_label: its backbone and what it trades.
    """

    points: tuple[FrontPoint, ...]
    groups: tuple[str, ...]
    steps: tuple[tuple[float, float], ...]
    floor: float
    chosen: int | None
    chosen_label: str
    height_label: str
    target_line: str
    is_higher_better: bool


def front_facts(trials: Sequence[Trial], target_line: str, metric: Metric, chosen: int | None) -> FrontFacts:
    """Gather what the picture of a run says.

    Trials far below the front stand on the lower edge: a learning rate at which nothing was learnt must not press all
    others into one line.

    Args:
        trials: of one run, as they stand; those that did not finish are left out.
        target_line: where latencies were measured, as `describe` says it.
        metric: of the scores.
        chosen: number of the trial to ring, `None` for none.

    Example:
        >>> from autobackbone.metrics import metric_for
        >>> front_facts([], "cpu", metric_for("accuracy", n_outputs=2), None).points
        ()
    """
    finished = [trial for trial in sorted(trials, key=lambda trial: trial.number) if _is_drawn(trial)]
    floor = _floor(finished, metric)
    groups = _groups(finished)
    points = tuple(_point(trial, metric, floor, groups) for trial in finished)
    ringed = next((trial for trial in finished if trial.number == chosen), None)
    return FrontFacts(
        points=points,
        groups=groups,
        steps=tuple(sorted((point.latency_ms, point.height) for point in points if point.on_front)),
        floor=floor,
        chosen=ringed.number if ringed else None,
        chosen_label=_label(ringed, metric) if ringed else "",
        height_label=_height_label(metric, any(trial.fold_score is not None for trial in finished)),
        target_line=target_line,
        is_higher_better=metric.is_higher_better,
    )


def _is_drawn(trial: Trial) -> bool:
    values = (trial.score, trial.latency_ms)
    return trial.state == "finished" and all(value is not None and math.isfinite(value) for value in values)


def _height(trial: Trial, metric: Metric) -> float:
    assert trial.score is not None
    return _factor(metric) * trial.score


def _factor(metric: Metric) -> float:
    """By what the axis shows a score enlarged: a share is read in per cent, an `r2` as it is."""
    return scale_of(metric)[0]


def _floor(finished: Sequence[Trial], metric: Metric) -> float:
    """As far below the front's worst as its best is above it, and room for what is close."""
    heights = [to_maximised(metric, _height(trial, metric)) for trial in finished]
    on_front = [height for height, trial in zip(heights, finished, strict=True) if trial.on_front] or heights
    if not heights:
        return 0.0
    room = max(max(on_front) - min(on_front), _least_room(metric, on_front))
    lowest = [to_maximised(metric, end) for trial in finished for end in _tested(trial, metric) or ()]
    return to_maximised(metric, min([max(min(heights), min(on_front) - room), *filter(math.isfinite, lowest)]))


def _least_room(metric: Metric, heights: Sequence[float]) -> float:
    """What a difference has to be, to be worth a look: eight points, or 0.08 of an `r2`, 0.3 nats, or a quarter of the
    front's errors.
    """
    if metric.unit == "target":
        return 0.25 * max(map(abs, heights))
    return 0.08 * _factor(metric) if metric.unit == "points" else 0.3


def _tested(trial: Trial, metric: Metric) -> tuple[float, float, float] | None:
    """Test score, low and high of a trial of the front, as the axis shows them."""
    score, low, high = trial.test_score, trial.test_score_low, trial.test_score_high
    if not trial.on_front or score is None or low is None or high is None:
        return None
    factor = _factor(metric)
    found = (factor * score, factor * low, factor * high)
    return found if all(map(math.isfinite, found)) else None


def _groups(finished: Sequence[Trial]) -> tuple[str, ...]:
    """Backbones on the front first, then those tried most; the last colour's place is that of the others."""
    n_trials = Counter(trial.backbone for trial in finished)
    on_front = {trial.backbone for trial in finished if trial.on_front}
    ordered = sorted(n_trials, key=lambda name: (name not in on_front, -n_trials[name], name))
    return tuple(ordered) if len(ordered) <= len(COLOURS) else (*ordered[: len(COLOURS)], OTHERS)


def _point(trial: Trial, metric: Metric, floor: float, groups: Sequence[str]) -> FrontPoint:
    assert trial.latency_ms is not None
    height = _height(trial, metric)
    return FrontPoint(
        number=trial.number,
        backbone=trial.backbone,
        group=trial.backbone if trial.backbone in groups else OTHERS,
        latency_ms=trial.latency_ms,
        height=height,
        is_frozen=trial.n_unfrozen == 0,
        on_front=trial.on_front,
        is_clipped=to_maximised(metric, height) < to_maximised(metric, floor),
        reach_ms=_reach_ms(trial),
        tested=_tested(trial, metric),
    )


def _reach_ms(trial: Trial) -> tuple[float, float] | None:
    """Latency less and plus its noise; a quarter of it at least, as an axis of logarithms needs."""
    latency_ms, noise_ms = trial.latency_ms or 0.0, trial.latency_noise_ms or 0.0
    if not trial.on_front or not 0 < noise_ms < math.inf:
        return None
    return max(latency_ms - noise_ms, latency_ms / 4), latency_ms + noise_ms


def _label(trial: Trial, metric: Metric) -> str:
    height, width = trial.image_size
    size = f"{width} px" if height == width else f"{height}×{width} px"
    depth = f"{trial.n_unfrozen} of {trial.n_blocks} blocks" if trial.n_unfrozen else "frozen features"
    assert trial.score is not None
    return (
        f"{trial.backbone}{trial.body.cut}\n{size}, {depth}\n{shown(metric, trial.score)} at {trial.latency_ms:.3g} ms"
    )


def _height_label(metric: Metric, has_folds: bool) -> str:  # noqa: FBT001
    name = metric.name.replace("_", " ")
    name = f"{name} by folds, or in validation" if has_folds else f"validation {name}"
    _, unit = scale_of(metric)
    unit = "%" if unit == " points" else unit.strip()
    notes = ", ".join(filter(None, [unit, "" if metric.is_higher_better else "better is up"]))
    return f"{name} ({notes})" if notes else name


def draw_front(facts: FrontFacts, ax: Axes | None = None) -> Figure:
    """Draw the picture; up and to the left is better, whatever the metric.

    Args:
        facts: from `front_facts`.
        ax: axes to draw into; `None` makes a figure, with no help from pyplot and its global state.

    Example:
        >>> from autobackbone.metrics import metric_for
        >>> type(draw_front(front_facts([], "cpu", metric_for(None, n_outputs=2), None))).__name__
        'Figure'
    """
    axes = Figure(figsize=(9.0, 5.0), dpi=120, layout="constrained").subplots() if ax is None else ax
    _draw_points(axes, facts)
    _scale(axes, facts)
    _draw_steps(axes, facts)
    _draw_intervals(axes, facts)
    _draw_chosen(axes, facts)
    _name_things(axes, facts)
    figure = axes.get_figure(root=True)
    assert figure is not None
    return figure


def _colour(facts: FrontFacts, group: str) -> str:
    return _OTHER_COLOUR if group == OTHERS else COLOURS[facts.groups.index(group)]


def _draw_points(axes: Axes, facts: FrontFacts) -> None:
    # Hundreds of points stand in a few columns, one a backbone and size: small and see-through ones show how many.
    size = 52 if len(facts.points) <= 30 else 26
    for point in sorted(facts.points, key=lambda point: point.on_front):
        colour = _colour(facts, point.group)
        axes.scatter(
            point.latency_ms,
            facts.floor if point.is_clipped else point.height,
            s=size * (1.4 if point.on_front else 1.0),
            marker="v" if point.is_clipped else "o" if point.is_frozen else "D",
            facecolors="white" if point.is_frozen else colour,
            edgecolors=colour,
            linewidths=1.4,
            alpha=1.0 if point.on_front else 0.6,
            zorder=4 if point.on_front else 2,
            clip_on=False,
        )


def scale_latencies(axes: Axes, latencies_ms: Sequence[float]) -> None:
    """Give axes a logarithmic scale of latencies with room at both ends, and few enough ticks to be read."""
    axes.set_xscale("log")
    known = latencies_ms or [1.0, 10.0]
    low, high = min(known) / 1.25, max(known) * 1.25
    axes.set_xlim(low, high)
    is_wide = high / low >= _WIDE_SPAN
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)) if is_wide else MaxNLocator(6))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())


def _scale(axes: Axes, facts: FrontFacts) -> None:
    scale_latencies(axes, [at for point in facts.points for at in (point.latency_ms, *(point.reach_ms or ()))])
    best = max if facts.is_higher_better else min
    ends = [end for point in facts.points for end in point.tested or ()]
    top = best([*(point.height for point in facts.points), *ends], default=facts.floor)
    room = (abs(top - facts.floor) or 1.0) * (1 if facts.is_higher_better else -1)
    axes.set_ylim(facts.floor - 0.06 * room, top + 0.12 * room)


def _draw_steps(axes: Axes, facts: FrontFacts) -> None:
    if facts.steps:
        latencies, heights = zip(*facts.steps, strict=True)
        right = axes.get_xlim()[1]
        axes.step(
            [*latencies, right], [*heights, heights[-1]], where="post", color=_FRONT_COLOUR, linewidth=1.3, zorder=3
        )


def _draw_intervals(axes: Axes, facts: FrontFacts) -> None:
    """Test scores of the front with their intervals: what the search has seen, and what it has not; and what noise
    leaves open of its latencies.
    """
    for point in facts.points:
        if point.reach_ms is not None:
            axes.plot(point.reach_ms, [point.height] * 2, color=_FRONT_COLOUR, linewidth=0.9, marker="|", zorder=3)
        if point.tested is not None:
            score, low, high = point.tested
            reach = [[abs(score - low)], [abs(high - score)]]
            axes.errorbar(
                point.latency_ms, score, yerr=reach, fmt="_", color=_FRONT_COLOUR, elinewidth=0.9, capsize=2.5, zorder=3
            )


def _draw_chosen(axes: Axes, facts: FrontFacts) -> None:
    chosen = next((point for point in facts.points if point.number == facts.chosen), None)
    if chosen is None:
        return
    place = (chosen.latency_ms, facts.floor if chosen.is_clipped else chosen.height)
    axes.scatter(*place, s=260, facecolors="none", edgecolors=_FRONT_COLOUR, linewidths=1.8, zorder=5, clip_on=False)
    # Nothing can stand above and to the left of a point of the front: it would beat it.
    axes.annotate(
        "chosen", place, xytext=(-10, 9), textcoords="offset points", ha="right", va="bottom", fontsize=9, zorder=6
    )


def _name_things(axes: Axes, facts: FrontFacts) -> None:
    # A name may hold signs that would be read as a formula.
    axes.set_xlabel(f"latency (ms) on {facts.target_line}", parse_math=False)
    axes.set_ylabel(facts.height_label, parse_math=False)
    n_trials = f"{len(facts.points)} finished trial{'s' if len(facts.points) != 1 else ''}"
    title = f"{n_trials}, {len(facts.steps)} on the front\n{facts.target_line}"
    axes.set_title(title, loc="left", fontsize=10, parse_math=False)
    axes.grid(visible=True, color="#E6E6E6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if facts.points:
        legend = axes.legend(
            handles=_legend(facts), loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=8.5
        )
        for text in legend.get_texts():
            text.set_parse_math(False)


def _legend(facts: FrontFacts) -> list[Line2D]:
    def handle(label: str, colour: str, marker: str, *, is_hollow: bool = False) -> Line2D:
        face = "white" if is_hollow else colour
        return Line2D([], [], linestyle="", marker=marker, color=colour, markerfacecolor=face, label=label)

    n_clipped = sum(point.is_clipped for point in facts.points)
    handles = [handle(group, _colour(facts, group), "s") for group in facts.groups]
    handles += [handle("frozen features", _FRONT_COLOUR, "o", is_hollow=True), handle("fine-tuned", _FRONT_COLOUR, "D")]
    handles += [Line2D([], [], color=_FRONT_COLOUR, linewidth=1.3, label="front")]
    if any(point.tested for point in facts.points):
        handles.append(handle("test score, 95 % interval", _FRONT_COLOUR, "_"))
    if any(point.reach_ms for point in facts.points):
        handles.append(Line2D([], [], color=_FRONT_COLOUR, linewidth=0.9, marker="|", label="latency ± noise"))
    if n_clipped:
        handles.append(handle(f"{n_clipped} worse than shown", _OTHER_COLOUR, "v"))
    if facts.chosen is not None:
        ring = handle(f"chosen: {facts.chosen_label}", _FRONT_COLOUR, "o", is_hollow=True)
        ring.set(markersize=13, markeredgewidth=1.8)
        handles.append(ring)
    return handles

"""What the page of a run says, gathered: a tested record, and the data of its script."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from autobackbone.choosing import as_they_stand, on_one_scale
from autobackbone.data import LEFT_OUT, PART_CODES
from autobackbone.data.surveying import count_pictures
from autobackbone.errors import AutobackboneError
from autobackbone.metrics import aligned, scale_of, to_maximised
from autobackbone.optimism import unconfirmed
from autobackbone.records import Trial, counted
from autobackbone.reports.closely import Plain, close_ups, curve_of, one_line, rows_of, worthiest_first
from autobackbone.reports.mistakes import Mistakes, mistakes_of
from autobackbone.reports.notebook import (
    ChosenFacts,
    TrialRow,
    chosen_facts,
    heading_of,
    reason_of,
    trial_columns,
    trial_rows,
)
from autobackbone.reports.seen import RunSeen, said_of
from autobackbone.reports.surroundings import cost_rows, environment_rows
from autobackbone.reviewing import suspects
from autobackbone.search.frozen import judges_of
from autobackbone.search.importance import Importance, importance_of
from autobackbone.search.trialfiles import read_pictures

_N_SUSPECTS = 20
_OF_SUSPECT = {
    "name": "picture",
    "part": "part",
    "label": "label",
    "suggested": "suggested",
    "label_probability": "for its label",
    "suggested_probability": "for the suggested",
}
# Trials in the picture and the tables: beyond it no eye tells them apart, and a page gets slow.
_MOST_TRIALS = 1500
_MOST_CLASSES = 200
_Made = TypeVar("_Made")


@dataclass(frozen=True, slots=True, kw_only=True)
class PageFacts:
    """All that the page says besides the picture; texts as they come, to be escaped.

    Args:
        chosen: the trial to use; `None` where there is none.
        reason: of the choice, or why there is none.
        cautions: on how far it can be trusted, and advice.
        other_rows: trials that are not on the front.
        mistakes: `None` where nothing is chosen.
    """

    title: str
    heading: str
    target: str
    state: str
    chosen: ChosenFacts | None
    reason: str
    cautions: tuple[str, ...]
    has_front: bool
    front_caption: str
    trial_columns: tuple[str, ...]
    front_rows: tuple[TrialRow, ...]
    other_rows: tuple[TrialRow, ...]
    other_caption: str
    mistakes: Mistakes | None
    mistakes_caption: str
    suspects_caption: str
    suspect_columns: tuple[str, ...]
    suspect_rows: tuple[tuple[str, ...], ...]
    importance: Importance
    cost_columns: tuple[str, ...]
    cost_rows: tuple[tuple[str, ...], ...]
    cost_note: str
    count_columns: tuple[str, ...]
    count_rows: tuple[tuple[str, ...], ...]
    data_notes: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    footer: str


def page_facts(seen: RunSeen, *, n_pictures: int, dataset: Any) -> tuple[PageFacts, Plain]:
    """Gather what the page says, and the data of its script. What is damaged or not there is said in its place.

    Args:
        seen: the run.
        n_pictures: of what it gets wrong, at most.
        dataset: where these are; `None` for the path that the run has noted.
    """
    pictured = worthiest_first(seen.finished, seen.chosen, seen.metric)[:_MOST_TRIALS]
    numbers = {trial.number for trial in pictured}
    mistakes, mistakes_caption = _mistakes(seen, n_pictures, dataset)
    suspect_rows, suspects_caption = _suspects(seen)
    count_rows, count_problem = _tried(lambda: _counts(seen))
    costs, cost_note = cost_rows(seen)
    others = [trial for trial in seen.trials if not trial.on_front]
    page = PageFacts(
        title=f"autobackbone: {seen.reader.run.path.name}",
        heading=heading_of(seen),
        target=seen.target,
        state=_state(seen),
        chosen=chosen_facts(seen),
        reason=reason_of(seen),
        cautions=_cautions(seen),
        has_front=bool(seen.front),
        front_caption=_front_caption(seen, len(pictured)),
        trial_columns=trial_columns(seen),
        front_rows=trial_rows(seen, seen.front, numbers),
        other_rows=trial_rows(seen, others[:_MOST_TRIALS], numbers),
        other_caption=_other_caption(others),
        mistakes=mistakes,
        mistakes_caption=mistakes_caption,
        suspects_caption=suspects_caption,
        suspect_columns=tuple(_OF_SUSPECT.values()),
        suspect_rows=suspect_rows,
        importance=importance_of(seen.trials, seen.metric),
        cost_columns=("", "wall clock", "trials", "their own time"),
        cost_rows=costs,
        cost_note=cost_note,
        count_columns=("", "train", "validation", "test"),
        count_rows=count_rows or (),
        data_notes=(*([count_problem] if count_problem else []), *map(str, seen.facts["notes"])),
        environment=environment_rows(seen),
        footer="Written by autobackbone. This file holds all that it shows and fetches nothing.",
    )
    return page, _data(seen, pictured)


def _tried(make: Callable[[], _Made]) -> tuple[_Made | None, str]:
    """What can be had of a run, or why it cannot: the rest of the page is still good."""
    try:
        return make(), ""
    except AutobackboneError as error:
        return None, str(error)


def _state(seen: RunSeen) -> str:
    n_finished = len(seen.finished)
    words = "its budget was spent to its end" if seen.has_ended else "it was cut off, or still goes on"
    begun = seen.facts.get("begun_at")
    when = f", begun {_moment(begun)}" if isinstance(begun, str) else ""
    return f"{counted(len(seen.trials), 'trial')}, {n_finished} finished{when}; {words}."


def _moment(noted: str) -> str:
    """As it is read; a text from elsewhere that is no moment stays as it is."""
    try:
        return datetime.fromisoformat(noted).astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (ValueError, OverflowError):
        return noted


def _cautions(seen: RunSeen) -> tuple[str, ...]:
    if seen.chosen is None:
        return seen.advice
    confirmed = unconfirmed(seen.chosen, seen.metric) if seen.optimism is None else str(seen.optimism)
    return (confirmed, *seen.advice)


def _front_caption(seen: RunSeen, n_pictured: int) -> str:
    n_finished = len(seen.finished)
    told = f"{counted(n_finished, 'finished trial')}, {len(seen.front)} on the front."
    return told if n_pictured == n_finished else f"{told} The best {n_pictured:,} of them are drawn."


def _other_caption(others: Sequence[Trial]) -> str:
    left = f", the first {_MOST_TRIALS:,} of them" if len(others) > _MOST_TRIALS else ""
    return f"{counted(len(others), 'trial')} beside the front{left}"


def _mistakes(seen: RunSeen, n: int, dataset: Any) -> tuple[Mistakes | None, str]:
    if seen.chosen is None:
        return None, ""
    said = said_of(seen, seen.chosen)
    if not said:
        return Mistakes(shown=(), n_wrong=0, n_judged=0, note=""), "What it predicted is not in the run folder."
    found = mistakes_of(seen, said, n, dataset)
    parts = " and ".join({"folds": "training and validation, by folds"}.get(one.part, one.part) for one in said)
    of = f"{counted(found.n_judged, 'picture')} ({parts})"
    if seen.reader.task == "regression":
        return found, (
            f"Of {of} trial {seen.chosen.number} is off by more than a standard deviation of the labels on "
            f"{found.n_wrong:,}; {_shown(found)}."
        )
    return found, f"Of {of} trial {seen.chosen.number} gets {found.n_wrong:,} wrong; {_shown(found)}."


def _shown(found: Mistakes) -> str:
    if not found.n_wrong:
        return "there is none to show"
    return (
        "all are shown, the surest first"
        if len(found.shown) == found.n_wrong
        else (f"the {len(found.shown)} surest are shown")
    )


def _suspects(seen: RunSeen) -> tuple[tuple[tuple[str, ...], ...], str]:
    frame, problem = _tried(lambda: suspects(seen.reader, seen.trials, seen.metric, _N_SUSPECTS))
    if frame is None:
        return (), problem
    judges = ", ".join(
        f"trial {judge.number} ({seen.metric.name} {aligned(seen.metric, judge.score or 0.0)})"
        for judge in judges_of(seen.trials, seen.metric)
    )
    rows = tuple(tuple(_cell(name, row[name]) for name in _OF_SUSPECT) for row in frame.to_dict("records"))
    told = f"the first {len(rows)} of those that it contradicts most" if rows else "it contradicts none"
    return rows, f"Judged by {judges}; {told}. Who is often wrong suspects labels that are right."


def _cell(column: Any, value: Any) -> str:
    """Of a suspect; a probability in per cent, as scores are told."""
    if not isinstance(value, float):
        return str(value)
    if math.isnan(value):
        return ""
    return f"{100 * value:.1f} %" if str(column).endswith("probability") else f"{value:.3g}"


def _counts(seen: RunSeen) -> tuple[tuple[str, ...], ...]:
    """Pictures by class and part, and of all."""
    parts = read_pictures(seen.reader.run)["part"].map(PART_CODES).fillna(LEFT_OUT).to_numpy().astype(np.int8)
    table = count_pictures(seen.reader.all_labels(), parts, seen.reader.classes, seen.reader.task)
    whole = pd.Series({name: int((parts == code).sum()) for name, code in PART_CODES.items()})
    rows = [_count_row(str(name), row) for name, row in table.head(_MOST_CLASSES).iterrows()]
    left = [(f"… and {len(table) - _MOST_CLASSES:,} more", "", "", "")] if len(table) > _MOST_CLASSES else []
    return (*(rows if seen.reader.task != "regression" else []), *left, _count_row("all pictures", whole))


def _count_row(name: str, row: Any) -> tuple[str, ...]:
    return name, *(f"{int(row[part]):,}" for part in ("train", "validation", "test"))


def _data(seen: RunSeen, pictured: Sequence[Trial]) -> Plain:
    """What the script draws: the same points as the picture that the run keeps."""
    from autobackbone.plots.front import OTHERS, front_facts

    chosen = None if seen.chosen is None else seen.chosen.number
    facts = front_facts(as_they_stand(pictured), seen.target, seen.metric, chosen)
    colours = {group: "other" if group == OTHERS else f"g{place}" for place, group in enumerate(facts.groups)}
    told = close_ups(seen, pictured)
    ranks = _ranks(seen, pictured)
    trials = {trial.number: trial for trial in pictured}
    points = [
        {
            "number": point.number,
            "colour": colours[point.group],
            "latency_ms": point.latency_ms,
            "height": point.height,
            "frozen": point.is_frozen,
            "front": point.on_front,
            "clipped": point.is_clipped,
            "reach_ms": list(point.reach_ms) if point.reach_ms else None,
            "tested": list(point.tested) if point.tested else None,
            "n_params": trials[point.number].n_params,
            "megabytes": trials[point.number].megabytes,
            "rank": ranks[point.number],
            "line": one_line(trials[point.number], seen.metric),
            "rows": [list(row) for row in rows_of(trials[point.number], seen.metric)],
            "curve": curve_of(trials[point.number], seen.metric),
            "close": told.get(point.number),
        }
        for point in facts.points
    ]
    named = f"{seen.metric.name.replace('_', ' ')}{_unit(seen)}"
    return {
        "axis": {
            "up": facts.height_label,
            "along": "latency (ms)",
            "caption": f"{facts.height_label} against latency in ms on {facts.target_line}",
            "curve": named,
            "higher": facts.is_higher_better,
            "legend": _legend(facts),
        },
        "chosen": facts.chosen,
        "classes": list(seen.classes),
        "floor": facts.floor,
        "groups": [[group, colours[group]] for group in facts.groups],
        "steps": [list(step) for step in facts.steps],
        "trials": points,
    }


def _ranks(seen: RunSeen, pictured: Sequence[Trial]) -> dict[int, int]:
    """Place by score, on one scale: 0 is the best, the faster of equals first."""
    order = sorted(
        on_one_scale(pictured),
        key=lambda one: (-to_maximised(seen.metric, one.score or 0.0), one.latency_ms or 0.0, one.number),
    )
    return {trial.number: place for place, trial in enumerate(order)}


def _unit(seen: RunSeen) -> str:
    _, unit = scale_of(seen.metric)
    return " (%)" if unit == " points" else (f" ({unit.strip()})" if unit else "")


def _legend(facts: Any) -> str:
    clipped = sum(point.is_clipped for point in facts.points)
    told = ["hollow: frozen features", "diamond: fine-tuned", "line: the front", "ring: chosen"]
    told += ["upright bars: test score, 95 %"] if any(point.tested for point in facts.points) else []
    told += ["level bars: latency ± noise"] if any(point.reach_ms for point in facts.points) else []
    return "; ".join([*told, f"{clipped} worse than shown, on the lower edge"] if clipped else told)

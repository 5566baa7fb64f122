"""What is told of a run in a few lines: the choice and the front."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from autobackbone.choosing import name_of, scored_on
from autobackbone.metrics import scale_of, shown
from autobackbone.records import Trial, counted, shown_megabytes
from autobackbone.reports.closely import latency_of, tested
from autobackbone.reports.seen import RunSeen


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenFacts:
    """The trial to use: its name, and what it achieves."""

    name: str
    figures: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRow:
    """One trial in a table; `cells` as `trial_columns` names them.

    Args:
        is_picked: whether the page has it in its picture.
    """

    number: int
    backbone: str
    cells: tuple[str, ...]
    is_chosen: bool
    is_picked: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class NotebookFacts:
    """All that a notebook shows; texts as they come, to be escaped."""

    target: str
    chosen: ChosenFacts | None
    reason: str
    front_caption: str
    trial_columns: tuple[str, ...]
    front_rows: tuple[TrialRow, ...]


def notebook_facts(seen: RunSeen) -> NotebookFacts:
    """Gather it."""
    return NotebookFacts(
        target=seen.target,
        chosen=chosen_facts(seen),
        reason=reason_of(seen),
        front_caption=f"{seen.metric.name} against latency",
        trial_columns=trial_columns(seen),
        front_rows=trial_rows(seen, seen.front, ()),
    )


def heading_of(seen: RunSeen) -> str:
    """What was asked, in one line."""
    what = {"classification": "classes", "multilabel": "labels", "regression": "numbers"}[seen.reader.task]
    n = counted(len(seen.classes), what[:-2] if what == "classes" else what[:-1])
    if len(seen.classes) != 1:
        n = f"{len(seen.classes):,} {what}"
    return (
        f"Which pre-trained network tells {n} best?"
        if what != "numbers"
        else (f"Which pre-trained network predicts {n} best?")
    )


def chosen_facts(seen: RunSeen) -> ChosenFacts | None:
    """The chosen trial; `None` where there is none."""
    trial = seen.chosen
    if trial is None:
        return None
    name = seen.metric.name.replace("_", " ")
    told = [
        (f"{name} in validation", _validated(seen, trial)),
        (f"{name} by folds", _with_error(seen, trial.fold_score, trial.fold_se)),
        (f"{name} in test", tested(trial, seen.metric)),
        ("latency", latency_of(trial)),
        ("parameters", None if trial.n_params is None else f"{trial.n_params / 1e6:.2f} million"),
        ("weights", None if trial.megabytes is None else f"{shown_megabytes(trial.megabytes)} MB"),
    ]
    return ChosenFacts(name=name_of(trial), figures=tuple((name, value) for name, value in told if value is not None))


def reason_of(seen: RunSeen) -> str:
    """Why that one, or why none."""
    return seen.unchosen if seen.choice is None else seen.choice.reason


def trial_columns(seen: RunSeen) -> tuple[str, ...]:
    """Of the tables of trials, after its number and backbone."""
    folds = ("by folds",) if _has_folds(seen) else ()
    return "px", "unfrozen", "learning rate", seen.metric.name.replace("_", " "), *folds, "in test", "ms", "MB", ""


def _has_folds(seen: RunSeen) -> bool:
    return any(trial.fold_score is not None for trial in seen.trials)


def trial_rows(seen: RunSeen, trials: Sequence[Trial], pictured: Collection[int]) -> tuple[TrialRow, ...]:
    """One for each trial.

    Args:
        trials: in the order of the rows.
        pictured: numbers of those that can be picked.
    """
    chosen, has_folds = None if seen.chosen is None else seen.chosen.number, _has_folds(seen)
    return tuple(
        TrialRow(
            number=trial.number,
            backbone=f"{trial.backbone}{trial.body.cut}",
            cells=_cells(seen, trial, has_folds=has_folds),
            is_chosen=trial.number == chosen,
            is_picked=trial.number in pictured,
        )
        for trial in trials
    )


def _cells(seen: RunSeen, trial: Trial, *, has_folds: bool) -> tuple[str, ...]:
    height, width = trial.image_size
    return (
        str(height) if height == width else f"{height}×{width}",
        f"{trial.n_unfrozen}/{trial.n_blocks}",
        "" if trial.lr is None else f"{trial.lr:.1e}",
        _validated(seen, trial) or "",
        *((_with_error(seen, trial.fold_score, trial.fold_se) or "",) if has_folds else ()),
        tested(trial, seen.metric) or "",
        "" if trial.latency_ms is None else f"{trial.latency_ms:.2f}",
        "" if trial.megabytes is None else shown_megabytes(trial.megabytes),
        "" if trial.state == "finished" else f"{trial.shown_state}: {trial.reason}",
    )


def _validated(seen: RunSeen, trial: Trial) -> str | None:
    told = _with_error(seen, trial.score, trial.score_se)
    return None if told is None else f"{told}{scored_on(trial)}"


def _with_error(seen: RunSeen, value: float | None, error: float | None) -> str | None:
    if value is None:
        return None
    if error is None or not math.isfinite(error):
        return shown(seen.metric, value)
    scale, _ = scale_of(seen.metric)
    return f"{shown(seen.metric, value)} ± {scale * error:.2g}"

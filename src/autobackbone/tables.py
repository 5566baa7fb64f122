"""Results as tables for a terminal, a file or a pipe: in none of them is a name or a number cut off."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

from autobackbone.choosing import beyond_limits, scored_on
from autobackbone.errors import LimitsError
from autobackbone.metrics import aligned
from autobackbone.optimism import unconfirmed
from autobackbone.records import shown_megabytes
from autobackbone.showing import harmless

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from autobackbone.choosing import Choice
    from autobackbone.records import Trial
    from autobackbone.selection import Selection

_PUBLISHED = ("name", "top1", "n_params", "gmacs", "cpu_images_per_s", "gpu_images_per_s", "licence", "loadable")
_SCORED_ON, _BALANCED, _INTERVAL = "scored on", "balanced", "95 %"
# What is not there where no row has it.
_OPTIONAL = (_SCORED_ON, _BALANCED, _INTERVAL)
# What a narrow terminal goes without, in this order.
_DISPENSABLE = ("pictures/s", "p95", "MB", _INTERVAL, "gpu_images_per_s", "cpu_images_per_s", "gmacs")
_TEXTS = ("backbone", "state", "name", "licence", "loadable", "part", "label", "suggested", "other_name", "other_part")
# Wider than any table: where nobody looks at a window, every row is one line.
_UNBOUNDED = 10_000


def print_selection(selection: Selection, *, all_trials: bool = False) -> None:
    """Print the target, the front or all trials, the chosen one and why, and where the files are.

    Args:
        selection: of a run, which need not have ended.
        all_trials: every trial, with its state and the reason for it, in order of number.
    """
    console = _console()
    _say(console, f"target: {selection.target}")
    _say(console, f"{'trials' if all_trials else 'front, fastest first'}; score is {selection.metric.name}")
    choice, why = _choice_of(selection)
    chosen = None if choice is None else choice.trial.number
    form = ".4g" if selection.metric.unit == "target" else ".4f"
    trials = selection.trials if all_trials else selection.front
    rows = [_facts(trial, chosen, form=form, has_state=all_trials) for trial in trials]
    if all(trial.fold_score is None for trial in trials):
        rows = [{name: cell for name, cell in row.items() if name != "folds"} for row in rows]
    console.print(_fitting(console, rows))
    _say_beyond_limits(console, selection, trials)
    if choice is not None:
        _say_choice(console, selection, choice)
    else:
        _say(console, f"choose: {why}")
    if selection.stopped_before is not None:
        _say(console, selection.stopped_before)
    _say(console, f"run folder: {selection.path}")
    if selection.is_retargeted:  # the picture there is of the search's own target
        return
    figure = selection.path / "front.png"
    if figure.is_file():
        _say(console, f"picture of the front: {figure}")


def _choice_of(selection: Selection) -> tuple[Choice | None, str]:
    """The choice; where there is none to make, why."""
    if not selection.front:
        return None, "nothing yet, since no trial has finished"
    try:
        return selection.choice, ""
    except LimitsError as error:
        return None, f"nothing: {error}"


def _say_beyond_limits(console: Console, selection: Selection, trials: Sequence[Trial]) -> None:
    """Which finished trials break a limit."""
    limits = selection.limits
    for trial in trials:
        broken = beyond_limits(trial, limits) if trial.state == "finished" else None
        if broken is not None:
            _say(console, f"trial {trial.number}: {broken}")


def _say_choice(console: Console, selection: Selection, choice: Choice) -> None:
    """What is chosen and why, and what to think of it."""
    _say(console, f"choose: {choice.reason}")
    if selection.optimism is None:
        _say(console, f"not confirmed: {unconfirmed(choice.trial, selection.metric)}")
    else:
        _say(console, f"confirmed: {selection.optimism}")
    for part, value in selection.scores_without_copies().items():
        _say(console, f"without copies of training pictures: {part} {aligned(selection.metric, value)}")
    for sentence in selection.advice:
        _say(console, f"advice: {sentence}")


def print_suspects(selection: Selection, suspects: pd.DataFrame) -> None:
    """Print labels that are probably wrong, and by whom that is judged.

    Args:
        selection: of a run.
        suspects: as it gives them.
    """
    from autobackbone.metrics import aligned
    from autobackbone.search.frozen import judges_of

    console = _console()
    metric = selection.metric
    judges = ", ".join(
        f"trial {judge.number} ({metric.name} {aligned(metric, judge.score or 0.0)})"
        for judge in judges_of(selection.trials, metric)
    )
    _say(console, f"judged by {judges}: who is often wrong suspects labels that are right")
    # Numbers have no probabilities.
    print_rows(suspects.dropna(axis="columns", how="all"), otherwise="no label is contradicted")


def print_rows(found: pd.DataFrame, *, otherwise: str) -> None:
    """Print a table's rows, or what to say where there is none."""
    console = _console()
    rows = found.astype(object).itertuples(index=False)
    cells = [{column: _cell(value) for column, value in zip(found.columns, row, strict=True)} for row in rows]
    console.print(_fitting(console, cells) if cells else otherwise)


def print_catalogue(rows: pd.DataFrame, n_all: int) -> None:
    """Print published facts, one network a row.

    Args:
        rows: of `catalogue()`.
        n_all: how many there would be without a limit.
    """
    cells = [
        {column: _published(value) for column, value in zip(_PUBLISHED, row, strict=True)}
        for row in rows[list(_PUBLISHED)].astype(object).itertuples(index=False)
    ]
    console = _console()
    _say(console, f"{len(rows):,} of {n_all:,} networks")
    console.print(_fitting(console, cells))


def _console() -> Console:
    """Standard output, where what looks like markup is a name."""
    width = None if sys.stdout.isatty() else _UNBOUNDED
    return Console(width=width, soft_wrap=True, markup=False, emoji=False, highlight=False)


def _say(console: Console, line: str) -> None:
    """One line, whatever names stand in it."""
    console.print(harmless(line))


def _fitting(console: Console, rows: Sequence[Mapping[str, str]]) -> Table:
    """All columns, or those that the terminal has room for; what is still too long is folded."""
    empty = {name for name in _OPTIONAL if not any(row.get(name) for row in rows)}
    rows = [{name: row[name] for name in row if name not in empty} for row in rows]
    boundless = console.options.update_width(_UNBOUNDED)
    for n_left_out in range(len(_DISPENSABLE) + 1):
        table = _table([{name: row[name] for name in row if name not in _DISPENSABLE[:n_left_out]} for row in rows])
        # In the console's own options it would be measured as never wider than the console.
        if console.measure(table, options=boundless).maximum <= console.width:
            break
    return table


def _table(rows: Sequence[Mapping[str, str]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    for column in rows[0] if rows else ():
        is_text = column in _TEXTS
        table.add_column(harmless(column), justify="left" if is_text else "right", overflow="fold", no_wrap=not is_text)
    for row in rows:
        table.add_row(*map(harmless, row.values()))
    return table


def _facts(trial: Trial, chosen: int | None, *, form: str, has_state: bool) -> dict[str, str]:
    height, width = trial.image_size
    facts = {
        "": "→" if trial.number == chosen else "",
        "trial": str(trial.number),
        "backbone": trial.backbone if trial.n_blocks_kept is None else f"{trial.backbone}, first {trial.n_blocks_kept}",
        "px": str(height) if height == width else f"{height}x{width}",
        "unfrozen": f"{trial.n_unfrozen}/{trial.n_blocks}",
        "lr": _number(trial.lr, ".1e"),
        "score": _number(trial.score, form),
        _SCORED_ON: scored_on(trial).removeprefix(" on ") if trial.score is not None else "",
        _BALANCED: _number(trial.balanced_score, form),
        "folds": _with_error(trial.fold_score, trial.fold_se, form),
        "test": _number(trial.test_score, form),
        _INTERVAL: _range(trial.test_score_low, trial.test_score_high),
        "ms": _number(trial.latency_ms, ".2f"),
        "p95": _number(trial.latency_p95_ms, ".2f"),
        "pictures/s": _number(trial.images_per_s, ".0f"),
        "MB": "" if trial.megabytes is None else shown_megabytes(trial.megabytes),
    }
    state = trial.shown_state
    state = f"{state}: {trial.reason.removeprefix('paused ')}" if trial.reason else state
    return {**facts, "state": state} if has_state else facts


def _range(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{low:.3g} to {high:.3g}"


def _number(value: float | None, form: str) -> str:
    if value is None:
        return ""
    return "–" if math.isnan(value) else format(value, form)


def _with_error(value: float | None, error: float | None, form: str) -> str:
    number = _number(value, form)
    return number if value is None or error is None else f"{number} ± {format(error, form)}"


def _cell(value: Any) -> str:
    """A name, a label or a number; empty where there is none."""
    if not isinstance(value, float):
        return str(value)
    return "" if math.isnan(value) else f"{value:.4g}"


def _published(value: Any) -> str:
    """A published fact; empty where there is none.

    Example:
        >>> _published(25560000), _published(80.858), _published(float("nan")), _published(None)
        ('25,560,000', '80.86', '', '')
    """
    if isinstance(value, str):
        return value
    if not isinstance(value, (int, float)) or math.isnan(value):  # pandas has three ways to say that there is none
        return ""
    return f"{value:,.0f}" if isinstance(value, int) or abs(value) >= 1e4 else f"{value:,.4g}"

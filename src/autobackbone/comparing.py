"""Two runs side by side: their fronts, and what they chose, on the pictures that both have kept apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from autobackbone.choosing import as_they_stand, name_of, scored_on
from autobackbone.crossfitting import ScoredPart
from autobackbone.errors import ArgumentError, RunError
from autobackbone.metrics import Metric, paired_interval, scale_of, score, shown, to_maximised
from autobackbone.records import Trial, counted
from autobackbone.reports.seen import RunSeen, Said, said_part
from autobackbone.selection import Selection, open_run
from autobackbone.showing import harmless

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_OF_TRIAL = (
    *("number", "backbone", "image_size", "n_unfrozen", "n_blocks", "lr", "score", "fold_score", "test_score"),
    *("latency_ms", "n_params", "megabytes"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Paired:
    """Two chosen trials on the very same pictures.

    Args:
        part: that both runs kept these pictures in.
        n_shared: how many they are.
        scores: of the first and of the second run's trial on these, in the metric's own sign and unit.
        gain: by how much the second is better, whatever the metric's orientation.
        low: lower end of its 95 % interval; infinite where so few pictures do not tell.
        high: upper end.
    """

    part: ScoredPart
    n_shared: int
    scores: tuple[float, float]
    gain: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two runs of one task, metric and classes; printing it says all of that.

    Args:
        names: of the runs.
        metric: of both.
        targets: where each measured its latencies.
        trials: of each.
        chosen: of each; `None` where nothing is chosen.
        paired: both chosen trials on shared pictures; `None` where there are none.
        notes: what to bear in mind, one line each.
    """

    names: tuple[str, str]
    metric: Metric
    targets: tuple[str, str]
    trials: tuple[tuple[Trial, ...], tuple[Trial, ...]]
    chosen: tuple[Trial | None, Trial | None]
    paired: Paired | None
    notes: tuple[str, ...]

    def to_frame(self) -> pd.DataFrame:
        """Both fronts as a table, one row a trial, each run's fastest first; scores and latencies as the runs have
        them.
        """
        rows = [
            {"run": run, "is_chosen": chosen is not None and trial.number == chosen.number}
            | {name: getattr(trial, name) for name in _OF_TRIAL}
            for run, trials, chosen in zip(self.names, self.trials, self.chosen, strict=True)
            for trial in _front(trials)
        ]
        return pd.DataFrame(rows, columns=["run", "is_chosen", *_OF_TRIAL])

    def plot(self) -> Figure:
        """Both fronts in one picture, the chosen trials ringed."""
        from autobackbone.plots.comparison import draw_fronts, front_of_run

        numbers = [None if one is None else one.number for one in self.chosen]
        runs = zip(self.names, self.trials, self.targets, numbers, strict=True)
        return draw_fronts(
            [
                front_of_run(harmless(name), as_they_stand(trials), target, self.metric, number)
                for name, trials, target, number in runs
            ]
        )

    def __str__(self) -> str:
        """Both runs, the difference, and what to bear in mind."""
        lines = [f"score: {self.metric.name}"]
        for name, target, trials, chosen in zip(self.names, self.targets, self.trials, self.chosen, strict=True):
            n_front = sum(trial.on_front for trial in trials)
            lines.append(f"{name}: {counted(len(trials), 'trial')}, {n_front} on the front, on {target}")
            lines += [
                f"  {'→' if chosen is not None and trial.number == chosen.number else ' '} {_line(trial, self.metric)}"
                for trial in _front(trials)
            ]
        lines += [self.sentence, *(f"note: {note}" for note in self.notes)]
        return "\n".join(map(harmless, lines))

    def __repr__(self) -> str:
        """What it says, in one line: all its trials would fill pages."""
        return harmless(f"<Comparison of {self.metric.name}: {self.sentence}>")

    @property
    def sentence(self) -> str:
        """What the chosen trials come to."""
        first, second = self.names
        if self.paired is None:
            return "the chosen trials are not compared: see the notes"
        one, scale, unit = self.paired, *scale_of(self.metric)
        before, after = (shown(self.metric, value) for value in one.scores)
        told = (
            f"on {one.n_shared:,} {one.part} pictures that both kept apart, {second} has {after} and {first} {before}"
        )
        if not (math.isfinite(one.low) and math.isfinite(one.high)):
            return f"{told}: {scale * one.gain:+.2g}{unit}; so few do not tell how sure that is"
        words = "no more than chance may do" if one.low <= 0 <= one.high else "more than chance would do"
        return (
            f"{told}: {scale * one.gain:+.2g}{unit} (95 %: {scale * one.low:+.2g} to {scale * one.high:+.2g}), {words}"
        )


def compare(run_a: Selection | str | Path, run_b: Selection | str | Path) -> Comparison:
    """Hold two runs against each other.

    Their chosen trials are compared on the test pictures that both have, picture by picture; where one of them is not
    confirmed, on shared validation pictures, which have chosen both and flatter them. Where splits or datasets differ,
    pictures count that both kept in that part, by name and label.

    Args:
        run_a: a selection, or the path of a run folder.
        run_b: the other one; a gain is its.

    Raises:
        ArgumentError: they are of different tasks, classes or metrics.
        RunError: a run cannot be opened.

    Example:
        found = compare("runs/monday", "runs/friday")
        print(found)
        found.plot().savefig("fronts.png")
    """
    selections = [one if isinstance(one, Selection) else open_run(one) for one in (run_a, run_b)]
    first, second = (one._seen for one in selections)  # noqa: SLF001  of the same library
    _require_alike(first, second)
    paired, notes = _paired(first, second)
    if first.target != second.target:
        notes = (*notes, "latencies were measured on different targets, and do not compare")
    return Comparison(
        names=_names(selections[0].path, selections[1].path),
        metric=first.metric,
        targets=(first.target, second.target),
        trials=(first.trials, second.trials),
        chosen=(first.chosen, second.chosen),
        paired=paired,
        notes=notes,
    )


def _require_alike(first: RunSeen, second: RunSeen) -> None:
    wanted = (
        ("task", first.reader.task, second.reader.task),
        ("metric", first.metric.spec, second.metric.spec),
        ("classes", list(first.reader.classes), list(second.reader.classes)),
    )
    for name, ours, others in wanted:
        if ours != others:
            raise ArgumentError(
                f"compare takes two runs of the same {name}: {_short(ours)} and {_short(others)} came. Give two that "
                "have it in common."
            )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:120]}…"


def _names(first: Path, second: Path) -> tuple[str, str]:
    return (str(first), str(second)) if first.name == second.name else (first.name, second.name)


def _paired(first: RunSeen, second: RunSeen) -> tuple[Paired | None, tuple[str, ...]]:
    """The difference, and what to say of it, or of why there is none."""
    if first.chosen is None or second.chosen is None:
        unchosen = [one for one in (first, second) if one.chosen is None]
        return None, tuple(f"nothing is chosen in {str(one.reader.run.path)!r}: {one.unchosen}" for one in unchosen)
    parts: Sequence[ScoredPart] = ("test", "validation")
    notes: list[str] = []
    for part in parts:
        said = [_said(seen, trial, part) for seen, trial in ((first, first.chosen), (second, second.chosen))]
        one, other = said
        if one is None or other is None:
            notes.append(f"one of the chosen trials has no predictions of the {part} part")
            continue
        rows, told = _shared(first, second, one, other)
        notes += told
        if not len(rows):
            notes.append(f"no {part} picture is in both runs")
            continue
        if part == "validation":
            notes.append("validation pictures have chosen both trials, and flatter both")
        return _measured(first.metric, part, one, other, rows), tuple(dict.fromkeys(notes))
    return None, tuple(dict.fromkeys(notes))


def _said(seen: RunSeen, trial: Trial, part: ScoredPart) -> Said | None:
    try:
        return said_part(seen, trial, part)
    except RunError:
        return None


def _shared(first: RunSeen, second: RunSeen, one: Said, other: Said) -> tuple[NDArray[np.int64], list[str]]:
    """Rows of both (n_shared, 2) that are of the same picture, and what to say of that."""
    is_same_data = first.facts["data_digest"] == second.facts["data_digest"]
    if not is_same_data and all(str(name).isdecimal() for name in one.names):
        why = "the runs are of different data, whose pictures have numbers for names: none can be told to be in both"
        return np.empty((0, 2), np.int64), [why]
    places = _places(other)
    mine = _places(one)
    pairs = [(row, places[name]) for name, row in mine.items() if name in places]
    alike = [(i, j) for i, j in pairs if np.allclose(one.labels[i], other.labels[j], rtol=1e-9, atol=0)]
    told = []
    if not is_same_data:
        told.append("the runs are of different data: pictures are taken for the same where part, name and label are")
    if len(alike) < len(pairs):
        told.append(f"{counted(len(pairs) - len(alike), 'picture')} with another label in the other run left out")
    n_not = max(len(one.names), len(other.names)) - len(alike)
    if alike and n_not:
        told.append(f"{counted(n_not, one.part + ' picture')} of the larger part are not in both runs")
    return np.array(alike, np.int64).reshape(-1, 2), told


def _places(said: Said) -> dict[str, int]:
    """Rows by name; what several pictures are called names none."""
    names, counts = np.unique(said.names.astype(str), return_counts=True)
    single = set(names[counts == 1])
    return {str(name): row for row, name in enumerate(said.names) if str(name) in single}


def _measured(metric: Metric, part: ScoredPart, one: Said, other: Said, rows: NDArray[np.int64]) -> Paired:
    labels = one.labels[rows[:, 0]]
    ours, others = one.predictions[rows[:, 0]], other.predictions[rows[:, 1]]
    low, high = paired_interval(metric, ours, others, labels)  # of the loss
    before, after = score(metric, ours, labels), score(metric, others, labels)
    gain = to_maximised(metric, after - before)
    return Paired(part=part, n_shared=len(rows), scores=(before, after), gain=gain, low=-high, high=-low)


def _front(trials: Sequence[Trial]) -> list[Trial]:
    return sorted((trial for trial in trials if trial.on_front), key=lambda one: one.latency_ms or 0.0)


def _line(trial: Trial, metric: Metric) -> str:
    (judged,) = as_they_stand([trial])
    tested = "" if trial.test_score is None else f", test {shown(metric, trial.test_score)}"
    on = scored_on(trial) if trial.fold_score is None else ""
    return f"{trial.latency_ms:8.2f} ms  {shown(metric, judged.score or 0.0)}{on}{tested}  {name_of(trial)}"

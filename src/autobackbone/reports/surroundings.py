"""Where a run was made, with what, and what it cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from autobackbone.records import Trial
from autobackbone.reports.seen import RunSeen

# Whatever a run from elsewhere says: no cell is longer.
_LONGEST = 400
_STAGES = {
    "prepare": "prepare: look at the data, plan",
    "read": "read: decode the pictures",
    "screen": "screen: frozen networks, and first trainings beside them",
    "search": "search: fine-tune",
    "folds": "folds: score the front by folds",
    "confirm": "confirm: the test part",
}


def cost_rows(seen: RunSeen) -> tuple[tuple[tuple[str, ...], ...], str]:
    """Seconds of each stage and of the trials, one row each, and what to say of them."""
    frozen = [trial for trial in seen.trials if trial.n_unfrozen == 0]
    tuned = [trial for trial in seen.trials if trial.n_unfrozen > 0]
    own = {"screen": frozen, "search": tuned}
    if not seen.stage_seconds:
        rows = [("screen: frozen networks", "", *_of(frozen)), ("search: fine-tuned", "", *_of(tuned))]
        ended_s = max((trial.finished_at_s or 0.0 for trial in seen.trials), default=0.0)
        said = f"The run has not noted what its stages took; its last trial ended after {_seconds(ended_s)}."
        return tuple(rows), said
    rows = [
        (_STAGES.get(name, name), _seconds(seconds), *(_of(own[name]) if name in own else ("", "")))
        for name, seconds in seen.stage_seconds.items()
    ]
    whole = ("all", _seconds(sum(seen.stage_seconds.values())), *_of(seen.trials))
    return (*rows, whole), "Over all sittings. Trainings side by side have more time of their own than the clock shows."


def environment_rows(seen: RunSeen) -> tuple[tuple[str, str], ...]:
    """What `run.json` says of machine, versions, data and arguments, one row each."""
    facts = seen.facts
    versions = facts.get("versions")
    told: list[tuple[str, Any]] = [
        ("machine", _listed(facts.get("hardware"))),
        ("threads", f"{facts.get('n_torch_threads', '?')} of {facts.get('n_cores', '?')} cores"),
        ("python", facts.get("python")),
        ("versions", _listed(versions)),
        ("dataset", facts.get("dataset") or "came as an object, not as a path"),
        ("digest of the data", facts.get("data_digest")),
        ("digest of the split", facts.get("split_digest")),
        ("preparation", _listed(facts.get("preparation"))),
        ("limits", _listed(facts.get("limits")) or "none"),
        ("arguments", _listed(facts.get("arguments"))),
        ("run folder", str(seen.reader.run.path)),
    ]
    return tuple((name, _short(str(value))) for name, value in told if value not in (None, ""))


def _listed(noted: Any) -> str:
    if not isinstance(noted, Mapping):
        return ""
    return ", ".join(f"{name} {value}" for name, value in noted.items() if value is not None)


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _of(trials: Sequence[Trial]) -> tuple[str, str]:
    return str(len(trials)), _seconds(sum(trial.train_seconds or 0.0 for trial in trials))


def _seconds(value: float) -> str:
    if value < 100:
        return f"{value:.1f} s"
    minutes = value / 60
    return f"{minutes:.1f} min" if minutes < 100 else f"{minutes / 60:.1f} h"

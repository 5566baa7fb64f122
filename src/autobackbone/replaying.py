"""The lines of Python that repeat what a run did, as it has recorded it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from autobackbone.choosing import trial_line
from autobackbone.costrecord import SIDE_BY_SIDE, SITTING, RecordedCosts, is_one_untimed_sitting
from autobackbone.loading import OWN_BACKBONES
from autobackbone.metrics import Metric, is_free_of_code
from autobackbone.records import Budget, Limits, Target, Trial, counted
from autobackbone.settings import IN_MEMORY
from autobackbone.showing import harmless

_SIZES = "image_sizes"


def script_of(
    path: Path,
    facts: Mapping[str, Any],
    trials: Sequence[Trial],
    chosen: Trial,
    metric: Metric,
    *,
    sittings: Sequence[Any],
    is_side_by_side: bool,
    has_ended: bool,
) -> str:
    """A script that trains recorded trials again, and one that would search again.

    Whatever a run folder says stands in it as a value or in a comment, and a line of it is one line: no text from there
    becomes code.

    Args:
        path: the run folder; in the script it means the same from any working directory.
        facts: of it.
        trials: of it; those that ended with a network are repeated.
        chosen: the one to use, repeated last.
        metric: of the scores.
        sittings: the budget of each, as the run has recorded them beside what things cost; empty where it has not.
        is_side_by_side: whether several trainings ran at once, in any of them.
        has_ended: whether the run came to the end of its budget.

    Raises:
        BudgetError: a budget is none.
    """
    path = path.absolute()
    repeated = [trial for trial in trials if trial.on_front and trial.number != chosen.number]
    lines = [
        *_heading(facts),
        "import torch",
        "",
        "from autobackbone import Budget, Limits, Target, open_run, select_backbone",
        "",
        f"torch.set_num_threads({int(facts['n_torch_threads'])})",
        _dataset_line(facts),
        f"run = open_run({str(path)!r}{_own_metric(metric)}{_own_backbones(facts)})",
        *_put_again(facts),
        "",
        "# The decisions of the run, repeated: same pictures, split, heads, legs, views and precisions.",
    ]
    for trial in [*repeated, chosen]:
        lines += [f"# {trial_line(trial, metric)}", f"network = run.retrain({trial.number}, dataset=dataset)"]
    costs = {SITTING: sittings, SIDE_BY_SIDE: [True] * is_side_by_side}
    return "\n".join(
        [*map(harmless, lines), "", *map(harmless, _search(path, facts, trials, costs, has_ended=has_ended)), ""]
    )


def going_on(path: Path, facts: Mapping[str, Any], metric: Metric) -> str:
    """How more time is given to a run: the call, with what a run folder does not hold, and the command where that has
    all.
    """
    asked = facts.get("asked", {})
    again = ["dataset"] if facts.get("dataset") is None else []
    again += [name for name in ("groups", "times", "sampler") if isinstance(asked.get(name), Mapping)]
    given = "".join(f", {name}=..." for name in again)
    call = f'open_run({str(path)!r}{_own_metric(metric)}{_own_backbones(facts)}).more("20min"{given})'
    again += ["backbones"] if facts.get(OWN_BACKBONES) else []
    if again:
        return f"{call}, with {' and '.join(f'{name}=' for name in again)} as for the search"
    option = f" --metric {shlex.quote(metric.spec)}" if _own_metric(metric) else ""
    return f"{call}, or: autobackbone more {shlex.quote(str(path))} --budget 20min{option}"


def _heading(facts: Mapping[str, Any]) -> list[str]:
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    return [
        f"# Run of {facts['begun_at']} on {facts['target_line']}, {facts['n_cores']} cores.",
        f"# Python {facts['python']}; {versions}.",
        f"# Digest of the pictures and labels {facts['data_digest']}, of the split {facts['split_digest']}.",
    ]


def _own_metric(metric: Metric) -> str:
    """Whoever has the lines printed has said that its code may run, where it is code."""
    return f", metric={metric.spec!r}" if metric.is_own and not is_free_of_code(metric.spec) else ""


def _own_backbones(facts: Mapping[str, Any]) -> str:
    """Code of the user's own is never named by a run: whoever uses the lines puts it there."""
    return ", backbones=..." if facts.get(OWN_BACKBONES) else ""


def _put_again(facts: Mapping[str, Any]) -> list[str]:
    return [
        f"# backbones: put your own there, as it was given: {one!r}" for one in facts.get(OWN_BACKBONES, {}).values()
    ]


def _dataset_line(facts: Mapping[str, Any]) -> str:
    if facts.get("dataset") is not None:
        return f"dataset = {facts['dataset']!r}"
    return "dataset = ...  # what was searched on came as an object: put the same here"


def _search(
    path: Path, facts: Mapping[str, Any], trials: Sequence[Trial], costs: RecordedCosts, *, has_ended: bool
) -> list[str]:
    arguments = facts["arguments"]
    budgets = [Budget(**sitting) for sitting in costs[SITTING]]
    is_same = is_one_untimed_sitting(costs)
    n_trials = sum(trial.n_unfrozen > 0 for trial in trials)
    if is_same and not has_ended:
        n_trials = budgets[0].n_trials or 0
    given = {
        "task": repr(facts["task"]),
        "label": repr(facts.get("label")) if facts.get("label") is not None else None,
        "metric": repr(facts["metric"]),
        "backbones": repr([name for name, _ in facts[_SIZES]]),
        _SIZES: None if arguments[_SIZES] is None else repr([tuple(size) for size in arguments[_SIZES]]),
        "target": _target(Target.from_json(arguments["target"])),
        "limits": repr(Limits(**arguments["limits"])),
        "space": repr(as_given(arguments["space"])) if arguments["space"] else None,
        "seed": repr(arguments["seed"]),
        "resize": repr(arguments["resize"]),
        "batch_norm": repr(arguments["batch_norm"]),
        "trainer_kwargs": repr(arguments["trainer_kwargs"]) if arguments.get("trainer_kwargs") else None,
        "weights": None if facts["weights"] is None else repr(facts["weights"]),
    }
    written = [f"#     {name}={value}," for name, value in given.items() if value is not None]
    # Runs before these were noted have none.
    asked = facts.get("asked", {}).items()
    written += [_asked(name, value) for name, value in asked if value is not None and name.isidentifier()]
    if is_same:
        written.append(f"#     costs={str(path)!r},")
    is_warm = facts.get("asked", {}).get("warm_start") is not None
    return [
        *(f"# {line}" for line in _what_comes_out(facts, trials, budgets, is_same=is_same, has_ended=has_ended)),
        *(
            ["# It starts from the front of another run: should that have moved since, other trials come out."]
            * is_warm
        ),
        "# selection = select_backbone(",
        "#     dataset,",
        f"#     Budget(n_trials={n_trials}),",
        *written,
        "# )",
    ]


def _what_comes_out(
    facts: Mapping[str, Any], trials: Sequence[Trial], budgets: Sequence[Budget], *, is_same: bool, has_ended: bool
) -> list[str]:
    """What the search anew has in common with the one that was, and what differs."""
    if is_same and has_ended:
        return ["The same search anew, with what this one measured: the same trials come out."]
    unended = [] if has_ended else ["The run has not come to its end: it was interrupted, or is still going on."]
    if is_same:
        anew = [
            "The same search anew, with what this one measured, comes to its end: the trials that had ended come out",
            "the same, those that were cut off are trained further, others may follow, and what was not reached is",
            "measured.",
        ]
    elif len(budgets) == 1 and budgets[0].wall_clock_s is None:
        anew = [
            "A search anew. Trainings of the run ran side by side, and ended in an order that no record can repeat, so",
            "that other trials come out.",
        ]
    elif len(budgets) == 1:
        anew = _without_the_clock(facts, trials, budgets[0])
    else:
        anew = [
            f"A search anew, in one sitting{f'; the run had {len(budgets)}' if budgets else ''}. What is tried after",
            "screening hangs on what things cost, and on what was there before, so that other trials may come out.",
        ]
    return [*unended, *anew]


def _without_the_clock(facts: Mapping[str, Any], trials: Sequence[Trial], budget: Budget) -> list[str]:
    screened = {
        (trial.backbone, trial.image_size)
        for trial in trials
        if trial.n_unfrozen == 0 and not trial.n_blocks_kept and trial.state == "finished"
    }
    n_pairs = sum(len(of) for _, of in facts[_SIZES])
    pairs = f"{counted(n_pairs, 'pair')} of backbone and image size"
    few = f"; the run screened {len(screened)}" if len(screened) < n_pairs else ""
    return [
        f"Not the same search: that of the run had a clock, of {budget.wall_clock_s:g} s, and this one has none.",
        f"Without one each of {pairs} that keeps the limits is screened{few}.",
        "So other trials come out, and it may take far longer.",
    ]


def _target(target: Target) -> str:
    return repr(target) if target.timings is None else f"Target.from_json({target.to_json()!r})"


def _asked(name: str, value: Any) -> str:
    """One more argument, or what stood there, to be put there again."""
    if isinstance(value, dict):
        return f"#     {name}=...,  # {value[IN_MEMORY]}, which lay in memory: put the same here"
    return f"#     {name}={(tuple(value) if isinstance(value, list) else value)!r},"


def as_given(space: Mapping[str, Any]) -> dict[str, Any]:
    """A space as users write it: bounds are tuples there, and lists in JSON."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in space.items()}

"""Parameters beyond backbone, size, depth and rate: what they may be, and how users write them."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any, get_args

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from autobackbone.errors import SpaceError
from autobackbone.records import Balancing, Task

Bound = tuple[float, float]
Choices = tuple[str, ...]
Setting = float | int | Bound | Sequence[float | int] | str | Sequence[str] | None
"""What users write: a number, bounds (lowest, highest), a word, or several words of which one is chosen."""
Extra = float | int | str | Bound | Choices
"""A fixed value, or what is searched: inclusive bounds, or words."""

NUMBERS: Mapping[str, tuple[type, bool]] = {
    # name: (type, on a log scale)
    "weight_decay": (float, True),
    "label_smoothing": (float, False),
    "batch_size": (int, True),
    "n_epochs": (int, False),
}
CLASS_WEIGHTS, SAMPLING = "class_weights", "sampling"
# Where several are searched, in this order; what nothing says of a candidate is the first of those.
WORDS: Mapping[str, Choices] = {CLASS_WEIGHTS: get_args(Balancing), SAMPLING: get_args(Balancing)}
_OWN = ("lr", "n_unfrozen", "n_blocks_kept")
_WHOLE = ("n_unfrozen", "n_blocks_kept", "batch_size", "n_epochs")


def distribution_of(name: str, searched: Bound | Choices) -> BaseDistribution:
    """What Optuna samples a searched parameter from."""
    if name in WORDS:
        return CategoricalDistribution(searched)
    kind, is_log = NUMBERS[name]
    make = IntDistribution if kind is int else FloatDistribution
    return make(low=kind(searched[0]), high=kind(searched[1]), log=is_log)


def typical(name: str, searched: Bound | Choices) -> float | int | str:
    """What a candidate is taken to have that says nothing of a searched parameter: the middle, or the first word."""
    if name in WORDS:
        return searched[0]
    kind, is_log = NUMBERS[name]
    lowest, highest = map(float, searched)
    middle = math.sqrt(lowest * highest) if is_log else (lowest + highest) / 2
    return round(middle) if kind is int else middle


def read_setting(name: str, value: Setting) -> Extra | None:
    """Bring what a user wrote of one parameter to one form.

    Raises:
        SpaceError: an unknown name, or a value that cannot be read.

    Example:
        >>> read_setting("lr", [1e-5, 1e-3]), read_setting("sampling", ["balanced", "none"])
        ((1e-05, 0.001), ('none', 'balanced'))
    """
    known = (*_OWN, *NUMBERS, *WORDS)
    if name not in known:
        close = difflib.get_close_matches(str(name), known, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise SpaceError(f"space has no parameter {name!r}; it has {', '.join(known)}.{hint}")
    if name in WORDS:
        return _words(name, value)
    if name == "n_blocks_kept" and value is None:
        return None
    return _numbers(name, value)


def check_balancing(space: Mapping[str, Any], task: Task) -> None:
    """Refuse to balance what has no classes.

    Raises:
        SpaceError: numbers are predicted, or pictures are to be drawn by classes where each may have several labels.
    """
    for name in WORDS.keys() & space.keys():
        if task == "regression":
            raise SpaceError(
                f"space[{name!r}] balances classes, and numbers to predict have none. Leave it out, or give classes as "
                "labels, such as ranges of the numbers."
            )
        if task == "multilabel" and name == SAMPLING:
            raise SpaceError(
                f"space[{name!r}] draws each class equally often, and these pictures may have several labels at once. "
                f"Take {CLASS_WEIGHTS!r} instead, which weighs each label for itself."
            )


def balancing_notes(space: Mapping[str, Any]) -> tuple[str, ...]:
    """What balancing leaves as it is, one line each."""
    notes = []
    if isinstance(space.get(CLASS_WEIGHTS), tuple):
        notes.append(
            f"{CLASS_WEIGHTS} is searched for fine-tuned trials; frozen ones keep unweighted heads. "
            f"Fix it to 'balanced' to weigh these, too"
        )
    if space.get(SAMPLING, "none") != "none":
        notes.append(f"{SAMPLING} concerns fine-tuned trials: the heads of frozen ones see each picture once")
    return tuple(notes)


def _words(name: str, value: Setting) -> str | Choices:
    asked = [value] if isinstance(value, str) else list(value) if isinstance(value, Sequence) else []
    if not asked or not all(isinstance(word, str) and word in WORDS[name] for word in asked):
        words = " or ".join(map(repr, WORDS[name]))
        raise SpaceError(f"space[{name!r}] is {words}, or a list of both to search; {value!r} came.")
    chosen = tuple(word for word in WORDS[name] if word in asked)
    return chosen[0] if len(chosen) == 1 else chosen


def _numbers(name: str, value: Setting) -> float | int | Bound:
    ends: tuple[Any, ...] = (value, value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        ends = tuple(value)
    is_whole = name in _WHOLE
    lowest = {"n_unfrozen": 0, "label_smoothing": 0}.get(name, 1 if is_whole else 1e-12)
    is_read = (
        len(ends) == 2
        and all(isinstance(end, Integral if is_whole else Real) and not isinstance(end, bool) for end in ends)
        and lowest <= ends[0] <= ends[1] < math.inf
    )
    if not is_read or (name == "label_smoothing" and ends[1] >= 1):
        kind = "whole number" if is_whole else "number"
        raise SpaceError(
            f"space[{name!r}] is a {kind} of at least {lowest:g}, or bounds (lowest, highest) of such; {value!r} came."
        )
    low, high = map(int if is_whole else float, ends)
    return low if low == high else (low, high)

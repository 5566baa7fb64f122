"""Whether trials say what a search writes: those of a run folder from elsewhere may say anything."""

from __future__ import annotations

import reprlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, get_args

from autobackbone.records import Resize, Trial, is_number
from autobackbone.showing import harmless

# As large as pictures may be, see `as_image_sizes`; 0 where a trial died before anything was noted of it.
_LARGEST_SIDE = 4096
_MOST = 10**12


def sound(trials: Sequence[Trial]) -> list[Trial]:
    """The same trials, with reasons that a screen may show.

    Raises:
        ValueError: a fact is of another kind than it must be; it names the trial and the fact.
    """
    for trial in trials:
        for name, (what, is_right) in _WANTED.items():
            value = getattr(trial, name)
            if not is_right(value):
                came = reprlib.repr(value)
                raise ValueError(f"{name!r} of trial {trial.number!r} must be {what}, and {came} came")
    return [replace(trial, reason=harmless(trial.reason, keeps="\n")) for trial in trials]


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST


def _is_amount(value: Any) -> bool:
    # No sum takes a whole number beyond the largest float.
    return is_number(value) and (isinstance(value, float) or abs(value) <= sys.float_info.max)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and value == harmless(value)


def _are_amounts(value: Any) -> bool:
    return isinstance(value, tuple) and all(map(_is_amount, value))


def _is_image_size(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(_is_count(n) and n <= _LARGEST_SIDE for n in value)


def _are_extras(value: Any) -> bool:
    """What lines tell of them, too: on how many pictures a score stands."""
    if not isinstance(value, dict):
        return False
    share, n_validation = value.get("scored_share", 1.0), value.get("n_validation", 0)
    return is_number(share) and 0 <= share <= 1 and _is_count(n_validation)


def _or_null(is_right: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or is_right(value)


# By how `Trial` writes them.
_KINDS: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "int": ("a whole number of at least 0", _is_count),
    "int | None": ("a whole number of at least 0 or null", _or_null(_is_count)),
    "float | None": ("a number or null", _or_null(_is_amount)),
    "tuple[float, ...]": ("a list of numbers", _are_amounts),
    "str": ("a text", _is_text),
    "ImageSize": (f"a height and a width up to {_LARGEST_SIDE}", _is_image_size),
    "Resize": (f"one of {', '.join(get_args(Resize))}", get_args(Resize).__contains__),
    "Mapping[str, Any]": ("a mapping, its scored_share from 0 to 1 and its n_validation a whole number", _are_extras),
}
_WANTED: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    **{one.name: _KINDS[str(one.type)] for one in fields(Trial) if str(one.type) in _KINDS},
    "backbone": ("a name on one line", _is_name),
}

"""Which picture serves for what: training, validation or test."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from autobackbone.data.strata import one_fifth_greedily, strata_of
from autobackbone.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable

    from autobackbone.records import Part, Task

TRAIN, VALIDATION, TEST, LEFT_OUT = 0, 1, 2, -1
PART_CODES: dict[Part, int] = {"train": TRAIN, "validation": VALIDATION, "test": TEST}
Rare = Literal["leave_out", "error"]

Codes = np.ndarray[Any, np.dtype[np.int64]]
Labels = np.ndarray[Any, Any]
Parts = np.ndarray[Any, np.dtype[np.int8]]

_N_FOLDS = 5
"""One fold of five is the test part, one of five of the rest the validation part: 64, 16 and 20 of 100 pictures."""
LEAST_OF_CLASS = _N_FOLDS
"""Pictures of a class, below which it cannot be in every part."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Split:
    """A part for each picture.

    Args:
        parts: (n,) int8, codes of `PART_CODES` or `LEFT_OUT`.
        made: the parts that were made out of the training part; the others were given, or follow times.
        rare: the codes of classes that were left out.
        notes: one line for whatever was made or could not be kept.
    """

    parts: Parts
    made: tuple[Part, ...] = ()
    rare: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()


def split_parts(
    labels: Labels, task: Task = "classification", *, given: Parts | None, groups: Codes | None, seed: int
) -> Split:
    """Make the parts that are missing out of the training part; what is given is kept exactly.

    Stratified: each class, or each tenth of the numbers to predict, is spread over the parts in the same shares, at
    least one picture in each; several labels a picture are dealt out greedily, the rarest first. With groups, all
    pictures of a group stay in one part, and shares are kept as well as that allows.

    Args:
        labels: (n,) int64 codes of classes, or (n, k), as `Labelled` holds them.
        task: what they are.
        given: (n,) int8 codes of parts, or `None` where all is to be made.
        groups: (n,) int64 codes of groups, or `None`.
        seed: same seed, same parts.

    Returns:
        The split. A class with fewer than 5 pictures in the training part, or with fewer groups there than parts that
        have pictures of it to get, is left out of it; but where a given part has pictures of it, too, it stays as it is
        given, and the parts that are made have none of it.

    Raises:
        DataError: there are too few pictures, or groups of them, for three parts.

    Example:
        >>> split = split_parts(np.repeat([0, 1], 50), given=None, groups=None, seed=0)
        >>> [int((split.parts == part).sum()) for part in (TRAIN, VALIDATION, TEST)]
        [64, 16, 20]
    """
    parts = np.zeros(len(labels), np.int8) if given is None else given.copy()
    missing: list[Part] = [part for part in ("test", "validation") if not (parts == PART_CODES[part]).any()]
    notes = _leaks(parts, groups)
    if not missing:
        return Split(parts=parts, notes=notes)
    rare, stays = np.zeros(0, np.int64), np.zeros(len(labels), np.bool_)
    if task == "classification":
        rare, stays = _rare_and_staying(labels, parts, groups, missing)
        parts[np.isin(labels, rare)] = LEFT_OUT
    else:
        _check_enough(parts == TRAIN, groups)
    for part in missing:
        members = np.flatnonzero((parts == TRAIN) & ~stays)
        if members.size:
            fifth = _one_fifth(labels[members], task, None if groups is None else groups[members], seed)
            parts[members[fifth]] = PART_CODES[part]
    if given is not None:
        notes += tuple(f"no {part} part was given: made from the training part, seed {seed}" for part in missing)
    return Split(parts=parts, made=tuple(missing), rare=tuple(int(code) for code in rare), notes=notes)


def fair_order(strata: Codes, parts: Parts, *, seed: int) -> Codes:
    """An order in which every beginning keeps classes and parts in proportion, as near as whole pictures allow.

    Args:
        strata: (n,) int64 codes of classes, or of what stands for them, as `strata_of` gives them.
        parts: (n,) int8 codes of parts; what is left out of them is left out here.
        seed: same seed, same order.

    Returns:
        (n_used,) int64 numbers of pictures.

    Example:
        >>> labels, parts = np.repeat([0, 1], [40, 20]), np.zeros(60, np.int8)
        >>> np.bincount(labels[fair_order(labels, parts, seed=0)[:15]]).tolist()
        [10, 5]
    """
    generator = np.random.default_rng(seed)
    wanted = np.flatnonzero(parts != LEFT_OUT)
    _, strata = np.unique(np.stack([strata[wanted], parts[wanted]]), axis=1, return_inverse=True)
    place = np.empty(len(wanted))
    for members in np.split(np.argsort(strata, kind="stable"), np.cumsum(np.bincount(strata))[:-1]):
        # The i-th of m members stands at (i + u) / m of the way, u its own random share of a step.
        place[members] = (generator.permutation(len(members)) + generator.random()) / len(members)
    return np.asarray(wanted[np.argsort(place, kind="stable")], dtype=np.int64)


def encode_groups(groups: Any, names: tuple[str, ...]) -> Codes | None:
    """Read `groups=`: one entry a picture, or a function of a picture's name.

    Raises:
        DataError: another length, missing entries, or only one group.

    Example:
        >>> encode_groups(lambda name: name.split("_")[0], ("anna_1", "ben_1", "anna_2"))
        array([0, 1, 0])
    """
    if groups is None:
        return None
    values = values_of(groups, names, "groups")
    try:
        codes, found = pd.factorize(np.fromiter(values, dtype=object, count=len(values)))
    except TypeError as error:
        raise DataError("a group is a number or a text; other objects came.") from error
    if (codes < 0).any():
        raise DataError(f"every picture needs a group; picture '{names[int(np.argmin(codes))]}' has None or NaN.")
    if len(found) < 2:
        only = found[0].item() if isinstance(found[0], np.generic) else found[0]
        raise DataError(f"groups must differ, or no split can keep them whole; all are {only!r}.")
    return codes.astype(np.int64)


def values_of(given: Any, names: tuple[str, ...], what: str) -> list[Any]:
    """One entry a picture, or what a function of its name gives; `what` is the argument's own name."""
    values = [_value_of(given, name, what) for name in names] if callable(given) else list(given)
    if len(values) != len(names):
        raise DataError(f"{what} has one entry a picture; {len(values)} entries and {len(names)} pictures came.")
    return values


def _value_of(given: Callable[[str], Any], name: str, what: str) -> Any:
    try:
        return given(name)
    except Exception as error:
        raise DataError(
            f"{what} is a function of a picture's name; for '{name}' it raised {error!r}. Give each picture an entry."
        ) from error


def _leaks(parts: Parts, groups: Codes | None) -> tuple[str, ...]:
    if groups is None:
        return ()
    n_parts = pd.Series(parts).groupby(groups).nunique()
    n_torn = int((n_parts > 1).sum())
    which = "group lies" if n_torn == 1 else "groups lie"
    kept = "the given split is kept, so that scores may flatter: leave split out to have groups kept together"
    return (f"{n_torn} {which} in more than one given part; {kept}",) if n_torn else ()


def _rare_and_staying(
    labels: Codes, parts: Parts, groups: Codes | None, missing: list[Part]
) -> tuple[Codes, np.ndarray[Any, np.dtype[np.bool_]]]:
    """The classes that are left out, and which pictures, (n,) bool, go to no part that is made.

    A class too rare to go there needs not leave where it can be learned and scored: in given parts. Its pictures stay
    in the training part, and so does all of their groups. Where that leaves fewer than two classes to make parts of, or
    makes another class rare, it is left out after all.
    """
    n_classes, in_train = int(labels.max()) + 1, parts == TRAIN
    is_rare = _are_rare(labels, groups, in_train, n_classes, missing)
    has_both = np.bincount(labels[in_train], minlength=n_classes) > 0
    has_both &= np.bincount(labels[(parts != TRAIN) & (parts != LEFT_OUT)], minlength=n_classes) > 0
    stays = in_train & (is_rare & has_both)[labels]
    if groups is not None:
        stays = in_train & np.isin(groups, groups[stays])
    is_still_rare = _are_rare(labels, groups, in_train & ~stays, n_classes, missing)
    if (~is_rare).sum() < 2 or (is_still_rare & ~is_rare).any():
        return np.flatnonzero(is_rare), np.zeros(len(labels), np.bool_)
    return np.flatnonzero(is_rare & ~has_both), stays


def _are_rare(
    labels: Codes,
    groups: Codes | None,
    is_dealt: np.ndarray[Any, np.dtype[np.bool_]],
    n_classes: int,
    missing: list[Part],
) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which classes, (n_classes,) bool, have too few of the pictures that are dealt out to be in every part."""
    is_rare = np.bincount(labels[is_dealt], minlength=n_classes) < _N_FOLDS
    if groups is not None:
        pairs = np.unique(np.column_stack([labels, groups])[is_dealt], axis=0)
        is_rare |= np.bincount(pairs[:, 0], minlength=n_classes) < 1 + len(missing)
    return np.asarray(is_rare)


def _check_enough(is_train: np.ndarray[Any, np.dtype[np.bool_]], groups: Codes | None) -> None:
    n = int(is_train.sum()) if groups is None else len(np.unique(groups[is_train]))
    if n < _N_FOLDS:
        raise DataError(
            f"a split needs at least {_N_FOLDS} {'pictures' if groups is None else 'groups'} to take parts from; {n} "
            "came. Add some, or bring train, val and test parts of your own."
        )


def _one_fifth(labels: Labels, task: Task, groups: Codes | None, seed: int) -> np.ndarray[Any, np.dtype[np.intp]]:
    """Choose about one in five, of every class and in whole groups."""
    if task == "multilabel":
        return one_fifth_greedily(labels, groups, seed)
    if task == "regression":
        labels = strata_of(labels, task)
    if groups is not None:
        return _one_fifth_of_groups(labels, groups, seed)
    sizes = np.bincount(labels)[labels]
    chosen = []
    # A class of 4 would miss one of five folds; it is spread over four.
    for n_folds, members in ((4, np.flatnonzero(sizes < _N_FOLDS)), (_N_FOLDS, np.flatnonzero(sizes >= _N_FOLDS))):
        if members.size:
            folds = StratifiedKFold(n_folds, shuffle=True, random_state=seed)
            chosen.append(members[next(folds.split(members, labels[members]))[1]])
    return np.concatenate(chosen)


def _one_fifth_of_groups(labels: Codes, groups: Codes, seed: int) -> np.ndarray[Any, np.dtype[np.intp]]:
    n_folds = min(_N_FOLDS, len(np.unique(groups)), int(np.bincount(labels).max()))
    folds = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # It warns of classes smaller than the number of folds; the choice below looks after them.
        warnings.simplefilter("ignore", UserWarning)
        pairs = list(folds.split(labels, labels, groups))
    n_classes = len(np.unique(labels))

    def shortfall(pair: tuple[Any, Any]) -> tuple[int, int, float]:
        rest, fold = (len(np.unique(labels[side])) for side in pair)
        return n_classes - rest, n_classes - fold, abs(len(pair[1]) / len(labels) - 1 / _N_FOLDS)

    best: np.ndarray[Any, np.dtype[np.intp]] = min(pairs, key=shortfall)[1]
    return best

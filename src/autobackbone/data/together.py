"""Copies of a picture in one part: where the split is ours they are kept together, where it was given they are told."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from autobackbone.data.bundle import DataBundle, split_digest
from autobackbone.data.copies import find_copies, groups_of, look
from autobackbone.data.parts import LEFT_OUT, PART_CODES, TRAIN, Codes, Labels, Parts
from autobackbone.data.sources import printable
from autobackbone.data.surveying import check_parts, count_pictures, part_sizes
from autobackbone.errors import DataError
from autobackbone.records import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from autobackbone.data.encoded import Pixels
    from autobackbone.records import ImageSize, Part, Task

# Of the budget.
_SHARE = 0.03
_N_TIMED = 8
# Comparing hashes came to a fifth of the time of hashing 100,000 pictures; where many are alike it takes longer.
_SEARCHING = 1.5


def look_for_copies(
    bundle: DataBundle,
    image_sizes: Sequence[ImageSize],
    *,
    budget_s: float | None,
    on_progress: Callable[[int, int], None] | None = None,
) -> DataBundle:
    """Find copies among the pictures and keep them together, if that is expected to end in time.

    Args:
        bundle: the pictures, which have some size of these stored, or stay encoded.
        image_sizes: of them the smallest stored one is looked at.
        budget_s: seconds of the budget, of which it may take 3 %; `None` for no limit.
        on_progress: called with (pictures done, n) now and then.

    Returns:
        What `with_copies_together` gives; where there is no time, the same bundle with a line that says so.
    """
    stored = [size for size in image_sizes if bundle.has_pixels(size)]
    pixels = bundle.pixels(min(stored or image_sizes, key=lambda size: (size[0] * size[1], size)))
    used = np.flatnonzero(bundle.parts != LEFT_OUT)
    needed_s = 0.0 if budget_s is None else _expected_s(pixels, used)
    if budget_s is not None and needed_s > _SHARE * budget_s:
        line = (
            f"copies were not looked for: among {len(used):,} pictures that takes about {needed_s:,.1f} s, and it may "
            f"take {100 * _SHARE:.0f} % of the budget. Give at least {needed_s / _SHARE:,.0f} s to look"
        )
        return replace(bundle, skipped=(*bundle.skipped, line))
    found = find_copies(pixels, used, on_progress=on_progress)
    together = with_copies_together(bundle, found.codes)
    if not found.n_alike:
        return together
    line = f"{found.n_alike:,} pictures look like more than 16 others each: these are taken for different pictures"
    return replace(together, skipped=(*together.skipped, line))


def with_copies_together(bundle: DataBundle, copies: Codes) -> DataBundle:
    """Give each group of copies one part, where the split was not given; name what lies in several.

    A group goes to the part of its first picture, which keeps the shares of the parts: the part of most of them would
    mostly be the training part. The user's groups stay whole. Where that would leave a part or a class without
    pictures, what has a copy to train on is trained on; where even that does, nothing moves. Given parts never change.

    Args:
        bundle: the pictures as they are split.
        copies: (n,) int64 codes of groups, as `find_copies` gives them. The same codes give the same split.

    Returns:
        The bundle with its new parts and a note on each kind of copies.

    Example:
        >>> import tempfile
        >>> from autobackbone.data import decode, survey
        >>> found = survey((np.random.default_rng(0).integers(0, 256, (20, 8, 8), np.uint8), [0, 1] * 10))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     bundle = decode(found, [16], cache_dir=folder)
        >>> together = with_copies_together(bundle, np.array([0, *range(19)]))
        >>> int(together.parts[0]) == int(together.parts[1])
        True
    """
    parts, notes = _reparted(bundle, copies)
    after = replace(bundle, parts=parts, split_digest=split_digest(bundle.names, parts), copies=copies)
    notes = (*_tell_copies(bundle, after), *_tell_leaks(after), *_tell_contradictions(after), *notes)
    return replace(after, skipped=tuple(dict.fromkeys((*bundle.skipped, *notes))))


def contradicting(copies: Codes, labels: Labels, task: Task) -> list[list[int]]:
    """List the groups of copies whose labels are not all the same, as `groups_of` lists groups.

    Of classes and labels; two measurements of one thing may differ.

    Args:
        copies: (n,) int64 codes of groups.
        labels: (n,) int64 codes of classes, or (n, k), as a bundle holds them.
        task: what they are.

    Example:
        >>> contradicting(np.array([0, 1, 1, 2, 0, 0]), np.array([3, 4, 4, 4, 3, 5]), "classification")
        [[0, 4, 5]]
    """
    if task == "regression":
        return []
    rows = labels.reshape(len(labels), -1)
    return [group for group in groups_of(copies) if (rows[group] != rows[group[0]]).any()]


def _expected_s(pixels: Pixels, used: Codes) -> float:
    """Seconds to look at all, by a few pictures; the first one is not timed, since a library is loaded for it."""
    timed = used[np.linspace(0, len(used) - 1, min(_N_TIMED, len(used)), dtype=np.int64)]
    look(pixels, timed[:1])
    begun = time.perf_counter()
    look(pixels, timed)
    return _SEARCHING * (time.perf_counter() - begun) / len(timed) * len(used)


def _reparted(bundle: DataBundle, copies: Codes) -> tuple[Parts, tuple[str, ...]]:
    """New parts, and a note where a class has no pictures in one of them."""
    for parts in _attempts(bundle, copies):
        try:
            counts = count_pictures(bundle.labels, parts, bundle.classes, bundle.task)
            return parts, check_parts(counts, part_sizes(parts))
        except DataError:
            continue
    return bundle.parts, ()


def _attempts(bundle: DataBundle, copies: Codes) -> Iterator[Parts]:
    if not bundle.made:
        return
    movable = np.flatnonzero(np.isin(bundle.parts, [TRAIN, *(PART_CODES[part] for part in bundle.made)]))
    before = bundle.parts[movable]
    _, firsts, whose = np.unique(either(copies, bundle.groups)[movable], return_index=True, return_inverse=True)
    of_group = before[firsts]
    has_train = np.bincount(whose, weights=before == TRAIN) > 0
    for chosen in (of_group, np.where(has_train, TRAIN, of_group)):
        parts = bundle.parts.copy()
        parts[movable] = chosen[whose]
        yield parts


def either(copies: Codes, groups: Codes | None) -> Codes:
    """Give codes (n,) int64 of what either of two codes (n,) joins, along chains, too.

    Example:
        >>> either(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 2]))
        array([0, 0, 0, 1])
    """
    if groups is None:
        return copies
    n = len(copies)
    ends = np.concatenate([_firsts(copies), _firsts(groups)])
    links = coo_matrix((np.ones(2 * n, bool), (np.tile(np.arange(n), 2), ends)), shape=(n, n))
    labels: Codes = connected_components(links, directed=False)[1].astype(np.int64)
    return labels


def _firsts(codes: Codes) -> Codes:
    """The first picture of each one's group."""
    _, firsts, whose = np.unique(codes, return_index=True, return_inverse=True)
    return firsts[whose]


def _tell_copies(before: DataBundle, after: DataBundle) -> Iterator[str]:
    groups = _groups(after)
    if not groups:
        return
    n_moved = int((before.parts != after.parts).sum())
    moved = ""
    if n_moved:
        # The plan has told the counts from before, and pictures.csv has these.
        now = ", ".join(f"{n:,} {part}" for part, n in part_sizes(after.parts).items())
        moved = f"; {counted(n_moved, 'picture')} moved to another part, so that copies lie in one: now {now}"
    first, second = (_quoted(after, index) for index in groups[0][:2])
    yield (
        f"{counted(sum(map(len, groups)), 'picture')} are copies in {counted(len(groups), 'group')}, such as {first} "
        f"and {second}{moved}"
    )


def _tell_leaks(bundle: DataBundle) -> Iterator[str]:
    """What flatters scores: copies of what is trained on, and test pictures in the part that chooses the network."""
    pairs: tuple[tuple[Part, Part], ...] = (("validation", "train"), ("test", "train"), ("test", "validation"))
    for part, into in pairs:
        leaked = bundle.leaked(part, into)
        if not leaked.size:
            continue
        why = "the given split is kept"
        if {part, into} <= {"train", *bundle.made}:
            why = "together they would leave a part or a class without pictures"
        named = ", ".join(_quoted(bundle, index) for index in leaked[:3].tolist()) + (", …" if leaked.size > 3 else "")
        have = "has" if leaked.size == 1 else "have"
        other = "training" if into == "train" else into
        yield (
            f"{counted(leaked.size, 'picture')} of the {part} part {have} a copy in the {other} part ({named}); {why}"
        )


def _tell_contradictions(bundle: DataBundle) -> Iterator[str]:
    assert bundle.copies is not None
    used = np.flatnonzero(bundle.parts != LEFT_OUT)
    found = contradicting(bundle.copies[used], bundle.labels[used], bundle.task)
    if not found:
        return
    named = []
    for group in (used[places] for places in found[:3]):
        _, different = np.unique(bundle.labels[group], axis=0, return_index=True)
        shown = group[np.sort(different)[:3]].tolist()
        named.append(", ".join(f"{_quoted(bundle, at)} ({_label(bundle.labels[at], bundle.classes)})" for at in shown))
    more = "; …" if len(found) > 3 else ""
    carry = "carries" if len(found) == 1 else "carry"
    yield (
        f"{counted(len(found), 'group')} of copies {carry} different labels: {'; '.join(named)}{more}; "
        "result.contradictions() lists each copy"
    )


def _groups(bundle: DataBundle) -> list[list[int]]:
    """Groups of two and more pictures that are used."""
    assert bundle.copies is not None
    is_used = bundle.parts != LEFT_OUT
    kept = ([index for index in group if is_used[index]] for group in groups_of(bundle.copies))
    return [group for group in kept if len(group) > 1]


def _label(label: Any, classes: tuple[str | int, ...]) -> str:
    """A class, or the labels of a picture, by name."""
    if np.ndim(label) == 0:
        return str(classes[label])
    return " and ".join(str(name) for name, has in zip(classes, label, strict=True) if has) or "none"


def _quoted(bundle: DataBundle, index: int) -> str:
    return f"'{printable(bundle.names[index])}'"

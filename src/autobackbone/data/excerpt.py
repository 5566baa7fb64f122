"""A fair part of a dataset, for a budget in which all of it cannot be read."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from autobackbone.data.bundle import is_decoded
from autobackbone.data.joining import PartSource
from autobackbone.data.parts import LEFT_OUT, TRAIN, Codes, fair_order
from autobackbone.data.pictures import quiet_pillow
from autobackbone.data.sources import printable
from autobackbone.data.timing import read_once
from autobackbone.errors import BudgetError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from autobackbone.data.surveying import Survey
    from autobackbone.records import ImageSize

# How much of the time reading may take: a picture is read once, and each further stage costs several times as much.
READING_SHARE = 0.3
_N_LOOKS = 32
_MIN_LOOKS = 3
# Looking is not reading: it may take this share of the time that reading may take.
_LOOKING_SHARE = 0.03
# Whether all is decoded already is only asked where digesting all takes less than this share of it.
_TELLING_SHARE = 0.2
# Threads that decode share memory and Python's lock: two did 1.8 times the work of one.
_THREAD_YIELD = 0.9


def within_time(
    survey: Survey,
    image_sizes: Sequence[ImageSize],
    left_s: float | None,
    *,
    seed: int,
    cache_dir: Path,
    n_workers: int,
) -> Survey:
    """The dataset, or as much of it as can be read in a share of the budget.

    A few pictures are read for real to tell; what is decoded already costs nothing.

    Args:
        survey: the dataset.
        image_sizes: that will be decoded at once.
        left_s: seconds of the budget that are left; `None` for no limit.
        seed: of the choice of pictures.
        cache_dir: where decoded pictures may lie already.
        n_workers: threads that will decode.

    Raises:
        BudgetError: not even one picture of each class can be read.
    """
    if left_s is None:
        return survey
    n_used = int((survey.parts != LEFT_OUT).sum())
    allowed_s = READING_SHARE * left_s
    digest_s, decode_s = _seconds_a_picture(survey, image_sizes, allowed_s * _LOOKING_SHARE, n_workers=n_workers)
    one_s = digest_s + decode_s
    if n_used * one_s <= allowed_s:
        return survey
    is_quickly_told = n_used * digest_s < _TELLING_SHARE * allowed_s
    if is_quickly_told and is_decoded(survey, image_sizes, cache_dir=cache_dir, n_workers=n_workers):
        return survey
    n_classes = len(survey.classes)
    if n_classes * one_s > left_s:
        raise BudgetError(
            f"one picture of each of {n_classes:,} classes takes about {n_classes * one_s:,.0f} s to read, and "
            f"{left_s:,.0f} s of the budget are left. Give at least {3 * n_classes * one_s / READING_SHARE:,.0f} s."
        )
    return excerpt_for_time(
        survey, int(allowed_s / one_s), seed=seed, what="reading", whole_s=n_used * one_s, share=READING_SHARE
    )


def excerpt_for_time(survey: Survey, n: int, *, seed: int, what: str, whole_s: float, share: float) -> Survey:
    """An excerpt that says why: `what` over all takes so many seconds, and may take this share of the budget."""
    part, n_used = excerpt(survey, n, seed=seed), int((survey.parts != LEFT_OUT).sum())
    line = (
        f"{len(part.names):,} of {n_used:,} pictures are used, a fair share of each class and part: {what} all takes "
        f"about {whole_s:,.0f} s. Give at least {whole_s / share:,.0f} s to use all"
    )
    return replace(part, skipped=(*part.skipped, line))


def excerpt(survey: Survey, n: int, *, seed: int) -> Survey:
    """A smaller dataset of about `n` pictures with classes and parts in proportion.

    Same seed, same pictures; a larger `n` keeps those of a smaller one. Every class keeps a picture to train on, and
    every part a picture.
    """
    order = fair_order(survey.strata, survey.parts, seed=seed)
    return _taken(survey, np.unique(np.concatenate([order[:n], _one_of_each(survey, order)])))


def restricted(survey: Survey, names: Collection[str]) -> Survey:
    """The pictures of these names alone, which are written as `printable` writes them."""
    chosen = [index for index, name in enumerate(survey.names) if printable(name) in names]
    return _taken(survey, np.array(chosen, np.int64))


def _taken(survey: Survey, chosen: Codes) -> Survey:
    return replace(
        survey,
        source=PartSource(whole=survey.source, indices=chosen),
        names=tuple(survey.names[index] for index in chosen.tolist()),
        labels=survey.labels[chosen],
        parts=survey.parts[chosen],
        groups=None if survey.groups is None else survey.groups[chosen],
    )


def _seconds_a_picture(
    survey: Survey, image_sizes: Sequence[ImageSize], looking_s: float, *, n_workers: int
) -> tuple[float, float]:
    """Seconds until one picture more is digested, and until it is decoded and resized, all threads at work."""
    indices = np.flatnonzero(survey.parts != LEFT_OUT)
    looks = indices[np.linspace(0, len(indices) - 1, min(_N_LOOKS, len(indices)), dtype=np.int64)]
    digest_s, decode_s, n_done = 0.0, 0.0, 0
    with quiet_pillow():
        # In no order: the first few of a sorted folder may be of one kind.
        for index in np.random.default_rng(0).permutation(looks).tolist():
            began = time.perf_counter()
            survey.source.fingerprint(index)
            digested = time.perf_counter()
            read_once(survey, index, image_sizes)
            digest_s += digested - began
            decode_s += time.perf_counter() - digested
            n_done += 1
            if n_done >= _MIN_LOOKS and digest_s + decode_s > looking_s:
                break
    n_at_once = 1 + (n_workers - 1) * _THREAD_YIELD if survey.source.is_thread_safe else 1.0
    return digest_s / n_done / n_at_once, decode_s / n_done / n_at_once


def _one_of_each(survey: Survey, order: Codes) -> Codes:
    """The first picture in order of each class to train on, and of each part."""
    is_train = survey.parts[order] == TRAIN
    _, first_of_class = np.unique(survey.strata[order][is_train], return_index=True)
    _, first_of_part = np.unique(survey.parts[order], return_index=True)
    return np.concatenate([order[is_train][first_of_class], order[first_of_part]])

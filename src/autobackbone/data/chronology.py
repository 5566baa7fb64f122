"""A split in order of time: trained on what came first, scored on what came last."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from autobackbone.data.parts import TEST, TRAIN, VALIDATION, Parts, Split, values_of
from autobackbone.errors import DataError

if TYPE_CHECKING:
    from autobackbone.data.parts import Codes

_TRAIN_SHARE, _SEEN_SHARE = 0.64, 0.80
"""The shares of a random split: 64, 16 and 20 of 100 pictures."""


def encode_times(times: Any, names: tuple[str, ...]) -> Codes:
    """Read `times=`: one entry a picture, or a function of a picture's name; the rank of each.

    Args:
        times: numbers, dates, or texts in ISO form, which sort as they are.
        names: n names.

    Returns:
        (n,) int64 ranks from 0; equal times share one.

    Raises:
        DataError: another length, missing entries, entries that cannot be sorted, or only one time.

    Example:
        >>> encode_times(["2024-05", "2023-11", "2024-05"], ("a", "b", "c")).tolist()
        [1, 0, 1]
    """
    column = pd.Series(values_of(times, names, "times"), dtype=object).infer_objects()
    if column.isna().any():
        raise DataError(f"every picture needs a time; picture '{names[int(column.isna().argmax())]}' has None or NaN.")
    try:
        ranks = column.rank(method="dense").to_numpy() - 1
    except TypeError as error:
        raise DataError("times are numbers, dates or texts that can be sorted; other or mixed objects came.") from error
    if ranks.max(initial=0) < 1:
        raise DataError(f"times must differ, or there is no order to split by; all are {column.iloc[0]}.")
    return np.asarray(ranks, dtype=np.int64)


def split_by_time(ranks: Codes) -> Split:
    """The first 64 % to train on, the next 16 % to validate, the last 20 % to test; equal times stay together.

    Args:
        ranks: (n,) int64, later is higher.

    Raises:
        DataError: so few different times that a part would be empty.

    Example:
        >>> split_by_time(np.arange(100)).parts[[0, 63, 64, 79, 80, 99]].tolist()
        [0, 0, 1, 1, 2, 2]
    """
    # A time belongs where the middle of its pictures lies.
    n_up_to = np.cumsum(np.bincount(ranks))
    middles = (n_up_to - np.bincount(ranks) / 2) / len(ranks)
    of_time = np.select([middles < _TRAIN_SHARE, middles < _SEEN_SHARE], [TRAIN, VALIDATION], TEST)
    parts: Parts = of_time[ranks].astype(np.int8)
    if len(np.unique(parts)) < 3:
        raise DataError(
            f"a split by time needs three parts; the {len(n_up_to)} different times leave one empty. Give finer times, "
            "or bring a split of your own."
        )
    n_seen = [int((parts == part).sum()) for part in (TRAIN, VALIDATION, TEST)]
    return Split(parts=parts, notes=("split by time: the first {:,} to train, then {:,}, then {:,}".format(*n_seen),))

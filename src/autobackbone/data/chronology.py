"""A split in order of time: trained on what came first, scored on what came last."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from autobackbone.data.parts import TEST, TRAIN, VALIDATION, Parts, Split, values_of
from autobackbone.data.sources import printable
from autobackbone.errors import DataError

if TYPE_CHECKING:
    from autobackbone.data.parts import Codes

# As cameras write it, and as many people do.
_DAY = r"^(\d{4})[:/.](\d{2})[:/.](\d{2})"
_TRAIN_SHARE, _SEEN_SHARE = 0.64, 0.80
"""The shares of a random split: 64, 16 and 20 of 100 pictures."""


def encode_times(times: Any, names: tuple[str, ...]) -> Codes:
    """Read `times=`: one entry a picture, or a function of a picture's name; the rank of each.

    Args:
        times: numbers, dates, or texts that are one or the other: `12`, `2024-05`, `2024-05-31 14:00:00+02:00`,
            `2024:05:31 14:00:00` as cameras write it. Dates without an offset are of UTC.
        names: n names.

    Returns:
        (n,) int64 ranks from 0; equal times share one.

    Raises:
        DataError: another length, missing entries, texts that are no times, entries that cannot be sorted, or only one
            time.

    Example:
        >>> encode_times(["2024-05", "2023-11", "2024-05"], ("a", "b", "c")).tolist()
        [1, 0, 1]
    """
    column = pd.Series(values_of(times, names, "times"), dtype=object)
    is_empty = (column.isna() | column.map(_is_blank)).to_numpy()
    if is_empty.any():
        raise DataError(
            f"every picture needs a time; picture '{printable(names[int(is_empty.argmax())])}' has None, NaN or an "
            f"empty cell, {_so_many(is_empty)}. Fill it in, or leave such rows out."
        )
    if column.map(lambda value: isinstance(value, str)).any():
        column = _read(column, names)
    try:
        ranks = column.infer_objects().rank(method="dense").to_numpy() - 1
    except TypeError as error:
        raise DataError(
            "times are numbers or dates; others came, or of several kinds that cannot be sorted."
        ) from error
    if ranks.max(initial=0) < 1:
        raise DataError(f"times must differ, or there is no order to split by; all are {column.iloc[0]}.")
    return np.asarray(ranks, dtype=np.int64)


def _read(column: pd.Series[Any], names: tuple[str, ...]) -> pd.Series[Any]:
    """What texts say, all as numbers or all as dates: sorted as they are, 10 would come before 9, and soon after 2024.

    Args:
        column: (n,) objects, texts among them.
        names: n names, for the one that is neither.
    """
    written = column.astype(str).str.strip()
    numbers = pd.to_numeric(written, errors="coerce")
    in_iso_form = written.str.replace(_DAY, r"\1-\2-\3", regex=True)
    dates = pd.to_datetime(in_iso_form, format="ISO8601", utc=True, errors="coerce")
    best = min((numbers, dates), key=lambda found: int(found.isna().sum()))
    is_wrong = best.isna().to_numpy()
    if not is_wrong.any():
        return best
    first = int(is_wrong.argmax())
    kind = "a date" if best is dates else "a number"
    what = f"not {kind} as the others are" if 2 * is_wrong.sum() < len(column) else "neither a number nor a date"
    raise DataError(
        f"times are numbers or dates, such as 2024-05-31 or 2024-05-31 14:00; {column.iloc[first]!r} of picture "
        f"'{printable(names[first])}' is {what}, {_so_many(is_wrong)}. Mend or leave out such rows, or give the "
        "place of each picture in the order of time as a number."
    )


def _is_blank(value: Any) -> bool:
    return isinstance(value, str) and not value.strip()


def _so_many(is_one: np.ndarray[Any, np.dtype[np.bool_]]) -> str:
    n = int(is_one.sum())
    return f"one of {n:,} such among {len(is_one):,} pictures" if n > 1 else f"the only one of {len(is_one):,} pictures"


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

"""What scikit-learn's users call X, as pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from sklearn.utils.validation import validate_data

from autobackbone.data import TRAIN, Fingerprint
from autobackbone.data.arrays import ArraySource
from autobackbone.data.pictures import is_deep
from autobackbone.data.ranges import measure_range
from autobackbone.errors import DataError

_NAMED_OR_COUNTED = ("n_features_in_", "feature_names_in_")


def pictures_of(estimator: Any, X: Any, *, reset: bool) -> Any:  # noqa: N803  as scikit-learn calls it
    """X as pictures: as they came, or the rows of a matrix as pictures of one row.

    Args:
        estimator: whose `n_features_in_` a matrix sets or has to fit.
        X: paths, Pillow images or arrays in a list, series or array; an array (n, height, width[, channels]); or a
            matrix of numbers (n, n_features).
        reset: whether it is fitted on them.

    Returns:
        A list of n pictures, or an array (n, height, width, channels).

    Raises:
        ValueError: a matrix that scikit-learn refuses, or of another number of columns.
        TypeError: a sparse matrix.
        DataError: neither pictures nor a matrix, or rows where it was fitted on pictures.
    """
    found = _pictures(X)
    if found is None:
        if not reset and not hasattr(estimator, "n_features_in_"):
            raise DataError(
                f"{type(estimator).__name__} was fitted on pictures, and rows of numbers came. Give pictures: a single "
                "one in a list, [picture]."
            )
        # Rows of all kinds of numbers become pictures by one range of values, which whole numbers of 8 bits would not.
        matrix = validate_data(estimator, X, dtype=[np.float64, np.float32], reset=reset)
        if reset and matrix.shape[1] == 1:
            raise DataError(
                "rows are read as pictures of one row, and n_features = 1 would make pictures of one pixel. Give "
                "pictures, or more features."
            )
        return matrix[:, None, :, None]
    if reset:
        for name in _NAMED_OR_COUNTED:
            vars(estimator).pop(name, None)
    elif hasattr(estimator, "n_features_in_"):
        raise DataError(
            f"{type(estimator).__name__} was fitted on rows of {estimator.n_features_in_} features, and pictures came. "
            "Give rows."
        )
    return found


def are_paths(pictures: Any) -> bool:
    """Whether pictures are all files that are still to be read."""
    return isinstance(pictures, list) and all(isinstance(one, (str, Path)) for one in pictures)


def _pictures(given: Any) -> list[Any] | NDArray[Any] | None:
    """Pictures, `None` where it is no such thing."""
    if isinstance(given, np.ndarray) and given.ndim >= 3:
        # With channels, (n, height, 3) cannot be taken for one colour picture.
        return given[..., None] if given.ndim == 3 else given
    if isinstance(given, (pd.DataFrame, np.ndarray)) and given.ndim == 2 and given.shape[1] == 1:
        column = given.iloc[:, 0] if isinstance(given, pd.DataFrame) else given[:, 0]
        return _pictures(column)
    is_row_of_entries = isinstance(given, (list, tuple, pd.Series)) or (
        isinstance(given, np.ndarray) and given.ndim == 1
    )
    if not is_row_of_entries or len(given) == 0:
        return None
    entries = list(given)
    return [_as_path(one) for one in entries] if _is_picture(entries[0]) else None


def _is_picture(one: Any) -> bool:
    return isinstance(one, (str, Path, Image.Image)) or (isinstance(one, np.ndarray) and one.ndim >= 2)


def _as_path(one: Any) -> Any:
    """NumPy's texts as Python's."""
    return str(one) if isinstance(one, str) else one


def range_of(pictures: Any, channels: tuple[int, ...] | None) -> tuple[float, float] | None:
    """What is black and white in pictures above 8 bits, as a search measures it of those that it trains on.

    Returns:
        (low, high), or `None` where all have 8 bits.
    """
    names = tuple(str(number) for number in range(len(pictures)))
    prints = [Fingerprint(digest=b"", is_deep=_is_deep(one)) for one in pictures]
    source = ArraySource(pictures=pictures, names=names)
    return measure_range(source, prints, np.full(len(names), TRAIN, np.int8), channels)


def _is_deep(picture: Any) -> bool:
    try:
        return is_deep(picture)
    except Exception:  # noqa: BLE001  # a broken picture raises anything; transforming meets it again and tells it
        return False

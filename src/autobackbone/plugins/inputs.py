"""What scikit-learn's users call X, as pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from scipy import sparse
from sklearn.utils.validation import validate_data

from autobackbone.data import TRAIN, Fingerprint
from autobackbone.data.arrays import ArraySource
from autobackbone.data.pictures import is_deep
from autobackbone.data.ranges import measure_range
from autobackbone.errors import DataError

_NAMED_OR_COUNTED = ("n_features_in_", "feature_names_in_")
_STACK_SHAPE = "_stack_shape"
"""Of the array that an estimator was fitted on; `None` of a list."""


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
    has_seen_pictures = not reset and not hasattr(estimator, "n_features_in_")
    # Of an empty matrix scikit-learn says so, in the same words.
    _require_several(X, type(estimator).__name__, is_matrix_left=not has_seen_pictures)
    found = _pictures(X)
    if found is None:
        if has_seen_pictures:
            raise DataError(
                f"{type(estimator).__name__} was fitted on pictures, and {_named(X)} came. Give pictures: a single "
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
        vars(estimator)[_STACK_SHAPE] = X.shape if isinstance(X, np.ndarray) else None
    elif hasattr(estimator, "n_features_in_"):
        raise DataError(
            f"{type(estimator).__name__} was fitted on rows of {estimator.n_features_in_} features, and pictures came. "
            "Give rows."
        )
    else:
        _require_stack(X, estimator)
    return found


def are_paths(pictures: Any) -> bool:
    """Whether pictures are all files that are still to be read."""
    return isinstance(pictures, list) and all(isinstance(one, (str, Path)) for one in pictures)


def _require_several(given: Any, name: str, *, is_matrix_left: bool) -> None:
    """Make sure that it is a number of things, at least one.

    Raises:
        DataError: it is one thing, or none.
    """
    is_one = isinstance(given, (str, bytes, Path, Image.Image, Mapping)) and not sparse.issparse(given)
    if given is None or is_one:
        raise DataError(
            f"X is a list, series or array of pictures, or a matrix of numbers; {_named(given)} came. A single picture "
            "stands in a list, [picture]."
        )
    is_row = isinstance(given, (list, tuple, pd.Series, pd.DataFrame)) or (isinstance(given, np.ndarray) and given.ndim)
    is_empty = is_row and len(given) == 0
    if is_empty and not (is_matrix_left and np.ndim(given) == 2):
        raise DataError(
            f"Found array with 0 sample(s) (shape={np.shape(given)}) while a minimum of 1 is required by {name}."
        )


def _require_stack(given: Any, estimator: Any) -> None:
    """Make sure that an array (height, width, channels) is not read as grey pictures: fitted on those, it may be.

    Raises:
        DataError: it looks like one picture.
    """
    fitted = vars(estimator).get(_STACK_SHAPE)
    if not isinstance(given, np.ndarray) or given.ndim != 3 or (fitted is not None and len(fitted) == 3):
        return
    if given.shape[-1] in (1, 3, 4) or (fitted is not None and given.shape == fitted[1:]):
        seen = "no array" if fitted is None else f"one of shape {fitted}"
        raise DataError(
            f"an array of shape {given.shape} may be one picture with channels, or several that are grey, and "
            f"{type(estimator).__name__} was fitted on {seen}. Give one as X[None], several as X[..., None]."
        )


def _named(given: Any) -> str:
    """What came, in a few words."""
    if given is None or isinstance(given, (str, bytes, Path)):
        return repr(given)
    if isinstance(given, np.ndarray) and given.ndim != 2:
        return f"an array of shape {given.shape}"
    if isinstance(given, (list, tuple, pd.Series)):
        first = next(iter(given))
        return "rows of numbers" if hasattr(first, "__len__") else f"a {type(given).__name__} of {type(first).__name__}"
    return "rows of numbers" if hasattr(given, "shape") else f"a {type(given).__name__}"


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

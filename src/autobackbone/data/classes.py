"""Labels of a classification as classes and codes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from autobackbone.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable

Array = np.ndarray[Any, Any]


def encode_labels(labels: Iterable[Any]) -> tuple[tuple[str | int, ...], np.ndarray[Any, np.dtype[np.int64]]]:
    """Find the classes of labels and each label's code.

    Whole numbers, also written as floats or booleans, become int; texts stay str. Both at once are refused, for their
    order would be arbitrary.

    Args:
        labels: n labels; an array (n,) or (n, 1), a series, or any sequence.

    Returns:
        The classes, sorted, and codes (n,) int64 into them.

    Raises:
        DataError: labels missing, not one a picture, or not of a classification.

    Example:
        >>> encode_labels([2.0, 0.0, 2.0])
        ((0, 2), array([1, 0, 1]))
    """
    codes, found = _factorize(labels)
    if (codes < 0).any():
        raise missing(np.flatnonzero(codes < 0))
    _require_one_kind(codes, found)
    classes = [_as_class(label, codes == code) for code, label in enumerate(found)]
    order = sorted(range(len(classes)), key=lambda i: classes[i])
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return tuple(classes[i] for i in order), rank[codes] if len(codes) else np.zeros(0, np.int64)


def plain(label: Any) -> Any:
    """Take a 0-d tensor or a numpy scalar out of its wrapping; a tensor becomes an array."""
    if getattr(label, "ndim", 0) == 0:
        return label.item() if hasattr(label, "item") else label
    return label.detach().cpu().numpy() if hasattr(label, "detach") else label


def missing(places: Array) -> DataError:
    """The error for pictures without a label, by their places."""
    return DataError(
        f"every picture needs a label; {places.size} are missing (None or NaN), the first at {places[0]}. "
        "Remove those pictures or label them."
    )


def _factorize(labels: Iterable[Any]) -> tuple[Array, list[Any]]:
    values = labels if isinstance(labels, (np.ndarray, pd.Series)) else [plain(label) for label in labels]
    array = np.asarray(values, dtype=object)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise DataError(f"labels of a classification are one class a picture, shape (n,); {array.shape} came.")
    try:
        codes, found = pd.factorize(array)
    except TypeError as error:
        raise DataError(
            "labels of a classification are one class a picture, a number or a text; lists or other objects came."
        ) from error
    return codes, list(found)


def _require_one_kind(codes: Array, found: list[Any]) -> None:
    """Raises: DataError: texts and other labels; it names one of the kind that is rarer."""
    is_text = np.array([isinstance(plain(label), str) for label in found], np.bool_)
    if is_text.all() or not is_text.any():
        return
    of_pictures = is_text[codes]
    n_texts, n_others = int(of_pictures.sum()), int((~of_pictures).sum())
    place = _first(of_pictures if n_texts <= n_others else ~of_pictures)
    raise DataError(
        f"labels are all numbers or all texts; {n_texts:,} texts and {n_others:,} others came, the first of the rarer "
        f"kind {plain(found[codes[place]])!r} in row {place}. Turn them into one kind."
    )


def _first(is_so: Array) -> int:
    return int(np.argmax(is_so))


def _as_class(label: Any, is_so_labelled: Array) -> str | int:
    value = plain(label)
    if isinstance(value, (bool, int)):
        return int(value)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, float) and math.isfinite(value):
        if value.is_integer():
            return int(value)
        raise DataError(
            f"labels are classes; {value!r} came, in row {_first(is_so_labelled)}, which looks like a measurement. "
            "Round it or cut it into classes, or say task='regression'."
        )
    raise DataError(
        f"a label is a whole number or a text; {value!r} of type {type(value).__name__} came, in row "
        f"{_first(is_so_labelled)}."
    )

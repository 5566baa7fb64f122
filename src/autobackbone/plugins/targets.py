"""What scikit-learn's users call y, as labels of a search."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import column_or_1d, validate_data

from autobackbone.data import N_FOLDS, DataWarning
from autobackbone.errors import DataError
from autobackbone.records import Task


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Targets:
    """Labels as a search takes them, and what a user calls them.

    Args:
        task: what they are.
        labels: one entry a picture, (n,), or (n, k) of several labels or numbers.
        names: of a classification what each class is called in `labels`, in the order of `classes`; of several labels
            or numbers the number of each column.
        classes: (n_classes,) as the user wrote them, sorted; of several labels the number of each; `None` of numbers.
    """

    task: Task
    labels: NDArray[Any]
    names: tuple[str | int, ...]
    classes: NDArray[Any] | None = None


def class_targets(estimator: Any, y: Any, n: int) -> Targets:
    """Classes, (n,), or several labels, (n, n_labels) of 0 and 1.

    Args:
        estimator: whose labels they are.
        y: as the user gave it.
        n: how many pictures there are.

    Raises:
        ValueError: they are no classes, are missing, or not as many as pictures.
    """
    checked = _checked(estimator, y, n, is_numbers=False)
    check_classification_targets(checked)
    kind = type_of_target(checked, input_name="y")
    if kind == "multilabel-indicator":
        labels = (checked.toarray() if sparse.issparse(checked) else np.asarray(checked)).astype(np.int64)
        places = np.arange(labels.shape[1])
        return Targets(task="multilabel", labels=labels, names=tuple(places.tolist()), classes=places)
    if kind == "multiclass-multioutput":
        raise DataError(
            f"y is one class a picture, or a matrix of 0 and 1 with a column for each label; {np.shape(checked)} other "
            "ones came. Fit one estimator for each column."
        )
    classes, codes = np.unique(column_or_1d(checked, warn=True), return_inverse=True)
    names = _names(classes)
    values = np.empty(len(codes), dtype=object)
    values[:] = [names[code] for code in codes]
    return Targets(task="classification", labels=values, names=names, classes=classes)


def number_targets(estimator: Any, y: Any, n: int) -> Targets:
    """Numbers, (n,) or (n, n_targets) float64.

    Args:
        estimator: whose numbers they are.
        y: as the user gave it.
        n: how many pictures there are.

    Raises:
        ValueError: they are no numbers, are missing, or not as many as pictures.
    """
    values = np.asarray(_checked(estimator, y, n, is_numbers=True), dtype=np.float64)
    n_targets = 1 if values.ndim == 1 else values.shape[1]
    return Targets(task="regression", labels=values, names=tuple(range(n_targets)))


def first_of_each(names: Sequence[str], labels: NDArray[Any]) -> list[int]:
    """Rows that have a picture for the first time, in order: what draws rows with replacement repeats pictures.

    Args:
        names: n paths.
        labels: (n,) or (n, k).

    Raises:
        DataError: a picture has other labels where it is repeated.

    Warns:
        DataWarning: pictures are repeated.
    """
    rows: dict[str, int] = {}
    for row, name in enumerate(names):
        first = rows.setdefault(name, row)
        if first != row and not np.array_equal(labels[first], labels[row]):
            raise DataError(
                f"a picture has one entry of y; {name!r} is in rows {first} and {row}, as {labels[first]} and "
                f"{labels[row]}. Leave one out; several labels of one stand in its row, in columns of 0 and 1."
            )
    n_again = len(names) - len(rows)
    if n_again:
        warnings.warn(
            f"{n_again} of {len(names)} rows repeat a picture: each is searched on once. "
            'space={"sampling": "balanced"} is the way to see some classes more often.',
            DataWarning,
            stacklevel=2,
        )
    return list(rows.values())


def _checked(estimator: Any, y: Any, n: int, *, is_numbers: bool) -> Any:
    if isinstance(getattr(y, "dtype", None), pd.api.extensions.ExtensionDtype):
        y = _plain(y)
    checked = validate_data(
        estimator, X="no_validation", y=y, multi_output=True, y_numeric=is_numbers, skip_check_array=False
    )
    n_labels = checked.shape[0]
    if n_labels != n:
        raise DataError(f"every picture needs one entry of y; {n} pictures and {n_labels} entries came.")
    if n < N_FOLDS:
        raise DataError(f"a search needs at least {N_FOLDS} pictures to train, choose and test on; n_samples={n} came.")
    return checked


def _plain(y: Any) -> Any:
    """Whole numbers and truth values of pandas' own types as NumPy's, of which scikit-learn would make real numbers."""
    is_missing = pd.isna(y)
    if is_missing.any():
        raise DataError(f"every picture needs an entry of y; row {int(np.argmax(is_missing))} has NaN.")
    kind = getattr(y.dtype, "numpy_dtype", None)
    return y.to_numpy(dtype=kind) if isinstance(kind, np.dtype) and kind.kind in "iub" else y


def _names(classes: NDArray[Any]) -> tuple[str | int, ...]:
    """Texts and whole numbers as they are, so that a run shows them; else, as of texts that differ in spaces around
    them, their numbers.
    """
    plain = classes.tolist()
    if all(isinstance(one, str) and one and one == one.strip() for one in plain):
        return tuple(map(str, plain))
    if all(isinstance(one, (int, float)) and float(one).is_integer() for one in plain):
        return tuple(map(int, plain))
    return tuple(range(len(plain)))

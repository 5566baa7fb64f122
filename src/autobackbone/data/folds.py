"""Folds over training and validation pictures together: where these are few, the validation part alone says little."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from autobackbone.data.parts import TRAIN, VALIDATION
from autobackbone.data.strata import strata_of
from autobackbone.data.together import either

if TYPE_CHECKING:
    from autobackbone.data.bundle import DataBundle
    from autobackbone.data.parts import Codes

FEW_PICTURES = 500
"""Training and validation pictures together, below which folds are worth their time."""
N_FOLDS = 5


def pooled(bundle: DataBundle) -> Codes:
    """Give the numbers of training and validation pictures, (n,) int64, ascending: what folds are of."""
    return np.flatnonzero(np.isin(bundle.parts, [TRAIN, VALIDATION]))


def wants_folds(bundle: DataBundle) -> bool:
    """Tell whether there are few pictures, and the validation part was made out of the training part.

    One that was given, or that follows times, is another kind of pictures: folds would mix them.
    """
    return "validation" in bundle.made and len(pooled(bundle)) < FEW_PICTURES


def folds_of(bundle: DataBundle, *, n_folds: int = N_FOLDS, seed: int) -> Codes | None:
    """Deal training and validation pictures into folds of about one size, in the same shares of each class.

    What stands for classes is `strata_of`; the user's groups and copies stay whole, and shares are kept as well as that
    allows.

    Args:
        bundle: the pictures; its test part is not looked at.
        n_folds: at least 2. Fewer come where there are fewer groups, or fewer pictures of every class.
        seed: same seed, same folds.

    Returns:
        (n,) int64 the fold of each picture of `pooled`, from 0 on, none of them empty; `None` where there are not two.

    Example:
        >>> import tempfile
        >>> from autobackbone.data import decode, survey
        >>> found = survey((np.random.default_rng(0).integers(0, 256, (25, 8, 8), np.uint8), [0, 1, 0, 1, 0] * 5))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     folds = folds_of(decode(found, [16], cache_dir=folder), seed=0)
        >>> np.bincount(folds).tolist()
        [4, 4, 4, 4, 4]
    """
    members = pooled(bundle)
    strata = strata_of(bundle.labels[members], bundle.task)
    groups = _groups(bundle, members)
    n_most = min(int(np.bincount(strata).max(initial=0)), len(members) if groups is None else len(np.unique(groups)))
    n_fitting = min(n_folds, n_most)
    if n_fitting < 2:
        return None
    splitter = StratifiedKFold if groups is None else StratifiedGroupKFold
    found = np.empty(len(members), np.int64)
    with warnings.catch_warnings():
        # Of a class with fewer pictures than folds: then some folds have none of it.
        warnings.simplefilter("ignore", UserWarning)
        splits = splitter(n_fitting, shuffle=True, random_state=seed).split(members, strata, groups)
        for number, (_, fold) in enumerate(splits):
            found[fold] = number
    # Large groups may leave a fold empty.
    used, folds = np.unique(found, return_inverse=True)
    return folds.astype(np.int64) if len(used) > 1 else None


def _groups(bundle: DataBundle, members: Codes) -> Codes | None:
    """What has to stay in one fold, (n,) codes; `None` where nothing has to."""
    whole = bundle.groups if bundle.copies is None else either(bundle.copies, bundle.groups)
    if whole is None or len(np.unique(whole[members])) == len(members):
        return None
    return whole[members]

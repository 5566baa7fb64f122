"""How strong a penalty is best, told by inner folds, and what their fits say of pictures that they have not seen."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from scipy.special import softmax
from sklearn.linear_model import LogisticRegressionCV
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold, train_test_split

from autobackbone.convexhead.head import BLOCK, Floats, Ints

# Inverse strengths of the penalty on standardised features. On 300 to 2,000 pictures the best of a finer and wider grid
# lay inside; ends are reached by very easy and very noisy data.
STRENGTHS = tuple(float(10.0**power) for power in (-4, -3, -2, -1, 0))
FALLBACK_STRENGTH = 1e-2
# More pictures than this say nothing new about the strength, but cost each of the inner fits its share.
_MAX_FOR_STRENGTH = 4000
# Five would find 0.4 to 3 points more of the wrong labels that were planted among photographs of waste and of hands, as
# many first as were planted; they would cost two thirds more.
N_FOLDS = 3


def choose_strength(
    scaled: Floats,
    labels: Ints,
    *,
    n_classes: int,
    n_most: int | None,
    n_others: int | None,
    seed: int,
) -> tuple[float, Floats | None]:
    """The inverse penalty that inner folds choose, and their predictions of what they held out: nothing is fitted anew.

    Args:
        scaled: (n_images, n_features) standardised.
        labels: (n_images,) from 0 to n_classes - 1; a class may be absent.
        n_classes: columns of the predictions.
        n_most: pictures that the folds are made of, at most; `None` for as many as say something new.
        n_others: of further pictures, which no fold has seen either, how many are predicted; `None` for all.
        seed: of the folds.

    Returns:
        The strength, and (n_images, n_classes) probabilities: of the fold that held a picture out, by that fold's fit,
        or of a picture in no fold, by the mean of all fits; at the strength of the grid next to the chosen one. NaN
        where there is none, as for a class with fewer than two pictures among those of the folds; `None` where the
        pictures are too few for folds.
    """
    n_most = _MAX_FOR_STRENGTH if n_most is None else min(_MAX_FOR_STRENGTH, n_most)
    rows = np.arange(len(labels))
    if len(labels) > n_most:
        if n_most < N_FOLDS * len(np.unique(labels)):
            return FALLBACK_STRENGTH, None
        rows = _stratified_part(labels, n_most, seed=seed)
    rows = rows[np.bincount(labels[rows])[labels[rows]] >= 2]
    part, of_part = (scaled, labels) if len(rows) == len(labels) else (scaled[rows], labels[rows])
    if len(np.unique(of_part)) < 2:
        return FALLBACK_STRENGTH, None
    folds = _folds(of_part, seed=seed)
    model = LogisticRegressionCV(
        Cs=STRENGTHS,
        cv=folds,
        l1_ratios=(0.0,),
        scoring=_minus_log_loss,
        max_iter=100,
        tol=1e-3,
        refit=False,
        use_legacy_attributes=False,
    ).fit(part, of_part)
    found = np.full((len(labels), n_classes), np.nan, np.float32)
    held_out = [rows[held] for _, held in folds]
    is_other = np.isin(labels, model.classes_)
    is_other[rows] = False
    _predict(model, scaled, held_out, np.flatnonzero(is_other)[:n_others], found)
    return float(model.C_), found


def _folds(labels: Ints, *, seed: int) -> list[tuple[Ints, Ints]]:
    """Rows to fit on and rows held out, of two folds or more; each fit sees every class, if each has two rows or more.

    A class is dealt to as many folds as it has rows: what has two lies in two of three, and the fit without either of
    these sees the other row. So a small class takes no fold from large ones; it is missing among what some fold holds
    out, and only there.
    """
    n_folds = min(N_FOLDS, int(np.bincount(labels).max()))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class in y has only", UserWarning)
        return list(StratifiedKFold(n_folds, shuffle=True, random_state=seed).split(labels, labels))


def _minus_log_loss(model: LogisticRegressionCV, features: Floats, labels: Ints) -> float:
    """The scorer of that name needs to be told of classes that are not among what is held out: 1.8 does not do so."""
    return -float(log_loss(labels, model.predict_proba(features), labels=model.classes_))


def _predict(
    model: LogisticRegressionCV, scaled: Floats, held_out: Sequence[Ints], others: Ints, found: Floats
) -> None:
    """Write into `found` what the fits of the folds say of the rows that each has not seen."""
    nearest = int(np.abs(np.log(STRENGTHS) - np.log(model.C_)).argmin())
    maps = model.coefs_paths_[:, 0, nearest]
    for rows in (*held_out, others):
        found[rows] = 0.0  # of classes that are in no fold
    for rows, linear in zip(held_out, maps, strict=True):
        found[np.ix_(rows, model.classes_)] = _probabilities(scaled[rows], linear)
    for start in range(0, len(others), BLOCK):
        rows = others[start : start + BLOCK]
        each = [_probabilities(scaled[rows], linear) for linear in maps]
        found[np.ix_(rows, model.classes_)] = np.mean(each, axis=0)


def _probabilities(features: Floats, linear: Floats) -> Floats:
    """Of a fit (n_classes, n_features + 1), its biases last; of two classes one row, the log-odds of the second."""
    logits = features @ linear[:, :-1].T.astype(np.float32) + linear[:, -1].astype(np.float32)
    if logits.shape[1] == 1:
        logits = np.concatenate([np.zeros_like(logits), logits], axis=1)
    return np.asarray(softmax(logits, axis=1), dtype=np.float32)


def _stratified_part(labels: Ints, n_wanted: int, *, seed: int) -> Ints:
    is_common = np.bincount(labels)[labels] >= 2
    common = np.flatnonzero(is_common)
    # scikit-learn leaves out at least one of each class, or none.
    if len(common) - n_wanted < len(np.unique(labels[common])):
        return common
    part, _ = train_test_split(common, train_size=n_wanted, stratify=labels[is_common], random_state=seed)
    return np.asarray(part)

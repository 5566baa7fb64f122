"""Standardise, fit by the task, fold the scaling into the head."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from autobackbone.convexhead.head import BLOCK, Fitted, Floats, Head
from autobackbone.convexhead.logistic import ClassWeight, fit_logistic
from autobackbone.convexhead.ridge import fit_ridge
from autobackbone.imbalance import positive_weights
from autobackbone.records import Balancing, Task

# Of the median spread of all features. A tenth of a network's features may be zero in nearly all pictures. Standardised
# by their own spread they gave 300 pictures of hands a log loss of 0.58 (accuracy 0.831), so 0.47 (0.846); 300 of waste
# 0.633 and 0.631; and the area of a cell, by ridge regression, an r2 of -0.96 and 0.56.
_LEAST_SPREAD = 0.5
# Far below any logit that a fit gives: the label, or the class, that no picture shows is not predicted.
_NEVER = -20.0


def fit_head(
    features: Floats,
    labels: NDArray[Any],
    *,
    n_outputs: int,
    task: Task = "classification",
    seed: int,
    until: float | None = None,
    copy: bool = True,
    class_weights: Balancing = "none",
) -> Head:
    """A convex head on standardised features, its penalty chosen by folds inside the training part.

    Features that hardly vary are standardised only in part.

    Args:
        features: (n_images, n_features) float32.
        labels: (n_images,) classes from 0 to n_outputs - 1, at least two of them, of which others may be absent and are
            then never predicted; (n_images, n_outputs) of 0 and 1; or (n_images, n_outputs) numbers.
        n_outputs: rows of the head.
        task: what the labels are.
        seed: of the inner folds.
        until: `time.monotonic()` by which it has ended, if that is not sooner than a few iterations on the fewest
            pictures take. Where there is time for everything, the head is the one that comes without a deadline.
        copy: `False` standardises the features in place: they are of no use afterwards.
        class_weights: `balanced` for classes that count the same, or labels whose pictures count as much as all others.

    Returns:
        The head with the standardisation folded in: it takes raw features. With it comes what the fits that chose the
        penalty say of the pictures they left out, at no cost but a product.
    """
    scaler = StandardScaler()
    for start in range(0, len(features), BLOCK):  # what it computes on the way takes more than the features themselves
        scaler.partial_fit(features[start : start + BLOCK])
    _widen(scaler)
    # One thread: the products are small, and threads that wait for each other beside other work took 50 s for 2 s.
    with threadpool_limits(1, user_api="blas"):
        scaled = scaler.transform(features, copy=copy)
        if task == "regression":
            fitted = fit_ridge(scaled, labels)
        elif task == "multilabel":
            fitted = _fit_each(scaled, labels, seed=seed, until=until, class_weights=class_weights)
        else:
            weights: ClassWeight = "balanced" if class_weights == "balanced" else None
            fitted = fit_logistic(scaled, labels, n_classes=n_outputs, seed=seed, until=until, class_weight=weights)
    return _folded(fitted, scaler)


def _widen(scaler: StandardScaler) -> None:
    """Leave what hardly ever varies small: where it does, in a picture that is scored, it would outvote all else."""
    spread = np.sqrt(scaler.var_)
    floor = _LEAST_SPREAD * float(np.median(spread[spread > 0])) if (spread > 0).any() else 1.0
    scaler.scale_ = np.maximum(spread, floor)


def _fit_each(
    scaled: Floats, labels: NDArray[np.int64], *, seed: int, until: float | None, class_weights: Balancing
) -> Fitted:
    """One logistic regression for each label, each with a fair share of the time that is left."""
    n_labels, fits = labels.shape[1], list[Fitted]()
    weights = positive_weights(labels) if class_weights == "balanced" else np.ones(n_labels)
    for k in range(n_labels):
        own = None if until is None else time.monotonic() + max(0.0, until - time.monotonic()) / (n_labels - k)
        fits.append(_fit_label(scaled, labels[:, k], seed=seed, until=own, weight=float(weights[k])))
    nothing = np.full((len(labels), 1), np.nan, np.float32)
    held_out = [fit.out_of_fold for fit in fits]
    return Fitted(
        coef=np.concatenate([fit.coef for fit in fits]),
        intercept=np.concatenate([fit.intercept for fit in fits]),
        strength=float(np.exp(np.median([np.log(fit.strength) for fit in fits]))),
        n_pictures=min(fit.n_pictures for fit in fits),
        out_of_fold=None
        if all(of_label is None for of_label in held_out)
        else np.concatenate([nothing if of_label is None else of_label for of_label in held_out], axis=1),
    )


def _fit_label(
    scaled: Floats, has_label: NDArray[np.int64], *, seed: int, until: float | None, weight: float
) -> Fitted:
    """The log-odds of one label."""
    if has_label.min() == has_label.max():
        return Fitted(
            coef=np.zeros((1, scaled.shape[1])),
            intercept=np.array([_NEVER if has_label.max() == 0 else -_NEVER]),
            strength=1.0,
            n_pictures=len(has_label),
            out_of_fold=None,
        )
    class_weight = None if weight == 1 else {0: 1.0, 1: weight}
    two = fit_logistic(scaled, has_label, n_classes=2, seed=seed, until=until, class_weight=class_weight)
    return Fitted(
        coef=two.coef[1:] - two.coef[:1],
        intercept=two.intercept[1:] - two.intercept[:1],
        strength=two.strength,
        n_pictures=two.n_pictures,
        out_of_fold=None if two.out_of_fold is None else two.out_of_fold[:, 1:],
    )


def _folded(fitted: Fitted, scaler: StandardScaler) -> Head:
    weight = fitted.coef / scaler.scale_
    return Head(
        weight=weight.astype(np.float32),
        bias=(fitted.intercept - weight @ scaler.mean_).astype(np.float32),
        strength=fitted.strength,
        n_pictures=fitted.n_pictures,
        out_of_fold=fitted.out_of_fold,
    )

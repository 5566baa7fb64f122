"""Ridge regression on standardised features, each number with a penalty of its own."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import Ridge, RidgeCV

from autobackbone.convexhead.head import BLOCK, Fitted, Floats, Ints

# On standardised features and numbers. Four numbers of 292 pictures of blood had their best at 300 to 10,000.
_PENALTIES = tuple(float(10.0**power) for power in np.arange(-1, 6.5, 0.5))
# More pictures than this say nothing new about the penalty.
_MAX_FOR_PENALTY = 4000


def fit_ridge(scaled: Floats, labels: NDArray[np.float64]) -> Fitted:
    """Least squares with a penalty that leaving one picture out chooses, which has a closed form.

    Args:
        scaled: (n_images, n_features) standardised.
        labels: (n_images, n_targets) numbers in their own units.
    """
    centre, spread = labels.mean(axis=0), labels.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    targets = (labels - centre) / spread
    # Spread evenly, for the order of the pictures may mean something.
    rows = np.unique(np.linspace(0, len(scaled) - 1, min(len(scaled), _MAX_FOR_PENALTY), dtype=np.int64))
    # A score by name is the same mean of squares, and leaves predictions where none would leave their errors.
    chosen = RidgeCV(
        alphas=_PENALTIES, alpha_per_target=True, scoring="neg_mean_squared_error", store_cv_results=True
    ).fit(scaled[rows].astype(np.float64), targets[rows])
    penalties = np.atleast_1d(chosen.alpha_)
    out_of_fold = _left_out(chosen, scaled, rows) * spread + centre
    if len(rows) == len(scaled):
        model = Ridge(alpha=penalties, solver="cholesky").fit(scaled.astype(np.float64), targets)
    else:  # in single precision products of features are too coarse, and in double they would need as much memory again
        model = Ridge(alpha=penalties, solver="lsqr").fit(scaled, targets)
    coef = np.reshape(model.coef_, (labels.shape[1], -1)).astype(np.float64)
    return Fitted(
        coef=coef * spread[:, None],
        intercept=np.atleast_1d(model.intercept_) * spread + centre,
        strength=float(1 / np.exp(np.median(np.log(penalties)))),
        n_pictures=len(scaled),
        out_of_fold=out_of_fold.astype(np.float32),
    )


def _left_out(chosen: RidgeCV, scaled: Floats, rows: Ints) -> NDArray[np.float64]:
    """What is said of each picture by a fit without it: (n_images, n_targets), standardised."""
    places = np.searchsorted(_PENALTIES, np.atleast_1d(chosen.alpha_))
    found = np.empty((len(scaled), len(places)))
    found[rows] = np.take_along_axis(chosen.cv_results_, places[None, :, None], axis=2)[:, :, 0]
    others = np.setdiff1d(np.arange(len(scaled)), rows)
    for start in range(0, len(others), BLOCK):
        some = others[start : start + BLOCK]
        found[some] = np.reshape(chosen.predict(scaled[some]), (len(some), -1))
    return found

"""Ridge regression on standardised features, each number with a penalty of its own."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import Ridge, RidgeCV

from autobackbone.convexhead.head import Fitted, Floats

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
    chosen = RidgeCV(alphas=_PENALTIES, alpha_per_target=True).fit(scaled[rows].astype(np.float64), targets[rows])
    penalties = np.atleast_1d(chosen.alpha_)
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
    )

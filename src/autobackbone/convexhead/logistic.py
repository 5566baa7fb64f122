"""Logistic regression on standardised features, exact where there is time for it.

With a deadline a few iterations are timed on the very data first. Then the penalty is chosen on as many pictures as fit
into a share of the time, and the last fit goes on in steps that end before the deadline does: a head always comes.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from autobackbone.convexhead.head import Fitted, Floats, Ints
from autobackbone.convexhead.strength import FALLBACK_STRENGTH, N_FOLDS, STRENGTHS, choose_strength

ClassWeight = Literal["balanced"] | Mapping[int, float] | None

_MAX_ITERATIONS = 300

# How the time is shared: choosing the strength may take so much of it.
_STRENGTH_SHARE = 0.4
# An inner fit took 6 to 22 timed iterations on 600 to 4,000 pictures of 5 to 100 classes; this leaves room.
_INNER_ITERATIONS = 40
# The last fit begins on so many pictures that these fit. Pictures count for more than iterations: on 500 classes, 5
# iterations over 5,000 pictures gave an accuracy of 0.94, and as many as fit into the same time over 1,000 gave 0.53.
_MIN_ITERATIONS = 6
_TIMED_PICTURES = 1000
# The first few iterations search for the length of their step, and would alone look twice as slow.
_TIMED_ITERATIONS = 10
# Of the time for the last fit, what predicting pictures that are in no inner fold may take; it changes no head.
_OTHERS_SHARE = 0.1


def fit_logistic(
    scaled: Floats,
    labels: Ints,
    *,
    n_classes: int,
    seed: int,
    until: float | None,
    class_weight: ClassWeight = None,
) -> Fitted:
    """Logistic regression, its penalty chosen by inner folds.

    Args:
        scaled: (n_images, n_features) standardised.
        labels: (n_images,) from 0 to n_classes - 1, at least two of them; a class may be absent.
        n_classes: rows of the map; those of absent classes are never the likeliest.
        seed: of the inner folds.
        until: `time.monotonic()` by which it has ended, as `fit_head` says it.
        class_weight: as scikit-learn takes it, in the last fit alone. To weigh the inner folds and their scores, too,
            changed the balanced accuracy of six heads on uneven photographs of waste by -0.007 to 0.017, 0.004 on
            average.
    """
    with _tolerating_slow_convergence():
        pace = None if until is None else _Pace.of(scaled, labels, until, seed=seed)
        strength, out_of_fold = choose_strength(
            scaled,
            labels,
            n_classes=n_classes,
            n_most=None if pace is None else pace.n_for_strength(),
            n_others=None if pace is None else pace.n_others(),
            seed=seed,
        )
        if pace is not None:
            rows = pace.rows_of_last_fit()
            if len(rows) < len(labels):
                scaled, labels = scaled[rows], labels[rows]
        model = _fit(scaled, labels, strength, pace, class_weight)
    return _of_all_classes(model, n_classes=n_classes, n_pictures=len(labels), out_of_fold=out_of_fold)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pace:
    """How fast iterations go here.

    Args:
        until: `time.monotonic()` by which all has ended.
        seconds_a_row: of one iteration, for one picture.
        order: (n_images,) all rows, one of each class first, then at random.
        n_fewest: rows that are taken however little time there is.
    """

    until: float
    seconds_a_row: float
    order: Ints
    n_fewest: int

    @classmethod
    def of(cls, scaled: Floats, labels: Ints, until: float, *, seed: int) -> _Pace:
        _, firsts = np.unique(labels, return_index=True)
        is_first = np.zeros(len(labels), dtype=bool)
        is_first[firsts] = True
        others = np.random.default_rng(seed).permutation(np.flatnonzero(~is_first))
        order = np.concatenate([firsts, others])
        rows = order[: max(_TIMED_PICTURES, len(firsts))]
        begun = time.monotonic()
        model = LogisticRegression(C=FALLBACK_STRENGTH, max_iter=_TIMED_ITERATIONS).fit(scaled[rows], labels[rows])
        seconds = (time.monotonic() - begun) / max(1, int(model.n_iter_.max()))
        return cls(
            until=until, seconds_a_row=seconds / len(rows), order=order, n_fewest=min(len(labels), 2 * len(firsts))
        )

    def left_s(self) -> float:
        return max(0.0, self.until - time.monotonic())

    def n_for_strength(self) -> int:
        """Pictures on which all inner fits end in their share of the time."""
        n_iterations = len(STRENGTHS) * N_FOLDS * _INNER_ITERATIONS * (N_FOLDS - 1) / N_FOLDS
        return int(_STRENGTH_SHARE * self.left_s() / (n_iterations * self.seconds_a_row))

    def n_others(self) -> int:
        """Pictures in no fold that the fits of all folds may predict: a prediction is less than half an iteration."""
        return int(_OTHERS_SHARE * (1 - _STRENGTH_SHARE) * self.left_s() / (N_FOLDS / 2 * self.seconds_a_row))

    def rows_of_last_fit(self) -> Ints:
        """All rows in their order, or where even a short fit of all takes too long, a part with every class."""
        n_fitting = int(self.left_s() / (_MIN_ITERATIONS * self.seconds_a_row))
        return np.sort(self.order[: max(self.n_fewest, n_fitting)])


def _fit(
    scaled: Floats, labels: Ints, strength: float, pace: _Pace | None, class_weight: ClassWeight
) -> LogisticRegression:
    """To the optimum, or in steps towards it: each takes up at most half of the time that is left."""
    model = LogisticRegression(
        C=strength, max_iter=_MAX_ITERATIONS, tol=1e-4, warm_start=True, class_weight=class_weight
    )
    if pace is None:
        return model.fit(scaled, labels)
    n_left, iteration_s = _MAX_ITERATIONS, pace.seconds_a_row * len(labels)
    while True:
        n_wanted = min(n_left, max(1, int(pace.left_s() / 2 / iteration_s)))
        begun = time.monotonic()
        model.set_params(max_iter=n_wanted).fit(scaled, labels)
        n_done = int(model.n_iter_.max())
        iteration_s = (time.monotonic() - begun) / max(1, n_done)
        n_left -= n_done
        if n_done < n_wanted or n_left == 0 or pace.left_s() < 2 * iteration_s:
            return model


def _of_all_classes(
    model: LogisticRegression, *, n_classes: int, n_pictures: int, out_of_fold: Floats | None
) -> Fitted:
    coef, intercept = model.coef_, model.intercept_
    if len(model.classes_) == 2:  # they come as one row: the log-odds of the second
        coef, intercept = np.concatenate([-coef / 2, coef / 2]), np.concatenate([-intercept / 2, intercept / 2])
    of_all = np.zeros((n_classes, coef.shape[1]))
    biases = np.full(n_classes, float(intercept.min()) - 20.0)
    of_all[model.classes_] = coef
    biases[model.classes_] = intercept
    return Fitted(
        coef=of_all, intercept=biases, strength=float(model.C), n_pictures=n_pictures, out_of_fold=out_of_fold
    )


class _tolerating_slow_convergence(warnings.catch_warnings):  # noqa: N801 — used as a statement, like its parent
    """The optimum is flat where it is slow: a head stopped early there predicts the same."""

    def __enter__(self) -> None:
        super().__enter__()
        warnings.simplefilter("ignore", ConvergenceWarning)

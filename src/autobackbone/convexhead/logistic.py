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
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.model_selection import StratifiedKFold, train_test_split

from autobackbone.convexhead.head import Fitted, Floats, Ints

ClassWeight = Literal["balanced"] | Mapping[int, float] | None

# Inverse strengths of the penalty on standardised features. On 300 to 2,000 pictures the best of a finer and wider grid
# lay inside; ends are reached by very easy and very noisy data.
_STRENGTHS = tuple(float(10.0**power) for power in (-4, -3, -2, -1, 0))
_FALLBACK_STRENGTH = 1e-2
# More pictures than this say nothing new about the strength, but cost each of the inner fits its share.
_MAX_FOR_STRENGTH = 4000
_N_FOLDS = 3
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
        strength = _choose_strength(scaled, labels, pace, seed=seed)
        if pace is not None:
            rows = pace.rows_of_last_fit()
            if len(rows) < len(labels):
                scaled, labels = scaled[rows], labels[rows]
        model = _fit(scaled, labels, strength, pace, class_weight)
    return _of_all_classes(model, n_classes=n_classes, n_pictures=len(labels))


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
        model = LogisticRegression(C=_FALLBACK_STRENGTH, max_iter=_TIMED_ITERATIONS).fit(scaled[rows], labels[rows])
        seconds = (time.monotonic() - begun) / max(1, int(model.n_iter_.max()))
        return cls(
            until=until, seconds_a_row=seconds / len(rows), order=order, n_fewest=min(len(labels), 2 * len(firsts))
        )

    def left_s(self) -> float:
        return max(0.0, self.until - time.monotonic())

    def n_for_strength(self) -> int:
        """Pictures on which all inner fits end in their share of the time."""
        n_iterations = len(_STRENGTHS) * _N_FOLDS * _INNER_ITERATIONS * (_N_FOLDS - 1) / _N_FOLDS
        return int(_STRENGTH_SHARE * self.left_s() / (n_iterations * self.seconds_a_row))

    def rows_of_last_fit(self) -> Ints:
        """All rows in their order, or where even a short fit of all takes too long, a part with every class."""
        n_fitting = int(self.left_s() / (_MIN_ITERATIONS * self.seconds_a_row))
        return np.sort(self.order[: max(self.n_fewest, n_fitting)])


def _choose_strength(scaled: Floats, labels: Ints, pace: _Pace | None, *, seed: int) -> float:
    n_most = _MAX_FOR_STRENGTH if pace is None else min(_MAX_FOR_STRENGTH, pace.n_for_strength())
    if len(labels) > n_most:
        if n_most < _N_FOLDS * len(np.unique(labels)):
            return _FALLBACK_STRENGTH
        scaled, labels = _stratified_part(scaled, labels, n_most, seed=seed)
    n_folds = min(_N_FOLDS, int(np.bincount(labels)[np.unique(labels)].min()))
    if n_folds < 2:
        return _FALLBACK_STRENGTH
    folds = StratifiedKFold(n_folds, shuffle=True, random_state=seed)
    model = LogisticRegressionCV(
        Cs=_STRENGTHS,
        cv=folds,
        l1_ratios=(0.0,),
        scoring="neg_log_loss",
        max_iter=100,
        tol=1e-3,
        refit=False,
        use_legacy_attributes=False,
    )
    return float(model.fit(scaled, labels).C_)


def _stratified_part(scaled: Floats, labels: Ints, n_wanted: int, *, seed: int) -> tuple[Floats, Ints]:
    is_common = np.bincount(labels)[labels] >= 2
    common = np.flatnonzero(is_common)
    # scikit-learn leaves out at least one of each class, or none.
    if len(common) - n_wanted < len(np.unique(labels[common])):
        return scaled[common], labels[common]
    part, _ = train_test_split(common, train_size=n_wanted, stratify=labels[is_common], random_state=seed)
    return scaled[part], labels[part]


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


def _of_all_classes(model: LogisticRegression, *, n_classes: int, n_pictures: int) -> Fitted:
    coef, intercept = model.coef_, model.intercept_
    if len(model.classes_) == 2:  # they come as one row: the log-odds of the second
        coef, intercept = np.concatenate([-coef / 2, coef / 2]), np.concatenate([-intercept / 2, intercept / 2])
    of_all = np.zeros((n_classes, coef.shape[1]))
    biases = np.full(n_classes, float(intercept.min()) - 20.0)
    of_all[model.classes_] = coef
    biases[model.classes_] = intercept
    return Fitted(coef=of_all, intercept=biases, strength=float(model.C), n_pictures=n_pictures)


class _tolerating_slow_convergence(warnings.catch_warnings):  # noqa: N801 — used as a statement, like its parent
    """The optimum is flat where it is slow: a head stopped early there predicts the same."""

    def __enter__(self) -> None:
        super().__enter__()
        warnings.simplefilter("ignore", ConvergenceWarning)

"""Where pictures are few: what a frozen network says of each of them by a head that has not seen it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from autobackbone.convexhead import Floats, Head, fit_head
from autobackbone.data import LEFT_OUT, TRAIN, Codes, DataBundle, folds_of, pooled, wants_folds
from autobackbone.errors import MetricError, TrialError
from autobackbone.metrics import interval, score, standard_error
from autobackbone.records import Balancing, Trial
from autobackbone.screening import Features, fair_order
from autobackbone.search import trialfiles
from autobackbone.search.study import note_fold_score
from autobackbone.search.workshop import Workshop
from autobackbone.tasks import can_be_learned

# Of the time left, what the folds of one screened network may take.
_SHARE = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Folds:
    """Training and validation pictures in folds.

    Args:
        members: (n,) their numbers, ascending.
        folds: (n,) the fold of each.
        pool: the bundle with all of them to train on.
        without: for each fold, the bundle that trains on the others.
        seed: of the order of pictures, and of inner folds.
    """

    members: Codes
    folds: Codes
    pool: DataBundle
    without: Sequence[DataBundle]
    seed: int

    @classmethod
    def of(cls, bundle: DataBundle, seed: int) -> Folds | None:
        """Of a bundle; `None` where its pictures are many, its validation part was given, or there are no two folds."""
        folds = folds_of(bundle, seed=seed) if wants_folds(bundle) else None
        if folds is None:
            return None
        members = pooled(bundle)
        pool = with_parts(bundle, members, TRAIN)
        without = [with_parts(pool, members[folds == fold], LEFT_OUT) for fold in range(folds.max() + 1)]
        return cls(members=members, folds=folds, pool=pool, without=without, seed=seed)

    def heads(self, features: Floats, class_weights: Balancing) -> list[Head]:
        """One for each fold, fitted without it on features (n, n_features) of all pictures, none of them rounded.

        Raises:
            TrialError: without a fold nothing can be learned.
        """
        return [self._fitted(features, fold, class_weights) for fold in range(len(self.without))]

    def said(self, heads: Sequence[Head], features: Floats) -> NDArray[np.float32]:
        """(n, n_outputs) what heads say of the folds that they were fitted without."""
        found = np.empty((len(self.members), len(self.pool.classes)), np.float32)
        for fold, head in enumerate(heads):
            is_held = self.folds == fold
            found[is_held] = head.predictions(features[is_held], self.pool.task)
        return found

    def gathered(self, reached: Features) -> Floats | None:
        """(n, n_features), copied from a pass; `None` where it did not reach all of them."""
        indices = np.concatenate([reached.train_indices, reached.other_indices])
        if not np.array_equal(np.sort(indices), self.members):
            return None
        gathered: Floats = np.concatenate([reached.train, reached.others])[np.argsort(indices)]
        return gathered

    def _fitted(self, features: Floats, fold: int, class_weights: Balancing) -> Head:
        # In the order of screening, on which inner folds depend.
        order = np.searchsorted(self.members, fair_order(self.without[fold], seed=self.seed))
        labels = self.pool.labels[self.members[order]]
        if not can_be_learned(labels, self.pool.task):
            raise TrialError(f"without fold {fold + 1} all labels are the same")
        return fit_head(
            features[order],
            labels,
            n_outputs=len(self.pool.classes),
            task=self.pool.task,
            seed=self.seed,
            copy=False,
            class_weights=class_weights,
        )


def with_parts(bundle: DataBundle, members: Codes, part: int) -> DataBundle:
    """A bundle of which some pictures are in another part."""
    parts = bundle.parts.copy()
    parts[members] = part
    return replace(bundle, parts=parts, split_digest=f"{bundle.split_digest}-folds")


def score_frozen(shop: Workshop, folds: Folds, trial: Trial, features: Floats | None) -> None:
    """Score a network that was just screened by folds, where its pass has reached all pictures and there is time.

    Args:
        shop: of the run.
        folds: of its pictures.
        trial: the network with its head.
        features: (n, n_features) of all pictures; `None` where some were not reached.
    """
    pass_s = shop.costs.forward_s[trial.body] * len(folds.members)
    head_s = max(0.0, (trial.train_seconds or 0.0) - pass_s)
    if features is None or len(folds.without) * head_s > _SHARE * shop.clock.left_s():
        return
    try:
        heads = folds.heads(features, shop.space.head_weights)
        note(shop, folds, trial.number, folds.said(heads, features))
    except (TrialError, MetricError) as error:
        shop.reporter.say(f"trial {trial.number} is not scored by folds: {error}")
        return
    shop.fold_heads[trial.body] = heads


def note(shop: Workshop, folds: Folds, number: int, predictions: NDArray[np.float32]) -> None:
    """Keep what was said of the folds by who has not seen them, with its score, standard error and interval.

    Raises:
        TrialError: there is no score, or no room.
        MetricError: the metric cannot score them.
    """
    labels = shop.bundle.labels[folds.members]
    value = score(shop.metric, predictions, labels)
    if not math.isfinite(value):
        raise TrialError(f"{shop.metric.name} is not defined on them")
    trialfiles.save_predictions(shop.run, number, trialfiles.FOLDS, predictions)
    error = standard_error(shop.metric, predictions, labels, seed=shop.seed)
    between = interval(shop.metric, predictions, labels, seed=shop.seed)
    note_fold_score(shop.study, number, value, error, between)

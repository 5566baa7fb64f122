"""Where pictures are few: what a frozen network says of each of them by a head that has not seen it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from autobackbone.convexhead import Floats, Head, fit_head
from autobackbone.data import LEFT_OUT, N_FOLDS, TRAIN, Codes, DataBundle, folds_of, pooled, wants_folds
from autobackbone.errors import MetricError, TrialError
from autobackbone.metrics import interval, score, standard_error
from autobackbone.records import Balancing, Body, Trial
from autobackbone.screening import Features, fair_order
from autobackbone.search import trialfiles
from autobackbone.search.study import note_fold_score
from autobackbone.search.workshop import Workshop
from autobackbone.tasks import can_be_learned

# Of the time left, what the folds of one screened network may take.
_SHARE = 0.05
# How pictures are dealt into folds moves a score by 0.5 to 0.7 of its standard error (100 to 480 pictures of two data
# sets): the mean of three repeats is as sure as one of a fifth more pictures.
N_REPEATS = 3
_DEALT = 0.6
# Seeds of repeats are this far apart, so that runs with neighbouring seeds do not share them.
_SEEDS_APART = 1_000_003


@dataclass(frozen=True, slots=True, kw_only=True)
class Folds:
    """Training and validation pictures in folds, dealt once.

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
    def of(cls, bundle: DataBundle, seed: int, repeat: int = 0) -> Folds | None:
        """Of a bundle; `None` where its pictures are many, its validation part was given, or there are no two folds.

        Args:
            bundle: the pictures.
            seed: of the run.
            repeat: how many repeats there were before.
        """
        folds = folds_of(bundle, seed=(seed + _SEEDS_APART * repeat) % 2**32) if wants_folds(bundle) else None
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


def gathered(bundle: DataBundle, reached: Features) -> Floats | None:
    """Features (n, n_features) of all pictures that folds are of, copied from a pass; `None` where some are missing, or
    no folds are wanted.
    """
    if not wants_folds(bundle):
        return None
    indices = np.concatenate([reached.train_indices, reached.other_indices])
    if not np.array_equal(np.sort(indices), pooled(bundle)):
        return None
    rows: Floats = np.concatenate([reached.train, reached.others])[np.argsort(indices)]
    return rows


def is_fitted_on_all(trial: Trial) -> bool:
    """Whether heads of folds are like a trial's own: those of a frozen network whose time was short are better."""
    return trial.n_unfrozen > 0 or trial.extras.get("fitted_share", 1.0) == 1.0


def score_frozen(shop: Workshop, trial: Trial, features: Floats | None) -> None:
    """Score a network that was just screened by folds, where there is time: once under a clock, as what is left of it
    at the end serves the front; else with all repeats.

    Args:
        shop: of the run.
        trial: the network with its head.
        features: (n, n_features) of all pictures; `None` where some were not reached, or none are wanted.
    """
    if features is None or not is_fitted_on_all(trial):
        return
    head_s = max(0.0, (trial.train_seconds or 0.0) - shop.costs.forward_s[trial.body] * len(features))
    left_s = shop.clock.left_s()
    if N_FOLDS * head_s > _SHARE * left_s:
        return
    try:
        said = _said_of_folds(shop, trial.body, features, N_REPEATS if left_s == math.inf else 1)
        if said:
            note(shop, trial.number, np.stack(said))
    except (TrialError, MetricError) as error:
        shop.reporter.say(f"trial {trial.number} is not scored by folds: {error}")


def _said_of_folds(shop: Workshop, body: Body, features: Floats, n_repeats: int) -> list[NDArray[np.float32]]:
    """(n, n_outputs) of each repeat, up to one in which nothing can be learned.

    Raises:
        TrialError: that is the first.
    """
    said: list[NDArray[np.float32]] = []
    for repeat in range(n_repeats):
        folds = Folds.of(shop.bundle, shop.seed, repeat)
        if folds is None:
            break
        try:
            heads = folds.heads(features, shop.space.head_weights)
        except TrialError:  # this one may have all of a rare class in one fold
            if not said:
                raise
            break
        said.append(folds.said(heads, features))
        if not shop.space.is_frozen_only:
            shop.fold_heads[body, repeat] = heads
    return said


def note(shop: Workshop, number: int, predictions: NDArray[np.float32]) -> None:
    """Keep what was said of pictures by who has not seen them, with its score, standard error and interval.

    Args:
        shop: of the run.
        number: of the trial.
        predictions: (n_repeats, n, n_outputs).

    Raises:
        TrialError: there is no score, or no room.
        MetricError: the metric cannot score them.
    """
    labels, metric = shop.bundle.labels[pooled(shop.bundle)], shop.metric
    values = np.array([score(metric, said, labels) for said in predictions])
    if not np.isfinite(values).all():
        raise TrialError(f"{metric.name} is not defined on them")
    value = float(values.mean())
    # What the pictures themselves leave open stays, however often they are dealt.
    wider = math.hypot(1.0, _DEALT / math.sqrt(len(values)))
    own = float(np.mean([standard_error(metric, said, labels, seed=shop.seed) for said in predictions]))
    low, high = np.mean([interval(metric, said, labels, seed=shop.seed) for said in predictions], axis=0)
    lowest = -math.inf if metric.name == "r2" or low < 0 else 0.0
    highest = max(1.0, high) if metric.unit == "points" else math.inf
    between = max(lowest, value - wider * (value - low)), min(highest, value + wider * (high - value))
    # Right before it is noted: a process may die in between.
    trialfiles.save_predictions(shop.run, number, trialfiles.FOLDS, predictions)
    note_fold_score(shop.study, number, value, wider * own, (float(between[0]), float(between[1])))

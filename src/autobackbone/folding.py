"""The front by folds: each trial trained anew without a fold and scored on it, where the validation part is small."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autobackbone.choosing import front_of
from autobackbone.convexhead import Floats, Head
from autobackbone.data import N_FOLDS, VALIDATION, pooled, wants_folds
from autobackbone.errors import MetricError, TrialError
from autobackbone.judging import Judged, has_folds
from autobackbone.metrics import aligned, to_maximised
from autobackbone.planning import FOLDS_SHARE
from autobackbone.records import Body, Trial
from autobackbone.running.runner import Runner, Tunes
from autobackbone.screening import extract
from autobackbone.search.costs import EXACT_FACTOR, SETUP_S
from autobackbone.search.foldheads import N_REPEATS, Folds, is_fitted_on_all, note, with_parts
from autobackbone.search.repeating import candidate_again, useful_epochs, views_of
from autobackbone.search.workshop import Workshop
from autobackbone.training.tuner import MAX_EPOCHS


def kept_s(shop: Workshop) -> float:
    """Seconds that the search leaves to folds: for the front and what may still come on it, the best first, as far as
    they fit a quarter of the budget together; 0 where no folds are wanted, or no time limits the run.
    """
    whole_s = shop.clock.budget.wall_clock_s
    if whole_s is None or not wants_folds(shop.bundle):
        return 0.0
    trials = shop.trials()
    paused = [trial for trial in trials if trial.is_paused]
    front = front_of(trials, shop.metric, shop.limits)
    front = [trial for trial in front if trial.fold_score is None and is_fitted_on_all(trial)]
    front.sort(key=lambda trial: -to_maximised(shop.metric, trial.score or 0.0))
    kept = 0.0
    for trial in (*front, *paused):
        needed_s = expected_s(shop, trial, trials)
        # Time that is too short for its folds would be lost to its training, too.
        kept += needed_s if kept + needed_s <= FOLDS_SHARE * whole_s else 0.0
    return kept


def expected_s(shop: Workshop, trial: Trial, trials: Sequence[Trial], repeat: int = 0) -> float:
    """Seconds that one repeat of folds takes for one of all trials; of one that pauses, that of its whole training."""
    pass_s = EXACT_FACTOR * _pass_s(shop, trial.body)
    is_known = (trial.body, repeat) in shop.fold_heads
    heads_s = 0.0 if is_known else SETUP_S + pass_s + N_FOLDS * _head_s(shop, trial.body, trials)
    if trial.n_unfrozen == 0:
        return heads_s
    whole = int(trial.extras.get("n_epochs", MAX_EPOCHS))
    n_epochs = whole if trial.is_paused else useful_epochs(trial, shop.metric)
    # Four folds of five are as many pictures as the training part, which is four fifths of the same pictures.
    fit_s = shop.costs.expected_s(candidate_again(trial, n_epochs=n_epochs), n_epochs, is_stored=True)
    views_s = 0.0 if repeat else views_of(trial) * _pass_s(shop, trial.body)  # what is only trained on may be rounded
    return heads_s + views_s + N_FOLDS * fit_s + pass_s


def cross_validate(shop: Workshop, front: Sequence[Trial], runner: Runner, *, left_s: Callable[[], float]) -> None:
    """Score each trial of the front by folds over training and validation pictures, as far as the time goes.

    For each fold the candidate is trained anew on the others, as it would be for use: a convex head on frozen features,
    and then as many epochs as its best rung had. That, its rate and depth were chosen on the validation part, whose
    pictures lie in the folds, too; nothing further is chosen on them. What time then is left repeats it. A frozen
    network whose own head saw a part of the pictures alone is passed over: heads of folds would be better ones.
    Nothing happens where pictures are many or the validation part was given.

    Args:
        shop: of the run.
        front: what matters most first; what has such a score already is passed over.
        runner: trains what is fine-tuned.
        left_s: seconds that folds may still take; infinite without a limit of time: then nothing is repeated.
    """
    folds = Folds.of(shop.bundle, shop.seed)
    if folds is None:
        return
    front = [trial for trial in front if _is_scorable(shop, trial)]
    n_repeats = 1 if left_s() == math.inf else N_REPEATS
    done = {trial.number: _n_repeats(shop, trial) for trial in front}
    if min(done.values(), default=n_repeats) >= n_repeats:
        return
    shop.reporter.stage("folds")
    for repeat in range(n_repeats):
        bench: _Bench | None = None
        for trial in front:
            if done[trial.number] != repeat:  # when it was screened, by an earlier sitting, or there was no time before
                continue
            start_s = runner.start_s() if trial.n_unfrozen else 0.0
            needed_s, own_s = start_s + expected_s(shop, trial, shop.trials(), repeat), left_s()
            if needed_s > own_s:
                if repeat == 0:
                    lack = f"they take about {needed_s:.0f} s, and {max(0.0, own_s):.0f} s are left for them"
                    shop.reporter.say(f"trial {trial.number} is not scored by folds: {lack}")
                continue
            try:
                bench = bench or _Bench.of(shop, runner, repeat)
                _score_one(shop, bench, trial, None if own_s == math.inf else time.monotonic() + own_s)
            except (TrialError, MetricError) as error:
                if repeat == 0:
                    shop.reporter.say(f"trial {trial.number} is not scored by folds: {error}")
                continue
            done[trial.number] += 1
            _tell_score(shop, trial.number)


def _is_scorable(shop: Workshop, trial: Trial) -> bool:
    if not is_fitted_on_all(trial):
        why = "its own head was fitted on a part of the training pictures, and those of folds would be better"
        shop.reporter.say(f"trial {trial.number} is not scored by folds: {why}")
    return is_fitted_on_all(trial)


def judged(shop: Workshop, front: Sequence[Trial]) -> Judged:
    """What a choice stands on: folds where each trial of the front has them, else the validation part."""
    if has_folds(front):
        return Judged.by_folds(front, shop.folds_of, shop.bundle.labels[pooled(shop.bundle)])
    labels = shop.bundle.labels[shop.bundle.indices("validation")]
    return Judged(front=front, predictions=shop.validation_of, labels=labels)


def _tell_score(shop: Workshop, number: int) -> None:
    trial = shop.trials()[number]
    if trial.fold_score is not None and trial.fold_se is not None:
        score, error = aligned(shop.metric, trial.fold_score), aligned(shop.metric, trial.fold_se)
        n = _n_repeats(shop, trial)
        again = f", over {n} repeats with other folds" if n > 1 else ""
        shop.reporter.say(f"trial {number} by folds{again}: {shop.metric.name} {score} ± {error}")


def _n_repeats(shop: Workshop, trial: Trial) -> int:
    """How many repeats of folds a trial has."""
    return 0 if trial.fold_score is None else len(shop.folds_of(trial))


def _score_one(shop: Workshop, bench: _Bench, trial: Trial, until: float | None) -> None:
    said = [bench.frozen(trial.body) if trial.n_unfrozen == 0 else bench.tuned(trial, until)]
    note(shop, trial.number, np.stack([*shop.folds_of(trial), *said] if bench.repeat else said))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bench:
    """Trains without a fold; what trials share is computed once.

    Args:
        repeat: how many repeats there were before.
        folds: of the pictures.
        tuners: one for each fold, which trains without it.
    """

    shop: Workshop
    repeat: int
    folds: Folds
    tuners: Sequence[Tunes]

    @classmethod
    def of(cls, shop: Workshop, runner: Runner, repeat: int) -> _Bench:
        """Of a run.

        Raises:
            TrialError: there are not two folds.
        """
        folds = Folds.of(shop.bundle, shop.seed, repeat)
        if folds is None:
            raise TrialError("there are too few pictures for two folds")
        tuners = [runner.dealt(bundle, folds.pool) for bundle in folds.without]
        return cls(shop=shop, repeat=repeat, folds=folds, tuners=tuners)

    def frozen(self, body: Body) -> NDArray[np.float32]:
        """(n, n_outputs) what heads say of the folds that they were fitted without."""
        features = self._extracted(body)
        heads = self.folds.heads(features, self.shop.space.head_weights)
        self.shop.fold_heads[body, self.repeat] = heads
        return self.folds.said(heads, features)

    def tuned(self, trial: Trial, until: float | None) -> NDArray[np.float32]:
        """(n, n_outputs) what networks say of the folds that they were trained without.

        Raises:
            TrialError: the time was too short after all, or one could not be trained.
        """
        shop, n_epochs, members = self.shop, useful_epochs(trial, self.shop.metric), self.folds.members
        candidate, heads = candidate_again(trial, n_epochs=n_epochs), self._heads_of(trial.body)
        found = np.empty((len(members), len(self.folds.pool.classes)), np.float32)
        for fold, (tuner, head) in enumerate(zip(self.tuners, heads, strict=True)):
            shop.reporter.progress(shop.use_share(), f"trial {trial.number} without fold {fold + 1} of {len(heads)}")
            network, outcome = tuner.tune(candidate, head, until=until, n_views=views_of(trial))
            if outcome.n_planned < n_epochs or outcome.is_cut_short:
                raise TrialError(f"the time ended in fold {fold + 1} of {len(heads)}")
            is_held = self.folds.folds == fold
            found[is_held] = shop.predict(network, trial, members[is_held])
        return found

    def _heads_of(self, body: Body) -> list[Head]:
        """One for each fold, fitted without it."""
        known, key = self.shop.fold_heads, (body, self.repeat)
        if key not in known:
            known[key] = self.folds.heads(self._extracted(body), self.shop.space.head_weights)
        return known[key]

    def _extracted(self, body: Body) -> Floats:
        """(n, n_features) of all, none of them rounded: each is scored once."""
        shop, source = self.shop, self.shop.source
        reached = extract(
            source.network(*body).to(shop.device),
            with_parts(shop.bundle, self.folds.members, VALIDATION),
            self.folds.members,
            body.image_size,
            source.normalisation(body.backbone),
            device=shop.device,
            precision=shop.target.precision,
        )
        return reached.others


def _pass_s(shop: Workshop, body: Body) -> float:
    return shop.costs.forward_s.get(body, 0.0) * (shop.costs.n_train + shop.costs.n_validation)


def _head_s(shop: Workshop, body: Body, trials: Sequence[Trial]) -> float:
    """What fitting its screened head took beside the pass."""
    if body not in shop.heads:
        return 0.0
    screened = trials[shop.heads[body][0]]
    return max(0.0, (screened.train_seconds or 0.0) - _pass_s(shop, body))

"""Tries candidates really: trains them from their screened heads, scores them, keeps their files."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from autobackbone.choosing import is_beaten_for_good
from autobackbone.errors import EpochTooLongError
from autobackbone.metrics import aligned, to_maximised
from autobackbone.records import Candidate, Trial
from autobackbone.running.runner import Runner
from autobackbone.search import trialfiles
from autobackbone.search.frozen import begun_trial
from autobackbone.search.pricing import price
from autobackbone.search.study import tell
from autobackbone.search.workshop import Workshop
from autobackbone.training.fit import Outcome
from autobackbone.training.pausing import Leg
from autobackbone.training.tuner import LEAST_MORE, MIN_EPOCHS, STEP_PRECISION

# Among a trial's extras: how each part of its training was begun, so that it can be trained again.
LEGS = "legs"
# Latencies are measured minutes apart until the front is confirmed, and a machine's own speed drifts.
DRIFT = 1.5
# Of the time for a last leg, what the passes of its moved views may always take, and how many there may be: on 1,300
# pictures of hands a tail of half a network had 0.978 on the test part with none, 0.988 with one, 0.993 with three.
_VIEW_SHARE = 0.1
_N_MOVED_VIEWS = 3
N_VIEWS = 1 + _N_MOVED_VIEWS
"""With the pictures as they are, all that a training may have."""
Tuned = tuple[nn.Module, Outcome]


@dataclass(frozen=True, slots=True)
class NetworkEvaluator:
    """The evaluator of real searches."""

    shop: Workshop
    tuner: Runner

    def n_epochs(self, candidate: Candidate) -> int:
        """The last rung."""
        return self.tuner.n_epochs(candidate)

    def expected_s(self, candidate: Candidate, *, n_before: int = 0, n_epochs: int | None = None) -> float:
        """Seconds of a part of its training; `None` is the shortest useful end. Infinite where it has no head to start
        from.
        """
        if candidate.body not in self.shop.heads:
            return math.inf
        shortest = max(int(candidate.extras.get("n_epochs", MIN_EPOCHS)), n_before + LEAST_MORE if n_before else 0)
        is_stored = self.shop.stores.is_stored(candidate.body, candidate.n_unfrozen)
        training_s = self.shop.costs.expected_s(candidate, (n_epochs or shortest) - n_before, is_stored=is_stored)
        return self.tuner.start_s() + training_s

    def begin(self, candidate: Candidate) -> Trial:
        """What is known before training."""
        priced = price(self.shop, candidate.body)
        return begun_trial(self.shop, priced, candidate)

    def is_priced(self, candidate: Candidate) -> bool:
        """Whether its latency is known."""
        return candidate.body in self.shop.priced

    def ready(
        self, number: int, candidate: Candidate, until: float | None, *, n_before: int = 0, pause_at: int | None = None
    ) -> NetworkTraining:
        """Say what is trained, from which head, and with how many views.

        Raises:
            TrialError: the disk has no room for its folder.
        """
        shop = self.shop
        begun = time.monotonic()
        name = f"{candidate.body}, {candidate.n_unfrozen} unfrozen, lr {candidate.lr:.1e}"
        rung = "to its end" if pause_at is None else f"to epoch {pause_at}"
        shop.reporter.progress(shop.use_share(), f"trial {number}, from epoch {n_before} {rung}: {name}")
        checkpoint = trialfiles.checkpoint_file(shop.run, number)
        return NetworkTraining(
            evaluator=self,
            number=number,
            candidate=candidate,
            until=until,
            leg=Leg(checkpoint=checkpoint, n_before=n_before, pause_at=pause_at),
            n_views=1 if pause_at is not None else self._n_views(candidate, until, n_before),
            begun=begun,
        )

    def give_up(self) -> None:
        """End whatever is being trained in other threads."""
        self.tuner.give_up()

    def finished(self, of: NetworkTraining, wait: Callable[[], Tuned]) -> Trial:
        """Learn from a training what it cost, score it, and keep the files if the trial is, or may come, on the front.

        Raises:
            TrialError: it could not be trained; where it was too slow, costs have learned how slow.
        """
        shop, number, candidate, leg = self.shop, of.number, of.candidate, of.leg
        try:
            network, outcome = wait()
        except EpochTooLongError as error:
            self._learn(candidate, error.epoch_s)
            raise
        if outcome.n_epochs > 0:
            self._learn(candidate, outcome.seconds / outcome.n_epochs)
        predictions = self._predictions(candidate, network, outcome)
        is_at_rung = leg.pause_at is not None and not outcome.is_cut_short
        is_waiting = is_at_rung and trialfiles.has_checkpoint(shop.run, number)
        has_no_room = is_at_rung and not is_waiting
        trial = self._trial(number, candidate, outcome, predictions, is_paused=is_waiting, has_no_room=has_no_room)
        trained = {"n_before": leg.n_before, "pause_at": leg.pause_at, "n_epochs": outcome.n_planned}
        trained |= {"n_views": of.n_views}
        trial = replace(trial, extras={**trial.extras, LEGS: [*candidate.extras.get(LEGS, ()), trained]})
        trial = replace(trial, train_seconds=time.monotonic() - of.begun)
        trialfiles.save_predictions(shop.run, number, trialfiles.VALIDATION, predictions)
        if not is_beaten_for_good(trial, shop.rivals(), shop.metric, drift=DRIFT):
            trialfiles.save_weights(shop.run, number, network.state_dict())
        return trial

    def _learn(self, candidate: Candidate, seen_s: float) -> None:
        shop = self.shop
        is_stored = shop.stores.is_stored(candidate.body, candidate.n_unfrozen)
        epoch_s = shop.record.seconds(f"epoch of {candidate.body}, {candidate.n_unfrozen} unfrozen", lambda: seen_s)
        shop.costs.learn(candidate, epoch_s, is_stored=is_stored)

    def _predictions(self, candidate: Candidate, network: nn.Module, outcome: Outcome) -> NDArray[np.float32]:
        """Of the weights that are kept, in the target's precision; training scores in float32."""
        shop = self.shop
        if shop.target.precision == "float32":
            return outcome.predictions
        return shop.predict(network, candidate, shop.bundle.indices("validation"))

    def _trial(
        self,
        number: int,
        candidate: Candidate,
        outcome: Outcome,
        predictions: NDArray[np.float32],
        *,
        is_paused: bool,
        has_no_room: bool,
    ) -> Trial:
        metric = self.shop.metric
        sign = to_maximised(metric, 1.0)
        n_epochs = len(outcome.rung_scores)
        score = self.shop.validation_score(predictions)
        cut = ", cut short by the clock" if outcome.is_cut_short else ""
        cut += ", no room for a checkpoint to go on from" if has_no_room else ""
        reason = f"weights of epoch {outcome.best_epoch + 1} of {n_epochs}{cut}"
        if is_paused:
            reason = (
                f"paused after epoch {n_epochs} of {self.n_epochs(candidate)}, {metric.name} {aligned(metric, score)}"
            )
        return replace(
            self.begin(candidate),
            number=number,
            state="running" if is_paused else "finished",
            reason=reason,
            score=score,
            score_se=self.shop.validation_se(predictions),
            balanced_score=self.shop.balanced_score(predictions),
            n_epochs=n_epochs,
            rung_scores=tuple(sign * value for value in outcome.rung_scores),
            train_scores=tuple(sign * value for value in outcome.train_scores),
            extras=_with_precision(candidate, outcome),
        )

    def _n_views(self, candidate: Candidate, until: float | None, n_before: int) -> int:
        """The pictures as they are and, in a last leg, moved views of them, as far as their passes take little of its
        time, or no more than training to its end leaves of it; before, few would use them.
        """
        if until is None:
            return N_VIEWS
        pass_s = self.shop.costs.forward_s[candidate.body] * self.shop.costs.n_train
        left_s = max(0.0, until - time.monotonic())
        spare_s = left_s - self.expected_s(candidate, n_before=n_before, n_epochs=self.n_epochs(candidate))
        return 1 + min(_N_MOVED_VIEWS, int(max(_VIEW_SHARE * left_s, spare_s) / pass_s))


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkTraining:
    """One leg of a network's training.

    Args:
        evaluator: that made it ready.
        number: of the trial.
        candidate: what is trained.
        until: `time.monotonic()` by which it has ended; `None` for no limit of time.
        leg: the part of its training.
        n_views: with how many views.
        begun: `time.monotonic()` when it was made ready.
    """

    evaluator: NetworkEvaluator
    number: int
    candidate: Candidate
    until: float | None
    leg: Leg
    n_views: int
    begun: float

    def train(self) -> Tuned:
        """Train, in any thread."""
        _, head = self.evaluator.shop.heads[self.candidate.body]
        return self.evaluator.tuner.tune(self.candidate, head, until=self.until, n_views=self.n_views, leg=self.leg)

    def finished(self, wait: Callable[[], Tuned]) -> Trial:
        """As `NetworkEvaluator.finished` says."""
        return self.evaluator.finished(self, wait)


def _with_precision(candidate: Candidate, outcome: Outcome) -> dict[str, Any]:
    """What was searched, and in which precision steps multiplied, where that is not float32."""
    searched = {name: value for name, value in candidate.extras.items() if name != STEP_PRECISION}
    return searched if outcome.precision == "float32" else {**searched, STEP_PRECISION: outcome.precision}


def end_paused(shop: Workshop) -> None:
    """End what pauses when the run ends: what no other trial beats is as good as finished, the rest is stopped."""
    for trial in shop.trials():
        if trial.is_paused:
            kept = _as_kept(shop, trial)
            is_good = kept is not None and not is_beaten_for_good(kept, shop.rivals(), shop.metric)
            reason = f"the run ended while it paused after epoch {trial.n_epochs}"
            ended = replace(kept or trial, reason=reason, finished_at_s=shop.clock.run_s())
            tell(shop.study, ended, "finished" if is_good else "stopped")
            shop.tell(shop.trials()[trial.number])
    tidy(shop)


def _as_kept(shop: Workshop, trial: Trial) -> Trial | None:
    """A trial whose network is kept, by what that says: of a leg that a process died over, the files may be there and
    its score not yet in the study.
    """
    if not trialfiles.has_weights(shop.run, trial.number):
        return None
    said = shop.validation_of(trial)
    return replace(
        trial,
        score=shop.validation_score(said),
        score_se=shop.validation_se(said),
        balanced_score=shop.balanced_score(said),
    )


def tidy(shop: Workshop, *, drift: float = DRIFT) -> None:
    """Remove the checkpoints of trials that have ended, and the weights of those that can be on the front no more.

    Args:
        shop: of the run.
        drift: by what factor latencies may be wrong; 1 once they have been measured side by side.
    """
    rivals = shop.rivals()
    for trial in shop.trials():
        # However many trials there are, few of them have such files.
        if trial.state == "running" or trial.number in shop.tidied:
            continue
        shop.run.remove_trial_files(trial.number, trialfiles.CHECKPOINT)
        is_scored = trial.state == "finished" and trial.score is not None
        if trial.fold_score is not None and trial.n_unfrozen > 0:
            continue  # by folds it may be on the front, whatever its validation score
        if not is_scored or is_beaten_for_good(trial, rivals, shop.metric, drift=drift):
            shop.run.remove_trial_files(trial.number, trialfiles.WEIGHTS)
            shop.tidied.add(trial.number)

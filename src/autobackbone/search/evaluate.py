"""Tries candidates really: trains them from their screened heads, scores them, keeps their files."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from autobackbone.choosing import is_beaten_for_good
from autobackbone.errors import EpochTooLongError
from autobackbone.metrics import to_maximised
from autobackbone.records import Candidate, Trial
from autobackbone.search import trialfiles
from autobackbone.search.screenstage import begun_trial, price
from autobackbone.search.workshop import Workshop
from autobackbone.training.fit import Outcome
from autobackbone.training.tuner import MIN_EPOCHS, Tuner

_VIEW_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class NetworkEvaluator:
    """The evaluator of real searches."""

    shop: Workshop
    tuner: Tuner

    def expected_s(self, candidate: Candidate) -> float:
        """Seconds of the shortest useful training."""
        n_epochs = int(candidate.extras.get("n_epochs", MIN_EPOCHS))
        is_stored = self.shop.stores.is_stored(candidate.backbone, candidate.image_size, candidate.n_unfrozen)
        return self.shop.costs.expected_s(candidate, n_epochs, is_stored=is_stored)

    def begin(self, candidate: Candidate) -> Trial:
        """What is known before training."""
        priced = price(self.shop, (candidate.backbone, candidate.image_size))
        return begun_trial(self.shop, priced, candidate)

    def evaluate(self, number: int, candidate: Candidate, until: float | None) -> Trial:
        """Train, score, and keep the files if the trial is on the front.

        Raises:
            TrialError: it could not be trained; where it was too slow, costs have learned how slow.
        """
        shop = self.shop
        begun = time.monotonic()
        name = f"{candidate.backbone}, {candidate.n_unfrozen} unfrozen, lr {candidate.lr:.1e}"
        shop.reporter.progress(shop.use_share(), f"trial {number}: {name}")
        _, head = shop.heads[(candidate.backbone, candidate.image_size)]
        n_views = self._n_views(candidate, until)
        try:
            network, outcome = self.tuner.tune(candidate, head, until=until, n_views=n_views)
        except EpochTooLongError as error:
            shop.costs.learn(candidate, error.epoch_s)
            raise
        shop.costs.learn(candidate, outcome.seconds / len(outcome.rung_scores))
        trial = self._trial(number, candidate, outcome, time.monotonic() - begun)
        trialfiles.save_predictions(shop.run, number, trialfiles.VALIDATION, outcome.probabilities)
        if not is_beaten_for_good(trial, shop.trials(), shop.metric):
            trialfiles.save_weights(shop.run, number, network.state_dict())
        return trial

    def _trial(self, number: int, candidate: Candidate, outcome: Outcome, seconds: float) -> Trial:
        known = self.begin(candidate)
        sign = to_maximised(self.shop.metric, 1.0)
        n_epochs = len(outcome.rung_scores)
        cut = ", cut short by the clock" if outcome.is_cut_short else ""
        kept = f"weights of epoch {outcome.best_epoch + 1} of {n_epochs}{cut}"
        score = sign * outcome.rung_scores[outcome.best_epoch]
        return replace(
            known,
            number=number,
            state="finished",
            reason=kept,
            score=score,
            train_seconds=seconds,
            n_epochs=n_epochs,
            rung_scores=tuple(sign * value for value in outcome.rung_scores),
        )

    def _n_views(self, candidate: Candidate, until: float | None) -> int:
        """A second, augmented view where its forward pass costs little of the trial's time."""
        pass_s = self.shop.costs.forward_s[(candidate.backbone, candidate.image_size)] * self.shop.costs.n_train
        return 2 if until is None or pass_s < _VIEW_SHARE * (until - time.monotonic()) else 1


def tidy(shop: Workshop) -> None:
    """Remove the weights of trials that can be on the front no more."""
    trials = shop.trials()
    for trial in trials:
        is_scored = trial.state == "finished" and trial.score is not None
        if trial.state != "running" and not (is_scored and not is_beaten_for_good(trial, trials, shop.metric)):
            shop.run.remove_trial_files(trial.number, trialfiles.WEIGHTS)

"""One leg of one trial: trained, scored, and the study told."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import optuna

from autobackbone.errors import EpochTooLongError, TrialError
from autobackbone.records import Candidate, Evaluator, Trial
from autobackbone.search.fitting import Fitting
from autobackbone.search.leaving import N_IN_A_ROW, Failures
from autobackbone.search.legs import NextLeg, View, candidate_of, curve_of, curves_of
from autobackbone.search.rungs import is_hopeless, rungs
from autobackbone.search.space import Space
from autobackbone.search.study import read_trials, record, tell

# An opening is as deep as its shortest training fits this share of the time left: in 90 s on 2,000 small pictures one
# trial of two blocks reached 0.96, and three trials, the first held to half of the time, 0.89.
OPENING_SHARE = 0.75


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """One joint search over backbone, image size, depth and learning rate.

    Args:
        study: holds the screened trials already.
        space: what may be suggested.
        evaluator: trains.
        left_s: seconds that the search may still use; infinite without a limit of time.
        n_trials: how many trials may still begin; `None` for no limit.
        is_higher_better: orientation of the score.
        now_s: seconds since the run began.
        on_trial: told each ended trial.
        stop_early: whether nothing new is begun once more trials are hardly worth their time.
        failures: trainings that failed in a row: nothing of a backbone that has left is tried or goes on.
        say: told what leaves, and, once, when more time is hardly worth it.
    """

    study: optuna.Study
    space: Space
    evaluator: Evaluator
    left_s: Callable[[], float]
    now_s: Callable[[], float]
    is_higher_better: bool
    n_trials: int | None = None
    on_trial: Callable[[Trial], None] = lambda _: None
    stop_early: bool = False
    failures: Failures = field(default_factory=Failures)
    say: Callable[[str], None] = lambda _: None

    @property
    def sign(self) -> float:
        """Turns a score so that more is better."""
        return 1.0 if self.is_higher_better else -1.0

    @property
    def fitting(self) -> Fitting:
        """What can still end in time."""
        return Fitting(space=self.space, expected_s=self.expected_s, left_s=self.left_s)

    def expected_s(self, candidate: Candidate, *, n_before: int = 0, n_epochs: int | None = None) -> float:
        """As the evaluator expects them; infinite for a backbone that has left the search."""
        if self.failures.has_left(candidate.backbone):
            return math.inf
        return self.evaluator.expected_s(candidate, n_before=n_before, n_epochs=n_epochs)


def view(search: Search, trials: Sequence[Trial]) -> View:
    """What is known now of all trials, for who decides what goes on."""
    return View(
        curves=curves_of(trials, search.sign),
        paused={trial.number: candidate_of(trial) for trial in trials if trial.is_paused},
        n_epochs=search.evaluator.n_epochs,
        expected_s=search.expected_s,
        left_s=search.left_s(),
    )


def first_rung(search: Search, candidate: Candidate) -> int | None:
    """The epoch after which a candidate pauses first; `None` where it is trained in one piece."""
    return next(iter(rungs(search.evaluator.n_epochs(candidate))), None)


def try_asked(search: Search, asked: optuna.Trial, share: float = 1.0) -> str:
    """Train what was asked to its first rung, or to its end where it has none; returns the state it is in then.

    It may take a share of the time left.
    """
    candidate = search.space.candidate(asked.params)
    if not search.fitting.allows(asked.params):  # pricing it would take time, too
        reason = "not begun: what was left of the time became too short for it"
        return _end(search, _unpriced(search, asked.number, candidate, reason), "stopped")
    try:
        known = replace(search.evaluator.begin(candidate), number=asked.number)
    except TrialError as error:
        state = _end(search, _unpriced(search, asked.number, candidate, str(error)), "failed")
        _note_failure(search, candidate, error)
        return state
    record(search.study, known)
    rung = first_rung(search, candidate)
    left_s = search.left_s() * share
    until = _until(search.evaluator.expected_s(candidate), left_s) if rung is None else _end_of(left_s)
    return _train(search, known, candidate, until, NextLeg(number=asked.number, n_before=0, pause_at=rung))


def _unpriced(search: Search, number: int, candidate: Candidate, reason: str) -> Trial:
    n_blocks = candidate.n_blocks_kept or search.space.n_blocks[candidate.backbone]
    return replace(candidate.begun(n_blocks), number=number, reason=reason)


def go_on(search: Search, known: Trial, leg: NextLeg, share: float = 1.0) -> None:
    """Train another leg of what pauses; it may take a share of the time left."""
    candidate, left_s = candidate_of(known), search.left_s() * share
    shortest_s = search.evaluator.expected_s(candidate, n_before=leg.n_before)
    _train(search, known, candidate, _end_of(left_s) if leg.pause_at else _until(shortest_s, left_s), leg)


def _train(search: Search, known: Trial, candidate: Candidate, until: float | None, leg: NextLeg) -> str:
    begun = time.monotonic()
    before_s = known.train_seconds or 0.0
    try:
        trial = search.evaluator.evaluate(known.number, candidate, until, n_before=leg.n_before, pause_at=leg.pause_at)
    except TrialError as error:
        spent = replace(known, reason=str(error), train_seconds=before_s + time.monotonic() - begun)
        if known.rung_scores:
            # What it had reached at its rung stays reached.
            reason = f"ended after epoch {known.n_epochs}: {error}"
            state = _end(search, replace(spent, reason=reason), "finished")
        else:
            # What nobody had the time for has not failed, and is no trial that the budget grants.
            state = _end(search, spent, "stopped" if isinstance(error, EpochTooLongError) else "failed")
        _note_failure(search, candidate, error)
        return state
    search.failures.note(candidate.backbone, is_failed=False)
    known_at_s = (*known.rung_at_s, *[search.now_s()] * (len(trial.rung_scores) - len(known.rung_at_s)))
    trial = replace(trial, train_seconds=before_s + (trial.train_seconds or 0.0), rung_at_s=known_at_s)
    if trial.state == "finished":
        return _end(search, trial, "finished")
    record(search.study, trial)
    search.on_trial(trial)
    return "running"


def _note_failure(search: Search, candidate: Candidate, error: TrialError) -> None:
    """Count it, unless time alone was short; a backbone that leaves is told."""
    is_failed = not isinstance(error, EpochTooLongError)
    if is_failed and search.failures.note(candidate.backbone, is_failed=True):
        search.say(
            f"left out from now on: {candidate.backbone}, {N_IN_A_ROW} trainings of which failed in a row, the last "
            f"since {error}"
        )


def without_hopeless(search: Search) -> list[Trial]:
    """All trials; those that pause without hope are stopped."""
    trials = read_trials(search.study)
    curves = curves_of(trials, search.sign)
    hopeless = [t for t in trials if t.is_paused and is_hopeless(curve_of(t, search.sign), curves)]
    for trial in hopeless:
        reason = f"no plausible end would put it on the front, as its score after epoch {trial.n_epochs} tells"
        _end(search, replace(trial, reason=reason), "stopped")
    return read_trials(search.study) if hopeless else trials


def _end_of(left_s: float) -> float | None:
    return None if left_s == float("inf") else time.monotonic() + left_s


def _until(expected_s: float, left_s: float) -> float | None:
    """A trial may take half of what is left, so that another one can follow; all, where half is too short for that."""
    half_s = left_s / 2
    return _end_of(half_s if half_s > 2 * expected_s else left_s)


def _end(search: Search, trial: Trial, state: Literal["finished", "stopped", "failed"]) -> str:
    ended = replace(trial, state=state, finished_at_s=search.now_s())
    tell(search.study, ended, state)
    search.on_trial(ended)
    return state

"""One leg of one trial: begun, trained, scored, and the study told. All but the training happens in one thread."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import optuna

from autobackbone.choosing import within_limits
from autobackbone.errors import EpochTooLongError, TrialError
from autobackbone.records import Candidate, Evaluator, Limits, Training, Trial
from autobackbone.search.fitting import Fitting
from autobackbone.search.leaving import N_IN_A_ROW, Failures
from autobackbone.search.legs import NextLeg, View, candidate_of, curve_of, curves_of
from autobackbone.search.rungs import Standing, rungs
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
        n_at_once: how many legs may be trained side by side now; no more than at first are.
        first: candidates that are tried before all others, as far as what they stand on is screened.
        is_awaiting: whether what some of these stand on is still to be screened.
        limits: what breaks them stops nothing, while anything keeps them.
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
    n_at_once: Callable[[], int] = lambda: 1
    first: Sequence[Candidate] = ()
    is_awaiting: bool = False
    limits: Limits = field(default_factory=Limits)

    def rivals(self, trials: Sequence[Trial]) -> list[Trial]:
        """Of all trials those that others are held against, and what pauses."""
        keeping = {trial.number for trial in within_limits(trials, self.limits)}
        return [trial for trial in trials if trial.number in keeping or trial.is_paused]

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Flight:
    """A leg that was begun, until it has landed: trained, scored, and told to the study.

    Args:
        known: the trial as it was before.
        candidate: what is trained.
        training: that is ready.
        is_first: whether the trial begins with it.
        begun: `time.monotonic()` of its beginning.
    """

    known: Trial
    candidate: Candidate
    training: Training
    is_first: bool
    begun: float


State = Literal["running", "finished", "stopped", "failed"]


def view(search: Search, trials: Sequence[Trial], flying: Collection[int] = ()) -> View:
    """What is known now of all trials, for who decides what goes on; what is flying does not wait for that."""
    return View(
        curves=curves_of(search.rivals(trials), search.sign),
        paused={t.number: candidate_of(t) for t in trials if t.is_paused and t.number not in flying},
        n_epochs=search.evaluator.n_epochs,
        expected_s=search.expected_s,
        left_s=search.left_s(),
    )


def first_rung(search: Search, candidate: Candidate) -> int | None:
    """The epoch after which a candidate pauses first; `None` where it is trained in one piece."""
    return next(iter(rungs(search.evaluator.n_epochs(candidate))), None)


def try_asked(search: Search, asked: optuna.Trial, share: float = 1.0) -> State:
    """Train what was asked to its first rung, or to its end where it has none; returns the state it is in then.

    It may take a share of the time left.
    """
    return _flown(search, begin_asked(search, asked, share))


def go_on(search: Search, known: Trial, leg: NextLeg, share: float = 1.0) -> None:
    """Train another leg of what pauses; it may take a share of the time left."""
    _flown(search, begin_leg(search, known, leg, share))


def begin_asked(search: Search, asked: optuna.Trial, share: float = 1.0) -> Flight | State:
    """Make ready what was asked, to be trained to its first rung or its end; where that cannot be, its state."""
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
    return _begun(search, known, candidate, until, NextLeg(number=asked.number, n_before=0, pause_at=rung))


def begin_leg(search: Search, known: Trial, leg: NextLeg, share: float = 1.0) -> Flight | State:
    """Make ready another leg of what pauses; where that cannot be, the state of its trial."""
    candidate, left_s = candidate_of(known), search.left_s() * share
    shortest_s = search.evaluator.expected_s(candidate, n_before=leg.n_before)
    return _begun(search, known, candidate, _end_of(left_s) if leg.pause_at else _until(shortest_s, left_s), leg)


def land(search: Search, flight: Flight, wait: Callable[[], Any]) -> State:
    """Score a leg and tell the study; returns the state that its trial is in then.

    Args:
        search: of the leg.
        flight: that was begun.
        wait: gives what its training gave, or raises what it raised.
    """
    known = flight.known
    try:
        trial = flight.training.finished(wait)
    except TrialError as error:
        return _failed(search, known, flight.candidate, flight.begun, error)
    search.failures.note(flight.candidate.backbone, is_failed=False)
    known_at_s = (*known.rung_at_s, *[search.now_s()] * (len(trial.rung_scores) - len(known.rung_at_s)))
    trained_s = (known.train_seconds or 0.0) + (trial.train_seconds or 0.0)
    trial = replace(trial, train_seconds=trained_s, rung_at_s=known_at_s)
    if trial.state == "finished":
        return _end(search, trial, "finished")
    record(search.study, trial)
    search.on_trial(trial)
    return "running"


def _flown(search: Search, begun: Flight | State) -> State:
    """The state of a trial once its leg, if there is one, was trained here and now."""
    return land(search, begun, begun.training.train) if isinstance(begun, Flight) else begun


def _begun(search: Search, known: Trial, candidate: Candidate, until: float | None, leg: NextLeg) -> Flight | State:
    begun, is_first = time.monotonic(), leg.n_before == 0
    try:
        ready = search.evaluator.ready(known.number, candidate, until, n_before=leg.n_before, pause_at=leg.pause_at)
    except TrialError as error:
        return _failed(search, known, candidate, begun, error)
    return Flight(known=known, candidate=candidate, training=ready, is_first=is_first, begun=begun)


def _failed(search: Search, known: Trial, candidate: Candidate, begun: float, error: TrialError) -> State:
    state: State
    spent_s = (known.train_seconds or 0.0) + time.monotonic() - begun
    spent = replace(known, reason=str(error), train_seconds=spent_s)
    if known.rung_scores:
        # What it had reached at its rung stays reached.
        state = _end(search, replace(spent, reason=f"ended after epoch {known.n_epochs}: {error}"), "finished")
    else:
        # What nobody had the time for has not failed, and is no trial that the budget grants.
        state = _end(search, spent, "stopped" if isinstance(error, EpochTooLongError) else "failed")
    _note_failure(search, candidate, error)
    return state


def _unpriced(search: Search, number: int, candidate: Candidate, reason: str) -> Trial:
    n_blocks = candidate.n_blocks_kept or search.space.n_blocks[candidate.backbone]
    return replace(candidate.begun(n_blocks), number=number, reason=reason)


def _note_failure(search: Search, candidate: Candidate, error: TrialError) -> None:
    """Count it, unless time alone was short; a backbone that leaves is told."""
    is_failed = not isinstance(error, EpochTooLongError)
    if is_failed and search.failures.note(candidate.backbone, is_failed=True):
        search.say(
            f"left out from now on: {candidate.backbone}, {N_IN_A_ROW} trainings of which failed in a row, the last "
            f"since {error}"
        )


def without_hopeless(search: Search, flying: Collection[int] = ()) -> list[Trial]:
    """All trials; those that pause without hope are stopped, save what is flying."""
    trials = read_trials(search.study)
    standing = Standing(curves_of(search.rivals(trials), search.sign))
    paused = [trial for trial in trials if trial.is_paused and trial.number not in flying]
    hopeless = [trial for trial in paused if standing.is_hopeless(curve_of(trial, search.sign))]
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


def _end(search: Search, trial: Trial, state: Literal["finished", "stopped", "failed"]) -> State:
    ended = replace(trial, state=state, finished_at_s=search.now_s())
    tell(search.study, ended, state)
    search.on_trial(ended)
    return state

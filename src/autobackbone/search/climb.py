"""The loop: Optuna asks, the evaluator trains, the study is told."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import optuna

from autobackbone.errors import TrialError
from autobackbone.records import Candidate, Evaluator, Trial
from autobackbone.search.fitting import Fitting
from autobackbone.search.legs import NextLeg, View, candidate_of, curve_of, curves_of, is_paused, next_leg, rung_leg
from autobackbone.search.rungs import is_hopeless, rungs
from autobackbone.search.sampling import AllowedSampler
from autobackbone.search.space import Space
from autobackbone.search.study import read_trials, record, tell

_OPENING_LR = 5e-4
# An opening is as deep as its shortest training fits this share of the time left: in 90 s on 2,000 small pictures one
# trial of two blocks reached 0.96, and three trials, the first held to half of the time, 0.89.
_OPENING_SHARE = 0.75
# A leg beside screening that takes far longer than was expected leaves so much of the time to the rest.
_EARLY_SHARE = 0.5


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
    """

    study: optuna.Study
    space: Space
    evaluator: Evaluator
    left_s: Callable[[], float]
    now_s: Callable[[], float]
    is_higher_better: bool
    n_trials: int | None = None
    on_trial: Callable[[Trial], None] = lambda _: None

    @property
    def sign(self) -> float:
        """Turns a score so that more is better."""
        return 1.0 if self.is_higher_better else -1.0

    @property
    def fitting(self) -> Fitting:
        """What can still end in time."""
        return Fitting(space=self.space, expected_s=self.evaluator.expected_s, left_s=self.left_s)


def climb(search: Search) -> int:
    """Try candidates as long as any fits the time and the number of trials; returns how many were begun.

    A trial pauses at each rung. One that is hopeless is stopped there; the best half of a rung goes on, and so does
    whatever is best when the time would else become too short for it. What still pauses at the end stays running in the
    study: whoever ends the run ends it, or a later sitting goes on with it.
    """
    distributions, fitting = search.space.distributions(), search.fitting
    search.study.sampler = AllowedSampler(search.study.sampler, distributions, fitting.allows, fitting.nearest)
    opening = openings(read_trials(search.study), search)
    n_begun = 0
    while True:
        can_ask = n_begun != search.n_trials and fitting.is_any()
        trials = _without_hopeless(search)
        leg = next_leg(_view(search, trials), can_ask=can_ask)
        if leg is not None:
            _go_on(search, next(trial for trial in trials if trial.number == leg.number), leg)
        elif can_ask:
            _enqueue_next(search, opening, trials)
            n_begun += _try(search, search.study.ask(distributions)) != "stopped"
        else:
            return n_begun


def climb_early(search: Search, allowed_s: float) -> None:
    """Fine-tune a little while there is still something to screen: each backbone's first opening to its first rung, and
    whoever is best from rung to rung.

    Nothing is asked of the sampler before it can know of all pairs, and nothing is trained to its end. What begins here
    goes on in `climb`.

    Args:
        search: over what has been screened so far.
        allowed_s: seconds that this should take; what is expected to take twice as long as is left of them has to wait.
    """
    end_s, n_begun = search.now_s() + allowed_s, 0
    distributions = search.space.distributions()
    while True:
        trials = _without_hopeless(search)
        opening = _first_opening(search, trials) if n_begun != search.n_trials else None
        leg = None if opening else rung_leg(_view(search, trials))
        # Half of a leg must fit: so the sum of all is as long as what is allowed, not always shorter.
        allowed_s = min(2 * (end_s - search.now_s()), _EARLY_SHARE * search.left_s())
        if opening is not None and _opening_s(search, opening) <= allowed_s:
            search.study.enqueue_trial(search.space.suggestion(opening), skip_if_exists=True)
            n_begun += _try(search, search.study.ask(distributions), _EARLY_SHARE) != "stopped"
        elif leg is not None and _leg_s(search, trials[leg.number], leg) <= allowed_s:
            _go_on(search, trials[leg.number], leg, _EARLY_SHARE)
        else:
            return


def _first_opening(search: Search, trials: Sequence[Trial]) -> Candidate | None:
    """Of the fastest backbone that nothing was tuned of yet."""
    begun = {trial.backbone for trial in trials if trial.n_unfrozen > 0}
    return next((opening for opening in openings(trials, search) if opening.backbone not in begun), None)


def _opening_s(search: Search, opening: Candidate) -> float:
    """Seconds to its first rung; infinite where it has none, or there is no time for the rest."""
    rung = _first_rung(search, opening)
    is_fitting = rung is not None and search.fitting.fits(opening, _OPENING_SHARE)
    return search.evaluator.expected_s(opening, n_epochs=rung) if is_fitting else math.inf


def _first_rung(search: Search, candidate: Candidate) -> int | None:
    return next(iter(rungs(search.evaluator.n_epochs(candidate))), None)


def _leg_s(search: Search, trial: Trial, leg: NextLeg) -> float:
    return search.evaluator.expected_s(candidate_of(trial), n_before=leg.n_before, n_epochs=leg.pause_at)


def openings(trials: Sequence[Trial], search: Search) -> list[Candidate]:
    """What is tried before the sampler has a say: each whole screened backbone at its best size, the fastest first, its
    last blocks at a rate that rarely harms; then the same ones deeper. What was tried already is left out.
    """
    tried = _tried(trials)
    best: dict[str, Trial] = {}
    for trial in trials:
        is_screened = trial.state == "finished" and trial.n_unfrozen == 0 and trial.n_blocks_kept is None
        if is_screened and (trial.backbone not in best or _is_better(trial, best[trial.backbone], search)):
            best[trial.backbone] = trial
    fastest_first = sorted(best.values(), key=lambda trial: trial.latency_ms or 0.0)
    by_depth = zip(*(_openings_of(trial, search) for trial in fastest_first), strict=True)
    wanted = (candidate for of_depth in by_depth for candidate in of_depth)
    return [candidate for candidate in wanted if _key(candidate) not in tried]


def _enqueue_next(search: Search, opening: list[Candidate], trials: Sequence[Trial]) -> None:
    """Have the next opening asked next, as deep as the time left allows; one that fits not at all, or that was tried so
    already, is passed over.
    """
    tried = _tried(trials)
    while opening:
        candidate = opening.pop(0)
        lowest, _ = search.space.depths(candidate.backbone)
        shallower = [replace(candidate, n_unfrozen=k) for k in range(candidate.n_unfrozen, lowest - 1, -1)]
        fitting = next(search.fitting.among(shallower, _OPENING_SHARE), None)
        if fitting is not None and _key(fitting) not in tried:
            search.study.enqueue_trial(search.space.suggestion(fitting))
            return


def _tried(trials: Sequence[Trial]) -> set[tuple[Any, ...]]:
    return {_key(candidate_of(trial)) for trial in trials}


def _key(candidate: Candidate) -> tuple[Any, ...]:
    return candidate.body, candidate.n_unfrozen, candidate.lr


def _is_better(one: Trial, other: Trial, search: Search) -> bool:
    assert one.score is not None
    assert other.score is not None
    return (one.score > other.score) == search.is_higher_better and one.score != other.score


def _openings_of(screened: Trial, search: Search) -> list[Candidate]:
    bounds = search.space.lr
    lr = min(max(_OPENING_LR, bounds[0]), bounds[1]) if isinstance(bounds, tuple) else bounds
    return [
        Candidate(backbone=screened.backbone, image_size=screened.image_size, n_unfrozen=depth, lr=lr)
        for depth in search.space.opening_depths(screened.backbone)
    ]


def _view(search: Search, trials: Sequence[Trial]) -> View:
    return View(
        curves=curves_of(trials, search.sign),
        paused={trial.number: candidate_of(trial) for trial in trials if is_paused(trial)},
        n_epochs=search.evaluator.n_epochs,
        expected_s=search.evaluator.expected_s,
        left_s=search.left_s(),
    )


def _try(search: Search, asked: optuna.Trial, share: float = 1.0) -> str:
    """Train what was asked to its first rung, or to its end where it has none; returns the state it is in then.

    It may take a share of the time left.
    """
    candidate = search.space.candidate(asked.params)
    known = replace(search.evaluator.begin(candidate), number=asked.number)
    record(search.study, known)
    if not search.fitting.allows(asked.params):
        reason = "not begun: what was left of the time became too short for it"
        return _end(search, replace(known, reason=reason), "stopped")
    rung = _first_rung(search, candidate)
    left_s = search.left_s() * share
    until = _until(search.evaluator.expected_s(candidate), left_s) if rung is None else _end_of(left_s)
    return _train(search, known, candidate, until, NextLeg(number=asked.number, n_before=0, pause_at=rung))


def _go_on(search: Search, known: Trial, leg: NextLeg, share: float = 1.0) -> None:
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
        if not known.rung_scores:
            return _end(search, spent, "failed")
        # What it had reached at its rung stays reached.
        return _end(search, replace(spent, reason=f"ended after epoch {known.n_epochs}: {error}"), "finished")
    known_at_s = (*known.rung_at_s, *[search.now_s()] * (len(trial.rung_scores) - len(known.rung_at_s)))
    trial = replace(trial, train_seconds=before_s + (trial.train_seconds or 0.0), rung_at_s=known_at_s)
    if trial.state == "finished":
        return _end(search, trial, "finished")
    record(search.study, trial)
    search.on_trial(trial)
    return "running"


def _without_hopeless(search: Search) -> list[Trial]:
    """All trials; those that pause without hope are stopped."""
    trials = read_trials(search.study)
    curves = curves_of(trials, search.sign)
    hopeless = [t for t in trials if is_paused(t) and is_hopeless(curve_of(t, search.sign), curves)]
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

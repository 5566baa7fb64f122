"""The loop: Optuna asks, the evaluator trains, the study is told."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import optuna

from autobackbone.errors import TrialError
from autobackbone.records import Candidate, Evaluator, Trial
from autobackbone.search.fitting import Fitting
from autobackbone.search.sampling import AllowedSampler
from autobackbone.search.space import Space
from autobackbone.search.study import read_trials, record, tell

_OPENING_LR = 5e-4
# An opening is as deep as its shortest training fits this share of the time left: in 90 s on 2,000 small pictures one
# trial of two blocks reached 0.96, and three trials, the first held to half of the time, 0.89.
_OPENING_SHARE = 0.75


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
    def fitting(self) -> Fitting:
        """What can still end in time."""
        return Fitting(space=self.space, expected_s=self.evaluator.expected_s, left_s=self.left_s)


def climb(search: Search) -> int:
    """Try candidates as long as any fits the time and the number of trials; returns how many were trained."""
    distributions, fitting = search.space.distributions(), search.fitting
    search.study.sampler = AllowedSampler(search.study.sampler, distributions, fitting.allows, fitting.nearest)
    opening = openings(read_trials(search.study), search)
    n_trained = 0
    while n_trained != search.n_trials and fitting.is_any():
        _enqueue_next(search, opening)
        n_trained += _try(search, search.study.ask(distributions)) != "stopped"
    return n_trained


def openings(trials: Sequence[Trial], search: Search) -> list[Candidate]:
    """What is tried before the sampler has a say: each screened backbone at its best size, the fastest first, its last
    blocks at a rate that rarely harms; then the same ones deeper.
    """
    best: dict[str, Trial] = {}
    for trial in trials:
        is_screened = trial.state == "finished" and trial.n_unfrozen == 0
        if is_screened and (trial.backbone not in best or _is_better(trial, best[trial.backbone], search)):
            best[trial.backbone] = trial
    fastest_first = sorted(best.values(), key=lambda trial: trial.latency_ms or 0.0)
    by_depth = zip(*(_openings_of(trial, search) for trial in fastest_first), strict=True)
    return [candidate for of_depth in by_depth for candidate in of_depth]


def _enqueue_next(search: Search, opening: list[Candidate]) -> None:
    """Have the next opening asked next, as deep as the time left allows; one that fits not at all is passed over."""
    while opening:
        candidate = opening.pop(0)
        lowest, _ = search.space.depths(candidate.backbone)
        shallower = [replace(candidate, n_unfrozen=k) for k in range(candidate.n_unfrozen, lowest - 1, -1)]
        fitting = next(search.fitting.among(shallower, _OPENING_SHARE), None)
        if fitting is not None:
            search.study.enqueue_trial(search.space.suggestion(fitting), skip_if_exists=True)
            return


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


def _try(search: Search, asked: optuna.Trial) -> Literal["finished", "stopped", "failed"]:
    candidate = search.space.candidate(asked.params)
    known = replace(search.evaluator.begin(candidate), number=asked.number)
    record(asked, known)
    if not search.fitting.allows(asked.params):
        reason = "not begun: what was left of the time became too short for it"
        return _end(search, asked, replace(known, reason=reason), "stopped")
    expected_s, left_s = search.evaluator.expected_s(candidate), search.left_s()
    begun = time.monotonic()
    try:
        trial = search.evaluator.evaluate(asked.number, candidate, _until(expected_s, left_s))
    except TrialError as error:
        spent = replace(known, reason=str(error), train_seconds=time.monotonic() - begun)
        return _end(search, asked, spent, "failed")
    return _end(search, asked, trial, "finished")


def _until(expected_s: float, left_s: float) -> float | None:
    """A trial may take half of what is left, so that another one can follow; all, where half is too short for that."""
    if left_s == float("inf"):
        return None
    half_s = left_s / 2
    return time.monotonic() + (half_s if half_s > 2 * expected_s else left_s)


def _end(
    search: Search, asked: optuna.Trial, trial: Trial, state: Literal["finished", "stopped", "failed"]
) -> Literal["finished", "stopped", "failed"]:
    ended = replace(trial, number=asked.number, state=state, finished_at_s=search.now_s())
    tell(search.study, asked, ended, state)
    search.on_trial(ended)
    return state

"""The loop: Optuna asks, the evaluator trains, the study is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from autobackbone.records import Candidate, Trial
from autobackbone.search.legs import next_leg
from autobackbone.search.openings import openings, untried
from autobackbone.search.sampling import AllowedSampler
from autobackbone.search.steps import OPENING_SHARE, Search, go_on, try_asked, view, without_hopeless
from autobackbone.search.study import read_trials


def climb(search: Search) -> int:
    """Try candidates as long as any fits the time and the number of trials; returns how many were begun.

    A trial pauses at each rung. One that is hopeless is stopped there; the best half of a rung goes on, and so does
    whatever is best when the time would else become too short for it. What still pauses at the end stays running in the
    study: whoever ends the run ends it, or a later sitting goes on with it.
    """
    distributions, fitting = search.space.distributions(), search.fitting
    search.study.sampler = AllowedSampler(search.study.sampler, distributions, fitting.allows, fitting.nearest)
    trials = read_trials(search.study)
    opening = list(untried(openings(trials, search), trials))
    n_begun = 0
    while True:
        can_ask = n_begun != search.n_trials and fitting.is_any()
        trials = without_hopeless(search)
        leg = next_leg(view(search, trials), can_ask=can_ask)
        if leg is not None:
            go_on(search, next(trial for trial in trials if trial.number == leg.number), leg)
        elif can_ask:
            _enqueue_next(search, opening, trials)
            n_begun += try_asked(search, search.study.ask(distributions)) != "stopped"
        else:
            return n_begun


def _enqueue_next(search: Search, opening: list[Candidate], trials: Sequence[Trial]) -> None:
    """Have the next opening asked next, as deep as the time left allows; one that fits not at all, or that was tried so
    already, is passed over.
    """
    while opening:
        candidate = opening.pop(0)
        lowest, _ = search.space.depths(candidate.backbone)
        shallower = [replace(candidate, n_unfrozen=k) for k in range(candidate.n_unfrozen, lowest - 1, -1)]
        fitting = next(search.fitting.among(shallower, OPENING_SHARE), None)
        if fitting is not None and any(untried([fitting], trials)):
            search.study.enqueue_trial(search.space.suggestion(fitting))
            return

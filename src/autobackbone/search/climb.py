"""The loop: Optuna asks, the evaluator trains, one leg at a time or several side by side, the study is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import optuna

from autobackbone.records import Candidate, Trial
from autobackbone.search.legs import next_leg
from autobackbone.search.openings import openings, untried
from autobackbone.search.sampling import AllowedSampler
from autobackbone.search.sidebyside import Flights
from autobackbone.search.steps import (
    OPENING_SHARE,
    Flight,
    Search,
    State,
    begin_asked,
    begin_leg,
    view,
    without_hopeless,
)
from autobackbone.search.study import read_trials
from autobackbone.search.worth import LEAST_GROWTH, recent_growth

# Of this sitting, before it is judged whether more time is worth it.
_FEWEST_BEGUN = 8


def climb(search: Search) -> int:
    """Try candidates as long as any fits the time and the number of trials; returns how many were begun.

    A trial pauses at each rung. One that is hopeless is stopped there; the best half of a rung goes on, and so does
    whatever is best when the time would else become too short for it. When the later half of all trainings has brought
    next to nothing, that is told, and where it was asked for, nothing new is begun. What still pauses at the end stays
    running in the study: whoever ends the run ends it, or a later sitting goes on with it.

    As many legs are in flight as may be; whenever one lands, it is decided anew what begins. Who is in flight counts at
    the rung where it stood: nothing waits for a rung to be full. The study is only talked to by this thread.
    """
    distributions, fitting = search.space.distributions(), search.fitting
    search.study.sampler = AllowedSampler(search.study.sampler, distributions, fitting.allows, fitting.nearest)
    trials = read_trials(search.study)
    opening = list(untried(openings(trials, search), trials))
    n_begun, is_told, is_settled = 0, False, False
    with Flights(search) as flights:
        while True:
            trials = without_hopeless(search, flights.numbers)
            # An earlier sitting says nothing of backbones that were added since.
            growth = None if is_told or n_begun < _FEWEST_BEGUN else recent_growth(search.rivals(trials), search.sign)
            if growth is not None and growth < LEAST_GROWTH:
                is_told, is_settled = True, search.stop_early
                search.say(_hardly_worth(growth, is_stopping=search.stop_early))
            can_ask = not is_settled and n_begun != search.n_trials and fitting.is_any()
            # What pauses then ends where it stands, unless it is among the best of its rung.
            leg = next_leg(view(search, trials, flights.numbers), can_ask=can_ask or is_settled)
            begun: Flight | State | None = None
            if leg is not None:
                begun = begin_leg(search, next(trial for trial in trials if trial.number == leg.number), leg)
            elif can_ask:
                _enqueue_next(search, opening, trials)
                asked = search.study.ask(distributions)
                n_begun -= _landed_to_be_priced(search, flights, asked)
                begun = begin_asked(search, asked)
                n_begun += begun != "stopped"
            elif not flights.numbers:
                return n_begun
            if isinstance(begun, Flight):
                flights.begin(begun)
            if flights.is_full or begun is None:
                n_begun -= flights.land()


def _landed_to_be_priced(search: Search, flights: Flights, asked: optuna.Trial) -> int:
    """Wait for all that is in flight where a latency has to be measured now; how many of it do not count."""
    is_alone = not flights.numbers or search.evaluator.is_priced(search.space.candidate(asked.params))
    return 0 if is_alone else flights.land_all()


def _hardly_worth(growth: float, *, is_stopping: bool) -> str:
    """In one line."""
    then = "no more are begun" if is_stopping else "stop_early=True would end the search here"
    return (
        f"the later half of all trainings has let the front grow by {100 * growth:.1f} %: more time is hardly worth "
        f"it, and {then}"
    )


def _enqueue_next(search: Search, opening: list[Candidate], trials: Sequence[Trial]) -> None:
    """Have the next opening asked next, as deep as the time left allows; one that fits not at all, or that was tried so
    already, is passed over.
    """
    while opening:
        candidate = opening.pop(0)
        lowest, _ = search.space.depths(candidate.backbone, candidate.n_blocks_kept)
        shallower = [replace(candidate, n_unfrozen=k) for k in range(candidate.n_unfrozen, lowest - 1, -1)]
        fitting = next(search.fitting.among(shallower, OPENING_SHARE), None)
        if fitting is not None and any(untried([fitting], trials)):
            search.study.enqueue_trial(search.space.suggestion(fitting))
            return

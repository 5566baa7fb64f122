"""Fine-tuning while there is still something to screen: depth before breadth, as far as the time is short."""

from __future__ import annotations

import math
from collections.abc import Sequence

from autobackbone.records import Candidate, Trial
from autobackbone.search.legs import NextLeg, candidate_of, rung_leg, seconds_to_end
from autobackbone.search.openings import asked_first, openings, untried
from autobackbone.search.steps import OPENING_SHARE, Search, first_rung, go_on, try_asked, view, without_hopeless
from autobackbone.search.study import read_trials, was_cut_off

# A leg that takes far longer than was expected leaves so much of the time to the rest.
_LEG_SHARE = 0.5
# Where fewer than four whole trainings fit the time left, fine-tuning beside screening may take three tenths of it all.
# In 67 s on 1,300 pictures of 64 px this trains half of the fastest network instead of a head on each of three.
_FEW_SHARE = 0.25
_FOCUS_SHARE = 0.3
# Epochs of an opening after which a deeper one of its backbone is begun.
_N_SHOWN = 2


def climb_early(search: Search, *, elsewhere_s: float, tuned_s: float = 0.0) -> float:
    """Each backbone's first opening to its first rung, deeper ones of those that have shown what they gain, and whoever
    is best from rung to rung.

    Nothing is asked of the sampler before it can know of all pairs, and nothing is trained to its end. What begins here
    goes on in `climb`. All of it takes as long as everything else has taken; where the whole budget is worth a few
    trainings only, a share of it: then depth is worth more than one more backbone.

    Args:
        search: over what has been screened so far.
        elsewhere_s: seconds that all else has taken so far.
        tuned_s: seconds that earlier calls have taken. What is expected to take twice as long as is left of what may be
            taken has to wait.

    Returns:
        Seconds that the best of what pauses now needs to its end, 0 where nothing pauses: whoever goes on screening
        should leave them.
    """
    all_s = elsewhere_s + tuned_s + search.left_s()
    allowed_s = max(elsewhere_s, _FOCUS_SHARE * all_s) if _is_short(search) else elsewhere_s
    end_s, n_begun = search.now_s() + allowed_s - tuned_s, 0
    distributions = search.space.distributions()
    while True:
        trials = without_hopeless(search)
        # Half of a leg must fit: so the sum of all is as long as what is allowed, not always shorter.
        leg_s = min(2 * (end_s - search.now_s()), _LEG_SHARE * search.left_s())
        wanted = _next_openings(search, trials) if n_begun != search.n_trials else []
        opening = next((one for one in wanted if _opening_s(search, one) <= leg_s), None)
        leg = None if opening else rung_leg(view(search, trials))
        if opening is not None:
            search.study.enqueue_trial(search.space.suggestion(opening))
            n_begun += try_asked(search, search.study.ask(distributions), _LEG_SHARE) != "stopped"
        elif leg is not None and _leg_s(search, trials[leg.number], leg) <= leg_s:
            go_on(search, trials[leg.number], leg, _LEG_SHARE)
        else:
            return seconds_to_end(view(search, trials))


def _is_short(search: Search) -> bool:
    """Whether the time left is worth few whole trainings of the first backbone's deepest opening."""
    every = openings(read_trials(search.study), search)
    if not every:
        return False
    deepest = [opening for opening in every if opening.backbone == every[0].backbone][-1]
    whole_s = search.evaluator.expected_s(deepest, n_epochs=search.evaluator.n_epochs(deepest))
    return whole_s > _FEW_SHARE * search.left_s()


def _next_openings(search: Search, trials: Sequence[Trial]) -> list[Candidate]:
    """What shall be tried first, and nothing else until it is; then those of backbones that nothing was tuned of yet,
    the fastest first; then deeper ones, where a shallower one has shown enough.
    """
    first = list(untried(asked_first(search), trials))
    if first or search.is_awaiting:
        return first
    begun = {trial.backbone for trial in trials if trial.n_unfrozen > 0 and not was_cut_off(trial)}
    shown = [trial for trial in trials if trial.n_epochs >= _N_SHOWN]
    left = list(untried(openings(trials, search), trials))
    new = [opening for opening in left if opening.backbone not in begun]
    deeper = [o for o in left if any(t.backbone == o.backbone and t.n_unfrozen < o.n_unfrozen for t in shown)]
    return [*new, *deeper]


def _opening_s(search: Search, opening: Candidate) -> float:
    """Seconds to its first rung; infinite where it has none, or there is no time for the rest."""
    rung = first_rung(search, opening)
    is_fitting = rung is not None and search.fitting.fits(opening, OPENING_SHARE)
    return search.evaluator.expected_s(opening, n_epochs=rung) if is_fitting else math.inf


def _leg_s(search: Search, trial: Trial, leg: NextLeg) -> float:
    return search.evaluator.expected_s(candidate_of(trial), n_before=leg.n_before, n_epochs=leg.pause_at)

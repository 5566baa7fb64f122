"""The latencies of what is or may come on the front, once more and side by side: before that they are minutes apart."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from autobackbone.choosing import as_they_stand, comparable, front_of, is_beaten_for_good
from autobackbone.errors import TargetMemoryError
from autobackbone.latency.forward import preparing_s
from autobackbone.latency.measure import measure_together
from autobackbone.records import Body, Latency, Trial
from autobackbone.search import trialfiles
from autobackbone.search.evaluate import DRIFT
from autobackbone.search.study import note_latencies
from autobackbone.search.workshop import Workshop

# Of the budget, for all of them; and for each.
_SHARE = 0.02
_MOST_S = 0.5
_LEAST_S = 0.1
# Building a network, and its first passes.
_SETUP_S = 0.3


def levelling_s(shop: Workshop, trials: Sequence[Trial]) -> float:
    """Seconds that measuring the bodies of trials side by side takes; none where there is nothing to compare."""
    n = len({trial.body for trial in trials})
    setup_s = _SETUP_S + preparing_s(shop.target)
    return n * (_seconds_each(shop, n) + setup_s) if n > 1 and not _stands(shop) else 0.0


def level(shop: Workshop) -> bool:
    """Measure side by side, where there are two bodies or more and time for them; from then on that is what they take.

    What is on the front is measured, and what could come there however the machine has drifted, where there is time for
    that, too. Limits of latency were kept, or broken, by what was measured first: with such a limit that stands.

    Returns:
        Whether latencies can be compared now.
    """
    if shop.target.timings is not None:
        return True
    trials = comparable(shop.rivals())
    standing = as_they_stand(trials)
    near = [
        one
        for one, stood in zip(trials, standing, strict=True)
        if not is_beaten_for_good(one, trials, shop.metric, drift=DRIFT)
        or not is_beaten_for_good(stood, standing, shop.metric, drift=DRIFT)
    ]
    left_s = shop.clock.left_s()
    asked = (near, front_of(trials, shop.metric, shop.limits))
    fitting = [some for some in asked if 0 < levelling_s(shop, some) <= left_s]
    if not fitting:
        return len({trial.body for trial in near}) == 1
    bodies = list(dict.fromkeys(trial.body for trial in fitting[0]))
    shop.reporter.progress(shop.use_share(), f"latencies of {len(bodies)} networks side by side")
    return _measure(shop, bodies)


def _measure(shop: Workshop, bodies: Sequence[Body]) -> bool:
    def measured() -> list[Latency]:
        networks = [(shop.source.network(*body), body.image_size) for body in bodies]
        return measure_together(networks, shop.target, seconds=_seconds_each(shop, len(bodies)))

    try:
        latencies = shop.record.latencies(f"side by side: {', '.join(map(str, bodies))}", len(bodies), measured)
    except TargetMemoryError as error:  # all of them at once; each for itself did fit
        shop.reporter.say(f"latencies were not measured side by side: {error}")
        return False
    found = dict(zip(bodies, latencies, strict=True))
    front = front_of([_with(trial, found) for trial in shop.rivals()], shop.metric, shop.limits)
    lost = [one for one in front if one.n_unfrozen > 0 and not trialfiles.has_weights(shop.run, one.number)]
    if lost:
        shop.reporter.say(
            f"latencies stay as they were measured first: side by side, trial {lost[0].number} would be on the front, "
            "and its network was given up, since this machine's speed has changed by more than half"
        )
        return False
    note_latencies(shop.study, found)
    return True


def _with(trial: Trial, found: Mapping[Body, Latency]) -> Trial:
    latency = found.get(trial.body)
    if latency is None:
        return trial
    return replace(trial, latency_ms=latency.p50_ms, latency_noise_ms=latency.noise_ms)


def _stands(shop: Workshop) -> bool:
    """Whether latencies stay what they were first."""
    return shop.target.timings is not None or _is_limited(shop)


def _is_limited(shop: Workshop) -> bool:
    return shop.limits.latency_ms is not None or shop.limits.latency_p95_ms is not None


def _seconds_each(shop: Workshop, n: int) -> float:
    whole_s = shop.clock.budget.wall_clock_s or math.inf
    return max(_LEAST_S, min(_MOST_S, _SHARE * whole_s / n))

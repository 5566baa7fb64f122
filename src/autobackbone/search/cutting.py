"""Heads on the first blocks of a network alone, whose features a pass of the whole has left."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

from autobackbone.choosing import as_they_stand, is_beaten_for_good
from autobackbone.convexhead import Floats
from autobackbone.errors import BackboneError, TrialError
from autobackbone.latency.forward import preparing_s
from autobackbone.records import Body
from autobackbone.screening import Features, fair_order, with_head
from autobackbone.search.foldheads import gathered, score_frozen
from autobackbone.search.frozen import keep
from autobackbone.search.pricing import priced_within_limits, pricing_s, speed
from autobackbone.search.workshop import Workshop

# Where so many in a row are beaten, shorter ones are left out.
_N_BEATEN = 2
# Building a cut network, beside pricing it and fitting its head.
_CUT_S = 1.0


def features_of_cuts(shop: Workshop, whole: Body) -> dict[Body, Floats]:
    """What a pass of the whole network has left of its cuts that have no head yet: those that are tried first, then the
    longest first.
    """
    found: dict[Body, Floats] = {}
    cuts = [whole._replace(n_blocks_kept=n_kept) for n_kept in reversed(shop.space.kept.get(whole.backbone, ()))]
    wanted = {one.body for one in shop.first}
    for body in sorted(cuts, key=lambda body: body not in wanted):
        values = None if body in shop.heads else shop.stores.features(body)
        if values is not None:
            found[body] = values
    return found


def screen_cuts(shop: Workshop, whole: Body, of_cuts: Mapping[Body, Floats], until: float) -> None:
    """Heads on the first blocks alone, until two in a row are beaten."""
    if not of_cuts:
        return
    n_beaten, order, head_s = 0, fair_order(shop.bundle, seed=shop.seed), _head_s(shop, whole)
    cut_s = _CUT_S + preparing_s(shop.target)
    for body, values in of_cuts.items():
        if n_beaten == _N_BEATEN or time.monotonic() + head_s + pricing_s(shop) + cut_s > until:
            return
        try:
            priced = priced_within_limits(shop, body)
            if priced is None:
                continue
            share = speed(shop.priced[whole].latency, shop.target) / speed(priced.latency, shop.target)
            passed_s = shop.costs.forward_s[whole] * share * len(order)
            reached = Features.of(values, order, shop.bundle, seconds=passed_s)
            features = gathered(shop.bundle, reached)
            screened = with_head(
                reached,
                shop.bundle,
                seed=shop.seed,
                until=None if until == math.inf else until,
                class_weights=shop.space.head_weights,
            )
        except (BackboneError, TrialError) as error:
            shop.reporter.say(f"left out: {body}: {error}")
            return
        trial = keep(shop, priced, screened)
        if trial is not None:
            score_frozen(shop, trial, features)
        is_beaten = trial is None or _is_beaten(shop, trial.number)
        n_beaten = n_beaten + 1 if is_beaten else 0


def _is_beaten(shop: Workshop, number: int) -> bool:
    (trial,) = as_they_stand([one for one in shop.trials() if one.number == number])
    return is_beaten_for_good(trial, as_they_stand(shop.rivals()), shop.metric)


def _head_s(shop: Workshop, whole: Body) -> float:
    """Seconds of fitting the head of a whole body; that of a cut takes about as long."""
    number, _ = shop.heads[whole]
    n_passed = shop.costs.n_train + shop.costs.n_validation
    trial = next(trial for trial in shop.trials() if trial.number == number)
    head_s = (trial.train_seconds or 0.0) - shop.costs.forward_s[whole] * n_passed
    return max(0.0, head_s)

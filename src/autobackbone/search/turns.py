"""Whose turn it is to be screened: pairs of backbone and image size, and first blocks where limits ask for them."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain

from autobackbone.errors import TrialError, TrialMemoryError, WeightsError
from autobackbone.latency.forward import preparing_s
from autobackbone.memory import memory_errors_translated
from autobackbone.metrics import aligned, to_maximised
from autobackbone.planning import screening_order
from autobackbone.records import Body, Trial
from autobackbone.search.frozen import frozen_trial, one_pass
from autobackbone.search.legs import curve_of
from autobackbone.search.pricing import broken_limit, gmacs_of, has_pixels, price, pricing_s, rough_pass_seconds
from autobackbone.search.rungs import Curve
from autobackbone.search.scouting import Scouts, scouted
from autobackbone.search.study import add_screened, next_number
from autobackbone.search.workshop import Workshop

# A first pass may take this share of the time; where it is longer, a cheaper pair goes first.
SHORT_SHARE = 0.25
_SHORT_CLOCK_S = 60.0
# Among a trial's extras: how many pictures it passed, only to be compared with others.
_N_COMPARED = "n_compared"


@dataclass(slots=True, kw_only=True)
class Ends:
    """By when, in `time.monotonic()`, what has to end; fine-tuning in between moves it.

    Args:
        until: the last pass, and what decides which ones are worth it.
        trained_by: what it takes to train a body that is screened.
        tuning_share: what that is, in seconds of its pass; 0 where nothing says that training pays.
        n_left_out: pairs that these ends have left out.
        causes: for which others were left out, each once, in their order.
        postponed: what only may keep the limits: it has its turn after all else.
        cut: first blocks of what does not surely keep the limits, that had their turn.
    """

    until: float
    trained_by: float = math.inf
    tuning_share: float = 0.0
    n_left_out: int = 0
    causes: dict[str, None] = field(default_factory=dict)
    postponed: dict[Body, None] = field(default_factory=dict)
    cut: set[Body] = field(default_factory=set)

    def allow(self, pass_s: float, reading_s: float = 0.0) -> bool:
        """Whether a pass may begin now."""
        end = time.monotonic() + reading_s + pass_s
        return end <= self.until and end + self.tuning_share * pass_s <= self.trained_by


def bodies(shop: Workshop, ends: Ends) -> Iterator[Body]:
    """In the usual order until one is screened, so that there is something usable; then, where there is no time for a
    pass of each over all pictures, in the order that a part of the pictures suggests.

    What only may keep the limits comes last. Where no whole network keeps them, first blocks of those that do not come
    before that.
    """
    order = deque(_order(shop))
    yield from _first_bodies(shop, order, ends)
    if not shop.heads and shop.priced and shop.clock.left_s() <= 0:  # all that was measured breaks a limit
        return
    yield from (body for body in order if body in shop.heads)
    awaited = [body for body in order if body in shop.awaited]
    yield from awaited
    left = [body for body in order if body not in shop.heads and body not in awaited]
    scouts = Scouts(
        n_pictures=shop.costs.n_train + shop.costs.n_validation,
        pass_s=partial(rough_pass_seconds, shop),
        left_s=lambda: ends.until - time.monotonic(),
        look=partial(_look, shop),
        say=shop.reporter.say,
    )
    # Decoding to one more size is no cheaper for a part.
    late = [body for body in left if not has_pixels(shop, body.image_size)]
    yield from scouted([body for body in left if body not in late], scouts)
    yield from late
    if not any(head.n_blocks_kept is None and keeps_limits(shop, head) for head in shop.heads):
        yield from _cuts_beyond_limits(shop, ends)
    yield from _postponed(shop, ends)


def _first_bodies(shop: Workshop, order: deque[Body], ends: Ends) -> Iterator[Body]:
    """Taken out of the order until one is screened: whole networks; once finding that they do not surely keep the
    limits has taken as long as a first pass may, or there are no more of them, their first blocks, too, and at last
    whatever may keep them.
    """
    left_s = shop.clock.left_s()
    has_begun = False  # one is tried however little time there is
    while order and not shop.heads:
        if has_begun and shop.clock.left_s() <= 0 and shop.priced:
            return
        has_begun = True
        yield order.popleft()
        if not shop.heads and (not order or shop.clock.left_s() < (1 - SHORT_SHARE) * left_s):
            for body in chain(_cuts_beyond_limits(shop, ends), _postponed(shop, ends)):
                yield body
                if shop.heads:
                    return


def _postponed(shop: Workshop, ends: Ends) -> Iterator[Body]:
    """What only may keep the limits and is not screened yet, while there is time to price it."""
    for body in list(ends.postponed):
        if not _has_time_to_price(shop, ends):
            return
        if body not in shop.heads:
            yield body


def _cuts_beyond_limits(shop: Workshop, ends: Ends) -> Iterator[Body]:
    """First blocks of networks that do not surely keep the limits, by a pass of their own: those of the fastest first,
    the longest first, as far as the pass of a longer one has not left their features.
    """
    beyond = [one for one in shop.priced.values() if one.n_blocks_kept is None and not keeps_limits(shop, one.body)]
    for priced in sorted(beyond, key=lambda one: one.latency.p50_ms):
        for n_kept in reversed(shop.space.kept.get(priced.backbone, ())):
            body = priced.body._replace(n_blocks_kept=n_kept)
            if not _has_time_to_price(shop, ends):
                return
            if body not in shop.heads and body not in ends.cut and not _comes_with_a_longer_one(shop, body):
                ends.cut.add(body)
                yield body


def _comes_with_a_longer_one(shop: Workshop, body: Body) -> bool:
    """Whether the pass of a longer one, which is screened, has left its features.

    Those that another run on these pictures has left say nothing of it.
    """
    is_passed = any(
        one[:2] == body[:2] and (one.n_blocks_kept or math.inf) > (body.n_blocks_kept or 0) for one in shop.heads
    )
    return is_passed and shop.stores.features(body) is not None


def _has_time_to_price(shop: Workshop, ends: Ends) -> bool:
    """Whether a body may still be measured; while nothing is screened, as long as the run has time."""
    if shop.clock.left_s() <= 0:
        return False
    return not shop.heads or ends.allow(pricing_s(shop) + preparing_s(shop.target))


def keeps_limits(shop: Workshop, body: Body) -> bool:
    """Of a body that is priced, by what was measured."""
    return broken_limit(shop.priced[body], shop.limits) is None


def _look(shop: Workshop, body: Body, n: int, seconds: float) -> Curve | None:
    """Screen a body on a fair part of the pictures, if no sitting has done so yet: a stopped trial, that comparing has
    stopped whether it is the better one or not. What a whole pass finds will be another.
    """
    until = time.monotonic() + seconds
    known = [t for t in shop.trials() if t.body == body and int(t.extras.get(_N_COMPARED, 0)) >= n]
    if known:
        return _compared(shop, known[-1])
    try:
        priced = price(shop, body)
        if not keeps_limits(shop, body):
            return None
        with memory_errors_translated():
            network = shop.source.network(*body).to(shop.device)
        trial = frozen_trial(shop, priced, one_pass(shop, priced, network, until=until, head_until=until, n_most=n))
    except (WeightsError, TrialError):  # told when its turn comes
        return None
    if trial is None:
        return None
    reason = f"compared by {shop.metric.name} {aligned(shop.metric, trial.score or 0.0)}, and no more: {trial.reason}"
    extras = {_N_COMPARED: n, **trial.extras}
    trial = replace(trial, number=next_number(shop.study), state="stopped", reason=reason, extras=extras)
    add_screened(shop.study, shop.space, trial)
    shop.tell(trial)
    return _compared(shop, trial)


def _compared(shop: Workshop, trial: Trial) -> Curve:
    """As if the part were a rung."""
    return replace(curve_of(trial, to_maximised(shop.metric, 1.0)), n_epochs=1)


def _order(shop: Workshop) -> list[Body]:
    """As planned; a budget that is short for the first pair begins with the cheapest of all."""
    order = [Body(*pair) for pair in screening_order(shop.space.image_sizes, shop.first_pairs, gmacs=shop.source.gmacs)]
    cheapest = min(order, key=partial(gmacs_of, shop))
    try:
        # A clock that is short anyway does not pay for the price of a pair that it cannot screen.
        price(shop, cheapest if shop.clock.left_s() < _SHORT_CLOCK_S else order[0])
    except (WeightsError, TrialMemoryError):  # told when its turn comes
        return order
    is_short = rough_pass_seconds(shop, order[0]) > SHORT_SHARE * shop.clock.left_s()
    return [cheapest, *(body for body in order if body != cheapest)] if is_short else order

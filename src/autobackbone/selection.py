"""What the user holds: the front, the table, the models. It reads a run folder; only `refit` adds a file to it."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import nn

from autobackbone.backbones.source import BackboneSource
from autobackbone.calibration import Calibration
from autobackbone.choices import best_within, fastest_at_least, preferred
from autobackbone.choosing import (
    Choice,
    as_they_stand,
    comparable,
    front_line,
    front_of,
    mark_front,
    name_of,
    on_one_scale,
)
from autobackbone.costrecord import SIDE_BY_SIDE, SITTING, read_costs
from autobackbone.crossfitting import ScoredPart
from autobackbone.ensembling import Ensemble, ensemble_of
from autobackbone.errors import ArgumentError, AutobackboneError, LimitsError, RunError
from autobackbone.judging import Judged, has_folds
from autobackbone.latency.remembered import LatencyBook
from autobackbone.loading import RunReader
from autobackbone.metrics import Metric, is_free_of_code, metric_for, score
from autobackbone.optimism import Optimism, optimism_of
from autobackbone.outgoing import Exported, OnnxPrecision, Outgoing
from autobackbone.overfitting import advice, mark_overfitting
from autobackbone.ownbackbone import OwnBackbone, own_given
from autobackbone.predicting import Predictor
from autobackbone.progress import Reporter
from autobackbone.records import Body, Budget, Limits, Preference, RefitOn, Target, Task, Trial, counted, is_whole
from autobackbone.refitting import Refit, refit, until_of
from autobackbone.replaying import script_of
from autobackbone.reports.modelcard import save_model_card
from autobackbone.reports.seen import RunSeen
from autobackbone.retargeting import Repriced, repriced, stopped_line
from autobackbone.retraining import Retrainer, bundle_of
from autobackbone.reviewing import contradictions, suspects
from autobackbone.runfolder import RunFolder, cache_folder
from autobackbone.runners import RunnerRay
from autobackbone.search.similar import read_similar
from autobackbone.search.stagecosts import read_stages, read_untimely
from autobackbone.search.study import has_ended, load_study, read_sound_trials
from autobackbone.search.studyplace import place_of_run
from autobackbone.servers import Server, as_server
from autobackbone.settings import Groups, Times
from autobackbone.showing import harmless
from autobackbone.tasks import require_probabilities
from autobackbone.trialframe import frame_of

if TYPE_CHECKING:
    import optuna
    from matplotlib.figure import Figure
    from optuna.samplers import BaseSampler
    from torchmetrics import Metric as TorchMetric

    from autobackbone.handing import Strategy
    from autobackbone.training.continuing import ContinuedTraining


class Selection:
    """The result of a run, also of one that is still going on or was cut off.

    Args:
        path: the run folder; it may have been moved since.
        dataset: what was searched on, where it is at hand.
        metric: what the run is scored by, where that is the user's own: its code runs only where it is given here, or
            is a class of torchmetrics, or of a module that was imported before. `None` takes what the run names, as far
            as it is no code from elsewhere.
        storage: the database server that holds the run's study, where it is not one that was named on this machine
            before; see `select_backbone`.
        repriced: its trials for another target, as `retarget` makes them.
        backbones: those of the user's own that the run was given: their code runs only where they are given here, too.

    Example:
        result = select_backbone("photos/", "10min")
        result.best                      # the trial to use
        result.front                     # fastest first
        result.predict(["new.jpg"])      # class names
    """

    def __init__(
        self,
        path: Path,
        *,
        dataset: Any = None,
        metric: Metric | str | TorchMetric | None = None,
        storage: Server | str | None = None,
        repriced: Repriced | None = None,
        backbones: Any = None,
    ) -> None:
        self._dataset = dataset
        self._repriced = repriced
        self._own = own_given(backbones)
        self._server = as_server(storage)
        self._run = RunFolder(path=path)
        self._facts = self._run.read_facts()
        self._given_metric = metric
        self._reader = RunReader.from_facts(self._run, self._facts, self._own)
        self._predictor = Predictor(self._reader)

    @property
    def path(self) -> Path:
        """The run folder."""
        return self._run.path

    @cached_property
    def study(self) -> optuna.Study:
        """The Optuna study behind the run, opened for reading."""
        return load_study(place_of_run(self._run, self._facts, self._server))

    @cached_property
    def metric(self) -> Metric:
        """What `score` is.

        Raises:
            RunError: the run names code from elsewhere, and nobody has said that it may run.
            ArgumentError: another one was given.
        """
        named, given, n_outputs = self._facts["metric"], self._given_metric, len(self.classes)
        if given is None:
            if not is_free_of_code(named):
                raise RunError(
                    f"the run {str(self.path)!r} is scored by {named!r}, which is code, and may do anything; a run "
                    f"folder does not start it by itself. If you know it, say so: open_run(…, metric={named!r}), or "
                    "--metric on the command line."
                )
            return metric_for(named, self.task, n_outputs=n_outputs)
        found = given if isinstance(given, Metric) else metric_for(given, self.task, n_outputs=n_outputs)
        if found.spec != named:
            raise ArgumentError(
                f"the run {str(self.path)!r} is scored by {named!r}, and {found.spec!r} came. Give the same, or none."
            )
        return found

    @property
    def target(self) -> str:
        """Where latencies were measured, in one line."""
        if self._repriced is not None:
            return harmless(self._repriced.target_line)
        return harmless(self._facts["target_line"])

    @property
    def own_backbones(self) -> Mapping[str, OwnBackbone]:
        """Backbones of the user's own that were given here, by name."""
        return self._own

    @property
    def is_retargeted(self) -> bool:
        """Whether latencies are those of another target than the search's, see `retarget`."""
        return self._repriced is not None

    @property
    def stopped_before(self) -> str | None:
        """What the search gave up under its own target, where this is another one; `None` where nothing was."""
        if not self.is_retargeted:
            return None
        return stopped_line(self.trials, harmless(self._facts["target_line"]))

    @property
    def task(self) -> Task:
        """What the labels are."""
        return self._reader.task

    @property
    def classes(self) -> tuple[str | int, ...]:
        """The classes or labels, in the order of the columns of probabilities, or the names of the numbers."""
        return self._reader.classes

    @property
    def notes(self) -> tuple[str, ...]:
        """What was skipped, made or left out, one line each."""
        return tuple(self._facts["notes"])

    @cached_property
    def trials(self) -> list[Trial]:
        """All trials, in order of number."""
        found = read_sound_trials(self.study) if self._repriced is None else self._repriced.trials
        return mark_overfitting(mark_front(found, self.metric, self._limits), self.metric)

    @cached_property
    def front(self) -> list[Trial]:
        """The finished trials that no other beats on both score and latency, fastest first."""
        return front_of(self.trials, self.metric, self._limits)

    @cached_property
    def choice(self) -> Choice:
        """The trial to use and the reason, in one sentence.

        Raises:
            LimitsError: nothing on the front keeps the limits.
            RunError: no trial has finished.
        """
        try:
            judged = self._judged.choice(self.metric, tolerance=self._facts["tolerance"], limits=self._limits)
        except LimitsError as error:
            raise LimitsError(f"{error} What was tried is kept: {self._what_is_left()}") from None
        return replace(judged, trial=self._trial(judged.trial.number))

    def _what_is_left(self) -> str:
        """What can be had of a run of which nothing keeps the limits."""
        more = f"open_run({str(self.path)!r}).more('10min') goes on"
        fastest_ms, limit_ms = self.front[0].latency_ms, self._limits.latency_ms
        if limit_ms is None or fastest_ms is None or fastest_ms <= limit_ms:
            return f"{more}, and its front is what can be had without the limits."
        enough_ms = math.ceil(100 * fastest_ms) / 100
        return f"{more}, and its best_under({enough_ms:g}) is the best trial within {enough_ms:g} ms."

    @cached_property
    def _choice_or_why(self) -> tuple[Choice | None, str]:
        """The choice; without one, why there is none."""
        try:
            return self.choice, ""
        except AutobackboneError as error:  # none has finished, none is fast enough, or a file is damaged
            return None, str(error)

    @property
    def _limits(self) -> Limits:
        return Limits(**self._facts["limits"]) if self._repriced is None else self._repriced.limits

    @property
    def best(self) -> Trial:
        """The trial to use: the fastest of the front that is as good as the top scorer within the noise; with a limit
        of latency, the most accurate within it. Scores by folds count, where the whole front has them.
        """
        return self.choice.trial

    def select(self, prefer: Preference) -> Trial:
        """The trial of the front that a word asks for.

        Args:
            prefer: `accuracy`, the top scorer; `speed`, the fastest; `balanced`, the knee; `training_speed`, of those
                that are as good as the top scorer, judged as for `best`, the one that took least time to train.

        Raises:
            ArgumentError: there is no such word.
            RunError: no trial has finished.
        """
        judged, tolerance = self._judged, self._facts["tolerance"]
        found = preferred(prefer, judged.front, judged.predictions, judged.labels, self.metric, tolerance=tolerance)
        return self._trial(found.number)

    def best_under(
        self, latency_ms: float | None = None, *, n_params: float | None = None, megabytes: float | None = None
    ) -> Trial:
        """The most accurate trial within limits that has a network here, the fastest of equals.

        A small network that is slow is on no front of accuracy against latency. So this looks beyond the front, at
        every finished trial whose network can be had: the front's are kept, and a frozen one is built from its head.
        Scores count by folds, where a trial has them; where one has none, its validation score, less what such scores
        flatter by.

        Args:
            latency_ms: median milliseconds of one forward pass on the target; `None` for no limit, as for the others.
            n_params: parameters of the whole network.
            megabytes: of its float32 weights, 10**6 bytes.

        Raises:
            ArgumentError: no limit came, or one that is no number above 0.
            LimitsError: none keeps them; it names the nearest.
        """
        usable = [trial for trial in comparable(self.trials) if self._reader.has_network(trial)]
        found = best_within(
            on_one_scale(usable), self.metric, latency_ms=latency_ms, n_params=n_params, megabytes=megabytes
        )
        return self._trial(found.number)

    def fastest_at_least(self, score: float) -> Trial:
        """The fastest trial of the front with at least a score (0.9, not 90), or at most, where the score is a loss.

        Scores by folds count, where the whole front has them.

        Raises:
            ArgumentError: `score` is no number, or one that the metric never is.
            LimitsError: none is that good; it names the best.
        """
        return self._trial(fastest_at_least(self._judged.front, score, self.metric).number)

    def knee(self) -> Trial:
        """The trial of the front from which either way costs most: less accuracy, or more latency."""
        return self.select("balanced")

    def retarget(
        self,
        target: Target,
        *,
        limits: Limits | None = None,
        cache_dir: str | Path | None = None,
        progress: bool = False,
    ) -> Selection:
        """The same trials where another target runs them: nothing is trained, and nothing of the run is changed.

        Each network is timed on that target, those of the new front once more side by side. What the search had given
        up under its own target, it does not know for this one; printing the selection says how much that is. Weights
        are kept of the front of the search: another trial that is on this one may have to be trained again, see
        `retrain`.

        Args:
            target: another device, runtime or number of threads of this machine; or `Target.from_csv(…)`.
            limits: what deployment allows there; those of the search were for its own target.
            cache_dir: as for the search.
            progress: whether each latency is printed.

        Returns:
            A selection of the same run, whose latencies, front and choice are those of the target.

        Raises:
            TargetError: the target is not here.
            RunError: no trial has finished there.
        """
        names = {trial.body: trial for trial in self.trials if self._reader.has_network(trial)}
        source = BackboneSource({}, n_classes=len(self.classes), backbones=self._reader.backbones)

        def network_of(body: Body) -> nn.Module:
            kept = names.get(body)
            return source.skeleton(*body) if kept is None else self._reader.network(kept)

        cache = cache_folder() if cache_dir is None else Path(cache_dir).expanduser()
        found = repriced(
            read_sound_trials(self.study),
            self.metric,
            target,
            limits or Limits(),
            network_of=network_of,
            book=LatencyBook(cache / "latency.json"),
            backbones=self._reader.backbones,
            say=print if progress else lambda _: None,
        )
        if not front_of(found.trials, self.metric, found.limits):
            raise RunError(
                f"no trial of {str(self.path)!r} can be used on {found.target_line}: "
                f"{next((one.reason for one in found.trials if one.state == 'failed'), 'none has finished')}."
            )
        return Selection(
            self.path,
            dataset=self._dataset,
            metric=self._given_metric,
            storage=self._server,
            backbones=tuple(self._own.values()),
            repriced=found,
        )

    @cached_property
    def optimism(self) -> Optimism | None:
        """How much the search's own scores flattered its front; `None` where no trial of it is confirmed, or chosen.

        Printing it says what it says of the chosen trial.
        """
        choice, _ = self._choice_or_why
        if choice is None:
            return None
        judged, best = self._judged, choice.trial
        if judged.is_by_folds:
            (best,) = as_they_stand([best])
        return optimism_of(judged.front, best, self.metric, is_by_folds=judged.is_by_folds)

    @cached_property
    def advice(self) -> tuple[str, ...]:
        """What overfits, or fits its training pictures fully, and what to do about it, in six sentences at most.

        Empty where no training got worse in validation while it went on, and the best ones are no further from their
        training pictures than chance may do. That says nothing of how good they are.
        """
        return advice(self.trials, self.metric)

    def reproduce(self) -> str:
        """The lines of Python that repeat what the run has recorded: its front, trained again, the best last.

        With versions, threads, and the digests of pictures and split. The split, the screened heads and each training
        come out the same. So does a search anew, from what this one measured, if it had trials as its only budget,
        trained one after the other, and came to its end in one sitting; else a comment says what differs.

        Returns:
            A script, to be printed or written to a file; it runs from any working directory.

        Raises:
            RunError: no trial has finished, or the run does not say what such lines need.
        """
        file, trials, chosen, metric = self._run.costs_file, self.trials, self.best, self.metric
        costs = read_costs(file) if file.is_file() else {}
        sittings, is_beside = costs.get(SITTING, ()), bool(costs.get(SIDE_BY_SIDE))
        ended = has_ended(self.study)
        try:
            return script_of(
                self.path,
                self._facts,
                trials,
                chosen,
                metric,
                sittings=sittings,
                is_side_by_side=is_beside,
                has_ended=ended,
            )
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise self._run.damaged(f"what a search was asked cannot be told from it ({error!r})") from error

    def scores_without_copies(self, trial: Trial | int | None = None) -> dict[ScoredPart, float]:
        """A trial's scores without those pictures that have a copy in the training part.

        Splits that are made have none; one that a dataset brought is kept as it is, and this tells what that flatters.

        Args:
            trial: a finished trial or its number; `None` for the best.

        Returns:
            By part that has such pictures, in the metric's own sign and unit; NaN where nothing is left without them;
            empty where there are none, where they were not looked for, or where the trial was not scored.
        """
        wanted = self._trial(trial)
        parts = [part for part in get_args(ScoredPart) if self._reader.has_predictions(wanted, part)]
        masks = {part: self._reader.leaked(part) for part in parts}
        return {part: self._scored(wanted, part, ~mask) for part, mask in masks.items() if mask.any()}

    def _scored(self, trial: Trial, part: ScoredPart, is_counted: NDArray[np.bool_]) -> float:
        """On some pictures of a part, as far as they were reached."""
        predictions = self._reader.predictions(trial, part)
        rows = is_counted & ~np.isnan(predictions).any(axis=1)
        return score(self.metric, predictions[rows], self._reader.labels(part)[rows]) if rows.any() else math.nan

    def retrain(
        self,
        trial: Trial | int | None = None,
        *,
        dataset: Any = None,
        cache_dir: str | Path | None = None,
        workers: int | None = None,
        devices_per_trial: int = 1,
    ) -> nn.Module:
        """Train a trial once more as the run has recorded it: same pictures, head, legs, views and precision.

        On the same machine, with the same versions and number of threads, the network is the same but for rounding:
        each pass over the pictures takes the way that was the fastest when it began.

        Args:
            trial: a trained trial or its number, on the front or not; `None` for the best.
            dataset: as it was given to the search; `None` for the path that the run has noted.
            cache_dir: as for the search.
            workers: `0` trains in this process, the default, and `1` in a worker process; more have nothing to do.
            devices_per_trial: as for the search, whatever it was there.

        Returns:
            The network, as `model` gives it; nothing of the run is changed.

        Raises:
            ArgumentError: the run has noted no path, and no dataset came; or a worker could not have the metric.
            RunError: the dataset has changed, or the run does not say how the trial was trained.
            TrialError: it could not be trained, such as for want of memory, or its worker process died.
        """
        wanted = self._trial(trial)
        again = self._retrainer(wanted, dataset, cache_dir, workers, devices_per_trial).retrained(wanted)
        return self._reader.dressed(again.network, wanted)

    def refit(
        self,
        trial: Trial | int | None = None,
        *,
        on: RefitOn = "train+val",
        budget: Budget | float | str = "10min",
        dataset: Any = None,
        cache_dir: str | Path | None = None,
        workers: int | None = None,
        devices_per_trial: int = 1,
    ) -> Refit:
        """Train a chosen candidate once more, on the validation pictures, too: a second network beside the first.

        As many epochs as the trial's best rung had, with all views of each picture, inside the budget. Nothing chooses
        on the way, and the test part compares both on the same pictures; which one to use, you decide.

        Args:
            trial: a trained trial or its number; `None` for the best.
            on: `train+val`, or `train` for the training part alone.
            budget: seconds, or a text such as `"10min"`, for the training.
            dataset: as it was given to the search; `None` for the path that the run has noted.
            cache_dir: as for the search.
            workers: `0` trains in this process, the default, and `1` in a worker process; more have nothing to do.
            devices_per_trial: as for the search, whatever it was there.

        Returns:
            The network, its test score, and the gain with its interval; printing it says all of that. Its weights are
            written beside the trial's; where there is no room for them, a warning says so, and `.model` alone has them.

        Raises:
            ArgumentError: `on` is something else, no dataset is known, or a worker process could not have the metric.
            RunError: the dataset has changed.
            TrialError: the budget is too short for one epoch, or its worker process died.
        """
        until = until_of(on, budget)
        wanted = self._trial(trial)
        retrainer = self._retrainer(wanted, dataset, cache_dir, workers, devices_per_trial)
        return refit(self._reader, retrainer, wanted, on, until)

    def more(  # noqa: PLR0913  as the facade
        self,
        budget: Budget | float | str,
        *,
        backbones: str | OwnBackbone | Sequence[str | OwnBackbone] | None = None,
        dataset: Any = None,
        groups: Groups = None,
        times: Times = None,
        sampler: BaseSampler | None = None,
        cache_dir: str | Path | None = None,
        cache_gb: float | None = None,
        max_download_mb: float = 2000,
        stop_early: bool = False,
        workers: int | None = None,
        devices_per_trial: int = 1,
        strategy: Strategy = "ddp",
        callbacks: Any = None,
        loggers: Any = None,
        runner: RunnerRay | Literal["ray"] | None = None,
        progress: bool | Reporter = True,
    ) -> Selection:
        """Go on with the run: more time, and further backbones, with everything else as it was asked.

        All that was tried stays and is built on. Where backbones are added, a further study in the run's file takes
        its trials over, since the choices of a study cannot grow. A run that took its costs from another one (`costs=`)
        measures them from now on.

        Args:
            budget: as for the search; it comes on top, where the run has spent its own, else it takes its place.
            backbones: names or globs of further ones, or your own; `None` for none.
            dataset: as it was given to the search; `None` for the path that the run has noted.
            groups: as for the search, where it was given entries or a function.
            times: the same.
            sampler: as for the search, where it was given one.
            cache_dir: as for the search.
            cache_gb: as for the search.
            max_download_mb: megabytes of weights that may be fetched now.
            stop_early: as for the search.
            workers: as for the search; a run does not keep it.
            devices_per_trial: the same; what paused on one number of devices goes on with any other.
            strategy: as for the search, for several devices.
            callbacks: as for the search, where they are wanted again.
            loggers: the same.
            runner: the same.
            progress: as for the search.

        Returns:
            The selection of the same run folder; this one does not change.

        Raises:
            ArgumentError: the run has noted no path, or what decides its split lay in memory, and nothing came.
            RunError: the dataset has changed; or backbones are added to a run of which trials still pause.
            AutobackboneError: as the search.

        Example:
            result = select_backbone("photos/", "10min")
            result = result.more("20min", backbones="convnext*")
        """
        from autobackbone._api import go_on

        _ = self.metric  # which a search would import as the run names it: no code that nobody has allowed
        return go_on(
            self._run,
            budget,
            added=backbones,
            dataset=self._dataset if dataset is None else dataset,
            groups=groups,
            times=times,
            sampler=sampler,
            cache_dir=cache_dir,
            cache_gb=cache_gb,
            max_download_mb=max_download_mb,
            stop_early=stop_early,
            workers=workers,
            devices_per_trial=devices_per_trial,
            strategy=strategy,
            callbacks=callbacks,
            loggers=loggers,
            runner=runner,
            storage=self._server,
            own=self._own,
            progress=progress,
        )

    def _retrainer(
        self,
        wanted: Trial,
        dataset: Any,
        cache_dir: str | Path | None,
        workers: int | None = None,
        devices_per_trial: int = 1,
    ) -> Retrainer:
        given = self._dataset if dataset is None else dataset
        of = (self._run, self._facts, self.trials, wanted, self.metric)
        return Retrainer.of(
            *of,
            dataset=given,
            backbones=self._reader.backbones,
            cache_dir=cache_dir,
            workers=workers,
            devices_per_trial=devices_per_trial,
        )

    def to_frame(self) -> pd.DataFrame:
        """All trials as a table, one row each, in order of number.

        Times in milliseconds or seconds as the names say; `score` and `fold_score` with their standard errors and
        `test_score` with its 95 % interval in the metric's own sign and unit; `scored_share` is the share of the
        validation pictures that `score` stands on, below 1 where the time was too short for all of them;
        `lr` is NaN where nothing was trained by gradient, `n_blocks_kept` where the whole backbone is used; further
        searched parameters have a column of their own; `balanced_score` is the balanced accuracy on the pictures of
        `score`, where uneven classes flatter that, else NaN.
        """
        return frame_of(self.trials)

    def plot(self) -> Figure:
        """Accuracy against latency: every finished trial, the front drawn through, the chosen one marked."""
        from autobackbone.plots.front import draw_front, front_facts

        chosen, _ = self._choice_or_why
        number = None if chosen is None else chosen.trial.number
        return draw_front(front_facts(as_they_stand(self.trials), self.target, self.metric, number))

    def report(self, path: str | Path = "report.html", *, n_pictures: int = 24, dataset: Any = None) -> Path:
        """Write all that is known of the run into one page that opens anywhere and fetches nothing.

        The front to look around in, the choice and its reason, learning curves, what is taken for what, the pictures
        that it gets wrong most surely, suspect labels, what the scores hung on, costs, pictures, versions. It may be
        written of a run that still goes on, or was cut off.

        Args:
            path: of the file; what is there is replaced.
            n_pictures: of what it gets wrong, at most 200; small copies of them are put into the page, `0` for none.
            dataset: as it was given to the search; `None` for the path that the run has noted.

        Returns:
            Where the page is.

        Raises:
            ArgumentError: it cannot be written there.
            RunError: the run is damaged, or scored by code that nobody has allowed.

        Example:
            result.report("report.html")
        """
        from autobackbone.reports.page import write_report

        given = self._dataset if dataset is None else dataset
        return write_report(self._seen, path, n_pictures=n_pictures, dataset=given)

    def explain(self) -> str:
        """The run in words for whoever has not made one before: what was considered, tried, found and chosen, and what
        more time may bring. Differences stand with their noise.

        Raises:
            RunError: the run is damaged, or scored by code that nobody has allowed.
        """
        from autobackbone.reports.explaining import explanation

        return explanation(self._seen)

    def _repr_html_(self) -> str | None:
        """The choice and the front, in a notebook; nothing of it is a script."""
        from autobackbone.reports.page import notebook_html

        try:
            return notebook_html(self._seen)
        except AutobackboneError:  # a notebook then shows the plain text, or what is wrong with that
            return None

    def model(self, trial: Trial | int | None = None) -> nn.Module:
        """A trial's network.

        Args:
            trial: a trial of the front or its number; `None` for the best.

        Returns:
            A torch module in eval mode on the CPU: (n, 3, height, width) float32 → logits (n, n_classes), or numbers
            (n, n_targets) in their own units. It carries `.transform`, from a picture to one such input, and
            `.classes`.

        Raises:
            RunError: the trial's weights were not kept.
        """
        return self._predictor.network(self._trial(trial))

    def to_onnx(
        self,
        path: str | Path,
        trial: Trial | int | None = None,
        *,
        with_preprocessing: bool = True,
        calibrated: bool = True,
        precision: OnnxPrecision = "float32",
        dataset: Any = None,
        cache_dir: str | Path | None = None,
    ) -> Exported:
        """Write a trial's network as one ONNX file, checked in ONNX Runtime. Needs `autobackbone[onnx]`.

        Args:
            path: of the file.
            trial: as in `model`.
            with_preprocessing: whether it takes pictures: (batch, height, width, 3) uint8, RGB, upright, of any one
                size. Else it takes (batch, 3, height, width) float32, as `model(…).transform` gives one.
            calibrated: whether probabilities are those of `predict_proba`, or what the network itself says.
            precision: `int8` is calibrated on 256 training pictures, and scored beside float32.
            dataset: for `int8`, as it was given to the search; `None` for the path that the run has noted.
            cache_dir: as for the search.

        Returns:
            Where it is, and for `int8` both scores; printing it says so. The file gives `probabilities`, or `numbers`,
            (batch, n_outputs) float32, and names classes, task, run and versions in its metadata.

        Raises:
            ArgumentError: it cannot be written, ONNX is not installed, or a resizing is none that a graph has.
            BackboneError: torch cannot export it, or it gives other outputs then.
            RunError: the trial's weights were not kept, or the dataset has changed.
        """
        wanted = self._trial(trial)
        given = self._dataset if dataset is None else dataset
        return self._outgoing.onnx(
            wanted,
            path,
            with_preprocessing=with_preprocessing,
            calibrated=calibrated,
            precision=precision,
            metric=lambda: self.metric,
            bundle=lambda: bundle_of(self._run, self._facts, given, wanted.image_size, cache_dir=cache_dir),
        )

    def to_timm(self, folder: str | Path, trial: Trial | int | None = None, *, model_card: bool = False) -> Exported:
        """Write a trial's network so that `timm.create_model("local-dir:FOLDER", pretrained=True)` gives it.

        Args:
            folder: for `model.safetensors` and `config.json`; made if need be.
            trial: as in `model`.
            model_card: whether a `README.md` is written, too, as the Hugging Face Hub reads it: scores, the front, the
                digest of the data, the licence of the weights. The folder can then be uploaded as it is.

        Raises:
            ArgumentError: it cannot be written.
            BackboneError: timm cannot build it by its name, such as a network that was cut.
            RunError: the trial's weights were not kept.
        """
        wanted = self._trial(trial)
        written = self._outgoing.timm(wanted, folder)
        if model_card:
            save_model_card(self._seen, wanted, written.path)
        return written

    def to_torch_export(self, path: str | Path, trial: Trial | int | None = None) -> Exported:
        """Write a trial's network as a program for `torch.export.load(path).module()`, with the batch free.

        Args:
            path: of the file, which ends in `.pt2`.
            trial: as in `model`; inputs and outputs are those of the module there.

        Raises:
            ArgumentError: it cannot be written.
            BackboneError: torch cannot export it.
            RunError: the trial's weights were not kept.
        """
        return self._outgoing.torch_export(self._trial(trial), path)

    def lightning_module(
        self, trial: Trial | int | None = None, *, n_unfrozen: int | None = None, lr: float | None = None
    ) -> ContinuedTraining:
        """A trial's network as a module that `pl.Trainer(max_epochs=…).fit` trains on more pictures.

        Loss, optimiser, rate and unfrozen blocks are the trial's. Batches are `(inputs, labels)`; `.transform` makes an
        input of a picture, and `.tuned()` gives the network afterwards.

        Args:
            trial: as in `model`.
            n_unfrozen: trailing blocks that train; `None` for as many as the trial had.
            lr: the constant rate; `None` for the trial's, or 1e-3 where it had none.

        Raises:
            BackboneError: it has no so many blocks.
            RunError: the trial's weights were not kept.
        """
        return self._outgoing.lightning(self._trial(trial), self.metric, n_unfrozen=n_unfrozen, lr=lr)

    def predict_proba(
        self, images: Any, trial: Trial | int | None = None, *, calibrated: bool = True
    ) -> NDArray[np.float32]:
        """Probabilities of classes, which add up to 1, or of labels, each for itself.

        Args:
            images: a list of pictures (paths, PIL images, arrays), or one array (n, height, width[, 3]); a single path
                or PIL image counts as a list of one.
            trial: as in `model`.
            calibrated: whether they are corrected by the temperature of `calibration`; the likeliest class stays the
                same. Scores are of what the network itself says.

        Returns:
            (n_images, n_classes) float32, columns in the order of `classes`.

        Raises:
            ArgumentError: numbers are predicted; they have no probabilities.
        """
        require_probabilities(self.task)
        predicted = self._predictor.probabilities if calibrated else self._predictor.predictions
        return predicted(images, self._trial(trial))

    def predict(self, images: Any, trial: Trial | int | None = None) -> NDArray[Any]:
        """What a picture shows, see `predict_proba`.

        Returns:
            The likeliest class of each picture, (n_images,); the numbers, (n_images, n_targets) float32, or (n_images,)
            of a single one; or 1 for each label of a probability above 0.5, else 0, (n_images, n_labels) int64 in the
            order of `classes`.
        """
        return self._predictor.said_by(self._predictor.predictions(images, self._trial(trial)))

    def calibration(self, trial: Trial | int | None = None) -> Calibration:
        """How far a trial's probabilities can be trusted, before and after they are corrected.

        The temperature is settled on the validation pictures, and measured on the test part where the trial was
        confirmed; else on halves of the validation part, each corrected by a temperature of the other.

        Raises:
            ArgumentError: the run predicts numbers, which are no probabilities.
            RunError: the trial's predictions are not there.
        """
        require_probabilities(self.task)
        return self._predictor.calibration(self._trial(trial))

    def ensemble(self, max_latency_ms: float | None = None) -> Ensemble:
        """Networks of the front that predict together, if they are better than the best of them alone; else that one.

        Args:
            max_latency_ms: what the latencies of its networks, which take turns, may add up to; `None` for no limit.

        Raises:
            ArgumentError: `max_latency_ms` is no number above 0.
            LimitsError: not one is that fast.
            RunError: no trial has finished, or the files of the networks are not there.
        """
        usable = [trial for trial in self.front if self._reader.has_network(trial)]
        if self.front and not usable:
            self._reader.network(self.front[0])  # says what is not there
        return ensemble_of(usable, self._predictor, self.metric, judged=self._judged, max_latency_ms=max_latency_ms)

    def suspects(self, n: int = 50) -> pd.DataFrame:
        """Labels that are probably wrong, the most suspect first: look at these pictures before you trust a score.

        Judged by the best few frozen networks: of training pictures by heads that were fitted without them, of
        validation pictures by those that were screened. Nothing is altered.

        Args:
            n: rows at most.

        Returns:
            Columns `name`, `label`, `label_probability`, `part`, `suggested_probability`, `suggested` and `score`: the
            logarithm of how many times likelier the suggestion is, both raised by 0.05. What is as likely as any
            suggestion is not listed. Of several labels of a picture the most doubtful one is judged. Numbers have no
            probabilities: those are listed that are further from what is said than three robust standard deviations of
            all errors, in which `score` counts then.

        Raises:
            ArgumentError: `n` is no whole number above 0.
            RunError: nothing is screened yet.
        """
        return suspects(self._reader, self.trials, self.metric, n)

    def similar(self) -> pd.DataFrame:
        """Validation pictures that look much like a training picture, such as crops of it and shots of one object.

        If they show the same object, scores flatter: give `groups=` to keep it in one part.

        Returns:
            Columns `name`, `part`, `other_name`, `other_part` and `similarity`, up to 1, the most similar first; no row
            where none are.

        Raises:
            RunError: the run has not looked for them, or the table is damaged.
        """
        return read_similar(self._run)

    def contradictions(self) -> pd.DataFrame:
        """Copies of one picture that do not all carry the same label: one of these labels is wrong.

        Returns:
            Columns `name`, `part`, `label` and `group`, a number that all copies of one picture share, those that agree
            included; several labels of a picture are in one text, with `|` between them. No row where there are no such
            copies, or where numbers are predicted: two measurements of one thing may differ.

        Raises:
            RunError: the run has not looked for copies, or what it notes of its pictures is damaged.
        """
        return contradictions(self._reader)

    def __repr__(self) -> str:
        """The front in a few lines; of a run that cannot be read, why."""
        try:
            return harmless("\n".join(self._lines()), keeps="\n")
        except AutobackboneError as error:
            return harmless(f"Selection in {str(self.path)!r}: {error}")

    def _lines(self) -> list[str]:
        choice, why = self._choice_or_why
        number = None if choice is None else choice.trial.number
        lines = [f"Selection of {counted(len(self.trials), 'trial')} on {self.target}, in {str(self.path)!r}"]
        lines += [
            front_line(one, self.metric, is_chosen=one.number == number, limits=self._limits) for one in self.front
        ]
        lines += [f"nothing is chosen: {why}"] if self.front and choice is None else []
        lines += [self.stopped_before] if self.stopped_before is not None else []
        return lines

    @cached_property
    def _outgoing(self) -> Outgoing:
        return Outgoing(reader=self._reader, predictor=self._predictor, facts=self._facts)

    @property
    def _seen(self) -> RunSeen:
        """What is told of the run as it stands."""
        choice, unchosen = self._choice_or_why
        return RunSeen(
            reader=self._reader,
            facts=self._facts,
            target=self.target,
            metric=self.metric,
            trials=tuple(self.trials),
            front=tuple(self.front),
            choice=choice,
            unchosen=unchosen,
            optimism=None if choice is None else self.optimism,
            advice=self.advice,
            stage_seconds=read_stages(self.study),
            has_ended=has_ended(self.study),
            n_untimely=read_untimely(self.study),
        )

    @property
    def _judged(self) -> Judged:
        if has_folds(self.front):
            return Judged.by_folds(self.front, self._reader.fold_predictions, self._reader.pooled_labels())
        return Judged(front=self.front, predictions=self._validation, labels=self._reader.labels("validation"))

    def _trial(self, trial: Trial | int | None) -> Trial:
        if trial is None:
            return self.best
        number = trial.number if isinstance(trial, Trial) else trial
        if not is_whole(number):
            raise ArgumentError(f"a trial is one of `trials`, or its number; {trial!r} came.")
        found = next((one for one in self.trials if one.number == number), None)
        if found is None:
            raise RunError(f"there is no trial {number!r}; there are {len(self.trials)}, numbered from 0.")
        if isinstance(trial, Trial) and (trial.body, trial.n_unfrozen, trial.lr) != (
            found.body,
            found.n_unfrozen,
            found.lr,
        ):
            raise ArgumentError(
                f"{name_of(trial)} ({trial.body}) is of another run: here that number is {found.body}. Give one of "
                "this run's `trials`."
            )
        return found

    def _validation(self, trial: Trial) -> NDArray[np.float32]:
        return self._reader.predictions(trial, "validation")


def open_run(
    path: str | Path,
    *,
    metric: str | TorchMetric | None = None,
    storage: str | None = None,
    backbones: str | OwnBackbone | Sequence[str | OwnBackbone] | None = None,
) -> Selection:
    """Open a run that was made earlier, here or elsewhere; nothing is written, no code that it brings is run, and no
    server that it names is connected to.

    Args:
        path: of the run folder.
        metric: the user's own metric that the run is scored by, to say that its code may run; not needed for known
            metrics and classes of torchmetrics.
        storage: the database server that holds the run's study, to say that it may be connected to; not needed where a
            search on this machine has named it before. See `select_backbone`.
        backbones: those of your own that the run was given, as they were given, to say that their code may run; needed
            for what makes their networks (`model`, `predict`, `retrain`, `more`) alone.

    Raises:
        ArgumentError: `path` is no path, `storage` no address, or `backbones` names one that is not your own.
        RunError: there is no run, or it is damaged, or its format is newer than this version.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise ArgumentError(f"open_run takes the path of a run folder, not {path!r}. Give the one that a search made.")
    return Selection(Path(path).expanduser().absolute(), metric=metric, storage=storage, backbones=backbones)

"""What the user holds: the front, the table, the models. It reads a run folder; only `refit` adds a file to it."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import nn

from autobackbone.backbones.source import BackboneSource
from autobackbone.choosing import as_they_stand, front_line, front_of
from autobackbone.costrecord import SIDE_BY_SIDE, SITTING, read_costs
from autobackbone.crossfitting import ScoredPart
from autobackbone.errors import ArgumentError, AutobackboneError, RunError
from autobackbone.latency.remembered import LatencyBook
from autobackbone.metrics import score
from autobackbone.ownbackbone import OwnBackbone
from autobackbone.progress import Reporter
from autobackbone.records import Body, Budget, Limits, RefitOn, Target, Trial, counted
from autobackbone.refitting import Refit, refit, until_of
from autobackbone.replaying import script_of
from autobackbone.retargeting import repriced
from autobackbone.retraining import Retrainer
from autobackbone.reviewing import contradictions, suspects
from autobackbone.runfolder import cache_folder
from autobackbone.runners import RunnerRay
from autobackbone.search.similar import read_similar
from autobackbone.search.study import has_ended, read_sound_trials
from autobackbone.settings import Groups, Times
from autobackbone.showing import harmless
from autobackbone.trialframe import frame_of
from autobackbone.using import UsableRun

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from optuna.samplers import BaseSampler
    from torchmetrics import Metric as TorchMetric

    from autobackbone.handing import Strategy


class Selection(UsableRun):
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
            Limits() if limits is None else limits,
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
            devices_per_trial: as for the search. Another number rounds otherwise, and rounding grows in training.

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
            front_line(one, self.metric, is_chosen=one.number == number, limits=self.limits) for one in self.front
        ]
        lines += [f"nothing is chosen: {why}"] if self.front and choice is None else []
        lines += [self.stopped_before] if self.stopped_before is not None else []
        return lines


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

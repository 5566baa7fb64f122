"""What a run has found so far: its trials, its front, and which of them to use."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from autobackbone.choices import best_within, fastest_at_least, preferred
from autobackbone.choosing import (
    Choice,
    as_they_stand,
    comparable,
    front_of,
    mark_front,
    name_of,
    on_one_scale,
)
from autobackbone.errors import ArgumentError, AutobackboneError, LimitsError, RunError
from autobackbone.judging import Judged, has_folds
from autobackbone.loading import RunReader
from autobackbone.metrics import Metric, is_free_of_code, metric_for
from autobackbone.optimism import Optimism, optimism_of
from autobackbone.overfitting import advice, mark_overfitting
from autobackbone.ownbackbone import OwnBackbone, own_given
from autobackbone.predicting import Predictor
from autobackbone.records import Limits, Preference, Task, Trial, is_whole
from autobackbone.reports.seen import RunSeen
from autobackbone.retargeting import Repriced, stopped_line
from autobackbone.runfolder import RunFolder
from autobackbone.search.stagecosts import read_stages, read_untimely
from autobackbone.search.study import has_ended, load_study, read_sound_trials
from autobackbone.search.studyplace import place_of_run
from autobackbone.servers import Server, as_server
from autobackbone.showing import harmless

if TYPE_CHECKING:
    import optuna
    from torchmetrics import Metric as TorchMetric


class StandingRun:
    """A run folder as it stands: trials, front, and the one to use. What they can be used for, its heirs add."""

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

    @property
    def limits(self) -> Limits:
        """What deployment allows; of another target, what was said with it."""
        return Limits(**self._facts["limits"]) if self._repriced is None else self._repriced.limits

    @cached_property
    def trials(self) -> list[Trial]:
        """All trials, in order of number."""
        found = read_sound_trials(self.study) if self._repriced is None else self._repriced.trials
        return mark_overfitting(mark_front(found, self.metric, self.limits), self.metric)

    @cached_property
    def front(self) -> list[Trial]:
        """The finished trials that no other beats on both score and latency, fastest first."""
        return front_of(self.trials, self.metric, self.limits)

    @cached_property
    def choice(self) -> Choice:
        """The trial to use and the reason, in one sentence.

        Raises:
            LimitsError: nothing on the front keeps the limits.
            RunError: no trial has finished.
        """
        try:
            judged = self._judged.choice(self.metric, tolerance=self._facts["tolerance"], limits=self.limits)
        except LimitsError as error:
            raise LimitsError(f"{error} What was tried is kept: {self._what_is_left()}") from None
        return replace(judged, trial=self._trial(judged.trial.number))

    def _what_is_left(self) -> str:
        """What can be had of a run of which nothing keeps the limits."""
        more = f"open_run({str(self.path)!r}).more('10min') goes on"
        fastest_ms, limit_ms = self.front[0].latency_ms, self.limits.latency_ms
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

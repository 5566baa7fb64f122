"""What the stages of one run share: the data, the networks, the study, and what has been learned so far."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optuna
import torch
from numpy.typing import NDArray
from torch import nn

from autobackbone.backbones.blocks import BatchNormMode
from autobackbone.backbones.head import set_head
from autobackbone.backbones.source import BackboneSource
from autobackbone.choosing import front_line, front_of, that_keep, trial_line, within_limits
from autobackbone.clock import Clock
from autobackbone.convexhead import Head
from autobackbone.costrecord import CostEntry, CostRecord
from autobackbone.data import DataBundle, Survey, pooled, preprocess_ms
from autobackbone.errors import MetricError, RunError
from autobackbone.latency.given import GivenLatencies
from autobackbone.latency.remembered import LatencyBook
from autobackbone.metrics import Metric, score, standard_error, to_maximised
from autobackbone.progress import Reporter, tell_standing
from autobackbone.records import Body, Candidate, ImageSize, Latency, Limits, Priced, Target, Trial
from autobackbone.runfolder import RunFolder
from autobackbone.screening import predict
from autobackbone.search import trialfiles
from autobackbone.search.costs import Costs
from autobackbone.search.leaving import Failures
from autobackbone.search.space import Space
from autobackbone.search.study import Ledger, read_trials
from autobackbone.training.stores import Stores


@dataclass(slots=True, kw_only=True)
class Workshop:
    """Made once a run; the stages read it, and note in it what they learn.

    Args:
        balanced_metric: scored beside the metric, where uneven classes flatter that; else `None`.
        priced: what each body costs to run.
        heads: of each body the number of its screened trial and its head.
        fold_heads: of a body that was scored by folds, and of each repeat, the head without each fold.
        failures: trainings that failed in a row.
        tidied: numbers of ended trials of which neither a checkpoint nor weights are left.
        first: candidates that are tried before all others, frozen ones, too.
        awaited: whole bodies that some of these need, whose turn to be screened has not come yet.
    """

    run: RunFolder
    bundle: DataBundle
    source: BackboneSource
    target: Target
    device: torch.device
    book: LatencyBook | GivenLatencies
    stores: Stores
    study: optuna.Study
    space: Space
    metric: Metric
    balanced_metric: Metric | None
    limits: Limits
    clock: Clock
    ledger: Ledger
    reporter: Reporter
    batch_norm: BatchNormMode
    seed: int
    tolerance: float | None
    stop_early: bool
    survey: Survey
    first: tuple[Candidate, ...] = ()
    awaited: set[Body] = field(init=False)
    _preprocess_ms: dict[ImageSize, float] = field(default_factory=dict)
    costs: Costs = field(init=False)
    priced: dict[Body, Priced] = field(default_factory=dict)
    heads: dict[Body, tuple[int, Head]] = field(default_factory=dict)
    fold_heads: dict[tuple[Body, int], list[Head]] = field(default_factory=dict)
    failures: Failures = field(default_factory=Failures)
    tidied: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        n_train, n_validation = (len(self.bundle.indices(part)) for part in ("train", "validation"))
        self.costs = Costs(n_train=n_train, n_validation=n_validation)
        self.awaited = {Body(*pair) for pair in self.first_pairs}

    @property
    def record(self) -> CostRecord:
        """What is measured goes through it, so that it is noted, or taken from an earlier run."""
        return self.stores.record

    @property
    def first_pairs(self) -> list[tuple[str, ImageSize]]:
        """Backbones and image sizes that are screened before all others."""
        return list(dict.fromkeys(one.body[:2] for one in self.first))

    def trials(self) -> list[Trial]:
        """All trials so far, in order of number."""
        return read_trials(self.study)

    def rivals(self) -> Sequence[Trial]:
        """Trials that may beat others: what breaks a limit does not, while anything keeps them."""
        return within_limits(self.trials(), self.limits)

    def tell(self, trial: Trial) -> None:
        """Say how a trial ended, and show where the front stands to whoever shows it."""
        self.reporter.say(trial_line(trial, self.metric))
        tell_standing(self.reporter, self._front_lines)

    def _front_lines(self) -> list[str]:
        """Fastest first, the best score so far within the limits marked."""
        front = front_of(self.trials(), self.metric, self.limits)
        kept = that_keep(front, self.limits)
        top = max(kept, key=lambda one: to_maximised(self.metric, one.score or 0.0), default=None)
        return [front_line(one, self.metric, is_chosen=one is top, limits=self.limits) for one in front]

    def recall(self) -> None:
        """Take up the screened trials of earlier sittings, with their latencies.

        One that was cut short by the clock is screened again.

        Raises:
            RunError: predictions that choosing needs, or a head, are not there or damaged.
        """
        for trial in self.trials():
            if trial.state == "finished":
                self.validation_of(trial)
                if trial.fold_score is not None:
                    self.folds_of(trial)
            if trial.state == "finished" and trial.n_unfrozen == 0 and trial.extras["scored_share"] == 1.0:
                body = trial.body
                self.heads[body] = (trial.number, trialfiles.load_head(self.run, trial.number))
                self.costs.forward_s[body] = float(trial.extras["forward_s"])
                self.costs.n_blocks[body] = trial.n_blocks
                self.priced[body] = _priced(trial)

    def validation_score(self, predictions: NDArray[np.float32]) -> float:
        """In the metric's own sign and unit; pictures that were not reached (NaN) are left out."""
        return self._scored(self.metric, predictions)

    def balanced_score(self, predictions: NDArray[np.float32]) -> float | None:
        """Balanced accuracy on the same pictures, where the score is flattered by uneven classes; else `None`."""
        return None if self.balanced_metric is None else self._scored(self.balanced_metric, predictions)

    def validation_se(self, predictions: NDArray[np.float32]) -> float:
        """The standard error of that score."""
        labels = self.bundle.labels[self.bundle.indices("validation")]
        is_reached = ~np.isnan(predictions).any(axis=1)
        return standard_error(self.metric, predictions[is_reached], labels[is_reached], seed=self.seed)

    def _scored(self, metric: Metric, predictions: NDArray[np.float32]) -> float:
        labels = self.bundle.labels[self.bundle.indices("validation")]
        is_reached = ~np.isnan(predictions).any(axis=1)
        return score(metric, predictions[is_reached], labels[is_reached])

    def train_score(self, predictions: NDArray[np.float32], labels: NDArray[Any]) -> float:
        """Of training pictures, in the metric's own sign and unit.

        NaN where it is not defined: no training shall end for want of it.
        """
        try:
            return score(self.metric, predictions, labels)
        except MetricError:
            return math.nan

    def validation_of(self, trial: Trial) -> NDArray[np.float32]:
        """A finished trial's validation predictions, (n_validation, n_outputs)."""
        shape = (len(self.bundle.indices("validation")), len(self.bundle.classes))
        return trialfiles.load_predictions(self.run, trial.number, trialfiles.VALIDATION, shape=shape)

    def folds_of(self, trial: Trial) -> NDArray[np.float32]:
        """What a trial's networks said of the folds that they were trained without.

        Returns:
            (n_repeats, n_train + n_validation, n_outputs), by ascending number of the picture, of each repeat.
        """
        return trialfiles.load_folds(self.run, trial.number, (len(pooled(self.bundle)), len(self.bundle.classes)))

    def keep_network(self, trial: Trial) -> None:
        """Keep a trial's whole network, so that it can be used wherever the run folder goes."""
        if not trialfiles.has_weights(self.run, trial.number):
            self.tidied.discard(trial.number)
            trialfiles.save_weights(self.run, trial.number, self.network_of(trial).state_dict())

    def network_of(self, trial: Trial) -> nn.Module:
        """A finished trial's network, in eval mode on the CPU.

        Raises:
            RunError: its files are not there.
        """
        network = self.source.network(*trial.body)
        if trialfiles.has_weights(self.run, trial.number):
            trialfiles.load_weights(self.run, trial.number, network)
        elif trial.n_unfrozen == 0:
            head = trialfiles.load_head(self.run, trial.number)
            set_head(network, torch.from_numpy(head.weight), torch.from_numpy(head.bias))
        else:
            raise RunError(
                f"trial {trial.number} has no weights in {str(self.run.path)!r}: they are kept for the front alone, or "
                "the file was removed. Put it back, or search again in another run_dir."
            )
        return network.eval()

    def predict(self, network: nn.Module, of: Candidate | Trial, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        """What a network says of some pictures, (n_images, n_outputs), in the target's precision."""
        return predict(
            network.to(self.device),
            self.bundle,
            indices,
            of.image_size,
            self.source.normalisation(of.backbone),
            device=self.device,
            precision=self.target.precision,
            entry=CostEntry(self.record, f"predictions of {of.body}"),
        )

    def preprocess_ms(self, image_size: ImageSize) -> float:
        """Median milliseconds from one of the user's pictures to pixels of a size, measured once."""
        if image_size not in self._preprocess_ms:
            self._preprocess_ms[image_size] = preprocess_ms(self.survey, image_size)
        return self._preprocess_ms[image_size]

    def use_share(self) -> float:
        """How much of the budget's time is used, from 0 to 1; 0 without a limit of time."""
        whole = self.clock.budget.wall_clock_s
        return 0.0 if whole is None else min(1.0, 1 - self.clock.left_s() / whole)


def _priced(trial: Trial) -> Priced:
    """What an earlier sitting measured: a body has one latency in a run."""
    assert trial.latency_ms is not None
    assert trial.n_params is not None
    assert trial.megabytes is not None
    return Priced(
        backbone=trial.backbone,
        image_size=trial.image_size,
        latency=Latency(
            p50_ms=trial.latency_ms,
            p95_ms=trial.latency_p95_ms or trial.latency_ms,
            noise_ms=trial.latency_noise_ms or 0.0,
            images_per_s=trial.images_per_s or float("nan"),
            n_repeats=0,
        ),
        n_blocks=trial.n_blocks,
        n_params=trial.n_params,
        megabytes=trial.megabytes,
        preprocess_ms=trial.preprocess_ms,
        n_blocks_kept=trial.n_blocks_kept,
    )

"""Trains a trial of a run once more: as its decisions were recorded, or on the validation pictures, too."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from autobackbone.backbones.every import Backbones
from autobackbone.backbones.head import set_head
from autobackbone.backbones.source import BackboneSource
from autobackbone.choosing import name_of
from autobackbone.convexhead import Head, fit_head
from autobackbone.data import (
    LEFT_OUT,
    PART_CODES,
    DataBundle,
    PartSource,
    Preparation,
    Spooling,
    Survey,
    decode,
    printable,
)
from autobackbone.data.finding import find
from autobackbone.data.sources import Found
from autobackbone.errors import ArgumentError, EpochTooLongError, RunError, TrialError
from autobackbone.handing import as_handed, noted
from autobackbone.latency.target import resolve
from autobackbone.metrics import Metric, score, to_maximised
from autobackbone.records import ImageSize, Precision, RefitOn, Target, Trial, counted
from autobackbone.runfolder import RunFolder, cache_folder
from autobackbone.running.crossing import require_crossing
from autobackbone.running.runner import Tunes
from autobackbone.running.worker import training_with
from autobackbone.scratch import scratch_folder
from autobackbone.screening import extract, fair_order, predict
from autobackbone.search import trialfiles
from autobackbone.search.evaluate import LEGS, N_VIEWS
from autobackbone.search.extras import CLASS_WEIGHTS
from autobackbone.search.repeating import candidate_again, useful_epochs
from autobackbone.settings import as_workers
from autobackbone.training.activations import activation_cache
from autobackbone.training.fit import Scorer
from autobackbone.training.pausing import Leg
from autobackbone.training.ranks import require_devices
from autobackbone.training.stores import Stores
from autobackbone.training.tuner import Tuner, training_device

# Rounding in a pass moves a head by less than this share of it.
_SAME_HEAD = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """A trial's network, trained once more.

    Args:
        network: in eval mode on the CPU.
        validation: (n_validation, n_outputs) its predictions for the validation part, in the run's order; of what was
            trained on these, too, they say nothing.
        test: the same for the test part.
        n_epochs: that it was trained.
        seconds: that it took.
    """

    network: nn.Module
    validation: NDArray[np.float32]
    test: NDArray[np.float32]
    n_epochs: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrainer:
    """What it takes to train trials of a run again.

    Args:
        run: the folder.
        facts: of it.
        bundle: its pictures, in its own parts.
        trials: all of the run.
        metric: of its scores.
        cache_dir: where activations are kept.
        backbones: what the names of its backbones stand for.
        workers: 0 trains in this process, any other number in one worker process, or one group of them.
        devices_per_trial: worker processes that train together.
    """

    run: RunFolder
    facts: Mapping[str, Any]
    bundle: DataBundle
    trials: tuple[Trial, ...]
    metric: Metric
    cache_dir: Path
    backbones: Backbones
    workers: int = 0
    devices_per_trial: int = 1

    @classmethod
    def of(
        cls,
        run: RunFolder,
        facts: Mapping[str, Any],
        trials: Sequence[Trial],
        wanted: Trial,
        metric: Metric,
        *,
        dataset: Any,
        backbones: Backbones,
        cache_dir: str | Path | None,
        workers: int | None,
        devices_per_trial: int,
    ) -> Retrainer:
        """With the pictures of the run at the size of one trial.

        Raises:
            ArgumentError: no dataset came, and the run has noted no path; or a worker could not have the metric.
            RunError: that trial was not trained, or the dataset is another one.
        """
        n_workers = as_workers(workers, devices_per_trial)
        require_devices(devices_per_trial, training_device())
        if n_workers:
            require_crossing(metric, backbones.own.values())
        if wanted.state != "finished" and not wanted.rung_scores:
            raise RunError(f"trial {wanted.number} is {wanted.state}: there is no training of it to repeat.")
        cache = _cache(cache_dir)
        bundle = recorded_bundle(run, facts, dataset, wanted.image_size, cache_dir=cache)
        return cls(
            run=run,
            facts=facts,
            bundle=bundle,
            trials=tuple(trials),
            metric=metric,
            cache_dir=cache,
            backbones=backbones,
            workers=n_workers,
            devices_per_trial=devices_per_trial,
        )

    def retrained(self, trial: Trial) -> Again:
        """As the trial was trained: from its head, in its legs, with its views and precision.

        A frozen one gets its head fitted anew, or the recorded one where a clock had cut that fit short.

        Raises:
            RunError: the run does not say how it was trained.
        """
        begun = time.monotonic()
        if trial.n_unfrozen == 0:
            head, recorded = self._fitted_head(trial, self.bundle), trialfiles.load_head(self.run, trial.number)
            # Where time was short its penalty was chosen, or it was fitted, on a part of the pictures.
            apart = np.linalg.norm(head.weight - recorded.weight) / np.linalg.norm(recorded.weight)
            return self._with_head(trial, head if apart < _SAME_HEAD else recorded, begun)
        legs = trial.extras.get(LEGS)
        if not legs:
            raise RunError(f"{name_of(trial)} was trained before runs recorded how: only newer runs can be replayed.")
        training = self._training(self.bundle, trial, self._validation_score)
        with training as tuner, scratch_folder() as folder:
            for leg in legs:
                part = Leg(checkpoint=folder / "leg.ckpt", n_before=int(leg["n_before"]), pause_at=leg["pause_at"])
                candidate = candidate_again(trial, n_epochs=int(leg["n_epochs"]))
                network, outcome = tuner.tune(candidate, self._head_of(trial), n_views=int(leg["n_views"]), leg=part)
        return self._judged(trial, network, len(outcome.rung_scores), begun)

    def refitted(self, trial: Trial, on: RefitOn, until: float | None) -> Again:
        """Trained on the training part, or on the validation part, too, with every augmentation, as long as its best
        rung came; nothing is scored on the way.

        Args:
            trial: of the run.
            on: which pictures.
            until: `time.monotonic()` by which it has ended, in fewer epochs if need be.

        Raises:
            TrialError: not even the pass over the pictures and one epoch fit.
        """
        begun, parts = time.monotonic(), self.bundle.parts.copy()
        wanted = parts == PART_CODES["validation"]
        parts[wanted] = PART_CODES["train"] if on == "train+val" else LEFT_OUT
        bundle = replace(self.bundle, parts=parts, split_digest=f"{self.bundle.split_digest}-{on}")
        if trial.n_unfrozen == 0:
            return self._with_head(trial, self._fitted_head(trial, bundle, until), begun)
        head = self._fitted_head(trial, bundle, until)
        candidate = candidate_again(trial, n_epochs=useful_epochs(trial, self.metric))
        with self._training(bundle, trial, lambda _: 0.0) as tuner:
            try:
                network, outcome = tuner.tune(candidate, head, until=until, n_views=N_VIEWS)
            except TrialError as error:
                is_late = type(error) is TrialError and until is not None and time.monotonic() > until
                if is_late or isinstance(error, EpochTooLongError):
                    raise TrialError(f"{str(error).rstrip('.')}. Raise budget.") from error
                raise
        return self._judged(trial, network, outcome.n_epochs, begun)

    @contextmanager
    def _training(self, bundle: DataBundle, trial: Trial, scorer: Scorer) -> Iterator[Tunes]:
        """Who trains; a run may be read-only, or another process be at work on it: nothing crosses in its folder."""
        local = Tuner(
            stores=self._stores(bundle, trial),
            score=scorer,
            batch_norm=self.facts["arguments"]["batch_norm"],
            handed=as_handed(noted(self.facts["arguments"].get("trainer_kwargs")), None, None),
        )
        with scratch_folder() as folder:
            crossing = folder / "worker"
            of = (min(self.workers, 1), local, self._source(trial), self.metric, crossing)
            with training_with(*of, n_ranks=self.devices_per_trial) as runner:
                yield runner

    def _with_head(self, trial: Trial, head: Head, begun: float) -> Again:
        network = self._source(trial).network(*trial.body)
        set_head(network, torch.from_numpy(head.weight), torch.from_numpy(head.bias))
        return self._judged(trial, network.eval(), 0, begun)

    def _judged(self, trial: Trial, network: nn.Module, n_epochs: int, begun: float) -> Again:
        seconds = time.monotonic() - begun
        validation, test = (self.predicted(trial, network, part) for part in ("validation", "test"))
        return Again(network=network.cpu().eval(), validation=validation, test=test, n_epochs=n_epochs, seconds=seconds)

    def predicted(self, trial: Trial, network: nn.Module, part: Literal["validation", "test"]) -> NDArray[np.float32]:
        """(n_images, n_outputs) what a network of a trial's kind says of a part, in the run's order."""
        indices = self.bundle.indices(part)
        if len(indices) == 0:
            return np.empty((0, len(self.bundle.classes)), np.float32)
        source = self._source(trial)
        return predict(
            network.to(training_device()),
            self.bundle,
            indices,
            trial.image_size,
            source.normalisation(trial.backbone),
            device=training_device(),
            precision=self._precision,
        )

    @property
    def _precision(self) -> Precision:
        return resolve(Target.from_json(self.facts["arguments"]["target"])).precision

    def _validation_score(self, predictions: NDArray[np.float32]) -> float:
        labels = self.bundle.labels[self.bundle.indices("validation")]
        return to_maximised(self.metric, score(self.metric, predictions, labels))

    def _head_of(self, trial: Trial) -> Head:
        """The head that its training began with."""
        frozen = [one for one in self.trials if one.n_unfrozen == 0 and one.body == trial.body]
        whole = [one for one in frozen if one.state == "finished" and one.extras.get("scored_share") == 1.0]
        if not whole:
            raise RunError(f"the head that {name_of(trial)} began with is not in the run {str(self.run.path)!r}.")
        return trialfiles.load_head(self.run, whole[-1].number)

    def _fitted_head(self, trial: Trial, bundle: DataBundle, until: float | None = None) -> Head:
        source, seed = self._source(trial), int(self.facts["arguments"]["seed"])
        order = fair_order(bundle, seed=seed)
        reached = extract(
            source.network(*trial.body).to(training_device()),
            bundle,
            order,
            trial.image_size,
            source.normalisation(trial.backbone),
            device=training_device(),
            precision=self._precision,
            until=until,
        )
        labels = bundle.labels[reached.train_indices]
        n_wanted = int((bundle.parts == PART_CODES["train"]).sum())
        if len(labels) < n_wanted:
            raise TrialError(
                f"the time ended after {len(labels):,} of {n_wanted:,} training pictures had passed. Raise budget."
            )
        # One that is searched concerns what is fine-tuned alone.
        is_balanced = self.facts["arguments"]["space"].get(CLASS_WEIGHTS) == "balanced"
        return fit_head(
            reached.train,
            labels,
            n_outputs=len(bundle.classes),
            task=bundle.task,
            seed=seed,
            copy=False,
            class_weights="balanced" if is_balanced else "none",
        )

    def _source(self, trial: Trial) -> BackboneSource:
        return BackboneSource(
            {trial.backbone: self.backbones[trial.backbone].find_weights(self.facts["weights"])},
            n_classes=len(self.bundle.classes),
            seed=int(self.facts["arguments"]["seed"]),
            backbones=self.backbones,
        )

    def _stores(self, bundle: DataBundle, trial: Trial) -> Stores:
        return Stores(
            bundle=bundle,
            source=self._source(trial),
            cache=activation_cache(self.cache_dir / "activations"),
            device=training_device(),
            seed=int(self.facts["arguments"]["seed"]),
            precision=self._precision,
        )


def bundle_of(
    run: RunFolder, facts: Mapping[str, Any], dataset: Any, image_size: ImageSize, *, cache_dir: str | Path | None
) -> DataBundle:
    """As `recorded_bundle`, with a cache as users name it."""
    return recorded_bundle(run, facts, dataset, image_size, cache_dir=_cache(cache_dir))


def _cache(cache_dir: str | Path | None) -> Path:
    return cache_folder() if cache_dir is None else Path(cache_dir).expanduser()


def recorded_bundle(
    run: RunFolder, facts: Mapping[str, Any], dataset: Any, image_size: ImageSize, *, cache_dir: Path
) -> DataBundle:
    """The pictures of a run in the parts that it recorded.

    Args:
        run: the folder.
        facts: of it.
        dataset: as it was given to the search; `None` for the path that the run names.
        image_size: to decode to, if it is not there.
        cache_dir: where decoded pictures lie.

    Raises:
        ArgumentError: no dataset was given, and the run does not name one.
        RunError: the dataset is another one.
    """
    given = dataset if dataset is not None else facts.get("dataset")
    if given is None:
        raise ArgumentError(
            "this needs the pictures, which the run does not hold: give dataset=, as for the search. A data "
            "frame or arrays can only be given in Python."
        )
    preparation = Preparation.from_json(facts["preparation"])
    spooling = Spooling(folder=cache_dir / "spool", n_most=facts.get("n_streamed"), is_known=True)
    found = find(given, preparation.channels, task=facts["task"], label=facts.get("label"), spooling=spooling)
    pictures = trialfiles.read_pictures(run)
    place = {printable(name): index for index, name in enumerate(found.source.names)}
    absent = [name for name in pictures["name"] if name not in place]
    if absent:
        raise RunError(
            f"{len(absent)} pictures of the run are not in the dataset, such as {absent[0]!r}. Give the same."
        )
    indices = np.array([place[name] for name in pictures["name"]], np.int64)
    recorded = trialfiles.read_all_labels(run, facts["task"])
    parts = np.array([PART_CODES.get(part, LEFT_OUT) for part in pictures["part"]], np.int8)
    _require_same_labels(run, found, indices, recorded, parts, tuple(facts["classes"]))
    survey = Survey(
        source=PartSource(whole=found.source, indices=indices),
        classes=tuple(facts["classes"]),
        names=tuple(found.source.names[index] for index in indices),
        labels=recorded,
        parts=parts,
        skipped=(),
        preparation=preparation,
        task=facts["task"],
    )
    bundle = decode(survey, [image_size], cache_dir=cache_dir)
    if bundle.digest != facts["data_digest"]:
        raise RunError(
            f"the dataset has changed since the run {str(run.path)!r} began (digest {facts['data_digest'][:12]}, now "
            f"{bundle.digest[:12]}): what is trained on it now would be something else."
        )
    return bundle


def _require_same_labels(
    run: RunFolder,
    found: Found,
    indices: NDArray[np.int64],
    recorded: NDArray[Any],
    parts: NDArray[np.int8],
    classes: tuple[str | int, ...],
) -> None:
    """What was corrected since would be trained on, and scored, as it was before."""
    used = np.flatnonzero(parts != LEFT_OUT)
    given, kept = found.labels[indices[used]], recorded[used]
    names, own = (np.array([str(name) for name in some], dtype=object) for some in (found.classes, classes))
    if found.task == "classification":
        differs = names[given] != own[kept]
    elif set(own) <= set(names):
        columns = [int(np.flatnonzero(names == name)[0]) for name in own]
        differs = ~np.isclose(given[:, columns].astype(np.float64), kept.astype(np.float64), rtol=1e-9).all(axis=1)
    else:
        differs = np.ones(len(used), np.bool_)
    if differs.any():
        name = found.source.names[indices[used[int(differs.argmax())]]]
        raise RunError(
            f"the dataset has changed since the run {str(run.path)!r} began: {counted(int(differs.sum()), 'label')} "
            f"now differ from what it was trained and scored on, such as that of {printable(name)!r}. Search again "
            "with these, in another run_dir."
        )

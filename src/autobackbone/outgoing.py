"""What leaves a run: a trial's network as ONNX, as timm reads it, as a program of torch, as a module of Lightning."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from autobackbone.backbones.fromtimm import TimmBackbone
from autobackbone.backbones.localdir import save_local_dir
from autobackbone.choosing import name_of
from autobackbone.crossfitting import ScoredPart
from autobackbone.errors import ArgumentError, BackboneError
from autobackbone.exporting.onnx_graph import network_onnx, require_onnx, save_onnx, session, with_ends
from autobackbone.exporting.preprocessing import preprocessing
from autobackbone.exporting.program import save_program
from autobackbone.exporting.quantising import quantised
from autobackbone.exporting.transform import normalise
from autobackbone.loading import RunReader
from autobackbone.metrics import Metric, score, shown
from autobackbone.predicting import Predictor
from autobackbone.records import Candidate, Normalisation, Trial, is_number, is_whole, shown_megabytes
from autobackbone.search import trialfiles
from autobackbone.tasks import predictions_of

if TYPE_CHECKING:
    from onnx import ModelProto

    from autobackbone.data import DataBundle
    from autobackbone.training.continuing import ContinuedTraining

OnnxPrecision = Literal["float32", "int8"]
Batches = Iterator[NDArray[np.float32]]

_N_CALIBRATION = 256
_BATCH_SIZE = 16
# Of a frozen network's classifier, whose own head was fitted without a rate.
_HEAD_LR = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """A network that was written.

    Args:
        path: the file, or timm's folder.
        trial: whose network it is.
        megabytes: of what was written, 10**6 bytes.
        precision: `int8` or `float32`.
        score: of an `int8` network, run in ONNX Runtime on pictures that did not calibrate it, in the metric's own sign
            and unit; `None` where nothing was scored, since a `float32` one gives what the trial's gives.
        score_fp32: of the same network in float32 on the same pictures.
        part: whose pictures: `test` where the trial was confirmed on them.
        n_images: how many.
        sentence: what that comes to.
    """

    path: Path
    trial: Trial
    megabytes: float
    precision: OnnxPrecision = "float32"
    score: float | None = None
    score_fp32: float | None = None
    part: ScoredPart | None = None
    n_images: int = 0
    sentence: str

    def __str__(self) -> str:
        """What it comes to."""
        return self.sentence


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """Writes networks of one run.

    Args:
        reader: of the run.
        predictor: of the run.
        facts: of it.
    """

    reader: RunReader
    predictor: Predictor
    facts: Mapping[str, Any]
    _last: dict[int, ModelProto] = field(default_factory=dict, init=False, repr=False, compare=False)

    def onnx(
        self,
        trial: Trial,
        path: str | os.PathLike[str],
        *,
        with_preprocessing: bool,
        calibrated: bool,
        precision: OnnxPrecision,
        metric: Callable[[], Metric],
        bundle: Callable[[], DataBundle],
    ) -> Exported:
        """As `Selection.to_onnx` has it; the bundle and the metric are asked for where pictures are needed."""
        if precision not in get_args(OnnxPrecision):
            raise ArgumentError(f"precision is {' or '.join(map(repr, get_args(OnnxPrecision)))}, not {precision!r}.")
        require_onnx()
        file = as_path(path)
        preparation = self.reader.preparation
        norm = self.reader.backbones[trial.backbone].normalisation()
        before = preprocessing(trial.image_size, preparation, norm) if with_preprocessing else None
        whole = self._network(trial)
        graph = whole
        if precision == "int8":
            pictures = bundle()
            graph = quantised(whole, _calibration(pictures, trial, norm))
        temperature = self.predictor.temperature(trial) if calibrated and self.reader.task != "regression" else 1.0
        size_mb = save_onnx(
            with_ends(graph, before, self.reader.task, temperature), file, self._told(trial, temperature, precision)
        )
        written = Exported(path=file, trial=trial, megabytes=size_mb, precision=precision, sentence="")
        if precision == "int8":
            written = self._scored(written, whole, graph, pictures, metric())
        return replace(written, sentence=_sentence(written, metric))

    def timm(self, trial: Trial, folder: str | os.PathLike[str]) -> Exported:
        """As `Selection.to_timm` has it."""
        if not isinstance(self.reader.backbones[trial.backbone], TimmBackbone):
            raise BackboneError(
                f"{name_of(trial)} is a network of {trial.backbone}, which timm does not build. Use to_onnx or "
                "to_torch_export, or name a trial of a backbone of timm."
            )
        if trial.n_blocks_kept is not None:
            raise BackboneError(
                f"{name_of(trial)} was cut after {trial.n_blocks_kept} blocks, and timm builds whole networks alone. "
                "Use to_onnx or to_torch_export, or name a trial whose n_blocks_kept is None."
            )
        preparation = self.reader.preparation
        size_mb = save_local_dir(
            self.predictor.network(trial),
            as_path(folder),
            image_size=trial.image_size,
            normalisation=self.reader.backbones[trial.backbone].normalisation(),
            resize=preparation.resize,
            interpolation=preparation.interpolation,
            classes=self.reader.classes,
        )
        written = Exported(path=as_path(folder), trial=trial, megabytes=size_mb, sentence="")
        return replace(written, sentence=_sentence(written, None))

    def torch_export(self, trial: Trial, path: str | os.PathLike[str]) -> Exported:
        """As `Selection.to_torch_export` has it."""
        file = as_path(path)
        size_mb = save_program(self.predictor.network(trial), trial.image_size, file)
        written = Exported(path=file, trial=trial, megabytes=size_mb, sentence="")
        return replace(written, sentence=_sentence(written, None))

    def lightning(self, trial: Trial, metric: Metric, *, n_unfrozen: int | None, lr: float | None) -> ContinuedTraining:
        """As `Selection.lightning_module` has it."""
        from autobackbone.training.continuing import ContinuedTraining
        from autobackbone.training.objective import Objective
        from autobackbone.training.tuner import class_weights_of, recipe_of

        if lr is not None and not (is_number(lr) and 0 < lr < math.inf):
            raise ArgumentError(f"lr is a learning rate above 0, or None for the trial's; {lr!r} came.")
        if n_unfrozen is not None and not (is_whole(n_unfrozen) and n_unfrozen >= 0):
            raise ArgumentError(
                f"n_unfrozen is a whole number of trailing blocks, or None for the trial's; {n_unfrozen!r} came."
            )
        arguments, task = self.facts["arguments"], self.reader.task
        labels = trialfiles.read_labels(self.reader.run, "train", task)
        candidate = Candidate(
            **trial.body._asdict(),
            n_unfrozen=trial.n_unfrozen if n_unfrozen is None else n_unfrozen,
            lr=float(lr or trial.lr or _HEAD_LR),
            extras=trial.extras,
        )
        return ContinuedTraining(
            self.reader.network(trial),
            Objective.of(task, labels, class_weights=class_weights_of(candidate)),
            recipe_of(candidate, task, n_train=len(labels), seed=int(arguments["seed"])),
            n_unfrozen=candidate.n_unfrozen,
            batch_norm=arguments["batch_norm"],
            score=lambda said, truth: score(metric, said, truth),
        )

    def _network(self, trial: Trial) -> ModelProto:
        """A trial's graph, kept for the next file: torch takes its time to export, and 8 bits often follow 32."""
        if trial.number not in self._last:
            graph = network_onnx(self.predictor.network(trial), trial.image_size)
            self._last.clear()
            self._last[trial.number] = graph
        return self._last[trial.number]

    def _told(self, trial: Trial, temperature: float, precision: OnnxPrecision) -> dict[str, Any]:
        """What the file says of itself: no path, which may name a person."""
        return {
            "task": self.reader.task,
            "classes": list(self.reader.classes),
            "backbone": trial.backbone,
            "image_size": list(trial.image_size),
            "preparation": self.reader.preparation.to_json(),
            "temperature": temperature,
            "precision": precision,
            "run": self.reader.run.path.name,
            "trial": trial.number,
            "data_digest": self.facts["data_digest"],
            "versions": {name: version(name) for name in ("autobackbone", "torch", "timm", "onnx", "pillow")},
        }

    def _scored(
        self, written: Exported, whole: ModelProto, graph: ModelProto, bundle: DataBundle, metric: Metric
    ) -> Exported:
        trial = written.trial
        part: ScoredPart = "test" if self.predictor.has_scored(trial, "test") else "validation"
        indices = bundle.indices(part)
        labels = bundle.labels[indices]
        norm = self.reader.backbones[trial.backbone].normalisation()
        found = []
        for one in (graph, whole):
            run = session(one)
            logits = np.concatenate([run(inputs) for inputs in _inputs(bundle, trial, indices, norm)])
            said = predictions_of(torch.from_numpy(logits), self.reader.task).numpy()
            found.append(score(metric, said, labels))
        return replace(written, score=found[0], score_fp32=found[1], part=part, n_images=len(indices))


def as_path(path: str | os.PathLike[str]) -> Path:
    """A path of a user's.

    Raises:
        ArgumentError: it is none.
    """
    if not isinstance(path, (str, os.PathLike)) or "\0" in str(path):
        raise ArgumentError(f"path is where to write to, a text or a path; {path!r} came.")
    return Path(path).expanduser().absolute()


def _calibration(bundle: DataBundle, trial: Trial, norm: Normalisation) -> Batches:
    indices = bundle.indices("train")
    drawn = np.random.default_rng(0).permutation(indices)[:_N_CALIBRATION]
    return _inputs(bundle, trial, np.sort(drawn), norm)


def _inputs(bundle: DataBundle, trial: Trial, indices: NDArray[np.int64], norm: Normalisation) -> Batches:
    pixels = bundle.pixels(trial.image_size)
    for start in range(0, len(indices), _BATCH_SIZE):
        batch = torch.from_numpy(np.array(pixels[indices[start : start + _BATCH_SIZE]]))
        yield normalise(batch, norm).contiguous().numpy()


def _sentence(written: Exported, metric: Callable[[], Metric] | None) -> str:
    megabytes = shown_megabytes(written.megabytes)
    text = f"{name_of(written.trial)} in {str(written.path)!r}, {written.precision}, {megabytes} MB"
    if written.score is None or written.score_fp32 is None or metric is None:
        return f"{text}."
    by = metric()
    return (
        f"{text}: {by.name} {shown(by, written.score)} on {written.n_images:,} {written.part} pictures, in float32 "
        f"{shown(by, written.score_fp32)}."
    )

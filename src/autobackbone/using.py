"""A run's networks at work: predictions, ensembles, and files for other tools."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from autobackbone.calibration import Calibration
from autobackbone.ensembling import Ensemble, ensemble_of
from autobackbone.outgoing import Exported, OnnxPrecision, Outgoing
from autobackbone.records import Trial
from autobackbone.reports.modelcard import save_model_card
from autobackbone.retraining import bundle_of
from autobackbone.standing import StandingRun
from autobackbone.tasks import require_probabilities

if TYPE_CHECKING:
    from autobackbone.training.continuing import ContinuedTraining


class UsableRun(StandingRun):
    """A run whose networks are used: here, and in what else runs networks."""

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

    @cached_property
    def _outgoing(self) -> Outgoing:
        return Outgoing(reader=self._reader, predictor=self._predictor, facts=self._facts)

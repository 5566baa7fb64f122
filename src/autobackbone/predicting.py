"""Predicts with the networks of a run: each is loaded once, and its temperature settled once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from autobackbone.calibration import Calibration, calibrated, calibration_of, settled_temperature
from autobackbone.crossfitting import Scored, ScoredPart
from autobackbone.loading import RunReader
from autobackbone.records import Task, Trial
from autobackbone.tasks import said_by


class Predictor:
    """What the trials of a run say, of new pictures and of those that they were scored on.

    Args:
        reader: of the run.
    """

    def __init__(self, reader: RunReader) -> None:
        self._reader = reader
        self._networks: dict[int, nn.Module] = {}
        self._temperatures: dict[int, float] = {}

    @property
    def task(self) -> Task:
        """What the labels are."""
        return self._reader.task

    def network(self, trial: Trial) -> nn.Module:
        """A trial's network, as `RunReader.network` makes it.

        Raises:
            RunError: the trial has not finished, or its weights were not kept.
        """
        if trial.number not in self._networks:
            self._networks[trial.number] = self._reader.network(trial)
        return self._networks[trial.number]

    def predictions(self, images: Any, trial: Trial) -> NDArray[np.float32]:
        """What the network itself says of pictures in any form that users give, (n_images, n_outputs)."""
        return self._reader.predicted(self.network(trial), images)

    def probabilities(self, images: Any, trial: Trial) -> NDArray[np.float32]:
        """The same, corrected by the trial's temperature, where they are probabilities."""
        said = self.predictions(images, trial)
        return calibrated(said, self.temperature(trial), multilabel=self.task == "multilabel")

    def temperature(self, trial: Trial) -> float:
        """By which logits are divided, for probabilities that mean what they say; 1 leaves them.

        Raises:
            RunError: the trial's predictions are not there or damaged.
        """
        if trial.number not in self._temperatures:
            self._temperatures[trial.number] = settled_temperature(*self.scored(trial, "validation"))
        return self._temperatures[trial.number]

    def calibration(self, trial: Trial) -> Calibration:
        """How far probabilities can be trusted, measured on the test part if the trial was confirmed there.

        Raises:
            RunError: the trial's predictions are not there.
        """
        test = self.scored(trial, "test") if self.has_scored(trial, "test") else None
        return calibration_of(self.scored(trial, "validation"), test)

    def said_by(self, predictions: NDArray[np.float32]) -> NDArray[Any]:
        """What predictions come to: classes, numbers, or which labels."""
        return said_by(predictions, self.task, self._reader.classes)

    def has_scored(self, trial: Trial, part: ScoredPart) -> bool:
        """Whether it is stored what a trial said of a part."""
        return self._reader.has_predictions(trial, part)

    def scored(self, trial: Trial, part: ScoredPart) -> Scored:
        """What a trial said of a part, with the truth.

        Raises:
            RunError: the predictions are not there or damaged.
        """
        return Scored(self._reader.predictions(trial, part), self._reader.labels(part))

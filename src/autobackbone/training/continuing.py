"""A tuned network as a module of Lightning, to be trained on more pictures by whoever holds it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn

from autobackbone.backbones.blocks import BatchNormMode, set_training_mode, unfreeze
from autobackbone.training.fit import adamw
from autobackbone.training.objective import Objective
from autobackbone.training.recipe import Recipe, lr_factor

Score = Callable[[NDArray[np.float32], NDArray[Any]], float]
"""Predictions (n, n_outputs) and labels to a score in the metric's own sign."""


class ContinuedTraining(pl.LightningModule):
    """Trains a network further as it was trained: same blocks, loss, optimiser and schedule of the rate.

    Batches are `(inputs, labels)`: (n, 3, height, width) float32, as `.transform` gives one of, and codes of classes
    (n,) int64, 0 or 1 for each label (n, n_labels), or numbers (n, n_targets). Logs `train_loss`, `val_loss` and
    `val_score`.

    Args:
        network: as `Selection.model` gives one.
        objective: what is minimised.
        recipe: of the run; the trainer's `max_epochs` counts, not its own.
        n_unfrozen: trailing blocks that train, 0 for the classifier alone.
        batch_norm: what running statistics do.
        score: of the validation predictions of an epoch.
    """

    def __init__(
        self,
        network: nn.Module,
        objective: Objective,
        recipe: Recipe,
        *,
        n_unfrozen: int,
        batch_norm: BatchNormMode,
        score: Score,
    ) -> None:
        super().__init__()
        self.network = copy.deepcopy(network)
        self.objective, self.recipe, self.score = objective, recipe, score
        self.batch_norm = batch_norm
        self.transform, self.classes = network.transform, network.classes
        # Numbers are learned standardised, so that a step means the same in any unit; `forward` gives their own.
        objective.begin(self.network)
        unfreeze(self.network, n_unfrozen, batch_norm=batch_norm)
        self._seen: list[tuple[Tensor, Tensor]] = []

    def forward(self, inputs: Tensor) -> Tensor:
        """What the network says of inputs: probabilities, or numbers in their own units, (n, n_outputs)."""
        return self.objective.predictions(self.network(inputs))

    def tuned(self) -> nn.Module:
        """A copy of the network as it is now, as `Selection.model` gives one."""
        network = copy.deepcopy(self.network)
        self.objective.end(network)
        for parameter in network.parameters():
            parameter.requires_grad_(True)  # noqa: FBT003  torch's own
        return network.cpu().eval()

    def on_train_epoch_start(self) -> None:
        """What is frozen stays in eval mode."""
        set_training_mode(self.network, batch_norm=self.batch_norm)

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        """The loss of a batch."""
        inputs, labels = batch
        loss = self.objective.loss(self.network(inputs), labels, label_smoothing=self.recipe.label_smoothing)
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=len(labels))
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        """The loss, and what the epoch's score is of."""
        inputs, labels = batch
        outputs = self.network(inputs)
        self.log("val_loss", self.objective.loss(outputs, labels), on_epoch=True, batch_size=len(labels))
        self._seen.append((self.objective.predictions(outputs).cpu(), labels.cpu()))

    def on_validation_epoch_end(self) -> None:
        """The score of all that was seen, by this process where there are several."""
        said, labels = (torch.cat(some).numpy() for some in zip(*self._seen, strict=True))
        self._seen.clear()
        if not self.trainer.sanity_checking:
            self.log("val_score", self.score(said, labels), batch_size=len(labels))

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW on what trains, with warm-up, a constant rate, and a decay towards the trainer's last step."""
        is_scaled = str(self.trainer.precision).endswith("mixed")
        optimizer = adamw(self.network, self.recipe, is_scaled_elsewhere=is_scaled)
        n_steps = self.trainer.estimated_stepping_batches
        # Of a trainer without an end, nobody knows how long an epoch is before it begins.
        is_endless = not math.isfinite(n_steps) or not self.trainer.max_epochs or self.trainer.max_epochs < 0
        n_epochs = 1 if is_endless else int(self.trainer.max_epochs or 1)
        n_an_epoch = 1 if is_endless else max(1, round(n_steps / n_epochs))
        recipe = Recipe(
            lr=self.recipe.lr,
            n_epochs=n_epochs,
            warmup_epochs=self.recipe.warmup_epochs,
            decay_share=self.recipe.decay_share,
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: lr_factor(step, n_an_epoch, recipe, is_decaying=not is_endless)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

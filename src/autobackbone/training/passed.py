"""How well the training pictures are fitted: a score of what was said of them as they passed, in each epoch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from autobackbone.training.ranks import ALONE, Ranks

PassedScorer = Callable[[NDArray[np.float32], NDArray[Any]], float]
"""Predictions (n, n_outputs) of training pictures and their labels to a maximised score; NaN where not defined."""

OUTPUTS = "outputs"
"""Under this name a training step gives its outputs, (n, n_outputs), beside the loss."""

# Of an epoch. A score of 0.9 is known to half a point by then; with all of 100,000 pictures of 1,000 classes an epoch
# would hold 400 MB.
_N_MOST = 4000


class PassedScores(Callback):
    """Scores what the steps of an epoch said of its first pictures, at no further pass.

    The network moves while they pass, drops out, and sees moved views: what it would say of the pictures as they are,
    after the epoch, is mostly a little better.

    Args:
        score: of predictions and labels.
        predictions: what outputs of a network in training say.
        n_most: pictures of an epoch that are scored, the first ones that pass.
        ranks: that each see a part of them.
    """

    def __init__(
        self,
        score: PassedScorer,
        predictions: Callable[[Tensor], Tensor],
        *,
        n_most: int = _N_MOST,
        ranks: Ranks = ALONE,
    ) -> None:
        self.scores: list[float] = []
        self._score, self._predictions = score, predictions
        self._ranks, self._n_most = ranks, ranks.n_own(n_most)
        self._passed: list[tuple[Tensor, Tensor]] = []
        self._n_passed = 0

    def state_dict(self) -> dict[str, Any]:
        """What a training that goes on has to know of what was."""
        return {"scores": self.scores}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it up."""
        self.scores = list(state_dict["scores"])

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget what passed before."""
        self._passed, self._n_passed = [], 0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep what was said of a batch."""
        n_more = min(self._n_most - self._n_passed, len(outputs[OUTPUTS]))
        if n_more > 0 or not self._passed:
            said = self._predictions(outputs[OUTPUTS][:n_more])
            self._passed.append((said.cpu(), batch[1][:n_more].cpu()))
            self._n_passed += n_more

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Score all of it."""
        passed = [self._ranks.gathered(torch.cat(parts)) for parts in zip(*self._passed, strict=True)]

        def score() -> float:
            said, labels = (torch.cat(parts).numpy() for parts in passed)
            return self._score(said, labels)

        self.scores.append(self._ranks.agreed(score))

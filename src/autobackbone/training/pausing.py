"""How a training pauses and goes on: its legs, and the checkpoint between them."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Leg:
    """Which part of a training is trained now.

    Args:
        checkpoint: where it pauses, and where it goes on from.
        n_before: epochs that it has trained already; from 1 on it goes on from the checkpoint.
        pause_at: the epoch after which it pauses; `None` trains to the end, the rate falling towards it.
    """

    checkpoint: Path
    n_before: int = 0
    pause_at: int | None = None


class Pause(Callback):
    """Keeps all that a training needs to go on, at the end of its leg; where there is no room, it ends there."""

    def __init__(self, leg: Leg) -> None:
        self.leg = leg

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the checkpoint, or leave none."""
        if self.leg.pause_at is not None and trainer.current_epoch + 1 == self.leg.pause_at:
            temporary = self.leg.checkpoint.with_name(f".{self.leg.checkpoint.name}.{os.getpid()}")
            try:
                trainer.save_checkpoint(temporary)
                temporary.replace(self.leg.checkpoint)
            except (OSError, RuntimeError) as error:  # a full disk; torch says it in its own way
                _LOG.warning("no checkpoint could be written to %s: %s", self.leg.checkpoint, error)
                temporary.unlink(missing_ok=True)
                self.leg.checkpoint.unlink(missing_ok=True)

"""How a training pauses and goes on: its legs, and what a checkpoint between them holds."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch import Tensor, nn

from autobackbone.errors import TrialError
from autobackbone.runfolder import written_whole

_LOG = logging.getLogger(__name__)
# Where a checkpoint has the averaged weights and the present ones, and how the names of a module's tensors begin there.
_STATES = ("state_dict", "current_model_state")
_PREFIX = "module."


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
    """Keeps all that a training needs to go on, at the end of its leg; where there is no room, it ends there.

    Args:
        leg: the part of the training.
        checkpoints: what Lightning writes by.
    """

    def __init__(self, leg: Leg, checkpoints: Checkpoints) -> None:
        self.leg, self.checkpoints = leg, checkpoints

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the checkpoint, or leave none; of several ranks the first one writes."""
        if self.leg.pause_at is not None and trainer.current_epoch + 1 == self.leg.pause_at:
            if not trainer.is_global_zero:
                trainer.save_checkpoint(self.leg.checkpoint)
                return
            try:
                with written_whole(self.leg.checkpoint) as temporary:
                    trainer.save_checkpoint(temporary)
                    self.checkpoints.require_written()
            except (OSError, RuntimeError) as error:  # a full disk; torch says it in its own way
                _LOG.warning("no checkpoint could be written to %s: %s", self.leg.checkpoint, error)
                self.leg.checkpoint.unlink(missing_ok=True)


class Checkpoints(TorchCheckpointIO):
    """Written where they are to lie, and read in Lightning's own way; one that cannot be read fails the trial alone."""

    def __init__(self) -> None:
        super().__init__()
        self._problem: Exception | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write one, to a name that is nobody else's yet.

        Lightning's own way takes the machine's temporary folder for it, where a kill would leave it for good, and holds
        all of it in memory once more.
        """
        try:
            torch.save(checkpoint, path)
        except (OSError, RuntimeError) as error:  # other ranks wait until this one has written
            self._problem = error

    def require_written(self) -> None:
        """Raises: OSError, RuntimeError: the last one could not be written."""
        problem, self._problem = self._problem, None
        if problem is not None:
            raise problem

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Callable[..., Any] | None = lambda storage, _: storage,
        weights_only: bool | None = True,  # noqa: FBT001, FBT002 — Lightning's signature
    ) -> dict[str, Any]:
        """Read one, to the CPU.

        Raises:
            TrialError: it is damaged or not there, or is none of ours.
        """
        try:
            found: Any = super().load_checkpoint(path, map_location, weights_only)
        except (
            OSError,
            EOFError,
            RuntimeError,
            pickle.UnpicklingError,
            ValueError,
            LookupError,
            TypeError,
            AttributeError,
        ) as error:
            raise TrialError(f"it cannot go on: its checkpoint is damaged or not there ({error})") from error
        if not isinstance(found, dict) or not all(isinstance(found.get(state), dict) for state in _STATES):
            raise TrialError("it cannot go on: its checkpoint holds no training that paused here")
        return found


class Moving:
    """What training moves of a module: parameters that train, and buffers as soon as they are not what they were.

    Checkpoints hold this alone: what is frozen, whoever goes on has built anew.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._before = {name: tensor.cpu().clone() for name, tensor in self._buffers().items()}

    def __deepcopy__(self, memo: dict[int, Any]) -> Moving:
        """Itself: the averaging copies the training loop, of which it needs the weights alone."""
        return self

    def tensors(self) -> dict[str, Tensor]:
        """Those that moved, by name, as they are now."""
        names = self._trained() | {name for name, tensor in self._buffers().items() if self._has_moved(name, tensor)}
        return {name: tensor for name, tensor in self._module.state_dict().items() if name in names}

    def leave_out_rest(self, checkpoint: dict[str, Any]) -> None:
        """Take from a checkpoint what training does not move."""
        kept = {_PREFIX + name for name in self.tensors()}
        for state in _STATES:
            checkpoint[state] = {name: tensor for name, tensor in checkpoint[state].items() if name in kept}

    def put_in_rest(self, checkpoint: dict[str, Any]) -> None:
        """Give a checkpoint that was read what it was written without.

        Raises:
            TrialError: it is of another part of the network.
        """
        held = {name.removeprefix(_PREFIX) for state in _STATES for name in checkpoint[state]}
        if held - self._buffers().keys() != self._trained():
            raise TrialError(
                "it cannot go on: its checkpoint is of another part of the network, perhaps for want of disk"
            )
        # The process that paused has its buffers as they were left: compared with that, one could seem never to move.
        self._before = {name: tensor for name, tensor in self._before.items() if name not in held}
        whole = {_PREFIX + name: tensor for name, tensor in self._module.state_dict().items()}
        for state in _STATES:
            checkpoint[state] = whole | checkpoint[state]

    def _trained(self) -> set[str]:
        return {name for name, parameter in self._parameters().items() if parameter.requires_grad}

    def _parameters(self) -> dict[str, nn.Parameter]:
        return dict(self._module.named_parameters(remove_duplicate=False))

    def _buffers(self) -> dict[str, Tensor]:
        parameters = self._parameters()
        return {name: tensor for name, tensor in self._module.state_dict().items() if name not in parameters}

    def _has_moved(self, name: str, tensor: Tensor) -> bool:
        return name not in self._before or not torch.equal(tensor.cpu(), self._before[name])

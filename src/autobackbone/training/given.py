"""What a user hands to Lightning's trainer, as one training has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pytorch_lightning.callbacks import Callback, Checkpoint
from pytorch_lightning.loggers import Logger

from autobackbone.errors import ArgumentError
from autobackbone.handing import Handed, Made, Strategy
from autobackbone.records import Candidate
from autobackbone.training.ranks import Ranks

# Lightning's own for what nobody has named. Loggers are told once an epoch.
_USUAL = {"gradient_clip_val": 1.0, "log_every_n_steps": 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What a trainer is given beside our own.

    Args:
        arguments: of Lightning's `Trainer`.
        callbacks: of the user.
        loggers: the same; the first of several ranks alone has them.
        strategy: of several devices.
    """

    arguments: Mapping[str, Any] = field(default_factory=lambda: dict(_USUAL))
    callbacks: Sequence[Callback] = ()
    loggers: Sequence[Logger] = ()
    strategy: Strategy = "ddp"

    @property
    def is_told(self) -> bool:
        """Whether anybody listens to what is logged."""
        return bool(self.callbacks or self.loggers)


USUAL = Given()


def given_for(handed: Handed, candidate: Candidate, ranks: Ranks) -> Given:
    """Make what one training is given.

    Args:
        handed: by the user.
        candidate: that is trained; new loggers are told it as hyperparameters.
        ranks: that train it.

    Raises:
        ArgumentError: something cannot be made, or is none of Lightning's.
    """
    callbacks = [_made("callbacks", one, Callback) for one in handed.callbacks]
    if any(isinstance(one, Checkpoint) for one in callbacks):
        raise ArgumentError("callbacks holds one that writes checkpoints: trainings keep their own. Leave it out.")
    loggers = [_made("loggers", one, Logger) for one in handed.loggers] if ranks.is_first else []
    for logger, one in zip(loggers, handed.loggers, strict=False):
        if isinstance(one, Made):  # a live one gets all trainings, which differ in these
            logger.log_hyperparams(_told(candidate))
    arguments = {name: value for name, value in handed.trainer.items() if name != "accumulate_grad_batches"}
    return Given(
        arguments=_USUAL | arguments,
        callbacks=callbacks,
        loggers=loggers,
        strategy=handed.strategy,
    )


def _made(name: str, one: Any, kind: type) -> Any:
    found = one.make() if isinstance(one, Made) else one
    if not isinstance(found, kind):
        what = one.factory if isinstance(one, Made) else repr(one)
        raise ArgumentError(f"{name} takes a {kind.__name__} of Lightning; {what} is a {type(found).__name__}.")
    return found


def _told(candidate: Candidate) -> dict[str, Any]:
    height, width = candidate.image_size
    return {
        "backbone": candidate.backbone,
        "image_size": f"{height}x{width}",
        "n_blocks_kept": candidate.n_blocks_kept,
        "n_unfrozen": candidate.n_unfrozen,
        "lr": candidate.lr,
        **candidate.extras,
    }

"""One `Trainer.fit`: from a network with a good head to a fine-tuned one, scored by averaged weights at every rung."""

from __future__ import annotations

import contextlib
import logging
import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from numpy.typing import NDArray
from pytorch_lightning.callbacks import Callback, WeightAveraging
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from autobackbone.backbones.blocks import moving_statistics
from autobackbone.errors import EpochTooLongError, TrialError
from autobackbone.memory import memory_errors_translated
from autobackbone.training.given import USUAL, Given
from autobackbone.training.objective import Objective
from autobackbone.training.passed import OUTPUTS, PassedScorer, PassedScores
from autobackbone.training.pausing import Checkpoints, Leg, Moving, Pause
from autobackbone.training.ranks import ALONE, Ranks
from autobackbone.training.recipe import Recipe, StepPrecision, lr_factor
from autobackbone.training.rows import Rows, epoch_seed, in_order, shuffled
from autobackbone.training.signals import SigtermAsEver, ctrl_c_as_ever

Scorer = Callable[[NDArray[np.float32]], float]
"""Validation predictions (n_validation, n_outputs) to a score that is maximised."""

_VALIDATION_BATCH_SIZE = 64
# How torch says that a batch is too small for BatchNorm.
_NO_VARIANCE = "Expected more than 1 value per channel"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What training gave.

    Args:
        rung_scores: maximised validation score after each epoch since the start, of the averaged weights.
        best_epoch: the epoch, from 0, whose weights are kept.
        predictions: (n_validation, n_outputs) of those weights, as `Objective.predictions` gives them.
        weights: what training moved, by name, of the trained module: its parameters, and running statistics if they
            were not fixed.
        seconds: of this fit.
        n_epochs: that this fit trained.
        is_cut_short: time ran out before the last rung.
        precision: in which its steps multiplied.
        n_planned: epochs at whose end the rate was to have fallen.
        train_scores: maximised score of the training pictures as they passed in each epoch since the start; NaN where
            it is not defined.
    """

    rung_scores: tuple[float, ...]
    best_epoch: int
    predictions: NDArray[np.float32]
    weights: Mapping[str, Tensor]
    seconds: float
    n_epochs: int
    is_cut_short: bool
    precision: StepPrecision = "float32"
    n_planned: int = 0
    train_scores: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Trainee:
    """What is trained, on what.

    Args:
        module: takes what `prepare` gives, returns outputs (n, n_outputs).
        set_mode: puts the module's parts into the modes of training: frozen parts and BatchNorm stay in eval.
        prepare: a stored batch to the module's input.
        train: rows of the training part: stored inputs and labels.
        validation: the same for the validation part; without a row, training goes to its end and keeps what is there.
        device: where it runs.
        objective: what is minimised, and what outputs mean.
    """

    module: nn.Module
    set_mode: Callable[[], None]
    prepare: Callable[[Tensor], Tensor]
    train: Rows
    validation: Rows
    device: torch.device
    objective: Objective

    def __deepcopy__(self, memo: dict[int, Any]) -> Trainee:
        """Itself: the averaging copies the training loop, and must not copy the store behind it."""
        return self


def fit(
    trainee: Trainee,
    recipe: Recipe,
    score: Scorer,
    *,
    score_passed: PassedScorer | None = None,
    until: float | None = None,
    leg: Leg | None = None,
    ranks: Ranks = ALONE,
    given: Given = USUAL,
) -> Outcome:
    """Train the module in place; it ends with the weights of its best rung.

    A training that pauses and goes on, perhaps in another process, gives what an unbroken one gives.

    Args:
        trainee: the module and its rows; `requires_grad` says what trains.
        recipe: numbers of the training.
        score: of validation predictions, maximised.
        score_passed: of the training pictures as they pass, maximised; `None` to leave them unscored.
        until: `time.monotonic()` after which no step is begun.
        leg: the part of the training; `None` for all of it.
        ranks: the processes that train it together; the first one alone has predictions and scores.
        given: what a user hands to the trainer.

    Raises:
        TrialError: the loss is no number any more, time ended before the first rung, or the checkpoint cannot be used.
        EpochTooLongError: time ended inside the first epoch.
        TrialMemoryError: memory ran out; the module is somewhere in its training.
        KeyboardInterrupt: Ctrl-C, as ever.
    """
    begun = time.monotonic()
    pause_at = None if leg is None else leg.pause_at
    n_steps_an_epoch = math.ceil(math.ceil(len(trainee.train) / recipe.batch_size) / recipe.accumulate)
    loop = _Loop(trainee, recipe, n_steps_an_epoch, ranks, is_decaying=pause_at is None, is_told=given.is_told)
    rungs, guard = _Rungs(score), _TimeGuard(until, ranks, is_scored=len(trainee.validation) > 0)
    passed = None if score_passed is None else PassedScores(score_passed, trainee.objective.predictions, ranks=ranks)
    checkpoints = Checkpoints()
    further = [one for one in (passed, None if leg is None else Pause(leg, checkpoints)) if one is not None]
    # The averaging forgets within half an epoch: long enough to smooth steps, short enough to follow a rung's progress.
    decay = 1 - 1 / max(2.0, n_steps_an_epoch / 2)
    # The averaging of many tensors at once goes from one value towards the other, so that frozen weights stay the very
    # same; `EMAWeightAveraging` adds shares of both, which round.
    towards = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    averaging = WeightAveraging(use_buffers=False, multi_avg_fn=towards)
    with _quiet_lightning(), ctrl_c_as_ever(), torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        trainer = pl.Trainer(
            **ranks.trainer_arguments(trainee.device, given.strategy),
            **given.arguments,
            max_epochs=recipe.n_epochs if pause_at is None else pause_at,
            accumulate_grad_batches=recipe.accumulate,
            callbacks=[SigtermAsEver(), guard, rungs, averaging, *further, *given.callbacks],
            plugins=[checkpoints],
            logger=list(given.loggers) or False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        scored = None
        with contextlib.suppress(_TimeIsUp), memory_errors_translated():
            # A pass without gradients takes less than half of the memory.
            n_at_once = min(_VALIDATION_BATCH_SIZE, 2 * math.ceil(recipe.batch_size / ranks.n))
            trainee.set_mode()
            training = shuffled(
                trainee.train,
                recipe.batch_size,
                seed=recipe.seed,
                sampling=recipe.sampling,
                ranks=ranks,
                n_least=2 if moving_statistics(trainee.module) else 1,  # of one picture there may be no variance
            )
            begun_at = None if leg is None or leg.n_before == 0 else leg.checkpoint
            has_none = len(trainee.validation) == 0
            scored = None if has_none else in_order(trainee.validation, n_at_once, ranks=ranks)
            try:
                trainer.fit(loop, training, scored, ckpt_path=begun_at, weights_only=True)
            except MisconfigurationException as error:
                # Whoever wrote it died before that was noted, and the time is shorter now.
                if "current_epoch" not in str(error):
                    raise
                raise TrialError(f"its checkpoint is of a later epoch than it may train to now: {error}") from error
    if not guard.is_scored and trainer.current_epoch > 0:
        # The averaging has put its weights in place.
        rungs.best = _Rung(
            epoch=trainer.current_epoch - 1,
            predictions=np.empty((0, 0), np.float32),
            weights=_copied(loop.moving.tensors()),
        )
    if rungs.best is None:
        raise TrialError("time ended before the first epoch did")
    loop.module.load_state_dict(dict(rungs.best.weights), strict=False)
    return Outcome(
        rung_scores=tuple(rungs.scores),
        best_epoch=rungs.best.epoch,
        predictions=rungs.best.predictions,
        weights=rungs.best.weights,
        seconds=time.monotonic() - begun,
        n_epochs=trainer.current_epoch - rungs.n_before if scored is None else len(rungs.scores) - rungs.n_before,
        is_cut_short=guard.has_ended_it
        if scored is None
        else len(rungs.scores) < (recipe.n_epochs if pause_at is None else pause_at),
        precision=recipe.precision,
        n_planned=recipe.n_epochs,
        train_scores=() if passed is None else tuple(passed.scores),
    )


def forward(trainee: Trainee, stored_batch: Tensor, precision: StepPrecision) -> Tensor:
    """Outputs (n, n_outputs) in float32 of a stored batch on the device, with a graph.

    Raises:
        TrialError: running statistics are to follow a single picture.
    """
    # Only where it is wanted: switched off here, it would be so for a user who has it from Lightning.
    is_rounded = precision == "bfloat16"
    rounded = torch.autocast(stored_batch.device.type, torch.bfloat16) if is_rounded else contextlib.nullcontext()
    try:
        with rounded:
            outputs: Tensor = trainee.module(trainee.prepare(stored_batch))
    except ValueError as error:
        if _NO_VARIANCE not in str(error):
            raise
        raise TrialError(
            "a batch, perhaps the last one, has a single picture, of which there is no variance to normalise by. Give "
            "another batch_size, or batch_norm='fixed'"
        ) from error
    return outputs.float()


def adamw(module: nn.Module, recipe: Recipe, *, is_scaled_elsewhere: bool = False) -> torch.optim.AdamW:
    """The optimiser of what trains in a module: weights decay in matrices and filters only.

    Args:
        module: its `requires_grad` says what trains.
        recipe: with the rate and the decay.
        is_scaled_elsewhere: whether gradients are scaled by who calls it, which a fused one would do itself.
    """
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    # Fused: 5 ms a step instead of 20 for 2.5 million parameters on two cores.
    is_fused = all(parameter.device.type in ("cpu", "cuda") for parameter in trained) and not is_scaled_elsewhere
    return torch.optim.AdamW(groups, lr=recipe.lr, fused=is_fused)


class _Loop(pl.LightningModule):
    def __init__(
        self,
        trainee: Trainee,
        recipe: Recipe,
        n_steps_an_epoch: int,
        ranks: Ranks,
        *,
        is_decaying: bool,
        is_told: bool,
    ) -> None:
        super().__init__()
        self.module = trainee.module
        self.recipe = recipe
        self.lr_factor = partial(lr_factor, n_steps_an_epoch=n_steps_an_epoch, recipe=recipe, is_decaying=is_decaying)
        self.moving = Moving(trainee.module)
        self.ranks, self.is_told = ranks, is_told
        self._trainee = trainee
        self.predictions: list[Tensor] = []

    def on_train_epoch_start(self) -> None:
        self._trainee.set_mode()
        # What is dropped out depends on the epoch alone, so that a training which goes on drops what it would have.
        torch.manual_seed(epoch_seed(self.recipe.seed, self.current_epoch) + self.ranks.rank)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> dict[str, Tensor]:
        stored, labels = batch
        outputs = forward(self._trainee, stored, self.recipe.precision)
        n_rows = min(self.recipe.batch_size, len(self._trainee.train) - batch_idx * self.recipe.batch_size)
        n_own = self.ranks.n_own(n_rows)
        counted = slice(max(1, n_own))
        loss = self._trainee.objective.loss(
            outputs[counted], labels[counted], label_smoothing=self.recipe.label_smoothing
        )
        loss = self.ranks.weight(n_rows) * loss
        # Of the whole batch: one rank that stopped by itself would be waited for.
        whole = self.ranks.mean(loss.detach())
        if not torch.isfinite(whole):
            raise TrialError(f"the loss became {whole.item()} at lr {self.recipe.lr:.1e}")
        if self.is_told:
            self.log("train_loss", whole, on_step=False, on_epoch=True, batch_size=n_rows)
        return {"loss": loss, OUTPUTS: outputs.detach()[:n_own]}

    def on_after_backward(self) -> None:
        self.ranks.average(moving_statistics(self.module))

    @property
    def n_validation(self) -> int:
        """Rows that are scored, of all ranks."""
        return len(self._trainee.validation)

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        outputs = self.module(self._trainee.prepare(batch[0]))
        self.predictions.append(self._trainee.objective.predictions(outputs).cpu())

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        # Lightning clips no gradients that an optimizer has scaled itself.
        is_scaled_elsewhere = str(self.trainer.precision).endswith("mixed")
        optimizer = adamw(self.module, self.recipe, is_scaled_elsewhere=is_scaled_elsewhere)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self.lr_factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.moving.leave_out_rest(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.moving.put_in_rest(checkpoint)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rung:
    epoch: int
    predictions: NDArray[np.float32]
    weights: Mapping[str, Tensor] = field(repr=False)


class _Rungs(Callback):
    """Scores each epoch, and keeps the best one's weights and running statistics, the very ones that were scored.

    Stands before the averaging in the list of callbacks, so that its hook runs while the averaged weights are in place.
    """

    def __init__(self, score: Scorer) -> None:
        self.score = score
        self.scores: list[float] = []
        self.n_before = 0
        self.best: _Rung | None = None
        self.last_weights: Mapping[str, Tensor] = {}

    def state_dict(self) -> dict[str, Any]:
        """What a training that goes on has to know of what was."""
        assert self.best is not None
        # What was scored last are the averaged weights, which a checkpoint holds anyway.
        weights = {} if self.best.epoch == len(self.scores) - 1 else dict(self.best.weights)
        best = {"epoch": self.best.epoch, "predictions": torch.from_numpy(self.best.predictions)}
        return {"scores": self.scores, "best": {**best, "weights": weights}}

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Copy the averaged weights, which are in place here, too."""
        assert isinstance(pl_module, _Loop)
        self.last_weights = _copied(pl_module.moving.tensors())

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it up."""
        self.scores, best = list(state_dict["scores"]), state_dict["best"]
        self.n_before = len(self.scores)
        self.best = _Rung(
            epoch=best["epoch"],
            predictions=best["predictions"].numpy(),
            weights=dict(best["weights"]) or self.last_weights,
        )
        self.last_weights = {}

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, _Loop)
        n_rows, ranks = pl_module.n_validation, pl_module.ranks
        own = torch.cat(pl_module.predictions)[: ranks.n_own(n_rows)]
        pl_module.predictions.clear()
        predictions = ranks.together(own, n_rows).numpy()

        def score() -> float:
            found = self.score(predictions) if np.isfinite(predictions).all() else math.nan
            if not math.isfinite(found):
                raise TrialError(f"its predictions or their score became no numbers at lr {pl_module.recipe.lr:.1e}")
            return found

        self.scores.append(ranks.agreed(score))
        if pl_module.is_told:
            pl_module.log("validation_score", self.scores[-1], batch_size=n_rows)
        if self.best is None or self.scores[-1] > max(self.scores[:-1]):
            weights = _copied(pl_module.moving.tensors())
            self.best = _Rung(epoch=trainer.current_epoch, predictions=predictions, weights=weights)


def _copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.cpu().clone() for name, tensor in tensors.items()}


class _TimeGuard(Callback):
    """Begins no epoch that cannot end in time, and no step after the end.

    Args:
        until: `time.monotonic()`; `None` for no end.
        ranks: that end together; the first one's clock counts.
        is_scored: whether each epoch leaves something; without, what is there at the end is kept.
    """

    def __init__(self, until: float | None, ranks: Ranks, *, is_scored: bool) -> None:
        self.until, self.ranks = until, ranks
        self.is_scored = is_scored
        self.has_ended_it = False
        self.epoch_begun = 0.0
        self.n_begun = 0
        self.longest_epoch_s = 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        now = time.monotonic()
        if self.n_begun > 0:
            self.longest_epoch_s = max(self.longest_epoch_s, now - self.epoch_begun)
        self.n_begun += 1
        self.epoch_begun = now

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._is_over():
            if trainer.current_epoch > 0 and self.is_scored:
                raise _TimeIsUp
            if trainer.current_epoch > 0:
                self._end(trainer)
                return
            epoch_s = (time.monotonic() - self.epoch_begun) * float(trainer.num_training_batches) / (batch_idx + 1)
            raise EpochTooLongError(f"time ended inside the first epoch, which takes {epoch_s:.1f} s", epoch_s)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._look_ahead(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self.is_scored and trainer.current_epoch + 1 < (trainer.max_epochs or 0):
            self._look_ahead(trainer)

    def _look_ahead(self, trainer: pl.Trainer) -> None:
        epoch_s = max(self.longest_epoch_s, time.monotonic() - self.epoch_begun)
        if self._is_over(epoch_s):
            self._end(trainer)

    def _is_over(self, ahead_s: float = 0.0) -> bool:
        until = self.until
        return until is not None and self.ranks.agreed(lambda: time.monotonic() + ahead_s > until)

    def _end(self, trainer: pl.Trainer) -> None:
        trainer.should_stop = True
        self.has_ended_it = True


class _TimeIsUp(Exception):  # noqa: N818 — a way out, not an error
    pass


@contextlib.contextmanager
def _quiet_lightning() -> Iterator[None]:
    logger = logging.getLogger("pytorch_lightning")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # The rows come from a memory map in whole batches: worker processes would only copy them once more.
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            # Frozen parts and BatchNorm are meant to be in eval mode.
            warnings.filterwarnings("ignore", message="Found .* module.* in eval mode at the start of training.*")
            # Where nothing is scored on the way, that is meant.
            warnings.filterwarnings("ignore", message="You defined a `validation_step` but have no `val_dataloader`.*")
            # Lightning 2.6 asks newer torch in an older way.
            warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
            yield
    finally:
        logger.setLevel(level)

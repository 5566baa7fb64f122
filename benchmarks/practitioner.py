"""What a good practitioner writes in an afternoon: Optuna around Lightning around timm, pictures read from their files.

The baseline of `time_to_quality`. It searches the backbone, how much to unfreeze and the learning rate, prunes by the
median, keeps frozen layers in eval mode, and uses two loader workers: nothing in it is slower than it has to be, but
for the ideas that it lacks.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pytorch_lightning as pl
import timm
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

SIDE = 160
N_EPOCHS = 4
BATCH_SIZE = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """One epoch that ended.

    Args:
        trial: number of the trial.
        seconds: since the baseline began.
        score: validation accuracy.
        latency_ms: of one picture through the trial's network.
    """

    trial: int
    seconds: float
    score: float
    latency_ms: float


@dataclass(slots=True, kw_only=True)
class Practice:
    """The data and what was seen so far.

    Args:
        root: folder of the pictures.
        files: part to (path in the folder, class) pairs.
        weights: name of a backbone to its pre-trained tensors.
        n_classes: how many.
        seconds: when it ends.
    """

    root: Path
    files: Mapping[str, Sequence[tuple[str, int]]]
    weights: Mapping[str, Mapping[str, Tensor]]
    n_classes: int
    seconds: float
    begun: float
    epochs: list[Epoch]
    best: tuple[float, nn.Module] | None = None

    def left_s(self) -> float:
        """Seconds left."""
        return self.seconds - (time.monotonic() - self.begun)


def practise(
    root: Path,
    files: Mapping[str, Sequence[tuple[str, int]]],
    weights: Mapping[str, Mapping[str, Tensor]],
    n_classes: int,
    *,
    seconds: float,
    seed: int,
) -> tuple[list[Epoch], float]:
    """Search for so many seconds; returns each epoch that ended, and the test accuracy of the best trial's network."""
    practice = Practice(
        root=root,
        files=files,
        weights=weights,
        n_classes=n_classes,
        seconds=seconds,
        begun=time.monotonic(),
        epochs=[],
    )
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    pl.seed_everything(seed, verbose=False)
    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=seed, multivariate=True),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=3),
    )
    study.optimize(_objective(practice), timeout=seconds)
    assert practice.best is not None, "no epoch ended in the time"
    return practice.epochs, _accuracy(practice.best[1], _loader(practice, "test", is_training=False))


def _objective(practice: Practice) -> Callable[[optuna.Trial], float]:
    def objective(trial: optuna.Trial) -> float:
        name = trial.suggest_categorical("backbone", list(practice.weights))
        n_unfrozen = trial.suggest_categorical("n_unfrozen", [0, 1, 2, 4, 8])
        lr = trial.suggest_float("lr", 1e-4, 3e-3, log=True)
        network = timm.create_model(name, num_classes=practice.n_classes)
        tensors = {key: value for key, value in practice.weights[name].items() if not key.startswith("classifier")}
        network.load_state_dict(tensors, strict=False)
        loop = Loop(network, n_unfrozen, lr, practice, trial)
        trainer = pl.Trainer(
            max_epochs=N_EPOCHS,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        trainer.fit(
            loop, _loader(practice, "train", is_training=True), _loader(practice, "validation", is_training=False)
        )
        if loop.is_pruned:
            raise optuna.TrialPruned
        return loop.score

    return objective


class Loop(pl.LightningModule):
    """The training of one trial."""

    def __init__(self, network: Any, n_unfrozen: int, lr: float, practice: Practice, trial: optuna.Trial) -> None:
        super().__init__()
        self.network, self.lr, self.practice, self.trial = network, lr, practice, trial
        steps: list[nn.Module] = [
            nn.ModuleList([network.conv_stem, network.bn1]),
            *network.blocks,
            nn.ModuleList([network.conv_head, network.bn2]),
        ]
        self.frozen = steps[: len(steps) - n_unfrozen]
        for step in self.frozen:
            step.requires_grad_(requires_grad=False)
        self.latency_ms = _latency_ms(network)
        self.score, self.n_right, self.n_seen, self.is_pruned = 0.0, 0, 0, False

    def on_train_epoch_start(self) -> None:
        for step in self.frozen:
            step.eval()

    def training_step(self, batch: Sequence[Tensor], _: int) -> Tensor:
        return functional.cross_entropy(self.network(batch[0]), batch[1])

    def on_train_batch_end(self, *_: Any) -> None:
        if self.practice.left_s() < 0:
            self.trainer.should_stop = True
            self.trainer.limit_val_batches = 0

    def validation_step(self, batch: Sequence[Tensor], _: int) -> None:
        self.n_right += int((self.network(batch[0]).argmax(dim=1) == batch[1]).sum())
        self.n_seen += len(batch[1])

    def on_validation_epoch_end(self) -> None:
        self.score, self.n_right, self.n_seen = self.n_right / self.n_seen, 0, 0
        seconds = time.monotonic() - self.practice.begun
        if seconds > self.practice.seconds:
            self.trainer.should_stop = True
            return
        self.practice.epochs.append(
            Epoch(trial=self.trial.number, seconds=seconds, score=self.score, latency_ms=self.latency_ms)
        )
        if self.practice.best is None or self.score > self.practice.best[0]:
            kept = timm.create_model(self.trial.params["backbone"], num_classes=self.practice.n_classes)
            kept.load_state_dict(self.network.state_dict())
            self.practice.best = (self.score, kept)
        self.trial.report(self.score, self.current_epoch)
        if self.trial.should_prune():
            self.is_pruned = self.trainer.should_stop = True

    def configure_optimizers(self) -> Any:
        trained = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=self.lr, weight_decay=0.01)
        n_steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.lr, total_steps=n_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Files(Dataset[tuple[Tensor, int]]):
    """Pictures read from their files at every access."""

    def __init__(self, root: Path, files: Sequence[tuple[str, int]], transform: v2.Compose) -> None:
        self.root, self.files, self.transform = root, files, transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        name, label = self.files[index]
        return self.transform(Image.open(self.root / name).convert("RGB")), label


def _loader(practice: Practice, part: str, *, is_training: bool) -> DataLoader[tuple[Tensor, int]]:
    augment = [v2.RandomResizedCrop(SIDE, scale=(0.7, 1.0), antialias=True), v2.RandomHorizontalFlip()]
    transform = v2.Compose(
        [
            *(augment if is_training else [v2.Resize((SIDE, SIDE), antialias=True)]),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.5, 0.5, 0.5], [0.5, 0.5, 0.5]),
        ]
    )
    return DataLoader(
        Files(practice.root, practice.files[part], transform),
        batch_size=BATCH_SIZE,
        shuffle=is_training,
        num_workers=2,
        persistent_workers=True,
    )


@torch.inference_mode()
def _latency_ms(network: nn.Module) -> float:
    network.eval()
    picture = torch.randn(1, 3, SIDE, SIDE)
    seconds = []
    for _ in range(12):
        begun = time.perf_counter()
        network(picture)
        seconds.append(time.perf_counter() - begun)
    return 1000 * sorted(seconds)[len(seconds) // 2]


@torch.inference_mode()
def _accuracy(network: nn.Module, loader: DataLoader[tuple[Tensor, int]]) -> float:
    network.eval()
    n_right = sum(int((network(pictures).argmax(dim=1) == labels).sum()) for pictures, labels in loader)
    return n_right / len(loader.dataset)  # type: ignore[arg-type]

"""What the user holds: the front, the table, the models. It reads a run folder and never writes to it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn

from autobackbone.backbones.build import build, normalisation
from autobackbone.backbones.head import set_head
from autobackbone.backbones.weights import find_weights, load_state_dict
from autobackbone.choosing import Choice, choose, choose_under, front_of, mark_front, with_caution
from autobackbone.data import Preparation
from autobackbone.errors import ArgumentError, DataError, RunError
from autobackbone.exporting.transform import Transform, as_pictures, to_input
from autobackbone.metrics import Metric, metric_for
from autobackbone.optimism import Optimism, optimism_of
from autobackbone.records import Limits, Task, Trial, counted
from autobackbone.runfolder import RunFolder
from autobackbone.search import trialfiles
from autobackbone.search.study import load_study, read_trials
from autobackbone.search.trialfiles import read_labels
from autobackbone.tasks import predictions_of

if TYPE_CHECKING:
    import optuna
    from matplotlib.figure import Figure

_FRAME_COLUMNS = (
    "number",
    "state",
    "reason",
    "backbone",
    "image_size",
    "n_unfrozen",
    "n_blocks",
    "lr",
    "score",
    "score_se",
    "latency_ms",
    "latency_p95_ms",
    "images_per_s",
    "preprocess_ms",
    "n_params",
    "megabytes",
    "train_seconds",
    "finished_at_s",
    "on_front",
    "test_score",
    "test_score_low",
    "test_score_high",
    "n_epochs",
    "latency_noise_ms",
    "resize",
    "n_blocks_kept",
)
_BATCH_SIZE = 32


class Selection:
    """The result of a run, also of one that is still going on or was cut off.

    Args:
        path: the run folder; it may have been moved since.

    Example:
        result = select_backbone("photos/", "10min")
        result.best                      # the trial to use
        result.front                     # fastest first
        result.predict(["new.jpg"])      # class names
    """

    def __init__(self, path: Path) -> None:
        self._run = RunFolder(path=path)
        self._facts = self._run.read_facts()
        self._preparation = _preparation(self._run, self._facts)
        self._models: dict[int, nn.Module] = {}

    @property
    def path(self) -> Path:
        """The run folder."""
        return self._run.path

    @cached_property
    def study(self) -> optuna.Study:
        """The Optuna study behind the run, opened for reading."""
        return load_study(self._run.study_file)

    @cached_property
    def metric(self) -> Metric:
        """What `score` is."""
        return metric_for(self._facts["metric"], self.task, n_outputs=len(self.classes))

    @property
    def target(self) -> str:
        """Where latencies were measured, in one line."""
        return str(self._facts["target_line"])

    @property
    def task(self) -> Task:
        """What the labels are."""
        return cast("Task", self._facts["task"])

    @property
    def classes(self) -> tuple[str | int, ...]:
        """The classes or labels, in the order of the columns of probabilities, or the names of the numbers."""
        return tuple(self._facts["classes"])

    @property
    def notes(self) -> tuple[str, ...]:
        """What was skipped, made or left out, one line each."""
        return tuple(self._facts["notes"])

    @cached_property
    def trials(self) -> list[Trial]:
        """All trials, in order of number."""
        return mark_front(read_trials(self.study), self.metric)

    @cached_property
    def front(self) -> list[Trial]:
        """The finished trials that no other beats on both score and latency, fastest first."""
        return front_of(self.trials, self.metric)

    @cached_property
    def choice(self) -> Choice:
        """The trial to use and the reason, in one sentence.

        Raises:
            RunError: no trial has finished.
        """
        limit_ms = Limits(**self._facts["limits"]).latency_ms
        if limit_ms is not None:
            return with_caution(choose_under(self.front, limit_ms, self.metric))
        return with_caution(
            choose(
                self.front,
                self._validation,
                self._labels("validation"),
                self.metric,
                tolerance=self._facts["tolerance"],
            )
        )

    @property
    def best(self) -> Trial:
        """The trial to use: the fastest of the front that is as good as the top scorer within the noise; with a limit
        of latency, the most accurate within it.
        """
        return self.choice.trial

    def best_under(self, latency_ms: float) -> Trial:
        """The most accurate trial of the front within a latency.

        Raises:
            ArgumentError: `latency_ms` is no number above 0.
            LimitsError: none is that fast.
        """
        return choose_under(self.front, latency_ms, self.metric).trial

    @cached_property
    def optimism(self) -> Optimism | None:
        """How much the search's own scores flattered its front; `None` where no trial of it is confirmed.

        Printing it says what it says of the chosen trial.
        """
        return optimism_of(self.front, self.best, self.metric) if self.front else None

    def to_frame(self) -> pd.DataFrame:
        """All trials as a table, one row each, in order of number.

        Times in milliseconds or seconds as the names say; `score` with its standard error and `test_score` with its
        95 % interval in the metric's own sign and unit;
        `lr` is NaN where nothing was trained by gradient, `n_blocks_kept` where the whole backbone is used; further
        searched parameters have a column of their own.
        """
        rows = [{name: getattr(trial, name) for name in _FRAME_COLUMNS} | _searched(trial) for trial in self.trials]
        frame = pd.DataFrame(rows, columns=None if rows else list(_FRAME_COLUMNS))
        numeric = ["lr", "score", "latency_ms", "latency_p95_ms", "images_per_s", "preprocess_ms"]
        tested = ["score_se", "test_score", "test_score_low", "test_score_high"]
        return frame.astype(dict.fromkeys([*numeric, *tested, "n_blocks_kept"], "float64"))

    def plot(self) -> Figure:
        """Accuracy against latency: every finished trial, the front drawn through, the chosen one marked."""
        from autobackbone.plots.front import draw_front, front_facts

        chosen = self.best.number if self.front else None
        return draw_front(front_facts(self.trials, self.target, self.metric, chosen))

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
        wanted = self._trial(trial)
        if wanted.number not in self._models:
            self._models[wanted.number] = self._load(wanted)
        return self._models[wanted.number]

    def predict_proba(self, images: Any, trial: Trial | int | None = None) -> NDArray[np.float32]:
        """Probabilities of classes, which add up to 1, or of labels, each for itself.

        Args:
            images: a list of pictures (paths, PIL images, arrays), or one array (n, height, width[, 3]); a single path
                or PIL image counts as a list of one.
            trial: as in `model`.

        Returns:
            (n_images, n_classes) float32, columns in the order of `classes`.

        Raises:
            ArgumentError: numbers are predicted; they have no probabilities.
        """
        if self.task == "regression":
            raise ArgumentError(
                "numbers have no probabilities: use predict(images), which gives the numbers themselves."
            )
        return self._predictions(images, trial)

    def predict(self, images: Any, trial: Trial | int | None = None) -> NDArray[Any]:
        """What a picture shows, see `predict_proba`.

        Returns:
            The likeliest class of each picture, (n_images,); the numbers, (n_images, n_targets) float32, or (n_images,)
            of a single one; or 1 for each label of probability 0.5 and more, else 0, (n_images, n_labels) int64 in the
            order of `classes`.
        """
        found = self._predictions(images, trial)
        if self.task == "regression":
            return found[:, 0] if found.shape[1] == 1 else found
        if self.task == "multilabel":
            return (found >= 0.5).astype(np.int64)
        return np.asarray([self.classes[code] for code in found.argmax(axis=1)])

    def _predictions(self, images: Any, trial: Trial | int | None) -> NDArray[np.float32]:
        model = self.model(trial)
        transform = model.transform
        assert isinstance(transform, Transform)
        pictures = as_pictures(images)
        chunks = []
        with torch.inference_mode():
            for start in range(0, len(pictures), _BATCH_SIZE):
                some = pictures[start : start + _BATCH_SIZE]
                batch = torch.stack([to_input(transform, picture) for picture in some])
                chunks.append(predictions_of(model(batch), self.task).numpy())
        return np.concatenate(chunks) if chunks else np.empty((0, len(self.classes)), dtype=np.float32)

    def __repr__(self) -> str:
        """The front in a few lines."""
        lines = [f"Selection of {counted(len(self.trials), 'trial')} on {self.target}, in {str(self.path)!r}"]
        lines += [self._line(trial) for trial in self.front]
        return "\n".join(lines)

    def _line(self, trial: Trial) -> str:
        tested = _tested(trial)
        mark = "→" if trial.number == self.best.number else " "
        depth = f"{trial.n_unfrozen}/{trial.n_blocks}"
        return (
            f"{mark} {trial.latency_ms:8.2f} ms  {self.metric.name} {trial.score:.4g}{tested}  "
            f"trial {trial.number}: {trial.body}, {depth} unfrozen"
        )

    def _trial(self, trial: Trial | int | None) -> Trial:
        if trial is None:
            return self.best
        number = trial.number if isinstance(trial, Trial) else trial
        found = next((one for one in self.trials if one.number == number), None)
        if found is None:
            raise RunError(f"there is no trial {number!r}; there are {len(self.trials)}, numbered from 0.")
        return found

    def _load(self, trial: Trial) -> nn.Module:
        if trial.state != "finished":
            raise RunError(f"trial {trial.number} is {trial.state} and has no model. Choose a trial of the front.")
        n_classes = len(self.classes)
        if trialfiles.has_weights(self._run, trial.number):
            network = build(
                trial.backbone, n_classes=n_classes, image_size=trial.image_size, n_blocks_kept=trial.n_blocks_kept
            )
            network.load_state_dict(trialfiles.load_weights(self._run, trial.number))
        elif trial.n_unfrozen == 0:
            # Frozen: the backbone's own weights, as they came, and the head.
            head = trialfiles.load_head(self._run, trial.number)
            source = find_weights(trial.backbone, self._facts["weights"])
            state_dict = load_state_dict(trial.backbone, source)
            network = build(
                trial.backbone,
                n_classes=n_classes,
                image_size=trial.image_size,
                state_dict=state_dict,
                n_blocks_kept=trial.n_blocks_kept,
            )
            set_head(network, torch.from_numpy(head.weight), torch.from_numpy(head.bias))
        else:
            raise RunError(
                f"trial {trial.number} has no weights here: they are kept for the front alone, or the file was "
                f"removed. On the front are {[one.number for one in self.front]}."
            )
        network.transform = Transform(  # type: ignore[assignment]
            image_size=trial.image_size,
            preparation=self._preparation,
            normalisation=normalisation(trial.backbone),
        )
        network.classes = self.classes  # type: ignore[assignment]
        return network.eval()

    def _validation(self, trial: Trial) -> NDArray[np.float32]:
        shape = (len(self._labels("validation")), len(self.classes))
        return trialfiles.load_predictions(self._run, trial.number, trialfiles.VALIDATION, shape=shape)

    def _labels(self, part: str) -> NDArray[Any]:
        return read_labels(self._run, part, self.task)


def _tested(trial: Trial) -> str:
    if trial.test_score is None:
        return ""
    return f", test {trial.test_score:.4g} ({trial.test_score_low:.4g} to {trial.test_score_high:.4g})"


def open_run(path: str | Path) -> Selection:
    """Open a run that was made earlier, here or elsewhere; nothing is written.

    Raises:
        ArgumentError: `path` is no path.
        RunError: there is no run, or it is damaged, or its format is newer than this version.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise ArgumentError(f"open_run takes the path of a run folder, not {path!r}. Give the one that a search made.")
    return Selection(Path(path).expanduser().absolute())


def _preparation(run: RunFolder, facts: Mapping[str, Any]) -> Preparation:
    try:
        return Preparation.from_json(facts["preparation"])
    except (TypeError, DataError) as error:
        raise run.damaged(f"'preparation' cannot be read ({error})") from error


def _searched(trial: Trial) -> dict[str, Any]:
    own = {"strength", "forward_s", "scored_share", "n_compared", "legs"}
    extras: Mapping[str, Any] = trial.extras
    return {name: value for name, value in extras.items() if name not in own}

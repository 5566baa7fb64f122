"""What a run folder keeps of its trials: networks, stored predictions, labels. Reading never writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autobackbone.backbones.every import Backbones
from autobackbone.backbones.head import set_head
from autobackbone.crossfitting import ScoredPart
from autobackbone.data import PART_CODES, Preparation
from autobackbone.data.pictures import quiet_pillow
from autobackbone.errors import DataError, RunError
from autobackbone.exporting.transform import Transform, as_pictures, to_input
from autobackbone.ownbackbone import OwnBackbone
from autobackbone.records import Part, Task, Trial
from autobackbone.runfolder import RunFolder
from autobackbone.search import trialfiles
from autobackbone.search.trialfiles import copies_noted
from autobackbone.tasks import predictions_of

OWN_BACKBONES = "own_backbones"
"""Under which a run notes them."""
_BATCH_SIZE = 32
_STORED: Mapping[ScoredPart, str] = {"validation": trialfiles.VALIDATION, "test": trialfiles.TEST}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReader:
    """Reads what a run folder keeps.

    Args:
        run: the folder.
        task: what the labels are.
        classes: in the order of the columns of predictions.
        preparation: how a picture becomes pixels.
        weights: where the run found weights, as its facts say.
        backbones: what the names of its backbones stand for.
    """

    run: RunFolder
    task: Task
    classes: tuple[str | int, ...]
    preparation: Preparation
    weights: Any
    backbones: Backbones = field(default_factory=Backbones)

    @classmethod
    def from_facts(
        cls, run: RunFolder, facts: Mapping[str, Any], own: Mapping[str, OwnBackbone] | None = None
    ) -> RunReader:
        """Take from a run's facts what reading needs.

        Args:
            run: the folder.
            facts: of it.
            own: backbones of the user's own, that were given in this process.

        Raises:
            RunError: the preparation, or what is noted of own backbones, cannot be read.
        """
        try:
            preparation = Preparation.from_json(facts["preparation"])
        except (TypeError, DataError) as error:
            raise run.damaged(f"'preparation' cannot be read ({error})") from error
        task = cast("Task", facts["task"])
        classes = tuple(facts["classes"])
        return cls(
            run=run,
            task=task,
            classes=classes,
            preparation=preparation,
            weights=facts["weights"],
            backbones=Backbones(own=own or {}, noted=noted_own(run, facts)),
        )

    def has_network(self, trial: Trial) -> bool:
        """Whether a trial's network can be had: its weights are kept, or it is frozen and its head is."""
        has_head = trial.n_unfrozen == 0 and trialfiles.is_kept(self.run, trial.number, trialfiles.HEAD)
        return trial.state == "finished" and (has_head or trialfiles.has_weights(self.run, trial.number))

    def network(self, trial: Trial) -> nn.Module:
        """A finished trial's network in eval mode on the CPU, with `.transform` and `.classes`.

        Raises:
            RunError: the trial has not finished, or its weights were not kept.
        """
        if trial.state != "finished":
            raise RunError(f"trial {trial.number} is {trial.state} and has no model. Choose a trial of the front.")
        has_weights = trialfiles.has_weights(self.run, trial.number)
        return self.dressed(self._from_weights(trial) if has_weights else self._from_head(trial), trial)

    def dressed(self, network: nn.Module, trial: Trial) -> nn.Module:
        """A network of a trial's kind in eval mode, with `.transform` and `.classes`."""
        network.transform = Transform(  # type: ignore[assignment]
            image_size=trial.image_size,
            preparation=self.preparation,
            normalisation=self.backbones[trial.backbone].normalisation(),
        )
        network.classes = self.classes  # type: ignore[assignment]
        return network.eval()

    def has_predictions(self, trial: Trial, part: ScoredPart) -> bool:
        """Whether it is stored what a trial said of a part."""
        return trialfiles.is_kept(self.run, trial.number, _STORED[part])

    def predictions(self, trial: Trial, part: ScoredPart) -> NDArray[np.float32]:
        """What a trial said of a part when it was scored, (n_images, n_outputs); NaN where a picture was not reached.

        Raises:
            RunError: they are not there or damaged.
        """
        shape = (len(self.labels(part)), len(self.classes))
        return trialfiles.load_predictions(self.run, trial.number, _STORED[part], shape=shape)

    def out_of_fold(self, trial: Trial) -> NDArray[np.float32] | None:
        """What heads that had not seen a training picture said of it, (n_train, n_outputs); `None` if nothing is kept.

        Raises:
            RunError: it is damaged.
        """
        if not trialfiles.is_kept(self.run, trial.number, trialfiles.OUT_OF_FOLD):
            return None
        shape = (len(trialfiles.read_labels(self.run, "train", self.task)), len(self.classes))
        return trialfiles.load_predictions(self.run, trial.number, trialfiles.OUT_OF_FOLD, shape=shape)

    def labels(self, part: ScoredPart) -> NDArray[Any]:
        """The labels of a part, (n_images,) or (n_images, k), in the order of its predictions."""
        return trialfiles.read_labels(self.run, part, self.task)

    def fold_predictions(self, trial: Trial) -> NDArray[np.float32]:
        """What a trial's networks said of the folds that they were trained without.

        Returns:
            (n_repeats, n_train + n_validation, n_outputs), by ascending number of the picture, of each repeat.

        Raises:
            RunError: they are not there or damaged.
        """
        return trialfiles.load_folds(self.run, trial.number, (len(self.pooled_labels()), len(self.classes)))

    def all_labels(self) -> NDArray[Any]:
        """The labels of all pictures, those that were left out included, (n_images,) or (n_images, k).

        Raises:
            RunError: there is a class that has no name.
        """
        labels = trialfiles.read_all_labels(self.run, self.task)
        if self.task == "classification":
            codes = labels[trialfiles.read_pictures(self.run)["part"].isin(list(PART_CODES)).to_numpy()]
            if ((codes < 0) | (codes >= len(self.classes))).any():
                raise self.run.damaged(f"'classes' names {len(self.classes)} of them, and pictures are of others")
        return labels

    def pooled_labels(self) -> NDArray[Any]:
        """The labels of training and validation pictures, in the order of `fold_predictions`."""
        return trialfiles.read_pooled_labels(self.run, self.task)

    def leaked(self, part: ScoredPart, into: Sequence[Part] = ("train",)) -> NDArray[np.bool_]:
        """Which pictures of a part have a copy in other parts, (n_part,); none where copies were not looked for.

        Args:
            part: of the pictures.
            into: the other parts: those that a network was trained on.

        Raises:
            RunError: what the run notes of copies is no such thing.
        """
        parts = trialfiles.read_pictures(self.run)["part"].to_numpy()
        groups = copies_noted(self.run, self.run.read_facts(), len(parts))
        is_part = parts == part
        if groups is None:
            return np.zeros(int(is_part.sum()), dtype=np.bool_)
        return np.asarray(np.isin(groups[is_part], groups[np.isin(parts, into)]))

    def predicted(self, network: nn.Module, images: Any) -> NDArray[np.float32]:
        """What a network of a trial says of pictures in any form that users give, (n_images, n_outputs)."""
        transform = network.transform
        assert isinstance(transform, Transform)
        said = answered(lambda batch: predictions_of(network(batch), self.task), transform, images)
        return said if len(said) else np.empty((0, len(self.classes)), dtype=np.float32)

    def _from_weights(self, trial: Trial) -> nn.Module:
        network = self._built(trial, None)
        trialfiles.load_weights(self.run, trial.number, network)
        return network

    def _from_head(self, trial: Trial) -> nn.Module:
        """Frozen: the backbone's own weights, as they came, and the head."""
        if trial.n_unfrozen > 0:
            raise RunError(
                f"trial {trial.number} has no weights here: they are kept for the front of the search alone, or the "
                f"file was removed. Choose a trial of the front, or train it again: retrain({trial.number})."
            )
        head = trialfiles.load_head(self.run, trial.number)
        backbone = self.backbones[trial.backbone]
        network = self._built(trial, backbone.load_state_dict(backbone.find_weights(self.weights)))
        set_head(network, torch.from_numpy(head.weight), torch.from_numpy(head.bias))
        return network

    def _built(self, trial: Trial, state_dict: Mapping[str, Tensor] | None) -> nn.Module:
        return self.backbones[trial.backbone].build(
            n_classes=len(self.classes),
            image_size=trial.image_size,
            state_dict=state_dict,
            n_blocks_kept=trial.n_blocks_kept,
        )


def noted_own(run: RunFolder, facts: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    """What a run has noted of backbones of the user's own, by name; runs from before there were any have none.

    Raises:
        RunError: it is something else.
    """
    found = facts.get(OWN_BACKBONES, {})
    if not isinstance(found, Mapping) or not all(isinstance(one, Mapping) for one in found.values()):
        raise run.damaged(f"{OWN_BACKBONES!r} must be a mapping of names to mappings")
    return found


def answered(
    run: Callable[[Tensor], Tensor],
    transform: Transform,
    images: Any,
    *,
    n_at_once: int = _BATCH_SIZE,
    device: torch.device | str = "cpu",
) -> NDArray[np.float32]:
    """What a network answers to pictures in any form that users give, without a graph.

    Args:
        run: (n, 3, height, width) on `device` to (n, k).
        transform: of the network.
        images: see `as_pictures`.
        n_at_once: pictures in one pass.
        device: where `run` computes.

    Returns:
        (n_images, k); of no pictures (0, 0).

    Raises:
        DataError: one cannot be read as a picture.
    """
    pictures = as_pictures(images)
    chunks = []
    with torch.inference_mode(), quiet_pillow():
        for start in range(0, len(pictures), n_at_once):
            some = pictures[start : start + n_at_once]
            batch = torch.stack([to_input(transform, picture) for picture in some])
            chunks.append(run(batch.to(device)).float().cpu().numpy())
    return np.concatenate(chunks) if chunks else np.empty((0, 0), dtype=np.float32)

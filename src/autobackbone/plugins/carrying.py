"""Networks that can do without the run that found them: they go wherever they are pickled."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load, save
from torch import Tensor, nn

from autobackbone.backbones.every import Backbones
from autobackbone.backbones.head import features
from autobackbone.backbones.tensors import own_tensors
from autobackbone.backbones.weights import GivenWeights
from autobackbone.data import Preparation
from autobackbone.errors import ArgumentError, BackboneError
from autobackbone.exporting.transform import Transform
from autobackbone.loading import answered
from autobackbone.ownbackbone import OwnBackbone
from autobackbone.records import ImageSize, Task, Trial
from autobackbone.selection import Selection
from autobackbone.tasks import predictions_of


@dataclass(kw_only=True, eq=False)
class CarriedNetwork:
    """A network in eval mode with its preprocessing.

    A pickle of it holds its tensors as safetensors and how it is built, and no code of a module: whoever reads it
    builds the network anew.

    Args:
        network: the module.
        backbone: whose network it is.
        n_blocks_kept: how many first blocks alone it has; `None` for all.
        n_outputs: of its classifier.
        transform: from a picture to its input.
        own: what makes it, where the backbone is the user's own: a pickle names it, and whoever reads it imports it.
    """

    network: nn.Module
    backbone: str
    n_blocks_kept: int | None
    n_outputs: int
    transform: Transform
    own: OwnBackbone | None = None

    @classmethod
    def of_trial(cls, selection: Selection, trial: Trial) -> CarriedNetwork:
        """A trial's network.

        Raises:
            RunError: its weights were not kept.
        """
        network = selection.model(trial)
        transform = network.transform
        assert isinstance(transform, Transform)
        return cls(
            network=network,
            backbone=trial.backbone,
            n_blocks_kept=trial.n_blocks_kept,
            n_outputs=len(selection.classes),
            transform=transform,
            own=selection.own_backbones.get(trial.backbone),
        )

    @classmethod
    def of_name(
        cls, backbone: str, image_size: ImageSize, preparation: Preparation, weights: GivenWeights
    ) -> CarriedNetwork:
        """A pre-trained network as it came, with a classifier that nobody asks.

        Args:
            backbone: its full name.
            image_size: height and width in pixels.
            preparation: how pictures become pixels.
            weights: where they are, as for a search.

        Raises:
            BackboneError: the weights are nowhere, or the network cannot take this size.
        """
        named = Backbones()[backbone]
        tensors = named.load_state_dict(named.find_weights(weights))
        network = named.build(n_classes=1, image_size=image_size, state_dict=tensors)
        transform = Transform(image_size=image_size, preparation=preparation, normalisation=named.normalisation())
        return cls(network=network, backbone=backbone, n_blocks_kept=None, n_outputs=1, transform=transform)

    def predictions(self, images: Any, task: Task) -> NDArray[np.float32]:
        """What it says of pictures, (n_images, n_outputs): probabilities, or numbers in their own units.

        Raises:
            DataError: they cannot be read as pictures.
        """
        return answered(lambda batch: predictions_of(self.network(batch), task), self.transform, images)

    def features(
        self, images: Any, *, is_pooled: bool, n_at_once: int, device: torch.device | str
    ) -> NDArray[np.float32]:
        """What enters its classifier, (n_images, n_features); or, not pooled, its last map or tokens, flattened.

        Args:
            images: in any form that users give.
            is_pooled: whether it is what enters the classifier.
            n_at_once: pictures in one pass.
            device: where it computes; the network stays there.

        Raises:
            BackboneError: it has no single last map.
            DataError: they cannot be read as pictures.
        """
        network = self.network.to(device)
        read = features if is_pooled else _last_map
        return answered(lambda batch: read(network, batch), self.transform, images, n_at_once=n_at_once, device=device)

    def __deepcopy__(self, memo: dict[int, Any]) -> CarriedNetwork:
        """Copy the module, which builds nothing anew: a backbone that lives in memory alone has a copy, too."""
        return replace(self, network=deepcopy(self.network, memo))

    def require_crossing(self) -> None:
        """Make sure that whoever reads a pickle can build it.

        Raises:
            ArgumentError: what makes its backbone lives in this process alone.
        """
        if self.own is not None and not isinstance(self.own.factory, str):
            raise ArgumentError(
                f"a pickle names what makes its network, and the factory of {self.own.name!r} is defined in the script "
                "or session that was started. Put it into a module, and give it by name: "
                'OwnBackbone(factory="package.module:name", …).'
            )

    def __getstate__(self) -> dict[str, Any]:
        self.require_crossing()
        return {
            "tensors": save(own_tensors(self.network.state_dict())),
            "backbone": self.backbone,
            "n_blocks_kept": self.n_blocks_kept,
            "n_outputs": self.n_outputs,
            "transform": self.transform.to_json(),
            "own": None if self.own is None else self.own.to_json(),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.backbone = state["backbone"]
        self.n_blocks_kept = state["n_blocks_kept"]
        self.n_outputs = state["n_outputs"]
        self.transform = Transform.from_json(state["transform"])
        self.own = None if state["own"] is None else OwnBackbone.from_json(state["own"])
        backbones = Backbones(own={} if self.own is None else {self.backbone: self.own})
        self.network = backbones[self.backbone].build(
            n_classes=self.n_outputs,
            image_size=self.transform.image_size,
            n_blocks_kept=self.n_blocks_kept,
        )
        self.network.load_state_dict(load(state["tensors"]))


def _last_map(network: nn.Module, batch: Tensor) -> Tensor:
    """What timm gives before pooling: a map (n, c, h, w) or (n, h, w, c), or tokens (n, t, c), flattened."""
    found = network.forward_features(batch)  # type: ignore[operator]  # torch types attributes as modules
    if not isinstance(found, Tensor):
        raise BackboneError(
            f"{type(network).__name__} ends in {type(found).__name__} in place of one map. Use pooled=True."
        )
    return found.flatten(1)

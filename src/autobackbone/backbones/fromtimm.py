"""timm's networks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from autobackbone.backbones.blocks import blocks_of
from autobackbone.backbones.build import allowed_image_sizes, build, normalisation, outline
from autobackbone.backbones.catalogue import info
from autobackbone.backbones.weights import find_weights, load_state_dict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor, nn

    from autobackbone.backbones.weights import GivenWeights, WeightSource
    from autobackbone.records import ImageSize, Normalisation


@dataclass(frozen=True, slots=True)
class TimmBackbone:
    """One network of timm, as `Backbone` has it.

    Args:
        name: full name, as `resolve_names` gives it.

    Example:
        >>> TimmBackbone("resnet50.a1_in1k").n_blocks()
        5
    """

    name: str

    def build(
        self,
        *,
        n_classes: int,
        image_size: ImageSize,
        state_dict: Mapping[str, Tensor] | None = None,
        seed: int = 0,
        n_blocks_kept: int | None = None,
    ) -> nn.Module:
        """See `build.build`."""
        return build(
            self.name,
            n_classes=n_classes,
            image_size=image_size,
            state_dict=state_dict,
            seed=seed,
            n_blocks_kept=n_blocks_kept,
        )

    def n_blocks(self) -> int:
        """How many blocks it has."""
        return _n_blocks(self.name)

    def image_sizes(self, wanted: Sequence[ImageSize] | None) -> tuple[ImageSize, ...]:
        """See `allowed_image_sizes`."""
        return allowed_image_sizes(self.name, wanted)

    def normalisation(self) -> Normalisation:
        """How pixels enter it."""
        return normalisation(self.name)

    def gmacs(self, image_size: ImageSize) -> float:
        """Scaled from published ones; guessed from parameters where nobody has published them."""
        facts = info(self.name)
        area_share = image_size[0] * image_size[1] / (facts.image_size[0] * facts.image_size[1])
        # ConvNets and transformers alike spend some 0.15 to 0.25 GMACs for a million parameters at 224 px.
        return (facts.gmacs or (facts.n_params or 25e6) / 5e6) * area_share

    def find_weights(self, given: GivenWeights) -> WeightSource:
        """See `find_weights`."""
        return find_weights(self.name, given)

    def load_state_dict(self, source: WeightSource) -> Mapping[str, Tensor]:
        """See `load_state_dict`."""
        return load_state_dict(self.name, source)

    def code_digest(self) -> str:
        """Nothing beside timm's version."""
        return ""


@cache
def _n_blocks(name: str) -> int:
    return len(blocks_of(outline(name)))

"""What a search needs of a pre-trained network, wherever it comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor, nn

    from autobackbone.backbones.weights import GivenWeights, WeightSource
    from autobackbone.records import ImageSize, Normalisation


class Backbone(Protocol):
    """One pre-trained network. timm's are one kind (`TimmBackbone`), torchvision's and a user's own others.

    Its head and its blocks are told by what `build` gives: a network of timm tells them by itself, any other carries
    `Parts`.
    """

    @property
    def name(self) -> str:
        """What stands for it in a search, its weights included."""

    def build(
        self,
        *,
        n_classes: int,
        image_size: ImageSize,
        state_dict: Mapping[str, Tensor] | None = None,
        seed: int = 0,
        n_blocks_kept: int | None = None,
    ) -> nn.Module:
        """A network in eval mode on the CPU with a fresh classifier, the caller's own; see `build.build`.

        The classifier is made of linear layers, and nothing behind them changes their outputs.

        Raises:
            BackboneError: it cannot take this image size or be cut so.
            WeightsError: the tensors are not those of this network.
        """

    def n_blocks(self) -> int:
        """Steps of depth, at any image size; no weights are read or fetched for it."""

    def image_sizes(self, wanted: Sequence[ImageSize] | None) -> tuple[ImageSize, ...]:
        """The sizes to try it at, smallest first, as `sizes_to_try` gives them."""

    def normalisation(self) -> Normalisation:
        """How pixels enter it."""

    def gmacs(self, image_size: ImageSize) -> float:
        """Multiply-adds of one picture, 10**9; a guess where nobody knows."""

    def find_weights(self, given: GivenWeights) -> WeightSource:
        """Where its weights are, as `find_weights` tells; nothing is read or fetched.

        Raises:
            WeightsError: they are nowhere, or `given` does not exist.
        """

    def load_state_dict(self, source: WeightSource) -> Mapping[str, Tensor]:
        """Read its weights, under the names of the network that `build` gives.

        Raises:
            WeightsError: the file is damaged, or holds something else.
        """

    def code_digest(self) -> str:
        """Names the code that computes, where more than the versions of torch and timm decides on it; else empty."""

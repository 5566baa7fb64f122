"""Networks of timm, each with a fresh classifier: pre-trained, their weights read once and kept while they are in use;
or as skeletons, for all that needs no weights.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from functools import cache, lru_cache

from torch import Tensor, nn

from autobackbone.backbones.blocks import blocks_of
from autobackbone.backbones.build import build, normalisation, outline
from autobackbone.backbones.weights import WeightSource, load_state_dict
from autobackbone.records import ImageSize, Normalisation


class TimmSource:
    """Builds networks for one task; threads may share it.

    Args:
        weights: where the weights of each backbone are.
        n_classes: outputs of the fresh classifier.
        seed: of the fresh classifier, which the screened head replaces.
    """

    def __init__(self, weights: Mapping[str, WeightSource], *, n_classes: int, seed: int = 0) -> None:
        self.weights = dict(weights)
        self.n_classes = n_classes
        self.seed = seed
        # Two: a stage works on one backbone at a time, and the next one is often the one before.
        self._state_dict = lru_cache(maxsize=2)(self._read)
        self._digest = lru_cache(maxsize=None)(self._digested)
        # A fresh classifier is drawn from torch's own generator, which all threads share.
        self._building = threading.Lock()

    def network(self, backbone: str, image_size: ImageSize, n_blocks_kept: int | None = None) -> nn.Module:
        """A new network with pre-trained weights, in eval mode on the CPU, the caller's own.

        Args:
            backbone: as timm names it.
            image_size: height and width of the pictures that it will see.
            n_blocks_kept: only the first blocks, with a fresh classifier behind them; `None` for all.

        Raises:
            BackboneError: it cannot be cut so.
            WeightsError: its weights cannot be loaded.
        """
        state_dict = self._state_dict(backbone)
        with self._building:
            return build(
                backbone,
                n_classes=self.n_classes,
                image_size=image_size,
                state_dict=state_dict,
                seed=self.seed,
                n_blocks_kept=n_blocks_kept,
            )

    def skeleton(self, backbone: str, image_size: ImageSize, n_blocks_kept: int | None = None) -> nn.Module:
        """The same network with random weights, for what does not depend on them: nothing is read or fetched."""
        with self._building:
            return build(
                backbone,
                n_classes=self.n_classes,
                image_size=image_size,
                seed=self.seed,
                n_blocks_kept=n_blocks_kept,
            )

    def n_blocks(self, backbone: str) -> int:
        """How many blocks the backbone has, at any image size: nothing is read or fetched.

        Example:
            >>> TimmSource({}, n_classes=3).n_blocks("resnet50.a1_in1k")
            5
        """
        return _n_blocks(backbone)

    def check_given(self) -> None:
        """Read the files that the user gave, so that a wrong one is named before any work.

        Raises:
            WeightsError: a file is damaged, or holds another backbone.
        """
        for name, source in self.weights.items():
            if source.kind == "file":
                self._state_dict(name)

    def normalisation(self, backbone: str) -> Normalisation:
        """How pixels enter the backbone."""
        return normalisation(backbone)

    def weights_digest(self, backbone: str) -> str:
        """Names the weights by their content."""
        return self._digest(backbone)

    def _digested(self, backbone: str) -> str:
        digest = hashlib.sha256()
        for name, tensor in sorted(self._state_dict(backbone).items()):
            digest.update(f"{name} {tuple(tensor.shape)}".encode())
            digest.update(tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()[:32]

    def _read(self, backbone: str) -> Mapping[str, Tensor]:
        return load_state_dict(backbone, self.weights[backbone])


@cache
def _n_blocks(backbone: str) -> int:
    return len(blocks_of(outline(backbone)))

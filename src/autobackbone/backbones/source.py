"""The networks of a search, each with a fresh classifier: pre-trained, their weights read once and kept while they are
in use; or as skeletons, for all that needs no weights.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from functools import lru_cache

from torch import Tensor, nn

from autobackbone.backbones.every import Backbones
from autobackbone.backbones.weights import WeightSource
from autobackbone.records import ImageSize, Normalisation


class BackboneSource:
    """Builds networks for one task; threads may share it.

    Args:
        weights: where the weights of each backbone are.
        n_classes: outputs of the fresh classifier.
        seed: of the fresh classifier, which the screened head replaces.
        backbones: what the names stand for; timm's and torchvision's where not given.
    """

    def __init__(
        self,
        weights: Mapping[str, WeightSource],
        *,
        n_classes: int,
        seed: int = 0,
        backbones: Backbones | None = None,
    ) -> None:
        self.weights = dict(weights)
        self.n_classes = n_classes
        self.seed = seed
        self.backbones = backbones or Backbones()
        # Two: a stage works on one backbone at a time, and the next one is often the one before.
        self._state_dict = lru_cache(maxsize=2)(self._read)
        self._digest = lru_cache(maxsize=None)(self._digested)
        # A fresh classifier is drawn from torch's own generator, which all threads share.
        self._building = threading.Lock()

    def network(self, backbone: str, image_size: ImageSize, n_blocks_kept: int | None = None) -> nn.Module:
        """A new network with pre-trained weights, in eval mode on the CPU, the caller's own.

        Args:
            backbone: its full name.
            image_size: height and width of the pictures that it will see.
            n_blocks_kept: only the first blocks, with a fresh classifier behind them; `None` for all.

        Raises:
            BackboneError: it cannot be cut so.
            WeightsError: its weights cannot be loaded.
        """
        return self._built(backbone, image_size, n_blocks_kept, self._state_dict(backbone))

    def skeleton(self, backbone: str, image_size: ImageSize, n_blocks_kept: int | None = None) -> nn.Module:
        """The same network with random weights, for what does not depend on them: nothing is read or fetched."""
        return self._built(backbone, image_size, n_blocks_kept, None)

    def n_blocks(self, backbone: str) -> int:
        """How many blocks the backbone has, at any image size: nothing is read or fetched.

        Example:
            >>> BackboneSource({}, n_classes=3).n_blocks("resnet50.a1_in1k")
            5
        """
        return self.backbones[backbone].n_blocks()

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
        return self.backbones[backbone].normalisation()

    def gmacs(self, backbone: str, image_size: ImageSize) -> float:
        """Multiply-adds of one picture, 10**9."""
        return self.backbones[backbone].gmacs(image_size)

    def known_as(self, backbone: str) -> str:
        """Under which name latencies are remembered: whose code no version tells is named by it, too."""
        code = self.backbones[backbone].code_digest()
        return f"{backbone} {hashlib.sha256(code.encode()).hexdigest()[:8]}" if code else backbone

    def weights_digest(self, backbone: str) -> str:
        """Names the weights by their content, and the code that computes with them where no version does."""
        return self._digest(backbone)

    def _built(
        self,
        backbone: str,
        image_size: ImageSize,
        n_blocks_kept: int | None,
        state_dict: Mapping[str, Tensor] | None,
    ) -> nn.Module:
        with self._building:
            return self.backbones[backbone].build(
                n_classes=self.n_classes,
                image_size=image_size,
                state_dict=state_dict,
                seed=self.seed,
                n_blocks_kept=n_blocks_kept,
            )

    def _digested(self, backbone: str) -> str:
        digest = hashlib.sha256(self.backbones[backbone].code_digest().encode())
        for name, tensor in sorted(self._state_dict(backbone).items()):
            digest.update(f"{name} {tuple(tensor.shape)}".encode())
            digest.update(tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()[:32]

    def _read(self, backbone: str) -> Mapping[str, Tensor]:
        return self.backbones[backbone].load_state_dict(self.weights[backbone])

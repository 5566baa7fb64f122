"""What the names of one search stand for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from autobackbone.backbones.fromtimm import TimmBackbone
from autobackbone.backbones.fromtorchvision import PREFIX, TorchvisionBackbone, default_names, resolve_torchvision
from autobackbone.backbones.names import resolve_names
from autobackbone.errors import BackboneError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from autobackbone.backbones.backbone import Backbone


@dataclass(frozen=True, slots=True, kw_only=True)
class Backbones:
    """Networks by name: timm's and torchvision's.

    Example:
        >>> Backbones()["torchvision:alexnet.IMAGENET1K_V1"].normalisation().mean
        (0.485, 0.456, 0.406)
    """

    def __getitem__(self, name: str) -> Backbone:
        """The network of a full name, as `resolve` gives it."""
        return TorchvisionBackbone(name) if name.startswith(PREFIX) else TimmBackbone(name)

    def resolve(self, patterns: str | Sequence[str] | None) -> tuple[str, ...]:
        """Turn what users write into full names, see `resolve_names` and `resolve_torchvision`.

        Args:
            patterns: names and globs; `None` for every pre-trained backbone of timm.

        Returns:
            Full names, each once, in the order asked for.

        Raises:
            BackboneError: a name that nobody knows, a glob without a match, or nothing asked for.

        Example:
            >>> Backbones().resolve(["resnet50", "torchvision:alexnet"])
            ('resnet50.a1_in1k', 'torchvision:alexnet.IMAGENET1K_V1')
        """
        if patterns is None or not patterns:
            return resolve_names(patterns)
        asked = [patterns] if isinstance(patterns, str) else patterns
        return tuple(dict.fromkeys(name for pattern in asked for name in self._resolve(pattern)))

    def _resolve(self, pattern: str) -> tuple[str, ...]:
        if isinstance(pattern, str) and pattern.startswith(PREFIX):
            return resolve_torchvision(pattern)
        try:
            return resolve_names([pattern])
        except BackboneError as error:
            if not isinstance(pattern, str) or pattern not in default_names():
                raise
            raise BackboneError(f"{error} torchvision has it: {PREFIX + pattern!r}.") from error

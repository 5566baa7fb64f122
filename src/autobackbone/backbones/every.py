"""What the names of one search stand for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from autobackbone.backbones.fromtimm import TimmBackbone
from autobackbone.backbones.names import resolve_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from autobackbone.backbones.backbone import Backbone


@dataclass(frozen=True, slots=True, kw_only=True)
class Backbones:
    """Networks by name.

    Example:
        >>> Backbones()["resnet50.a1_in1k"].normalisation().mean
        (0.485, 0.456, 0.406)
    """

    def __getitem__(self, name: str) -> Backbone:
        """The network of a full name, as `resolve` gives it."""
        return TimmBackbone(name)

    def resolve(self, patterns: str | Sequence[str] | None) -> tuple[str, ...]:
        """Turn what users write into full names, see `resolve_names`.

        Raises:
            BackboneError: a name that nobody knows, a glob without a match, or nothing asked for.
        """
        return resolve_names(patterns)

"""What a network is made of, as far as its own library does not tell: its classifier, and its blocks in order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

_NOTE = "autobackbone_parts"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Names of modules and parameters.

    Args:
        classifier: the layers whose outputs are logits.
        blocks: in the order in which pictures pass; one block is what lies in the modules of these names, and the
            parameters of these names.
    """

    classifier: tuple[str, ...]
    blocks: tuple[tuple[str, ...], ...]


def note_parts(model: nn.Module, parts: Parts) -> nn.Module:
    """Write its parts on a network, which copies and networks that are cut from it keep."""
    # Not by `setattr`: a user's class may have its own.
    vars(model)[_NOTE] = parts
    return model


def parts_of(model: nn.Module) -> Parts | None:
    """What `note_parts` wrote; `None` for timm's networks, which tell it in timm's way."""
    found = vars(model).get(_NOTE)
    return found if isinstance(found, Parts) else None

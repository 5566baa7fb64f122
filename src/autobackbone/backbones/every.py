"""What the names of one search stand for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from autobackbone.backbones.fromfactory import FactoryBackbone
from autobackbone.backbones.fromtimm import TimmBackbone
from autobackbone.backbones.fromtorchvision import PREFIX, TorchvisionBackbone, default_names, resolve_torchvision
from autobackbone.backbones.names import is_known, resolve_names
from autobackbone.errors import ArgumentError, BackboneError, RunError
from autobackbone.ownbackbone import OwnBackbone, is_as_noted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from autobackbone.backbones.backbone import Backbone


@dataclass(frozen=True, slots=True, kw_only=True)
class Backbones:
    """Networks by name: timm's, torchvision's, and those that the user gave in this process.

    Args:
        own: the user's own, by name.
        noted: what a run has noted of own ones, by name. It is code, which a run does not start by itself: it is held
            against what the user gave.

    Raises:
        ArgumentError: one of the user's own has the name of one of timm's, which nobody could name any more.

    Example:
        >>> Backbones()["torchvision:alexnet.IMAGENET1K_V1"].normalisation().mean
        (0.485, 0.456, 0.406)
    """

    own: Mapping[str, OwnBackbone] = field(default_factory=dict)
    noted: Mapping[str, Any] = field(default_factory=dict)
    _made: dict[str, FactoryBackbone] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        taken = [name for name in self.own if is_known(name)]
        if taken:
            raise ArgumentError(
                f"a backbone of your own needs a name that none of timm's has; {', '.join(map(repr, taken))} came. "
                "Give it another one by name=."
            )

    def __getitem__(self, name: str) -> Backbone:
        """The network of a full name, as `resolve` gives it.

        Raises:
            RunError: it is one of the user's own that nobody has given here, or another one was given.
        """
        if name in self.own:
            if name in self.noted and not is_as_noted(self.own[name], self.noted[name]):
                raise RunError(
                    f"the backbone {name!r} of this run was {self.noted[name]!r}, and "
                    f"{self.own[name].to_json()!r} came. Give the same."
                )
            return self._made.setdefault(name, FactoryBackbone(self.own[name]))
        if name.startswith(PREFIX):
            return TorchvisionBackbone(name)
        if name in self.noted or ":" in name:
            raise RunError(
                f"the backbone {name!r} is code, and may do anything; a run folder does not start it by itself. If you "
                f"know it, say so: open_run(…, backbones=…), with what was given to the search: "
                f"{self.noted.get(name, name)!r}."
            )
        return TimmBackbone(name)

    def require_given(self) -> None:
        """Make sure that all own ones that a run has noted were given here, as they were.

        Raises:
            RunError: one was not.
        """
        for name in self.noted:
            _ = self[name]

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
        if isinstance(pattern, str) and (pattern in self.own or pattern in self.noted):
            return (pattern,)
        if isinstance(pattern, str) and pattern.startswith(PREFIX):
            return resolve_torchvision(pattern)
        if isinstance(pattern, str) and ":" in pattern:
            raise BackboneError(
                f"{pattern!r} is none of the backbones of your own that were given here; give it in backbones=."
            )
        try:
            return resolve_names([pattern])
        except BackboneError as error:
            if not isinstance(pattern, str) or pattern not in default_names():
                raise
            raise BackboneError(f"{error} torchvision has it: {PREFIX + pattern!r}.") from error

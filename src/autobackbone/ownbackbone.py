"""A backbone of the user's own: a function or class that makes a network, and what must be known of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from os import PathLike
from pathlib import Path
from typing import Any, get_args, get_type_hints

from autobackbone.errors import ArgumentError
from autobackbone.handing import Made, is_plain
from autobackbone.records import ImageSize, Normalisation, as_image_sizes, is_number

Named = Sequence[str | Sequence[str]]
_NAME = re.compile(r"[A-Za-z0-9_.:+-]+")
_TORCHVISION = "torchvision:"
_IN_MEMORY = "in_memory"
_REMEDY = "Put it into a module of its own, or give workers=0, devices_per_trial=1 and no runner"


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnBackbone:
    """A network of your own, to be searched beside others.

    The factory is called without further arguments than `arguments`, and gives an `nn.Module` that takes
    (n_images, 3, height, width) and answers logits, its last layer an `nn.Linear` or a 1×1 `nn.Conv2d`, which is
    replaced by a new classifier. A parameter that requires no gradient never trains.

    Args:
        factory: `"package.module:name"` of a function or class; or one itself, which has to be importable where other
            processes train.
        name: what it is called in tables and runs: letters, digits and `_.:+-`; the factory's text if not given.
        arguments: of the factory by name, as JSON can hold them.
        weights: a file with its state dict; `None` where the factory itself loads them.
        mean: of the three channels, of pixels from 0 to 1.
        std: of the same.
        image_size: that the weights were made for, pixels.
        interpolation: with which pictures were resized then.
        blocks: the names of its modules in the order in which pictures pass, each a step of depth; several names in a
            tuple are one step. `None` for its children.
        head: the name of its last layer; `None` for the last linear layer.

    Raises:
        ArgumentError: one of these is something else.

    Example:
        >>> OwnBackbone(factory="torchvision.models:alexnet", name="mine", image_size=64).image_size
        (64, 64)
    """

    factory: str | Callable[..., Any]
    name: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    weights: str | PathLike[str] | None = None
    mean: tuple[float, float, float] = Normalisation().mean
    std: tuple[float, float, float] = Normalisation().std
    image_size: int | ImageSize = (224, 224)
    interpolation: str = Normalisation().interpolation
    blocks: Named | None = None
    head: str | None = None

    def __post_init__(self) -> None:
        factory = self.factory if isinstance(self.factory, str) else _text_of(self.factory)
        for name, value in self._checked(factory).items():
            object.__setattr__(self, name, value)

    def _checked(self, factory: str | Callable[..., Any]) -> dict[str, Any]:
        name = self.name or (factory if isinstance(factory, str) else "")
        _require(
            isinstance(name, str) and _NAME.fullmatch(name) and not name.startswith(_TORCHVISION),
            f"an OwnBackbone needs a name of letters, digits and _.:+- that is not torchvision's; {name!r} came.",
        )
        is_text = isinstance(factory, str) and all(factory.partition(":"))
        _require(
            is_text or (callable(factory) and not isinstance(factory, str)),
            f"the factory of {name!r} is 'package.module:name' of a function or class, or one itself; not {factory!r}.",
        )
        is_by_name = isinstance(self.arguments, Mapping) and all(isinstance(key, str) for key in self.arguments)
        _require(
            is_by_name and is_plain(dict(self.arguments)),
            f"the arguments of {name!r} are a dict by name that JSON can hold; {self.arguments!r} came.",
        )
        for what, of in (("mean", self.mean), ("std", self.std)):
            is_triple = isinstance(of, Iterable) and not isinstance(of, str) and len(list(of)) == 3
            is_finite = is_triple and all(is_number(one) and isfinite(one) for one in of)
            _require(is_finite, f"{what} of {name!r} is three numbers; {of!r} came.")
        _require(min(self.std) > 0, f"std of {name!r} is three numbers above 0; {self.std!r} came.")
        kinds = get_args(get_type_hints(Normalisation)["interpolation"])
        _require(
            self.interpolation in kinds,
            f"interpolation of {name!r} is one of {', '.join(kinds)}; {self.interpolation!r} came.",
        )
        _require(
            self.weights is None or isinstance(self.weights, (str, PathLike)),
            f"weights of {name!r} is the path of a file, or None; {self.weights!r} came.",
        )
        _require(self.head is None or isinstance(self.head, str), f"head of {name!r} is a name; {self.head!r} came.")
        sizes = as_image_sizes(self.image_size if isinstance(self.image_size, int) else [self.image_size])
        assert sizes is not None
        return {
            "factory": factory,
            "name": name,
            "arguments": dict(self.arguments),
            "weights": None if self.weights is None else str(Path(self.weights).expanduser().absolute()),
            "mean": tuple(map(float, self.mean)),
            "std": tuple(map(float, self.std)),
            "image_size": sizes[0],
            "blocks": _as_blocks(name, self.blocks),
        }

    @property
    def normalisation(self) -> Normalisation:
        """How pixels enter it."""
        return Normalisation(mean=self.mean, std=self.std, interpolation=self.interpolation)  # type: ignore[arg-type]

    def made(self) -> Any:
        """What the factory makes.

        Raises:
            ArgumentError: it cannot be imported, or not be called so.
        """
        if isinstance(self.factory, str):
            return Made(factory=self.factory, arguments=self.arguments).make()
        try:
            return self.factory(**self.arguments)
        except Exception as error:  # whatever a user's code may raise
            raise ArgumentError(f"{self.name!r} could not be made with {dict(self.arguments)}: {error!r}.") from error

    def require_crossing(self) -> None:
        """Make sure that other processes can make it.

        Raises:
            ArgumentError: it is defined where the search was called, and there alone.
        """
        if not isinstance(self.factory, str) or self.factory.startswith("__main__:"):
            raise ArgumentError(
                f"other processes need a backbone that they can import, and the factory of {self.name!r} is defined in "
                f"the script or session that was started. {_REMEDY}, which trains in this process."
            )

    def to_json(self) -> dict[str, Any]:
        """Give a plain dict that JSON can hold; a factory that lives in memory alone is only told to be one."""
        blocks = None if self.blocks is None else [list(block) for block in self.blocks]
        return {
            "factory": self.factory if isinstance(self.factory, str) else {_IN_MEMORY: "a function or class"},
            "name": self.name,
            "arguments": dict(self.arguments),
            "weights": self.weights,
            "mean": list(self.mean),
            "std": list(self.std),
            "image_size": list(self.image_size),  # type: ignore[arg-type]
            "interpolation": self.interpolation,
            "blocks": blocks,
            "head": self.head,
        }

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> OwnBackbone:
        """What `to_json` gave, of one that can be imported; nothing is imported.

        Raises:
            ArgumentError: it is none.
        """
        return cls(**facts)


def require_names(backbones: object) -> None:
    """Make sure that it names backbones, or is one or several of them.

    Raises:
        ArgumentError: it is something else.
    """
    each = backbones if isinstance(backbones, Sequence) else (backbones,)
    _require(
        backbones is None or all(isinstance(one, (str, OwnBackbone)) for one in each),
        f"backbones is a name, a glob, an OwnBackbone, or a list of such, not {backbones!r}.",
    )


def split_own(
    backbones: Any, known: Mapping[str, OwnBackbone] | None = None
) -> tuple[tuple[Any, ...] | None, dict[str, OwnBackbone]]:
    """Tell the user's own backbones from names and globs.

    Args:
        backbones: a name, a glob, `"package.module:factory"`, an `OwnBackbone`, or several of these, or `None`.
        known: own ones that were given before: a name of theirs stands for them.

    Returns:
        Names and globs, those of own ones among them; and the own ones by name, the known ones, too.

    Raises:
        ArgumentError: two different ones have one name, or nothing of that kind came.

    Example:
        >>> names, own = split_own(["resnet50", "torchvision:alexnet", "my.networks:tiny"])
        >>> names, list(own)
        (('resnet50', 'torchvision:alexnet', 'my.networks:tiny'), ['my.networks:tiny'])
    """
    own = dict(known or {})
    if backbones is None:
        return None, own
    require_names(backbones)
    each = (backbones,) if isinstance(backbones, (str, OwnBackbone)) else tuple(backbones)
    names = []
    for one in each:
        is_factory = isinstance(one, str) and ":" in one and not one.startswith(_TORCHVISION) and one not in own
        found = OwnBackbone(factory=one) if is_factory else one
        if isinstance(found, OwnBackbone):
            before = own.setdefault(found.name, found)
            _require(before == found, f"two backbones of your own are called {found.name!r}; give them two names.")
            names.append(found.name)
        else:
            names.append(found)
    return tuple(names), own


def own_given(backbones: Any) -> dict[str, OwnBackbone]:
    """Own backbones, of those that a user gave to say that their code may run.

    Raises:
        ArgumentError: one of them is not the user's own.
    """
    names, own = split_own(backbones)
    others = [name for name in names or () if name not in own]
    _require(
        not others,
        f"backbones= says which of your own may run; {', '.join(map(repr, others))} came. Leave out what timm or "
        "torchvision has.",
    )
    return own


def is_as_noted(given: OwnBackbone, noted: Mapping[str, Any]) -> bool:
    """Whether a backbone is the one that a run has noted; where its weights lie does not matter."""
    return replace(given, weights=None).to_json() == {**noted, "weights": None}


def _text_of(factory: Any) -> Any:
    """`package.module:name` of what can be imported under it; else the factory itself."""
    module, name = getattr(factory, "__module__", None), getattr(factory, "__qualname__", "<")
    if not isinstance(module, str) or module == "__main__" or "<" in name:
        return factory
    made = Made(factory=f"{module}:{name}")
    try:
        return made.factory if made.found() is factory else factory
    except ArgumentError:
        return factory


def _as_blocks(name: str, blocks: Any) -> tuple[tuple[str, ...], ...] | None:
    if blocks is None:
        return None
    is_several = isinstance(blocks, Sequence) and not isinstance(blocks, str) and len(blocks) > 0
    found = [(one,) if isinstance(one, str) else tuple(one) for one in blocks] if is_several else []
    are_names = bool(found) and all(block and all(isinstance(part, str) for part in block) for block in found)
    _require(are_names, f"blocks of {name!r} are names of its modules in order, or tuples of such; {blocks!r} came.")
    every = [part for block in found for part in block]
    several = [part for part in every if sum(f"{part}.".startswith(f"{other}.") for other in every) > 1]
    _require(
        not several,
        f"each module of {name!r} is in one of its blocks; {', '.join(map(repr, dict.fromkeys(several)))} came several "
        f"times, by itself or as a part: {blocks!r}.",
    )
    return tuple(found)


def _require(is_good: object, message: str) -> None:
    if not is_good:
        raise ArgumentError(message)

"""What may be searched, and how a suggestion becomes a candidate.

Depth and image size are suggested as shares, since a categorical's choices cannot depend on the backbone, and are
mapped to each backbone's own lists.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from autobackbone.errors import SpaceError
from autobackbone.records import Candidate, ImageSize

Bound = tuple[float, float]
Setting = float | int | Bound | Sequence[float | int]

_EXTRAS: Mapping[str, tuple[type, bool]] = {
    # name: (type, on a log scale)
    "weight_decay": (float, True),
    "label_smoothing": (float, False),
    "batch_size": (int, True),
    "n_epochs": (int, False),
}
# How far the opening trials unfreeze: shares of the blocks, the cheaper first.
_OPENING_DEPTHS = (0.25, 0.5)
_DEFAULT_LR: Bound = (3e-5, 3e-3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """The space of one run.

    Args:
        image_sizes: the sizes of each backbone, ascending; its keys are the backbones, smallest first.
        n_blocks: the blocks of each backbone.
        lr: a fixed rate, or bounds of a log scale.
        n_unfrozen: a fixed number, or inclusive bounds; `None` for 1 to all blocks.
        extras: further parameters: a fixed value, or inclusive bounds.
        reachable: pairs of backbone and image size that training can start from; `None` for all. A suggestion that
            means another size of the backbone is taken to the nearest reachable one.
    """

    image_sizes: Mapping[str, tuple[ImageSize, ...]]
    n_blocks: Mapping[str, int]
    lr: float | Bound = _DEFAULT_LR
    n_unfrozen: int | tuple[int, int] | None = None
    extras: Mapping[str, float | int | Bound] = field(default_factory=dict)
    reachable: frozenset[tuple[str, ImageSize]] | None = None

    def opening_depths(self, backbone: str) -> tuple[int, ...]:
        """How many blocks the first trials of a backbone unfreeze, the cheaper first."""
        lowest, highest = self.depths(backbone)
        wanted = (round(self.n_blocks[backbone] * share) for share in _OPENING_DEPTHS)
        return tuple(min(max(lowest, depth), highest) for depth in wanted)

    @property
    def is_frozen_only(self) -> bool:
        """Whether nothing but heads may train."""
        return self.n_unfrozen == 0

    def with_reachable(self, pairs: frozenset[tuple[str, ImageSize]]) -> Space:
        """The same space, its suggestions taken to the nearest of these pairs."""
        return replace(self, reachable=pairs)

    def reachable_pairs(self) -> list[tuple[str, ImageSize]]:
        """Pairs of backbone and image size that a suggestion can mean."""
        pairs = [(name, size) for name, sizes in self.image_sizes.items() for size in sizes]
        return [pair for pair in pairs if self.reachable is None or pair in self.reachable]

    def distributions(self) -> dict[str, BaseDistribution]:
        """What Optuna samples from; the same for every trial of a run."""
        searched: dict[str, BaseDistribution] = {
            "backbone": CategoricalDistribution(tuple(self.image_sizes)),
            "size_share": FloatDistribution(0.0, 1.0),
            "depth_share": FloatDistribution(0.0, 1.0),
            "lr": FloatDistribution(*self._lr_bounds, log=True),
        }
        for name, value in self.extras.items():
            if isinstance(value, tuple):
                kind, is_log = _EXTRAS[name]
                make = IntDistribution if kind is int else FloatDistribution
                searched[name] = make(low=kind(value[0]), high=kind(value[1]), log=is_log)
        return searched

    def candidate(self, suggestion: Mapping[str, float | int | str]) -> Candidate:
        """The candidate that a suggestion means; a share of depth is at least one block."""
        backbone = str(suggestion["backbone"])
        lowest, highest = self.depths(backbone)
        n_unfrozen = lowest + _step(float(suggestion["depth_share"]), highest - lowest + 1)
        fixed = {name: value for name, value in self.extras.items() if not isinstance(value, tuple)}
        asked = {name: suggestion[name] for name in self.extras if name in suggestion}
        return Candidate(
            backbone=backbone,
            image_size=self._image_size(backbone, float(suggestion["size_share"])),
            n_unfrozen=n_unfrozen,
            lr=float(suggestion["lr"]),
            extras={**fixed, **asked},
        )

    def _image_size(self, backbone: str, share: float) -> ImageSize:
        sizes = self.image_sizes[backbone]
        wanted = _step(share, len(sizes))
        is_open = [self.reachable is None or (backbone, size) in self.reachable for size in sizes]
        distance = [abs(index - wanted) if is_open[index] else len(sizes) for index in range(len(sizes))]
        return sizes[min(range(len(sizes)), key=distance.__getitem__)] if any(is_open) else sizes[wanted]

    def suggestion(self, candidate: Candidate) -> dict[str, float | int | str]:
        """The suggestion that means a candidate. A frozen one carries depth share 0 and the middle of the rates:
        without a rate it would drop out of the sampler's joint model.
        """
        sizes = self.image_sizes[candidate.backbone]
        lowest, highest = self.depths(candidate.backbone)
        depth = 0.0 if candidate.n_unfrozen == 0 else _middle(candidate.n_unfrozen - lowest, highest - lowest + 1)
        suggested: dict[str, float | int | str] = {
            "backbone": candidate.backbone,
            "size_share": _middle(sizes.index(candidate.image_size), len(sizes)),
            "depth_share": depth,
            "lr": self.typical_lr if candidate.lr is None else candidate.lr,
        }
        for name, value in self.extras.items():
            if isinstance(value, tuple):
                suggested[name] = candidate.extras.get(name, _typical(name, value))
        return suggested

    @property
    def _lr_bounds(self) -> Bound:
        return self.lr if isinstance(self.lr, tuple) else (self.lr, self.lr)

    @property
    def typical_lr(self) -> float:
        """The middle of the log range, or the fixed rate."""
        return math.sqrt(self.lr[0] * self.lr[1]) if isinstance(self.lr, tuple) else self.lr

    def depths(self, backbone: str) -> tuple[int, int]:
        """The fewest and the most blocks that a fine-tuned candidate of this backbone unfreezes."""
        n_blocks = self.n_blocks[backbone]
        asked = self.n_unfrozen if self.n_unfrozen is not None else (1, n_blocks)
        lowest, highest = asked if isinstance(asked, tuple) else (asked, asked)
        return max(1, min(lowest, n_blocks)), max(1, min(highest, n_blocks))


def as_space_settings(value: Mapping[str, Setting] | None) -> dict[str, float | int | Bound]:
    """Check what users write in `space=` and bring it to one form: a fixed value or inclusive bounds.

    Raises:
        SpaceError: an unknown name, or a value that cannot be read.

    Example:
        >>> as_space_settings({"lr": (1e-5, 1e-3), "n_unfrozen": 0})
        {'lr': (1e-05, 0.001), 'n_unfrozen': 0}
    """
    if value is not None and not isinstance(value, Mapping):
        raise SpaceError(f"space is a mapping such as {{'lr': (1e-5, 1e-3), 'n_unfrozen': 0}}, not {value!r}.")
    return {name: _setting(name, setting) for name, setting in (value or {}).items()}


def _setting(name: str, value: Setting) -> float | int | Bound:
    known = ("lr", "n_unfrozen", *_EXTRAS)
    if name not in known:
        close = difflib.get_close_matches(str(name), known, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise SpaceError(f"space has no parameter {name!r}; it has {', '.join(known)}.{hint}")
    ends = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value, value)
    is_whole = name in ("n_unfrozen", "batch_size", "n_epochs")
    lowest = {"n_unfrozen": 0, "label_smoothing": 0}.get(name, 1 if is_whole else 1e-12)
    is_read = (
        len(ends) == 2
        and all(isinstance(end, int if is_whole else (int, float)) and not isinstance(end, bool) for end in ends)
        and lowest <= ends[0] <= ends[1] < math.inf
    )
    if not is_read or (name == "label_smoothing" and ends[1] >= 1):
        kind = "whole number" if is_whole else "number"
        raise SpaceError(
            f"space[{name!r}] is a {kind} of at least {lowest:g}, or bounds (lowest, highest) of such; {value!r} came."
        )
    low, high = ends
    return low if low == high else (low, high)


def _step(share: float, n: int) -> int:
    return min(int(share * n), n - 1)


def _middle(step: int, n: int) -> float:
    return (min(max(step, 0), n - 1) + 0.5) / n


def _typical(name: str, bounds: Bound) -> float | int:
    kind, is_log = _EXTRAS[name]
    middle = math.sqrt(bounds[0] * bounds[1]) if is_log else (bounds[0] + bounds[1]) / 2
    return round(middle) if kind is int else middle

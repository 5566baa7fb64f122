"""What may be searched, and how a suggestion becomes a candidate.

Depth, image size and the number of blocks kept are suggested as shares, since a categorical's choices cannot depend on
the backbone, and are mapped to each backbone's own lists.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from autobackbone.errors import SpaceError
from autobackbone.records import Balancing, Body, Candidate, ImageSize
from autobackbone.search.extras import CLASS_WEIGHTS, Bound, Extra, Setting, distribution_of, read_setting, typical

CutSetting = int | tuple[int, int] | Literal["usual"] | None
USUAL: Literal["usual"] = "usual"

# How far the opening trials unfreeze: shares of the blocks, the cheaper first.
_OPENING_DEPTHS = (0.25, 0.5)
_DEFAULT_LR: Bound = (3e-5, 1e-3)
# Shares of kept blocks from here on mean the whole backbone.
_WHOLE_FROM = 0.5
# So many of the longest cuts are offered where nothing else is asked, none shorter than half of the backbone.
_N_CUTS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """The space of one run.

    Args:
        image_sizes: the sizes of each backbone, ascending; its keys are the backbones, smallest first.
        n_blocks: the blocks of each backbone.
        lr: a fixed rate, or bounds of a log scale.
        n_unfrozen: a fixed number, or inclusive bounds; `None` for 1 to all blocks.
        extras: further parameters: a fixed value, inclusive bounds, or words of which one is chosen.
        kept: by backbone, how many first blocks alone may be used instead of all, ascending; none for what is missing.
        reachable: bodies that training can start from; `None` for all whole ones. A suggestion that means another one
            is taken to the nearest reachable size of its backbone, and there to the nearest number of blocks.
    """

    image_sizes: Mapping[str, tuple[ImageSize, ...]]
    n_blocks: Mapping[str, int]
    lr: float | Bound = _DEFAULT_LR
    n_unfrozen: int | tuple[int, int] | None = None
    extras: Mapping[str, Extra] = field(default_factory=dict)
    kept: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    reachable: frozenset[Body] | None = None

    def opening_depths(self, backbone: str, n_blocks_kept: int | None = None) -> tuple[int, ...]:
        """How many blocks the first trials of a backbone unfreeze, the cheaper first."""
        lowest, highest = self.depths(backbone, n_blocks_kept)
        wanted = (round((n_blocks_kept or self.n_blocks[backbone]) * share) for share in _OPENING_DEPTHS)
        return tuple(min(max(lowest, depth), highest) for depth in wanted)

    @property
    def is_frozen_only(self) -> bool:
        """Whether nothing but heads may train."""
        return self.n_unfrozen == 0

    @property
    def head_weights(self) -> Balancing:
        """How heads on frozen features weigh classes: a weight that is searched concerns what is fine-tuned alone."""
        return "balanced" if self.extras.get(CLASS_WEIGHTS) == "balanced" else "none"

    def with_reachable(self, bodies: frozenset[Body]) -> Space:
        """The same space, its suggestions taken to the nearest of these bodies."""
        return replace(self, reachable=bodies)

    def bodies(self) -> list[Body]:
        """What a suggestion can mean; a cut that has not so many blocks as shall be unfrozen is none of them."""
        fewest = self.n_unfrozen[0] if isinstance(self.n_unfrozen, tuple) else self.n_unfrozen or 1
        every = [
            Body(name, size, kept)
            for name, sizes in self.image_sizes.items()
            for size in sizes
            for kept in (None, *reversed(self.kept.get(name, ())))
            if kept is None or kept >= fewest
        ]
        return [body for body in every if self._is_reachable(body)]

    def _is_reachable(self, body: Body) -> bool:
        return body.n_blocks_kept is None if self.reachable is None else body in self.reachable

    def distributions(self) -> dict[str, BaseDistribution]:
        """What Optuna samples from; the same for every trial of a run."""
        searched: dict[str, BaseDistribution] = {
            "backbone": CategoricalDistribution(tuple(self.image_sizes)),
            "size_share": FloatDistribution(0.0, 1.0),
            "depth_share": FloatDistribution(0.0, 1.0),
            "lr": FloatDistribution(*self._lr_bounds, log=True),
        }
        if any(self.kept.values()):
            searched["kept_share"] = FloatDistribution(0.0, 1.0)
        for name, value in self.extras.items():
            if isinstance(value, tuple):
                searched[name] = distribution_of(name, value)
        return searched

    def candidate(self, suggestion: Mapping[str, float | int | str]) -> Candidate:
        """The candidate that a suggestion means; a share of depth is at least one block."""
        body = self._body(suggestion)
        lowest, highest = self.depths(body.backbone, body.n_blocks_kept)
        n_unfrozen = lowest + _step(float(suggestion["depth_share"]), highest - lowest + 1)
        fixed = {name: value for name, value in self.extras.items() if not isinstance(value, tuple)}
        asked = {name: suggestion[name] for name in self.extras if name in suggestion}
        return Candidate(**body._asdict(), n_unfrozen=n_unfrozen, lr=float(suggestion["lr"]), extras={**fixed, **asked})

    def _body(self, suggestion: Mapping[str, float | int | str]) -> Body:
        backbone = str(suggestion["backbone"])
        wanted = _step(float(suggestion["size_share"]), len(self.image_sizes[backbone]))
        sizes = self.image_sizes[backbone]
        options = [body for body in self.bodies() if body.backbone == backbone]
        if not options:
            return Body(backbone, sizes[wanted])
        size = min({body.image_size for body in options}, key=lambda size: (abs(sizes.index(size) - wanted), size))
        kept = self._kept(backbone, float(suggestion.get("kept_share", 1.0)))
        n_blocks = self.n_blocks[backbone]
        return min(
            (body for body in options if body.image_size == size),
            key=lambda body: abs((body.n_blocks_kept or n_blocks) - (kept or n_blocks)),
        )

    def _kept(self, backbone: str, share: float) -> int | None:
        cuts = self.kept.get(backbone, ())
        return None if share >= _WHOLE_FROM or not cuts else cuts[_step(share / _WHOLE_FROM, len(cuts))]

    def suggestion(self, candidate: Candidate) -> dict[str, float | int | str]:
        """The suggestion that means a candidate. A frozen one carries depth share 0 and the middle of the rates:
        without a rate it would drop out of the sampler's joint model.
        """
        sizes = self.image_sizes[candidate.backbone]
        lowest, highest = self.depths(candidate.backbone, candidate.n_blocks_kept)
        depth = 0.0 if candidate.n_unfrozen == 0 else _middle(candidate.n_unfrozen - lowest, highest - lowest + 1)
        suggested: dict[str, float | int | str] = {
            "backbone": candidate.backbone,
            "size_share": _middle(sizes.index(candidate.image_size), len(sizes)),
            "depth_share": depth,
            "lr": self.typical_lr if candidate.lr is None else candidate.lr,
        }
        if any(self.kept.values()):
            suggested["kept_share"] = self._kept_share(candidate.body)
        for name, value in self.extras.items():
            if isinstance(value, tuple):
                suggested[name] = candidate.extras.get(name, typical(name, value))
        return suggested

    def _kept_share(self, body: Body) -> float:
        if body.n_blocks_kept is None:
            return (_WHOLE_FROM + 1) / 2
        cuts = self.kept[body.backbone]
        return _WHOLE_FROM * _middle(cuts.index(body.n_blocks_kept), len(cuts))

    @property
    def _lr_bounds(self) -> Bound:
        return self.lr if isinstance(self.lr, tuple) else (self.lr, self.lr)

    @property
    def typical_lr(self) -> float:
        """The middle of the log range, or the fixed rate."""
        return math.sqrt(self.lr[0] * self.lr[1]) if isinstance(self.lr, tuple) else self.lr

    def depths(self, backbone: str, n_blocks_kept: int | None = None) -> tuple[int, int]:
        """The fewest and the most blocks that a fine-tuned candidate unfreezes, of all blocks or of the first ones."""
        n_blocks = n_blocks_kept or self.n_blocks[backbone]
        asked = self.n_unfrozen if self.n_unfrozen is not None else (1, n_blocks)
        lowest, highest = asked if isinstance(asked, tuple) else (asked, asked)
        return max(1, min(lowest, n_blocks)), max(1, min(highest, n_blocks))


def offered_cuts(n_blocks: Mapping[str, int], setting: CutSetting = USUAL) -> dict[str, tuple[int, ...]]:
    """As `cuts_to_offer`, by backbone.

    Raises:
        SpaceError: none of them has what was asked for.
    """
    kept = {name: cuts_to_offer(n, setting) for name, n in n_blocks.items()}
    if setting not in (USUAL, None) and not any(kept.values()):
        raise SpaceError(
            f"space['n_blocks_kept'] is fewer blocks than a backbone has, and these have {min(n_blocks.values())} to "
            f"{max(n_blocks.values())}; {setting} came. Ask for fewer, or for None to use whole networks only."
        )
    return kept


def check_depths(n_blocks: Mapping[str, int], n_unfrozen: int | tuple[int, int] | None) -> None:
    """Refuse a depth that no backbone has.

    Raises:
        SpaceError: all have fewer blocks.
    """
    lowest = n_unfrozen[0] if isinstance(n_unfrozen, tuple) else n_unfrozen
    if lowest is not None and lowest > max(n_blocks.values()):
        raise SpaceError(
            f"space['n_unfrozen'] is at most as many blocks as a backbone has, and these have {min(n_blocks.values())} "
            f"to {max(n_blocks.values())}; {n_unfrozen} came. Ask for fewer, or for (1, {max(n_blocks.values())})."
        )


def cuts_to_offer(n_blocks: int, setting: CutSetting = USUAL) -> tuple[int, ...]:
    """How many first blocks alone are tried of a backbone, ascending.

    Args:
        n_blocks: that it has.
        setting: a number, or inclusive bounds; `None` for no cut; `"usual"` for the three longest, none shorter than
            half of the backbone.

    Example:
        >>> cuts_to_offer(8), cuts_to_offer(5), cuts_to_offer(8, (2, 4)), cuts_to_offer(8, 20), cuts_to_offer(8, None)
        ((5, 6, 7), (3, 4), (2, 3, 4), (), ())
    """
    if setting is None:
        return ()
    if isinstance(setting, str):
        return tuple(range(max((n_blocks + 1) // 2, n_blocks - _N_CUTS, 1), n_blocks))
    lowest, highest = setting if isinstance(setting, tuple) else (setting, setting)
    return tuple(range(max(1, lowest), min(highest, n_blocks - 1) + 1))


def as_space_settings(value: Mapping[str, Setting] | None) -> dict[str, Extra | None]:
    """Check what users write in `space=` and bring it to one form: a fixed value, inclusive bounds, or words.

    Raises:
        SpaceError: an unknown name, or a value that cannot be read.

    Example:
        >>> as_space_settings({"lr": (1e-5, 1e-3), "n_unfrozen": 0, "class_weights": ["none", "balanced"]})
        {'lr': (1e-05, 0.001), 'n_unfrozen': 0, 'class_weights': ('none', 'balanced')}
    """
    if value is not None and not isinstance(value, Mapping):
        raise SpaceError(f"space is a mapping such as {{'lr': (1e-5, 1e-3), 'n_unfrozen': 0}}, not {value!r}.")
    return {name: read_setting(name, setting) for name, setting in (value or {}).items()}


def _step(share: float, n: int) -> int:
    return min(int(share * n), n - 1)


def _middle(step: int, n: int) -> float:
    return (min(max(step, 0), n - 1) + 0.5) / n

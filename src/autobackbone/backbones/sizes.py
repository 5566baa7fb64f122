"""The image sizes at which a network is tried."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from autobackbone.records import ImageSize

# Few and shared by all backbones, so that a picture is decoded to few sizes.
_LADDER: Final = (96, 128, 160, 224, 320, 448)
_N_SIZES: Final = 4


def sizes_to_try(
    own: ImageSize,
    wanted: Sequence[ImageSize] | None,
    takes: Callable[[ImageSize], bool],
    steps: Sequence[int] = (),
) -> tuple[ImageSize, ...]:
    """The image sizes to try a network at, smallest first.

    Args:
        own: height and width that its weights were made for.
        wanted: the user's sizes; one that the network cannot take goes to the nearest multiple of 32 px, or of a step,
            or is left out. `None` for the own size and up to three smaller ones, spread evenly.
        takes: whether it runs at a size.
        steps: pixels of which its sides may have to be multiples.

    Returns:
        Sizes without repetition; empty if the network can take none of the wanted ones.

    Example:
        >>> sizes_to_try((224, 224), None, lambda size: size[0] % 32 == 0)
        ((96, 96), (128, 128), (160, 160), (224, 224))
    """

    def nearest(size: ImageSize) -> ImageSize | None:
        rounded = ((_multiple(size[0], step), _multiple(size[1], step)) for step in (1, 32, *steps))
        return next((one for one in rounded if takes(one)), None)

    if wanted is not None:
        found = (nearest(size) for size in wanted)
        return tuple(sorted({size for size in found if size is not None}))
    smaller = [nearest((side, side)) for side in _LADDER if side < min(own)]
    sizes = sorted({size for size in smaller if size is not None and max(size) < min(own)})
    return (*_spread(sizes), own)


def _spread(sizes: list[ImageSize]) -> list[ImageSize]:
    """At most three, evenly apart, the largest among them: tiny pictures lose most."""
    n_wanted = _N_SIZES - 1
    if len(sizes) <= n_wanted:
        return sizes
    step = (len(sizes) - 1) / n_wanted
    return [sizes[round(step * (index + 1))] for index in range(n_wanted)]


def _multiple(side: int, step: int) -> int:
    return max(step, step * ((2 * side + step) // (2 * step)))

"""Pictures that stay encoded: decoded whenever they are looked at, where all of them decoded have no room."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from autobackbone.data.pictures import quiet_pillow
from autobackbone.data.preparation import fit
from autobackbone.data.sources import printable
from autobackbone.data.store import mapped, rgb_or_reason, threads_for
from autobackbone.data.surveying import DataWarning
from autobackbone.records import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from autobackbone.data.preparation import Preparation
    from autobackbone.data.sources import Source
    from autobackbone.records import ImageSize


class Pixels(Protocol):
    """Pixels of one size by number of picture, wherever they come from: (n, height, width, 3) uint8."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, height, width, 3)."""

    def __getitem__(self, some: Any, /) -> NDArray[Any]:
        """Give those of some pictures, by an array of numbers (n_some,)."""


class EncodedPixels:
    """Gives the very pixels that a store would hold, decoded anew each time by worker threads.

    Args:
        source: n pictures.
        preparation: how they become pixels; its value range is settled.
        image_size: height and width.
        n_workers: threads, at least 1; Pillow decodes outside Python's lock.
    """

    def __init__(self, source: Source, preparation: Preparation, image_size: ImageSize, *, n_workers: int) -> None:
        self.source, self.preparation, self.image_size, self.n_workers = source, preparation, image_size, n_workers
        self._lost: set[int] = set()
        self._n_told = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, height, width, 3)."""
        return (len(self), *self.image_size, 3)

    def __len__(self) -> int:
        return len(self.source.names)

    def __getitem__(self, some: Sequence[int] | NDArray[np.integer[Any]]) -> NDArray[np.uint8]:
        """Decode some pictures, by number (n_some,); those that cannot be read are zeros, as in a store.

        Warns:
            DataWarning: pictures cannot be read.
        """
        pixels = np.zeros((len(some), *self.image_size, 3), np.uint8)
        failed: dict[int, str] = {}

        def decode_one(place: int) -> None:
            rgb = rgb_or_reason(self.source, int(some[place]), self.preparation)
            if isinstance(rgb, str):
                failed[int(some[place])] = rgb
            else:
                pixels[place] = fit(rgb, self.image_size, self.preparation)

        with quiet_pillow():
            for _ in mapped(decode_one, len(some), threads_for(self.source, self.n_workers)):
                pass
        self._tell({number: reason for number, reason in failed.items() if number not in self._lost})
        return pixels

    def _tell(self, lost: dict[int, str]) -> None:
        """Warn of pictures that were not lost before: of the first ones, and again when they are ten times as many."""
        self._lost.update(lost)
        if not lost or len(self._lost) < 10 * self._n_told:
            return
        self._n_told = len(self._lost)
        number = min(lost)
        warnings.warn(
            f"{counted(self._n_told, 'picture')} cannot be read now (black instead), such as "
            f"{printable(self.source.names[number])}: {lost[number]}",
            DataWarning,
            stacklevel=3,
        )

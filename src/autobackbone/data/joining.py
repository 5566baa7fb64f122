"""Sources made of others: some pictures of one, or all of several."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from autobackbone.data.parts import Codes

if TYPE_CHECKING:
    from PIL import Image

    from autobackbone.data.pictures import Picture
    from autobackbone.data.sources import Fingerprint, Source
    from autobackbone.records import ImageSize


@dataclass(frozen=True, slots=True, kw_only=True)
class PartSource:
    """Some pictures of another source, in its order.

    Args:
        whole: the other source.
        indices: (n,) int64: which of its pictures.
    """

    whole: Source
    indices: Codes = field(repr=False)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the whole."""
        names = self.whole.names
        return tuple(names[index] for index in self.indices.tolist())

    @property
    def is_thread_safe(self) -> bool:
        """As the whole."""
        return self.whole.is_thread_safe

    def read(self, index: int) -> Image.Image | np.ndarray[Any, Any] | str | Path:
        """As the whole."""
        return self.whole.read(int(self.indices[index]))

    def fingerprint(self, index: int) -> Fingerprint:
        """As the whole."""
        return self.whole.fingerprint(int(self.indices[index]))

    def picture_size(self, index: int) -> ImageSize:
        """As the whole."""
        return self.whole.picture_size(int(self.indices[index]))


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinedSource:
    """All pictures of several sources, one source after the other.

    Args:
        sources: at least one.
        prefixes: of each source, what its pictures' names begin with, before a slash.
        names: n names, which tell the sources apart.
        ends: of each source, how many pictures there are up to its last one.
    """

    sources: tuple[Source, ...]
    prefixes: tuple[str, ...]
    names: tuple[str, ...] = field(repr=False)
    ends: tuple[int, ...]

    @property
    def is_thread_safe(self) -> bool:
        """Whether all of them are."""
        return all(source.is_thread_safe for source in self.sources)

    def read(self, index: int) -> Picture:
        """As the source that has it."""
        source, within = self._place(index)
        return source.read(within)

    def fingerprint(self, index: int) -> Fingerprint:
        """As the source that has it."""
        source, within = self._place(index)
        return source.fingerprint(within)

    def picture_size(self, index: int) -> ImageSize:
        """As the source that has it."""
        source, within = self._place(index)
        return source.picture_size(within)

    def _place(self, index: int) -> tuple[Source, int]:
        which = bisect_right(self.ends, index)
        return self.sources[which], index - (self.ends[which - 1] if which else 0)


def joined(sources: Sequence[Source], prefixes: Sequence[str]) -> JoinedSource:
    """Join sources; a picture's name is its prefix, `/`, and its name in its source."""
    names = [tuple(f"{prefix}/{name}" for name in of.names) for of, prefix in zip(sources, prefixes, strict=True)]
    return JoinedSource(
        sources=tuple(sources),
        prefixes=tuple(prefixes),
        names=tuple(name for of in names for name in of),
        ends=tuple(accumulate(map(len, names))),
    )

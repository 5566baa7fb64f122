"""What can still end in time, among all that a suggestion can mean: looked through where drawing finds nothing."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from autobackbone.records import Candidate
from autobackbone.search.space import Space

Suggestion = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitting:
    """Tells which candidates fit what is left of the time.

    Args:
        space: what may be suggested.
        expected_s: seconds of a candidate's shortest useful training; infinite where it cannot be trained at all.
        left_s: seconds that the search may still use; infinite without a limit of time.
    """

    space: Space
    expected_s: Callable[[Candidate], float]
    left_s: Callable[[], float]

    def among(self, candidates: Iterable[Candidate], share: float = 1.0) -> Iterator[Candidate]:
        """Those that fit this share of the time left, in order."""
        left_s = self.left_s() * share
        for one in candidates:
            expected_s = self.expected_s(one)
            if left_s > 0 and math.isfinite(expected_s) and expected_s <= left_s:
                yield one

    def fits(self, candidate: Candidate, share: float = 1.0) -> bool:
        """Whether it ends within this share of the time left."""
        return any(True for _ in self.among([candidate], share))

    def is_any(self) -> bool:
        """Whether anything at all fits."""
        return any(True for _ in self.among(self._of_all_bodies(self._cheapest())))

    def shortest_s(self) -> float:
        """Expected seconds of the shortest training that there is; infinite where nothing can be trained."""
        return min(map(self.expected_s, self._of_all_bodies(self._cheapest())), default=math.inf)

    def allows(self, suggestion: Suggestion) -> bool:
        """Whether what a suggestion means fits."""
        return self.fits(self.space.candidate(suggestion))

    def nearest(self, suggestion: Suggestion) -> Suggestion | None:
        """What fits and is most like a suggestion that does not; `None` only where nothing fits any more.

        Its rate and other parameters stay, except for the number of epochs where no body and depth fits with it. Its
        backbone stays if any of its bodies and depths fits; if none does, one whose does is drawn, by a seed that the
        suggestion makes: whoever draws the same falls back on the same.
        """
        asked = self.space.candidate(suggestion)
        # At last whatever `is_any` looks at, so that the two never contradict each other.
        for base in (asked, self._shortened(asked), self._cheapest()):
            fitting = list(self.among(self._of_all_bodies(base)))
            if fitting:
                return self.space.suggestion(self._most_like(asked, fitting))
        return None

    def _most_like(self, asked: Candidate, fitting: list[Candidate]) -> Candidate:
        names = list(dict.fromkeys(one.backbone for one in fitting))
        generator = np.random.default_rng(zlib.crc32(repr(asked).encode()))
        name = asked.backbone if asked.backbone in names else names[generator.integers(len(names))]
        wanted = self._place(asked)
        return min(
            (one for one in fitting if one.backbone == name),
            key=lambda one: sum(abs(a - b) for a, b in zip(self._place(one), wanted, strict=True)),
        )

    def _place(self, candidate: Candidate) -> tuple[float, ...]:
        shares = self.space.suggestion(candidate)
        return tuple(float(shares[name]) for name in ("size_share", "depth_share", "kept_share") if name in shares)

    def _of_all_bodies(self, base: Candidate) -> Iterator[Candidate]:
        for body in self.space.bodies():
            lowest, highest = self.space.depths(body.backbone, body.n_blocks_kept)
            for n_unfrozen in range(lowest, highest + 1):
                yield replace(base, **body._asdict(), n_unfrozen=n_unfrozen)

    def _cheapest(self) -> Candidate:
        """Any body, at the typical rate and as few epochs as there may be."""
        name, sizes = next(iter(self.space.image_sizes.items()))
        frozen = Candidate(backbone=name, image_size=sizes[0], n_unfrozen=0)
        return self._shortened(self.space.candidate(self.space.suggestion(frozen)))

    def _shortened(self, candidate: Candidate) -> Candidate:
        n_epochs = self.space.extras.get("n_epochs")
        fewest = {"n_epochs": int(n_epochs[0])} if isinstance(n_epochs, tuple) else {}
        return replace(candidate, extras={**candidate.extras, **fewest})

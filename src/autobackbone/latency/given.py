"""Latencies of a table, in place of those that are measured here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from autobackbone.backbones.every import Backbones
from autobackbone.errors import TargetError, TrialError
from autobackbone.latency.measure import DRIFT_SHARE
from autobackbone.records import Body, ImageSize, Latency, Target
from autobackbone.timings import Timing

if TYPE_CHECKING:
    from torch import nn


class GivenLatencies:
    """What a table says of latencies, asked as a `LatencyBook` is.

    Args:
        timings: of the table.
        backbones: what their names stand for.

    Raises:
        BackboneError: there is no backbone of a name.
        TargetError: two names stand for one network, at one size.

    Example:
        >>> timing = Timing(backbone="resnet50", image_size=(32, 32), latency_ms=5.0)
        >>> GivenLatencies([timing]).find("resnet50.a1_in1k", (32, 32), Target()).p50_ms
        5.0
    """

    def __init__(self, timings: Sequence[Timing], backbones: Backbones | None = None) -> None:
        known = backbones or Backbones()
        names = {name: known.resolve(name)[0] for name in dict.fromkeys(one.backbone for one in timings)}
        self._timings: dict[Body, Timing] = {}
        for one in timings:
            body = Body(names[one.backbone], one.image_size, one.n_blocks_kept)
            before = self._timings.setdefault(body, one)
            if before is not one:
                raise TargetError(
                    f"a table of latencies has one row for each network and size; {body} is in it several times, as "
                    f"{before.backbone!r} and as {one.backbone!r}. Leave one of them."
                )
        self._latencies = {
            (f"{body.backbone}{body.cut}", body.image_size): _latency(one) for body, one in self._timings.items()
        }

    @property
    def backbones(self) -> tuple[str, ...]:
        """Full names, in the order of the table."""
        return tuple(dict.fromkeys(body.backbone for body in self._timings))

    def image_sizes(self, backbone: str) -> tuple[ImageSize, ...]:
        """At which a whole backbone is in the table, in its order."""
        return tuple(
            body.image_size for body in self._timings if (body.backbone, body.n_blocks_kept) == (backbone, None)
        )

    def has_cut(self, backbone: str, n_blocks_kept: int) -> bool:
        """Whether the first blocks of a backbone alone are in the table, at any size."""
        return any((body.backbone, body.n_blocks_kept) == (backbone, n_blocks_kept) for body in self._timings)

    def measure(
        self, network: nn.Module, backbone: str, image_size: ImageSize, target: Target, *, seconds: float = 1.0
    ) -> Latency:
        """What the table says; nothing is measured.

        Raises:
            TrialError: it says nothing of that network.
        """
        del network, seconds
        found = self.find(backbone, image_size, target)
        if found is None:
            raise TrialError(f"the table of {target.name or 'the target'} has no latency of it")
        return found

    def find(self, backbone: str, image_size: ImageSize, target: Target) -> Latency | None:
        """What the table says, `None` where it says nothing."""
        del target
        return self._latencies.get((backbone, image_size))


def _latency(one: Timing) -> Latency:
    p95_ms, noise_ms = one.latency_p95_ms, one.latency_noise_ms
    return Latency(
        p50_ms=one.latency_ms,
        p95_ms=one.latency_ms if p95_ms is None else p95_ms,
        noise_ms=DRIFT_SHARE * one.latency_ms if noise_ms is None else noise_ms,
        images_per_s=float("nan"),
        n_repeats=1,
    )

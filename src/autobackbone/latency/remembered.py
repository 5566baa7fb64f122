"""Latencies that were measured here before: a second each, but hundreds of them in a search over a large catalogue."""

from __future__ import annotations

import json
import logging
import os
import re
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autobackbone.latency.measure import fastest_ms, measure
from autobackbone.latency.target import hardware, resolve
from autobackbone.records import ImageSize, Latency, Target
from autobackbone.runfolder import write_text

if TYPE_CHECKING:
    from torch import nn

_LOG = logging.getLogger(__name__)
_FORMAT = 1
# A median that is known no better, or from fewer passes, may come from a crowd: good enough for want of another, not
# worth keeping. Two threads beside other work on two cores once gave 1288 ± 26 ms from 3 passes, where 9 ms are true.
_KEPT_NOISE_SHARE = 0.1
_KEPT_REPEATS = 8
# A processor's name says too little: one "Intel Xeon" held 13.9 ms of another day for a network that takes 6 to 8. So a
# glance has to bear out what is remembered. Fastest passes and medians of one network lie up to a fifth apart.
_STALE_RATIO = 1.3
# What tells two codes of one name apart, as `BackboneSource.known_as` writes it: nothing to a reader.
_DIGEST = re.compile(r" [0-9a-f]{8}(?=$|,)")
_REMEDY = (
    "With GOMP_SPINCOUNT=5000 in the environment of this process threads wait less for each other beside other work."
)


class LatencyBook:
    """What is known of latencies on this machine, in one JSON file.

    A key names what a latency is known to depend on, so another processor, number of threads, or version of torch or
    timm finds nothing and measures anew; so does a machine that is no longer as fast as it was. The file is replaced
    whole; a damaged one is started anew.

    Args:
        path: the file; it and its folder need not exist.

    Example:
        >>> import tempfile, torch
        >>> book = LatencyBook(Path(tempfile.mkdtemp()) / "latencies.json")
        >>> book.find("tiny", (32, 32), Target(device="cpu")) is None
        True
        >>> latency = book.measure(torch.nn.Conv2d(3, 4, 3), "tiny", (32, 32), Target(device="cpu"), seconds=0.02)
        >>> latency.p50_ms > 0
        True
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def measure(
        self, network: nn.Module, backbone: str, image_size: ImageSize, target: Target, *, seconds: float = 1.0
    ) -> Latency:
        """What is remembered of a backbone if a few passes bear it out, else what is measured, remembered from then on.

        A measurement from few passes, or whose noise exceeds a tenth of it, is returned, but not remembered; where that
        noise explains why it is slower than what is remembered, that is returned.
        """
        known = self.recall(network, backbone, image_size, target)
        if known is not None:
            return known
        latency = measure(network, image_size, resolve(target), seconds=seconds)
        if latency.n_repeats >= _KEPT_REPEATS and not is_disturbed(latency):
            self.remember(backbone, image_size, target, latency)
            return latency
        before = self.find(backbone, image_size, target)
        if before is not None and before.p50_ms < latency.p50_ms <= _STALE_RATIO * before.p50_ms + latency.noise_ms:
            return before
        if seconds >= 1.0:  # who asks for a glance knows that it is one
            _LOG.warning(
                "the latency of %s is uncertain, %.2f ± %.2f ms from %d passes: is something else running here? %s",
                _DIGEST.sub("", backbone),
                latency.p50_ms,
                latency.noise_ms,
                latency.n_repeats,
                "" if "GOMP_SPINCOUNT" in os.environ else _REMEDY,
            )
        return latency

    def recall(self, network: nn.Module, backbone: str, image_size: ImageSize, target: Target) -> Latency | None:
        """What is remembered of a backbone and borne out by a few passes of the network, `None` if nothing is."""
        known = self.find(backbone, image_size, target)
        if known is None:
            return None
        ratio = fastest_ms(network, image_size, resolve(target)) / known.p50_ms
        return known if 1 / _STALE_RATIO <= ratio <= _STALE_RATIO else None

    def find(self, backbone: str, image_size: ImageSize, target: Target) -> Latency | None:
        """What is remembered of a backbone, stale or not, `None` if nothing is."""
        return self._entries().get(_key(backbone, image_size, target))

    def remember(self, backbone: str, image_size: ImageSize, target: Target, latency: Latency) -> None:
        """Keep a latency; what other processes have written meanwhile stays."""
        entries = self._entries() | {_key(backbone, image_size, target): latency}
        content = {"format": _FORMAT, "latencies": {key: asdict(entry) for key, entry in entries.items()}}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_text(self.path, json.dumps(content, indent=1, sort_keys=True))
        except OSError as error:
            _LOG.warning("latencies cannot be remembered in %s: %s", self.path, error)

    def _entries(self) -> dict[str, Latency]:
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            return _parsed(content) if content["format"] == _FORMAT else {}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            _LOG.warning("%s is damaged (%s); latencies are measured anew.", self.path, error)
            return {}


def is_disturbed(latency: Latency) -> bool:
    """Whether its noise exceeds a tenth of it, as beside other work."""
    return latency.noise_ms > _KEPT_NOISE_SHARE * latency.p50_ms


def _parsed(content: dict[str, Any]) -> dict[str, Latency]:
    return {key: Latency(**entry) for key, entry in content["latencies"].items()}


def _key(backbone: str, image_size: ImageSize, target: Target) -> str:
    settled = resolve(target)
    facts = hardware(settled) | {
        "backbone": backbone,
        "image_size": f"{image_size[0]}x{image_size[1]}",
        "batch_size": settled.batch_size,
        "device": settled.device,
        "precision": settled.precision,
        "timm": version("timm"),
    }
    if settled.runtime != "torch":
        facts["runtime"] = settled.runtime
    return json.dumps(facts, sort_keys=True)

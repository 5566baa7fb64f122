"""A private copy of a network in the runtime of its target, ready to be timed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import nn

from autobackbone.latency.passing import Pass, timed
from autobackbone.latency.target import dtype_of
from autobackbone.records import ImageSize, Target


def _at_once() -> None:
    """What a CPU does is done when it returns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forward:
    """What does the forward passes of one network.

    Args:
        on_batch: of a batch size, a function that does one pass on a given batch of so many pictures.
        device: where it does them.
        wait: returns when the device is done.
        is_for_any_batch: whether another batch size costs no more than its passes.
    """

    on_batch: Callable[[int], Callable[[], object]]
    device: torch.device
    wait: Callable[[], None] = field(default=_at_once)
    is_for_any_batch: bool = True

    def timed(self, batch_size: int) -> Callable[[], Pass]:
        """One pass on a given batch, as a function that returns its seconds."""
        run, is_on_cpu = self.on_batch(batch_size), self.device.type == "cpu"
        return lambda: timed(run, self.wait, is_on_cpu=is_on_cpu)


def forward_of(network: nn.Module, image_size: ImageSize, target: Target) -> Forward:
    """Prepare a network's passes; the network itself stays as it is.

    Args:
        network: takes (n, 3, height, width).
        image_size: height and width in pixels.
        target: as `resolve` returns it.
    """
    return _in_torch(network, image_size, target)


def _in_torch(network: nn.Module, image_size: ImageSize, target: Target) -> Forward:
    dtype, device = dtype_of(target.precision), torch.device(target.device)
    is_autocast = device.type == "cpu" and dtype != torch.float32
    own_dtype = torch.float32 if is_autocast else dtype
    # A copy: eval mode, casts and tensors that a network caches inside inference mode must not reach the original.
    private = copy.deepcopy(network).to(device=device, dtype=own_dtype).eval()

    def on_batch(batch_size: int) -> Callable[[], object]:
        pictures = torch.rand((batch_size, 3, *image_size), device=device, dtype=own_dtype)

        def run() -> object:
            with torch.autocast(device.type, dtype if is_autocast else None, enabled=is_autocast):
                return private(pictures)

        return run

    def wait() -> None:
        if device.type != "cpu":
            torch.accelerator.synchronize(device)

    return Forward(on_batch=on_batch, device=device, wait=wait)

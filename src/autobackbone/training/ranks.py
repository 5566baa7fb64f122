"""Several processes that train one network, each on a device of its own: who has which rows, and what all agree on.

Each rank takes its share of each batch and weighs its loss so that the mean of all gradients, which DDP makes, is the
gradient of the whole batch. Whatever hangs on a clock, a disk or a score is decided by the first rank, and told: ranks
that decide for themselves would wait for each other for ever.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import torch
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from pytorch_lightning.strategies import DDPStrategy, FSDPStrategy
from torch import Tensor, distributed

from autobackbone.errors import ArgumentError, TrialError
from autobackbone.handing import Strategy

_Told = TypeVar("_Told")
# A rank that fails or hangs is ended by the parent, and with it all others; nobody needs to give up waiting before.
_PATIENCE = timedelta(days=7)


class FollowedError(TrialError):
    """The first rank has failed, and the others with it; what it says is the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """Which of how many processes that train together this one is.

    Args:
        rank: from 0; the first one decides, scores and writes.
        n: how many there are.

    Example:
        >>> second = Ranks(rank=1, n=2)
        >>> second.part_of(5), second.n_own(5), second.weight(5)
        ([1, 3], 2, 0.8)
        >>> Ranks().weight(5)
        1.0
    """

    rank: int = 0
    n: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this one decides."""
        return self.rank == 0

    def n_own(self, n_rows: int) -> int:
        """How many of some rows are its own: every nth."""
        return len(range(self.rank, n_rows, self.n))

    def part_of(self, n_rows: int, n_least: int = 1) -> list[int]:
        """Its rows among so many, in order. Where there are too few for all ranks, others follow, which count nothing:
        who takes no step at all would be waited for.

        Args:
            n_rows: at least 1.
            n_least: that it has to have, if there are so many.
        """
        own = list(range(self.rank, n_rows, self.n))
        others = (row for row in range(n_rows) if row % self.n != self.rank)
        return own + list(islice(others, max(0, n_least - len(own))))

    def weight(self, n_rows: int) -> float:
        """What the mean loss of its own rows counts, so that the mean over ranks is the mean over all rows."""
        return self.n * self.n_own(n_rows) / n_rows

    def agreed(self, decide: Callable[[], _Told]) -> _Told:
        """What the first rank decides; the others are told.

        Args:
            decide: gives what JSON can hold; called by the first rank alone.

        Raises:
            FollowedError: the first rank has raised something, as it does there.
        """
        if self.n == 1:
            return decide()
        if not self.is_first:
            told: list[Any] = json.loads(_broadcast(b"").decode())
            if not told:
                raise FollowedError("the first rank has failed")
            found: _Told = told[0]
            return found
        try:
            value = decide()
        except BaseException:
            _broadcast(b"[]")
            raise
        _broadcast(json.dumps([value]).encode())
        return value

    def mean(self, tensor: Tensor) -> Tensor:
        """The mean over ranks of a tensor that all have in one shape."""
        if self.n == 1:
            return tensor
        total = tensor.clone()
        distributed.all_reduce(total)
        return total / self.n

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Set each of some tensors to its mean over ranks."""
        if self.n == 1 or not tensors:
            return
        with torch.no_grad():
            means = self.mean(torch.cat([tensor.flatten() for tensor in tensors]))
            for tensor, mean in zip(tensors, torch.split(means, [one.numel() for one in tensors]), strict=True):
                tensor.copy_(mean.view_as(tensor))

    def gathered(self, values: Tensor) -> list[Tensor]:
        """The tensors of all ranks, (n_own, …) on the CPU, at the first one; nothing at others."""
        if self.n == 1:
            return [values]
        lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(self.n)]
        distributed.all_gather(lengths, torch.tensor([len(values)]))
        longest = max(int(length) for length in lengths)
        # Tensors of one shape cross; what is added here is cut off again.
        filled = values.new_zeros((longest, *values.shape[1:]))
        filled[: len(values)] = values
        parts = [torch.empty_like(filled) for _ in range(self.n)] if self.is_first else None
        distributed.gather(filled, parts)
        return [part[: int(length)] for part, length in zip(parts or (), lengths, strict=False)]

    def together(self, own: Tensor, n_rows: int) -> Tensor:
        """Rows of all ranks in their order, (n_rows, …), at the first one; at others what they have.

        Args:
            own: what this rank has of its `n_own` rows, on the CPU.
            n_rows: of all ranks.
        """
        parts = self.gathered(own)
        if len(parts) < 2:
            return parts[0] if parts else own
        whole = own.new_empty((n_rows, *own.shape[1:]))
        for rank, part in enumerate(parts):
            whole[rank :: self.n] = part  # exactly as many: torch refuses anything else
        return whole

    def device(self, device: torch.device) -> torch.device:
        """Its own: on CUDA the one of its number; elsewhere all share one."""
        return torch.device("cuda", self.rank) if device.type == "cuda" and self.n > 1 else device

    def trainer_arguments(self, device: torch.device, strategy: Strategy = "ddp") -> dict[str, Any]:
        """Where Lightning's trainer runs."""
        accelerator = {"cuda": "gpu"}.get(device.type, device.type)
        if self.n == 1:
            return {"accelerator": accelerator, "devices": [device.index or 0] if device.type == "cuda" else 1}
        devices = list(range(self.n)) if device.type == "cuda" else self.n
        return {
            "accelerator": accelerator,
            "devices": devices,
            "strategy": self._strategy(device, strategy),
            "use_distributed_sampler": False,
        }

    def _strategy(self, device: torch.device, strategy: Strategy) -> DDPStrategy | FSDPStrategy:
        met: dict[str, Any] = {
            "cluster_environment": _Begun(self),
            "process_group_backend": _backend(device),
            "timeout": _PATIENCE,
        }
        if strategy == "fsdp":
            return FSDPStrategy(**met, use_orig_params=True, state_dict_type="full")
        # Rows of validation differ in number from rank to rank, so that nothing may cross in a pass; and a part of a
        # network may hold weights that no output depends on.
        return DDPStrategy(**met, broadcast_buffers=False, find_unused_parameters=True)


ALONE = Ranks()


def require_devices(n: int, device: torch.device, strategy: Strategy = "ddp") -> None:
    """Make sure that one training can run on so many devices.

    Raises:
        ArgumentError: it cannot.
    """
    if strategy == "fsdp" and (n == 1 or device.type != "cuda"):
        raise ArgumentError(
            f"strategy='fsdp' needs GPUs of CUDA and devices_per_trial of at least 2; {n} of {device.type!r} came. "
            "Give strategy='ddp'."
        )
    if n == 1:
        return
    if device.type == "cuda" and torch.cuda.device_count() < n:
        raise ArgumentError(
            f"devices_per_trial={n} needs {n} GPUs, and {torch.cuda.device_count()} can be seen here. Give fewer."
        )
    n_cores = os.cpu_count() or 1
    if device.type == "cpu" and n > n_cores:
        raise ArgumentError(
            f"devices_per_trial={n} trains in {n} processes on the CPU, and {n_cores} cores are there. Give fewer."
        )
    if device.type not in ("cpu", "cuda") or not distributed.is_available():
        raise ArgumentError(
            f"devices_per_trial={n} needs several GPUs of CUDA, or processes on the CPU, and a torch that can connect "
            f"them; trainings run on {device.type!r} here. Give devices_per_trial=1."
        )


def join(ranks: Ranks, meeting: Path, device: torch.device) -> None:
    """Meet the other ranks, once in the life of a process.

    Args:
        ranks: this one, and how many there are.
        meeting: a file that is not there yet, on a disk that all of them see.
        device: where trainings run.

    Raises:
        TrialError: they cannot be connected.
    """
    if sys.platform == "linux":
        # All are on this machine: no other one shall be able to talk to them, nor does its name have to be known.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    if device.type == "cuda":
        torch.cuda.set_device(ranks.device(device))
    try:
        distributed.init_process_group(
            _backend(device),
            # Not by an address: torch does not read what is written in one for a space.
            store=distributed.FileStore(str(meeting.absolute()), ranks.n),  # type: ignore[attr-defined]
            rank=ranks.rank,
            world_size=ranks.n,
            timeout=_PATIENCE,
        )
    except (RuntimeError, ValueError) as error:
        raise TrialError(f"the {ranks.n} processes of a training could not be connected: {error}") from error


def _backend(device: torch.device) -> str:
    """What is decided crosses by gloo, gradients of GPUs by NCCL."""
    return "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"


def _broadcast(content: bytes) -> bytes:
    """The first rank's bytes, at all ranks."""
    length = torch.tensor([len(content)])
    distributed.broadcast(length, src=0)
    data = (
        torch.frombuffer(bytearray(content), dtype=torch.uint8)
        if content
        else torch.empty(int(length), dtype=torch.uint8)
    )
    distributed.broadcast(data, src=0)
    return bytes(data.tolist())


class _Begun(ClusterEnvironment):
    """Processes that were begun, and have met, before Lightning comes: it launches none, and runs no script again."""

    def __init__(self, ranks: Ranks) -> None:
        super().__init__()
        self._ranks = ranks

    @property
    def creates_processes_externally(self) -> bool:
        """Lightning's launcher is not wanted."""
        return True

    @property
    def main_address(self) -> str:
        """Nobody asks: they have met by a file."""
        return "127.0.0.1"

    @property
    def main_port(self) -> int:
        """Nobody asks."""
        return 0

    @staticmethod
    def detect() -> bool:
        """Lightning finds none by itself."""
        return False

    def world_size(self) -> int:
        """How many ranks there are."""
        return self._ranks.n

    def set_world_size(self, size: int) -> None:
        """It stands."""

    def global_rank(self) -> int:
        """All are on this machine."""
        return self._ranks.rank

    def set_global_rank(self, rank: int) -> None:
        """It stands."""

    def local_rank(self) -> int:
        """Which one this is."""
        return self._ranks.rank

    def node_rank(self) -> int:
        """There is one machine."""
        return 0

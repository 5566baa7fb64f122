"""Trains in several worker processes side by side; whoever trains borrows one that is idle."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Self

import torch
from torch import nn

from autobackbone.backbones.source import BackboneSource
from autobackbone.convexhead import Head
from autobackbone.data import DataBundle
from autobackbone.metrics import Metric
from autobackbone.records import Candidate
from autobackbone.running.child import Bounds
from autobackbone.running.devices import DeviceGroup, visible_devices
from autobackbone.running.group import Group
from autobackbone.running.runner import Runner
from autobackbone.running.worker import WorkerTuner, training_with
from autobackbone.training.fit import Outcome
from autobackbone.training.pausing import Leg
from autobackbone.training.tuner import Tuner

_VISIBLE = "CUDA_VISIBLE_DEVICES"


@contextmanager
def training_side_by_side(
    workers: int,
    local: Tuner,
    source: BackboneSource,
    metric: Metric,
    folder: Path,
    *,
    bounds: Bounds | None = None,
    groups: Sequence[DeviceGroup] = (),
    n_ranks: int = 1,
) -> Iterator[Runner]:
    """Who trains: as `training_with` says for 0 and 1 workers, and a pool of more.

    Args:
        workers: how many worker processes; they end with the block.
        local: the tuner of this process.
        source: of its networks.
        metric: that scores.
        folder: where data crosses to workers; made, and removed at the end.
        bounds: of one worker that has the machine for itself; the usual ones if not given.
        groups: of CUDA devices: worker i has the ith, and begins again where there are fewer. None for the CPU.
        n_ranks: processes of each worker, which train each candidate together.
    """
    if workers < 2:
        with training_with(workers, local, source, metric, folder, bounds=bounds, n_ranks=n_ranks) as runner:
            yield runner
        return
    whole = bounds or Bounds()
    share = None if whole.memory_bytes is None else whole.memory_bytes // workers
    pool = WorkerPool(
        local=local,
        source=source,
        metric=metric,
        folder=folder,
        n_workers=workers,
        n_threads=max(1, torch.get_num_threads() // workers),
        n_ranks=n_ranks,
        bounds=replace(whole, memory_bytes=share),
        groups=groups,
    )
    with pool:
        yield pool


@dataclass(slots=True, kw_only=True)
class WorkerPool:
    """Trains candidates in several worker processes, each as `WorkerTuner` has one: the death of one is one training.

    `tune` is safe from as many threads as there are workers; from more of them, some wait. To be used in a `with`.

    Args:
        local: the tuner of this process: workers make one like it.
        source: of its networks.
        metric: that scores.
        folder: where data crosses, in a folder for each worker; made, and removed at the end.
        n_workers: at least 1; each is begun when it is needed first.
        n_threads: of each.
        n_ranks: processes of each worker, which train together.
        bounds: of each.
        groups: of CUDA devices: worker i sees the ith alone, and begins again where there are fewer; none to see all.
    """

    local: Tuner
    source: BackboneSource
    metric: Metric
    folder: Path
    n_workers: int
    n_threads: int
    n_ranks: int = 1
    bounds: Bounds = field(default_factory=Bounds)
    groups: Sequence[DeviceGroup] = ()
    workers: tuple[WorkerTuner, ...] = field(default=(), init=False)
    _idle: list[int] = field(default_factory=list, init=False, repr=False)
    _is_any_idle: threading.Condition = field(default_factory=threading.Condition, init=False, repr=False)
    _keeper_of: dict[Path, int] = field(default_factory=dict, init=False, repr=False)
    _begun: list[Group] = field(default_factory=list, init=False, repr=False)
    _beginner: ThreadPoolExecutor = field(init=False, repr=False)
    _open: ExitStack = field(default_factory=ExitStack, init=False, repr=False)

    def __enter__(self) -> Self:
        shutil.rmtree(self.folder, ignore_errors=True)
        # Linux ends a worker with the thread that began it: this one lives as long as the pool, whoever trains.
        self._beginner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="begins workers")
        with ExitStack() as stack:
            stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
            stack.callback(self._end_all)
            stack.callback(self._beginner.shutdown)
            self.workers = tuple(stack.enter_context(self._worker(i)) for i in range(self.n_workers))
            self._open = stack.pop_all()
        self._idle = list(reversed(range(self.n_workers)))
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    @property
    def n_at_once(self) -> int:
        """How many trainings may run side by side."""
        return self.n_workers

    def n_epochs(self, candidate: Candidate) -> int:
        """The last rung: how long a candidate trains if there is time."""
        return self.local.n_epochs(candidate)

    def start_s(self) -> float:
        """Seconds before a training can begin now: none where a worker waits, else what the fastest took to start."""
        with self._is_any_idle:
            is_any_warm = any(self.workers[number].is_warm for number in reversed(self._idle))
            return 0.0 if is_any_warm else min(worker.cold_start_s for worker in self.workers)

    def let_go(self) -> None:
        """Have idle workers give up what they kept for a training that might go on right away."""
        with self._is_any_idle:
            self._keeper_of.clear()
            for number in self._idle:
                self.workers[number].let_go()

    def give_up(self) -> None:
        """End whatever is being trained in other threads: it fails within a moment, and nothing is trained any more."""
        for worker in self.workers:
            worker.give_up()

    def dealt(self, bundle: DataBundle, held: DataBundle) -> DealtPool:
        """Who trains in the same workers on the same pictures in other parts, as `Tuner.dealt` says."""
        return DealtPool(pool=self, local=self.local.dealt(bundle, held))

    def tune(
        self, candidate: Candidate, head: Head, *, until: float | None = None, n_views: int = 1, leg: Leg | None = None
    ) -> tuple[nn.Module, Outcome]:
        """Fine-tune one candidate in a worker that is idle, as `WorkerTuner.tune` does."""
        return self.tune_as(self.local, candidate, head, until=until, n_views=n_views, leg=leg)

    def tune_as(
        self, local: Tuner, candidate: Candidate, head: Head, *, until: float | None, n_views: int, leg: Leg | None
    ) -> tuple[nn.Module, Outcome]:
        """As `tune`, for a tuner of this process that was dealt by that of the workers, or is that one itself."""
        with self._borrowed(leg) as worker:
            return worker.tune_as(local, candidate, head, until=until, n_views=n_views, leg=leg)

    @contextmanager
    def _borrowed(self, leg: Leg | None) -> Iterator[WorkerTuner]:
        """An idle worker: the one that keeps what this leg goes on from, else one that has begun, else any."""
        with self._is_any_idle:
            self._is_any_idle.wait_for(lambda: self._idle)
            keeper = None if leg is None else self._keeper_of.get(leg.checkpoint)
            warm = (number for number in reversed(self._idle) if self.workers[number].is_warm)
            number = keeper if keeper in self._idle else next(warm, self._idle[-1])
            self._idle.remove(number)
            # Each keeps what it has trained last, and no more.
            self._keeper_of = {path: one for path, one in self._keeper_of.items() if one != number}
        try:
            yield self.workers[number]
        finally:
            with self._is_any_idle:
                if leg is not None and leg.pause_at is not None:
                    self._keeper_of[leg.checkpoint] = number
                self._idle.append(number)
                self._is_any_idle.notify()

    def _worker(self, number: int) -> WorkerTuner:
        group = self.groups[number % len(self.groups)] if self.groups else None
        seen = {} if group is None else {_VISIBLE: visible_devices(group, os.environ.get(_VISIBLE))}
        return WorkerTuner(
            local=self.local,
            source=self.source,
            metric=self.metric,
            folder=self.folder / str(number),
            bounds=self.bounds,
            n_threads=self.n_threads,
            n_ranks=self.n_ranks,
            begin=partial(self._begin, seen),
        )

    def _begin(self, environment: dict[str, str], folder: Path, n_ranks: int) -> Group:
        return self._beginner.submit(self._begun_in, folder, n_ranks, environment).result()

    def _begun_in(self, folder: Path, n_ranks: int, environment: dict[str, str]) -> Group:
        group = Group(folder, n_ranks, environment)
        self._begun = [*(one for one in self._begun if one.is_any_alive()), group]
        return group

    def _end_all(self) -> None:
        """Also what was begun for somebody whom Ctrl-C stopped from waiting for it."""
        for group in self._begun:
            if group.is_any_alive():
                group.end()


@dataclass(frozen=True, slots=True, kw_only=True)
class DealtPool:
    """Trains in a pool, on its pictures in other parts, as `DealtTuner` does in a worker.

    Args:
        pool: that trains.
        local: what trains so in this process.
    """

    pool: WorkerPool
    local: Tuner

    def tune(
        self, candidate: Candidate, head: Head, *, until: float | None = None, n_views: int = 1, leg: Leg | None = None
    ) -> tuple[nn.Module, Outcome]:
        """Fine-tune one candidate, as `WorkerPool.tune` does."""
        return self.pool.tune_as(self.local, candidate, head, until=until, n_views=n_views, leg=leg)

"""Trains in a worker process: a crash, a hang or a leak there costs one trial."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from torch import nn

from autobackbone.backbones.source import BackboneSource
from autobackbone.convexhead import Head
from autobackbone.data import DataBundle
from autobackbone.errors import ArgumentError, MetricError, TrialError, TrialMemoryError
from autobackbone.metrics import Metric
from autobackbone.records import Candidate
from autobackbone.runfolder import remove_unfinished
from autobackbone.running.child import Bounds
from autobackbone.running.crossing import (
    told_of_disk,
    write_setup,
)
from autobackbone.running.failures import error_of
from autobackbone.running.group import Group
from autobackbone.running.jobs import received, sent, take_costs
from autobackbone.running.runner import Runner
from autobackbone.training.fit import Outcome
from autobackbone.training.pausing import Leg
from autobackbone.training.tuner import Tuner, from_the_start

# Until one was started here: on two cores of a server, most of it for importing torch.
_USUAL_START_S = 6.0
# Between two looks at a worker that has not answered.
_LOOK_S = 0.25
# A process that slept itself for so long must not blame its worker for its silence.
_SLEPT_S = 5.0


@contextmanager
def training_with(
    workers: int,
    local: Tuner,
    source: BackboneSource,
    metric: Metric,
    folder: Path,
    *,
    bounds: Bounds | None = None,
    n_ranks: int = 1,
) -> Iterator[Runner]:
    """Who trains.

    Args:
        workers: 0 for the tuner of this process itself, 1 for one like it in a worker process, which ends with the
            block.
        local: the tuner of this process.
        source: of its networks.
        metric: that scores.
        folder: where data crosses to a worker; made, and removed at the end.
        bounds: of a worker; the usual ones if not given.
        n_ranks: worker processes that train each candidate together, each on a device of its own.
    """
    if workers == 0:
        yield local
        return
    with WorkerTuner(
        local=local, source=source, metric=metric, folder=folder, bounds=bounds or Bounds(), n_ranks=n_ranks
    ) as worker:
        yield worker


@dataclass(slots=True, kw_only=True)
class WorkerTuner:
    """Trains candidates as a tuner does, in a worker process, or in several that train each of them together; they are
    warm from the first training on.

    A worker that dies, hangs, goes on for too long or takes too much memory is ended, its training fails with the
    reason, and the next training begins another one. To be used in a `with`, at whose end the worker ends, too.

    Args:
        local: the tuner of this process: the worker makes one like it.
        source: of its networks.
        metric: that scores.
        folder: where data crosses; made, and removed at the end.
        bounds: of the worker.
        n_threads: of the worker; as many as this process has if not given.
        n_ranks: how many train together. They end together, too.
        begin: begins so many worker processes, which cross in this folder.
    """

    local: Tuner
    source: BackboneSource
    metric: Metric
    folder: Path
    bounds: Bounds = field(default_factory=Bounds)
    n_threads: int | None = None
    n_ranks: int = 1
    begin: Callable[[Path, int], Group] = Group
    _is_given_up: threading.Event = field(default_factory=threading.Event, init=False, repr=False)
    _child: Group | None = field(default=None, init=False, repr=False)
    _started_in_s: float = field(default=_USUAL_START_S, init=False, repr=False)

    def __enter__(self) -> Self:
        shutil.rmtree(self.folder, ignore_errors=True)
        self._job.mkdir(parents=True)
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._end(is_idle=True)
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def pid(self) -> int | None:
        """The process number of the worker, or of the first one; `None` while there is none."""
        return None if self._child is None else self._child.pids[0]

    @property
    def n_at_once(self) -> int:
        """How many trainings may run side by side: one."""
        return 1

    @property
    def is_warm(self) -> bool:
        """Whether there is a worker that lives; may be asked from any thread."""
        child = self._child
        return child is not None and child.is_alive()

    @property
    def cold_start_s(self) -> float:
        """Seconds that the last worker took to start."""
        return self._started_in_s

    def n_epochs(self, candidate: Candidate) -> int:
        """The last rung: how long a candidate trains if there is time."""
        return self.local.n_epochs(candidate)

    def start_s(self) -> float:
        """Seconds before a training can begin now: what the last worker took to start, where there is none."""
        return 0.0 if self.is_warm else self.cold_start_s

    def give_up(self) -> None:
        """End what another thread trains in the worker: it fails within a moment, and nothing is trained any more."""
        self._is_given_up.set()

    def let_go(self) -> None:
        """Have the worker give up what it kept for a training that might go on right away."""
        if self._child is not None:
            self._child.tell({"do": "let go"})

    def dealt(self, bundle: DataBundle, held: DataBundle) -> DealtTuner:
        """Who trains in the same worker on the same pictures in other parts, as `Tuner.dealt` says."""
        return DealtTuner(worker=self, local=self.local.dealt(bundle, held))

    def tune(
        self, candidate: Candidate, head: Head, *, until: float | None = None, n_views: int = 1, leg: Leg | None = None
    ) -> tuple[nn.Module, Outcome]:
        """Fine-tune one candidate, as `Tuner.tune` does; `Outcome.weights` stays empty.

        Raises:
            TrialError: it could not be trained, or its worker had to be ended, for the reason that is said.
            EpochTooLongError: not one epoch fits.
            TrialMemoryError: nor did half as many pictures in one pass fit, into memory or into what of it the worker
                may take.
            ArgumentError: the metric cannot be made in a worker process.
            KeyboardInterrupt: Ctrl-C, at which the worker is ended.
        """
        return self.tune_as(self.local, candidate, head, until=until, n_views=n_views, leg=leg)

    def tune_as(
        self,
        local: Tuner,
        candidate: Candidate,
        head: Head,
        *,
        until: float | None,
        n_views: int,
        leg: Leg | None,
    ) -> tuple[nn.Module, Outcome]:
        """As `tune`, for a tuner of this process that was dealt by that of the worker, or is that one itself."""
        self._ready(until)  # what it takes for itself is not the batch's
        try:
            return self._tuned(local, candidate, head, until, n_views, leg)
        except TrialMemoryError:
            # One that lives has tried half as many pictures itself; one that was ended for its memory could not.
            if self._child is not None or not local.halve(candidate):
                raise
        return self._tuned(local, candidate, head, until, n_views, from_the_start(leg))

    def _tuned(
        self,
        local: Tuner,
        candidate: Candidate,
        head: Head,
        until: float | None,
        n_views: int,
        leg: Leg | None,
    ) -> tuple[nn.Module, Outcome]:
        self._empty_job()
        order = sent(self._job, local, candidate, head, leg, n_views)
        child = self._ready(until)
        try:
            answer = self._asked(child, order, until)
        except BaseException:
            if leg is not None:
                remove_unfinished(leg.checkpoint)
            raise
        finally:
            # Also of a worker that was ended: what it has noted is measured.
            take_costs(self._job, local)
        found = received(self._job, local, self.source, candidate, answer)
        self._empty_job()
        return found

    @property
    def _job(self) -> Path:
        return self.folder / "job"

    def _empty_job(self) -> None:
        for file in self._job.iterdir():
            file.unlink()

    def _ready(self, until: float | None) -> Group:
        """A worker that waits for an order: the one there is, if it lives, else a new one."""
        if self._child is not None and self._child.is_alive():
            return self._child
        self._end()
        begun = time.monotonic()
        with told_of_disk(self.folder):
            write_setup(self.folder, self.local, self.metric, self.source, n_threads=self.n_threads)
        try:
            self._child = child = self.begin(self.folder, self.n_ranks)
        except OSError as error:
            raise TrialError(f"no worker process could be started: {error}") from error
        answer = self._asked(child, {"do": "set up", "folder": str(self.folder.absolute())}, until)
        if answer["is"] == "failed":
            self._end()
            found = error_of(answer)
            if isinstance(found, MetricError):
                raise ArgumentError(
                    f"worker processes need a metric that another process can make: {found} Or give workers=0, which "
                    "trains in this process."
                ) from found
            raise found
        self._started_in_s = time.monotonic() - begun
        return child

    def _asked(self, child: Group, order: Mapping[str, Any], until: float | None) -> dict[str, Any]:
        """The answer to an order; a worker from which none can come, or shall, is ended."""
        try:
            child.forgive()
            # Clocks of two processes need not agree: what crosses is how much is left.
            child.tell({**order, "left_s": None if until is None else until - time.monotonic()})
            looked = time.monotonic()
            while True:
                answer = child.answer(_LOOK_S)
                if answer is not None:
                    if not child.is_whole:
                        self._end()
                    return answer
                if time.monotonic() - looked > _SLEPT_S:
                    child.forgive()
                looked = time.monotonic()
                self._look_at(child, until)
        except BaseException:  # Ctrl-C, too: nobody waits for this answer any more
            self._end()
            raise

    def _look_at(self, child: Group, until: float | None) -> None:
        """Raises: TrialError: nothing is to be expected of it any more."""
        bounds = self.bounds
        if self._is_given_up.is_set():
            raise TrialError("it was given up, since the search ended in the midst of it")
        for name, one in child.members():
            if not one.is_alive():
                raise TrialError(f"{name} {one.cause_of_death()}")
            if one.silent_s() > bounds.silent_s:
                raise TrialError(f"{name} gave no sign for {bounds.silent_s:g} s")
        if until is not None and time.monotonic() > until + bounds.late_s:
            raise TrialError(f"{child.subject} went on for more than {bounds.late_s:g} s beyond its time")
        held = child.resident_bytes()
        if bounds.memory_bytes is not None and held is not None and held > bounds.memory_bytes:
            raise TrialMemoryError(f"{child.subject} took more than {bounds.memory_bytes / 1e6:,.0f} MB of memory")

    def _end(self, *, is_idle: bool = False) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.end(is_idle=is_idle)
            for pid in child.pids:
                self.local.stores.cache.remove_unfinished(pid)


@dataclass(frozen=True, slots=True, kw_only=True)
class DealtTuner:
    """Trains in a worker, on its pictures in other parts: these cross with each training, a byte a picture and part.

    Args:
        worker: that trains, warm for all who deal.
        local: what trains so in this process.
    """

    worker: WorkerTuner
    local: Tuner

    def tune(
        self, candidate: Candidate, head: Head, *, until: float | None = None, n_views: int = 1, leg: Leg | None = None
    ) -> tuple[nn.Module, Outcome]:
        """Fine-tune one candidate, as `WorkerTuner.tune` does."""
        return self.worker.tune_as(self.local, candidate, head, until=until, n_views=n_views, leg=leg)

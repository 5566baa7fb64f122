"""Trains as tasks of Ray: on the machines of a cluster, which loses some now and then."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

from torch import nn

from autobackbone.backbones.source import BackboneSource
from autobackbone.convexhead import Head
from autobackbone.data import DataBundle, pixels_files
from autobackbone.errors import ArgumentError, MetricError, RunError, TrialError, TrialMemoryError
from autobackbone.metrics import Metric
from autobackbone.records import Candidate, ImageSize
from autobackbone.runfolder import remove_unfinished, write_text
from autobackbone.runners import RunnerRay
from autobackbone.running.child import Bounds
from autobackbone.running.crossing import JOB_FILES, SETUP, told_of_disk, write_setup
from autobackbone.running.failures import error_of
from autobackbone.running.jobs import received, sent, take_costs
from autobackbone.running.shared import SharedFolder
from autobackbone.training.fit import Outcome
from autobackbone.training.pausing import Leg
from autobackbone.training.tuner import Tuner, from_the_start

# Between two looks at a task that has not ended.
_LOOK_S = 0.5
# Until a first task has ended here: a process on another machine starts, and torch alone takes most of it.
_USUAL_START_S = 15.0
# A cluster that is there answers at once.
_ANSWER_S = 10.0


def require_cluster(how: RunnerRay) -> None:
    """Make sure, as far as that costs a moment, that a cluster can be used: before pictures are read for it.

    Raises:
        ArgumentError: Ray is not installed, nobody answers at the address, or the shared folder cannot be written.
    """
    require_ray()
    _require_answer(how.address)
    if how.shared_address is not None:
        SharedFolder(how.shared_address).require_writable()


def require_ray() -> None:
    """Make sure that Ray can be used.

    Raises:
        ArgumentError: it is not installed.
    """
    if find_spec("ray") is None:
        raise ArgumentError("runner='ray' needs Ray, which is not installed: pip install 'autobackbone[ray]'.")


def require_shared_pictures(bundle: DataBundle, image_sizes: list[ImageSize], how: RunnerRay) -> None:
    """Make sure that other machines can have the pictures.

    Raises:
        ArgumentError: there is no room for decoded ones, which alone go through a shared folder.
    """
    encoded = [size for size in image_sizes if bundle.stays_encoded(size)]
    if how.shared is not None and encoded:
        sizes = ", ".join(f"{height}x{width}" for height, width in encoded)
        raise ArgumentError(
            f"shared= needs decoded pictures, and to {sizes} px they have no room here. Raise cache_gb, ask for "
            "smaller image_sizes, or leave shared= out where all machines see the pictures under the same path."
        )


@contextmanager
def training_in_cluster(
    how: RunnerRay, local: Tuner, source: BackboneSource, metric: Metric, folder: Path, *, bounds: Bounds
) -> Iterator[RayTuner]:
    """Who trains in a cluster, as `RayTuner` says."""
    with RayTuner(how=how, local=local, source=source, metric=metric, folder=folder, bounds=bounds) as tuner:
        yield tuner


@dataclass(slots=True, kw_only=True)
class RayTuner:
    """Trains candidates as a tuner does, each as a task of Ray. To be used in a `with`.

    What a machine was training when it was lost is begun again on another one, from the rung that its trial had
    reached. `tune` may be called from as many threads as `n_at_once` says.

    Args:
        local: the tuner of this process: tasks make one like it.
        source: of its networks.
        metric: that scores.
        folder: where data crosses; made, and removed at the end.
        how: as the user said it.
        bounds: of which `late_s` holds for tasks.
    """

    local: Tuner
    source: BackboneSource
    metric: Metric
    folder: Path
    how: RunnerRay
    bounds: Bounds = field(default_factory=Bounds)
    _ray: Any = field(default=None, init=False, repr=False)
    _train: Any = field(default=None, init=False, repr=False)
    _num_gpus: float = field(default=0.0, init=False, repr=False)
    _way_back_s: float = field(default=0.0, init=False, repr=False)
    _is_ours: bool = field(default=False, init=False, repr=False)
    _has_ended_one: bool = field(default=False, init=False, repr=False)
    _shared: SharedFolder | None = field(default=None, init=False, repr=False)
    _token: str = field(default_factory=lambda: uuid4().hex, init=False, repr=False)
    _numbers: Iterator[int] = field(default_factory=count, init=False, repr=False)
    _running: set[Any] = field(default_factory=set, init=False, repr=False)
    _lock: Any = field(default_factory=threading.Lock, init=False, repr=False)
    _is_given_up: threading.Event = field(default_factory=threading.Event, init=False, repr=False)

    def __enter__(self) -> Self:
        shutil.rmtree(self.folder, ignore_errors=True)
        self._jobs.mkdir(parents=True)
        try:
            self._join()
            self._write_setup()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._cancel_all()
            if self._shared is not None:
                self._shared.remove(self._token)
            if self._is_ours:
                self._ray.shutdown()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def n_at_once(self) -> int:
        """How many tasks the cluster has room for now; at least 1."""
        return max(1, self._n_fitting())

    def n_epochs(self, candidate: Candidate) -> int:
        """The last rung: how long a candidate trains if there is time."""
        return self.local.n_epochs(candidate)

    def start_s(self) -> float:
        """Seconds before a training can begin: what a process takes to start, until one task has ended."""
        return 0.0 if self._has_ended_one else _USUAL_START_S

    def let_go(self) -> None:
        """Nothing is kept here; processes of the cluster keep what their next leg may use."""

    def give_up(self) -> None:
        """End whatever is being trained for other threads: it fails, and nothing is trained any more."""
        self._is_given_up.set()

    def dealt(self, bundle: DataBundle, held: DataBundle) -> DealtRayTuner:
        """Who trains in the same cluster on the same pictures in other parts, as `Tuner.dealt` says."""
        return DealtRayTuner(cluster=self, local=self.local.dealt(bundle, held))

    def tune(
        self, candidate: Candidate, head: Head, *, until: float | None = None, n_views: int = 1, leg: Leg | None = None
    ) -> tuple[nn.Module, Outcome]:
        """Fine-tune one candidate, as `Tuner.tune` does; `Outcome.weights` stays empty.

        Raises:
            TrialError: it could not be trained, or was lost more often than it is begun again.
            EpochTooLongError: not one epoch fits.
            TrialMemoryError: nor did half as many pictures in one pass fit.
        """
        return self.tune_as(self.local, candidate, head, until=until, n_views=n_views, leg=leg)

    def tune_as(
        self, local: Tuner, candidate: Candidate, head: Head, *, until: float | None, n_views: int, leg: Leg | None
    ) -> tuple[nn.Module, Outcome]:
        """As `tune`, for a tuner of this process that was dealt by the local one, or is that one itself."""
        try:
            return self._tuned(local, candidate, head, until, n_views, leg)
        except _KilledForMemoryError as error:
            # Who can still tell that memory was too small has tried half as many pictures itself.
            if not local.halve(candidate):
                raise TrialMemoryError(str(error)) from error
        return self._tuned(local, candidate, head, until, n_views, from_the_start(leg))

    def _tuned(
        self, local: Tuner, candidate: Candidate, head: Head, until: float | None, n_views: int, leg: Leg | None
    ) -> tuple[nn.Module, Outcome]:
        number = next(self._numbers)
        job = self._jobs / str(number)
        try:
            with told_of_disk(self.folder):
                job.mkdir()
            order = sent(job, local, candidate, head, leg, n_views)
            order |= {"files": sorted(file.name for file in job.iterdir()), "number": number}
            if self._shared is not None:
                order |= self._put(self._shared, job, number, candidate, leg)
            answer = self._asked(order, until)
            if answer.get("was_ready") is False:
                raise _as_argument(error_of(answer))
            if answer["attempt"] is not None:
                files = self._fetched(job, number, answer["attempt"], leg)
                take_costs(files, local)
            else:
                files = job
            return received(files, local, self.source, candidate, answer)
        finally:
            if leg is not None:
                remove_unfinished(leg.checkpoint)
            shutil.rmtree(job, ignore_errors=True)
            if self._shared is not None:
                self._shared.remove(f"{self._token}/jobs/{number}")

    def _put(
        self, shared: SharedFolder, job: Path, number: int, candidate: Candidate, leg: Leg | None
    ) -> dict[str, Any]:
        """Copy to the shared folder what a task needs; what it has to know of that."""
        there, bundle = f"{self._token}/jobs/{number}", self.local.stores.bundle
        for file in job.iterdir():
            shared.put(file, f"{there}/{file.name}")
        checkpoint = None if leg is None else f"{leg.checkpoint.parent.name}-{leg.checkpoint.name}"
        if leg is not None and leg.n_before > 0:
            if not leg.checkpoint.is_file():
                raise TrialError("it cannot go on: its checkpoint is damaged or not there")
            shared.put(leg.checkpoint, f"{there}/{checkpoint}")
        bundle.pixels(candidate.image_size)
        wanted = {
            f"data/{bundle.root.name}/{file.name}": file for file in pixels_files(bundle.root, candidate.image_size)
        }
        weights = self.source.weights[candidate.backbone].path
        if weights is not None:
            wanted[f"{self._token}/weights/{candidate.backbone}"] = weights
        with self._lock:  # the first who needs one of them copies it
            for name, file in wanted.items():
                if not shared.has(name):
                    shared.put(file, name)
        return {"checkpoint": checkpoint, "pixels": bundle.root.name}

    def _fetched(self, job: Path, number: int, attempt: str, leg: Leg | None) -> Path:
        """The folder with the files of an attempt; its checkpoint lies where its leg says."""
        if self._shared is None:
            return Path(attempt)
        begun = time.monotonic()
        for name in self._shared.names(f"{self._token}/jobs/{number}/{attempt}"):
            file = Path(name).name
            if file in JOB_FILES:
                self._shared.get(name, job / file)
            elif leg is not None:
                self._shared.get(name, leg.checkpoint)
        # It went there before, at the other machine, for about as long.
        self._way_back_s = 2 * (time.monotonic() - begun)
        return job

    def _asked(self, order: Mapping[str, Any], until: float | None) -> dict[str, Any]:
        """The answer of a task; one from which none shall come any more is cancelled."""
        self._look_at(None)
        # What a training writes has to come back in time, too.
        end_at = None if until is None else time.time() + until - time.monotonic() - self._way_back_s
        with self._told_of_loss():
            task = self._train.remote(self._setup, json.dumps({**order, "end_at": end_at}))
        self._running.add(task)
        try:
            while not self._has_ended(task):
                self._look_at(until)
            answer: dict[str, Any] = json.loads(self._answer(task))
        except BaseException:
            with suppress(Exception):  # of a cluster that is gone, too
                self._ray.cancel(task, force=True)
            raise
        finally:
            self._running.discard(task)
        self._has_ended_one = True
        return answer

    def _has_ended(self, task: Any) -> bool:
        with self._told_of_loss():
            return bool(self._ray.wait([task], timeout=_LOOK_S)[0])

    @contextmanager
    def _told_of_loss(self) -> Iterator[None]:
        """Raises: RunError: the cluster itself is gone."""
        try:
            yield
        except self._ray.exceptions.RayError as error:
            raise RunError(
                f"the cluster cannot be reached any more: {type(error).__name__}: {error}. What had ended is kept: "
                "with a cluster that answers, or without runner, the same call with this run_dir goes on."
            ) from error

    def _look_at(self, until: float | None) -> None:
        """Raises: TrialError: nothing is to be expected of it any more."""
        if self._is_given_up.is_set():
            raise TrialError("it was given up, since the search ended in the midst of it")
        if until is not None and time.monotonic() > until + self.bounds.late_s:
            raise TrialError(f"its task went on for more than {self.bounds.late_s:g} s beyond its time")

    def _answer(self, task: Any) -> str:
        errors = self._ray.exceptions
        try:
            text: str = self._ray.get(task)
        except errors.OutOfMemoryError as error:
            raise _KilledForMemoryError(f"its task was ended, since its machine had no memory left: {error}") from error
        except errors.TaskCancelledError as error:
            raise TrialError("its task was cancelled") from error
        except errors.RayError as error:
            why = next(iter(str(error).strip().splitlines()), "no reason is known")
            again = f", and again after each of {self.how.max_retries} retries" if self.how.max_retries else ""
            raise TrialError(f"its task was lost{again}: {type(error).__name__}: {why}") from error
        return text

    def _cancel_all(self) -> None:
        for task in tuple(self._running):
            with suppress(Exception):
                self._ray.cancel(task, force=True)

    def _join(self) -> None:
        """Be part of the cluster; its resources are looked at once."""
        require_ray()
        import ray

        self._ray = ray
        if not ray.is_initialized():
            _require_answer(self.how.address)
            at_sigterm = signal.getsignal(signal.SIGTERM)
            try:
                # A cluster that is begun here tells nobody that it was.
                os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
                ray.init(self.how.address, log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
            except (ConnectionError, ValueError, RuntimeError, OSError) as error:
                raise ArgumentError(
                    f"no cluster of Ray could be joined at {self.how.address!r}: {str(error).rstrip('.')}. Start "
                    "one with `ray start --head`, or give 'local' to use this machine alone."
                ) from error
            finally:
                # Ray takes it for itself; whoever calls this library keeps his own.
                if threading.current_thread() is threading.main_thread() and at_sigterm is not None:
                    signal.signal(signal.SIGTERM, at_sigterm)
            self._is_ours = True
        given = self.how.num_gpus
        self._num_gpus = float(any("GPU" in of for of in self._machines())) if given is None else float(given)
        if self._n_fitting() == 0:
            raise ArgumentError(
                f"a task of {self._wanted_text()} fits on none of the cluster's machines, which have "
                f"{'; '.join(map(str, self._machines())) or 'nothing'}. Ask for less."
            )
        from autobackbone.running.clustertasks import train

        options: dict[str, Any] = {
            "num_cpus": self.how.num_cpus,
            "num_gpus": self._num_gpus,
            "max_retries": self.how.max_retries,
        }
        if self.how.runtime_env is not None:
            options["runtime_env"] = dict(self.how.runtime_env)
        self._train = ray.remote(**options)(train)

    def _machines(self) -> list[dict[str, float]]:
        """CPUs and GPUs of each machine that is there."""
        alive = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        return [{kind: of[kind] for kind in ("CPU", "GPU") if of.get(kind)} for of in alive]

    def _n_fitting(self) -> int:
        wanted = {"CPU": float(self.how.num_cpus), "GPU": self._num_gpus}
        return sum(
            int(min(of.get(kind, 0.0) / number for kind, number in wanted.items() if number > 0))
            for of in self._machines()
        )

    def _wanted_text(self) -> str:
        gpus = self._num_gpus
        return f"{self.how.num_cpus} CPUs" + (f" and {gpus:g} GPUs" if gpus else "")

    @property
    def _jobs(self) -> Path:
        return self.folder / "jobs"

    @property
    def _setup(self) -> str:
        folder = str((self.folder / "setup").absolute())
        return json.dumps({"token": self._token, "folder": folder, "shared": self.how.shared_address})

    def _write_setup(self) -> None:
        folder = self.folder / "setup"
        with told_of_disk(self.folder):
            folder.mkdir()
            write_setup(folder, self.local, self.metric, self.source)
        self._change(folder / SETUP, self._elsewhere)
        if self.how.shared_address is None:
            return
        self._shared = shared = SharedFolder(self.how.shared_address)
        self._change(folder / SETUP, self._without_paths)
        try:
            for file in folder.iterdir():
                shared.put(file, f"{self._token}/setup/{file.name}")
        except TrialError as error:
            raise ArgumentError(f"shared is a folder that can be written, and {error}. Give another one.") from error

    def _elsewhere(self, facts: dict[str, Any]) -> None:
        """What another machine has that this one may lack."""
        facts["n_threads"] = self.how.num_cpus
        facts["device"] = "cuda" if self._num_gpus else "cpu"

    def _without_paths(self, facts: dict[str, Any]) -> None:
        """Only names that machines put a folder of theirs before."""
        facts["bundle"]["root"], facts["pictures"] = self.local.stores.bundle.root.name, None

    @staticmethod
    def _change(file: Path, change: Callable[[dict[str, Any]], None]) -> None:
        facts = json.loads(file.read_text(encoding="ascii"))
        change(facts)
        write_text(file, json.dumps(facts))


def _require_answer(address: str | None) -> None:
    """Make sure that somebody listens where a cluster is said to be: Ray itself asks again and again, for minutes.

    Raises:
        ArgumentError: nobody does.
    """
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if not (host and port.isdecimal()):
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_S).close()
    except (OSError, OverflowError) as error:
        raise ArgumentError(
            f"no cluster of Ray answers at {address!r}: {error}. Start one with `ray start --head`, whose address that "
            "prints, or give 'local' to use this machine alone."
        ) from error


def _as_argument(error: Exception) -> Exception:
    """What a machine says that could not be set up: a metric that it cannot make is the user's to mend."""
    if not isinstance(error, MetricError):
        return error
    return ArgumentError(
        f"runner='ray' needs a metric that all machines can import: {error} RunnerRay(runtime_env=…) brings modules to "
        "them."
    )


class _KilledForMemoryError(TrialError):
    """A machine had no memory left for a task, which could not tell so itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DealtRayTuner:
    """Trains in a cluster, on its pictures in other parts: these cross with each training, a byte a picture and part.

    Args:
        cluster: that trains.
        local: what trains so in this process.
    """

    cluster: RayTuner
    local: Tuner

    def tune(
        self, candidate: Candidate, head: Head, *, until: float | None = None, n_views: int = 1, leg: Leg | None = None
    ) -> tuple[nn.Module, Outcome]:
        """Fine-tune one candidate, as `RayTuner.tune` does."""
        return self.cluster.tune_as(self.local, candidate, head, until=until, n_views=n_views, leg=leg)

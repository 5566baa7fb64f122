"""Where the trainings of a search may run beside this machine, as users say it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from autobackbone.errors import ArgumentError
from autobackbone.records import is_number


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerRay:
    """Trainings run as tasks of Ray, on one machine or many. Needs the extra `ray`.

    All machines have autobackbone and what it needs installed, in the same versions. They see the pictures, the run
    folder and the cache folder under the paths that this process gives them, or else one folder, `shared`, through
    which all of it goes. Their clocks agree to a second: a task that waits or is begun again has less time.

    Args:
        address: of the cluster's head, `"host:port"` or `"ray://host:port"`; `"auto"` for the one that runs here,
            `"local"` for a new one of this machine alone, which ends with the search; `None` for the one that runs
            here or, where none does, a new one.
        num_cpus: of each task, and its threads.
        num_gpus: of each task; `None` for 1 where the cluster has any when the search begins, else 0.
        max_retries: how often Ray begins a task again whose machine or process was lost: it goes on from the rung that
            the trial had reached.
        shared: a folder, or the address of one that fsspec knows such as `"s3://bucket/folder"`, that all machines see:
            decoded pictures, weight files, jobs, checkpoints and results go through it, and each machine keeps
            activations in its own cache. `None` where paths of this machine hold on all of them.
        runtime_env: as Ray knows it, for tasks: modules with a metric of one's own, environment variables.

    Raises:
        ArgumentError: one of them is none.
    """

    address: str | None = None
    num_cpus: int = 1
    num_gpus: float | None = None
    max_retries: int = 3
    shared: str | PathLike[str] | None = None
    runtime_env: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        """Check all that can be checked without a cluster."""
        is_address = self.address is None or (isinstance(self.address, str) and self.address != "")
        _require(is_address, f"address is that of a cluster's head, such as '10.0.0.1:6379', or None; {self.address!r}")
        _require(_is_count(self.num_cpus, 1), f"num_cpus is a whole number of at least 1; {self.num_cpus!r}")
        is_gpus = self.num_gpus is None or (is_number(self.num_gpus) and self.num_gpus >= 0)
        _require(is_gpus, f"num_gpus is at least 0, or None; {self.num_gpus!r}")
        _require(_is_count(self.max_retries, 0), f"max_retries is a whole number of at least 0; {self.max_retries!r}")
        is_path = self.shared is None or (isinstance(self.shared, (str, PathLike)) and str(self.shared) != "")
        _require(is_path, f"shared is a folder, an address such as 's3://bucket/folder', or None; {self.shared!r}")

        is_env = self.runtime_env is None or isinstance(self.runtime_env, Mapping)
        _require(is_env, f"runtime_env is a mapping as Ray knows it, or None; {self.runtime_env!r}")

    @property
    def shared_address(self) -> str | None:
        """The folder through which all goes, whole: machines work elsewhere."""
        if self.shared is None or "://" in str(self.shared):
            return None if self.shared is None else str(self.shared)
        return str(Path(self.shared).expanduser().absolute())


def as_runner(given: object) -> RunnerRay | None:
    """Where trainings run, as it was asked: `None` is this machine.

    Raises:
        ArgumentError: there is no such runner.

    Example:
        >>> as_runner("ray") == RunnerRay(), as_runner(None)
        (True, None)
    """
    if given is None or isinstance(given, RunnerRay):
        return given
    if given != "ray":
        raise ArgumentError(f"runner is 'ray', RunnerRay(…), or None for this machine, not {given!r}.")
    return RunnerRay()


def _is_count(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _require(is_good: object, message: str) -> None:
    if not is_good:
        raise ArgumentError(f"{message} came.")

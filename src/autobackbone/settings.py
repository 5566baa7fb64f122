"""All that a user asks for in one call, checked and in one form."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from autobackbone import runfolder
from autobackbone.errors import ArgumentError
from autobackbone.handing import NOTHING, Handed, Strategy, as_handed
from autobackbone.ownbackbone import OwnBackbone, require_names, split_own
from autobackbone.records import Budget, ImageSize, Limits, Resize, Target, Task, as_budget, as_image_sizes, is_number
from autobackbone.runners import RunnerRay, as_runner
from autobackbone.servers import Server, as_server

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from torchmetrics import Metric as TorchMetric

    from autobackbone.backbones.weights import GivenWeights

Groups = Sequence[Any] | Callable[[str], Any] | str | None
Times = Sequence[Any] | Callable[[str], Any] | str | None
Rare = Literal["leave_out", "error"]
BatchNorm = Literal["fixed", "batch"]
# In the facts of a run, of an argument that lived in memory alone: what it was.
IN_MEMORY = "in_memory"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Settings:
    """The arguments of `select_backbone`, whose docstring tells what each means; the backbones that a run which is
    continued gets beside those it has (`added`); and which of all of them are the user's own (`own`, by name).
    """

    dataset: Any
    budget: Budget
    task: Task | None
    label: str | tuple[str, ...] | None
    metric: str | TorchMetric | None
    backbones: tuple[str, ...] | None
    image_sizes: tuple[ImageSize, ...] | None
    target: Target
    limits: Limits
    space: Mapping[str, Any]
    groups: Groups
    times: Times
    run_dir: Path | None
    seed: int
    resize: Resize
    tolerance: float | None
    rare: Rare
    value_range: tuple[float, float] | None
    channels: tuple[int, ...] | None
    weights: GivenWeights
    max_download_mb: float
    cache_dir: Path
    cache_gb: float | None
    batch_norm: BatchNorm
    sampler: BaseSampler | None
    costs: Path | None
    warm_start: Path | None = None
    warm_server: Server | None = None
    stop_early: bool = False
    added: tuple[str, ...] = ()
    workers: int | None = None
    devices_per_trial: int = 1
    handed: Handed = NOTHING
    runner: RunnerRay | None = None
    storage: Server | None = None
    own: Mapping[str, OwnBackbone] = field(default_factory=dict)

    @property
    def is_frozen_only(self) -> bool:
        """Whether nothing is fine-tuned."""
        return self.space.get("n_unfrozen") == 0 or self.budget.n_trials == 0

    def decisive(self) -> dict[str, Any]:
        """What must be the same when a run is continued, as plain data."""
        return {
            "backbones": None if self.backbones is None else list(self.backbones),
            "image_sizes": None if self.image_sizes is None else [list(size) for size in self.image_sizes],
            "target": self.target.to_json(),
            "limits": asdict(self.limits),
            "space": {name: list(v) if isinstance(v, tuple) else v for name, v in self.space.items()},
            "seed": self.seed,
            "resize": self.resize,
            "batch_norm": self.batch_norm,
            "costs": None if self.costs is None else str(self.costs.absolute()),
            "trainer_kwargs": self.handed.decisive(),
        }

    def asked(self) -> dict[str, Any]:
        """What else decides split, choice and trials, as plain data: for whoever wants the same search again.

        In place of what lives in memory alone stands what it was: `{"in_memory": "one entry a picture"}`.
        """
        return {
            "groups": _noted(self.groups),
            "times": _noted(self.times),
            "rare": self.rare,
            "tolerance": self.tolerance,
            "value_range": None if self.value_range is None else list(map(float, self.value_range)),
            "channels": None if self.channels is None else list(self.channels),
            "sampler": None if self.sampler is None else {IN_MEMORY: f"a {type(self.sampler).__name__} of Optuna"},
            "warm_start": None if self.warm_start is None else str(self.warm_start.absolute()),
            "stop_early": self.stop_early,
        }


def as_settings(  # noqa: PLR0913  the facade names every argument
    dataset: Any,
    budget: Budget | float | str,
    *,
    task: Task | None,
    label: str | Sequence[str] | None,
    metric: str | TorchMetric | None,
    backbones: str | OwnBackbone | Sequence[str | OwnBackbone] | None,
    image_sizes: Sequence[int | Sequence[int]] | int | None,
    target: Target | None,
    limits: Limits | None,
    space: Mapping[str, Any],
    groups: Groups,
    times: Times,
    run_dir: str | Path | None,
    seed: int,
    resize: Resize,
    tolerance: float | None,
    rare: Rare,
    value_range: tuple[float, float] | None,
    channels: Sequence[int] | None,
    weights: GivenWeights,
    max_download_mb: float,
    cache_dir: str | Path | None,
    cache_gb: float | None,
    batch_norm: BatchNorm,
    sampler: BaseSampler | None,
    costs: str | Path | None = None,
    warm_start: object = None,
    stop_early: bool = False,
    workers: int | None = None,
    devices_per_trial: int = 1,
    strategy: Strategy = "ddp",
    trainer_kwargs: Mapping[str, Any] | None = None,
    callbacks: Any = None,
    loggers: Any = None,
    runner: RunnerRay | str | None = None,
    storage: Server | str | None = None,
    own: Mapping[str, OwnBackbone] | None = None,
) -> Settings:
    """Check every argument before anything is read or written.

    Args:
        own: which of the backbones are the user's own, where these are names that a run has noted: what it says is code
            is not made of its word alone. `None` finds them among the backbones.

    Raises:
        AutobackboneError: the one that names the argument which is wrong.
    """
    require_names(backbones)
    names, found_own = split_own(backbones) if own is None else (_as_names(backbones), own)
    _require(sampler is None or hasattr(sampler, "sample_relative"), f"sampler is an Optuna sampler, not {sampler!r}.")
    _require(resize in get_args(Resize), f"resize is 'squash', 'pad' or 'crop', not {resize!r}.")
    _require(rare in ("leave_out", "error"), f"rare is 'leave_out' or 'error', not {rare!r}.")
    _require(batch_norm in ("fixed", "batch"), f"batch_norm is 'fixed' or 'batch', not {batch_norm!r}.")
    is_seed = isinstance(seed, int) and not isinstance(seed, bool) and 0 <= seed < 2**32
    _require(is_seed, f"seed is a whole number from 0 to 4294967295, not {seed!r}.")
    handed = as_handed(trainer_kwargs, callbacks, loggers, strategy)
    cluster = _as_runner(runner, workers, devices_per_trial, costs, handed)
    is_task = task is None or task in get_args(Task)
    _require(is_task, f"task is 'classification', 'regression', 'multilabel', or None to read it, not {task!r}.")
    is_label = label is None or isinstance(label, str) or _are_texts(label)
    _require(is_label, f"label names one column of a table, or several in a list, not {label!r}.")
    is_metric = metric is None or isinstance(metric, str) or hasattr(metric, "higher_is_better")
    _require(is_metric, f"metric is the name of one, such as 'accuracy', one of torchmetrics, or None, not {metric!r}.")
    is_groups = groups is None or callable(groups) or hasattr(groups, "__len__")
    _require(is_groups, f"groups has one entry a picture, or is a function of its name, or a column, not {groups!r}.")
    is_times = times is None or callable(times) or hasattr(times, "__len__")
    _require(is_times, f"times has one entry a picture, or is a function of its name, or a column, not {times!r}.")
    is_channels = channels is None or hasattr(channels, "__len__")
    _require(is_channels, f"channels is (i, j, k) or (i,), whole numbers from 0, or None, not {channels!r}.")
    _require_weights(weights)
    warm_path = None if warm_start is None else _folder_of(warm_start)
    for name, path in (("run_dir", run_dir), ("cache_dir", cache_dir), ("costs", costs), ("warm_start", warm_path)):
        is_path = path is None or isinstance(path, (str, PathLike))
        _require(is_path, f"{name} is the path of a folder, or None, not {path!r}.")
        can_be = path is None or _can_be(path)
        _require(can_be, f"{name} is the path of a folder, or None; there can be none at {path!r}.")
    is_within = run_dir is not None and isinstance(dataset, (str, PathLike)) and _is_within(run_dir, dataset)
    _require(not is_within, f"run_dir is a folder outside the dataset; {run_dir!r} lies in it. Give another one.")
    is_tolerance = tolerance is None or (is_number(tolerance) and tolerance >= 0)
    _require(is_tolerance, f"tolerance is at least 0 points (nats of log_loss), or None, not {tolerance!r}.")
    _require(
        is_number(max_download_mb) and max_download_mb >= 0, f"max_download_mb is at least 0, not {max_download_mb!r}."
    )
    _require(cache_gb is None or (is_number(cache_gb) and cache_gb > 0), f"cache_gb is above 0, not {cache_gb!r}.")
    _require(isinstance(stop_early, bool), f"stop_early is True or False, not {stop_early!r}.")
    for name, value, kind in (("target", target, Target), ("limits", limits, Limits)):
        _require(value is None or isinstance(value, kind), f"{name} is a {kind.__name__}(…) or None, not {value!r}.")
    cache = Path(cache_dir).expanduser() if cache_dir is not None else runfolder.cache_folder()
    nearest = next(folder for folder in (cache, *cache.absolute().parents) if folder.exists())
    _require(nearest.is_dir(), f"cache_dir is a folder that can be made; {str(nearest)!r} is a file.")
    has_costs = costs is None or runfolder.RunFolder(path=Path(costs).expanduser()).costs_file.is_file()
    _require(has_costs, f"costs is the folder of a run that has recorded them; there is no costs.jsonl in {costs!r}.")
    _require_other_run(warm_path, run_dir)
    granted = as_budget(budget)
    is_untimed = costs is None or granted.wall_clock_s is None
    _require(is_untimed, "costs= repeats a search that no clock ends: give budget=Budget(n_trials=…) without a time.")
    return Settings(
        dataset=dataset,
        budget=granted,
        task=task,
        label=label if label is None or isinstance(label, str) else tuple(label),
        metric=metric,
        backbones=names,
        image_sizes=as_image_sizes(image_sizes),
        target=target or Target(),
        limits=limits or Limits(),
        space=space,
        groups=groups,
        times=times,
        run_dir=None if run_dir is None else Path(run_dir).expanduser(),
        seed=seed,
        resize=resize,
        tolerance=None if tolerance is None else float(tolerance),
        rare=rare,
        value_range=value_range,
        channels=None if channels is None else tuple(channels),
        weights=weights,
        max_download_mb=float(max_download_mb),
        cache_dir=cache,
        cache_gb=cache_gb,
        batch_norm=batch_norm,
        sampler=sampler,
        costs=None if costs is None else Path(costs).expanduser(),
        warm_start=None if warm_path is None else Path(warm_path).expanduser(),
        warm_server=getattr(warm_start, "_server", None),
        stop_early=stop_early,
        workers=workers,
        devices_per_trial=devices_per_trial,
        handed=handed,
        runner=cluster,
        storage=as_server(storage),
        own=found_own,
    )


def _as_names(backbones: Any) -> tuple[str, ...] | None:
    return (backbones,) if isinstance(backbones, str) else None if backbones is None else tuple(backbones)


def _as_runner(
    runner: object, workers: int | None, devices_per_trial: int, costs: object, handed: Handed
) -> RunnerRay | None:
    """Where trainings run, if not on this machine; what does not go together is told."""
    n_workers, cluster = as_workers(workers, devices_per_trial), as_runner(runner)
    if n_workers:
        devices = f"devices_per_trial={devices_per_trial}"
        handed.require_crossing(f"workers={n_workers} trains" if devices_per_trial == 1 else f"{devices} trains")
    if cluster is not None:
        _require(
            workers is None and devices_per_trial == 1,
            "runner='ray' trains as many side by side as the cluster has room for, each on one device: leave workers "
            "and devices_per_trial out.",
        )
        _require(costs is None, "costs= repeats a search in its order, which a cluster does not keep: leave one out.")
        handed.require_crossing("runner='ray' trains")
    return cluster


def as_workers(workers: int | None, devices_per_trial: int) -> int:
    """Give the number of worker processes, or of groups of them where each training runs on several devices.

    Args:
        workers: as it was asked; `None` for as many as it takes.
        devices_per_trial: processes that train one trial, each on a device of its own.

    Raises:
        ArgumentError: there cannot be so many, or the two contradict each other.

    Example:
        >>> as_workers(None, 1), as_workers(None, 2)
        (0, 1)
    """
    is_number = isinstance(devices_per_trial, int) and not isinstance(devices_per_trial, bool)
    is_enough = is_number and devices_per_trial >= 1
    _require(is_enough, f"devices_per_trial is a whole number from 1, not {devices_per_trial!r}.")
    if workers is None:
        return int(devices_per_trial > 1)
    require_workers(workers)
    _require(
        workers > 0 or devices_per_trial == 1,
        f"devices_per_trial={devices_per_trial} trains in that many processes, and workers=0 in this one alone. "
        "Give workers=1, or leave workers out.",
    )
    return workers


def require_workers(workers: object) -> None:
    """Make sure that there can be so many worker processes.

    Raises:
        ArgumentError: there cannot.
    """
    is_workers = isinstance(workers, int) and not isinstance(workers, bool) and workers >= 0
    _require(
        is_workers, f"workers is 0, to train in this process, or how many worker processes train; {workers!r} came."
    )


def _folder_of(warm_start: object) -> str | PathLike[str]:
    """Of a selection the run that it shows."""
    path = getattr(warm_start, "path", warm_start)
    # Showing a selection reads its run: not where all is well.
    if not isinstance(path, (str, PathLike)):
        raise ArgumentError(f"warm_start is a Selection, the folder of a run, or None, not {warm_start!r}.")
    return path


def _require_other_run(warm_start: str | PathLike[str] | None, run_dir: str | PathLike[str] | None) -> None:
    if warm_start is None:
        return
    path = Path(warm_start).expanduser()
    _require(
        runfolder.RunFolder(path=path).exists(),
        f"warm_start is a Selection, or the folder of a run; there is no run.json in {str(path)!r}.",
    )
    is_same = run_dir is not None and path.resolve() == Path(run_dir).expanduser().resolve()
    _require(
        not is_same,
        f"warm_start is another run than the one in run_dir; {str(path)!r} is both. To go on with it, leave warm_start "
        "out; to search anew, give another run_dir.",
    )


def _noted(given: Groups | Times) -> str | dict[str, str] | None:
    """The name of a column, or what kind of thing was given."""
    if given is None or isinstance(given, str):
        return given
    return {IN_MEMORY: "a function of a picture's name" if callable(given) else "one entry a picture"}


def _are_texts(names: object) -> bool:
    return isinstance(names, Sequence) and len(names) > 0 and all(isinstance(name, str) for name in names)


def _can_be(path: str | PathLike[str]) -> bool:
    try:
        Path(path).expanduser().exists()
    except (OSError, ValueError, RuntimeError):  # too long, a zero byte, no such home
        return False
    return bool(str(path)) and "\0" not in str(path)


def _is_within(path: str | PathLike[str], folder: str | PathLike[str]) -> bool:
    return _can_be(folder) and Path(path).expanduser().resolve().is_relative_to(Path(folder).expanduser().resolve())


def _require_weights(weights: object) -> None:
    paths = list(weights.values()) if isinstance(weights, Mapping) else [weights] if weights is not None else []
    for path in paths:
        is_path = isinstance(path, (str, PathLike)) and not isinstance(path, bytes)
        _require(is_path, f"weights is a file, a folder, or files by name of backbone; {path!r} came.")


def _require(is_good: object, message: str) -> None:
    if not is_good:
        raise ArgumentError(message)

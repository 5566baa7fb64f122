"""`select_backbone` and `plan`: what users call."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from autobackbone.course import run_through
from autobackbone.errors import ArgumentError, AutobackboneError
from autobackbone.handing import Strategy, noted
from autobackbone.ownbackbone import OwnBackbone, split_own
from autobackbone.planning import Plan
from autobackbone.preparing import prepare
from autobackbone.progress import Reporter, Silent
from autobackbone.records import Budget, Limits, Resize, Target, Task
from autobackbone.replaying import as_given
from autobackbone.runfacts import known
from autobackbone.runfolder import RunFolder, new_run_path
from autobackbone.runners import RunnerRay
from autobackbone.search.extras import Setting
from autobackbone.search.space import as_space_settings
from autobackbone.selection import Selection
from autobackbone.servers import Server
from autobackbone.settings import IN_MEMORY, BatchNorm, Groups, Rare, Settings, Times, as_settings

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from torchmetrics import Metric as TorchMetric

    from autobackbone.backbones.weights import GivenWeights


def select_backbone(  # noqa: PLR0913  the facade names every argument
    dataset: Any,
    budget: Budget | float | str,
    *,
    task: Task | None = None,
    label: str | Sequence[str] | None = None,
    metric: str | TorchMetric | None = None,
    backbones: str | OwnBackbone | Sequence[str | OwnBackbone] | None = None,
    image_sizes: Sequence[int | Sequence[int]] | int | None = None,
    target: Target | None = None,
    limits: Limits | None = None,
    space: Mapping[str, Setting] | None = None,
    groups: Groups = None,
    times: Times = None,
    run_dir: str | Path | None = None,
    seed: int = 0,
    resize: Resize = "squash",
    tolerance: float | None = None,
    rare: Rare = "leave_out",
    value_range: tuple[float, float] | None = None,
    channels: Sequence[int] | None = None,
    weights: GivenWeights = None,
    max_download_mb: float = 2000,
    cache_dir: str | Path | None = None,
    cache_gb: float | None = None,
    batch_norm: BatchNorm = "fixed",
    sampler: BaseSampler | None = None,
    costs: str | Path | None = None,
    warm_start: Selection | str | Path | None = None,
    stop_early: bool = False,
    workers: int | None = None,
    devices_per_trial: int = 1,
    strategy: Strategy = "ddp",
    trainer_kwargs: Mapping[str, Any] | None = None,
    callbacks: Any = None,
    loggers: Any = None,
    runner: RunnerRay | Literal["ray"] | None = None,
    storage: str | None = None,
    progress: bool | Reporter = True,
) -> Selection:
    """Find which pre-trained network to start from, how much of it to fine-tune, and at what learning rate.

    One joint search over backbones, image sizes, unfrozen blocks and learning rates with two objectives, score and
    measured latency. Everything tried is kept in a run folder; the front comes with weights that can be used at once.

    Args:
        dataset: a folder with one sub-folder per class, with or without `train/`, `val/`, `test/` above them; a CSV
            file or data frame with the columns `file` and `label`, and perhaps `split` and `group`; `(X, y)` arrays, X
            (n, height, width[, channels]) uint8 or float; a map-style torch dataset of (picture, label), such as
            torchvision's, which are read past their transforms; a Hugging Face `Dataset` or `DatasetDict`; a
            `LightningDataModule`; tar shards in WebDataset's layout: a folder of them, a pattern such as
            `"data/part-*.tar"`, or a list; an iterable of (picture, label), gone through once, or a function that makes
            one, which a run that is continued needs; or a dict of such by part, `{"train": …, "val": …, "test": …}`.
        budget: seconds, a text such as `"10min"`, or `Budget(wall_clock_s=, n_trials=)`. The run ends within 5 % or 5 s
            of its time, whichever is more, and always with at least one usable network.
        task: `"classification"`, `"regression"`, `"multilabel"`, or `None` to read it from the labels: numbers with a
            fraction are a regression; lists of names, and matrices of 0 and 1, are a multilabel task.
        label: the columns of a table or a Hugging Face dataset that hold labels, or the entries in the JSON of shards;
            `None` for the one called `label`. Several are several numbers, or 0 and 1 for each of several labels.
        metric: of classes `"accuracy"` (default), `"balanced_accuracy"`, `"f1_macro"`, `"log_loss"`, `"top5"`,
            `"auroc"`; of numbers `"r2"` (default), `"mae"`, `"rmse"`; of several labels `"map"` (default),
            `"f1_micro"`, `"f1_macro"`, `"auroc"`, `"log_loss"`, `"accuracy"`. Or a metric of torchmetrics, itself or as
            text `"package.module:Name"`.
        backbones: names or globs such as `"resnet*"`, or `"torchvision:resnet*"` for torchvision's; your own as an
            `OwnBackbone` or `"package.module:factory"`; `None` for a shortlist of what can be loaded here.
        image_sizes: pixels, or (height, width) each; `None` for each backbone's own size and smaller ones.
        target: where the model will run; latency is measured there.
        limits: what deployment allows; candidates beyond it are left out before any training.
        space: fixes (`{"n_unfrozen": 0}`), bounds (`{"lr": (1e-5, 1e-3)}`) or adds (`{"weight_decay": (1e-4, 1e-1)}`,
            `{"sampling": ["none", "balanced"]}`) searched parameters: lr, n_unfrozen, n_blocks_kept (how many first
            blocks alone may be used instead of all; the three longest cuts if it is not named, `None` for none),
            weight_decay, label_smoothing, batch_size, n_epochs, class_weights, sampling. The last two are `"none"` or
            `"balanced"`, for uneven classes. Balanced `class_weights` make a picture count by how rare its class is,
            or one with a label by how rare that is, at most 20 times; fixed so, heads on frozen features are weighed,
            too, while a searched weight concerns fine-tuned trials alone. Balanced `sampling` draws each class equally
            often in the epochs of fine-tuned trials, where weights then change nothing more. Neither goes with numbers
            to predict, nor `sampling` with several labels a picture.
        groups: one entry a picture, a function of its name, or the name of a table's column; pictures of one group stay
            in one part of the split. `None` for those of a table's column `group`, if it has one.
        times: one entry a picture, a function of its name, or the name of a table's column: the split is made in this
            order, the first 64 % to train on, the last 20 % to test. Numbers, dates, or texts that are one or the
            other, such as `2024-05-31 14:00`. It does not go with groups or a given split.
        run_dir: the run folder; one that holds a run is continued with what is left of its budget, or, if it was
            completed, with this new one. `None` makes a new, dated folder under `autobackbone-runs/`.
        seed: of the split, the sampler and the training.
        resize: `"squash"` and `"pad"` cut nothing off, `"crop"` keeps the middle.
        tolerance: what may be given up for speed: points of a score that is a share, nats of `log_loss`; `None` for
            half a point, or 2 % of the top scorer's loss.
        rare: what to do with classes too rare for the split: `"leave_out"` or `"error"`.
        value_range: lowest and highest value of pictures above 8 bits; `None` measures it on the training part.
        channels: which three channels (or one) of pictures with many are used.
        weights: a weight file, a folder of them, or files by backbone; looked at before anything else.
        max_download_mb: megabytes of weights that may be fetched.
        cache_dir: where decoded pictures, activations and latencies are kept; `None` for the user's cache folder.
        cache_gb: cap on stored activations, and on decoded pictures, which stay encoded where they would take more;
            10**9 bytes. `None` for a tenth of the free disk, and for half of it.
        batch_norm: `"fixed"` keeps running statistics as they came; `"batch"` lets unfrozen ones move.
        sampler: any Optuna sampler; `None` for multivariate TPE.
        costs: the folder of a run whose recorded costs are used instead of measuring: latencies, seconds of passes and
            epochs, precisions of steps and passes. With a budget of trials alone, the same seed, data and arguments
            give the same trials. What that run did not record is measured. `None` to measure everything, also from
            here on, where a run is continued.
        warm_start: a selection, or the folder of a run, of other pictures or the same: what is on its front is tried
            first, as far as it lies in this search, and its backbones are screened first; where `backbones` is `None`,
            those that the shortlist lacks are added. No score is taken over. A run that is continued knows it already.
        stop_early: whether the search ends when more time is hardly worth it: when the later half of 16 or more
            trainings has let the front's hypervolume grow by less than half a per cent. It is told either way.
        workers: `0` trains in this process; a number in so many worker processes, side by side where there are several,
            each of which is ended and replaced where it dies, hangs, or takes too much memory: that costs one trial,
            not the run. Each takes some seconds to start. On a CPU they share its threads; on a machine with several
            GPUs each has one of them. What they need must lie on the disk or be importable: pictures that stay encoded
            in memory, and a metric that is defined in the script itself, need `0`. `None` is one for each GPU where
            there are several, else `0`. A run may go on with another number. Latencies are measured while nothing
            trains. With more than one, trials end in an order that the clock decides: the same seed gives other ones.
        devices_per_trial: above 1, each training runs on so many GPUs, or in so many processes that share the CPU, by
            DDP. Each worker is then a group of so many processes, and `workers=None` is one for each group of GPUs,
            at least 1.
        strategy: of several devices, `"ddp"` or `"fsdp"`; the latter needs GPUs, and has not been run yet. What goes on
            with the run, or trains again, does so by DDP.
        trainer_kwargs: arguments of Lightning's `Trainer`: `precision` (`"bf16-mixed"`, `"16-mixed"`),
            `gradient_clip_val`, `gradient_clip_algorithm`, `accumulate_grad_batches`, `deterministic`, `benchmark`,
            `profiler`, `detect_anomaly`, `log_every_n_steps`, `default_root_dir`. The first four are noted by the run,
            and kept.
        callbacks: of Lightning, beside our own: `"package.module:factory"`, `("package.module:factory", {…})` with
            arguments that JSON can hold, or a live one, which needs `workers=0`; or several of these in a list. What is
            to be made is made anew for each part of a training.
        loggers: the same. They are told `train_loss` and `validation_score` once an epoch, and new ones the candidate
            as hyperparameters.
        runner: `None` trains on this machine; `"ray"`, or `RunnerRay(address=…)`, as tasks of Ray on a cluster, as many
            side by side as it has room for; what a lost machine was training goes on at another one, from its last
            rung. Latencies are measured here all the same. Needs the extra `ray`.
        storage: the address of a PostgreSQL database, such as `"postgresql://me@db.example.org/optuna"`, that is to
            hold the study in place of a file in the run folder, among the studies of other runs. Its password may stand
            in it, in `PGPASSWORD`, or in `~/.pgpass`, and is noted nowhere. A run that is continued knows its server.
        progress: whether to print the plan and the progress, or a `Reporter` that listens.

    Returns:
        The selection: `.best`, `.front`, `.to_frame()`, `.plot()`, `.model()`, `.predict(images)`.

    Raises:
        AutobackboneError: its sub-class names what is wrong: data, budget, backbone, target, limits, space, run.

    Example:
        result = select_backbone("photos/", "10min")
        result.predict(["new.jpg"])
    """
    begun = time.monotonic()
    settings = as_settings(
        dataset,
        budget,
        task=task,
        label=label,
        metric=metric,
        backbones=backbones,
        image_sizes=image_sizes,
        target=target,
        limits=limits,
        space=as_space_settings(space),
        groups=groups,
        times=times,
        run_dir=run_dir,
        seed=seed,
        resize=resize,
        tolerance=tolerance,
        rare=rare,
        value_range=value_range,
        channels=channels,
        weights=weights,
        max_download_mb=max_download_mb,
        cache_dir=cache_dir,
        cache_gb=cache_gb,
        batch_norm=batch_norm,
        sampler=sampler,
        costs=costs,
        warm_start=warm_start,
        stop_early=stop_early,
        workers=workers,
        devices_per_trial=devices_per_trial,
        strategy=strategy,
        trainer_kwargs=trainer_kwargs,
        callbacks=callbacks,
        loggers=loggers,
        runner=runner,
        storage=storage,
    )
    run = RunFolder(path=settings.run_dir or new_run_path(Path("autobackbone-runs"), datetime.now(tz=UTC).astimezone()))
    return _searched(settings, run, progress, begun)


def go_on(  # noqa: PLR0913  as the facade
    run: RunFolder,
    budget: Budget | float | str,
    *,
    added: Any,
    dataset: Any,
    groups: Groups,
    times: Times,
    sampler: BaseSampler | None,
    cache_dir: str | Path | None,
    cache_gb: float | None,
    max_download_mb: float,
    stop_early: bool,
    workers: int | None,
    devices_per_trial: int,
    strategy: Strategy,
    callbacks: Any,
    loggers: Any,
    runner: RunnerRay | str | None,
    storage: Server | None,
    own: Mapping[str, OwnBackbone],
    progress: bool | Reporter,
) -> Selection:
    """Continue a run as it was asked, with further backbones; `Selection.more` tells what each argument means."""
    begun = time.monotonic()
    facts = run.read_facts()
    try:
        noted_then, asked = _asked_then(facts), facts.get("asked", {})
    except AutobackboneError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise run.damaged(f"what the search was asked cannot be told from it ({error!r})") from error
    given = dataset if dataset is not None else facts.get("dataset")
    if given is None:
        raise ArgumentError(
            f"the run {str(run.path)!r} holds no path to its pictures, since what was searched on came as an object: "
            "give dataset=, as for the search."
        )
    names, every_own = split_own(added, own)
    settings = as_settings(
        given,
        budget,
        **noted_then,
        groups=_given_again("groups", groups, asked),
        times=_given_again("times", times, asked),
        run_dir=run.path,
        max_download_mb=max_download_mb,
        cache_dir=cache_dir,
        cache_gb=cache_gb,
        sampler=_given_again("sampler", sampler, asked),
        stop_early=stop_early,
        workers=workers,
        devices_per_trial=devices_per_trial,
        strategy=strategy,
        callbacks=callbacks,
        loggers=loggers,
        runner=runner,
        storage=storage,
        own=every_own,
    )
    return _searched(replace(settings, added=names or ()), run, progress, begun)


def _asked_then(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that a run has noted and keeps."""
    arguments, asked = facts["arguments"], facts.get("asked", {})
    sizes, value_range, channels = arguments["image_sizes"], asked.get("value_range"), asked.get("channels")
    return {
        "task": facts["task"],
        "label": facts.get("label"),
        "metric": facts["metric"],
        "backbones": arguments["backbones"],
        "image_sizes": None if sizes is None else [tuple(size) for size in sizes],
        "target": Target.from_json(arguments["target"]),
        "limits": Limits(**arguments["limits"]),
        "space": as_space_settings(as_given(arguments["space"])),
        "seed": arguments["seed"],
        "resize": arguments["resize"],
        "tolerance": asked.get("tolerance"),
        "rare": asked.get("rare", "leave_out"),
        "value_range": None if value_range is None else tuple(value_range),
        "channels": None if channels is None else tuple(channels),
        "weights": facts["weights"],
        "batch_norm": arguments["batch_norm"],
        "trainer_kwargs": noted(arguments.get("trainer_kwargs")),
    }


def _given_again(name: str, given: Any, asked: Mapping[str, Any]) -> Any:
    """An argument that decides the split: given now, or as the run has noted it."""
    noted = asked.get(name)
    if given is None and isinstance(noted, Mapping):
        raise ArgumentError(f"{name} was {noted[IN_MEMORY]}, which lay in memory: give {name}=, as for the search.")
    return noted if given is None else given


def _searched(settings: Settings, run: RunFolder, progress: bool | Reporter, begun: float) -> Selection:  # noqa: FBT001
    reporter = _reporter(progress)
    try:
        with run.held():
            return run_through(settings, run, reporter, begun)
    finally:
        reporter.close()


def plan(  # noqa: PLR0913  the facade names every argument
    dataset: Any,
    budget: Budget | float | str,
    *,
    task: Task | None = None,
    label: str | Sequence[str] | None = None,
    metric: str | TorchMetric | None = None,
    backbones: str | OwnBackbone | Sequence[str | OwnBackbone] | None = None,
    image_sizes: Sequence[int | Sequence[int]] | int | None = None,
    target: Target | None = None,
    limits: Limits | None = None,
    space: Mapping[str, Setting] | None = None,
    groups: Groups = None,
    times: Times = None,
    run_dir: str | Path | None = None,
    seed: int = 0,
    resize: Resize = "squash",
    tolerance: float | None = None,
    rare: Rare = "leave_out",
    value_range: tuple[float, float] | None = None,
    channels: Sequence[int] | None = None,
    weights: GivenWeights = None,
    max_download_mb: float = 2000,
    cache_dir: str | Path | None = None,
    cache_gb: float | None = None,
    batch_norm: BatchNorm = "fixed",
    sampler: BaseSampler | None = None,
    costs: str | Path | None = None,
    warm_start: Selection | str | Path | None = None,
    stop_early: bool = False,
    workers: int | None = None,
    devices_per_trial: int = 1,
    strategy: Strategy = "ddp",
    trainer_kwargs: Mapping[str, Any] | None = None,
    callbacks: Any = None,
    loggers: Any = None,
    runner: RunnerRay | Literal["ray"] | None = None,
    storage: str | None = None,
    progress: bool | Reporter = True,  # noqa: ARG001  the same arguments as `select_backbone`
) -> Plan:
    """What `select_backbone` would do with the same arguments, and what it would cost.

    Nothing is trained or kept, and no weights are read or fetched. An iterable is gone through, and may be empty
    afterwards: give a function that makes one.
    """
    settings = as_settings(
        dataset,
        budget,
        task=task,
        label=label,
        metric=metric,
        backbones=backbones,
        image_sizes=image_sizes,
        target=target,
        limits=limits,
        space=as_space_settings(space),
        groups=groups,
        times=times,
        run_dir=run_dir,
        seed=seed,
        resize=resize,
        tolerance=tolerance,
        rare=rare,
        value_range=value_range,
        channels=channels,
        weights=weights,
        max_download_mb=max_download_mb,
        cache_dir=cache_dir,
        cache_gb=cache_gb,
        batch_norm=batch_norm,
        sampler=sampler,
        costs=costs,
        warm_start=warm_start,
        stop_early=stop_early,
        workers=workers,
        devices_per_trial=devices_per_trial,
        strategy=strategy,
        trainer_kwargs=trainer_kwargs,
        callbacks=callbacks,
        loggers=loggers,
        runner=runner,
        storage=storage,
    )
    run = None if settings.run_dir is None else RunFolder(path=settings.run_dir)
    return prepare(settings, known(run, settings) if run and run.exists() else None).plan


def _reporter(progress: bool | Reporter) -> Reporter:  # noqa: FBT001  the public argument
    if isinstance(progress, bool):
        from autobackbone.console import Console

        return Console() if progress else Silent()
    missing = [name for name in ("say", "stage", "progress", "close") if not callable(getattr(progress, name, None))]
    if missing:
        raise ArgumentError(
            f"progress is True, False, or an object with say, stage, progress and close; {progress!r} has no "
            f"{', '.join(missing)}."
        )
    return progress

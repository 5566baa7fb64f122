"""The command line: it parses, calls, and prints.

Results go to standard output, all else to standard error. The exit code is 0, 1 for what a message explains, 2 for a
command that cannot be read, and 130 after Ctrl-C or SIGTERM.
"""

from __future__ import annotations

import io
import os
import shlex
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autobackbone.clirun import (
    Dataset,
    Devices,
    OwnMetric,
    Run,
    RuntimeOption,
    Storage,
    Timings,
    Workers,
    commands,
    draw,
    target_of,
    writing,
)
from autobackbone.errors import ArgumentError, AutobackboneError
from autobackbone.records import Budget, Limits, Precision, Resize, Task, as_budget
from autobackbone.runners import RunnerRay
from autobackbone.showing import harmless

if TYPE_CHECKING:
    from autobackbone.selection import Selection

app = typer.Typer(
    name="autobackbone",
    help="Which pre-trained network to start from, how much of it to fine-tune, and at what learning rate.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(commands)

_DEMO_BACKBONES = ("tf_efficientnet_lite0.in1k", "tf_efficientnet_lite1.in1k", "tf_efficientnet_lite2.in1k")

RunDir = Annotated[Path | None, typer.Option(help="The run folder; one that holds a run is continued.")]
Backbones = Annotated[
    list[str] | None,
    typer.Option("--backbone", "--backbones", help="Names or globs, with commas between; may be given again."),
]
ImageSizes = Annotated[
    list[str] | None,
    typer.Option("--image-size", "--image-sizes", help="Pixels, or HEIGHTxWIDTH, with commas between."),
]
Ray = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Train on the cluster of Ray at this address, such as 10.0.0.1:6379; 'auto' is the one that runs here, "
        "'local' a new one of this machine alone.",
    ),
]
StopEarly = Annotated[bool, typer.Option("--stop-early", help="End when more time is hardly worth it.")]
Trials = Annotated[
    int | None,
    typer.Option("--trials", "--n-trials", help="Trials after screening, at most; without --budget no time ends them."),
]
Seed = Annotated[int, typer.Option(help="Of the split, the sampler and the training.")]


def main() -> None:
    """Run the command line; what the library refuses is one message."""
    # Before torch is loaded: how long its threads spin before they sleep. A small network took, on two idle cores and
    # with one of them busy: 6.6 and 193 ms where they spin as long as GNU's OpenMP would, 12.9 and 20 ms where they
    # sleep at once, 7.2 and 30 ms so. Who deploys a network has the first of these: its latency is nearly that.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "5000")
    for stream in (sys.stdout, sys.stderr):
        # What an old encoding cannot write becomes a question mark: a result is not lost for an arrow.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        app()
    except AutobackboneError as error:
        typer.echo(harmless(f"error: {error}", keeps="\n"), err=True)
        sys.exit(1)


@app.callback(invoke_without_command=True)
def _version(
    *, version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False
) -> None:
    if version:
        from autobackbone import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.command()
def select(  # noqa: PLR0913  one option for each argument of the facade
    data: Annotated[
        Path,
        typer.Argument(
            help="A folder with one sub-folder per class, a CSV file with paths, or tar shards: a folder, or a pattern "
            "in quotes such as 'data/part-*.tar'."
        ),
    ],
    budget: Annotated[
        str | None, typer.Option(help="Time, such as 90s, 10min or 1h; 10min if not given, and with --trials no limit.")
    ] = None,
    *,
    run_dir: RunDir = None,
    label: Annotated[
        list[str] | None, typer.Option(help="Columns of a CSV file with labels, with commas between; else 'label'.")
    ] = None,
    groups: Annotated[
        str | None, typer.Option(help="Column of a CSV file: pictures of one group stay in one part; else 'group'.")
    ] = None,
    times: Annotated[
        str | None, typer.Option(help="Column of a CSV file with numbers or dates: the split follows it.")
    ] = None,
    task: Annotated[Task | None, typer.Option(help="What the labels are; read from them if not given.")] = None,
    metric: Annotated[
        str | None, typer.Option(help="accuracy, log_loss, r2, mae, map …; the task's usual one if not given.")
    ] = None,
    backbones: Backbones = None,
    image_sizes: ImageSizes = None,
    device: Annotated[str, typer.Option(help="Where the model will run: auto, cpu, cuda, mps.")] = "auto",
    batch_size: Annotated[int, typer.Option(help="Pictures in one pass when latency is measured.")] = 1,
    precision: Annotated[Precision, typer.Option(help="Of the model where it runs.")] = "auto",
    threads: Annotated[int | None, typer.Option(help="Threads of one pass on a CPU; all cores if not given.")] = None,
    runtime: RuntimeOption = "torch",
    timings: Timings = None,
    max_latency_ms: Annotated[float | None, typer.Option(help="Leave out what is slower.")] = None,
    max_params: Annotated[float | None, typer.Option(help="Leave out what has more parameters.")] = None,
    max_megabytes: Annotated[float | None, typer.Option(help="Leave out what is larger.")] = None,
    resize: Annotated[Resize, typer.Option(help="How a picture is brought to an image size.")] = "squash",
    tolerance: Annotated[
        float | None,
        typer.Option(
            help="Points, or nats of log_loss, that may be given up for speed; half a point or 2 % if not given."
        ),
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="A weight file, or a folder of them.")] = None,
    trials: Trials = None,
    max_download_mb: Annotated[float, typer.Option(help="Megabytes of weights that may be fetched.")] = 2000,
    seed: Seed = 0,
    workers: Workers = None,
    devices_per_trial: Devices = 1,
    ray: Ray = None,
    stop_early: StopEarly = False,
    costs: Annotated[
        Path | None,
        typer.Option(
            help="A run whose recorded latencies and seconds are used in place of measuring. With --trials and no "
            "--budget; the same seed and options then give the same trials, if no clock ended that run."
        ),
    ] = None,
    warm_start: Annotated[
        Path | None, typer.Option(help="A run, of other pictures or the same, whose front is tried first.")
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            help="A PostgreSQL database that holds the study, such as postgresql://me@db.example.org/optuna. Its "
            "password is best left to PGPASSWORD or ~/.pgpass: others see a command line."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print the plan.")] = False,
) -> None:
    """Search on a folder of pictures."""
    if costs is not None and (budget is not None or trials is None):
        raise ArgumentError(
            "--costs repeats a search that no clock ends: give --trials, how many to begin after screening, and leave "
            "--budget out."
        )
    granted = _granted(budget, trials)
    sizes = [_image_size(text) for text in _split(image_sizes)]
    from autobackbone import plan, select_backbone

    call: Callable[[], Any] = partial(
        plan if dry_run else select_backbone,
        data,
        granted,
        task=task,
        label=_one_or_several(label),
        metric=metric,
        groups=groups,
        times=times,
        backbones=_split(backbones) or None,
        image_sizes=sizes or None,
        target=target_of(
            timings,
            device=device,
            batch_size=batch_size,
            precision=precision,
            n_threads=threads,
            runtime=runtime,
        ),
        limits=Limits(latency_ms=max_latency_ms, n_params=max_params, megabytes=max_megabytes),
        run_dir=run_dir,
        seed=seed,
        resize=resize,
        tolerance=tolerance,
        weights=weights,
        max_download_mb=max_download_mb,
        stop_early=stop_early,
        workers=workers,
        devices_per_trial=devices_per_trial,
        runner=None if ray is None else RunnerRay(address=ray),
        costs=costs,
        warm_start=warm_start,
        storage=storage,
    )
    if dry_run:
        typer.echo(harmless(str(call()), keeps="\n"))
    else:
        _search(call)


@app.command()
def more(
    run: Run,
    *,
    budget: Annotated[
        str | None, typer.Option(help="Time, such as 90s, 10min or 1h; 10min if not given, and with --trials no limit.")
    ] = None,
    trials: Trials = None,
    backbones: Backbones = None,
    data: Dataset = None,
    max_download_mb: Annotated[float, typer.Option(help="Megabytes of weights that may be fetched.")] = 2000,
    workers: Workers = None,
    devices_per_trial: Devices = 1,
    ray: Ray = None,
    stop_early: StopEarly = False,
    metric: OwnMetric = None,
    storage: Storage = None,
) -> None:
    """Go on with a run: more time, and further networks."""
    granted = _granted(budget, trials)
    from autobackbone import open_run

    call = open_run(run, metric=metric, storage=storage).more
    asked: dict[str, Any] = {
        "dataset": data,
        "max_download_mb": max_download_mb,
        "stop_early": stop_early,
        "workers": workers,
        "devices_per_trial": devices_per_trial,
        "runner": None if ray is None else RunnerRay(address=ray),
    }
    _search(partial(call, granted, backbones=_split(backbones) or None, **asked))


@app.command()
def demo(
    budget: Annotated[str, typer.Option(help="Time of the search.")] = "2min",
    *,
    run_dir: RunDir = None,
    seed: Seed = 0,
) -> None:
    """Search on 1,797 handwritten digits, with three networks; both come with the installed packages."""
    from sklearn.datasets import load_digits

    from autobackbone import select_backbone

    digits = load_digits()
    pictures = (digits.images, digits.target)
    _search(partial(select_backbone, pictures, budget, backbones=_DEMO_BACKBONES, run_dir=run_dir, seed=seed))


@app.command()
def catalogue(
    *,
    name: Annotated[
        list[str] | None, typer.Option("--name", "--glob", help="A name or a glob; may be given again.")
    ] = None,
    family: Annotated[list[str] | None, typer.Option(help="A family, such as resnet; may be given again.")] = None,
    loadable: Annotated[bool, typer.Option("--loadable", help="Only what can be loaded here.")] = False,
    limit: Annotated[int, typer.Option(help="Rows to print; 0 for all.", min=0)] = 40,
    csv_file: Annotated[Path | None, typer.Option("--csv", help="Write the rows to a CSV file instead.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw accuracy against parameters into a PNG file.")] = None,
) -> None:
    """List every pre-trained network with its published facts, the most accurate first."""
    from autobackbone import catalogue as every
    from autobackbone import plot_catalogue
    from autobackbone.backbones.names import resolve_names
    from autobackbone.tables import print_catalogue

    rows = every().sort_values("top1", ascending=False, na_position="last")
    if name:
        rows = rows[rows["name"].isin(resolve_names(_split(name)))]
    if family:
        rows = rows[rows["family"].isin(_split(family))]
    if loadable:
        rows = rows[rows["loadable"].notna()]
    if plot is not None:
        draw(plot_catalogue().savefig, plot)
    if csv_file is not None:
        with writing(csv_file):
            rows.to_csv(csv_file, index=False)
    if csv_file is None and plot is None:
        print_catalogue(rows.head(limit) if limit else rows, len(rows))


@app.command()
def shortlist(k: Annotated[int, typer.Argument(help="How many at most.")] = 12) -> None:
    """List the networks that a search would start from here, and why."""
    from autobackbone import shortlist as listed

    typer.echo(str(listed(k)))


@app.command()
def kit(
    folder: Annotated[Path, typer.Argument(help="A new folder, to be taken to the other machine.")],
    *,
    backbones: Backbones = None,
    image_sizes: ImageSizes = None,
    cuts: Annotated[bool, typer.Option("--cuts", help="Also the first blocks alone of each network.")] = False,
) -> None:
    """Write networks to be timed on another machine: ONNX files, a script that needs onnxruntime alone, and a table.

    The table, filled in, is a target: --timings latencies.csv.
    """
    from autobackbone import write_kit

    sizes = [_image_size(text) for text in _split(image_sizes)]
    written = write_kit(
        folder,
        backbones=_split(backbones) or None,
        image_sizes=sizes or None,
        cuts=cuts,
        say=lambda line: typer.echo(line, err=True),
    )
    typer.echo(str(written))


@app.command()
def doctor() -> None:
    """Check this machine in a minute: devices, precisions, weights, disk, a small real search."""
    from autobackbone.doctor import examine

    is_healthy = True
    for check in examine():
        is_healthy = is_healthy and check.state != "problem"
        remedy = f" → {check.remedy}" if check.remedy else ""
        typer.echo(f"{check.state:8} {check.name}: {check.detail}{remedy}")
    raise typer.Exit(0 if is_healthy else 1)


def _search(call: Callable[[], Selection]) -> None:
    """Search and print what came out of it, also after Ctrl-C, and after the signal by which a machine that is to be
    free asks programs to end.
    """
    from autobackbone.search.study import has_ended
    from autobackbone.tables import print_selection

    at_sigterm = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        selection = call()
    except KeyboardInterrupt:
        typer.echo("interrupted before the first trial: only what was read and timed is kept, in the cache", err=True)
        raise typer.Exit(130) from None
    finally:
        signal.signal(signal.SIGTERM, at_sigterm)
    print_selection(selection)
    if not has_ended(selection.study):
        path = shlex.quote(str(selection.path))
        typer.echo(f"to go on: autobackbone more {path}, or the same with --run-dir {path}", err=True)
        raise typer.Exit(130)


def _granted(budget: str | None, trials: int | None) -> Budget:
    if budget is None and trials is not None:
        return Budget(n_trials=trials)
    return Budget(wall_clock_s=as_budget("10min" if budget is None else budget).wall_clock_s, n_trials=trials)


def _one_or_several(texts: list[str] | None) -> str | list[str] | None:
    names = _split(texts)
    return names[0] if len(names) == 1 else names or None


def _split(texts: list[str] | None) -> list[str]:
    parts = [part.strip() for text in texts or () for part in text.split(",") if part.strip()]
    if texts and not parts:
        raise ArgumentError(f"an option that takes names or sizes has none: {', '.join(texts)!r} came. Leave it out.")
    return parts


def _image_size(text: str) -> int | tuple[int, int]:
    sides = text.lower().split("x")
    if not 1 <= len(sides) <= 2 or not all(side.isdecimal() for side in sides):
        raise typer.BadParameter(f"an image size is pixels, or HEIGHTxWIDTH such as 160x224; {text!r} came.")
    return int(sides[0]) if len(sides) == 1 else (int(sides[0]), int(sides[1]))

"""What the command line does with a run that is there."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from autobackbone.errors import ArgumentError
from autobackbone.records import Limits, Preference, RefitOn, Runtime, Target
from autobackbone.showing import harmless

if TYPE_CHECKING:
    from autobackbone.predictions import Prediction

commands = typer.Typer()

Run = Annotated[Path, typer.Argument(help="A run folder.")]
TrialNumber = Annotated[int | None, typer.Option(help="A trial of the front; the chosen one if not given.")]
CsvFile = Annotated[Path | None, typer.Option("--csv", help="Write a CSV file with a header instead.")]
OwnMetric = Annotated[
    str | None, typer.Option("--metric", help="The own metric that the run names, to say that its code may run.")
]
Storage = Annotated[
    str | None,
    typer.Option(
        help="The database server that the run names, to say that it may be connected to, if it is not yours."
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="How many worker processes train side by side: one that dies costs a training, not the run. 0 trains in "
        "this process. One for each GPU if not given, and 0 where there is one GPU at most.",
    ),
]
Devices = Annotated[
    int, typer.Option(min=1, help="GPUs, or processes on the CPU, that train each trial together; above 1 in workers.")
]
Dataset = Annotated[
    Path | None, typer.Option("--data", help="The pictures, where they are not any more where the run found them.")
]
RuntimeOption = Annotated[
    Runtime,
    typer.Option(
        help="What runs the model where its latency counts; beyond torch it needs the extra onnx or openvino."
    ),
]
Timings = Annotated[
    Path | None,
    typer.Option(
        help="A CSV file of latencies that were measured on another machine, which is the target then: backbone, "
        "height, width, latency_ms."
    ),
]


def target_of(timings: Path | None, **here: Any) -> Target:
    """The target that options name: a table of latencies, or something of this machine."""
    if timings is None:
        return Target(**here)
    usual = Target()
    also = [name for name, value in here.items() if value != getattr(usual, name) and name != "batch_size"]
    if also:
        raise ArgumentError(
            f"--timings are of another machine, of which {', '.join(also)} of this one say nothing. Leave one out."
        )
    return replace(Target.from_csv(timings), batch_size=here["batch_size"])


@commands.command()
def show(
    run: Run,
    *,
    all_trials: Annotated[bool, typer.Option("--all", help="All trials, not the front alone.")] = False,
    metric: OwnMetric = None,
    storage: Storage = None,
) -> None:
    """Show the front of a run and which trial to use."""
    from autobackbone import open_run
    from autobackbone.tables import print_selection

    print_selection(open_run(run, metric=metric, storage=storage), all_trials=all_trials)


@commands.command()
def retarget(
    run: Run,
    *,
    device: Annotated[str, typer.Option(help="Where the model would run: auto, cpu, cuda, mps.")] = "auto",
    runtime: RuntimeOption = "torch",
    batch_size: Annotated[int, typer.Option(help="Pictures in one pass when latency is measured.", min=1)] = 1,
    threads: Annotated[int | None, typer.Option(help="Threads of one pass on a CPU; all cores if not given.")] = None,
    timings: Timings = None,
    max_latency_ms: Annotated[float | None, typer.Option(help="Leave out what is slower there.")] = None,
    all_trials: Annotated[bool, typer.Option("--all", help="All trials, not the front alone.")] = False,
    metric: OwnMetric = None,
    storage: Storage = None,
) -> None:
    """Show a run's front on another target: its networks are timed there, and nothing is trained."""
    from autobackbone import open_run
    from autobackbone.tables import print_selection

    target = target_of(timings, device=device, runtime=runtime, batch_size=batch_size, n_threads=threads)
    selection = open_run(run, metric=metric, storage=storage)
    moved = selection.retarget(target, limits=Limits(latency_ms=max_latency_ms))
    print_selection(moved, all_trials=all_trials)


@commands.command()
def report(
    run: Run,
    *,
    out: Annotated[Path, typer.Option("--out", help="The file to write; what is there is replaced.")] = Path(
        "report.html"
    ),
    pictures: Annotated[
        int, typer.Option(min=0, max=200, help="Of what is wrong, how many are shown at most; 0 for none.")
    ] = 24,
    data: Dataset = None,
    metric: OwnMetric = None,
    storage: Storage = None,
) -> None:
    """Write all that is known of a run into one page that opens anywhere, without a network."""
    from autobackbone import open_run

    selection = open_run(run, metric=metric, storage=storage)
    typer.echo(harmless(f"written: {selection.report(out, n_pictures=pictures, dataset=data)}"))


@commands.command()
def explain(run: Run, *, metric: OwnMetric = None, storage: Storage = None) -> None:
    """Tell in words what a run considered, tried, found and chose, and what more time may bring."""
    from autobackbone import open_run

    typer.echo(open_run(run, metric=metric, storage=storage).explain())


@commands.command()
def compare(
    run: Run,
    other: Run,
    *,
    plot: Annotated[Path | None, typer.Option(help="Write a picture of both fronts, such as fronts.png.")] = None,
    metric: OwnMetric = None,
    storage: Storage = None,
) -> None:
    """Hold two runs against each other: their fronts, and their chosen trials on the pictures that both kept apart."""
    from autobackbone import compare as compared
    from autobackbone import open_run

    found = compared(*(open_run(one, metric=metric, storage=storage) for one in (run, other)))
    typer.echo(str(found))
    if plot is not None:
        draw(found.plot().savefig, plot)


@commands.command()
def predict(
    run: Run,
    pictures: Annotated[list[Path], typer.Argument(help="Pictures, or folders of them.")],
    *,
    trial: TrialNumber = None,
    metric: OwnMetric = None,
    storage: Storage = None,
    csv_file: CsvFile = None,
) -> None:
    """Predict pictures: one line each, path, class and probability (or labels, or numbers), separated by tabs.

    Pictures that cannot be read are named on standard error, and the exit code is then 1.
    """
    from autobackbone import open_run
    from autobackbone.predictions import columns, predictions

    selection = open_run(run, metric=metric, storage=storage)
    found = predictions(selection, pictures, trial)
    if csv_file is None:
        n_left_out = _each(found, lambda row: typer.echo("\t".join(map(harmless, row))))
    else:
        with writing(csv_file), csv_file.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(("path", *columns(selection)))
            n_left_out = _each(found, writer.writerow)
    raise typer.Exit(1 if n_left_out else 0)


@commands.command()
def suspects(
    run: Run,
    *,
    n: Annotated[int, typer.Option("--n", help="Rows at most.", min=1)] = 50,
    csv_file: CsvFile = None,
    metric: OwnMetric = None,
    storage: Storage = None,
) -> None:
    """List labels that are probably wrong, the most suspect first; nothing is altered."""
    from autobackbone import open_run
    from autobackbone.tables import print_suspects

    selection = open_run(run, metric=metric, storage=storage)
    found = selection.suspects(n)
    if csv_file is None:
        print_suspects(selection, found)
    else:
        with writing(csv_file):
            found.to_csv(csv_file, index=False)


@commands.command()
def similar(run: Run, *, csv_file: CsvFile = None) -> None:
    """List validation pictures that look much like a training picture: crops of it, shots of one object."""
    from autobackbone import open_run
    from autobackbone.tables import print_rows

    found = open_run(run).similar()
    if csv_file is None:
        print_rows(found, otherwise="no validation picture looks much like a training picture")
    else:
        with writing(csv_file):
            found.to_csv(csv_file, index=False)


@commands.command()
def pick(
    run: Run,
    *,
    prefer: Annotated[Preference | None, typer.Option(help="What counts most. Stands alone.")] = None,
    at_least: Annotated[
        float | None,
        typer.Option(help="The fastest with this score, such as 0.9 (of a loss: at most this). Stands alone."),
    ] = None,
    max_latency_ms: Annotated[
        float | None, typer.Option(help="The most accurate that is not slower, and keeps the other limits.")
    ] = None,
    max_params: Annotated[
        float | None, typer.Option(help="The most accurate with no more parameters, and within the other limits.")
    ] = None,
    max_megabytes: Annotated[
        float | None, typer.Option(help="The most accurate that is not larger, and keeps the other limits.")
    ] = None,
    metric: OwnMetric = None,
    storage: Storage = None,
) -> None:
    """Name another trial than the chosen one: its number, for predict --trial, and what it is, separated by a tab.

    Say what counts in one of three ways: a word (--prefer), a score (--at-least), or one or more limits (--max-…).
    Limits may stand together; a word and a score stand alone.
    """
    from autobackbone import open_run
    from autobackbone.choosing import trial_line

    limits = {"latency_ms": max_latency_ms, "n_params": max_params, "megabytes": max_megabytes}
    has_limits = any(limit is not None for limit in limits.values())
    given = {"--prefer": prefer is not None, "--at-least": at_least is not None, "limits (--max-…)": has_limits}
    ways = [way for way, is_given in given.items() if is_given]
    if len(ways) != 1:
        raise ArgumentError(
            "pick takes --prefer, or --at-least, or limits: --max-latency-ms, --max-params and --max-megabytes, which "
            f"may stand together; {' and '.join(ways) or 'none'} came. Give one of the three."
        )
    selection = open_run(run, metric=metric, storage=storage)
    if prefer is not None:
        trial = selection.select(prefer)
    elif at_least is not None:
        trial = selection.fastest_at_least(at_least)
    else:
        trial = selection.best_under(**limits)
    typer.echo(f"{trial.number}\t{harmless(trial_line(trial, selection.metric))}")


@commands.command()
def refit(
    run: Run,
    *,
    trial: TrialNumber = None,
    on: Annotated[RefitOn, typer.Option(help="Which parts it is trained on.")] = "train+val",
    budget: Annotated[str, typer.Option(help="Time of the training, such as 90s or 10min.")] = "10min",
    data: Dataset = None,
    metric: OwnMetric = None,
    storage: Storage = None,
    workers: Annotated[
        int | None, typer.Option(min=0, max=1, help="1 trains in a worker process, 0 in this one.")
    ] = None,
    devices_per_trial: Devices = 1,
) -> None:
    """Train a trial once more, on the validation pictures, too, and compare both networks on the test part."""
    from autobackbone import open_run

    selection = open_run(run, metric=metric, storage=storage)
    again = selection.refit(
        trial, on=on, budget=budget, dataset=data, workers=workers, devices_per_trial=devices_per_trial
    )
    typer.echo(harmless(str(again)))
    if again.path is None:  # said already
        raise typer.Exit(1)
    typer.echo(f"weights: {again.path}")


@commands.command()
def export(
    run: Run,
    path: Annotated[Path, typer.Argument(help="The file, or timm's folder.")],
    *,
    form: Annotated[
        Literal["onnx", "timm", "torch"],
        typer.Option("--format", help="ONNX; a folder that timm builds; a program of torch.export (.pt2)."),
    ] = "onnx",
    int8: Annotated[bool, typer.Option("--int8", help="ONNX in 8 bits, scored beside float32.")] = False,
    preprocessing: Annotated[
        bool, typer.Option(help="Whether the ONNX file takes pictures of any size, or inputs.")
    ] = True,
    model_card: Annotated[
        bool, typer.Option("--model-card", help="With timm's folder a README.md as the Hugging Face Hub reads it.")
    ] = False,
    trial: TrialNumber = None,
    data: Dataset = None,
    metric: OwnMetric = None,
    storage: Storage = None,
) -> None:
    """Write a trial's network for use elsewhere."""
    from autobackbone import open_run

    if form != "timm" and model_card:
        raise ArgumentError(f"--model-card is for --format timm; {form!r} came. Leave it out.")
    if form != "onnx" and (int8 or not preprocessing):
        raise ArgumentError(f"--int8 and --no-preprocessing are for --format onnx; {form!r} came. Leave them out.")
    selection = open_run(run, metric=metric, storage=storage)
    if form == "onnx":
        precision: Literal["float32", "int8"] = "int8" if int8 else "float32"
        exported = selection.to_onnx(path, trial, with_preprocessing=preprocessing, precision=precision, dataset=data)
    elif form == "timm":
        exported = selection.to_timm(path, trial, model_card=model_card)
    else:
        exported = selection.to_torch_export(path, trial)
    typer.echo(harmless(str(exported)))


@commands.command()
def ensemble(
    run: Run,
    *,
    max_latency_ms: Annotated[float | None, typer.Option(help="What latencies may add up to.")] = None,
    metric: OwnMetric = None,
    storage: Storage = None,
) -> None:
    """Say whether several networks of the front predict together better than one, and which."""
    from autobackbone import open_run

    typer.echo(harmless(open_run(run, metric=metric, storage=storage).ensemble(max_latency_ms).reason))


@commands.command()
def calibration(run: Run, *, trial: TrialNumber = None, metric: OwnMetric = None, storage: Storage = None) -> None:
    """Say how far a trial's probabilities can be trusted, before and after they are corrected."""
    from autobackbone import open_run

    typer.echo(str(open_run(run, metric=metric, storage=storage).calibration(trial)))


@commands.command()
def reproduce(run: Run, *, metric: OwnMetric = None, storage: Storage = None) -> None:
    """Print the lines of Python that repeat what a run has recorded."""
    from autobackbone import open_run

    typer.echo(open_run(run, metric=metric, storage=storage).reproduce())


def _each(found: Iterable[Prediction], write: Callable[[tuple[str, ...]], object]) -> int:
    """Write what could be read, name the rest; how many that were."""
    from autobackbone.data import printable

    n_left_out = 0
    for one in found:
        name = printable(str(one.path))
        if one.problem:
            n_left_out += 1
            typer.echo(harmless(f"left out: {name}: {one.problem}"), err=True)
        else:
            write((name, *one.values))
    return n_left_out


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Write a file and say so.

    Raises:
        ArgumentError: it cannot be written.
    """
    if path.is_dir():
        raise ArgumentError(f"cannot write {str(path)!r}: it is a folder. Name a file in it.")
    try:
        yield
        typer.echo(f"written: {path}")
    except (OSError, ValueError) as error:  # ValueError: a suffix that no picture has
        raise ArgumentError(f"cannot write {str(path)!r}: {error}. Name a file in a folder that is there.") from error


def draw(savefig: Callable[..., object], path: Path) -> None:
    """Write a picture by its figure's `savefig`, and say so; where the name tells no kind, a PNG file.

    Raises:
        ArgumentError: it cannot be written.
    """
    with writing(path):
        # Under this very name: left alone, matplotlib adds .png to it.
        savefig(path, dpi=120, format=None if path.suffix else "png")

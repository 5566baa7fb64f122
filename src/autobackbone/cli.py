"""The command line: it parses, calls, and prints."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autobackbone.errors import AutobackboneError
from autobackbone.records import Budget, Limits, Precision, Resize, Target, as_budget

if TYPE_CHECKING:
    from autobackbone.planning import Plan
    from autobackbone.selection import Selection

app = typer.Typer(
    name="autobackbone",
    help="Which pre-trained network to start from, how much of it to fine-tune, and at what learning rate.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_DEMO_BACKBONES = ("tf_efficientnet_lite0.in1k", "tf_efficientnet_lite1.in1k", "tf_efficientnet_lite2.in1k")

RunDir = Annotated[Path | None, typer.Option(help="The run folder; one that holds a run is continued.")]
Run = Annotated[Path, typer.Argument(help="A run folder.")]
Seed = Annotated[int, typer.Option(help="Of the split, the sampler and the training.")]


def main() -> None:
    """Run the command line; library errors are one line, Ctrl-C ends with 130."""
    # Before torch is loaded: waiting threads that spin make two cores with other work on one of them a hundred times
    # slower (472 against 5 ms a forward pass).
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        app()
    except AutobackboneError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201  the command line's own voice
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)  # noqa: T201
        sys.exit(130)


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
    data: Annotated[Path, typer.Argument(help="A folder with one sub-folder per class.")],
    budget: Annotated[str, typer.Option(help="Time, such as 90s, 10min or 1h.")] = "10min",
    *,
    run_dir: RunDir = None,
    metric: Annotated[str | None, typer.Option(help="accuracy, balanced_accuracy, f1_macro, log_loss …")] = None,
    backbone: Annotated[list[str] | None, typer.Option(help="A name or a glob; may be given again.")] = None,
    image_size: Annotated[list[str] | None, typer.Option(help="Pixels, or HEIGHTxWIDTH; may be given again.")] = None,
    device: Annotated[str, typer.Option(help="Where the model will run: auto, cpu, cuda, mps.")] = "auto",
    batch_size: Annotated[int, typer.Option(help="Pictures in one pass when latency is measured.")] = 1,
    precision: Annotated[Precision, typer.Option(help="Of the model where it runs.")] = "auto",
    threads: Annotated[int | None, typer.Option(help="Threads of one pass on a CPU; all cores if not given.")] = None,
    max_latency_ms: Annotated[float | None, typer.Option(help="Leave out what is slower.")] = None,
    max_params: Annotated[float | None, typer.Option(help="Leave out what has more parameters.")] = None,
    max_megabytes: Annotated[float | None, typer.Option(help="Leave out what is larger.")] = None,
    resize: Annotated[Resize, typer.Option(help="How a picture is brought to an image size.")] = "squash",
    tolerance: Annotated[float, typer.Option(help="Points that may be given up for speed.")] = 0.5,
    weights: Annotated[Path | None, typer.Option(help="A weight file, or a folder of them.")] = None,
    trials: Annotated[int | None, typer.Option(help="Trials after screening, at most.")] = None,
    max_download_mb: Annotated[float, typer.Option(help="Megabytes of weights that may be fetched.")] = 2000,
    seed: Seed = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print the plan.")] = False,
) -> None:
    """Search on a folder of pictures."""
    wall_clock_s = as_budget(budget).wall_clock_s
    image_sizes = [_image_size(text) for text in image_size] if image_size else None
    from autobackbone import plan, select_backbone

    call = plan if dry_run else select_backbone
    result: Plan | Selection = call(
        data,
        Budget(wall_clock_s=wall_clock_s, n_trials=trials),
        metric=metric,
        backbones=backbone or None,
        image_sizes=image_sizes,
        target=Target(device=device, batch_size=batch_size, precision=precision, n_threads=threads),
        limits=Limits(latency_ms=max_latency_ms, n_params=max_params, megabytes=max_megabytes),
        run_dir=run_dir,
        seed=seed,
        resize=resize,
        tolerance=tolerance,
        weights=weights,
        max_download_mb=max_download_mb,
    )
    _show(result)


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
    _show(select_backbone(pictures, budget, backbones=_DEMO_BACKBONES, run_dir=run_dir, seed=seed))


@app.command()
def show(
    run: Run, *, all_trials: Annotated[bool, typer.Option("--all", help="All trials, not the front alone.")] = False
) -> None:
    """Show the front of a run and which trial to use."""
    from autobackbone import open_run

    _show(open_run(run), all_trials=all_trials)


@app.command()
def predict(
    run: Run,
    pictures: Annotated[list[Path], typer.Argument(help="Pictures, or folders of them.")],
    *,
    trial: Annotated[int | None, typer.Option(help="A trial of the front; the chosen one if not given.")] = None,
) -> None:
    """Predict the class of pictures: one line each, path, class and probability, separated by tabs."""
    from autobackbone import open_run

    selection = open_run(run)
    for path in _picture_files(pictures):
        (row,) = selection.predict_proba([path], trial)
        code = int(row.argmax())
        typer.echo(f"{path}\t{selection.classes[code]}\t{row[code]:.4f}")


@app.command()
def catalogue(
    *,
    name: Annotated[list[str] | None, typer.Option(help="A name or a glob; may be given again.")] = None,
    loadable: Annotated[bool, typer.Option("--loadable", help="Only what can be loaded here.")] = False,
    limit: Annotated[int, typer.Option(help="Rows to print; 0 for all.")] = 40,
    csv: Annotated[Path | None, typer.Option(help="Write the rows to a CSV file instead.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw accuracy against parameters into a PNG file.")] = None,
) -> None:
    """List every pre-trained network with its published facts, the most accurate first."""
    from autobackbone import catalogue as table
    from autobackbone import plot_catalogue
    from autobackbone.backbones.names import resolve_names

    rows = table().sort_values("top1", ascending=False, na_position="last")
    if name:
        rows = rows[rows["name"].isin(resolve_names(name))]
    if loadable:
        rows = rows[rows["loadable"].notna()]
    if plot is not None:
        plot_catalogue().savefig(plot, dpi=120)
        typer.echo(f"drawn: {plot}")
    if csv is not None:
        rows.to_csv(csv, index=False)
        typer.echo(f"written: {csv}, {len(rows):,} rows")
    if csv is None and plot is None:
        _print_catalogue(rows.head(limit) if limit else rows, len(rows))


@app.command()
def shortlist(k: Annotated[int, typer.Argument(help="How many at most.")] = 12) -> None:
    """List the networks that a search would start from here, and why."""
    from autobackbone import shortlist as listed

    typer.echo(str(listed(k)))


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


def _show(result: Plan | Selection, *, all_trials: bool = False) -> None:
    from autobackbone.selection import Selection

    if not isinstance(result, Selection):
        typer.echo(str(result))
        return
    with _wide_console() as console:
        console.print(f"target: {result.target}", markup=False)
        console.print(_table(result, all_trials=all_trials))
        if result.front:
            console.print(f"choose: {result.choice.reason}", markup=False)
        console.print(f"run folder: {result.path}", markup=False)
        console.print(f"picture of the front: {result.path / 'front.png'}", markup=False)


def _table(selection: Selection, *, all_trials: bool) -> Any:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=f"{'trials' if all_trials else 'front, fastest first'}; score is {selection.metric.name}")
    columns = ("", "trial", "backbone", "px", "unfrozen", "lr", "score", "test", "ms", "p95", "pictures/s", "MB")
    for column in (*columns, "state") if all_trials else columns:
        table.add_column(column, no_wrap=True, justify="left" if column == "backbone" else "right")
    chosen = selection.best.number if selection.front else None
    for trial in selection.trials if all_trials else selection.front:
        cells = [
            "→" if trial.number == chosen else "",
            str(trial.number),
            escape(trial.backbone),
            f"{trial.image_size[0]}x{trial.image_size[1]}",
            f"{trial.n_unfrozen}/{trial.n_blocks}",
            "" if trial.lr is None else f"{trial.lr:.1e}",
            _cell(trial.score, ".4f"),
            _cell(trial.test_score, ".4f"),
            _cell(trial.latency_ms, ".2f"),
            _cell(trial.latency_p95_ms, ".2f"),
            _cell(trial.images_per_s, ".0f"),
            _cell(trial.megabytes, ".1f"),
        ]
        table.add_row(*cells, *([f"{trial.state}: {escape(trial.reason)}"] if all_trials else []))
    return table


def _print_catalogue(rows: Any, n_all: int) -> None:
    from rich.table import Table

    table = Table(title=f"{len(rows):,} of {n_all:,} networks")
    columns = ("name", "top1", "n_params", "gmacs", "cpu_images_per_s", "gpu_images_per_s", "licence", "loadable")
    for column in columns:
        table.add_column(column, no_wrap=True, justify="left" if column in ("name", "licence", "loadable") else "right")
    for row in rows[list(columns)].itertuples(index=False):
        table.add_row(*("" if value is None or value != value else _plain(value) for value in row))  # noqa: PLR0124  NaN
    with _wide_console() as console:
        console.print(table)


@contextmanager
def _wide_console() -> Iterator[Any]:
    """A console on standard output; wide where it is no terminal, so that nothing is cut off in a file or pipe."""
    from rich.console import Console

    yield Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 200)


def _picture_files(paths: list[Path]) -> Iterator[Path]:
    from PIL import Image

    suffixes = set(Image.registered_extensions())
    for path in paths:
        if path.is_dir():
            yield from sorted(file for file in path.rglob("*") if file.suffix.lower() in suffixes and file.is_file())
        else:
            yield path


def _image_size(text: str) -> int | tuple[int, int]:
    sides = text.lower().split("x")
    if not 1 <= len(sides) <= 2 or not all(side.isdecimal() for side in sides):
        raise typer.BadParameter(f"an image size is pixels, or HEIGHTxWIDTH such as 160x224; {text!r} came.")
    return int(sides[0]) if len(sides) == 1 else (int(sides[0]), int(sides[1]))


def _cell(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _plain(value: Any) -> str:
    return (
        f"{value:,.4g}"
        if isinstance(value, float) and abs(value) < 1e4
        else f"{value:,.0f}"
        if isinstance(value, float)
        else str(value)
    )

"""How much of what a whole grid finds does a search find in a twentieth of the grid's time?

Both sides choose among the same networks at the same image sizes, on the same pictures in the same parts. The grid is
`exhaustive.py`; its cells take 22 minutes on two cores, and are run once and kept. Usage:

    python benchmarks/against_exhaustive.py PICTURES --seeds 0 1 2
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from exhaustive import SEED, Cell, Table, exhaust, places
from matplotlib.figure import Figure
from reporting import Timeline, machine, timeline_table, write_report

from autobackbone import Selection, select_backbone
from autobackbone.backbones.names import resolve_names
from autobackbone.data import PART_CODES, decode, survey
from autobackbone.latency.target import resolve
from autobackbone.pareto import Reference, front_mask, hypervolume
from autobackbone.records import Body, Target, Trial

BACKBONES = ("tf_efficientnet_lite0.in1k", "tf_efficientnet_lite1.in1k", "tf_efficientnet_lite2.in1k")
WANTED = 0.98


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A network as both sides are judged: accuracy on the test part, and the latency that the grid measured."""

    name: str
    test: float
    latency_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What one search found.

    Args:
        front: its confirmed front, fastest first.
        choice: the one that it would use, whose validation score chose it; `None` where that is unconfirmed.
        n_unconfirmed: trials of the front that had no time for the test part.
        n_trials: all of its trials.
        seconds: of the call.
        timeline: what it said, and at which second.
    """

    seed: int
    front: tuple[Point, ...]
    choice: Point | None
    n_unconfirmed: int
    n_trials: int
    seconds: float
    timeline: tuple[tuple[float, str], ...]


def main() -> None:
    """Run what is missing of the grid, then the searches, and write what came out."""
    asked = _arguments()
    n_threads = resolve(Target()).n_threads or 1
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pictures = _parted(asked.pictures, folder / "pictures")
        bundle = decode(survey(pictures), asked.sizes, cache_dir=folder / "data")
        table = Table(asked.grid, machine(n_threads), bundle)
        wanted = places(asked.backbones, asked.sizes, asked.depths, asked.rates)
        cells = exhaust(wanted, table, bundle, resolve(Target()), folder / "activations")
        budget_s = asked.share * sum(cell.seconds for cell in cells)
        searches = [_search(pictures, asked, budget_s, seed, cells) for seed in asked.seeds]
    text = _text(asked, table.machine, cells, searches)
    print(text)
    facts = [{"grid": [asdict(cell) for cell in cells]}, *({"search": asdict(found)} for found in searches)]
    write_report(asked.out, "against_exhaustive", text, facts, _figure(cells, searches))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--backbones", nargs="+", default=list(BACKBONES))
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 96])
    parser.add_argument("--depths", type=int, nargs="+", default=[0, 2, 4], help="unfrozen blocks; 0 is always run")
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-4, 5e-4, 2e-3])
    parser.add_argument("--share", type=float, default=0.05, help="of the grid's seconds, for each search")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--grid", type=Path, default=Path("docs/benchmarks/against_exhaustive_grid.json"))
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    asked = parser.parse_args()
    asked.backbones = resolve_names(asked.backbones)
    return asked


def _parted(pictures: Path, folder: Path) -> Path:
    """The same pictures, linked, with their parts as folders: else a search with another seed would split them anew."""
    found = survey(pictures, seed=SEED)
    part_of: dict[int, str] = {code: part for part, code in PART_CODES.items()}
    rows = zip(found.names, found.labels.tolist(), found.parts.tolist(), strict=True)
    for number, (name, label, code) in enumerate(rows):
        if code in part_of:
            link = folder / part_of[code] / str(found.classes[label]) / f"{number:06d}{Path(name).suffix}"
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(pictures.expanduser().resolve() / name)
    return folder


def _search(pictures: Path, asked: argparse.Namespace, budget_s: float, seed: int, cells: Sequence[Cell]) -> Found:
    """One search that knows nothing of the grid or of another search."""
    with tempfile.TemporaryDirectory() as folder:
        begun, timeline = time.monotonic(), Timeline()
        result = select_backbone(
            pictures,
            budget_s,
            backbones=asked.backbones,
            image_sizes=asked.sizes,
            space={"n_blocks_kept": None},  # the grid has none that is cut
            run_dir=Path(folder) / "run",
            cache_dir=Path(folder) / "cache",
            seed=seed,
            progress=timeline,
        )
        seconds = time.monotonic() - begun
        return _found(result, seed, seconds, timeline, cells)


def _found(result: Selection, seed: int, seconds: float, timeline: Timeline, cells: Sequence[Cell]) -> Found:
    latency_ms = {cell.place.body: cell.latency_ms for cell in cells}
    points = {
        trial.number: Point(name=_name(trial), test=trial.test_score, latency_ms=latency_ms[trial.body])
        for trial in result.front
        if trial.test_score is not None
    }
    return Found(
        seed=seed,
        front=tuple(sorted(points.values(), key=lambda point: (point.latency_ms, -point.test))),
        choice=points.get(result.best.number),
        n_unconfirmed=len(result.front) - len(points),
        n_trials=len(result.trials),
        seconds=round(seconds, 1),
        timeline=tuple(timeline.rows),
    )


def _name(of: Trial | Cell) -> str:
    body = of.body if isinstance(of, Trial) else of.place.body
    rate = "frozen" if of.lr is None else f"{of.n_unfrozen} unfrozen, lr {of.lr:.1e}"
    return f"{_short(body)}, {rate}"


def _short(body: Body) -> str:
    return f"{body.backbone.partition('.')[0]} at {body.image_size[0]} px"


def _points(cells: Sequence[Cell]) -> list[Point]:
    """Of the cells that could be trained."""
    scored = [(cell, cell.test) for cell in cells if cell.test is not None]
    return [Point(name=_name(cell), test=test, latency_ms=cell.latency_ms) for cell, test in scored]


def _reference(cells: Sequence[Cell]) -> Reference:
    """A point of accuracy below the fastest frozen cell, and a tenth above the slowest latency."""
    frozen = min((cell for cell in cells if cell.n_unfrozen == 0), key=lambda cell: cell.latency_ms)
    assert frozen.test is not None
    return Reference(frozen.test - 0.01, 1.1 * max(cell.latency_ms for cell in cells))


def _volume(points: Sequence[Point], reference: Reference) -> float:
    return hypervolume([point.test for point in points], [point.latency_ms for point in points], reference)


def _front(points: Sequence[Point]) -> list[Point]:
    """What no other beats, fastest first."""
    mask = front_mask([point.test for point in points], [point.latency_ms for point in points])
    return sorted((points[row] for row in np.flatnonzero(mask).tolist()), key=lambda point: point.latency_ms)


def _chosen(cells: Sequence[Cell]) -> list[Point]:
    """What the grid's validation scores put on the front, as one who may not look at the test part takes it."""
    validation = [math.nan if cell.validation is None else cell.validation for cell in cells]
    mask = front_mask(validation, [cell.latency_ms for cell in cells])
    return _points([cells[row] for row in np.flatnonzero(mask).tolist()])


def _text(asked: argparse.Namespace, grid_machine: str, cells: Sequence[Cell], searches: Sequence[Found]) -> str:
    reference = _reference(cells)
    of_grid = _volume(_points(cells), reference)
    shares = [_volume(found.front, reference) / of_grid for found in searches]
    of_chosen = _volume(_chosen(cells), reference) / of_grid
    total_s = sum(cell.seconds for cell in cells)
    paragraphs = (
        f"Pictures: {asked.pictures.resolve().name}. {grid_machine} Searches: {datetime.now(tz=UTC):%Y-%m-%d}.",
        f"Share of the grid's hypervolume on the test part, found in {asked.share:.1%} of its seconds "
        f"({asked.share * total_s:.0f} of {total_s:.0f}): **{statistics.median(shares):.3f}**, the median of "
        f"{len(shares)} searches; wanted at least {WANTED}. Reference: {reference.score:.3f}, a point below the "
        f"fastest frozen cell, and {reference.latency_ms:.2f} ms, 1.1 times the slowest latency.",
        _searches_table(searches, shares),
        "The grid's hypervolume is that of all its cells, the best on the test part among them; what its own "
        f"validation scores put on the front has {of_chosen:.3f} of it. A search is judged by the front that its "
        "validation scores made.",
        *_CONDITIONS,
        f"What the search with seed {searches[0].seed} did, by the second at which it was done:",
        timeline_table(searches[0].timeline),
        "The grid:",
        _cells_table(cells),
    )
    return "\n\n".join(paragraphs) + "\n"


_CONDITIONS = (
    "Both sides have the same split, and whole networks only: the search cuts none. It is free in depth and rate. "
    "Latencies are the grid's, one for each backbone and size, also of what the search found. Its seconds are all that "
    "the call takes, reading pictures, measuring latencies and the test part included; the grid's are those of its "
    "cells, one after another, and none of these.",
    "A frozen cell is one pass and a convex head, which has no rate: it serves all rates, counted once. The others "
    "start from that head and train all epochs of the library's own recipe. Their seconds have the storing of "
    "activations in the first cell of each pair and depth alone: the other rates share that store, so that the grid is "
    "cheaper here than a script that runs each cell from pictures, and a share of its seconds is shorter.",
)


def _searches_table(searches: Sequence[Found], shares: Sequence[float]) -> str:
    rows = [
        f"| {found.seed} | {share:.3f} | {max((point.test for point in found.front), default=math.nan):.3f} | "
        f"{len(found.front)}{f', {found.n_unconfirmed} unconfirmed' if found.n_unconfirmed else ''} | "
        f"{found.n_trials} | {found.seconds:.0f} | {'; '.join(f'{p.name}: {p.test:.3f}' for p in found.front)} |"
        for found, share in zip(searches, shares, strict=True)
    ]
    head = "| seed | share | best test accuracy | on the front | trials | seconds | front, test accuracy |"
    return "\n".join((head, "|---" * 7 + "|", *rows))


def _cells_table(cells: Sequence[Cell]) -> str:
    rows = [
        f"| {_short(cell.place.body)} | {cell.n_unfrozen} | {'any' if cell.lr is None else f'{cell.lr:g}'} | "
        f"{_shown(cell.validation)} | {_shown(cell.test)} | {cell.latency_ms:.2f} | {cell.seconds:.0f} | "
        f"{cell.reason} |"
        for cell in cells
    ]
    head = "| network | unfrozen | lr | validation | test | ms | seconds | |"
    return "\n".join((head, "|---" * 8 + "|", *rows))


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _figure(cells: Sequence[Cell], searches: Sequence[Found]) -> Figure:
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    for depth in sorted({cell.n_unfrozen for cell in cells}):
        points = _points([cell for cell in cells if cell.n_unfrozen == depth])
        label = f"grid, {depth} unfrozen" if depth else "grid, frozen"
        axes.scatter([p.latency_ms for p in points], [p.test for p in points], s=18, alpha=0.6, label=label)
    front = _front(_points(cells))
    axes.step([p.latency_ms for p in front], [p.test for p in front], "k-", where="post", label="front of the grid")
    for found in searches:
        points = list(found.front)
        axes.plot(
            [p.latency_ms for p in points], [p.test for p in points], "x:", label=f"front of search, seed {found.seed}"
        )
    axes.set(xlabel="latency, ms a picture, as the grid measured it", ylabel="test accuracy")
    axes.legend(fontsize="small")
    return figure


if __name__ == "__main__":
    main()

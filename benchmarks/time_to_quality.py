"""How long until a front is as good as what a practitioner's script has after fifteen minutes?

Both sides run in one process after another on the same machine, the same pictures, the same split and the same three
networks. The baseline is `practitioner.py`. Usage:

    python benchmarks/time_to_quality.py PICTURES --seconds-baseline 900 --seconds 300 --seeds 0 1 2
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from practitioner import Epoch, practise
from reporting import machine, write_report

from autobackbone import Selection, select_backbone
from autobackbone.backbones.weights import find_weights, load_state_dict
from autobackbone.data import PART_CODES, Survey, survey
from autobackbone.pareto import hypervolume

BACKBONES = ("tf_efficientnet_lite0.in1k", "tf_efficientnet_lite1.in1k", "tf_efficientnet_lite2.in1k")
MARKS_S = (10, 15, 20, 30, 45, 60, 90, 120, 180, 300, 600, 900)


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """Something usable that one side had at a second of its clock."""

    seconds: float
    score: float
    latency_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One run of one side."""

    name: str
    points: tuple[Point, ...]
    test_score: float

    def best_by(self, seconds: float) -> float:
        """Best validation score that it had by then; NaN before the first."""
        return max((p.score for p in self.points if p.seconds <= seconds), default=float("nan"))

    def reached(self, score: float) -> float:
        """The second at which it first had a score; infinite if it never had."""
        return min((p.seconds for p in self.points if p.score >= score), default=float("inf"))

    def volume_by(self, seconds: float, reference: tuple[float, float]) -> float:
        """Hypervolume of what it had by then."""
        points = [p for p in self.points if p.seconds <= seconds]
        return hypervolume([p.score for p in points], [p.latency_ms for p in points], reference) if points else 0.0


def main() -> None:
    """Run both sides and write what came out."""
    asked = _arguments()
    torch.set_num_threads(asked.threads)
    found = survey(asked.pictures)
    ours = _ours(asked)
    baselines = [_baseline(found, asked, seed) for seed in asked.seeds]
    text = _text(asked, ours, baselines)
    print(text)
    facts = [
        {"name": s.name, "test_score": s.test_score, "points": [_plain(p) for p in s.points]}
        for s in (ours, *baselines)
    ]
    write_report(asked.out, f"time_to_quality_{asked.pictures.name}", text, facts, _figure([ours, *baselines]))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--seconds-baseline", type=float, default=900)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    return parser.parse_args()


def _ours(asked: argparse.Namespace) -> Side:
    with tempfile.TemporaryDirectory() as folder:
        result = select_backbone(
            asked.pictures,
            asked.seconds,
            backbones=BACKBONES,
            run_dir=Path(folder) / "run",
            cache_dir=Path(folder) / "cache",
        )
        return Side(name="autobackbone", points=_points(result), test_score=result.best.test_score or float("nan"))


def _points(result: Selection) -> tuple[Point, ...]:
    """Whatever could be used at a second: a frozen network, or one that pauses with its weights kept."""
    points = []
    for trial in result.trials:
        ends = [trial.finished_at_s or 0.0] if trial.state == "finished" and not trial.rung_scores else []
        seconds = (*ends, *trial.rung_at_s)
        scores = itertools.accumulate(trial.rung_scores or (trial.score or 0.0,), max)
        pairs = zip(seconds, scores, strict=False)  # one that failed has no seconds
        points += [Point(seconds=s, score=v, latency_ms=trial.latency_ms or 0.0) for s, v in pairs]
    return tuple(points)


def _baseline(found: Survey, asked: argparse.Namespace, seed: int) -> Side:
    files: dict[str, list[tuple[str, int]]] = {
        part: [(found.names[i], int(found.labels[i])) for i in np.flatnonzero(found.parts == code).tolist()]
        for part, code in PART_CODES.items()
    }
    weights = {name: load_state_dict(name, find_weights(name)) for name in BACKBONES}
    begun = time.monotonic()
    epochs, test_score = practise(
        asked.pictures, files, weights, len(found.classes), seconds=asked.seconds_baseline, seed=seed
    )
    print(f"baseline, seed {seed}: {len(epochs)} epochs in {time.monotonic() - begun:.0f} s", flush=True)
    return Side(name=f"practitioner, seed {seed}", points=tuple(map(_point, epochs)), test_score=test_score)


def _point(epoch: Epoch) -> Point:
    return Point(seconds=epoch.seconds, score=epoch.score, latency_ms=epoch.latency_ms)


def _text(asked: argparse.Namespace, ours: Side, baselines: Sequence[Side]) -> str:
    sides = [ours, *baselines]
    reference = (
        min(p.score for s in sides for p in s.points) - 0.01,
        1.1 * max(p.latency_ms for s in sides for p in s.points),
    )
    rows = [
        f"| {mark} | " + " | ".join(f"{s.best_by(mark):.3f} / {s.volume_by(mark, reference):.2f}" for s in sides) + " |"
        for mark in MARKS_S
        if mark <= asked.seconds_baseline
    ]
    ratios, fair_ratios = _ratios(asked.seconds_baseline, ours, baselines)
    at_s = [ours.reached(side.best_by(asked.seconds_baseline)) for side in baselines]
    head = (
        f"Pictures: {asked.pictures.name}. {machine(asked.threads)} Best validation accuracy / hypervolume "
        f"(reference {reference[0]:.3f}, {reference[1]:.1f} ms) by second of each side's clock:"
    )
    ends = (
        f"Seconds until autobackbone had the baseline's final score: {_list(at_s)}.",
        f"Ratio of the baseline's whole time to that: **{statistics.median(ratios):.1f}** (each {_list(ratios)}).",
        f"From when the baseline first had it: **{statistics.median(fair_ratios):.1f}** (each {_list(fair_ratios)}).",
    )
    table = (
        "| s | " + " | ".join(s.name for s in sides) + " |",
        "|---" * (len(sides) + 1) + "|",
        *rows,
        "| test accuracy of the choice | " + " | ".join(f"{s.test_score:.3f}" for s in sides) + " |",
    )
    return "\n".join((head, "", *table, "", *ends, ""))


def _list(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.1f}" for value in values)


def _ratios(seconds: float, ours: Side, baselines: Sequence[Side]) -> tuple[list[float], list[float]]:
    finals = [side.best_by(seconds) for side in baselines]
    at_s = [ours.reached(final) for final in finals]
    whole = [seconds / s for s in at_s]
    first = [side.reached(final) / s for side, final, s in zip(baselines, finals, at_s, strict=True)]
    return whole, first


def _plain(point: Point) -> list[float]:
    return [round(value, 4) for value in (point.seconds, point.score, point.latency_ms)]


def _figure(sides: Sequence[Side]) -> Figure:
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for side in sides:
        seconds = sorted(p.seconds for p in side.points)
        axes.step(seconds, [side.best_by(s) for s in seconds], where="post", label=side.name)
    axes.set(xscale="log", xlabel="seconds since the call", ylabel="best validation accuracy")
    axes.legend()
    return figure


if __name__ == "__main__":
    main()

"""What stopping at rungs costs and saves, on learning curves of three kinds whose every end is known.

python benchmarks/stopping.py
"""

from __future__ import annotations

import argparse
import math
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from optuna.samplers import RandomSampler
from reporting import write_report

from autobackbone.pareto import front_mask, hypervolume
from autobackbone.records import Candidate, Trial
from autobackbone.search.climb import climb
from autobackbone.search.legs import candidate_of
from autobackbone.search.space import Space
from autobackbone.search.steps import Search
from autobackbone.search.study import add_screened, open_study, read_trials
from autobackbone.testing import TableEvaluator

LATENCY_MS = {"fast": 2.0, "middle": 5.0, "slow": 9.0, "slowest": 14.0}
SIZE = (160, 160)
FROZEN = {"fast": 0.70, "middle": 0.72, "slow": 0.74, "slowest": 0.75}
N_BLOCKS = dict.fromkeys(LATENCY_MS, 8)
N_EPOCHS = 10
# Of a score on 400 validation pictures against the next epoch's: they are the same pictures.
NOISE = 0.004

Curves = Callable[[Candidate], NDArray[np.float64]]


def main() -> None:
    """Run each kind of curve with several seeds, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--trials", type=int, nargs="+", default=[12, 60])
    asked = parser.parse_args()
    facts = [
        {"kind": kind, "n_trials": n, **_summary([_one(make(seed), n, seed) for seed in range(asked.seeds)])}
        for kind, make in KINDS.items()
        for n in asked.trials
    ]
    text = "\n".join(
        (
            f"Random candidates on {len(LATENCY_MS)} synthetic backbones, {N_EPOCHS} epochs, noise of {NOISE} in each "
            f"score; means over {asked.seeds} seeds. *Lost* is the share of the trials that would have stood on the "
            "front, had all been trained to their end, which were stopped; *hypervolume* is what the front of those "
            "that ended has of the front of all; *saved* is the share of epochs that were not trained; *without* is "
            "the hypervolume of as many first candidates as these epochs train to their end.",
            "",
            "Curves: *parallel* ones keep their distances, *saturating* ones reach their end at speeds that differ ten "
            "times, *crossing* ones begin the lower the better they end.",
            "",
            "| curves | trials | lost | hypervolume | saved | without |",
            "|---|---|---|---|---|---|",
            *(
                f"| {row['kind']} | {row['n_trials']} | {row['lost']:.0%} | {row['hypervolume']:.3f} (least "
                f"{row['least']:.3f}) | {row['saved']:.0%} | {row['without']:.3f} |"
                for row in facts
            ),
            "",
        )
    )
    print(text)
    write_report(asked.out, "stopping", text, facts, _figure())


def parallel(seed: int) -> Curves:
    """All rise alike."""
    return lambda one: _end(one, seed) - 0.15 * np.exp(-_EPOCHS / 2.5) + _noise(one, seed)


def saturating(seed: int) -> Curves:
    """Some have reached their end after one epoch, others rise to the last."""

    def curve(one: Candidate) -> NDArray[np.float64]:
        pace = 0.5 * 10 ** _rng(one, seed, "pace").random()
        return _end(one, seed) - 0.15 * np.exp(-_EPOCHS / pace) + _noise(one, seed)

    return curve


def crossing(seed: int) -> Curves:
    """What ends best begins worst."""

    def curve(one: Candidate) -> NDArray[np.float64]:
        end = _end(one, seed)
        depth = 2.5 * max(0.0, end - min(FROZEN.values())) + 0.05
        return end - depth * np.exp(-_EPOCHS / 2.5) + _noise(one, seed)

    return curve


KINDS: dict[str, Callable[[int], Curves]] = {"parallel": parallel, "saturating": saturating, "crossing": crossing}
_EPOCHS = np.arange(1, N_EPOCHS + 1)


def _end(one: Candidate, seed: int) -> float:
    """Best at a rate of its own for each backbone; deeper is better up to a point; luck does the rest."""
    assert one.lr is not None
    off = abs(math.log10(one.lr / 5e-4))
    depth = -abs(one.n_unfrozen - 4) / 8
    return FROZEN[one.backbone] + 0.12 - 0.10 * off + 0.05 * depth + 0.01 * _rng(one, seed, "luck").standard_normal()


def _noise(one: Candidate, seed: int) -> NDArray[np.float64]:
    return NOISE * _rng(one, seed, "noise").standard_normal(N_EPOCHS)


def _rng(one: Candidate, seed: int, what: str) -> np.random.Generator:
    """Each candidate has its own luck, whenever it is asked."""
    return np.random.default_rng([seed, zlib.crc32(f"{what} {one.backbone} {one.n_unfrozen} {one.lr}".encode())])


def _one(curves: Curves, n_trials: int, seed: int) -> dict[str, float]:
    table = TableEvaluator(
        latency_ms=LATENCY_MS,
        n_blocks=N_BLOCKS,
        score=lambda one: float(curves(one).max()),
        curve=lambda one: curves(one).tolist(),
    )
    space = Space(image_sizes=dict.fromkeys(LATENCY_MS, (SIZE,)), n_blocks=N_BLOCKS)
    with tempfile.TemporaryDirectory() as folder:
        study = open_study(
            Path(folder) / "study.db",
            is_higher_better=True,
            metric_name="accuracy",
            seed=seed,
            sampler=RandomSampler(seed=seed),
        )
        for name, score in FROZEN.items():
            frozen = Candidate(backbone=name, image_size=SIZE, n_unfrozen=0)
            add_screened(study, space, replace(table.begin(frozen), state="finished", score=score))
        search = Search(
            study=study,
            space=space,
            evaluator=table,
            left_s=lambda: math.inf,
            now_s=lambda: 0.0,
            is_higher_better=True,
            n_trials=n_trials,
        )
        climb(search)
        trials = read_trials(study)
    return _judged(trials, curves)


def _judged(trials: list[Trial], curves: Curves) -> dict[str, float]:
    tuned = [trial for trial in trials if trial.n_unfrozen]
    ends = np.array([curves(candidate_of(t)).max() if t.n_unfrozen else t.score for t in trials], dtype=float)
    latencies = np.array([trial.latency_ms for trial in trials], dtype=float)
    has_ended = np.array([trial.state == "finished" for trial in trials])
    is_on = front_mask(ends, latencies) & np.array([trial.n_unfrozen > 0 for trial in trials])
    corner = (min(FROZEN.values()) - 0.01, 1.1 * max(LATENCY_MS.values()))
    whole = hypervolume(ends, latencies, corner)
    n_epochs = sum(trial.n_epochs for trial in tuned)
    n_whole = len(FROZEN) + round(n_epochs / N_EPOCHS)
    return {
        "lost": float((is_on & ~has_ended).sum() / max(1, is_on.sum())),
        "hypervolume": hypervolume(ends[has_ended], latencies[has_ended], corner) / whole,
        "saved": 1 - n_epochs / (N_EPOCHS * len(tuned)),
        "without": hypervolume(ends[:n_whole], latencies[:n_whole], corner) / whole,
    }


def _summary(runs: list[dict[str, float]]) -> dict[str, float]:
    means = {name: float(np.mean([run[name] for run in runs])) for name in runs[0]}
    return {**means, "least": min(run["hypervolume"] for run in runs)}


def _figure() -> Figure:
    figure, axes = plt.subplots(1, len(KINDS), figsize=(10, 3), sharey=True, layout="constrained")
    generator = np.random.default_rng(0)
    some: list[Any] = [
        Candidate(backbone="fast", image_size=SIZE, n_unfrozen=int(depth), lr=float(10**rate))
        for depth, rate in zip(generator.integers(1, 9, 8), generator.uniform(-4.5, -2.5, 8), strict=True)
    ]
    for axis, (kind, make) in zip(axes, KINDS.items(), strict=True):
        for one in some:
            axis.plot(_EPOCHS, make(0)(one), linewidth=1)
        axis.set(title=kind, xlabel="epoch")
    axes[0].set_ylabel("score")
    return figure


if __name__ == "__main__":
    main()

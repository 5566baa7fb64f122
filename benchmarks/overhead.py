"""What the library itself costs: importing it, asking and telling, finding a front.

python benchmarks/overhead.py
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import optuna
from reporting import machine, write_report

from autobackbone.pareto import front_mask
from autobackbone.search.space import Space
from autobackbone.search.study import open_study

N_ASKS = 5
COUNTS = (1, 100, 1000, 10_000)


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    parser.add_argument("--most", type=int, default=10_000)
    asked = parser.parse_args()
    rows = [_import_row(), *(_ask_row(n) for n in COUNTS if n <= asked.most), _front_row()]
    text = "\n".join((machine(1), "", "| what | took | wanted |", "|---|---|---|", *rows, ""))
    print(text)
    write_report(asked.out, "overhead", text, rows)


def _import_row() -> str:
    code = "import time; t = time.perf_counter(); import autobackbone; print(time.perf_counter() - t)"
    seconds = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout)
        for _ in range(3)
    ]
    return f"| `import autobackbone` | {min(seconds):.2f} s | under 0.5 s |"


def _ask_row(n_trials: int) -> str:
    """Ask and tell in a study on disk that holds so many trials already."""
    space = Space(
        image_sizes={f"net{i}": ((96, 96), (160, 160)) for i in range(12)}, n_blocks={f"net{i}": 8 for i in range(12)}
    )
    with tempfile.TemporaryDirectory() as folder:
        study = open_study(Path(folder) / "study.db", is_higher_better=True, metric_name="accuracy", seed=0)
        study.add_trials(_past(space, n_trials))
        taken = []
        for _ in range(N_ASKS):
            begun = time.perf_counter()
            trial = study.ask(space.distributions())
            study.tell(trial, values=[0.5, 10.0])
            taken.append(time.perf_counter() - begun)
    wanted = "under 50 ms" if n_trials == 1000 else ""
    return f"| ask and tell at {n_trials:,} trials | {1000 * float(np.median(taken)):.0f} ms | {wanted} |"


def _past(space: Space, n_trials: int) -> list[optuna.trial.FrozenTrial]:
    memory = optuna.create_study(directions=["maximize", "minimize"], sampler=optuna.samplers.RandomSampler(seed=0))
    for number in range(n_trials):
        memory.tell(memory.ask(space.distributions()), values=[number % 97 / 97, float(number % 89)])
    return memory.trials


def _front_row() -> str:
    rng = np.random.default_rng(0)
    scores, latencies = rng.random(100_000), rng.random(100_000)
    begun = time.perf_counter()
    front_mask(scores, latencies)
    return f"| front of 100,000 points | {1000 * (time.perf_counter() - begun):.0f} ms | |"


if __name__ == "__main__":
    main()

"""Which rule should choose from a front: what does each lose of the score, and how much time does it save?

Held-out predictions of many frozen networks stand for all pictures that there are, and latencies are measured side by
side; validation parts are drawn again and again, and each rule chooses from the front that a draw makes. Beside it,
from the last run of `against_exhaustive`: what searches chose, against what the grid's own validation scores choose.
Usage:

    python benchmarks/regret.py FOLDER labels.csv:area --kept FOLDER
"""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from heldout import BACKBONES, SEED, Drawn, Option, Pool, arguments, pools
from numpy.typing import NDArray
from reporting import machine, write_report

from autobackbone.backbones.source import BackboneSource
from autobackbone.backbones.weights import find_weights
from autobackbone.choosing import choose, compared_to_top, front_of, tolerated_loss, top_of
from autobackbone.latency.measure import measure_together
from autobackbone.latency.target import resolve
from autobackbone.metrics import Metric, metric_for, score, standard_error, to_maximised
from autobackbone.records import Body, Limits, Target, Task, Trial

METRICS: dict[Task, tuple[str, ...]] = {
    "classification": ("accuracy", "log_loss"),
    "regression": ("r2",),
    "multilabel": ("map",),
}
WANTED_LOSS, WANTED_LATENCY = 0.5, 1.05
OPENING = """
Each picture of a set is predicted by heads that have not seen it (three folds), on the {n} frozen networks that three
backbones, two image sizes, and cutting up to three blocks make. These predictions stand for all pictures that there
are: a candidate's score on all of them is the truth. In each of {draws:,} draws, n validation pictures are drawn with
replacement, the front of their scores against latency is made, and every rule chooses from it.

- **top scorer**: the best validation score, the faster of equals (argmax).
- **unpaired**: the fastest whose score is within one standard error of the top scorer's own (Breiman et al. 1984).
- **tolerance**: the fastest within the tolerance of the top scorer, whatever the noise.
- **paired**: the fastest whose loss to the top scorer, picture by picture, is within one standard error of that loss.
- **paired and tolerance**: the fastest within both: what `select_backbone` does.

**Lost**: by how much the truth of what is chosen is below that of the best of all {n}, the mean, in hundredths of a
score and in per cent of the best truth for a loss; in brackets the ninth decile. **Time**: latency of what is chosen
over that of what the top scorer's rule chooses in the same draw, the geometric mean.
"""
AGAINST = """
**The search against the grid's own choice.** From the last run of `against_exhaustive` (signdigits10): the grid's
cells make a front by their validation scores, and the library's rule chooses from it, picture by picture; each search
chooses from its own, in a twentieth of the grid's seconds. Positive losses are the search's. Latencies are the grid's.
Wanted: a mean loss of at most {loss} points on the test part, and at most {latency} times the latency.
"""
# A loss that equals what is accepted is accepted, whatever the last digit.
_ROUNDING = 1 + 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Row(Drawn):
    """What came of one rule; the seconds are those of all rules.

    Args:
        rule: its name.
        lost: of the truth, the mean; hundredths, or per cent of the best truth for a loss.
        lost_often: the ninth decile.
        lost_error: the standard error of `lost`.
        time: latency over the top scorer's, the geometric mean.
        n_front: candidates on the front, the mean.
    """

    rule: str
    lost: float
    lost_often: float
    lost_error: float
    time: float
    n_front: float


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--pictures", type=int, nargs="+", default=[100, 200, 500], help="of a draw")
    parser.add_argument("--grid", type=Path, default=Path("docs/benchmarks/against_exhaustive.json"))
    asked = parser.parse_args()
    rows: list[Row] = []
    latencies: dict[Body, float] = {}
    for pool in pools(asked.sets, asked.sizes, asked.kept):
        latencies = latencies or _latencies(pool.options)
        for name in METRICS[pool.task]:
            metric = metric_for(name, pool.task, n_outputs=pool.n_outputs)
            for n in pool.drawable(asked.pictures):
                found = _rows(pool, latencies, metric, n, asked.draws)
                rows += found
                print(*found, sep="\n", flush=True)
    text = _text(rows, latencies, _against(json.loads(asked.grid.read_text(encoding="utf-8"))))
    print(text)
    facts = [{"latency_ms": {str(body): ms for body, ms in latencies.items()}}, *(asdict(row) for row in rows)]
    write_report(asked.out, "regret", text, facts)


def _latencies(options: Sequence[Option]) -> dict[Body, float]:
    """Milliseconds of each network, all of them in turns."""
    source = BackboneSource({name: find_weights(name) for name in BACKBONES}, n_classes=10, seed=SEED)
    networks = [(source.network(*option.body), option.body.image_size) for option in options]
    found = measure_together(networks, resolve(Target()), seconds=1.0)
    return {option.body: latency.p50_ms for option, latency in zip(options, found, strict=True)}


def _rows(pool: Pool, latencies: Mapping[Body, float], metric: Metric, n: int, n_draws: int) -> list[Row]:
    begun = time.monotonic()
    truths, rng = pool.truths(metric), np.random.default_rng(n)
    best = max(truths, key=lambda truth: to_maximised(metric, truth))
    scale = 100.0 if metric.unit == "points" else 100 / abs(best)
    chosen: dict[str, list[Trial]] = {rule: [] for rule in RULES}
    sizes: list[int] = []
    for _ in range(n_draws):
        rows = rng.integers(0, len(pool.labels), n)
        labels, said = pool.labels[rows], {k: option.predictions[rows] for k, option in enumerate(pool.options)}
        front = front_of(_trials(pool.options, said, labels, latencies, metric), metric, Limits())
        draw = Draw(front=front, said=said, labels=labels, metric=metric)
        sizes.append(len(front))
        for name, rule in RULES.items():
            chosen[name].append(rule(draw))
    seconds = round(time.monotonic() - begun, 1)
    top_ms = np.array([trial.latency_ms for trial in chosen["top scorer"]], dtype=np.float64)
    found = []
    for name, trials in chosen.items():
        lost = scale * np.array([to_maximised(metric, best - truths[trial.number]) for trial in trials])
        own_ms = np.array([trial.latency_ms for trial in trials], dtype=np.float64)
        found.append(
            Row(
                name=pool.name,
                n_pool=len(pool.labels),
                metric=metric.name,
                truth=float(best),
                n=n,
                n_draws=n_draws,
                rule=name,
                lost=float(lost.mean()),
                lost_often=float(np.quantile(lost, 0.9)),
                lost_error=float(lost.std(ddof=1) / math.sqrt(n_draws)),
                time=float(np.exp(np.log(own_ms / top_ms).mean())),
                n_front=statistics.mean(sizes),
                seconds=seconds,
            )
        )
    return found


def _trials(
    options: Sequence[Option],
    said: Mapping[int, NDArray[Any]],
    labels: NDArray[Any],
    latencies: Mapping[Body, float],
    metric: Metric,
) -> list[Trial]:
    """As a search would have them; those whose score is not defined on these pictures take no part."""
    scores = [score(metric, said[k], labels) for k in range(len(options))]
    return [
        Trial(
            number=k,
            state="finished",
            reason="",
            backbone=option.body.backbone,
            image_size=option.body.image_size,
            n_blocks_kept=option.body.n_blocks_kept,
            n_unfrozen=0,
            n_blocks=option.body.n_blocks_kept or 0,
            lr=None,
            score=value,
            latency_ms=latencies[option.body],
        )
        for k, (option, value) in enumerate(zip(options, scores, strict=True))
        if math.isfinite(value)
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """A front, and what each of its trials says of the pictures that made it.

    Args:
        front: finished trials.
        said: predictions of each, by its number.
        labels: of the same pictures.
        metric: of the scores.
    """

    front: Sequence[Trial]
    said: Mapping[int, NDArray[Any]]
    labels: NDArray[Any]
    metric: Metric

    def top_scorer(self) -> Trial:
        return top_of(self.front, self.metric)

    def unpaired(self) -> Trial:
        return self._fastest_within(standard_error(self.metric, self.said[self.top_scorer().number], self.labels))

    def tolerant(self) -> Trial:
        return self._fastest_within(tolerated_loss(self.metric, _score(self.top_scorer()), None))

    def paired(self) -> Trial:
        top, pairs = compared_to_top(self.front, self._predictions, self.labels, self.metric)
        rows = zip(self.front, pairs, strict=True)
        return min((trial for trial, (loss, error) in rows if loss <= error or trial is top), key=_latency)

    def ours(self) -> Trial:
        return choose(self.front, self._predictions, self.labels, self.metric, tolerance=None).trial

    def _predictions(self, trial: Trial) -> NDArray[Any]:
        return self.said[trial.number]

    def _fastest_within(self, most: float) -> Trial:
        top = _score(self.top_scorer())
        losses = [to_maximised(self.metric, top - _score(trial)) for trial in self.front]
        rows = zip(self.front, losses, strict=True)
        return min((trial for trial, loss in rows if loss <= most * _ROUNDING), key=_latency)


RULES: Mapping[str, Callable[[Draw], Trial]] = {
    "top scorer": Draw.top_scorer,
    "unpaired": Draw.unpaired,
    "tolerance": Draw.tolerant,
    "paired": Draw.paired,
    "paired and tolerance": Draw.ours,
}


def _score(trial: Trial) -> float:
    assert trial.score is not None
    return trial.score


def _latency(trial: Trial) -> float:
    assert trial.latency_ms is not None
    return trial.latency_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Against:
    """What the grid's validation scores choose, and what each search chose.

    Args:
        grid: name, test accuracy and latency in ms.
        searches: the same of each.
    """

    grid: tuple[str, float, float]
    searches: tuple[tuple[str, float, float], ...]


def _against(facts: Sequence[Mapping[str, Any]]) -> Against:
    metric = metric_for("accuracy", n_outputs=2)
    cells = {k: cell for k, cell in enumerate(facts[0]["grid"]) if cell["hits"]}
    # Named rightly is all that accuracy asks of a picture: two classes say it.
    said = {k: np.array([[hit == "1", hit == "0"] for hit in cell["hits"]], float) for k, cell in cells.items()}
    labels = np.zeros(len(next(iter(said.values()))), dtype=np.int64)
    trials = [
        Trial(
            number=k,
            state="finished",
            reason="",
            backbone=cell["backbone"],
            image_size=(cell["side"], cell["side"]),
            n_unfrozen=cell["n_unfrozen"],
            n_blocks=0,
            lr=cell["lr"],
            score=cell["validation"],
            latency_ms=cell["latency_ms"],
        )
        for k, cell in cells.items()
    ]
    chosen = Draw(front=front_of(trials, metric, Limits()), said=said, labels=labels, metric=metric).ours()
    searches = [fact["search"]["choice"] for fact in facts[1:]]
    return Against(
        grid=(_name(chosen), cells[chosen.number]["test"], _latency(chosen)),
        searches=tuple((found["name"], found["test"], found["latency_ms"]) for found in searches if found),
    )


def _name(trial: Trial) -> str:
    rate = "frozen" if trial.lr is None else f"{trial.n_unfrozen} unfrozen, lr {trial.lr:.1e}"
    return f"{trial.backbone.partition('.')[0]} at {trial.image_size[0]} px, {rate}"


def _text(rows: Sequence[Row], latencies: Mapping[Body, float], against: Against) -> str:
    n_threads = resolve(Target()).n_threads or 1
    opening = OPENING.format(n=len(latencies), draws=max(row.n_draws for row in rows))
    return "\n".join(
        (
            machine(n_threads),
            opening,
            _table(rows),
            AGAINST.format(loss=WANTED_LOSS, latency=WANTED_LATENCY),
            _against_table(against),
            "",
        )
    )


def _table(rows: Sequence[Row]) -> str:
    """A line for each set, metric and number of pictures, a column for each rule."""
    lines = [f"| set | metric | truth | n | {' | '.join(RULES)} |", "|---" * (4 + len(RULES)) + "|"]
    cells = {(row.name, row.metric, row.n, row.rule): row for row in rows}
    for row in {(row.name, row.metric, row.n): row for row in rows}.values():
        of_rules = [cells[row.name, row.metric, row.n, rule] for rule in RULES]
        said = " | ".join(f"{one.lost:.2f} ({one.lost_often:.1f}), × {one.time:.2f}" for one in of_rules)
        lines.append(f"| {row.name}, {row.n_pool:,} | {row.metric} | {row.truth:.3g} | {row.n} | {said} |")
    return "\n".join(lines)


def _against_table(against: Against) -> str:
    _, of_grid, grid_ms = against.grid
    lines = ["| | chosen | test accuracy | ms | points lost | latency |", "|---" * 6 + "|"]
    lines.append(f"| grid | {against.grid[0]} | {of_grid:.3f} | {grid_ms:.2f} | | |")
    lines += [
        f"| search {k} | {name} | {test:.3f} | {ms:.2f} | {100 * (of_grid - test):+.1f} | × {ms / grid_ms:.2f} |"
        for k, (name, test, ms) in enumerate(against.searches)
    ]
    if against.searches:
        lost = statistics.mean(100 * (of_grid - test) for _, test, _ in against.searches)
        slower = statistics.geometric_mean(ms / grid_ms for *_, ms in against.searches)
        lines.append(f"| mean | | | | **{lost:+.2f}** | **× {slower:.2f}** |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

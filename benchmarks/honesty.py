"""Do the intervals hold what they say, and what does confirming take away?

Held-out predictions of several frozen networks stand for all pictures that there are; validation and test parts are
drawn from them again and again, so that the truth is known. Usage:

    python benchmarks/honesty.py FOLDER labels.csv:area --kept FOLDER
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import numpy as np
from heldout import Drawn, Pool, arguments, pools
from numpy.typing import NDArray
from reporting import write_report

import autobackbone.metrics
from autobackbone.metrics import Metric, interval, metric_for, score, standard_error, to_maximised
from autobackbone.records import Task

METRICS: dict[Task, tuple[str, ...]] = {
    "classification": ("accuracy", "balanced_accuracy", "f1_macro", "log_loss", "auroc"),
    "regression": ("r2", "mae", "rmse"),
    "multilabel": ("map", "f1_micro", "f1_macro", "auroc", "log_loss", "accuracy"),
}
N_CANDIDATES = 12
WANTED = 0.93
OPENING = """
Each picture of a set is predicted by heads that have not seen it (three folds), on frozen networks, whole or cut, at
two image sizes; the {n} candidates with the best scores take part. These predictions stand for all pictures that there
are: a candidate's score on all of them is the truth. From them n validation pictures and n test pictures are drawn,
each with replacement and each draw for itself, which is what drawing from endlessly many such pictures is; so no rest
has to be large, and the truth does not move from draw to draw. Draws do not look at classes, so that a rare class may
be absent from one. The candidate with the best validation score is chosen. n is at most two thirds of the set.
"""
HELD = """
**Do intervals hold?** In how many of the draws the interval of 95 % on the test pictures of the chosen candidate held
its truth; wanted at least {wanted}, and what is less is printed bold. In brackets: truths below and above the interval.
With 1,000 draws a figure of 0.95 is known to 0.014.
"""
OPTIMISM = """
**What does confirming take away?** How much better than the truth the chosen candidate's score is, the mean: on the
validation pictures that chose it, then on the test pictures; positive where a score flatters, whatever the metric's
orientation, in hundredths, or in per cent of the truth where a loss has a unit. Where a score is no mean over
pictures, a finite number of them moves it also without any choice: `map` upwards, `f1_macro` downwards.
"""
RARE = """
**What a draw cannot know.** Where numbers are predicted, one wild answer can make up much of a score, and the candidate
whose wildest picture is absent from the validation part looks best there. Below, of the candidate that was chosen most
often: which share of all its squared errors one picture carries, in how many draws of n that picture is absent, and the
truth of the same set without it. In those draws both sets look the same; an interval that holds either truth there has
to be wider by the gap.
"""
ERRORS = """
**Are standard errors right?** The mean of `standard_error` on the test pictures, over the spread of what really came:
1 where they agree.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row(Drawn):
    """Whether intervals held.

    Args:
        held: the share of draws whose interval held the truth.
        below: the share in which the truth was below it.
        above: the share in which it was above.
        width: of the interval, the median.
        before: how much better the validation score was than the truth, the mean.
        after: the same of the test score.
        after_error: the standard error of `after`.
        error_ratio: the mean standard error over the spread of what came.
        state: names the code of the metrics that drew the intervals.
        worst_share: of `r2` and `rmse`, what one picture carries of the squared errors of the candidate that was chosen
            most often.
        truth_with: that candidate's score on all pictures.
        truth_without: its score on the others.
    """

    held: float
    below: float
    above: float
    width: float
    before: float
    after: float
    after_error: float
    error_ratio: float
    state: str
    worst_share: float | None = None
    truth_with: float | None = None
    truth_without: float | None = None


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--pictures", type=int, nargs="+", default=[50, 100, 200, 500], help="of a draw")
    parser.add_argument("--metrics", nargs="+", help="these alone")
    asked = parser.parse_args()
    rows = _rows_before(asked.out / "honesty.json")
    for pool in pools(asked.sets, asked.sizes, asked.kept):
        for name in METRICS[pool.task]:
            metric = metric_for(name, pool.task, n_outputs=pool.n_outputs)
            if asked.metrics and name not in asked.metrics:
                continue
            some = pool.of_similar_quality(metric, N_CANDIDATES)
            for n in pool.drawable(asked.pictures):
                row = _row(some, metric, n, asked.draws)
                rows[row.name, row.metric, row.n] = row
                print(row, flush=True)
    found = list(rows.values())
    text = _text(found)
    print(text)
    write_report(asked.out, "honesty", text, [asdict(row) for row in found])


def _rows_before(path: Path) -> dict[tuple[str, str, int], Row]:
    """Of the last report, if the same code drew them: what is measured now takes their place, the others stay."""
    if not path.is_file():
        return {}
    kept = [fields for fields in json.loads(path.read_text(encoding="utf-8")) if fields.get("state") == _state()]
    rows = [Row(**fields) for fields in kept]
    return {(row.name, row.metric, row.n): row for row in rows}


@cache
def _state() -> str:
    files = sorted(Path(autobackbone.metrics.__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]


def _row(pool: Pool, metric: Metric, n: int, n_draws: int) -> Row:
    begun = time.monotonic()
    truths = pool.truths(metric)
    rng = np.random.default_rng(n)
    draws = np.array([_draw(pool, metric, truths, rng.integers(0, len(pool.labels), (2, n))) for _ in range(n_draws)])
    truth, validation, test, low, high, error = draws.T
    sign = to_maximised(metric, 1.0)
    worst = _without_worst(pool, metric, truth) if metric.name in {"r2", "rmse"} else (None, None, None)
    return Row(
        name=pool.name,
        n_pool=len(pool.labels),
        metric=metric.name,
        truth=float(sign * max(sign * truths)),
        n=n,
        n_draws=n_draws,
        held=float(np.mean((low <= truth) & (truth <= high))),
        below=float(np.mean(truth < low)),
        above=float(np.mean(truth > high)),
        width=float(np.median(high - low)),
        before=float(sign * np.mean(validation - truth)),
        after=float(sign * np.mean(test - truth)),
        after_error=float(np.std(test - truth) / math.sqrt(n_draws)),
        error_ratio=float(np.mean(error) / np.std(test - truth)),
        seconds=round(time.monotonic() - begun, 1),
        state=_state(),
        worst_share=worst[0],
        truth_with=worst[1],
        truth_without=worst[2],
    )


def _without_worst(pool: Pool, metric: Metric, chosen: NDArray[np.float64]) -> tuple[float, float, float]:
    """Of the candidate whose truth was chosen most often: what its worst picture carries, its score, and without it."""
    values, counts = np.unique(chosen, return_counts=True)
    truth = float(values[counts.argmax()])
    said = pool.options[int(np.flatnonzero(pool.truths(metric) == truth)[0])].predictions
    errors = ((said - np.reshape(pool.labels, said.shape)) ** 2).sum(axis=1)
    others = np.delete(np.arange(len(errors)), errors.argmax())
    return float(errors.max() / errors.sum()), truth, score(metric, said[others], pool.labels[others])


def _draw(
    pool: Pool, metric: Metric, truths: NDArray[np.float64], rows: NDArray[np.int64]
) -> tuple[float, float, float, float, float, float]:
    """Of the candidate that the first rows choose: its truth, both scores, interval and error on the second ones."""
    validation, test = rows
    scores = [score(metric, option.predictions[validation], pool.labels[validation]) for option in pool.options]
    chosen = int(np.nanargmax([to_maximised(metric, value) for value in scores]))
    said, labels = pool.options[chosen].predictions[test], pool.labels[test]
    low, high = interval(metric, said, labels)
    return truths[chosen], scores[chosen], score(metric, said, labels), low, high, standard_error(metric, said, labels)


def _text(rows: Sequence[Row]) -> str:
    n_draws = sorted({row.n_draws for row in rows})
    return "\n".join(
        (
            f"{' to '.join(f'{n:,}' for n in n_draws)} draws each; {datetime.now(tz=UTC):%Y-%m-%d}.",
            OPENING.format(n=N_CANDIDATES),
            HELD.format(wanted=WANTED),
            _table(rows, _held),
            OPTIMISM,
            _table(rows, _optimism),
            *((RARE, _rare_table(rows)) if any(row.worst_share for row in rows) else ()),
            ERRORS,
            _table(rows, lambda row: f"{row.error_ratio:.2f}"),
            "",
        )
    )


def _table(rows: Sequence[Row], cell: Callable[[Row], str]) -> str:
    """A line for each set and metric, a column for each number of pictures."""
    numbers = sorted({row.n for row in rows})
    cells = {(row.name, row.metric, row.n): cell(row) for row in rows}
    lines = [f"| set | metric | truth | {' | '.join(f'n = {n}' for n in numbers)} |", "|---" * (3 + len(numbers)) + "|"]
    for row in {(row.name, row.metric): row for row in rows}.values():
        of_line = " | ".join(cells.get((row.name, row.metric, n), "") for n in numbers)
        lines.append(f"| {row.name}, {row.n_pool:,} | {row.metric} | {row.truth:.3g} | {of_line} |")
    return "\n".join(lines)


def _rare_table(rows: Sequence[Row]) -> str:
    lines = [
        "| set | metric | n | of its squared errors in one picture | draws without it | truth with, without | gap | "
        "width of the interval, median |",
        "|---" * 8 + "|",
    ]
    for row in rows:
        if row.worst_share is None or row.truth_with is None or row.truth_without is None:
            continue
        lines.append(
            f"| {row.name}, {row.n_pool:,} | {row.metric} | {row.n} | {row.worst_share:.0%} | "
            f"{(1 - 1 / row.n_pool) ** row.n:.2f} | {row.truth_with:.3g}, {row.truth_without:.3g} | "
            f"{abs(row.truth_with - row.truth_without):.2g} | {row.width:.2g} |"
        )
    return "\n".join(lines)


def _held(row: Row) -> str:
    held = f"{row.held:.3f}" if row.held >= WANTED else f"**{row.held:.3f}**"
    return f"{held} ({row.below:.3f}, {row.above:.3f})"


def _optimism(row: Row) -> str:
    scale = 100 / abs(row.truth) if row.metric in {"mae", "rmse", "log_loss"} else 100
    return f"{scale * row.before:+.1f} → {scale * row.after:+.1f}"


if __name__ == "__main__":
    main()

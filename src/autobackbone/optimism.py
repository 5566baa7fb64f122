"""How much a search's own scores flatter what it found: the best of many stands there partly by luck."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from autobackbone.choosing import name_of, scored_on
from autobackbone.metrics import Metric, scale_of, shown, to_maximised
from autobackbone.records import Trial

# Half a 95 % interval, in standard errors.
_Z = 1.96


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimism:
    """The scores that a choice stood on minus test scores, positive where the search flattered, whatever the metric's
    orientation.

    Args:
        mean: over the confirmed trials of the front, in the metric's unit.
        n_trials: how many those are.
        of_best: of the chosen trial, in the metric's unit; NaN where it is not confirmed.
        standard_error: of `of_best`, from the pictures of both parts; one chosen trial hardly ever tells more than that
            it was flattered by less than two of them.
        sentence: what that says of the chosen trial.
    """

    mean: float
    n_trials: int
    of_best: float
    standard_error: float
    sentence: str

    def __str__(self) -> str:
        """What it says of the chosen trial."""
        return self.sentence


def optimism_of(front: Sequence[Trial], best: Trial, metric: Metric, *, is_by_folds: bool = False) -> Optimism | None:
    """Compare test scores of a front with those that the choice stood on.

    Args:
        front: finished trials.
        best: the chosen one.
        metric: of the scores.
        is_by_folds: whether `score` is by folds, and not of the validation part.

    Returns:
        `None` where none of the front is confirmed.
    """
    gaps = [gap for trial in front if (gap := _gap(trial, metric)) is not None]
    if not gaps:
        return None
    of_best = _gap(best, metric)
    error = _error(best) if of_best is not None else math.nan
    where = "by folds" if is_by_folds else f"in validation{scored_on(best)}"
    return Optimism(
        mean=math.fsum(gaps) / len(gaps),
        n_trials=len(gaps),
        of_best=math.nan if of_best is None else of_best,
        standard_error=error,
        sentence=_sentence(best, of_best, error, metric, where),
    )


def unconfirmed(best: Trial, metric: Metric) -> str:
    """What to think of a chosen trial that was not scored on the test part."""
    return f"{name_of(best)} is unconfirmed: the {metric.name} that chose it flatters it, nobody knows by how much."


def _gap(trial: Trial, metric: Metric) -> float | None:
    if trial.score is None or trial.test_score is None:
        return None
    gap = to_maximised(metric, trial.score) - to_maximised(metric, trial.test_score)
    return gap if math.isfinite(gap) else None


def _error(trial: Trial) -> float:
    """Of the difference of two scores on different pictures."""
    if trial.score_se is None or trial.test_score_low is None or trial.test_score_high is None:
        return math.nan
    return math.hypot(trial.score_se, (trial.test_score_high - trial.test_score_low) / (2 * _Z))


def _sentence(best: Trial, gap: float | None, error: float, metric: Metric, where: str) -> str:
    if gap is None and best.test_score is not None:
        return f"{name_of(best)}: {metric.name} is not defined on the test part, so that its score stays unconfirmed."
    if gap is None:
        return unconfirmed(best, metric)
    before, test = shown(metric, best.score or 0.0), shown(metric, best.test_score or 0.0)
    scale, unit = scale_of(metric)
    better = "better" if gap >= 0 else "worse"
    return (
        f"{name_of(best)}: {metric.name} {before} {where}, {test} in test, so that the former was "
        f"{scale * abs(gap):.2g} ± {scale * error:.2g}{unit} {better}."
    )

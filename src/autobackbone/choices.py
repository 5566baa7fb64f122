"""Other trials that one may want than the one that is chosen: by a word, within limits, above a score."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from numpy.typing import NDArray

from autobackbone.choosing import Probabilities, compared_to_top, name_of, tolerated_loss, top_of
from autobackbone.errors import ArgumentError, LimitsError
from autobackbone.metrics import Metric, bounds, shown, to_maximised
from autobackbone.pareto import good_enough_mask, knee
from autobackbone.records import Limits, Preference, Trial, is_number

# A limit's name, how its value is written, and the unit behind it.
_LIMITS: Mapping[str, tuple[str, str]] = {
    "latency_ms": (".2f", " ms"),
    "n_params": (",.0f", " parameters"),
    "megabytes": (".1f", " MB"),
}


def preferred(
    prefer: Preference,
    front: Sequence[Trial],
    probabilities: Probabilities,
    labels: NDArray[Any],
    metric: Metric,
    *,
    tolerance: float | None,
) -> Trial:
    """The trial of the front that a word asks for.

    Args:
        prefer: `accuracy`, the top scorer, the fastest of equals; `speed`, the fastest, the best scorer of equals;
            `balanced`, the knee; `training_speed`, the one that took the fewest seconds to train of those that are as
            good as the top scorer, as `choose` judges it.
        front: finished trials, at least one.
        probabilities: of each on the validation part.
        labels: (n_validation,), or (n_validation, k).
        metric: that the scores are of.
        tolerance: as in `choose`; only `training_speed` asks for it, and for probabilities and labels.

    Raises:
        ArgumentError: there is no such word.
        RunError: no trial has finished.
    """
    require_preference(prefer)
    if prefer == "accuracy":
        return top_of(front, metric)
    if prefer == "balanced":
        return knee_of(front, metric)
    if prefer == "training_speed":
        return _quickest_to_train(front, probabilities, labels, metric, tolerance)
    top_of(front, metric)  # raises where there is none
    return min(front, key=lambda trial: (_latency(trial), -_maximised(trial, metric)))


def require_preference(prefer: object) -> None:
    """Make sure that it is a word that `preferred` knows.

    Raises:
        ArgumentError: it is not.
    """
    if prefer not in get_args(Preference):
        words = ", ".join(map(repr, get_args(Preference)))
        raise ArgumentError(f"prefer must be one of {words}, not {prefer!r}.")


def knee_of(front: Sequence[Trial], metric: Metric) -> Trial:
    """The trial of the front from which either way costs most, on a logarithmic axis of latency.

    Raises:
        RunError: no trial has finished.
    """
    top_of(front, metric)  # raises where there is none
    return front[knee([_maximised(trial, metric) for trial in front], [_latency(trial) for trial in front])]


def best_within(
    trials: Sequence[Trial],
    metric: Metric,
    *,
    latency_ms: float | None = None,
    n_params: float | None = None,
    megabytes: float | None = None,
) -> Trial:
    """The most accurate of some trials that keeps every limit; the fastest of equals.

    Args:
        trials: finished ones with comparable scores.
        metric: that the scores are of.
        latency_ms: milliseconds above 0; `None` for no limit, as for the others, but not for all of them.
        n_params: parameters of the whole network, head included, above 0.
        megabytes: of its float32 weights, 10**6 bytes, above 0.

    Raises:
        ArgumentError: no limit came, or one that is no number above 0.
        LimitsError: no trial keeps them; it names the one that is nearest.

    Example:
        >>> from autobackbone.metrics import metric_for
        >>> from autobackbone.records import Candidate
        >>> from dataclasses import replace
        >>> begun = Candidate(backbone="resnet18.a1_in1k", image_size=(96, 96), n_unfrozen=0).begun(5, latency_ms=4.0)
        >>> trials = [replace(begun, number=i, score=s, megabytes=m) for i, s, m in [(1, 0.8, 11.0), (2, 0.9, 45.0)]]
        >>> best_within(trials, metric_for(None, n_outputs=2), megabytes=20).number
        1
    """
    came = {"latency_ms": latency_ms, "n_params": n_params, "megabytes": megabytes}
    limits = {name: _as_limit(name, value) for name, value in came.items() if value is not None}
    if not limits:
        raise ArgumentError(
            f"a limit is wanted, one or more of {', '.join(_LIMITS)}; none came. Without one, take the best of the run."
        )
    keeping = [trial for trial in trials if _excess(trial, limits) <= 1]
    if not keeping:
        raise LimitsError(_nothing_keeps(trials, limits))
    return top_of(keeping, metric)


def fastest_at_least(front: Sequence[Trial], score: float, metric: Metric) -> Trial:
    """The fastest trial of the front whose score is at least as good as the one given: at most that, for a loss.

    Args:
        front: finished trials, at least one.
        score: in the metric's own sign and unit: 0.9, not 90.
        metric: that the scores are of.

    Raises:
        ArgumentError: `score` is no number, or one that the metric never is.
        LimitsError: none is that good; it names the best.
        RunError: no trial has finished.
    """
    if not is_number(score) or math.isnan(score):
        raise ArgumentError(f"score must be a number in the unit of {metric.name}, such as 0.9, not {score!r}.")
    lowest, highest = bounds(metric)
    if not lowest <= score <= highest:
        raise ArgumentError(f"score must be {_between(lowest, highest)}, as {metric.name} is, not {score!r}.")
    top = top_of(front, metric)
    wanted = to_maximised(metric, float(score))
    good = [trial for trial in front if _maximised(trial, metric) >= wanted]
    if not good:
        assert top.score is not None
        side = "at least" if metric.is_higher_better else "at most"
        raise LimitsError(
            f"no trial of the front has {metric.name} of {side} {shown(metric, score)}; the best is {name_of(top)} "
            f"with {shown(metric, top.score)}. Ask for less, or continue the run with more time."
        )
    return min(good, key=lambda trial: (_latency(trial), -_maximised(trial, metric)))


def _between(lowest: float, highest: float) -> str:
    """Bounds in words, one of them finite."""
    if math.isinf(highest):
        return f"at least {lowest:g}"
    return f"at most {highest:g}" if math.isinf(lowest) else f"between {lowest:g} and {highest:g} (0.9, not 90)"


def _quickest_to_train(
    front: Sequence[Trial],
    probabilities: Probabilities,
    labels: NDArray[Any],
    metric: Metric,
    tolerance: float | None,
) -> Trial:
    top, pairs = compared_to_top(front, probabilities, labels, metric)
    assert top.score is not None
    is_good = good_enough_mask(
        [_maximised(trial, metric) for trial in front],
        [_latency(trial) for trial in front],
        [loss for loss, _ in pairs],
        [error for _, error in pairs],
        tolerated_loss(metric, top.score, tolerance),
        # Of two that tie within the noise, the slower may be the quicker to train.
        noise=[trial.latency_noise_ms or 0.0 for trial in front],
    )
    good = [trial for trial, is_one in zip(front, is_good, strict=True) if is_one]
    return min(good, key=lambda trial: (_train_seconds(trial), -_maximised(trial, metric), _latency(trial)))


def _train_seconds(trial: Trial) -> float:
    return math.inf if trial.train_seconds is None else trial.train_seconds


def _as_limit(name: str, value: float) -> float:
    if not is_number(value) or not value > 0:
        unit = "milliseconds" if name == "latency_ms" else "a number"
        raise ArgumentError(f"{name} must be {unit} above 0, not {value!r}; leave it out for no limit.")
    return float(value)


def _excess(trial: Trial, limits: Mapping[str, float]) -> float:
    return Limits(**limits).excess_of({name: getattr(trial, name) for name in limits})


def _nothing_keeps(trials: Sequence[Trial], limits: Mapping[str, float]) -> str:
    wanted = " and ".join(f"{name}={value:,.10g}" for name, value in limits.items())
    nearest = min(trials, key=lambda trial: _excess(trial, limits), default=None)
    if nearest is None:
        return f"no trial has finished, so that none keeps {wanted}. Continue the run with more time."
    needs = [_shown_need(name, getattr(nearest, name)) for name in limits]
    return (
        f"no trial with a network here keeps {wanted}; the nearest, {name_of(nearest)}, has {', '.join(needs)}. "
        "Allow more, or search again with these limits, smaller image_sizes or other backbones."
    )


def _shown_need(name: str, value: float | None) -> str:
    form, unit = _LIMITS[name]
    return f"{name} unknown" if value is None else f"{value:{form}}{unit}"


def _maximised(trial: Trial, metric: Metric) -> float:
    assert trial.score is not None
    return to_maximised(metric, trial.score)


def _latency(trial: Trial) -> float:
    assert trial.latency_ms is not None
    return trial.latency_ms

"""From trials to the one to use: who is on the front, which one is good enough, and why, in one sentence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autobackbone.errors import LimitsError, RunError
from autobackbone.metrics import Metric, aligned, paired_loss, scale_of, to_maximised
from autobackbone.pareto import front_mask, good_enough
from autobackbone.records import Limits, Trial

# Given up for speed if nothing else is asked: points of a score that is a share, and a share of the top scorer's loss.
# A loss has no scale of its own: half a nat may be more than all that was learned.
_TOLERATED_POINTS = 0.5
_TOLERATED_SHARE = 0.02
# Of a latency: what is known no better is told.
_UNSURE_SHARE = 0.15

Probabilities = Callable[[Trial], NDArray[np.float32]]
"""Validation predictions (n_validation, n_outputs) of a finished trial, NaN where a picture was not reached; or by
folds (n_repeats, n_images, n_outputs)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The trial to use, and why.

    Args:
        trial: of the front.
        reason: one sentence that names what was traded for what.
    """

    trial: Trial
    reason: str


def mark_front(trials: Sequence[Trial], metric: Metric, limits: Limits) -> list[Trial]:
    """The same trials, each knowing whether it is on the front: finished ones that no other beats on score and latency,
    on one scale; latencies within measured noise tie. What breaks a limit is not on it while anything keeps them all.

    A fine-tuned trial that has no score by folds has to be on the front of validation scores, too: what is not may have
    no network any more.
    """
    finished = comparable(within_limits(trials, limits))
    validated = _unbeaten(finished, metric)
    able = [t for t in finished if t.fold_score is not None or t.n_unfrozen == 0 or t.number in validated]
    on_front = _unbeaten(on_one_scale(able), metric)
    return [replace(trial, on_front=trial.number in on_front) for trial in trials]


def _unbeaten(finished: Sequence[Trial], metric: Metric) -> set[int]:
    """Numbers of those that no other beats."""
    mask = front_mask(
        [to_maximised(metric, trial.score) for trial in finished if trial.score is not None],
        [trial.latency_ms for trial in finished if trial.latency_ms is not None],
        noise=[trial.latency_noise_ms or 0.0 for trial in finished],
    )
    return {trial.number for trial, is_on in zip(finished, mask, strict=True) if is_on}


def as_they_stand(trials: Sequence[Trial]) -> list[Trial]:
    """The same trials, with the score that says most of each: by folds, which are of more pictures than the validation
    part has, where it has one.
    """
    return [
        trial if trial.fold_score is None else replace(trial, score=trial.fold_score, score_se=trial.fold_se)
        for trial in trials
    ]


def on_one_scale(trials: Sequence[Trial]) -> list[Trial]:
    """The same trials, with scores that can be compared: by folds; where a trial has none, its validation score less
    what those scores flatter, which is the median difference of the trials that have both.

    Validation pictures may be easier than all, and scores on them have chosen what they are scores of. A trial without
    folds must not beat one with folds for that alone.
    """
    both = [(one.fold_score, one.score) for one in trials if one.fold_score is not None and one.score is not None]
    if not both:
        return list(trials)
    flattered = float(np.median([score - fold_score for fold_score, score in both]))
    return [
        replace(one, score=one.score - flattered) if one.fold_score is None and one.score is not None else one
        for one in as_they_stand(trials)
    ]


def within_limits(trials: Sequence[Trial], limits: Limits) -> Sequence[Trial]:
    """Those that break no limit; all of them where none of the finished ones keeps them."""
    kept = that_keep(trials, limits)
    return kept if any(trial.state == "finished" for trial in kept) else trials


def comparable(trials: Sequence[Trial]) -> list[Trial]:
    """Finished trials; those whose score stands on a part of the validation pictures only while there are no others."""
    finished = [trial for trial in trials if trial.state == "finished" and trial.score is not None]
    most = max(map(scored_share, finished), default=1.0)
    return [trial for trial in finished if scored_share(trial) == most]


def is_beaten_for_good(trial: Trial, others: Sequence[Trial], metric: Metric, *, drift: float = 1.0) -> bool:
    """Whether no later trial can bring a trial back to the front.

    Being beaten within noise is not transitive: what beats a trial now may be beaten by one that does not beat it. A
    trial that is as good or better at a latency that is lower beyond all noise, or better at one that is not higher,
    beats it whatever comes.

    Args:
        trial: that may be beaten.
        others: all of the run.
        metric: of the scores.
        drift: by what factor latencies of other bodies, measured at another time, may be wrong.
    """
    own, low, high = _place(trial, metric)
    # A score on fewer validation pictures beats none on more of them.
    rivals = (other for other in comparable(others) if scored_share(other) >= scored_share(trial))
    for other in rivals:
        score, _, its_high = _place(other, metric)
        its_high *= 1.0 if other.body == trial.body else drift
        if other.number != trial.number and ((score > own and its_high <= high) or (score >= own and its_high < low)):
            return True
    return False


def front_of(trials: Sequence[Trial], metric: Metric, limits: Limits) -> list[Trial]:
    """The front, fastest first."""
    front = [trial for trial in mark_front(trials, metric, limits) if trial.on_front]
    return sorted(front, key=lambda trial: (_latency(trial), -to_maximised(metric, _score(trial)), trial.number))


def choose(
    front: Sequence[Trial],
    probabilities: Probabilities,
    labels: NDArray[Any],
    metric: Metric,
    *,
    tolerance: float | None,
) -> Choice:
    """The fastest trial of the front that is as good as the top scorer, as far as the validation pictures can tell.

    Args:
        front: finished trials, at least one.
        probabilities: of each on the validation part.
        labels: (n_validation,), or (n_validation, k).
        metric: that the scores are of.
        tolerance: the loss that is accepted for speed, as `tolerated_loss` takes it.

    Returns:
        The fastest trial whose loss to the top scorer, paired over the same pictures, is within one standard error and
        within `tolerance`.

    Raises:
        RunError: no trial has finished.
    """
    top, pairs = compared_to_top(front, probabilities, labels, metric)
    index = good_enough(
        [to_maximised(metric, _score(trial)) for trial in front],
        [_latency(trial) for trial in front],
        [loss for loss, _ in pairs],
        [error for _, error in pairs],
        tolerated_loss(metric, _score(top), tolerance),
    )
    chosen = front[index]
    return Choice(trial=chosen, reason=_reason(chosen, top, pairs[index], metric, len(front)))


def top_of(front: Sequence[Trial], metric: Metric) -> Trial:
    """The trial of the front with the best score, the fastest of equals.

    Raises:
        RunError: no trial has finished.
    """
    if not front:
        raise RunError("no trial has finished, so there is none to choose. Continue the run with more time.")
    return max(front, key=lambda trial: (to_maximised(metric, _score(trial)), -_latency(trial)))


def compared_to_top(
    front: Sequence[Trial], probabilities: Probabilities, labels: NDArray[Any], metric: Metric
) -> tuple[Trial, list[tuple[float, float]]]:
    """The top scorer, and for each trial of the front its loss to it with that loss's standard error."""
    top = top_of(front, metric)
    of_top = probabilities(top)
    return top, [_paired(of_top, probabilities(trial), labels, metric) for trial in front]


def settled_tolerance(metric: Metric, tolerance: float | None) -> float | None:
    """The tolerance that is meant if none is named: half a point; `None` where it depends on the top scorer."""
    return _TOLERATED_POINTS if tolerance is None and metric.unit == "points" else tolerance


def tolerated_loss(metric: Metric, top_score: float, tolerance: float | None) -> float:
    """How much worse than the top scorer is still good enough, whatever the noise, for the sake of speed.

    Args:
        top_score: of the best, in the metric's own sign and unit.
        tolerance: points of a score that is a share, else in the metric's unit; `None` for half a point, or for 2 % of
            the top score.

    Returns:
        The largest loss, at least 0, in the metric's unit.

    Example:
        >>> from autobackbone.metrics import metric_for
        >>> tolerated_loss(metric_for("accuracy", n_outputs=2), 0.9, None)
        0.005
        >>> round(tolerated_loss(metric_for("log_loss", n_outputs=2), 0.3, None), 4)
        0.006
    """
    settled = settled_tolerance(metric, tolerance)
    if settled is None:
        return _TOLERATED_SHARE * abs(top_score)
    return settled / 100 if metric.unit == "points" else settled


def keeping(front: Sequence[Trial], limits: Limits) -> Sequence[Trial]:
    """Those of a front that keep all limits.

    Raises:
        LimitsError: none does; it names what the fastest one breaks.
    """
    kept = that_keep(front, limits)
    if kept or not front:
        return kept
    why = f"nothing that was tried keeps the limits; of the fastest, {beyond_limits(front[0], limits)}"
    fastest_ms = _latency(front[0])
    if limits.latency_ms is not None and fastest_ms > limits.latency_ms:
        why = f"no trial of the front runs within {limits.latency_ms:g} ms; the fastest takes {fastest_ms:.2f} ms"
    raise LimitsError(
        f"{why}. Give the run more time, if it was short, or search again with higher limits, smaller image_sizes or "
        "other backbones."
    )


def choose_under(front: Sequence[Trial], latency_ms: float, metric: Metric) -> Choice:
    """The most accurate trial of a front all of which keeps a limit of latency.

    Raises:
        RunError: no trial has finished.
    """
    best = top_of(front, metric)
    reason = (
        f"{name_of(best)} has the best {metric.name} of the front within {latency_ms:g} ms ({_latency(best):.1f} ms)."
    )
    return Choice(trial=best, reason=reason)


def with_caution(choice: Choice, *, is_by_folds: bool = False) -> Choice:
    """The same choice, its reason saying so where scores stand on a part of the validation pictures, a head on a part
    of the training pictures, or latencies on passes that other work held up.

    Args:
        choice: as it was made.
        is_by_folds: whether folds took the place of the validation pictures.
    """
    trial, reason = choice.trial, choice.reason
    if scored_share(trial) < 1.0 and not is_by_folds:
        reason += (
            f" Caution: the time was too short to score it on more than {_reached(trial)}, so that such a score says "
            "little. Give more time."
        )
    if fitted := fitted_on(trial).removeprefix(", "):
        reason += f" Caution: the time was short, {fitted}, so that it can do better. Give more time."
    if (trial.latency_noise_ms or 0.0) > _UNSURE_SHARE * _latency(trial):
        reason += (
            f" Caution: its latency is known to ± {trial.latency_noise_ms:.1f} ms only, since other work held it up; "
            "trials beside the front may be faster. Continue the run when the machine is quiet."
        )
    return replace(choice, reason=reason)


def scored_share(trial: Trial) -> float:
    """How much of the validation pictures its score stands on."""
    return float(trial.extras.get("scored_share", 1.0))


def scored_on(trial: Trial) -> str:
    """On how many pictures its validation score stands, to be told right behind it; empty where these are all of them.

    Example:
        >>> extras = {"scored_share": 0.25, "n_validation": 40}
        >>> scored_on(Trial(number=0, state="finished", reason="", backbone="resnet18.a1_in1k", image_size=(96, 96),
        ...                 n_unfrozen=0, n_blocks=5, lr=None, score=0.9, latency_ms=20.0, extras=extras))
        ' on 10 of 40 pictures'
    """
    return "" if scored_share(trial) == 1.0 else f" on {_reached(trial)}"


def fitted_on(trial: Trial) -> str:
    """On how many training pictures a frozen trial's head was fitted, to be told behind its score; empty where these
    are all of them.

    Example:
        >>> extras = {"fitted_share": 0.06}
        >>> fitted_on(Trial(number=0, state="finished", reason="", backbone="resnet18.a1_in1k", image_size=(96, 96),
        ...                 n_unfrozen=0, n_blocks=5, lr=None, score=0.6, latency_ms=20.0, extras=extras))
        ', its head fitted on 6 % of the training pictures'
    """
    share = float(trial.extras.get("fitted_share", 1.0))
    return "" if share == 1.0 else f", its head fitted on {100 * share:.2g} % of the training pictures"


def _reached(trial: Trial) -> str:
    """The validation pictures that were scored; runs from before their number was noted have their share."""
    share, n_validation = scored_share(trial), trial.extras.get("n_validation")
    if n_validation is None:
        return f"{100 * share:.0f} % of the pictures"
    return f"{round(share * n_validation):,} of {n_validation:,} pictures"


def name_of(trial: Trial) -> str:
    """A trial in a few words.

    Example:
        >>> name_of(Trial(number=4, state="finished", reason="", backbone="resnet50.a1_in1k", image_size=(160, 160),
        ...               n_unfrozen=2, n_blocks=5, lr=3e-4, score=0.9, latency_ms=20.0))
        'trial 4 (resnet50.a1_in1k at 160x160 px, 2 of 5 blocks unfrozen)'
    """
    depth = "frozen" if trial.n_unfrozen == 0 else f"{trial.n_unfrozen} of {trial.n_blocks} blocks unfrozen"
    return f"trial {trial.number} ({trial.body}, {depth})"


def beyond_limits(trial: Trial, limits: Limits) -> str | None:
    """Which limit a trial breaks, in words; `None` if it keeps all, as far as that is known."""
    figures = ("latency_ms", "latency_p95_ms", "n_params", "megabytes")
    return limits.broken_by({name: getattr(trial, name) for name in figures})


def that_keep(trials: Sequence[Trial], limits: Limits) -> list[Trial]:
    """Those that break no limit, as far as that is known."""
    return [trial for trial in trials if beyond_limits(trial, limits) is None]


def front_line(trial: Trial, metric: Metric, *, is_chosen: bool, limits: Limits | None = None) -> str:
    """A trial of the front in one line, the chosen one marked, and what breaks a limit."""
    depth = f"{trial.n_unfrozen}/{trial.n_blocks} unfrozen"
    scores = f"{aligned(metric, _score(trial))}{scored_on(trial)}{_folded(trial, metric)}{_tested(trial, metric)}"
    broken = None if limits is None else beyond_limits(trial, limits)
    return (
        f"{'→' if is_chosen else ' '} {trial.latency_ms:8.2f} ms  {metric.name} {scores}  "
        f"trial {trial.number}: {trial.body}, {depth}{'' if broken is None else f'; {broken}'}"
    )


def _folded(trial: Trial, metric: Metric) -> str:
    if trial.fold_score is None or trial.fold_se is None:
        return ""
    return f", folds {aligned(metric, trial.fold_score)} ± {aligned(metric, trial.fold_se)}"


def _tested(trial: Trial, metric: Metric) -> str:
    score, low, high = trial.test_score, trial.test_score_low, trial.test_score_high
    if score is None or low is None or high is None:
        return ""
    return f", test {aligned(metric, score)} ({aligned(metric, low)} to {aligned(metric, high)})"


def trial_line(trial: Trial, metric: Metric) -> str:
    """An ended trial in one line."""
    depth = "frozen" if trial.n_unfrozen == 0 else f"{trial.n_unfrozen}/{trial.n_blocks} unfrozen, lr {trial.lr:.1e}"
    what = f"trial {trial.number}: {trial.body}, {depth}"
    if trial.state == "running":
        return f"{what}: {trial.reason}"
    if trial.state != "finished" or trial.score is None:
        return f"{what}: {trial.state}, {trial.reason}"
    scored = f"{metric.name} {aligned(metric, trial.score)}{scored_on(trial)}{_folded(trial, metric)}{fitted_on(trial)}"
    return f"{what}: {scored}, {_latency(trial):.1f} ms, {trial.train_seconds or 0:.0f} s"


def _place(trial: Trial, metric: Metric) -> tuple[float, float, float]:
    noise = trial.latency_noise_ms or 0.0
    return to_maximised(metric, _score(trial)), _latency(trial) - noise, _latency(trial) + noise


def _paired(
    of_top: NDArray[np.float32], of_other: NDArray[np.float32], labels: NDArray[Any], metric: Metric
) -> tuple[float, float]:
    if of_top.ndim > 2:  # by folds: of each repeat that both have
        pairs = [_paired(*both, labels, metric) for both in zip(of_top, of_other, strict=False)]
        return float(np.mean([loss for loss, _ in pairs])), float(np.mean([error for _, error in pairs]))
    is_common = ~np.isnan(of_top).any(axis=1) & ~np.isnan(of_other).any(axis=1)
    return paired_loss(metric, of_top[is_common], of_other[is_common], labels[is_common])


def _reason(chosen: Trial, top: Trial, paired: tuple[float, float], metric: Metric, n_front: int) -> str:
    if n_front == 1:
        return f"{name_of(chosen)} is alone on the front: none has a better {metric.name}, none as good is faster."
    if chosen.number == top.number:
        rest = "no faster one of the front is within one standard error and the tolerance."
        return f"{name_of(chosen)} has the best {metric.name}; {rest}"
    loss, error = paired
    gain = _latency(top) / _latency(chosen)
    scale, unit = scale_of(metric)
    said = f"{scale * loss:.1f} ± {scale * error:.1f}{unit}" if scale > 1 else f"{loss:.3g} ± {error:.2g}{unit}"
    return (
        f"{name_of(chosen)} is {gain:.1f} times as fast as the top scorer, trial {top.number} "
        f"({_latency(chosen):.1f} against {_latency(top):.1f} ms), for a loss of {said} of {metric.name}: within noise."
    )


def _score(trial: Trial) -> float:
    assert trial.score is not None
    return trial.score


def _latency(trial: Trial | None) -> float:
    assert trial is not None
    assert trial.latency_ms is not None
    return trial.latency_ms

"""Several networks of the front that predict together: which of them, how often each, and whether it is worth it.

Networks err on different pictures, and a mean of what they say may be better than any of them. Which ones to take is
picked on the pictures that trials are judged by, and the best of many means flatters itself. So the gain is measured on
pictures that did not pick, and where it is no more than noise, the best network stays alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from autobackbone.choosing import name_of
from autobackbone.crossfitting import Scored, ScoredPart
from autobackbone.errors import ArgumentError, LimitsError, RunError
from autobackbone.judging import Judged
from autobackbone.metrics import Metric, scale_of, score, shown
from autobackbone.picking import Picking, Predictions, mean_of
from autobackbone.records import Task, Trial, counted, is_number
from autobackbone.tasks import require_probabilities

# One picture more that is right is a gain of exactly one standard error; that must not hang on its last bit.
_ROUNDING = 1e-9


class Voices(Protocol):
    """What the trials of a run say."""

    @property
    def task(self) -> Task:
        """What the labels are."""

    def has_scored(self, trial: Trial, part: ScoredPart, /) -> bool:
        """Whether it is stored what a trial said of a part."""

    def scored(self, trial: Trial, part: ScoredPart, /) -> Scored:
        """What a trial said of a part, with the truth."""

    def predictions(self, images: Any, trial: Trial, /) -> Predictions:
        """What a trial says of new pictures, (n_images, n_outputs)."""

    def said_by(self, predictions: Predictions, /) -> NDArray[Any]:
        """What predictions come to: classes, numbers, or which labels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ensemble:
    """Networks that predict together: the weighted mean of what they say, uncorrected, as it was scored.

    Args:
        members: distinct trials of the front, fastest first.
        weights: how often each was picked, at least 1.
        latency_ms: the sum of the members' latencies, each as it was measured alone on the target: they take turns.
        score: on the pictures that picked the members, so that it flatters where there are several: those of folds
            where the whole front has them, each predicted without having been trained on, else the validation pictures.
        test_score: on the test part; `None` where not all members were confirmed.
        is_better: whether several members are better than the best of them by more than one standard error.
        gain: by how much several are better than one, cross-fitted: each half of those pictures picks both, and the
            other half compares them. In the metric's unit, positive where several are better; 0 where the pictures
            picked a single one.
        gain_error: its standard error.
        reason: one sentence on why these members.
        voices: what the trials say.
    """

    members: tuple[Trial, ...]
    weights: tuple[int, ...]
    latency_ms: float
    score: float
    test_score: float | None
    is_better: bool
    gain: float
    gain_error: float
    reason: str
    voices: Voices = field(repr=False, compare=False)

    def predict_proba(self, images: Any) -> Predictions:
        """Probabilities, (n_images, n_classes) float32; pictures in any form that users give.

        Raises:
            ArgumentError: numbers are predicted; they have no probabilities.
        """
        require_probabilities(self.voices.task)
        return self._mean(images)

    def predict(self, images: Any) -> NDArray[Any]:
        """What a picture shows: classes, numbers, or which labels."""
        return self.voices.said_by(self._mean(images))

    def __str__(self) -> str:
        """Why these, in one sentence."""
        return self.reason

    def _mean(self, images: Any) -> Predictions:
        return mean_of([self.voices.predictions(images, member) for member in self.members], self.weights)


def ensemble_of(
    front: Sequence[Trial],
    voices: Voices,
    metric: Metric,
    *,
    judged: Judged | None = None,
    max_latency_ms: float | None = None,
) -> Ensemble:
    """Pick networks that are better together than the best of them alone; else that one alone.

    Args:
        front: finished trials whose networks can be had, fastest first.
        voices: what they say.
        metric: that decides.
        judged: by which pictures; `None` for those of the validation part.
        max_latency_ms: what their latencies may add up to; `None` for no limit.

    Raises:
        ArgumentError: the limit is no number above 0.
        LimitsError: not one is that fast.
        RunError: no trial has finished.

    Source: Caruana et al. 2004, Ensemble selection from libraries of models: with replacement, from a sorted start.
    """
    fitting = _fitting(front, max_latency_ms)
    said, labels = _common([_scored(trial, voices, judged) for trial in fitting])
    picking = Picking(said, labels, metric, [_latency(trial) for trial in fitting], max_latency_ms or math.inf)
    top, weights = picking.top(), picking.picked()
    is_several = int(np.count_nonzero(weights)) > 1
    gain, error = picking.gain() if is_several else (0.0, 0.0)
    is_better = is_several and gain > error * (1 + _ROUNDING)
    if not is_better:
        reason = _alone(fitting[top], gain, error, metric) if is_several else _unaided(fitting[top], metric)
        weights = picking.alone(top)
    chosen = np.flatnonzero(weights)
    members, counts = tuple(fitting[i] for i in chosen), tuple(int(weights[i]) for i in chosen)
    if is_better:
        reason = _together(members, counts, fitting[top], gain, error, metric)
    return Ensemble(
        members=members,
        weights=counts,
        latency_ms=sum(map(_latency, members)),
        score=score(metric, mean_of(said, weights), labels),
        test_score=_test_score(members, counts, voices, metric),
        is_better=is_better,
        gain=gain,
        gain_error=error,
        reason=reason,
        voices=voices,
    )


def _fitting(front: Sequence[Trial], max_latency_ms: float | None) -> list[Trial]:
    if not front:
        raise RunError("no trial has finished, so there is none to choose. Continue the run with more time.")
    if max_latency_ms is None:
        return list(front)
    if not is_number(max_latency_ms) or not max_latency_ms > 0:
        raise ArgumentError(
            f"max_latency_ms must be milliseconds above 0, not {max_latency_ms!r}; leave it out for no limit."
        )
    fitting = [trial for trial in front if _latency(trial) <= max_latency_ms]
    if not fitting:
        fastest = min(front, key=_latency)
        raise LimitsError(
            f"no trial of the front runs within {max_latency_ms:g} ms; the fastest, {name_of(fastest)}, takes "
            f"{_latency(fastest):.2f} ms. Raise max_latency_ms."
        )
    return fitting


def _scored(trial: Trial, voices: Voices, judged: Judged | None) -> Scored:
    """By folds that of their first repeat: a mean over repeats is an ensemble itself."""
    if judged is None or not judged.is_by_folds:
        return voices.scored(trial, "validation")
    return Scored(judged.predictions(trial)[0], judged.labels)


def _common(scored: Sequence[Scored]) -> tuple[list[Predictions], NDArray[Any]]:
    """What all of them said of the pictures that each of them has reached."""
    is_common = ~np.any([np.isnan(one.predictions).any(axis=1) for one in scored], axis=0)
    return [one.predictions[is_common] for one in scored], scored[0].labels[is_common]


def _test_score(members: Sequence[Trial], weights: Sequence[int], voices: Voices, metric: Metric) -> float | None:
    if not all(voices.has_scored(member, "test") for member in members):
        return None
    said, labels = _common([voices.scored(member, "test") for member in members])
    return score(metric, mean_of(said, weights), labels)


def _together(
    members: Sequence[Trial], weights: Sequence[int], top: Trial, gain: float, error: float, metric: Metric
) -> str:
    latency_ms = sum(map(_latency, members))
    named = ", ".join(
        f"{one.number}{f' (counted {weight} times)' if weight > 1 else ''}"
        for one, weight in zip(members, weights, strict=True)
    )
    return (
        f"{counted(len(members), 'network')} together, trials {named}, {latency_ms:.1f} ms, are better than the best "
        f"of them, trial {top.number} with {_latency(top):.1f} ms, by {_said(gain, error, metric)} on pictures that "
        "did not pick them."
    )


def _alone(top: Trial, gain: float, error: float, metric: Metric) -> str:
    return (
        f"{name_of(top)} alone: what others add to it is {_said(gain, error, metric)} on pictures that did not pick "
        "them, no more than noise."
    )


def _unaided(top: Trial, metric: Metric) -> str:
    return f"{name_of(top)} alone: no other network of the front adds to its {metric.name}."


def _said(gain: float, error: float, metric: Metric) -> str:
    scale, unit = scale_of(metric)
    if scale > 1:
        return f"{scale * gain:z.1f} ± {scale * error:.1f}{unit} of {metric.name}"
    return f"{shown(metric, gain)} ± {shown(metric, error)} of {metric.name}"


def _latency(trial: Trial) -> float:
    assert trial.latency_ms is not None
    return trial.latency_ms

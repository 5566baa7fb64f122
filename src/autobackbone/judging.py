"""On which scored pictures a choice stands: the validation part, or folds where the whole front has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import NDArray

from autobackbone.choosing import Choice, Probabilities, choose, choose_under, keeping, scored_share, with_caution
from autobackbone.metrics import Metric, aligned
from autobackbone.records import Limits, Trial, counted

# Validation pictures of which one is a point and more.
_FEW = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A front, and what its trials are judged by.

    Args:
        front: finished trials, fastest first; `score` is the one that counts.
        predictions: of each, for the pictures that it is judged by.
        labels: (n_images,) or (n_images, k) of the same pictures.
        is_by_folds: whether these are training and validation pictures, in folds.
    """

    front: Sequence[Trial]
    predictions: Probabilities
    labels: NDArray[Any]
    is_by_folds: bool = False

    @classmethod
    def by_folds(cls, front: Sequence[Trial], predictions: Probabilities, labels: NDArray[Any]) -> Judged:
        """Of a front that `has_folds`: the score by folds takes the place of the validation score."""
        scored = [replace(trial, score=trial.fold_score, score_se=trial.fold_se) for trial in front]
        return cls(front=scored, predictions=predictions, labels=labels, is_by_folds=True)

    def choice(self, metric: Metric, *, tolerance: float | None, limits: Limits) -> Choice:
        """The trial to use and the reason; its `score` is the one that it is judged by.

        Args:
            metric: that the scores are of.
            tolerance: as in `choose`.
            limits: that it has to keep; with one of latency, it is the most accurate that does.

        Raises:
            RunError: no trial has finished.
            LimitsError: none keeps them.
        """
        front = keeping(self.front, limits)
        if limits.latency_ms is not None:
            choice = choose_under(front, limits.latency_ms, metric)
        else:
            choice = choose(front, self.predictions, self.labels, metric, tolerance=tolerance)
        choice = with_caution(choice, is_by_folds=self.is_by_folds)
        if not self.is_by_folds:
            return replace(choice, reason=f"{choice.reason}{self._by_what(choice.trial)}")
        return replace(choice, reason=f"{choice.reason} {_said(choice.trial, len(self.labels), metric)}")

    def _by_what(self, trial: Trial) -> str:
        """Where that is worth a word, what a choice by validation pictures stands on."""
        n_scored = round(scored_share(trial) * len(self.labels))
        n_without = sum(one.fold_score is None for one in self.front)
        lack = ""
        if 0 < n_without < len(self.front):
            lack = f", since {n_without} of {counted(len(self.front), 'trial')} on the front have no score by folds"
        return f" Judged by {n_scored} validation pictures alone{lack}." if n_scored < _FEW or lack else ""


def has_folds(front: Sequence[Trial]) -> bool:
    """Whether each trial of a front has a score by folds: with fewer they cannot be compared."""
    return bool(front) and all(trial.fold_score is not None for trial in front)


def _said(trial: Trial, n_images: int, metric: Metric) -> str:
    assert trial.score is not None
    assert trial.score_se is not None
    score, error = aligned(metric, trial.score), aligned(metric, trial.score_se)
    return f"Judged by folds over {n_images} pictures, where it has {score} ± {error}."

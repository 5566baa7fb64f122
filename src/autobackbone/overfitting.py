"""Which trainings learned their pictures by heart, and what to do about it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from autobackbone.choosing import name_of
from autobackbone.metrics import Metric, shown, to_maximised
from autobackbone.records import Body, Trial, counted

# Beyond so many standard errors of a validation score the better of the last two epochs has fallen. On 33 trainings of
# EfficientNet-Lite0 (one to four blocks, 300 or 400 pictures, clean labels and noisy ones), each judged by 300 pictures
# drawn 200 times: of those that fell by four points on 700 others or more 72 % were told, of those that fell by less
# than half a point 3 %; by 80 pictures 53 and 4 %. Two standard errors of the last epoch alone told 63 and 2 %, 45 and
# 4 %.
_N_ERRORS = 1.5
# So close to a perfect score, training pictures are fitted fully.
_NEARLY = 0.01
# At most so many trials are spoken of, each of another body.
_N_TOLD = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """How a training went on its own pictures and on those of validation; epochs count from 1.

    Args:
        best_epoch: of the best validation score.
        end_epoch: of the last two the one with the better validation score.
        fall: by how much validation was worse there, in the metric's unit, at least 0.
        widening: by how much the gap between training and validation grew meanwhile; NaN where a training score is not
            defined.
        chance: what either may be by chance.
        full_epoch: the first whose training pictures were fitted fully, as `is_full` says; `None` where none was.
    """

    best_epoch: int
    end_epoch: int
    fall: float
    widening: float
    chance: float
    full_epoch: int | None

    @property
    def overfits(self) -> bool:
        """Whether validation fell while the gap grew, each by more than chance; `False` where chance is not known."""
        return self.chance > 0 and self.fall > self.chance and self.widening > self.chance


def fit_of(
    train_scores: Sequence[float], rung_scores: Sequence[float], metric: Metric, *, standard_error: float
) -> Fit:
    """Compare training with validation, from the best epoch of validation to its end.

    One epoch says little: the end is the better of the last two. A training that gets worse on both, as at too high a
    rate, does not overfit, however far it falls.

    Args:
        train_scores: (n_epochs,) of the training pictures as they passed, in the metric's own sign; NaN where not
            defined.
        rung_scores: (n_epochs,) of validation, at least one.
        metric: of both.
        standard_error: of the best validation score, in the metric's unit. One of 0, as where no picture was missed,
            says nothing of chance.

    Example:
        >>> from autobackbone.metrics import metric_for
        >>> accuracy = metric_for("accuracy", n_outputs=2)
        >>> fit = fit_of([0.90, 0.97, 1.00, 1.00], [0.88, 0.91, 0.86, 0.85], accuracy, standard_error=0.02)
        >>> fit.best_epoch, fit.end_epoch, round(fit.fall, 2), round(fit.widening, 2), fit.full_epoch, fit.overfits
        (2, 3, 0.05, 0.08, 3, True)
    """
    training = [to_maximised(metric, score) for score in train_scores]
    validation = [to_maximised(metric, score) for score in rung_scores]
    epochs = range(len(validation))
    best, end = (max(of, key=validation.__getitem__) for of in (epochs, epochs[-2:]))
    fall = validation[best] - validation[end]
    return Fit(
        best_epoch=best + 1,
        end_epoch=end + 1,
        fall=fall,
        widening=fall + training[end] - training[best],
        chance=_N_ERRORS * standard_error,
        full_epoch=next((epoch for epoch, score in enumerate(train_scores, 1) if is_full(score, metric)), None),
    )


def is_full(train_score: float, metric: Metric) -> bool:
    """Whether training pictures are fitted fully: to a hundredth of a perfect score, or a hundredth of a nat.

    Errors in the unit of the labels have no such hundredth, and label smoothing keeps `log_loss` above it.

    Example:
        >>> from autobackbone.metrics import metric_for
        >>> accuracy, loss = metric_for("accuracy", n_outputs=2), metric_for("log_loss", n_outputs=2)
        >>> is_full(0.995, accuracy), is_full(0.98, accuracy), is_full(0.004, loss), is_full(float("nan"), loss)
        (True, False, True, False)
    """
    perfect = 1.0 if metric.is_higher_better else 0.0
    return metric.unit != "target" and abs(train_score - perfect) < _NEARLY


def mark_overfitting(trials: Sequence[Trial], metric: Metric) -> list[Trial]:
    """The same trials, each knowing whether it overfits."""
    return [replace(trial, overfits=_overfits(trial, metric)) for trial in trials]


def advice(trials: Sequence[Trial], metric: Metric) -> tuple[str, ...]:
    """What overfits, and what to do about it: a sentence for each of a few trials, those of the front first.

    Args:
        trials: all of a run, marked as the front and overfitting mark them.
        metric: of their scores.

    Returns:
        At most six sentences; none where there is nothing to say.
    """
    marked = sorted(
        (trial for trial in trials if trial.overfits), key=lambda trial: _weight(trial, metric), reverse=True
    )
    told: dict[Body, Trial] = {}
    for trial in marked:
        told.setdefault(trial.body, trial)
    first = list(told.values())[:_N_TOLD]
    sentences = [_sentence(trial, trials, metric) for trial in first]
    n_more = len(marked) - len(first)
    if n_more > 0:
        verb = "overfits" if n_more == 1 else "overfit"
        sentences.append(f"{counted(n_more, 'more trial')} {verb}: see the column `overfits` of to_frame().")
    return (*sentences, *_of_full_fits(trials, metric))


def _overfits(trial: Trial, metric: Metric) -> bool:
    fit = _fit(trial, metric)
    return fit is not None and fit.overfits


def _fit(trial: Trial, metric: Metric) -> Fit | None:
    """`None` for what was not trained by epochs, or by a version that did not score them."""
    if not trial.rung_scores or len(trial.train_scores) != len(trial.rung_scores) or trial.score_se is None:
        return None
    return fit_of(trial.train_scores, trial.rung_scores, metric, standard_error=trial.score_se)


def _weight(trial: Trial, metric: Metric) -> tuple[bool, float]:
    return trial.on_front, to_maximised(metric, trial.score or 0.0)


def _sentence(trial: Trial, trials: Sequence[Trial], metric: Metric) -> str:
    fit = _fit(trial, metric)
    assert fit is not None
    best, end = (trial.rung_scores[epoch - 1] for epoch in (fit.best_epoch, fit.end_epoch))
    before, after = (trial.train_scores[epoch - 1] for epoch in (fit.best_epoch, fit.end_epoch))
    training = f"goes from {shown(metric, before)} to {shown(metric, after)} on the training pictures"
    if fit.full_epoch is not None:
        training = f"fits the training pictures fully by epoch {fit.full_epoch}"
    kept = f" Its weights are those of epoch {fit.best_epoch}, before that." if trial.state == "finished" else ""
    return (
        f"{name_of(trial)} {training} while {metric.name} in validation goes from {shown(metric, best)} in epoch "
        f"{fit.best_epoch} to {shown(metric, end)}: {_remedy(trial, trials, metric)}.{kept}"
    )


def _remedy(trial: Trial, trials: Sequence[Trial], metric: Metric) -> str:
    rates = sorted({other.lr for other in trials if other.lr is not None})
    is_fast = trial.lr in rates[len(rates) - len(rates) // 3 :]
    heads = [other for other in trials if other.n_unfrozen == 0 and other.body == trial.body]
    is_head_full = any(is_full(score, metric) for head in heads for score in head.train_scores)
    rate = f"lower the rate, since {trial.lr:.1e} is among the highest tried, or " if is_fast else ""
    if is_head_full:
        return f"{rate}give more pictures or augmented ones, since even its head on frozen features fits these fully"
    return f"{rate}freeze more"


def _of_full_fits(trials: Sequence[Trial], metric: Metric) -> list[str]:
    """Where the best of all, or the best fine-tuned one of the front, has nothing left to learn from these pictures."""
    finished = [trial for trial in trials if trial.state == "finished" and trial.score is not None]
    tuned = [trial for trial in finished if trial.n_unfrozen > 0]
    is_alone = not tuned
    bests = [max(of, key=lambda trial: _weight(trial, metric)[1], default=None) for of in (finished, _on_front(tuned))]
    told = {trial.number: trial for trial in bests if trial is not None and not trial.overfits}
    return [
        f"{name_of(trial)} {fully} and has {shown(metric, trial.score or 0.0)} of {metric.name} in validation: "
        f"{_help(trial, is_alone=is_alone)} may help it."
        for trial in told.values()
        if (fully := _full_fit(trial, metric)) is not None
    ]


def _on_front(trials: Sequence[Trial]) -> list[Trial]:
    return [trial for trial in trials if trial.on_front]


def _full_fit(trial: Trial, metric: Metric) -> str | None:
    """That training pictures are fitted fully while validation stays behind by more than chance; `None` if not so."""
    fit = _fit(trial, metric)
    place = 0 if fit is None else fit.best_epoch - 1
    training = trial.train_scores[place] if len(trial.train_scores) > place else math.nan
    is_behind = to_maximised(metric, training - (trial.score or 0.0)) > _N_ERRORS * (trial.score_se or 0.0)
    if fit is None:
        return "fits the training pictures fully" if is_full(training, metric) and is_behind else None
    return f"fits the training pictures fully by epoch {fit.full_epoch}" if fit.full_epoch and is_behind else None


def _help(trial: Trial, *, is_alone: bool) -> str:
    """What a further search may try; of what is not a matter of pictures, only what `space=` takes."""
    if trial.n_unfrozen == 0:
        return "more pictures, or unfreezing blocks," if is_alone else "more pictures, or augmented ones,"
    fewer = " fewer unfrozen blocks," if trial.n_unfrozen > 1 else ""
    return f"more pictures, or augmented ones,{fewer} or more weight decay (space={{'weight_decay': (1e-3, 1e-1)}})"

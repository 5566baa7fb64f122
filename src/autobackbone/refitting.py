"""A second network beside a trial's: trained on more pictures, and compared on those that neither has seen."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray
from torch import nn

from autobackbone.choosing import name_of
from autobackbone.errors import ArgumentError, RunError, TrialDiskError
from autobackbone.loading import RunReader
from autobackbone.metrics import Metric, interval, paired_interval, scale_of, score, shown, to_maximised
from autobackbone.records import Budget, Part, RefitOn, Trial, as_budget, counted
from autobackbone.retraining import Again, Retrainer
from autobackbone.search.trialfiles import save_weights

_TRAINED: Mapping[RefitOn, tuple[Part, ...]] = {"train": ("train",), "train+val": ("train", "validation")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Refit:
    """A chosen candidate, trained once more; nothing in the run is replaced by it.

    Args:
        trial: what was trained again.
        on: `train+val` for training and validation pictures, `train` for the training part alone.
        model: as `Selection.model` gives one, with `.transform` and `.classes`.
        n_epochs: that it was trained; 0 for a frozen network with a new head.
        seconds: that it took.
        n_test: test pictures that it is scored on: those without a copy in what it was trained on, or all, where each
            has one.
        test_score: on these, in the metric's own sign and unit; NaN where there are none.
        test_score_low: lower end of its 95 % interval.
        test_score_high: upper end of the same.
        gain: how much better it is than the trial's own network on the same test pictures, positive where better
            whatever the metric's orientation; NaN where that network cannot be had.
        gain_low: lower end of the gain's 95 % interval.
        gain_high: upper end of the same.
        path: the file of its weights; `None` where they could not be written: then `model` alone holds them, and a
            process that ends takes them along.
        sentence: what that comes to, and why nothing was written, if so.
    """

    trial: Trial
    on: RefitOn
    model: nn.Module = field(repr=False)
    n_epochs: int
    seconds: float
    n_test: int
    test_score: float
    test_score_low: float
    test_score_high: float
    gain: float
    gain_low: float
    gain_high: float
    path: Path | None
    sentence: str

    def __str__(self) -> str:
        """What it comes to."""
        return self.sentence


def until_of(on: RefitOn, budget: Budget | float | str) -> float | None:
    """`time.monotonic()` at which a training that begins now has to end.

    Raises:
        ArgumentError: `on` is something else.
        BudgetError: the budget is none.
    """
    if on not in get_args(RefitOn):
        raise ArgumentError(f"on is 'train+val' or 'train', not {on!r}.")
    seconds = as_budget(budget).wall_clock_s
    return None if seconds is None else time.monotonic() + seconds


def refit(reader: RunReader, retrainer: Retrainer, trial: Trial, on: RefitOn, until: float | None) -> Refit:
    """Train a trial once more, keep its network beside the first, and compare the two.

    Where it cannot be kept, for want of room or rights, it is given all the same, with a warning: it took its time.

    Args:
        reader: of the run.
        retrainer: of the run, with its pictures.
        trial: what is trained again.
        on: which pictures it is trained on.
        until: `time.monotonic()` by which training has ended.
    """
    again, metric = retrainer.refitted(trial, on, until), retrainer.metric
    path, problem = _kept(reader, trial, on, again.network)
    before = _said_before(reader, retrainer, trial)
    is_leaked, model = reader.leaked("test", _TRAINED[on]), reader.dressed(again.network, trial)
    # A copy of what only the second one was trained on would flatter it; where all are copies, there is nothing better.
    judging = np.ones_like(is_leaked) if is_leaked.all() else ~is_leaked
    labels, said = reader.labels("test")[judging], again.test[judging]
    test = low = high = gain = gain_low = gain_high = math.nan
    if len(labels):
        test, (low, high) = score(metric, said, labels), interval(metric, said, labels)
    if len(labels) and before is not None:
        gain = to_maximised(metric, test - score(metric, before[judging], labels))
        gain_low, gain_high = paired_interval(metric, said, before[judging], labels)
    return Refit(
        trial=trial,
        on=on,
        model=model,
        n_epochs=again.n_epochs,
        seconds=again.seconds,
        n_test=len(labels),
        test_score=test,
        test_score_low=low,
        test_score_high=high,
        gain=gain,
        gain_low=gain_low,
        gain_high=gain_high,
        path=path,
        sentence=f"{_training(trial, again, on)}: {_scores(metric, test, (gain, gain_low, gain_high), is_leaked)}."
        + problem,
    )


def _said_before(reader: RunReader, retrainer: Retrainer, trial: Trial) -> NDArray[np.float32] | None:
    """What the trial's own network says of the test part, confirmed or not; `None` where it cannot be had."""
    try:
        if reader.has_predictions(trial, "test"):
            return reader.predictions(trial, "test")
        return retrainer.predicted(trial, reader.network(trial), "test") if reader.has_network(trial) else None
    except RunError:  # its file is damaged: that must not cost the new network
        return None


def _kept(reader: RunReader, trial: Trial, on: RefitOn, network: nn.Module) -> tuple[Path | None, str]:
    """Where a network was written, or `None` and what is to be said of that."""
    name = f"refit-{on.replace('+', '-')}.safetensors"
    try:
        return save_weights(reader.run, trial.number, network.state_dict(), name=name), ""
    except (TrialDiskError, RunError, OSError) as error:
        problem = (
            f"its weights could not be kept in the run: {str(error).rstrip('.')}. They are in the memory of this "
            "process alone: save .model.state_dict() elsewhere"
        )
        warnings.warn(f"the refit of trial {trial.number} is not kept: {problem}.", stacklevel=4)
        return None, f" But {problem}."


def _training(trial: Trial, again: Again, on: RefitOn) -> str:
    on_what = "training and validation pictures" if on == "train+val" else "the training pictures"
    how = f"in {counted(again.n_epochs, 'epoch')}" if again.n_epochs else "as a frozen network with a new head"
    return f"{name_of(trial)}, trained again on {on_what} {how} in {again.seconds:.0f} s"


def _scores(metric: Metric, test: float, gain: tuple[float, float, float], is_leaked: NDArray[np.bool_]) -> str:
    if not is_leaked.size:
        return "there is no test part to score it on"
    on_which = _on_which(is_leaked)
    if math.isnan(test):
        return f"its test {metric.name} is not defined{on_which}"
    scored = f"test {metric.name} {shown(metric, test)}{on_which}"
    if math.isnan(gain[0]):
        return f"{scored}; the trial's own network cannot be had any more, so that they are not compared"
    scale, unit = scale_of(metric)
    difference, low, high = (scale * value for value in gain)
    verdict = "which may be chance"
    if not low <= 0 <= high:
        verdict = f"more than chance: use {'this one' if low > 0 else 'the network before'}"
    return f"{scored}, {difference:+.2g} ({low:+.2g} to {high:+.2g}){unit} against the network before, {verdict}"


def _on_which(is_leaked: NDArray[np.bool_]) -> str:
    if not is_leaked.any():
        return ""
    if is_leaked.all():
        return " on test pictures that all have a copy among those it was trained on"
    n_new = int((~is_leaked).sum())
    return f" on the {n_new:,} of {len(is_leaked):,} test pictures without a copy among those it was trained on"

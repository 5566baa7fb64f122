"""Which of backbone, image size, depth and rate the scores of a run hung on."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

from autobackbone.metrics import Metric, to_maximised
from autobackbone.records import Trial, counted

FEWEST = 20
"""Finished trials below which nothing is said: of so many a quarter are five, the fewest that the method asks for."""
_BEST_SHARE = 0.25
_BACKBONE, _SIZE, _DEPTH, _RATE = "backbone", "image size", "depth", "learning rate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Importance:
    """What the best scores of a run have in common.

    Args:
        shares: of backbone, image size, depth and learning rate, the largest first; they add up to 1. Empty where
            there are too few trials, or none of them differed.
        n_trials: finished trials that it stands on.
        how: what the shares mean, or why there are none.
    """

    shares: tuple[tuple[str, float], ...]
    n_trials: int
    how: str


def importance_of(trials: Sequence[Trial], metric: Metric) -> Importance:
    """Ask by what the best quarter of the finished trials differs from all of them.

    By PED-ANOVA, which needs nothing but NumPy and holds for a rate that only fine-tuned trials have. Where the search
    looked decides, too: it tries more of what was good, and these are no causes.

    Args:
        trials: of one run; those that did not finish are left out.
        metric: of the scores.

    Source: Watanabe et al. 2023, PED-ANOVA; as implemented by Optuna.
    """
    finished = [one for one in trials if one.state == "finished" and one.score is not None and math.isfinite(one.score)]
    if len(finished) < FEWEST:
        have = f"{counted(len(finished), 'trial')} {'has' if len(finished) == 1 else 'have'} finished"
        return Importance(shares=(), n_trials=len(finished), how=f"{have}: too few to tell; it takes {FEWEST}.")
    varied = _varied(finished)
    if not varied:
        how = "the finished trials differ in none of backbone, image size, depth and learning rate."
        return Importance(shares=(), n_trials=len(finished), how=how)
    study = _study(finished, varied, metric)
    evaluator = PedAnovaImportanceEvaluator(target_quantile=_BEST_SHARE)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        found = get_param_importances(study, evaluator=evaluator, params=list(varied))
    shares = sorted(found.items(), key=lambda item: -item[1])
    return Importance(
        shares=tuple((name, float(share)) for name, share in shares),
        n_trials=len(finished),
        how=f"By what the best quarter of {counted(len(finished), 'finished trial')} differs from all of them "
        "(PED-ANOVA). The search tries more of what was good, so that this is a hint, and no cause.",
    )


def _varied(finished: Sequence[Trial]) -> dict[str, BaseDistribution]:
    """What differs among them, and between which values; what does not explains nothing."""
    backbones = sorted({trial.backbone for trial in finished})
    sizes = sorted({trial.image_size for trial in finished})
    depths = [trial.n_unfrozen for trial in finished]
    rates = [trial.lr for trial in finished if trial.lr is not None and trial.lr > 0]
    found: dict[str, BaseDistribution] = {}
    if len(backbones) > 1:
        found[_BACKBONE] = CategoricalDistribution(backbones)
    if len(sizes) > 1:
        found[_SIZE] = CategoricalDistribution([_sized(size) for size in sizes])
    if min(depths) < max(depths):
        found[_DEPTH] = IntDistribution(min(depths), max(depths))
    if rates and min(rates) < max(rates):
        found[_RATE] = FloatDistribution(min(rates), max(rates), log=True)
    return found


def _study(finished: Sequence[Trial], varied: dict[str, BaseDistribution], metric: Metric) -> optuna.Study:
    """In memory, of these alone: what a run's own study says of parameters may be from elsewhere."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        storage=optuna.storages.InMemoryStorage(), direction="maximize", study_name="importance"
    )
    for trial in finished:
        assert trial.score is not None
        values = {_BACKBONE: trial.backbone, _SIZE: _sized(trial.image_size), _DEPTH: trial.n_unfrozen, _RATE: trial.lr}
        own = {name: value for name, value in values.items() if name in varied and value is not None}
        made = optuna.trial.create_trial(
            params=own, distributions={name: varied[name] for name in own}, value=to_maximised(metric, trial.score)
        )
        study.add_trial(made)
    return study


def _sized(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"

"""Trials at their beginning: a frozen network with its head, and what is known of any candidate before it is tried."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from torch import nn

from autobackbone.choosing import comparable
from autobackbone.convexhead import Floats
from autobackbone.costrecord import CostEntry
from autobackbone.errors import TrialError
from autobackbone.metrics import Metric, to_maximised
from autobackbone.records import Candidate, Priced, Trial
from autobackbone.screening import Features, Screened, Tap, screen
from autobackbone.search import trialfiles
from autobackbone.search.extras import CLASS_WEIGHTS
from autobackbone.search.study import add_screened, next_number
from autobackbone.search.workshop import Workshop

# Of planted wrong labels three judges together found more than any of them alone (docs/benchmarks/suspects.md).
_N_JUDGES = 3
# What one file of out-of-fold predictions may take of the disk.
_MOST_BYTES = 100_000_000


def keep(shop: Workshop, priced: Priced, screened: Screened | None) -> Trial | None:
    """Put a frozen network and its head into the study; `None` where there is no score."""
    if screened is not None:
        seen_s = screened.seconds_per_image
        screened = replace(
            screened, seconds_per_image=shop.record.seconds(f"forward pass of {priced.body}", lambda: seen_s)
        )
    trial = frozen_trial(shop, priced, screened)
    if screened is None or trial is None:
        return None
    # Files first: a process that dies in between leaves a file too many, never a finished trial without its head.
    trial = replace(trial, number=next_number(shop.study))
    trialfiles.save_head(shop.run, trial.number, screened.head)
    trialfiles.save_predictions(shop.run, trial.number, trialfiles.VALIDATION, screened.predictions)
    add_screened(shop.study, shop.space, trial)
    shop.heads[priced.body] = (trial.number, screened.head)
    shop.costs.forward_s[priced.body] = screened.seconds_per_image
    shop.tell(trial)
    _keep_out_of_fold(shop, trial, screened.out_of_fold)
    return trial


def judges_of(trials: Sequence[Trial], metric: Metric) -> list[Trial]:
    """The frozen trials that judge labels: the few with the best scores, the best first."""
    frozen = comparable([trial for trial in trials if trial.n_unfrozen == 0])
    return sorted(frozen, key=lambda one: (-to_maximised(metric, one.score or 0.0), one.number))[:_N_JUDGES]


def _keep_out_of_fold(shop: Workshop, trial: Trial, out_of_fold: Floats | None) -> None:
    """As long as it judges: who does so no more loses its file. No trial fails for it."""
    judges = {judge.number for judge in judges_of(shop.trials(), shop.metric)}
    for number, _ in shop.heads.values():
        if number not in judges:
            shop.run.remove_trial_files(number, trialfiles.OUT_OF_FOLD)
    if trial.number not in judges or out_of_fold is None or out_of_fold.nbytes > _MOST_BYTES:
        return
    try:
        trialfiles.save_predictions(shop.run, trial.number, trialfiles.OUT_OF_FOLD, out_of_fold)
    except TrialError as error:
        shop.reporter.say(f"trial {trial.number} judges no labels: {error}")


def frozen_trial(shop: Workshop, priced: Priced, screened: Screened | None) -> Trial | None:
    """A finished one, its number 0; `None` where there is no score."""
    if screened is None or not math.isfinite(score := shop.validation_score(screened.predictions)):
        return None
    n_train = len(shop.bundle.indices("train"))
    part = "" if screened.n_train == n_train else f" of {screened.n_train:,} of {n_train:,} training pictures"
    is_scored = np.logical_not(np.isnan(screened.predictions).any(axis=1))
    scored = "" if is_scored.all() else f", scored on {is_scored.sum():,} of {len(is_scored):,} validation pictures"
    candidate = Candidate(**priced.body._asdict(), n_unfrozen=0)
    return replace(
        begun_trial(shop, priced, candidate),
        state="finished",
        reason=f"a linear head on frozen features{part}{scored}",
        score=score,
        train_scores=(shop.train_score(screened.train_predictions, screened.train_labels),),
        score_se=shop.validation_se(screened.predictions),
        balanced_score=shop.balanced_score(screened.predictions),
        train_seconds=screened.seconds,
        finished_at_s=shop.clock.run_s(),
        extras={
            "strength": screened.head.strength,
            "forward_s": screened.seconds_per_image,
            "scored_share": float(is_scored.mean()),
            "fitted_share": screened.n_train / n_train,
            "n_validation": len(is_scored),
            **({CLASS_WEIGHTS: shop.space.head_weights} if CLASS_WEIGHTS in shop.space.extras else {}),
        },
    )


def begun_trial(shop: Workshop, priced: Priced, candidate: Candidate) -> Trial:
    """What is known of a candidate before it is tried; its number is 0."""
    return replace(
        candidate.begun(priced.n_blocks, latency_ms=priced.latency.p50_ms),
        latency_p95_ms=priced.latency.p95_ms,
        latency_noise_ms=priced.latency.noise_ms,
        images_per_s=priced.latency.images_per_s,
        preprocess_ms=priced.preprocess_ms,
        n_params=priced.n_params,
        megabytes=priced.megabytes,
        resize=shop.bundle.preparation.resize,
    )


def one_pass(
    shop: Workshop,
    priced: Priced,
    network: nn.Module,
    *,
    until: float | None,
    head_until: float | None,
    n_most: int | None = None,
    taps: Sequence[Tap] = (),
    on_features: Callable[[Features], None] | None = None,
) -> Screened | None:
    """One pass and one head; as `screening.screen` gives them."""
    return screen(
        network,
        shop.bundle,
        priced.image_size,
        shop.source.normalisation(priced.backbone),
        seed=shop.seed,
        device=shop.device,
        precision=shop.target.precision,
        until=until,
        head_until=head_until,
        n_most=n_most,
        on_progress=lambda done: shop.reporter.progress(
            shop.use_share(), f"screening {priced.body}: {100 * done:.0f} %"
        ),
        taps=taps,
        on_features=on_features,
        class_weights=shop.space.head_weights,
        entry=CostEntry(shop.record, f"pass of {priced.body}"),
    )

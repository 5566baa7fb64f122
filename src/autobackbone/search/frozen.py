"""Trials at their beginning: a frozen network with its head, and what is known of any candidate before it is tried."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from autobackbone.choosing import trial_line
from autobackbone.records import Candidate, Priced, Trial
from autobackbone.screening import Screened
from autobackbone.search import trialfiles
from autobackbone.search.extras import CLASS_WEIGHTS
from autobackbone.search.study import add_screened, next_number
from autobackbone.search.workshop import Workshop


def keep(shop: Workshop, priced: Priced, screened: Screened | None) -> Trial | None:
    """Put a frozen network and its head into the study; `None` where there is no score."""
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
    shop.reporter.say(trial_line(trial, shop.metric))
    return trial


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
        score_se=shop.validation_se(screened.predictions),
        balanced_score=shop.balanced_score(screened.predictions),
        train_seconds=screened.seconds,
        finished_at_s=shop.clock.run_s(),
        extras={
            "strength": screened.head.strength,
            "forward_s": screened.seconds_per_image,
            "scored_share": float(is_scored.mean()),
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

"""Trainings of a small module by one process or by several: `python -m tests.training.together RANK N FOLDER`."""

import json
import math
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from autobackbone.errors import MetricError, TrialError
from autobackbone.training.fit import Trainee, fit
from autobackbone.training.objective import Objective
from autobackbone.training.pausing import Leg
from autobackbone.training.ranks import Ranks, join
from autobackbone.training.recipe import Recipe
from autobackbone.training.rows import Rows

CPU = torch.device("cpu")
# The last batch has a single row: the second rank has none of its own.
N_TRAIN, N_VALIDATION, BATCH = 17, 7, 8
RECIPE = Recipe(lr=0.03, n_epochs=3, batch_size=BATCH, weight_decay=0.1, seed=3)


class Small(nn.Module):
    def __init__(self, *, has_batch_norm=False):
        super().__init__()
        middle = nn.BatchNorm1d(8) if has_batch_norm else nn.Tanh()
        self.layers = nn.Sequential(nn.Linear(6, 8), middle, nn.Linear(8, 3))
        self.idle = nn.Parameter(torch.ones(2))  # on which no output depends

    def forward(self, x):
        return self.layers(x)


def trained(ranks, *, recipe=RECIPE, weights="none", n_validation=N_VALIDATION, values=None, score=None, **how):
    torch.manual_seed(0)
    module = Small(has_batch_norm=how.pop("has_batch_norm", False))
    generator = np.random.default_rng(1)
    stored = generator.normal(size=(N_TRAIN + N_VALIDATION, 6)).astype(np.float32)
    labels = generator.integers(3, size=len(stored))
    views = [stored, stored + generator.normal(size=stored.shape).astype(np.float32)]
    if values is not None:
        views = [values(stored)]
    own = labels[N_TRAIN:][:n_validation]
    places = np.tile(np.arange(N_TRAIN), (len(views), 1))
    trainee = Trainee(
        module=module,
        set_mode=module.train,
        prepare=lambda x: x,
        train=Rows(views, places, labels[:N_TRAIN]),
        validation=Rows(views[:1], np.arange(N_TRAIN, N_TRAIN + n_validation)[None], own),
        device=CPU,
        objective=Objective.of("classification", labels[:N_TRAIN], class_weights=weights),
    )

    def likelihood(said, of):
        return float(np.log(said[np.arange(len(of)), of] + 1e-6).mean())

    outcome = fit(
        trainee,
        recipe,
        score or (lambda said: likelihood(said, own)),
        score_passed=likelihood,
        ranks=ranks,
        **how,
    )
    return {
        "rung_scores": outcome.rung_scores,
        "train_scores": outcome.train_scores,
        "weights": {name: tensor.tolist() for name, tensor in sorted(outcome.weights.items())},
        "n_epochs": outcome.n_epochs,
        "is_cut_short": outcome.is_cut_short,
        "predictions": outcome.predictions.tolist() if ranks.is_first else [],
    }


def told(do):
    try:
        return do()
    except Exception as error:  # noqa: BLE001  what it was is asked
        return {"error": type(error).__name__, "message": str(error)}


def with_nan(stored):
    stored = stored.copy()
    stored[3] = math.nan
    return stored


def undefined(_):
    raise MetricError("not defined")


def cases(ranks, folder):
    """What trainings give, by name."""
    now, later = time.monotonic(), time.monotonic() + 1000
    paused = Leg(checkpoint=folder / f"by {ranks.n}.ckpt", pause_at=1)
    nowhere = Leg(checkpoint=folder / "none" / "checkpoint.ckpt", pause_at=1)
    return {
        "plain": trained(ranks),
        "in two passes": trained(ranks, recipe=replace(RECIPE, batch_size=BATCH // 2, accumulate=2)),
        "balanced": trained(ranks, recipe=replace(RECIPE, sampling="balanced"), weights="balanced"),
        "one row to score": trained(ranks, n_validation=1),
        "nothing to score": trained(ranks, n_validation=0),
        "paused": trained(ranks, leg=paused),
        "went on": trained(ranks, leg=Leg(checkpoint=paused.checkpoint, n_before=1)),
        "nowhere": trained(ranks, leg=nowhere) | {"is_there": nowhere.checkpoint.exists()},
        "statistics": trained(ranks, recipe=replace(RECIPE, batch_size=N_TRAIN), has_batch_norm=True),
        "statistics of few": trained(ranks, recipe=replace(RECIPE, batch_size=3), has_batch_norm=True),
        "statistics of one": told(lambda: trained(ranks, has_batch_norm=True)),
        "a number that is none": told(lambda: trained(ranks, values=with_nan)),
        "a score that is none": told(lambda: trained(ranks, score=undefined)),
        "late at the first": told(lambda: trained(ranks, until=now - 1 if ranks.is_first else later)),
        "late at the others": told(lambda: trained(ranks, until=later if ranks.is_first else now - 1)),
        "a decision": ranks.agreed(lambda: {"by": ranks.rank, "nan": [math.nan, 0.1 + 0.2]}),
        "gathered": [part.tolist() for part in ranks.gathered(torch.arange(3 * ranks.rank, dtype=torch.float32))],
        "a failure": told(lambda: ranks.agreed(_fail)),
        "plain again": trained(ranks),
    }


def _fail():
    raise TrialError("a reason")


def main():
    torch.set_num_threads(1)
    ranks, folder = Ranks(rank=int(sys.argv[1]), n=int(sys.argv[2])), Path(sys.argv[3])
    join(ranks, folder / "meeting", CPU)
    (folder / f"{ranks.rank}.json").write_text(json.dumps(cases(ranks, folder)))
    # Whoever ends first must not be missed by the other in the midst of its last training.
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()

"""What a worker process does: it is set up once, then trains one leg after the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import save_file

from autobackbone.backbones.tensors import own_tensors
from autobackbone.errors import TrialError
from autobackbone.memory import memory_errors_translated
from autobackbone.running.crossing import (
    COSTS,
    PREDICTIONS,
    WEIGHTS,
    is_within_reach,
    outcome_facts,
    read_dealt,
    read_job,
    read_setup,
    told_of_disk,
)
from autobackbone.running.failures import facts_of, is_broken_by
from autobackbone.running.group import MEETING
from autobackbone.training.ranks import FollowedError, Ranks, join
from autobackbone.training.stores import Settled
from autobackbone.training.tuner import Tuner

Answer = Mapping[str, Any]


def serve(orders: Iterable[Mapping[str, Any]], answer: Callable[[Answer], None]) -> None:
    """Carry out orders: `set up` first, then `train` and `let go`; all but the last are answered.

    Args:
        orders: as `WorkerTuner` gives them.
        answer: tells the parent.
    """
    tuner: Tuner | None = None
    for order in orders:
        if order["do"] == "let go":
            if tuner is not None:
                tuner.let_go()
            continue
        try:
            if order["do"] == "set up":
                tuner = _set_up(order)
                answer({"is": "ready"})
            else:
                assert tuner is not None  # it was set up
                answer(trained(tuner, order))
        except Exception as error:  # noqa: BLE001  a bug, too, is the parent's to tell
            n_measured = 0 if tuner is None else tuner.stores.record.n_measured
            follows = isinstance(error, FollowedError)
            answer({"is": "failed", "n_measured": n_measured, "follows": follows, **facts_of(error)})
            if is_broken_by(error):
                return  # the parent begins another process


def _set_up(order: Mapping[str, Any]) -> Tuner:
    folder, ranks = Path(order["folder"]), Ranks(rank=order["rank"], n=order["n_ranks"])
    tuner = read_setup(folder, ranks)
    if ranks.n > 1:
        join(ranks, folder / MEETING, tuner.stores.device)
    return tuner


def trained(tuner: Tuner, order: Mapping[str, Any]) -> Answer:
    """Train a leg; the network and its predictions lie in the folder of the job then. Of several ranks the first one
    writes and tells.
    """
    folder = Path(order["folder"])
    tuner = read_dealt(folder, order["dealt"], tuner)
    stores = tuner.stores
    stores.record.file, stores.record.n_measured = folder / COSTS if tuner.ranks.is_first else None, 0
    candidate, head, leg = read_job(folder, order)
    at = (candidate.body, candidate.n_unfrozen)
    if not is_within_reach(stores.bundle, candidate.image_size):
        height, width = candidate.image_size
        raise TrialError(
            f"its pictures lie in memory, and decoded to {height}x{width} px they have no room on the disk. Raise "
            "cache_gb, or give workers=0"
        )
    stores.settle(*at, Settled(**order["settled"]))
    until = None if order["left_s"] is None else time.monotonic() + order["left_s"]
    network, outcome = tuner.tune(candidate, head, until=until, n_views=order["n_views"], leg=leg)
    if not tuner.ranks.is_first:
        return {"is": "trained"}
    with memory_errors_translated(), told_of_disk(folder):
        save_file(own_tensors(network.state_dict()), folder / WEIGHTS)
        np.save(folder / PREDICTIONS, outcome.predictions, allow_pickle=False)
    return {
        "is": "trained",
        "outcome": outcome_facts(outcome),
        "settled": stores.settled(*at).to_json(),
        "n_measured": stores.record.n_measured,
    }

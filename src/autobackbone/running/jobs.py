"""One training that is done elsewhere: what is sent for it, and what is made of the answer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from autobackbone.backbones.source import BackboneSource
from autobackbone.convexhead import Head
from autobackbone.errors import TrialError
from autobackbone.records import Candidate
from autobackbone.running.crossing import (
    COSTS,
    PREDICTIONS,
    WEIGHTS,
    outcome_of,
    told_of_disk,
    write_dealt,
    write_job,
)
from autobackbone.running.failures import error_of
from autobackbone.training.fit import Outcome
from autobackbone.training.pausing import Leg
from autobackbone.training.stores import Settled
from autobackbone.training.tuner import Tuner


def sent(folder: Path, local: Tuner, candidate: Candidate, head: Head, leg: Leg | None, n_views: int) -> dict[str, Any]:
    """Write what a training needs to an empty folder; the order, as plain data.

    Raises:
        TrialError: the disk is full.
    """
    stores = local.stores
    if stores.device.type == "cuda":
        torch.cuda.empty_cache()  # what this process keeps of the device, who trains could not have
    with told_of_disk(folder):
        job = {**write_job(folder, candidate, head, leg), "dealt": write_dealt(folder, stores)}
    settled = stores.settled(candidate.body, candidate.n_unfrozen).to_json()
    return {"do": "train", "folder": str(folder.absolute()), "n_views": n_views, **job, "settled": settled}


def take_costs(folder: Path, local: Tuner) -> None:
    """Note what was measured, also by a training that came to no end."""
    local.stores.record.take_over(folder / COSTS)


def received(
    folder: Path, local: Tuner, source: BackboneSource, candidate: Candidate, answer: Mapping[str, Any]
) -> tuple[nn.Module, Outcome]:
    """The network, in eval mode on the CPU, and what training gave, of files in a folder and the answer to the order.

    Raises:
        TrialError: the training failed, and says so; or another error that it tells.
    """
    stores = local.stores
    stores.record.add_measured(int(answer["n_measured"]))
    if answer["is"] == "failed":
        raise error_of(answer)
    stores.settle(candidate.body, candidate.n_unfrozen, Settled(**answer["settled"]))
    network = source.network(*candidate.body)
    try:
        predictions: NDArray[np.float32] = np.load(folder / PREDICTIONS, allow_pickle=False)
        network.load_state_dict(load_file(folder / WEIGHTS))
    except (OSError, ValueError, EOFError, SafetensorError) as error:
        raise TrialError(f"what its training wrote could not be read: {type(error).__name__}: {error}") from error
    return network.eval(), outcome_of(answer["outcome"], predictions)

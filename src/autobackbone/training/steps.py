"""How long a step of a training takes, and in which precision it multiplies: the faster one whose gradients agree.

On a server with matrix units, steps of ResNet18's last two blocks took 557 ms in float32 and 225 in bfloat16, those of
half a small ViT 1,150 and 660; those of EfficientNet-Lite0's last two blocks 232 and 370, since there is no fast way
back through a depthwise convolution in bfloat16. So each training measures its own. Weights, averages and the optimiser
stay in float32, and what scores is never rounded.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from autobackbone.training.fit import Trainee, forward
from autobackbone.training.recipe import Recipe, StepPrecision

# Well beyond noise: the same training should find the same precision every time on one machine.
_CLEARLY = 1.4
# Of all gradients together to those in float32.
_LEAST_COSINE = 0.95
_PROBE = 512
# So many rows tell which precision is faster, in a quarter of the time that a usual batch takes.
_N_ROWS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """What steps of a training are like here.

    Args:
        precision: in which they multiply.
        seconds: of one forward and backward pass of a batch, as a part of one tells; what trainings took tells better.
    """

    precision: StepPrecision
    seconds: float


def measured(trainee: Trainee, recipe: Recipe, precision: StepPrecision | None = None) -> Steps:
    """Time steps of real batches; no weight and no running statistic is changed.

    Args:
        trainee: what would be trained.
        recipe: how.
        precision: the one to take; `None` for the faster one that agrees.
    """
    first: StepPrecision = precision or "float32"
    seconds, gradient = _timed(trainee, recipe, first)
    if precision is not None:
        return Steps(precision=first, seconds=seconds)
    try:
        if not _multiplies_fast(trainee.device):
            return Steps(precision=first, seconds=seconds)
        rounded_s, rounded = _timed(trainee, recipe, "bfloat16")
    except (RuntimeError, TypeError):  # a layer that this device cannot do so
        trainee.module.zero_grad(set_to_none=True)
        return Steps(precision="float32", seconds=seconds)
    is_fast = seconds > _CLEARLY * rounded_s
    is_like = float(functional.cosine_similarity(gradient, rounded, dim=0)) >= _LEAST_COSINE
    if is_fast and is_like:
        return Steps(precision="bfloat16", seconds=rounded_s)
    return Steps(precision="float32", seconds=seconds)


def _timed(trainee: Trainee, recipe: Recipe, precision: StepPrecision) -> tuple[float, Tensor]:
    """Seconds of a step, the better of two, and its gradients as one vector."""
    trainee.set_mode()
    before = [buffer.clone() for buffer in trainee.module.buffers()]
    n_rows = min(_N_ROWS, recipe.batch_size, len(trainee.train))
    rows = np.arange(n_rows).tolist()
    seconds = []
    gradient = torch.empty(0)
    try:
        for _ in range(2):  # the first one also pays for memory and kernels
            with torch.random.fork_rng():
                torch.manual_seed(recipe.seed)  # drops out the same in both precisions
                begun = time.monotonic()
                stored_batch, labels = trainee.train[rows]
                outputs = forward(trainee, stored_batch.to(trainee.device), precision)
                torch.autograd.backward(trainee.objective.loss(outputs, labels.to(trainee.device)))
                if trainee.device.type != "cpu":
                    torch.accelerator.synchronize(trainee.device)
                seconds.append(time.monotonic() - begun)
            given = [parameter.grad for parameter in trainee.module.parameters() if parameter.grad is not None]
            gradient = torch.cat([one.flatten().float() for one in given])
            trainee.module.zero_grad(set_to_none=True)
    finally:
        for buffer, value in zip(trainee.module.buffers(), before, strict=True):
            buffer.copy_(value)
    return min(seconds) * min(recipe.batch_size, len(trainee.train)) / n_rows, gradient


@cache
def _multiplies_fast(device: torch.device) -> bool:
    """Whether this device multiplies matrices faster in bfloat16 at all: emulated, a step takes 13 times as long."""
    matrix = torch.ones(_PROBE, _PROBE, device=device)
    return 1.5 * _best_s(matrix.bfloat16()) < _best_s(matrix)


def _best_s(matrix: Tensor) -> float:
    seconds = []
    for _ in range(5):
        begun = time.perf_counter()
        float((matrix @ matrix)[0, 0])
        seconds.append(time.perf_counter() - begun)
    return min(seconds)

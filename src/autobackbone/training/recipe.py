"""How one candidate is trained: the numbers, and the learning rate at each step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from autobackbone.records import Balancing

StepPrecision = Literal["float32", "bfloat16"]
"""In which a step multiplies matrices; weights, averages and the optimiser stay in float32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """All numbers of one training.

    Args:
        lr: the constant rate between warm-up and decay.
        n_epochs: the last rung; validation is scored after each epoch.
        batch_size: pictures in one pass.
        accumulate: passes whose gradients make one step of the optimiser, and of the rate.
        weight_decay: of AdamW, on matrices and filters only.
        label_smoothing: share of the target spread over the other classes.
        warmup_epochs: in which the rate rises from 0: as long for a short training as for a long one, so that their
            early rungs can be compared.
        decay_share: share of all steps, the last ones, in which the rate falls to 0.
        seed: order of the pictures, dropout.
        precision: of the steps.
        sampling: `balanced` draws as many pictures an epoch with replacement, each class equally often.
    """

    lr: float
    n_epochs: int
    batch_size: int = 32
    accumulate: int = 1
    weight_decay: float = 0.01
    label_smoothing: float = 0.1
    warmup_epochs: float = 0.3
    decay_share: float = 0.3
    seed: int = 0
    precision: StepPrecision = "float32"
    sampling: Balancing = "none"


def lr_factor(step: int, n_steps_an_epoch: int, recipe: Recipe, *, is_decaying: bool = True) -> float:
    """The share of `recipe.lr` at a step: warm-up, then constant, then a straight decay towards the last rung.

    Constant in the middle, so that scores at early rungs are comparable: under one-cycle they fall near the peak and
    mislead.

    Args:
        step: of the optimiser, from 0.
        n_steps_an_epoch: of the optimiser.
        recipe: of the training.
        is_decaying: whether the last rung is the end; a training that pauses there stays at its rate.

    Example:
        >>> recipe = Recipe(lr=1e-3, n_epochs=2, warmup_epochs=0.4, decay_share=0.3)
        >>> [round(lr_factor(step, 5, recipe), 2) for step in range(10)]
        [0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.67, 0.33]
    """
    n_steps = n_steps_an_epoch * recipe.n_epochs
    n_warmup = max(1, round(n_steps_an_epoch * recipe.warmup_epochs))
    n_decay = max(1, round(n_steps * recipe.decay_share))
    rising = (step + 1) / n_warmup
    falling = (n_steps - step) / n_decay if is_decaying else 1.0
    return max(0.0, min(1.0, rising, falling))

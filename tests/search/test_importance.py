"""On runs of which it is known what their scores hang on."""

from dataclasses import replace

import numpy as np
import pytest

from autobackbone.metrics import metric_for
from autobackbone.records import Trial
from autobackbone.search.importance import FEWEST, importance_of

ACCURACY = metric_for("accuracy", n_outputs=8)
LOG_LOSS = metric_for("log_loss", n_outputs=8)


def run(score, n=60, seed=0):
    """Trials drawn at random; `score` of backbone, side, depth and the logarithm of the rate."""
    generator = np.random.default_rng(seed)
    trials = []
    for number in range(n):
        backbone, side = ("a.x", "b.x")[generator.integers(2)], (64, 96)[generator.integers(2)]
        depth, rate = int(generator.integers(0, 5)), float(generator.uniform(-5, -2))
        value = score(backbone, side, depth, rate) + float(generator.normal(0, 0.005))
        facts = {
            "state": "finished",
            "reason": "",
            "backbone": backbone,
            "image_size": (side, side),
            "n_unfrozen": depth,
        }
        lr = 10**rate if depth else None
        trials.append(Trial(number=number, n_blocks=5, lr=lr, score=value, latency_ms=1.0, **facts))
    return trials


@pytest.mark.parametrize(
    ("name", "score"),
    [
        ("backbone", lambda backbone, *_: 0.5 + 0.3 * (backbone == "a.x")),
        ("image size", lambda _, side, *__: 0.5 + 0.3 * (side == 96)),
        ("depth", lambda _, __, depth, ___: 0.5 + 0.08 * depth),
        ("learning rate", lambda _, __, depth, rate: 0.5 + 0.2 * (rate + 5) * (depth > 0)),
    ],
)
def test_what_the_scores_hang_on_comes_first_whatever_the_orientation(name, score):
    trials = run(score)
    found = importance_of(trials, ACCURACY)
    assert found.shares[0][0] == name
    assert sum(share for _, share in found.shares) == pytest.approx(1)
    losses = [replace(one, score=1 - one.score) for one in trials]
    assert importance_of(losses, LOG_LOSS).shares[0][0] == name


def test_of_few_trials_and_of_equal_ones_nothing_is_told():
    trials = run(lambda *_: 0.5, n=FEWEST)
    unfinished = [replace(trials[0], state="stopped"), *trials[1:]]
    few = importance_of(unfinished, ACCURACY)
    assert (few.shares, few.n_trials) == ((), FEWEST - 1)
    assert f"too few to tell; it takes {FEWEST}" in few.how
    alike = [replace(one, backbone="a.x", image_size=(64, 64), n_unfrozen=0, lr=None) for one in trials]
    assert "differ in none" in importance_of(alike, ACCURACY).how

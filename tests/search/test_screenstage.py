import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autobackbone.records import Body, Latency, Priced, Target
from autobackbone.search.costs import Costs
from autobackbone.search.screenstage import pass_s

TARGET = Target(device="cpu", batch_size=4)
NEW = Latency(p50_ms=8.0, p95_ms=9.0, noise_ms=0.1, images_per_s=500.0, n_repeats=9)
speeds = st.lists(st.floats(1.0, 1e4), min_size=1, max_size=7)


def known(images_per_s):
    """Pairs of these speeds on the target."""
    return {
        Body(f"net{i}", (96, 96)): Priced(
            backbone=f"net{i}",
            image_size=(96, 96),
            latency=replace(NEW, images_per_s=speed),
            n_blocks=5,
            n_params=10,
            megabytes=1.0,
        )
        for i, speed in enumerate(images_per_s)
    }


def forecast(images_per_s, slowness, latency=NEW):
    """After passes that took so many times as long as the target's speed says."""
    priced = known(images_per_s)
    took = {pair: times / one.latency.images_per_s for (pair, one), times in zip(priced.items(), slowness, strict=True)}
    return pass_s(latency, Costs(n_train=800, n_validation=200, forward_s=took), priced, TARGET)


@given(speeds, st.floats(0.01, 100.0))
def test_a_pass_takes_as_many_times_longer_as_the_passes_before(speeds, times):
    as_on_the_target = forecast([], [])
    assert as_on_the_target == pytest.approx(1000 / 500 * 1.1)
    assert forecast(speeds, [times] * len(speeds)) == pytest.approx(times * as_on_the_target)


@given(speeds, st.floats(0.01, 100.0))
def test_one_pass_that_was_held_up_changes_nothing(speeds, times):
    usual = [times] * (len(speeds) + 1)
    assert forecast([*speeds, 7.0, 9.0], [*usual, 1000 * times]) == pytest.approx(forecast([*speeds, 7.0], usual))


def test_where_no_large_batch_fits_the_single_passes_tell():
    assert forecast([], [], replace(NEW, images_per_s=math.nan)) == pytest.approx(1000 / 500 * 1.1)


def test_a_pair_that_ran_but_was_never_priced_says_nothing():
    costs = Costs(n_train=800, n_validation=200, forward_s={Body("gone", (96, 96)): 5.0})
    assert pass_s(NEW, costs, {}, TARGET) == forecast([], [])

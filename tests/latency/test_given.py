"""Latencies of a table are what is said of a network, and nothing is measured."""

import math

import pytest
from torch import nn

from autobackbone.errors import BackboneError, TargetError, TrialError
from autobackbone.latency.given import GivenLatencies
from autobackbone.records import Target
from autobackbone.timings import Timing

FULL = "resnet50.a1_in1k"
TABLE = (
    Timing(backbone="resnet50", image_size=(96, 96), latency_ms=10.0),
    Timing(backbone=FULL, image_size=(96, 96), n_blocks_kept=3, latency_ms=4.0, latency_p95_ms=6, latency_noise_ms=1.0),
)


def test_each_row_is_found_by_its_full_name_and_cut():
    given = GivenLatencies(TABLE)
    whole = given.measure(nn.Identity(), FULL, (96, 96), Target())
    assert (whole.p50_ms, whole.p95_ms, whole.noise_ms) == (10.0, 10.0, 0.2)
    assert math.isnan(whole.images_per_s)
    cut = given.measure(nn.Identity(), f"{FULL}, first 3 blocks", (96, 96), Target())
    assert (cut.p50_ms, cut.p95_ms, cut.noise_ms) == (4.0, 6.0, 1.0)
    assert given.has_cut(FULL, 3)
    assert not given.has_cut(FULL, 4)
    assert given.image_sizes(FULL) == ((96, 96),)
    assert given.backbones == (FULL,)


def test_what_the_table_lacks_is_told():
    given = GivenLatencies(TABLE)
    assert given.find(FULL, (96, 128), Target()) is None
    with pytest.raises(TrialError, match="the table of a phone has no latency of it"):
        given.measure(nn.Identity(), FULL, (96, 128), Target(name="a phone"))
    with pytest.raises(BackboneError, match="resnet5000"):
        GivenLatencies([Timing(backbone="resnet5000", image_size=(8, 8), latency_ms=1.0)])


def test_two_names_of_one_network_are_told():
    twice = (*TABLE, Timing(backbone=FULL, image_size=(96, 96), latency_ms=20.0))
    with pytest.raises(TargetError, match=f"as 'resnet50' and as '{FULL}'. Leave one"):
        GivenLatencies(twice)

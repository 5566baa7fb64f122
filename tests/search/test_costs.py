import math

import numpy as np
import pytest

from autobackbone.records import Body, Candidate
from autobackbone.search.costs import Costs

BODY = Body("net", (96, 96))


def candidate(n_unfrozen, size=96):
    return Candidate(backbone="net", image_size=(size, size), n_unfrozen=n_unfrozen, lr=1e-3)


@pytest.fixture
def costs():
    return Costs(n_train=800, n_validation=200, n_blocks={BODY: 8}, forward_s={BODY: 0.01})


def test_deeper_and_longer_is_dearer(costs):
    by_depth = [costs.expected_s(candidate(k), n_epochs=2) for k in range(1, 9)]
    assert all(np.diff(by_depth) > 0)
    assert costs.expected_s(candidate(2), n_epochs=4) > costs.expected_s(candidate(2), n_epochs=2)


def test_a_pair_that_never_ran_cannot_be_promised(costs):
    assert costs.expected_s(candidate(1, size=128), n_epochs=1) == math.inf


def test_what_was_measured_replaces_the_guess_and_corrects_the_others(costs):
    before = {k: costs.expected_s(candidate(k), n_epochs=10) for k in (2, 4)}
    costs.learn(candidate(2), epoch_s=100.0)
    assert costs.expected_s(candidate(2), n_epochs=10) == pytest.approx(1000.0, rel=0.01)
    assert costs.expected_s(candidate(4), n_epochs=10) > 10 * before[4]


def test_a_store_that_has_left_since_must_be_made_anew(costs):
    costs.learn(candidate(2), epoch_s=1.0, is_stored=True)
    gone, there = (costs.expected_s(candidate(2), 1, is_stored=is_stored) for is_stored in (False, True))
    assert gone == pytest.approx(there + 0.01 * 1000)
    costs.learn(candidate(4), epoch_s=1.0)  # there was none: its epochs took all of it
    assert costs.expected_s(candidate(4), 1) == pytest.approx(there)

import os
import time

import numpy as np
import pytest
import torch

from autobackbone.errors import TrialError
from autobackbone.training.activations import ActivationCache, stored


@pytest.fixture
def cache(tmp_path):
    return ActivationCache(folder=tmp_path / "activations", max_bytes=10_000)


def double(indices):
    return torch.from_numpy(np.stack([np.full((2, 3), 2.0 * i, np.float32) for i in indices]))


def test_a_store_holds_half_precision_rows_and_is_computed_once(cache):
    assert cache.has_room_for(100)
    path = cache.path(backbone="net", n_unfrozen=2)
    calls = []

    def compute(indices):
        calls.append(len(indices))
        return double(indices)

    first = stored(cache, path, compute, indices=np.array([0, 2, 5]), n_pictures=7)
    n_calls = len(calls)
    again = stored(cache, path, compute, indices=np.array([0, 2, 5]), n_pictures=7)
    assert len(calls) == n_calls
    assert first.dtype == np.float16
    assert not first.flags.writeable
    assert first[:, 0, 0].tolist() == [0, 0, 4, 0, 0, 10, 0]
    np.testing.assert_array_equal(first, again)


def test_activations_beyond_half_precision_are_kept_in_single(cache):
    assert cache.has_room_for(1)
    path = cache.path(backbone="large")
    store = stored(cache, path, lambda i: double(i) * 1e6, indices=np.arange(9), n_pictures=9)
    assert store.dtype == np.float32
    assert store[:, 1, 2].tolist() == [2e6 * i for i in range(9)]


def test_keys_tell_everything_apart(cache):
    paths = {cache.path(backbone=b, n_unfrozen=k) for b in ("a", "b") for k in (1, 2)}
    assert len(paths) == 4


def test_the_least_recently_used_store_leaves_first(tmp_path):
    cache = ActivationCache(folder=tmp_path, max_bytes=1_500)
    paths = [cache.path(number=number) for number in range(3)]
    for age, path in enumerate(paths[:2]):
        stored(cache, path, double, indices=np.arange(40), n_pictures=40)
        os.utime(path, (time.time() - 100 + age, time.time() - 100 + age))
    stored(cache, paths[0], double, indices=np.arange(40), n_pictures=40)  # used again
    stored(cache, paths[2], double, indices=np.arange(40), n_pictures=40)
    assert [path.is_file() for path in paths] == [True, False, True]


def test_what_does_not_fit_the_cap_has_no_room(cache):
    assert cache.has_room_for(10_000)
    assert not cache.has_room_for(10_001)


def test_a_store_that_is_given_up_leaves_nothing(cache):
    assert cache.has_room_for(1)
    path = cache.path(backbone="net")
    with pytest.raises(TrialError, match="time ended"):
        stored(cache, path, double, indices=np.arange(9), n_pictures=9, until=time.monotonic() - 1)
    with pytest.raises(TrialError, match="no numbers"):
        stored(cache, path, lambda i: double(i) * np.nan, indices=np.arange(9), n_pictures=9)
    assert list(cache.folder.iterdir()) == []

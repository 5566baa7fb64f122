import os
import shutil
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import torch

from autobackbone.errors import TrialError
from autobackbone.training import activations
from autobackbone.training.activations import ActivationCache, NoRoomError, StoreWriter, stored


@pytest.fixture
def cache(tmp_path):
    return ActivationCache(folder=tmp_path / "activations", max_bytes=10_000)


def double(indices):
    return torch.from_numpy(np.stack([np.full((2, 3), 2.0 * i, np.float32) for i in indices]))


def doubles(n, factor=1.0):
    """Rows 0 to n - 1, some at a time."""
    return lambda: (double(part) * factor for part in np.array_split(np.arange(n), -(-n // 32)))


def test_a_store_holds_half_precision_rows_and_is_computed_once(cache):
    path = cache.path(backbone="net", n_unfrozen=2)
    calls = []

    def compute():
        calls.append(1)
        yield double(np.array([2, 0]))
        yield double(np.array([5]))

    first = stored(cache, path, compute, n_rows=3)
    again = stored(cache, path, compute, n_rows=3)
    assert len(calls) == 1
    assert first.dtype == np.float16
    assert not first.flags.writeable
    assert first[:, 0, 0].tolist() == [4, 0, 10]
    np.testing.assert_array_equal(first, again)


def test_activations_beyond_half_precision_are_kept_in_single(cache):
    path = cache.path(backbone="large")
    store = stored(cache, path, doubles(9, 1e6), n_rows=9)
    assert store.dtype == np.float32
    assert store[:, 1, 2].tolist() == [2e6 * i for i in range(9)]


def test_keys_tell_everything_apart(cache):
    paths = {cache.path(backbone=b, n_unfrozen=k) for b in ("a", "b") for k in (1, 2)}
    assert len(paths) == 4


def test_the_least_recently_used_store_leaves_first(tmp_path):
    cache = ActivationCache(folder=tmp_path, max_bytes=1_500)
    paths = [cache.path(number=number) for number in range(3)]
    for age, path in enumerate(paths[:2]):
        stored(cache, path, doubles(40), n_rows=40)
        os.utime(path, (time.time() - 100 + age, time.time() - 100 + age))
    stored(cache, paths[0], doubles(40), n_rows=40)  # used again
    stored(cache, paths[2], doubles(40), n_rows=40)
    assert [path.is_file() for path in paths] == [True, False, True]


def test_a_store_that_is_held_open_stays_and_what_does_not_fit_beside_it_has_no_room(tmp_path):
    cache = ActivationCache(folder=tmp_path, max_bytes=1_500)
    paths = [cache.path(number=number) for number in range(4)]
    held = stored(cache, paths[0], doubles(40), n_rows=40)
    stored(cache, paths[1], doubles(40), n_rows=40)
    stored(cache, paths[2], doubles(40), n_rows=40)
    assert [path.is_file() for path in paths] == [True, False, True, False]
    assert stored(cache, paths[0], doubles(40), n_rows=40) is held
    with pytest.raises(NoRoomError, match="no room"):
        stored(cache, paths[3], doubles(100), n_rows=100)
    assert [path.is_file() for path in paths] == [True, False, True, False]  # nothing left in vain
    del held
    stored(cache, paths[3], doubles(100), n_rows=100)
    assert [path.is_file() for path in paths] == [False, False, False, True]


def test_stores_leave_for_the_free_disk_too(tmp_path):
    cache = ActivationCache(folder=tmp_path, max_bytes=2**62)
    free = shutil.disk_usage(tmp_path).free
    old = cache.path(name="old")
    with old.open("wb") as file:
        file.truncate(free // 2)  # sparse: it takes nothing, and counts as if it did
    with pytest.raises(NoRoomError, match="no room"):
        cache.make_room_for(2 * free)
    assert old.is_file()
    cache.make_room_for(int(free * 0.8))
    assert old.is_file()
    cache.make_room_for(int(free * 1.2))
    assert not old.is_file()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no disk that is always full")
def test_a_disk_that_fills_up_while_writing_is_no_room(cache):
    path = cache.path(backbone="net")
    cache.folder.mkdir()
    activations._aside(path).symlink_to("/dev/full")
    with pytest.raises(NoRoomError, match="no room"):
        stored(cache, path, doubles(200), n_rows=200)
    assert list(cache.folder.iterdir()) == []


def test_what_a_killed_process_left_goes_after_a_day(cache):
    cache.folder.mkdir()
    young, old = cache.folder / "a.1.part", cache.folder / "b.2.part"
    young.touch()
    old.touch()
    os.utime(old, (time.time() - 90_000, time.time() - 90_000))
    cache.make_room_for(1)
    assert young.exists()
    assert not old.exists()


def test_a_clock_that_is_set_costs_no_store_that_is_being_written(cache):
    """It looks a day old at once; another store, begun meanwhile, removes what is."""
    one, other = (StoreWriter(cache, cache.path(name=name), 4) for name in ("one", "other"))
    with one, other:
        one.add(double(range(2)))
        (aside,) = cache.folder.iterdir()
        os.utime(aside, (time.time() - 90_000,) * 2)
        other.add(double(range(4)))
        one.add(double(range(2, 4)))
    assert sorted(cache.folder.iterdir()) == sorted(cache.path(name=name) for name in ("one", "other"))


def test_a_store_that_another_process_takes_for_abandoned_has_no_room(cache):
    path = cache.path(name="net")
    with StoreWriter(cache, path, 4) as writer:
        writer.add(double(range(2)))
        (aside,) = cache.folder.iterdir()
        os.utime(aside, (time.time() - 90_000,) * 2)
        ActivationCache(folder=cache.folder, max_bytes=10_000).make_room_for(1)
        with pytest.raises(NoRoomError, match="was removed while it was written"):
            writer.add(double(range(2, 4)))
    assert list(cache.folder.iterdir()) == []


def test_what_a_process_that_was_ended_was_writing_goes_at_once(cache):
    cache.folder.mkdir()
    here = activations._HERE
    for name in (f"a.{here}-12.part", f"b.{here}-12.part", f"c.{here}-2.part", "e.elsewhere-12.part", "d.npy"):
        (cache.folder / name).touch()
    cache.remove_unfinished(12)
    assert {file.name for file in cache.folder.iterdir()} == {f"c.{here}-2.part", "e.elsewhere-12.part", "d.npy"}


def test_a_store_that_is_given_up_leaves_nothing(cache):
    path = cache.path(backbone="net")

    def breaking_off():
        yield double(range(5))
        assert len(list(cache.folder.iterdir())) == 1
        yield double(range(5, 9)) * np.nan

    with pytest.raises(TrialError, match="no numbers"):
        stored(cache, path, breaking_off, n_rows=9)
    assert list(cache.folder.iterdir()) == []
    with pytest.raises(TrialError, match="time ended"):
        stored(cache, path, doubles(9), n_rows=9, until=time.monotonic() - 1)
    assert list(cache.folder.iterdir()) == []


def test_stores_that_are_written_at_once_keep_the_cap_together(cache):
    with ExitStack() as stack:
        writers = [stack.enter_context(StoreWriter(cache, cache.path(number=n), 500)) for n in range(2)]
        writers[0].add(double(range(10)))
        with pytest.raises(NoRoomError, match="no room"):
            writers[1].add(double(range(10)))
        writers[0].give_up()
        assert list(cache.folder.iterdir()) == []
        writers[1].add(double(range(10)))
    assert not cache.promised


def test_a_store_that_another_process_removes_is_made_again(cache, monkeypatch):
    path = cache.path(number=0)
    stored(cache, path, doubles(9), n_rows=9)
    assert cache.opened(cache.path(number=1)) is None
    listed = Path.glob
    monkeypatch.setattr(Path, "glob", lambda self, pattern: [*listed(self, pattern), self / "gone.npy"])
    cache.make_room_for(1)
    path.unlink()
    assert len(stored(cache, path, doubles(9), n_rows=9)) == 9


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"no array at all", None])
def test_a_damaged_store_is_made_anew(cache, caplog, content):
    path = cache.path(number=0)
    whole = np.array(stored(cache, path, doubles(9), n_rows=9))
    path.write_bytes(path.read_bytes()[:-20] if content is None else content)
    np.testing.assert_array_equal(stored(cache, path, doubles(9), n_rows=9), whole)
    assert caplog.text.count("it is made anew") == 1

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autobackbone.running.devices import device_groups, idle_devices, idle_line, usual_workers, visible_devices


@pytest.mark.parametrize(
    ("n_devices", "devices_per_trial", "groups", "idle"),
    [
        (8, 1, [(i,) for i in range(8)], ()),
        (8, 2, [(0, 1), (2, 3), (4, 5), (6, 7)], ()),
        (8, 3, [(0, 1, 2), (3, 4, 5)], (6, 7)),
        (1, 2, [], (0,)),
        (0, 1, [], ()),
    ],
)
def test_devices_are_dealt_in_groups(n_devices, devices_per_trial, groups, idle):
    assert device_groups(n_devices, devices_per_trial) == groups
    assert idle_devices(n_devices, groups) == idle


@given(st.integers(0, 200), st.integers(1, 20))
def test_each_device_is_in_one_group_or_idle(n_devices, devices_per_trial):
    groups = device_groups(n_devices, devices_per_trial)
    idle = idle_devices(n_devices, groups)
    assert sorted([*(device for group in groups for device in group), *idle]) == list(range(n_devices))
    assert {len(group) for group in groups} <= {devices_per_trial}
    assert len(idle) < devices_per_trial


def test_what_stays_idle_is_told():
    assert idle_line(8, device_groups(8, 3)) == "2 of 8 GPUs stay idle: trials take 3 each"
    assert idle_line(7, device_groups(7, 2)) == "1 of 7 GPUs stays idle: trials take 2 each"
    assert idle_line(8, device_groups(8, 2)) is None
    assert idle_line(0, device_groups(0)) is None


@pytest.mark.parametrize(
    ("n_devices", "devices_per_trial", "n"), [(8, 2, 4), (8, 1, 8), (8, 16, 0), (1, 1, 0), (0, 1, 0)]
)
def test_where_nobody_says_so_each_group_of_several_devices_has_a_worker(n_devices, devices_per_trial, n):
    assert usual_workers(n_devices, devices_per_trial) == n


def test_devices_are_named_as_they_are_named_to_this_process():
    assert visible_devices((2, 3), None) == "2,3"
    assert visible_devices((1,), "6, 4") == "4"
    assert visible_devices((0, 1), "GPU-1f,GPU-2e,GPU-3d") == "GPU-1f,GPU-2e"

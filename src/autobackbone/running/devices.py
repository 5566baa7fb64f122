"""Which devices each group of worker processes has for itself."""

from __future__ import annotations

from collections.abc import Sequence

DeviceGroup = tuple[int, ...]
"""Numbers of devices, as this process counts them."""


def device_groups(n_devices: int, devices_per_trial: int = 1) -> list[DeviceGroup]:
    """As many groups as the devices make, each of the next ones in order; what is left over stays idle.

    Args:
        n_devices: that this process sees.
        devices_per_trial: devices of one group, at least 1.

    Example:
        >>> device_groups(8, 2)
        [(0, 1), (2, 3), (4, 5), (6, 7)]
        >>> device_groups(8, 3)
        [(0, 1, 2), (3, 4, 5)]
    """
    firsts = range(0, n_devices - devices_per_trial + 1, devices_per_trial)
    return [tuple(range(first, first + devices_per_trial)) for first in firsts]


def usual_workers(n_devices: int, devices_per_trial: int = 1) -> int:
    """How many workers train where nobody says so: one a group where there are several devices, else none, or one where
    each training takes several processes.

    Example:
        >>> usual_workers(8, 2), usual_workers(8), usual_workers(1), usual_workers(0), usual_workers(0, 2)
        (4, 8, 0, 0, 1)
    """
    return len(device_groups(n_devices, devices_per_trial)) if n_devices > 1 else int(devices_per_trial > 1)


def idle_devices(n_devices: int, groups: Sequence[DeviceGroup]) -> DeviceGroup:
    """Those that no group has.

    Example:
        >>> idle_devices(8, device_groups(8, 3))
        (6, 7)
    """
    busy = {device for group in groups for device in group}
    return tuple(device for device in range(n_devices) if device not in busy)


def idle_line(n_devices: int, groups: Sequence[DeviceGroup]) -> str | None:
    """What is told where some stay idle.

    Example:
        >>> idle_line(8, device_groups(8, 3))
        '2 of 8 GPUs stay idle: trials take 3 each'
        >>> idle_line(8, device_groups(8, 2)) is None
        True
    """
    idle = idle_devices(n_devices, groups)
    if not idle or not groups:
        return None
    stay = "stays" if len(idle) == 1 else "stay"
    return f"{len(idle)} of {n_devices} GPUs {stay} idle: trials take {len(groups[0])} each"


def visible_devices(group: DeviceGroup, given: str | None) -> str:
    """What CUDA_VISIBLE_DEVICES is for a process that shall see a group alone.

    Args:
        group: as this process counts its devices.
        given: the same variable of this process, which names them; `None` where it sees all.

    Example:
        >>> visible_devices((2, 3), None), visible_devices((0,), "4,GPU-9c3f")
        ('2,3', '4')
    """
    names = [name.strip() for name in given.split(",")] if given else []
    return ",".join(names[device] if device < len(names) else str(device) for device in group)

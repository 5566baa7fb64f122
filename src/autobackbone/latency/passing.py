"""One pass by the clock, and whether other work held it up."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

_THREAD_CLOCK_S = time.get_clock_info("thread_time").resolution
# A pass in which its own thread had a core for less of the time, or any thread waited for one for the rest of it, was
# held up by other work. One network, six times while others trained on the same two cores: medians 9.6 to 14.7 ms by
# the clock, 8.4 to 9.5 ms of processor time. Beside two busy loops, 50 ms where 15 are true, 39 of them waiting.
_OWN_SHARE = 0.95
_TASKS = Path("/proc/self/task")


class Pass(NamedTuple):
    """One pass.

    Args:
        seconds: by the clock.
        is_held_up: whether other work on the same cores took some of them.
        waited_s: how long of them its threads waited for a core.
    """

    seconds: float
    is_held_up: bool
    waited_s: float


def timed(run: Callable[[], object], wait: Callable[[], None], *, is_on_cpu: bool) -> Pass:
    """Do something once.

    Args:
        run: does it, or hands it over to an accelerator.
        wait: returns when an accelerator is done: without this the clock would show how fast work is handed over.
        is_on_cpu: whether the cores that do it are those of this process.
    """
    wait()
    before_s = waited_s()
    began, own_began = time.perf_counter(), time.thread_time()
    run()
    wait()
    seconds, own_s = time.perf_counter() - began, time.thread_time() - own_began
    if not is_on_cpu:
        return Pass(seconds, is_held_up=False, waited_s=0.0)
    # Those who wait for the same cores wait at once: the longest wait is what the pass lost.
    lost_s = max((s - before_s.get(name, 0.0) for name, s in waited_s().items()), default=0.0)
    has_lost = _THREAD_CLOCK_S < 1e-6 and own_s < _OWN_SHARE * seconds
    return Pass(seconds, has_lost or lost_s > (1 - _OWN_SHARE) * seconds, lost_s)


def waited_s() -> dict[str, float]:
    """Seconds that each thread of this process was ready and had no core, as Linux counts them; elsewhere none."""
    found = {}
    with contextlib.suppress(OSError):
        for task in _TASKS.iterdir():
            # A thread may end at any time, and some systems have the file and do not count.
            with contextlib.suppress(OSError, ValueError, IndexError):
                found[task.name] = int((task / "schedstat").read_text().split()[1]) / 1e9
    return found

"""One network's latency on the target, with how far it can be trusted."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from autobackbone.errors import TargetMemoryError, TrialMemoryError
from autobackbone.latency.forward import Forward, forward_of
from autobackbone.latency.passing import Pass
from autobackbone.memory import memory_errors_translated
from autobackbone.records import ImageSize, Latency, Target

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LOG = logging.getLogger(__name__)

_WARM_UP_SHARE = 0.15
_STABLE_SHARE = 0.03
_MIN_REPEATS = 3
# Fewer passes leave the 95th percentile to one of them.
_GOOD_REPEATS = 40
# Medians of one network, minutes apart and undisturbed, differ by more than passes of one measurement tell: standard
# deviation 2 % (LCNet and EfficientNet-Lite0 on two cores of a server). So no latency is surer than this.
DRIFT_SHARE = 0.02
# Intervals of this width around two medians touch when the medians differ by less than can be told at the 5 % level
# (Goldstein and Healy 1995): so "tied" is simply "the intervals touch".
_Z = 1.39
_A_TURN = 4
_LARGE_BATCH = 32
# The first large batch also pays for memory and kernels: 1.3 s once, where the next one took 0.3.
_LONG_FIRST = 2.0
_GLANCES = 5
_GLANCE_S = 0.1


def measure(network: nn.Module, image_size: ImageSize, target: Target, *, seconds: float = 1.0) -> Latency:
    """Time forward passes of a copy of the network, alone on the target.

    Passes repeat until the median is known to ±3 % or the time is over, at least three times. On a CPU, passes that
    other work held up do not count, as long as enough others are left; where all were, what a thread waited for a core
    is noise. Half precision means: the weights themselves on a GPU, autocast on a CPU. Pictures are in the plain
    contiguous layout. The network keeps its mode, device, precision and caches, and torch its number of threads.

    Nothing else should work on the device meanwhile: the caller sees to that.

    Args:
        network: takes (n, 3, height, width).
        image_size: height and width in pixels.
        target: as `resolve` returns it.
        seconds: time for warm-up and passes together, above 0; a batch of 32 and passes that take longer come on top.

    Returns:
        The latency; `images_per_s` is NaN where a batch of 32 does not fit into memory, or was to be compiled first.

    Raises:
        TargetMemoryError: the network does not fit into the device's memory at the target's batch size.
        TargetError: the target's runtime cannot run it.

    Example:
        >>> from autobackbone.latency.target import resolve
        >>> latency = measure(nn.Conv2d(3, 8, 3), (32, 32), resolve(Target(device="cpu")), seconds=0.02)
        >>> 0 < latency.p50_ms <= latency.p95_ms
        True

    Source: the interval of the median from order statistics, David and Nagaraja 2003, section 7.1.
    """
    with _threads(target.n_threads), torch.inference_mode():
        with _told_of_memory(network, image_size, target):
            forward = forward_of(network, image_size, target)
            counted = _repeat(forward, target.batch_size, seconds)
        return _latency(counted, _images_per_s(forward, seconds))


def measure_together(
    networks: Sequence[tuple[nn.Module, ImageSize]], target: Target, *, seconds: float = 0.5
) -> list[Latency]:
    """Time several networks in turns, so that a machine whose speed drifts slows all of them alike.

    Measured one after another, minutes apart, the same network took 6.4 and 10.2 ms on one server; what differs between
    networks that take turns every few passes is the networks.

    Args:
        networks: each with its image size.
        target: as `resolve` returns it.
        seconds: for each of them, above 0.

    Returns:
        A latency for each, in their order, as `measure` gives one, but without large batches: `images_per_s` is NaN.

    Raises:
        TargetMemoryError: one does not fit into the device's memory.

    Example:
        >>> from autobackbone.latency.target import resolve
        >>> two = [(nn.Conv2d(3, 8, 3), (32, 32)), (nn.Conv2d(3, 64, 3), (64, 64))]
        >>> small, large = measure_together(two, resolve(Target(device="cpu")), seconds=0.05)
        >>> small.p50_ms < large.p50_ms
        True
    """
    with _threads(target.n_threads), torch.inference_mode():
        forwards = []
        for network, image_size in networks:
            with _told_of_memory(network, image_size, target):
                forwards.append(forward_of(network, image_size, target))
                forwards[-1].timed(target.batch_size)()
        passes = _take_turns([one.timed(target.batch_size) for one in forwards], seconds * len(forwards))
    return [_latency(_counted(own), math.nan) for own in passes]


def _take_turns(ways: Sequence[Callable[[], Pass]], seconds: float) -> list[list[Pass]]:
    """Passes of each: a turn is a first one that does not count, since another's data lie in the caches, and a few."""
    passes: list[list[Pass]] = [[] for _ in ways]
    began = time.perf_counter()
    while len(passes[0]) < _MIN_REPEATS or time.perf_counter() - began < seconds:
        for one_pass, own in zip(ways, passes, strict=True):
            one_pass()
            own += [one_pass() for _ in range(_A_TURN)]
    return passes


def _latency(counted: Sequence[Pass], images_per_s: float) -> Latency:
    times_s, waited_s = _seconds(counted), float(np.median([one.waited_s for one in counted]))
    p50_s, p95_s = np.percentile(times_s, [50, 95])
    return Latency(
        p50_ms=float(p50_s) * 1e3,
        p95_ms=float(p95_s) * 1e3,
        noise_ms=max(_half_width(times_s), DRIFT_SHARE * float(p50_s), min(waited_s, float(p50_s))) * 1e3,
        images_per_s=images_per_s,
        n_repeats=len(times_s),
    )


def fastest_ms(network: nn.Module, image_size: ImageSize, target: Target) -> float:
    """A glance: the fastest of a few forward passes in milliseconds, with nothing said of its noise.

    One to warm up, then five, or as many as a tenth of a second holds, at least one. Arguments as for `measure`.

    Example:
        >>> from autobackbone.latency.target import resolve
        >>> fastest_ms(nn.Conv2d(3, 8, 3), (32, 32), resolve(Target(device="cpu"))) > 0
        True
    """
    with _threads(target.n_threads), torch.inference_mode(), _told_of_memory(network, image_size, target):
        one_pass = forward_of(network, image_size, target).timed(target.batch_size)
        one_pass()
        began, seen_s = time.perf_counter(), [one_pass().seconds]
        while len(seen_s) < _GLANCES and time.perf_counter() - began < _GLANCE_S:
            seen_s.append(one_pass().seconds)
    return min(seen_s) * 1e3


def ties(a: Latency, b: Latency) -> bool:
    """Tell whether two latencies differ by no more than their noise.

    Example:
        >>> a = Latency(p50_ms=2.0, p95_ms=2.2, noise_ms=0.1, images_per_s=900.0, n_repeats=50)
        >>> b = Latency(p50_ms=2.5, p95_ms=2.6, noise_ms=0.1, images_per_s=800.0, n_repeats=50)
        >>> ties(a, a), ties(a, b)
        (True, False)
    """
    return abs(a.p50_ms - b.p50_ms) <= a.noise_ms + b.noise_ms


@contextlib.contextmanager
def _told_of_memory(network: nn.Module, image_size: ImageSize, target: Target) -> Iterator[None]:
    try:
        with memory_errors_translated():
            yield
    except TrialMemoryError as error:
        raise TargetMemoryError(
            f"{type(network).__name__} at {image_size[0]}x{image_size[1]} px and batch {target.batch_size} does "
            f"not fit into the memory of {target.device}. Allow smaller image_sizes or a smaller target.batch_size."
        ) from error


@contextlib.contextmanager
def _threads(n_threads: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _repeat(forward: Forward, batch_size: int, seconds: float) -> Sequence[Pass]:
    """The passes that count."""
    one_pass = forward.timed(batch_size)
    began = time.perf_counter()
    one_pass()
    while time.perf_counter() - began < seconds * _WARM_UP_SHARE:
        one_pass()
    passes: list[Pass] = []
    while len(passes) < _MIN_REPEATS or time.perf_counter() - began < seconds:
        passes.append(one_pass())
        if len(passes) % _GOOD_REPEATS == 0 and _is_stable(_seconds(_counted(passes))):
            break
    return _counted(passes)


def _counted(passes: Sequence[Pass]) -> Sequence[Pass]:
    """The passes that were not held up; all, if too few were not."""
    free = [one for one in passes if not one.is_held_up]
    return free if len(free) >= max(_MIN_REPEATS, len(passes) / 10) else passes


def _seconds(passes: Sequence[Pass]) -> NDArray[np.float64]:
    return np.asarray([one.seconds for one in passes])


def _is_stable(times_s: NDArray[np.float64]) -> bool:
    return _half_width(times_s) <= _STABLE_SHARE * float(np.median(times_s))


def _half_width(times_s: NDArray[np.float64]) -> float:
    """Half the width of the interval of the median, in seconds."""
    ordered, n = np.sort(times_s), len(times_s)
    reach = _Z * math.sqrt(n) / 2
    low, high = max(math.floor(n / 2 - reach), 0), min(math.ceil(n / 2 + reach), n - 1)
    return float(ordered[high] - ordered[low]) / 2


def _images_per_s(forward: Forward, seconds: float) -> float:
    """At a batch of 32, from the faster of two passes, or from one where one alone takes more than twice the time."""
    if not forward.is_for_any_batch:
        return math.nan
    try:
        with memory_errors_translated():
            one_pass = forward.timed(_LARGE_BATCH)
            first_s = one_pass().seconds
            best_s = first_s if first_s > _LONG_FIRST * seconds else min(first_s, one_pass().seconds)
    except TrialMemoryError:
        _LOG.warning("a batch of %d does not fit into the memory of %s", _LARGE_BATCH, forward.device)
        return math.nan
    return _LARGE_BATCH / best_s

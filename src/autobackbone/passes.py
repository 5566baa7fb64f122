"""Many pictures through one network, in the way that is fastest here, which the first of them tell.

How many pictures at once keep a processor's caches warm, which layout of memory it likes and whether fused layers pay
depends on the network, the machine and the libraries: on two cores of a server with 32 MB of cache, EfficientNet-Lite0
at 160 px ran 66 pictures a second fused and 8 at once, 47 as it came and 32 at once, and 37 fused and 32 at once. So
each way takes its turn with real work, and the fastest one does the rest; one whose answers differ is never used.
"""

from __future__ import annotations

import copy
import logging
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autobackbone.errors import TrialMemoryError
from autobackbone.memory import memory_errors_translated

Way = Literal["plain", "channels last", "fused"]
Ints = NDArray[np.int64]
Look = Callable[[Ints], Tensor]
Answers = tuple[Tensor, ...]

_LOG = logging.getLogger(__name__)
# Rounding in another order moves a feature by about a millionth of the largest one; a wrong answer is off by far more.
_TOLERANCE = 1e-3
# Each way has so many turns, of so many pictures.
_N_TURNS = 2
_TURN = 32
_CLEARLY = 1.1
# Fewer pictures than this cannot earn back a second of preparing other ways.
_WORTH_TRYING = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """A way, and how many pictures at once."""

    way: Way
    n_at_once: int
    run: Callable[[Tensor], Answers]


def passes(network: nn.Module, look: Look, indices: Ints) -> Iterator[tuple[Ints, Answers]]:
    """Pass pictures through a network, without a graph.

    Args:
        network: in eval mode; from (n, 3, height, width) to a tuple of tensors (n, …). It stays as it is: other ways
            work on copies.
        look: numbers of pictures (n,) to the network's input (n, 3, height, width) on its device.
        indices: (n_pictures,) numbers of the pictures, at least one.

    Yields:
        Some of the numbers and the network's answers to them, on the CPU, in the order of `indices`.

    Raises:
        TrialMemoryError: memory is too small for a single picture.

    Example:
        >>> class Doubled(nn.Module):
        ...     def forward(self, x):
        ...         return (2 * x,)
        >>> numbers = np.arange(10)
        >>> chunks = passes(Doubled().eval(), lambda some: torch.from_numpy(some)[:, None, None, None], numbers)
        >>> torch.cat([answers[0].flatten() for _, answers in chunks]).tolist()[-2:]
        [16, 18]
    """
    # Each step on its own: inference mode must not stay on while the caller works on what was yielded.
    manners = _manners(network, look, indices)
    best_s = dict.fromkeys(range(len(manners)), 0.0)
    start = 0
    for turn in range(_N_TURNS if len(manners) > 1 else 0):
        for number in best_s:
            chunk = indices[start : start + _TURN]
            # The first turn also pays for memory and kernels, so that it counts only if there is no second.
            begun = time.perf_counter()
            answers = _answers(manners[number], look, chunk)
            seconds = time.perf_counter() - begun
            best_s[number] = seconds if turn == 0 else min(best_s[number], seconds)
            start += len(chunk)
            yield chunk, answers
    # The first of the list among those that are about as fast: rounding depends on the way, so that noise in the clock
    # must not decide.
    limit = _CLEARLY * min(best_s.values())
    manner = next(manners[number] for number, seconds in best_s.items() if seconds <= limit)
    _LOG.debug("%s, %d at once", manner.way, manner.n_at_once)
    while start < len(indices):
        chunk = indices[start : start + max(_TURN, manner.n_at_once)]
        start += len(chunk)
        yield chunk, _answers(manner, look, chunk)


def _manners(network: nn.Module, look: Look, indices: Ints) -> list[Manner]:
    """What takes turns: the network as it came, and what agrees with it."""
    sample = look(indices[:1])
    plain = Manner(way="plain", n_at_once=_TURN, run=network)
    if len(indices) < _WORTH_TRYING:
        return [plain]
    if sample.device.type != "cpu":
        laid_out = _channels_last(network)
        ways = [plain, Manner(way="channels last", n_at_once=_TURN, run=laid_out)]
        return [way for way in ways if way is plain or _agrees(laid_out, network, look, indices)]
    fused = _fused(network, sample)
    manners = [Manner(way="plain", n_at_once=8, run=network), plain]
    if fused is None or not _agrees(fused, network, look, indices):
        return manners
    return [*(Manner(way="fused", n_at_once=n, run=fused) for n in (8, _TURN)), *manners]


@torch.inference_mode()
def _answers(manner: Manner, look: Look, chunk: Ints) -> Answers:
    """A chunk is looked at as one, whatever the manner: so what is drawn for a chunk does not depend on speed."""
    try:
        with memory_errors_translated():
            x = look(chunk)
            starts = range(0, len(chunk), manner.n_at_once)
            parts = [manner.run(x[start : start + manner.n_at_once]) for start in starts]
            return tuple(torch.cat(of).cpu() for of in zip(*parts, strict=True))
    except TrialMemoryError:
        if len(chunk) == 1:
            raise
    # Behind the handler: inside it the error would keep what the whole had taken.
    halves = [_answers(manner, look, part) for part in np.array_split(chunk, 2)]
    return tuple(torch.cat(of) for of in zip(*halves, strict=True))


def _fused(network: nn.Module, sample: Tensor) -> Callable[[Tensor], Answers] | None:
    """Traced, frozen, and its layers fused for this processor; `None` where a network cannot be traced."""
    private = copy.deepcopy(network).eval().to(memory_format=torch.channels_last)
    with torch.no_grad(), warnings.catch_warnings():
        # It warns of control flow that it cannot see, which the comparison of answers looks after, and of its age.
        warnings.simplefilter("ignore")
        try:
            traced = torch.jit.trace(private, sample.clone(), check_trace=False)  # type: ignore[no-untyped-call]
            frozen = torch.jit.optimize_for_inference(torch.jit.freeze(traced))
        except (RuntimeError, TypeError, ValueError, AttributeError, NotImplementedError):
            return None
    return partial(_as_tuple, frozen)


def _channels_last(network: nn.Module) -> nn.Module:
    laid_out: nn.Module = copy.deepcopy(network).to(memory_format=torch.channels_last)
    return laid_out


def _as_tuple(run: Callable[[Tensor], Any], x: Tensor) -> Answers:
    answer = run(x)
    return answer if isinstance(answer, tuple) else (answer,)


@torch.inference_mode()
def _agrees(run: Callable[[Tensor], Answers], network: nn.Module, look: Look, indices: Ints) -> bool:
    """Whether answers differ by less than a thousandth of the largest, for several pictures and for one alone."""
    try:
        for n in (3, 1):
            x = look(indices[:n])
            for wanted, got in zip(network(x), run(x), strict=True):
                is_near = wanted.shape == got.shape and (wanted - got).abs().max() <= _TOLERANCE * wanted.abs().max()
                if not is_near:
                    return False
    # What a trace took for constant, such as the number of pictures, may fit no other batch.
    except (RuntimeError, TypeError, ValueError):
        return False
    return True

"""Many pictures through one network, in the way that is fastest here, which the first of them tell.

How many pictures at once keep a processor's caches warm, which layout of memory it likes and whether fused layers pay
depends on the network, the machine and the libraries: on two cores of a server with 32 MB of cache, EfficientNet-Lite0
at 160 px ran 66 pictures a second fused and 8 at once, 47 as it came and 32 at once, and 37 fused and 32 at once. So
each way takes its turn with real work, and the fastest one does the rest; one whose answers differ is never used.

Where the caller allows rounding, bfloat16 takes its turn, too. On a processor with matrix units it is the fastest by
far, on others up to 13 times slower. Heads fitted on features so rounded scored as others do, to half a point either
way on 400 pictures; what scores must not be rounded.
"""

from __future__ import annotations

import copy
import logging
import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from autobackbone.costrecord import CostEntry
from autobackbone.errors import TrialMemoryError
from autobackbone.memory import memory_errors_translated

Way = Literal["plain", "channels last", "fused", "bfloat16"]
Ints = NDArray[np.int64]
Look = Callable[[Ints], Tensor]
Answers = tuple[Tensor, ...]

_LOG = logging.getLogger(__name__)
# Rounding in another order moves a feature by about a millionth of the largest one; a wrong answer is off by far more.
_TOLERANCE = 1e-3
# Of each picture's answers in bfloat16 to those in float32. Features of 2,000 photographs: median 0.998, least 0.984.
_LEAST_COSINE = 0.95
_N_COMPARED = 8
# As slow as this, one picture is no noise: emulated, it took 13 times as long.
_EMULATED = 2.0
# Each way has so many turns, of so many pictures.
_N_TURNS = 2
_TURN = 32
_FEW = 8
_CLEARLY = 1.1
# Exact ways that have turns in later passes of this process: what was slow once is not built again.
_N_FAVOURITES = 2
# Beside rows that are rounded, exact ones are few: building a second way for them costs what it saves.
_N_BESIDE = 1
_favourites: dict[str, list[tuple[Way, int]]] = {}
# Fewer pictures than this cannot earn back a second of preparing other ways.
_WORTH_TRYING = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """A way, and how many pictures at once."""

    way: Way
    n_at_once: int
    run: Callable[[Tensor], Answers]


Speeds = dict[Manner, float]
"""Seconds a picture; infinite for a manner that had no turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Course:
    """How a pass went: rounding depends on it, so whoever wants the same answers takes the same course.

    Args:
        manners: exact ones that had turns, a way and how many pictures at once.
        is_rough_tried: whether bfloat16 had turns.
        exact: what did the rest.
        is_rounded: whether bfloat16 did, where that was allowed.
    """

    manners: tuple[tuple[str, int], ...]
    is_rough_tried: bool
    exact: tuple[str, int]
    is_rounded: bool

    @classmethod
    def recalled(cls, entry: CostEntry | None, n: int) -> _Course | None:
        """As it was noted of a pass over so many pictures; `None` where it is settled by the clock, or needs none."""
        noted = None if entry is None or n < _WORTH_TRYING else entry.recalled()
        if noted is None:
            return None
        try:
            return cls(
                manners=tuple((str(way), int(n)) for way, n in noted["manners"]),
                is_rough_tried=bool(noted["is_rough_tried"]),
                exact=(str(noted["exact"][0]), int(noted["exact"][1])),
                is_rounded=bool(noted["is_rounded"]),
            )
        except (KeyError, TypeError, ValueError, IndexError) as error:
            assert entry is not None
            raise entry.damaged("the course of a pass", noted) from error


def passes(
    network: nn.Module,
    look: Look,
    indices: Ints,
    *,
    may_round: NDArray[np.bool_] | None = None,
    entry: CostEntry | None = None,
) -> Iterator[tuple[Ints, Answers]]:
    """Pass pictures through a network, without a graph.

    Args:
        network: in eval mode; from (n, 3, height, width) to a tuple of tensors (n, …). It stays as it is: other ways
            work on copies.
        look: numbers of pictures (n,) to the network's input (n, 3, height, width) on its device.
        indices: (n_pictures,) numbers of the pictures, at least one.
        may_round: (n_pictures,) which of them may be answered in bfloat16, where that is faster: each answer then has
            a cosine of 0.95 or more to its own; `None` for none.
        entry: where the course of this pass is noted, or recalled: then the clock settles nothing. `None` for neither.

    Yields:
        Some of the numbers and the network's answers to them, on the CPU, in the order of `indices`.

    Raises:
        TrialMemoryError: memory is too small for a single picture.
        RunError: the course that was noted is none.

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
    is_rough = np.zeros(len(indices), np.bool_) if may_round is None else may_round
    noted = _Course.recalled(entry, len(indices))
    rough = None
    if is_rough.sum() >= _WORTH_TRYING and (noted is None or noted.is_rough_tried):
        rough = _bfloat16(network, look, indices, is_timed=noted is None)
    # Few rows of a chunk must be exact then, and only with those do exact ways take their turns.
    is_beside = rough is not None and not is_rough.all()
    manners = _manners(network, look, indices, is_beside=is_beside, known=None if noted is None else noted.manners)
    speeds: Speeds = dict.fromkeys([*manners, *([] if rough is None else [rough])], math.inf)
    # How rows are answered that may be rounded, and how the others.
    pairs = [(rough if rough is not None and is_beside else manner, manner) for manner in manners]
    pairs += [] if rough is None or is_beside else [(rough, manners[0])]
    start = 0
    for _ in range(_N_TURNS if len(pairs) > 1 or rough is not None else 0):
        for pair in pairs:
            chunk = slice(start, start + _TURN)
            start += _TURN
            yield indices[chunk], _mixed(*pair, look, indices[chunk], is_rough[chunk], speeds)
    if len(manners) > 1:
        ranked = sorted(manners, key=speeds.__getitem__)[: _N_BESIDE if is_beside else _N_FAVOURITES]
        _favourites[_circumstances(network, is_beside=is_beside)] = [(one.way, one.n_at_once) for one in ranked]
    # The first of the list among those that are about as fast: rounding depends on the way, so that noise in the clock
    # must not decide.
    limit = _CLEARLY * min(speeds[manner] for manner in manners)
    exact = next(manner for manner in manners if speeds[manner] <= limit)
    exact = next((one for one in manners if noted is not None and (one.way, one.n_at_once) == noted.exact), exact)
    is_rounded = rough is not None and _CLEARLY * speeds[rough] <= speeds[exact]
    roughly = rough if rough is not None and (is_rounded if noted is None else noted.is_rounded) else exact
    if entry is not None and len(indices) >= _WORTH_TRYING:
        course = _Course(
            manners=tuple((one.way, one.n_at_once) for one in manners),
            is_rough_tried=rough is not None,
            exact=(exact.way, exact.n_at_once),
            is_rounded=roughly is rough,
        )
        entry.note(asdict(course))
    _LOG.debug("%s, %d at once; where rounding is allowed %s", exact.way, exact.n_at_once, roughly.way)
    while start < len(indices):
        chunk = slice(start, start + _TURN)
        start += _TURN
        yield indices[chunk], _mixed(roughly, exact, look, indices[chunk], is_rough[chunk], speeds)


def _mixed(
    roughly: Manner, exactly: Manner, look: Look, chunk: Ints, is_rough: NDArray[np.bool_], speeds: Speeds
) -> Answers:
    """Answers to a chunk: in one manner where rounding is allowed, in another where it is not."""
    if roughly is exactly or not is_rough.any():
        return _timed(exactly, look, chunk, speeds)
    if is_rough.all():
        return _timed(roughly, look, chunk, speeds)
    rough, exact = np.flatnonzero(is_rough), np.flatnonzero(~is_rough)
    place = torch.from_numpy(np.argsort(np.concatenate([rough, exact])))
    parts = _timed(roughly, look, chunk[rough], speeds), _timed(exactly, look, chunk[exact], speeds)
    return tuple(torch.cat(both)[place] for both in zip(*parts, strict=True))


def _timed(manner: Manner, look: Look, chunk: Ints, speeds: Speeds) -> Answers:
    begun = time.perf_counter()
    answers = _answers(manner, look, chunk)
    # The best so far: the first turn also pays for memory and kernels.
    speeds[manner] = min(speeds.get(manner, math.inf), (time.perf_counter() - begun) / len(chunk))
    return answers


def _manners(
    network: nn.Module,
    look: Look,
    indices: Ints,
    *,
    is_beside: bool,
    known: Sequence[tuple[str, int]] | None = None,
) -> list[Manner]:
    """What takes turns: the network as it came, and what agrees with it; of these what is known, or was fast before."""
    sample = look(indices[:1])
    plain = Manner(way="plain", n_at_once=_TURN, run=network)
    if len(indices) < _WORTH_TRYING:
        return [plain]
    if sample.device.type != "cpu":
        laid_out = _channels_last(network).eval()
        ways = [plain, Manner(way="channels last", n_at_once=_TURN, run=laid_out)]
        return [way for way in ways if way is plain or _agrees(laid_out, network, look, indices)]
    known = known or _favourites.get(_circumstances(network, is_beside=is_beside))
    is_fused_tried = known is None or any(way == "fused" for way, _ in known)
    fused = _fused(network, sample) if is_fused_tried else None
    manners = [Manner(way="plain", n_at_once=_FEW, run=network), plain]
    if fused is not None and _agrees(fused, network, look, indices):
        manners = [*(Manner(way="fused", n_at_once=n, run=fused) for n in (_FEW, _TURN)), *manners]
    # So few rows of a chunk are never more at once.
    manners = [manner for manner in manners if not (is_beside and manner.n_at_once > _FEW)]
    liked = [manner for manner in manners if known is None or (manner.way, manner.n_at_once) in known]
    return liked or manners


def _circumstances(network: nn.Module, *, is_beside: bool) -> str:
    """What was fast on a device for most rows need not be so for the few beside those that are rounded."""
    device = next((parameter.device.type for parameter in network.parameters()), "cpu")
    return f"{device}, beside rounded rows" if is_beside else device


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
    frozen = _traced(_channels_last(network).eval(), sample.clone(), finish=torch.jit.optimize_for_inference)
    return None if frozen is None else partial(_as_tuple, frozen)


def _traced(network: nn.Module, x: Tensor, finish: Callable[[Any], Any] = lambda frozen: frozen) -> Any:
    """Traced on an input, and frozen; `None` where a network cannot be traced."""
    with torch.no_grad(), warnings.catch_warnings():
        # It warns of control flow that it cannot see, which the comparison of answers looks after, and of its age.
        warnings.simplefilter("ignore")
        try:
            return finish(torch.jit.freeze(torch.jit.trace(network, x, check_trace=False)))  # type: ignore[no-untyped-call]
        # Whatever a forward pass does that no trace can follow, each network in its own way.
        except (RuntimeError, TypeError, ValueError, AttributeError, NotImplementedError):
            return None


def _bfloat16(network: nn.Module, look: Look, indices: Ints, *, is_timed: bool = True) -> Manner | None:
    """Matrices multiplied in bfloat16; `None` where that is slow, if time counts, not to be had, or answers too
    roughly.
    """
    laid_out = _channels_last(network).eval()

    @torch.inference_mode()
    def run(x: Tensor) -> Answers:
        with torch.autocast(x.device.type, torch.bfloat16):
            answers = laid_out(x.contiguous(memory_format=torch.channels_last))
        return tuple(answer.float() for answer in answers)

    def is_like(run: Callable[[Tensor], Answers]) -> bool:
        return all(_is_like(run, network, look(indices[:n])) for n in (_N_COMPARED, 1))

    try:
        # One picture alone tells already where a processor has to emulate it, and costs little even there.
        if is_timed and _is_emulated(run, network, look(indices[:1])):
            return None
        if not is_like(run):
            return None
    except (RuntimeError, TypeError, ValueError):
        return None
    traced = _traced_in_bfloat16(laid_out, look(indices[:2]))
    try:
        if traced is not None and is_like(traced):
            return Manner(way="bfloat16", n_at_once=_TURN // 2, run=traced)
    except (RuntimeError, TypeError, ValueError):
        pass
    return Manner(way="bfloat16", n_at_once=_TURN, run=run)


def _traced_in_bfloat16(laid_out: nn.Module, sample: Tensor) -> Callable[[Tensor], Answers] | None:
    """Traced and frozen, so that weights are rounded once: 345 pictures a second where 230 were without."""
    with torch.autocast(sample.device.type, torch.bfloat16, cache_enabled=False):
        frozen = _traced(laid_out, sample.contiguous(memory_format=torch.channels_last))
    if frozen is None:
        return None

    @torch.inference_mode()
    def run(x: Tensor) -> Answers:
        return tuple(answer.float() for answer in _as_tuple(frozen, x.contiguous(memory_format=torch.channels_last)))

    return run


def _is_emulated(run: Callable[[Tensor], Answers], network: nn.Module, x: Tensor) -> bool:
    return _best_of_two_s(run, x) > _EMULATED * _best_of_two_s(network, x)


@torch.inference_mode()
def _best_of_two_s(run: Callable[[Tensor], Answers], x: Tensor) -> float:
    seconds = []
    for _ in range(2):  # the first one also pays for memory and kernels
        begun = time.perf_counter()
        _ = [answer.cpu() for answer in run(x)]
        seconds.append(time.perf_counter() - begun)
    return min(seconds)


@torch.inference_mode()
def _is_like(run: Callable[[Tensor], Answers], network: nn.Module, x: Tensor) -> bool:
    """Whether each picture's answers point where the network's own do."""
    for wanted, got in zip(network(x), run(x), strict=True):
        if wanted.shape != got.shape or len(got) != len(x):
            return False
        cosines = functional.cosine_similarity(wanted.flatten(1).float(), got.flatten(1))
        if not bool((cosines >= _LEAST_COSINE).all()):
            return False
    return True


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

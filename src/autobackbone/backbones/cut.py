"""Cut networks: only the first blocks as a feature extractor, proven on real pictures to compute what it should.

`shorten` makes a network that ends after its first blocks. A cut *holds* if, on real pictures, the features that enter
its classifier are a plain pooling of what enters block k+1 of the whole network: the mean over positions, or the class
token, before or after the last norms that stayed. So one pass of the whole network gives the features of every cut.
"""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor, nn

from autobackbone.backbones.blocks import blocks_of
from autobackbone.backbones.doors import read_at_doors
from autobackbone.backbones.head import features, verify_head
from autobackbone.backbones.shorten import REFUSALS, Shortened, calls_of, check_kept, shorten
from autobackbone.backbones.split import evaluating, only_trainable
from autobackbone.errors import BackboneError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

_LOG = logging.getLogger(__name__)

# Registers stand before the patches, as the class token does.
_MAX_PREFIX_TOKENS: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class CutEntry:
    """How one pass of the whole network gives the features of a cut one.

    Args:
        module: the name of the module of the whole network whose input is pooled.
        pooling: the name of the pooling, as `POOLINGS` knows it.
        n_norms_before: how many of the norms come before the pooling.
        norms: the whole network's own last norms that stayed in the cut one.
        n_features: the width of the features.
    """

    module: str
    pooling: str
    n_norms_before: int
    norms: tuple[nn.Module, ...]
    n_features: int

    def pool(self, entering: Tensor) -> Tensor:
        """What enters the classifier of the cut network.

        Args:
            entering: (n_images, …), what enters `module`.

        Returns:
            (n_images, n_features).
        """
        for norm in self.norms[: self.n_norms_before]:
            entering = norm(entering)
        pooled = POOLINGS[self.pooling](entering)
        for norm in self.norms[self.n_norms_before :]:
            pooled = norm(pooled)
        # A tensor of its own: a layer behind the door may work in place on what it is a view of.
        return pooled.flatten(1).clone()


def _tokens_after(n_prefix: int) -> Callable[[Tensor], Tensor]:
    return lambda entering: _of(3, entering)[:, n_prefix:].mean(1)


def _of(n_dimensions: int, entering: Tensor) -> Tensor:
    if entering.ndim != n_dimensions:
        raise ValueError(f"{n_dimensions} dimensions are pooled; {entering.ndim} came.")
    return entering


POOLINGS: Final[Mapping[str, Callable[[Tensor], Tensor]]] = {
    "mean of the map": lambda entering: _of(4, entering).mean((2, 3), keepdim=True),
    "mean of the map, flat": lambda entering: _of(4, entering).mean((2, 3)),
    "mean of the map, channels last": lambda entering: _of(4, entering).mean((1, 2)),
    "mean of the tokens": _tokens_after(0),
    "class token": lambda entering: _of(3, entering)[:, 0],
    "mean of two class tokens": lambda entering: _of(3, entering)[:, :2].mean(1),
    **{f"mean of the tokens after {n}": _tokens_after(n) for n in range(1, _MAX_PREFIX_TOKENS + 1)},
    "none": lambda entering: _of(2, entering),
}
"""What may stand between block k and the classifier: (n_images, …) to (n_images, n_features), or with 1×1 positions."""


def cut_after(model: nn.Module, n_blocks_kept: int, sample: Tensor, *, seed: int = 0) -> nn.Module | None:
    """A stand-alone network of the first blocks alone, and prove that its features are those of the whole network.

    Its parameters are those of the first blocks under their own names, with a last norm that stayed, if any, and a
    fresh classifier. It has as many blocks as were kept.

    Args:
        model: a network of `Backbone.build`; it is the same afterwards.
        n_blocks_kept: from 1 to one less than the network has.
        sample: (n_images, 3, height, width), at least 2 real pictures, normalised, on the model's device.
        seed: of the fresh classifier.

    Returns:
        The network in eval mode, with tensors of its own, or `None` if the cut does not hold, for a reason that is
        logged at level debug.

    Raises:
        BackboneError: the network has no such blocks.

    Example:
        >>> from autobackbone.backbones.build import build
        >>> whole = build("test_resnet.r160_in1k", n_classes=3, image_size=(64, 64))
        >>> pictures = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        >>> short = cut_after(whole, 3, pictures)
        >>> [len(block) for block in blocks_of(short)], features(short, pictures).shape
        ([9, 6, 9], torch.Size([2, 48]))
    """
    check_kept(model, n_blocks_kept)
    with evaluating(model):
        found = _verified(model, [n_blocks_kept], sample, seed=seed)
    return copy.deepcopy(found[n_blocks_kept][0].network) if found else None


def cut_entries(model: nn.Module, sample: Tensor, wanted: Iterable[int] | None = None) -> dict[int, CutEntry]:
    """Where one pass of the whole network gives the features of each cut network.

    Args:
        model: a network of `Backbone.build`; it is the same afterwards.
        sample: (n_images, 3, height, width), at least 2 real pictures, normalised, on the model's device.
        wanted: numbers of kept blocks to try; `None` for all, from 1 to one less than the network has.

    Returns:
        An entry for each number of kept blocks whose cut holds. They keep the model's norms, not copies. Why another
        one does not hold is logged at level debug.

    Raises:
        BackboneError: the network has no such blocks.

    Example:
        >>> from autobackbone.backbones.build import build
        >>> whole = build("test_resnet.r160_in1k", n_classes=3, image_size=(64, 64))
        >>> pictures = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        >>> {kept: (entry.module, entry.n_features) for kept, entry in cut_entries(whole, pictures).items()}
        {1: ('layer1', 32), 2: ('layer2', 32), 3: ('layer3', 48), 4: ('layer4', 192)}
    """
    numbers = tuple(range(1, len(blocks_of(model))) if wanted is None else wanted)
    for n_blocks_kept in numbers:
        check_kept(model, n_blocks_kept)
    with evaluating(model):
        found = _verified(model, numbers, sample, seed=0)
    return {kept: entry for kept, (_, entry) in found.items()}


def pooled(model: nn.Module, entries: Mapping[int, CutEntry], images: Tensor) -> dict[int, Tensor]:
    """The features of the whole network and of its cut ones, from one pass.

    Args:
        model: the whole network, in eval mode for features that can be used again.
        entries: as `cut_entries` gives them for this very model, or some of them.
        images: (n_images, 3, height, width), normalised.

    Returns:
        (n_images, n_features) for each number of kept blocks, and for the number of all blocks.

    Example:
        >>> from autobackbone.backbones.build import build
        >>> whole = build("test_resnet.r160_in1k", n_classes=3, image_size=(64, 64))
        >>> pictures = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        >>> with torch.no_grad():
        ...     found = pooled(whole, cut_entries(whole, pictures), pictures)
        >>> {kept: tuple(one.shape) for kept, one in found.items()}
        {1: (2, 32), 2: (2, 32), 3: (2, 48), 4: (2, 192), 5: (2, 96)}
    """
    reads = {kept: (entry.module, entry.pool) for kept, entry in entries.items()}
    with read_at_doors(model, reads) as found:
        whole = features(model, images)
    return {**found, len(blocks_of(model)): whole}


def _verified(
    model: nn.Module, wanted: Iterable[int], sample: Tensor, *, seed: int
) -> dict[int, tuple[Shortened, CutEntry]]:
    """The cuts among the wanted ones that hold; the whole network runs twice, however many there are."""
    height, width = sample.shape[2:]
    calls = calls_of(model, (height, width))
    shorts: dict[int, Shortened] = {}
    for kept in wanted:
        try:
            shorts[kept] = shorten(model, kept, (height, width), seed=seed, calls=calls)
        except BackboneError as error:
            _LOG.debug("%s", error)
    entering = _entering(model, {short.entry for short in shorts.values()}, sample)
    entries = {kept: _entry(model, kept, short, entering[short.entry], sample) for kept, short in shorts.items()}
    return {kept: (shorts[kept], entry) for kept, entry in entries.items() if entry is not None}


@torch.no_grad()
def _entering(model: nn.Module, names: Iterable[str], sample: Tensor) -> dict[str, Any]:
    with read_at_doors(model, {name: (name, copy.deepcopy) for name in names}) as caught:
        model(sample.clone())
    return caught


def _entry(model: nn.Module, n_kept: int, short: Shortened, entering: Any, sample: Tensor) -> CutEntry | None:
    """How the features come from what enters the later blocks; `None`, and why to the log, if the cut does not hold."""
    try:
        with torch.no_grad():
            wanted = features(short.network, sample.clone())
        entry = _pooling(model, short, entering, wanted)
        fault = "its features are no plain pooling" if entry is None else _fault(short.network, sample, wanted)
    except REFUSALS as error:
        fault = f"{type(error).__name__}, {error}"
    if fault is None:
        return entry
    _LOG.debug("%s has no cut after %d blocks: %s", type(model).__name__, n_kept, fault)
    return None


@torch.no_grad()
def _pooling(model: nn.Module, short: Shortened, entering: Any, wanted: Tensor) -> CutEntry | None:
    if not isinstance(entering, Tensor) or not bool(wanted.isfinite().all()):
        return None
    for entry in _candidates(model, short, wanted.shape[1]):
        try:
            got = entry.pool(entering.clone())
        except REFUSALS:  # a pooling of another kind of tensor
            continue
        if _agree(wanted, got):
            return entry
    return None


def _candidates(model: nn.Module, short: Shortened, n_features: int) -> Iterator[CutEntry]:
    norms = tuple(model.get_submodule(name) for name in short.norms)
    for n_before, pooling in product(range(len(norms) + 1), POOLINGS):
        yield CutEntry(module=short.entry, pooling=pooling, n_norms_before=n_before, norms=norms, n_features=n_features)


def _fault(network: nn.Module, sample: Tensor, wanted: Tensor) -> str | None:
    """Why the cut network is none to build on; `None` for a good one.

    Args:
        network: the cut network.
        sample: (n_images, 3, height, width).
        wanted: (n_images, n_features), its features.
    """
    images = sample[:1].detach().clone().requires_grad_()
    last = frozenset(blocks_of(network)[-1])
    with torch.enable_grad(), only_trainable(network, last):
        # A copy of what has a gradient: some networks write into their input.
        alone = features(network, images.clone())
        if not _agree(wanted[:1], alone.detach()):
            return "its features depend on the other pictures"
        if not _sees_every_corner(alone, images):
            return "its features do not depend on the whole picture"
        if not _is_moved(alone, [parameter for parameter in network.parameters() if parameter.requires_grad]):
            return "its features do not depend on its last block"
    return None if verify_head(network, sample[:1].clone()) else "its classifier is not linear in its features"


def _sees_every_corner(found: Tensor, images: Tensor) -> bool:
    """Whether each quarter of a picture moves its features: a class token that has met no patch yet tells nothing."""
    (slope,) = _slopes(found, [images])
    if slope is None:
        return False
    halves = torch.tensor_split(slope[0], 2, dim=1)
    return all(bool(quarter.any()) for half in halves for quarter in torch.tensor_split(half, 2, dim=2))


def _is_moved(found: Tensor, parameters: Sequence[Tensor]) -> bool:
    return any(slope is not None and bool(slope.any()) for slope in _slopes(found, parameters))


def _slopes(found: Tensor, tensors: Sequence[Tensor]) -> Sequence[Tensor | None]:
    if not found.requires_grad:
        return [None] * len(tensors)
    # Every feature pulls with its own weight, since those of a norm have a fixed sum.
    pull = torch.linspace(-1.0, 2.0, found.numel(), device=found.device, dtype=found.dtype)
    total = (found.flatten() * pull).sum()
    return torch.autograd.grad(total, list(tensors), retain_graph=True, allow_unused=True)


def _agree(wanted: Tensor, got: Tensor) -> bool:
    """But for rounding: one picture alone and beside another differed by 2e-5 of the largest feature, on one processor
    and not on another, in a network whose random weights let features grow to thousands.
    """
    scale = float(wanted.abs().max())
    return wanted.shape == got.shape and torch.allclose(wanted, got, rtol=1e-4, atol=1e-4 * scale)

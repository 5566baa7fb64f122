"""A network that ends after its first blocks: a smaller, stand-alone one with a classifier of its own.

No architecture is named here. One forward pass of the whole network on fixed noise is watched, and tells which modules
hold the later blocks. In a twin of the network

- each of them lets its input pass; one that made one vector of many positions leaves their mean;
- what is left between them, such as activations and pooling by halves, passes as well. Stays what changes no value
  (dropout, flattening) and what makes one vector of a map: the network's own pooling;
- a last norm stays where it fits the narrower width and keeps no statistics, which would be those of another place;
- the classifier is a fresh one of the right width, under its own name.

The result is made of the architecture and the image size alone, so it is the same whenever it is built again, and its
state loads into it. That it computes what it should is for `cut` to verify.
"""

from __future__ import annotations

import copy
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor, nn

from autobackbone.backbones.blocks import blocks_of
from autobackbone.backbones.doors import read_at_doors
from autobackbone.backbones.head import classifier_layers, head_weights, set_head
from autobackbone.backbones.split import evaluating, twin
from autobackbone.errors import BackboneError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from autobackbone.records import ImageSize

# Each architecture refuses in its own way: a shape that does not fit, an attribute that a passing module lacks.
REFUSALS: Final = (
    AssertionError,
    AttributeError,
    BackboneError,
    IndexError,
    KeyError,
    RuntimeError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortened:
    """A network of the first blocks.

    Args:
        network: in eval mode; it holds the very tensors of the whole network, but for the classifier.
        entry: the name of the first module of the later blocks that is called: the features are made of what enters it.
        norms: the names of last norms that stayed, in the order of their calls.
    """

    network: nn.Module
    entry: str
    norms: tuple[str, ...]


# Compared by identity: two calls of one module are two calls.
@dataclass(slots=True, kw_only=True, eq=False)
class Call:
    """One call of one module: the shapes of the tensors that entered first and came out; `None` for other things."""

    name: str
    module: nn.Module
    entering: tuple[int, ...] | None
    answer: tuple[int, ...] | None = None
    n_answers: int | None = None

    @property
    def makes_a_vector(self) -> bool:
        """Whether many positions of each picture became one."""
        if self.entering is None or self.answer is None:
            return False
        return _n_long(self.answer) <= 1 < _n_long(self.entering)


class PassThrough(nn.Module):
    """Stands where a module of a later block stood, and answers what entered.

    Args:
        n_answers: how many values the module answered as a tuple, of which the first ones that enter take the place;
            `None` for one value.
    """

    def __init__(self, n_answers: int | None = None) -> None:
        super().__init__()
        self.n_answers = n_answers

    def forward(self, *entering: Any, **named: Any) -> Any:
        """The first thing that enters, or the first few."""
        entered = (*entering, *named.values())
        if self.n_answers is None or isinstance(entered[0], (tuple, list)):
            return entered[0]
        return entered[: self.n_answers]


class MeanPositions(nn.Module):
    """Stands where a module of a later block made one vector of many positions, and answers their mean.

    Args:
        positions: the dimensions over which the mean is taken.
        keeps_positions: whether the answer has as many dimensions as what enters.
    """

    def __init__(self, positions: tuple[int, ...], *, keeps_positions: bool) -> None:
        super().__init__()
        self.positions = positions
        self.keeps_positions = keeps_positions

    def forward(self, entering: Tensor, *_: Any, **__: Any) -> Tensor:
        """Args: entering: (n, channels, height, width) or (n, n_tokens, width). Returns: (n, channels) or as it was."""
        return entering.mean(self.positions, keepdim=self.keeps_positions)


def shorten(
    model: nn.Module, n_blocks_kept: int, image_size: ImageSize, *, seed: int = 0, calls: Sequence[Call] | None = None
) -> Shortened:
    """End a network after its first blocks.

    Args:
        model: a network of `Backbone.build`; it is the same afterwards.
        n_blocks_kept: from 1 to one less than the network has.
        image_size: height and width of the pictures that it was built for.
        seed: of the fresh classifier.
        calls: as `calls_of` gives them for this model and size, where they are known already.

    Raises:
        BackboneError: the network has no such blocks, or does not run without the later ones.

    Example:
        >>> from autobackbone.backbones.build import build
        >>> whole = build("test_resnet.r160_in1k", n_classes=3, image_size=(64, 64))
        >>> short = shorten(whole, 3, (64, 64))
        >>> short.entry, short.network.fc, short.network(torch.zeros(2, 3, 64, 64)).shape
        ('layer3', Linear(in_features=48, out_features=3, bias=True), torch.Size([2, 3]))
    """
    blocks = check_kept(model, n_blocks_kept)
    kept, later = blocks[:n_blocks_kept], frozenset(name for block in blocks[n_blocks_kept:] for name in block)
    calls = calls_of(model, image_size) if calls is None else calls
    try:
        with torch.no_grad():
            short = _shortened(model, later, calls, _noise(model, image_size), seed=seed)
            _check_blocks(short, kept)
    except REFUSALS as error:
        raise BackboneError(
            f"{type(model).__name__} must run without its later blocks to be cut after {n_blocks_kept} of "
            f"{len(blocks)}; "
            f"{type(error).__name__} came: {error}. Keep another number of blocks, or all with None."
        ) from error
    return short


def check_kept(model: nn.Module, n_blocks_kept: int) -> tuple[tuple[str, ...], ...]:
    """Its blocks, as `blocks_of` gives them.

    Raises:
        BackboneError: it cannot end after so many of them.
    """
    blocks = blocks_of(model)
    if not 1 <= n_blocks_kept < len(blocks):
        raise BackboneError(
            f"n_blocks_kept of {type(model).__name__} goes from 1 to {len(blocks) - 1}, one less than its blocks; "
            f"{n_blocks_kept} came. None keeps them all."
        )
    return blocks


def calls_of(model: nn.Module, image_size: ImageSize) -> list[Call]:
    """Every call of a module in one pass of one picture of noise, in eval mode, in the order in which they began.

    Args:
        model: a network of `Backbone.build`; it is the same afterwards.
        image_size: height and width of the pictures that it was built for.
    """
    calls: list[Call] = []
    running: list[Call] = []
    names = {module: name for name, module in model.named_modules()}

    def begin(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        call = Call(name=names[module], module=module, entering=_shape(arguments[0]) if arguments else None)
        calls.append(call)
        running.append(call)

    def end(_: nn.Module, __: tuple[Any, ...], answer: Any) -> None:
        call = running.pop()
        call.answer = _shape(answer)
        call.n_answers = len(answer) if isinstance(answer, (tuple, list)) else None

    with torch.no_grad(), evaluating(model), ExitStack() as stack:
        for module in names:
            stack.callback(module.register_forward_pre_hook(begin).remove)
            stack.callback(module.register_forward_hook(end).remove)
        model(_noise(model, image_size))
    return calls


def _shortened(
    model: nn.Module, later: frozenset[str], calls: Sequence[Call], noise: Tensor, *, seed: int
) -> Shortened:
    replaced = _outermost(calls, later)
    entry = next(iter(replaced))
    network = twin(model)
    # LeViT and its kin keep attention biases computed in eval mode until `train` is called.
    network.train().eval()
    for call in replaced.values():
        network.set_submodule(call.name, _replacement(call))
    for name in _left_over(calls, entry, replaced):
        network.set_submodule(name, PassThrough())
    for name in _owners(network, later):
        network.set_submodule(name, PassThrough())
    entering = _gauged(network, noise, [name for name, call in replaced.items() if _is_norm(call.module)])
    norms = tuple(name for name, tensor in entering.items() if _takes(replaced[name].module, tensor))
    for name in norms:
        network.set_submodule(name, twin(replaced[name].module))
    _give_fresh_classifier(network, noise, seed=seed)
    network(noise)
    return Shortened(network=network.train().eval(), entry=entry, norms=norms)


def _check_blocks(short: Shortened, kept: tuple[tuple[str, ...], ...]) -> None:
    """That the blocks are the first ones, under the same names; a norm that stayed joins the last of them."""
    network = short.network
    stayed = [f"{norm}.{name}" for norm in short.norms for name, _ in network.get_submodule(norm).named_parameters()]
    if blocks_of(network) != (*kept[:-1], (*kept[-1], *stayed)):
        raise BackboneError("its blocks are not the first ones of the whole")


def _noise(model: nn.Module, image_size: ImageSize) -> Tensor:
    like = next(model.parameters())
    noise = torch.randn(1, 3, *image_size, generator=torch.Generator().manual_seed(0))
    return noise.to(device=like.device, dtype=like.dtype)


def _shape(value: Any) -> tuple[int, ...] | None:
    return tuple(value.shape) if isinstance(value, Tensor) else None


def _n_long(shape: Sequence[int]) -> int:
    return sum(side > 1 for side in shape[1:])


def _outermost(calls: Iterable[Call], later: frozenset[str]) -> dict[str, Call]:
    """The outermost called modules all of whose parameters are in later blocks, by name."""
    found: dict[str, Call] = {}
    for call in calls:
        inside = [f"{call.name}.{name}" for name, _ in call.module.named_parameters()]
        if call.name and inside and later.issuperset(inside) and not _is_inside(call.name, found):
            found.setdefault(call.name, call)
    if not found:
        raise BackboneError("no module holds later blocks alone")
    return found


def _is_inside(name: str, outer: Iterable[str]) -> bool:
    return name.startswith(tuple(f"{one}." for one in outer))


def _replacement(call: Call) -> nn.Module:
    if not call.makes_a_vector:
        return PassThrough(call.n_answers)
    assert call.entering is not None
    assert call.answer is not None
    if len(call.answer) < len(call.entering):
        return MeanPositions((2, 3) if len(call.entering) == 4 else (1,), keeps_positions=False)
    sides = enumerate(zip(call.entering, call.answer, strict=True))
    positions = tuple(dimension for dimension, (before, after) in sides if before > 1 == after)
    return MeanPositions(positions, keeps_positions=True)


def _left_over(calls: Sequence[Call], entry: str, replaced: Iterable[str]) -> list[str]:
    """Modules without parameters behind the cut that neither keep every value nor make the vector."""
    start = next(index for index, call in enumerate(calls) if call.name == entry)
    before = {call.name for call in calls[:start]}
    behind = {call.name: call for call in calls[start:] if call.name not in before}
    return [
        name
        for name, call in behind.items()
        if not any(True for _ in call.module.parameters())
        and not any(True for _ in call.module.children())
        and not _is_inside(name, replaced)
        and not _stays(call)
    ]


def _stays(call: Call) -> bool:
    """Whether it makes one vector of a map of any size, or keeps every value, as dropout and flattening do."""
    if call.entering is None or call.answer is None:
        return True
    # A larger map, since pooling by halves makes one vector of a map of 2×2. And noise of its own, since an activation
    # changes nothing in what another one has left positive.
    for shape in ((call.entering[0], *(2 * side for side in call.entering[1:])), call.entering):
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        try:
            answer: Tensor = copy.deepcopy(call.module).cpu()(noise.clone())
        except REFUSALS:  # a norm without parameters takes one width alone
            continue
        is_same = answer.numel() == noise.numel() and torch.equal(answer.flatten(), noise.flatten())
        return is_same or _n_long(answer.shape) <= 1 < _n_long(shape)
    return True


def _owners(network: nn.Module, later: frozenset[str]) -> list[str]:
    """Modules that hold parameters of later blocks and are never called."""
    owners = {name.rpartition(".")[0] for name, _ in network.named_parameters() if name in later}
    return sorted(owner for owner in owners if owner and _holds_only(network, owner, later))


def _holds_only(network: nn.Module, owner: str, later: frozenset[str]) -> bool:
    return later.issuperset(f"{owner}.{name}" for name, _ in network.get_submodule(owner).named_parameters())


def _is_norm(module: nn.Module) -> bool:
    """A layer of vectors alone that keeps no statistics."""
    is_leaf = not any(True for _ in module.children()) and not any(True for _ in module.buffers())
    return is_leaf and all(parameter.ndim == 1 for parameter in module.parameters())


def _takes(norm: nn.Module, entering: Tensor) -> bool:
    try:
        answer: Tensor = norm(entering)
    except REFUSALS:
        return False
    return answer.shape == entering.shape


class _Gauge(nn.Module):
    """Stands where a classifier stood, answers zeros and notes how wide a fresh one has to be."""

    def __init__(self, layer: nn.Linear | nn.Conv2d) -> None:
        super().__init__()
        self.place = -1 if isinstance(layer, nn.Linear) else 1
        self.n_classes = int(layer.weight.shape[0])
        self.n_features = 0

    def forward(self, entering: Tensor) -> Tensor:
        self.n_features = entering.shape[self.place]
        shape = list(entering.shape)
        shape[self.place] = self.n_classes
        return entering.new_zeros(shape)


def _gauged(network: nn.Module, images: Tensor, names: Iterable[str]) -> dict[str, Tensor]:
    """What enters these modules, in the order of their calls; classifiers give way to gauges."""
    for name, layer in classifier_layers(network).items():
        network.set_submodule(name, _Gauge(layer))
    with read_at_doors(network, {name: (name, copy.deepcopy) for name in names}) as caught:
        network(images.clone())
    return {name: entering for name, entering in caught.items() if isinstance(entering, Tensor)}


def _give_fresh_classifier(network: nn.Module, images: Tensor, *, seed: int) -> None:
    gauges = {name: module for name, module in network.named_modules() if isinstance(module, _Gauge)}
    if not all(gauge.n_features for gauge in gauges.values()):
        raise BackboneError("a classifier is not called")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        for name, gauge in gauges.items():
            sizes = gauge.n_features, gauge.n_classes
            layer = nn.Linear(*sizes) if gauge.place == -1 else nn.Conv2d(*sizes, kernel_size=1)
            network.set_submodule(name, layer.to(images))
    # Where several layers are averaged they start alike, so that the head is one linear map.
    set_head(network, *head_weights(network))
    width = next(iter(gauges.values())).n_features
    for key in ("num_features", "head_hidden_size"):
        if isinstance(vars(network).get(key), int):
            setattr(network, key, width)

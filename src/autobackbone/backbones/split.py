"""Cut a network before its first trainable layer, so that the frozen part runs once and the tail trains on its output.

No architecture is named here. The cut is found by watching one forward pass, and then *verified*: on real pictures the
tail must give the same logits and the same gradients as the whole network. Where it does not, there is no split and the
whole network trains; nothing is lost but speed.

The tail is a twin of the network with the same parameter objects. In the twin each module that ran before the cut is
silenced (it answers zeros of the right shape, at no cost), and the first trainable module is handed the stored tensor.
So position and class tokens, which plain ViTs add between modules, need no special case: they are added to zeros that
nobody reads. Branches that enter in a list are stored side by side. Where something does read the zeros, such as a skip
connection over the cut, verification fails and a cut further up is tried.
"""

from __future__ import annotations

import copy
import logging
import math
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from autobackbone.backbones.blocks import set_training_mode, trainable_names

if TYPE_CHECKING:
    from collections.abc import Iterator

    from autobackbone.backbones.blocks import BatchNormMode

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """A network in two: what never changes, and what trains.

    Args:
        model: the whole network, unchanged.
        entry: the name of the first module with a trainable parameter; what enters it is stored, as `packed` gives it.
        tail: from stored activations to logits. Its parameters are the model's own, so training it trains the model.
    """

    model: nn.Module
    entry: str
    tail: Tail

    def prefix(self, images: Tensor) -> Tensor:
        """What enters the tail, computed without a graph and in eval mode; layers behind the cut do not run.

        Args:
            images: (n_images, 3, height, width), normalised.

        Returns:
            (n_images or a multiple of it, ...).
        """
        with torch.no_grad(), evaluating(self.model):
            return Prefix(self.model, self.entry).forward(images)[0]


class Prefix(nn.Module):
    """The frozen beginning of a network: pictures in, what enters `entry` out; layers behind it do not run.

    Args:
        model: the whole network, in eval mode when it is used.
        entry: the name of the module whose input is wanted.
    """

    def __init__(self, model: nn.Module, entry: str) -> None:
        super().__init__()
        self.model = model
        self.entry = entry

    def forward(self, images: Tensor) -> tuple[Tensor]:
        """Args: images: (n_images, 3, height, width), normalised. Returns: (n_images or a multiple of it, …)."""
        caught: list[Tensor] = []

        def catch(_: nn.Module, arguments: tuple[Any, ...]) -> None:
            caught.append(packed(arguments[0]))
            raise _ReachedError

        handle = self.model.get_submodule(self.entry).register_forward_pre_hook(catch)
        try:
            self.model(images)
        except _ReachedError:
            pass
        finally:
            handle.remove()
        return (caught[0],)


class Tail(nn.Module):
    """The trainable rest of a network: activations in, logits out.

    Args:
        body: a twin of the network with everything before `entry` silenced.
        entry: the name of the module that takes the activations.
        image_shape: (3, height, width) of the pictures behind the activations.
        entering: the shapes of what enters that module, nested as it is.
        rows_per_image: rows of an activation tensor for each picture.
    """

    def __init__(
        self, body: nn.Module, *, entry: str, image_shape: tuple[int, ...], entering: Any, rows_per_image: int
    ) -> None:
        super().__init__()
        self.body = body
        self.entry = entry
        self.image_shape = image_shape
        self.entering = entering
        self.rows_per_image = rows_per_image
        self.batch_norm: BatchNormMode = "fixed"

    def forward(self, activations: Tensor) -> Tensor:
        """Args: activations: as `Split.prefix` gives them. Returns: (n_images, n_classes)."""

        def hand_over(_: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
            return (_unpacked(activations, self.entering), *arguments[1:])

        n_images = activations.shape[0] // self.rows_per_image
        nothing = activations.new_zeros(1).expand(n_images, *self.image_shape)
        handle = self.body.get_submodule(self.entry).register_forward_pre_hook(hand_over)
        try:
            logits: Tensor = self.body(nothing)
        finally:
            handle.remove()
        return logits

    def train(self, mode: bool = True) -> Tail:  # noqa: FBT001, FBT002  torch's own signature
        """As `set_training_mode`: frozen layers and, unless `batch_norm` says otherwise, running statistics stay."""
        super().train(mode)
        if mode:
            set_training_mode(self.body, batch_norm=self.batch_norm)
        return self


def split_at(model: nn.Module, n_unfrozen: int, sample: Tensor, *, verified: str | None = None) -> Split | None:
    """Cut as late as possible before the first trainable parameter, and prove that nothing changes by it.

    Args:
        model: a network of `Backbone.build`; it is the same afterwards.
        n_unfrozen: trailing blocks that train, at least 1.
        sample: (n_images, 3, height, width), at least 2 real pictures, normalised, on the model's device.
        verified: the entry of a split of this very network, with the same weights and depth, that was proven before:
            it is made again without a proof.

    Returns:
        The split, or `None` if none could be verified, or if all blocks train and nothing is left to store. Why a cut
        that was tried does not hold is logged at level debug.

    Example:
        >>> from autobackbone.backbones.build import build
        >>> network = build("test_resnet.r160_in1k", n_classes=3, image_size=(64, 64))
        >>> pictures = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        >>> split = split_at(network, 1, pictures)
        >>> split.entry, split.prefix(pictures).shape
        ('layer4', torch.Size([2, 192, 4, 4]))
    """
    trainable = trainable_names(model, n_unfrozen)
    with evaluating(model), only_trainable(model, trainable):
        for cut in reversed(_cuts(model, sample)):
            if verified not in (None, cut.entry.name):
                continue
            split = _split(model, cut, sample)
            if split is None:
                fault: str | None = "what enters is no tensor"
            else:
                fault = None if verified else _fault(split, sample)
            if fault is None:
                assert split is not None
                split.tail.train(mode=False)
                return split
            _LOG.debug("%s has no cut before %s: %s", type(model).__name__, cut.entry.name, fault)
    return None


def packed(entering: Any) -> Tensor:
    """What enters a module as one tensor: a single one as it is, the branches of a list side by side.

    Args:
        entering: (n, …), or a list or tuple of such tensors.

    Returns:
        The same tensor (n, …), or (n, n_values).

    Example:
        >>> packed([torch.zeros(2, 3, 4, 4), torch.zeros(2, 5)]).shape
        torch.Size([2, 53])
    """
    if isinstance(entering, Tensor):
        return entering
    return torch.cat([branch.flatten(1) for branch in entering], dim=1)


class _ReachedError(Exception):
    """The prefix has been computed; leave the forward pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shape:
    """A tensor that a module answered when `rows_in` rows entered it."""

    rows_in: int
    rows: int
    rest: tuple[int, ...]
    dtype: torch.dtype

    def zeros(self, like: Tensor) -> Tensor:
        dtype = like.dtype if self.dtype.is_floating_point else self.dtype
        n_rows = self.rows * like.shape[0] // self.rows_in
        return torch.zeros(1, dtype=dtype, device=like.device).expand(n_rows, *self.rest)


# Compared by identity: two calls of one module are two calls.
@dataclass(slots=True, kw_only=True, eq=False)
class _Call:
    """One call of one module in a forward pass."""

    name: str
    module: nn.Module
    parent: _Call | None
    entering: Any
    answer: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cut:
    """A place to cut: `entry` takes the stored tensor, `silenced` ran before it and are not needed behind it."""

    entry: _Call
    silenced: tuple[_Call, ...]


class _Silent(nn.Module):
    """Stands where a frozen module stood, and answers zeros of the shape that it would have answered.

    What else the network asks of the module, such as the grid of a patch embedding, an empty shell of it tells.
    """

    def __init__(self, module: nn.Module, answer: Any) -> None:
        super().__init__()
        self.answer = answer
        shell = copy.copy(module)
        for kind in ("_parameters", "_buffers", "_modules"):
            setattr(shell, kind, {})
        self.shell = (shell,)  # in a tuple, so that torch does not take it for a layer

    def forward(self, *arguments: Any, **named: Any) -> Any:
        entering = _first_tensor((*arguments, *named.values()))
        assert entering is not None
        return _zeros(self.answer, entering)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if "shell" not in self.__dict__:
                raise
            return getattr(self.shell[0], name)


def _cuts(model: nn.Module, sample: Tensor) -> list[_Cut]:
    """The first trainable module that is called, the first one inside it and so on; outermost first."""
    calls = _calls(model, sample)
    cuts: list[_Cut] = []
    path = [calls[0]]
    while any(not parameter.requires_grad for parameter in path[-1].module.parameters()):
        inside = (call for call in calls if call.parent is path[-1] and _has_trainable(call.module))
        entry = next(inside, None)
        if entry is None:
            break
        n_before = calls.index(entry)
        needed = {call.module for call in calls[n_before:]}
        before = [call for call in calls[:n_before] if call.parent in path and call not in path]
        silenced = tuple(call for call in before if call.answer is not None and call.module not in needed)
        cuts.append(_Cut(entry=entry, silenced=silenced))
        path.append(entry)
    return cuts


def _calls(model: nn.Module, sample: Tensor) -> list[_Call]:
    """Every call of a module in one forward pass, in the order in which they began.

    An answer is noted where the pictures move it, which a gradient with respect to them tells.
    """
    calls: list[_Call] = []
    running: list[_Call] = []
    names = {module: name for name, module in model.named_modules()}

    def begin(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        entering = _shapes(arguments[0], rows_in=sample.shape[0]) if arguments else None
        parent = running[-1] if running else None
        call = _Call(name=names[module], module=module, parent=parent, entering=entering)
        calls.append(call)
        running.append(call)

    def end(_: nn.Module, arguments: tuple[Any, ...], answer: Any) -> None:
        entering, answered = _first_tensor(arguments), _first_tensor(answer)
        # What no picture moves, such as relative positions that all blocks share, is of use behind the cut, too.
        is_moved = answered is not None and answered.requires_grad
        running.pop().answer = _shapes(answer, rows_in=entering.shape[0]) if entering is not None and is_moved else None

    # No parameter has a gradient here: LeViT and its kin would keep its graph beside their attention biases.
    with ExitStack() as stack, torch.enable_grad(), only_trainable(model, frozenset()):
        for module in names:
            stack.callback(module.register_forward_pre_hook(begin).remove)
            stack.callback(module.register_forward_hook(end).remove)
        # A copy of what has a gradient: some networks write into their input.
        model(sample.detach().requires_grad_().clone())
    return calls


def _has_trainable(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())


def _first_tensor(values: Any) -> Tensor | None:
    if isinstance(values, Tensor):
        return values if values.ndim else None
    if not isinstance(values, (tuple, list)):
        return None
    return next((found for found in map(_first_tensor, values) if found is not None), None)


def _shapes(answer: Any, *, rows_in: int) -> Any:
    """The shapes of an answer, nested as it was; `None` for anything that is not made of tensors."""
    if isinstance(answer, Tensor) and answer.ndim:
        return _Shape(rows_in=rows_in, rows=answer.shape[0], rest=tuple(answer.shape[1:]), dtype=answer.dtype)
    if not isinstance(answer, (tuple, list)):
        return None
    parts = [_shapes(part, rows_in=rows_in) for part in answer]
    return None if any(part is None for part in parts) else type(answer)(parts)


def _zeros(shapes: Any, entering: Tensor) -> Any:
    if isinstance(shapes, _Shape):
        return shapes.zeros(entering)
    return type(shapes)(_zeros(part, entering) for part in shapes)


def _split(model: nn.Module, cut: _Cut, sample: Tensor) -> Split | None:
    entering = cut.entry.entering
    rows_per_image = _rows_per_image(entering)
    if rows_per_image is None:
        return None
    body = twin(model)
    for call in cut.silenced:
        body.set_submodule(call.name, _Silent(call.module, call.answer))
    tail = Tail(
        body,
        entry=cut.entry.name,
        image_shape=tuple(sample.shape[1:]),
        entering=entering,
        rows_per_image=rows_per_image,
    )
    return Split(model=model, entry=cut.entry.name, tail=tail)


def _rows_per_image(entering: Any) -> int | None:
    """Rows of what enters for each picture; `None` for what cannot be stored as one tensor."""
    if isinstance(entering, _Shape):
        return None if entering.rows % entering.rows_in else entering.rows // entering.rows_in
    branches = entering or ()
    return 1 if branches and all(map(_is_branch, branches)) else None


def _is_branch(shape: Any) -> bool:
    has_row_per_image = isinstance(shape, _Shape) and shape.rows == shape.rows_in and len(shape.rest) > 0
    return has_row_per_image and shape.dtype.is_floating_point


def _unpacked(stored: Tensor, shapes: Any) -> Any:
    """The inverse of `packed`."""
    if isinstance(shapes, _Shape):
        return stored
    branches = torch.split(stored, [math.prod(shape.rest) for shape in shapes], dim=1)
    return type(shapes)(branch.reshape(-1, *shape.rest) for branch, shape in zip(branches, shapes, strict=True))


def twin(model: nn.Module) -> nn.Module:
    """The same modules anew, around the very same tensors."""
    tensors = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, memo={id(tensor): tensor for tensor in tensors})


def _fault(split: Split, sample: Tensor) -> str | None:
    """Why the tail does not stand for the network: `None` if it has its gradients and, also for one picture, logits."""
    try:
        if not _has_same_gradients(split, sample):
            return "other gradients"
        return None if _has_same_logits(split, sample) else "other logits"
    # A silenced module was asked for more than its answer, or zeros did not fit: then this cut is none.
    except (AttributeError, RuntimeError, TypeError, ValueError, IndexError) as error:
        return f"{type(error).__name__}, {error}"


def _has_same_gradients(split: Split, sample: Tensor) -> bool:
    parameters = [parameter for parameter in split.model.parameters() if parameter.requires_grad]
    set_training_mode(split.model)
    split.tail.train()
    slopes = []
    for network, entering in ((split.model, sample), (split.tail, split.prefix(sample))):
        with torch.random.fork_rng(), torch.enable_grad():
            torch.manual_seed(0)  # dropout draws alike in both
            logits = network(entering)
            # Every logit pulls with its own weight, so that no two gradients cancel.
            pull = torch.linspace(-1.0, 2.0, logits.numel(), device=logits.device, dtype=logits.dtype)
            slopes.append(torch.autograd.grad((logits.flatten() * pull).sum(), parameters, allow_unused=True))
    # One scale for all: the gradient of an attention's key bias is zero but for rounding, which no cut repeats.
    scale = max((float(slope.abs().max()) for slope in slopes[0] if slope is not None), default=0.0)
    return all(_agree(wanted, got, scale) for wanted, got in zip(*slopes, strict=True))


@torch.no_grad()
def _has_same_logits(split: Split, sample: Tensor) -> bool:
    model, tail = split.model.eval(), split.tail.eval()
    scale = float(model(sample).abs().max())
    return all(_agree(model(images), tail(split.prefix(images)), scale) for images in (sample, sample[:1]))


def _agree(wanted: Tensor | None, got: Tensor | None, scale: float) -> bool:
    if wanted is None or got is None:
        return wanted is got
    return wanted.shape == got.shape and torch.allclose(wanted, got, rtol=1e-4, atol=1e-5 * scale)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode for a while; each module goes back to the mode in which it was."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            if module.training != mode:
                module.train(mode)


@contextmanager
def only_trainable(model: nn.Module, names: frozenset[str]) -> Iterator[None]:
    """Only parameters of these names have gradients for a while."""
    before = {parameter: parameter.requires_grad for parameter in model.parameters()}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in names)
    try:
        yield
    finally:
        for parameter, flag in before.items():
            parameter.requires_grad_(flag)

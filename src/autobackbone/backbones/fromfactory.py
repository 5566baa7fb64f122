"""Networks that a user's own factory makes."""

from __future__ import annotations

import copy
import hashlib
import inspect
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from autobackbone.backbones.blocks import blocks_of
from autobackbone.backbones.elsewhere import body_tensors, dressed, finished, is_linear, last_linear
from autobackbone.backbones.head import is_same, verify_head
from autobackbone.backbones.parts import Parts
from autobackbone.backbones.shorten import calls_of
from autobackbone.backbones.sizes import sizes_to_try
from autobackbone.backbones.tensors import read_tensors
from autobackbone.backbones.weights import WeightSource, given_file
from autobackbone.errors import BackboneError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

    from autobackbone.backbones.shorten import Call
    from autobackbone.backbones.weights import GivenWeights
    from autobackbone.ownbackbone import OwnBackbone
    from autobackbone.records import ImageSize, Normalisation

# Of logits alone and beside others, as a share of the largest: above what single precision rounds in deep networks.
_ROUNDED_SHARE = 1e-2
# Their code has a version of its own.
_VERSIONED = ("torch.", "torchvision.", "timm.")


class FactoryBackbone:
    """One network of a user's own, as `Backbone` has it.

    The factory is called once, when something of the network is first asked for; each network is a copy of that.

    Args:
        own: what the user said of it.

    Example:
        >>> from autobackbone.ownbackbone import OwnBackbone
        >>> backbone = FactoryBackbone(OwnBackbone(factory="torchvision.models:resnet18", name="mine", image_size=64))
        >>> backbone.n_blocks(), backbone.image_sizes(None)
        (5, ((64, 64),))
    """

    def __init__(self, own: OwnBackbone) -> None:
        self._own = own
        self._taken: dict[ImageSize, bool] = {}
        self._gmacs: dict[ImageSize, float] = {}

    @property
    def name(self) -> str:
        """What the user calls it."""
        return self._own.name

    def build(
        self,
        *,
        n_classes: int,
        image_size: ImageSize,
        state_dict: Mapping[str, Tensor] | None = None,
        seed: int = 0,
        n_blocks_kept: int | None = None,
    ) -> nn.Module:
        """A network in eval mode with a fresh classifier; see `Backbone.build`.

        Raises:
            BackboneError: the factory gives no network with a classifier, or it cannot take this size or be cut so.
        """
        if not self._takes(image_size):
            raise BackboneError(
                f"{self.name!r} must be given pictures of a size that it can take; {image_size} came. Its own is "
                f"{self._own.image_size}."
            )
        return finished(
            copy.deepcopy(self._whole),
            n_classes=n_classes,
            image_size=image_size,
            state_dict=state_dict,
            seed=seed,
            n_blocks_kept=n_blocks_kept,
        )

    def n_blocks(self) -> int:
        """How many blocks it has."""
        return len(blocks_of(self._whole))

    def image_sizes(self, wanted: Sequence[ImageSize] | None) -> tuple[ImageSize, ...]:
        """The sizes that it runs at.

        Raises:
            BackboneError: the factory gives nothing that can be searched.
        """
        _ = self._whole  # its own size is taken for granted
        return sizes_to_try(self._own_size, wanted, self._takes)

    def normalisation(self) -> Normalisation:
        """As the user said."""
        return self._own.normalisation

    def gmacs(self, image_size: ImageSize) -> float:
        """Counted in one pass: convolutions and products of matrices."""
        if image_size not in self._gmacs:
            with torch.no_grad(), FlopCounterMode(display=False) as counter:
                self._whole(torch.zeros(1, 3, *image_size))
            # Two operations are one multiply-add; none may be free, since seconds are scaled by them.
            self._gmacs[image_size] = max(counter.get_total_flops() / 2e9, 1e-6)
        return self._gmacs[image_size]

    def find_weights(self, given: GivenWeights) -> WeightSource:
        """A given file, or what the factory makes.

        Raises:
            WeightsError: a file that is named does not exist.
        """
        path: Path | None = given_file((self.name,), given)
        if path is None and self._own.weights is not None:
            path = given_file((self.name,), {self.name: str(self._own.weights)})
        return WeightSource(kind="factory") if path is None else WeightSource(kind="file", path=path)

    def load_state_dict(self, source: WeightSource) -> Mapping[str, Tensor]:
        """Read its weights, or take them as the factory made them.

        Raises:
            WeightsError: the file is damaged, or holds something else.
        """
        if source.path is None:
            return body_tensors(self._whole, self._whole.state_dict(), "the factory", self.name)
        return body_tensors(self._whole, read_tensors(source.path), repr(str(source.path)), self.name)

    def code_digest(self) -> str:
        """Its layers with their settings, and the source of all classes among them that are nobody's library's."""
        kinds = sorted({type(module) for module in self._whole.modules()}, key=_path_of)
        told = [_source_of(kind) for kind in kinds if not kind.__module__.startswith(_VERSIONED)]
        return hashlib.sha256("\n".join([repr(self._whole), *told]).encode()).hexdigest()

    @property
    def _own_size(self) -> ImageSize:
        size = self._own.image_size
        assert isinstance(size, tuple)
        return size

    @cached_property
    def _whole(self) -> nn.Module:
        """What the factory made, dressed and found to be of use."""
        with torch.random.fork_rng(devices=[]):
            # The same in each process, also where its weights are random.
            torch.default_generator.manual_seed(0)
            made = self._own.made()
        if not isinstance(made, nn.Module):
            raise BackboneError(f"the factory of {self.name!r} gives a torch.nn.Module; {type(made).__name__} came.")
        model = self._copied(made).cpu().float()
        head = self._head_of(model)
        model = dressed(model, Parts(classifier=(head,), blocks=self._blocks_in(model, head)))
        self._require_useful(model)
        return model

    def _copied(self, made: nn.Module) -> nn.Module:
        """Each network is a copy: the factory may keep what it gave."""
        try:
            return copy.deepcopy(made)
        except Exception as error:  # whatever a user's code may raise
            raise BackboneError(
                f"{self.name!r} must be a network that copy.deepcopy can copy; {_said(error)}. Keep in it what can be "
                "copied: no open files, no locks, no tensors that other tensors were computed from."
            ) from error

    def _head_of(self, model: nn.Module) -> str:
        name, present = self._own.head or last_linear(model), dict(model.named_modules())
        if name is None or not is_linear(present.get(name, model)):
            found = "none such is there" if name is None else f"{name!r} is {_kind(present.get(name))}"
            raise BackboneError(
                f"{self.name!r} must end in an nn.Linear or a 1×1 nn.Conv2d, which head= names; {found}. Its modules: "
                f"{', '.join(name for name, _ in model.named_children()) or 'none'}."
            )
        return name

    def _blocks_in(self, model: nn.Module, head: str) -> tuple[tuple[str, ...], ...]:
        if self._own.blocks is None:
            return tuple((name,) for name, _ in model.named_children())
        present = {name for name, _ in (*model.named_modules(), *model.named_parameters())}
        blocks: Any = self._own.blocks
        absent = [name for block in blocks for name in block if name not in present]
        if absent:
            raise BackboneError(
                f"blocks of {self.name!r} are names of its modules; it has no {', '.join(map(repr, absent[:3]))}. Its "
                f"children: {', '.join(name for name, _ in model.named_children())}."
            )
        if any(f"{name}.".startswith(f"{head}.") for block in blocks for name in block):
            raise BackboneError(
                f"blocks of {self.name!r} are what pictures pass before its head {head!r}, which always trains. Leave "
                "it out."
            )
        return tuple(blocks)

    def _require_useful(self, model: nn.Module) -> None:
        if not blocks_of(model):
            raise BackboneError(
                f"{self.name!r} has no parameter to train before its head. What requires no gradient never trains: "
                "leave requires_grad as it is, the search freezes by itself."
            )
        pictures = torch.randn(2, 3, *self._own_size, generator=torch.Generator().manual_seed(0))
        try:
            with torch.no_grad():
                is_finite = bool(torch.isfinite(model(pictures)).all())
                is_alone = is_finite and _is_alone(model, pictures)
            is_affine = verify_head(model, pictures)
            if self._own.blocks is not None:
                self._require_order(calls_of(model, self._own_size))
        except BackboneError:
            raise
        except Exception as error:  # whatever a user's code may raise
            raise BackboneError(
                f"{self.name!r} must take pictures (n, 3, {self._own_size[0]}, {self._own_size[1]}) and answer logits; "
                f"{_said(error)}. Is image_size= right?"
            ) from error
        if not is_finite:
            raise BackboneError(
                f"what {self.name!r} answers to random pictures must be numbers; NaN or infinity came. Look at what it "
                "divides by, or takes the root or logarithm of."
            )
        if not is_alone:
            raise BackboneError(
                f"what {self.name!r} answers to a picture must be the same alone and beside others, in eval mode. "
                "Leave out what looks at the whole batch, such as a mean over it, and what draws by chance."
            )
        if not is_affine:
            raise BackboneError(
                f"what {self.name!r} answers must be what its head gives, and nothing more, such as a softmax behind "
                "it. Let it answer logits, or name the last linear layer by head=."
            )

    def _require_order(self, calls: Sequence[Call]) -> None:
        """Make sure that pictures pass the blocks that the user named in their order; of two that neither is a module
        which is called, nobody knows.
        """
        blocks: Any = self._own.blocks
        first = []
        for block in blocks:
            inside = tuple(f"{name}." for name in block)
            places = [place for place, call in enumerate(calls) if f"{call.name}.".startswith(inside)]
            if places:
                first.append((min(places), block))
        for (before, earlier), (after, later) in pairwise(first):
            if before > after:
                raise BackboneError(
                    f"blocks of {self.name!r} are to stand in the order in which pictures pass; {', '.join(later)} is "
                    f"passed before {', '.join(earlier)}. Let it stand before."
                )

    def _takes(self, image_size: ImageSize) -> bool:
        if image_size not in self._taken:
            try:
                with torch.no_grad():
                    self._whole(torch.zeros(2, 3, *image_size))
                self._taken[image_size] = True
            except BackboneError:
                raise
            except Exception:  # noqa: BLE001  whatever a user's code may raise
                self._taken[image_size] = False
        return self._taken[image_size]


def _is_alone(model: nn.Module, pictures: Tensor) -> bool:
    """Whether it answers to the first picture the same alone and beside the others."""
    if is_same(model(pictures)[:1], model(pictures[:1])):
        return True
    # Rounding grows on its way through many layers of random weights: efficientnetv2_s differs by 0.1 of 800 then, and
    # by 2e-10 in double precision.
    try:
        exact, doubles = copy.deepcopy(model).double(), pictures.double()
        return is_same(exact(doubles)[:1], exact(doubles[:1]))
    except Exception:  # noqa: BLE001  whatever a user's code may raise, such as of constants in single precision
        together, alone = model(pictures)[:1], model(pictures[:1])
        return bool((together - alone).abs().max() <= _ROUNDED_SHARE * together.abs().max())


def _said(error: Exception) -> str:
    text = str(error)
    return f"{type(error).__name__} came{': ' if text else ', and said nothing'}{text}"


def _kind(module: nn.Module | None) -> str:
    return "not there" if module is None else f"a {type(module).__name__}"


def _path_of(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _source_of(kind: type) -> str:
    try:
        return f"{_path_of(kind)} {inspect.getsource(kind)}"
    except (OSError, TypeError):  # of classes that were made at run time
        return _path_of(kind)

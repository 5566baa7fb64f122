"""What networks that are not timm's have in common: parts that are told, a fresh classifier, tensors by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from autobackbone.backbones.build import keep_fixed
from autobackbone.backbones.parts import note_parts, parts_of
from autobackbone.backbones.shorten import shorten
from autobackbone.backbones.tensors import differences
from autobackbone.errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from autobackbone.backbones.parts import Parts
    from autobackbone.records import ImageSize

_SHOWN = 3


def last_linear(model: nn.Module) -> str | None:
    """The name of its last linear layer or 1×1 convolution.

    Example:
        >>> last_linear(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 2), nn.ReLU()))
        '2'
    """
    return next((name for name, module in reversed(list(model.named_modules())) if is_linear(module)), None)


def is_linear(module: nn.Module) -> bool:
    """Whether it is one linear map of a feature vector."""
    return isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1))


def dressed(model: nn.Module, parts: Parts) -> nn.Module:
    """A network that knows its parts, in place, in eval mode; what does not train in it is no parameter."""
    keep_fixed(model)
    return note_parts(model, parts).eval()


def finished(
    model: nn.Module,
    *,
    n_classes: int,
    image_size: ImageSize,
    state_dict: Mapping[str, Tensor] | None,
    seed: int,
    n_blocks_kept: int | None,
) -> nn.Module:
    """What `Backbone.build` gives, of a dressed network: with a fresh classifier, given tensors, perhaps cut.

    Args:
        model: changed in place.
        n_classes: outputs of the classifier.
        image_size: height and width of the pictures that it will see.
        state_dict: the whole network's, as `body_tensors` gives them.
        seed: of the classifier.
        n_blocks_kept: see `shorten`.
    """
    parts = parts_of(model)
    assert parts is not None
    for name in parts.classifier:
        model.set_submodule(name, _fresh(model.get_submodule(name), n_classes, seed))
    if state_dict is not None:
        # One by one: a class may want to know from which version of itself a whole dictionary came.
        with torch.no_grad():
            for name, tensor in model.state_dict().items():
                if not _is_of(name, parts):
                    tensor.copy_(state_dict[name])
    return model.eval() if n_blocks_kept is None else shorten(model, n_blocks_kept, image_size, seed=seed).network


def body_tensors(model: nn.Module, tensors: Mapping[str, Tensor], origin: str, what: str) -> dict[str, Tensor]:
    """The tensors of all but the classifier, each checked.

    Args:
        model: a dressed network, perhaps without numbers.
        tensors: by name, those of a classifier perhaps among them.
        origin: where they come from, to be said.
        what: of which network they should be, to be said.

    Raises:
        WeightsError: names or shapes are not those of the network.
    """
    parts = parts_of(model)
    assert parts is not None
    wanted = {name: tuple(one.shape) for name, one in model.state_dict().items()}
    told = differences(wanted, tensors, parts.classifier)
    if told:
        more = f" and {len(told) - _SHOWN} more" if len(told) > _SHOWN else ""
        raise WeightsError(
            f"{origin} does not hold the weights of {what!r}: {'; '.join(told[:_SHOWN])}{more}. Give the file of this "
            "very network."
        )
    # Files older than torch 0.4.1 have no step counters of BatchNorm.
    return {name: tensors.get(name, torch.tensor(0)) for name in wanted if not _is_of(name, parts)}


def _is_of(name: str, parts: Parts) -> bool:
    return name.startswith(tuple(f"{layer}." for layer in parts.classifier))


def _fresh(layer: nn.Module, n_classes: int, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        if isinstance(layer, nn.Conv2d):
            return nn.Conv2d(layer.in_channels, n_classes, kernel_size=1)
        assert isinstance(layer, nn.Linear)
        return nn.Linear(layer.in_features, n_classes)

"""The classifier of a network as one linear map over one feature vector, whatever form its library gives it.

Most networks end in one linear layer or 1×1 convolution. Some end in several whose outputs are averaged: pairs with a
distillation token (DeiT, LeViT, RepViT, EfficientFormer), one for each branch (CrossViT) or stage (EfficientViM). All
of them are read here as `logits = features @ weight.T + bias`:

- layers with equally wide inputs share one weight and take the mean of their inputs;
- layers with inputs of other widths take consecutive columns.

So a head that was fitted on `features` is written into the layers which the network has, and keeps their names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autobackbone.backbones.doors import read_at_doors
from autobackbone.backbones.parts import parts_of
from autobackbone.errors import BackboneError

if TYPE_CHECKING:
    from collections.abc import Sequence


class AffineHead(NamedTuple):
    """A classifier: `logits = features @ weight.T + bias`.

    Args:
        weight: (n_classes, n_features).
        bias: (n_classes,).
    """

    weight: Tensor
    bias: Tensor


def features(model: nn.Module, images: Tensor) -> Tensor:
    """What enters the classifier, caught at its door, so that it holds for every architecture.

    Args:
        model: a network of `Backbone.build`; put it in eval mode for features that can be used again.
        images: (n_images, 3, height, width), normalised.

    Returns:
        (n_images, n_features), in the order of the images, with a graph if gradients are on.

    Example:
        >>> from autobackbone.backbones.build import build
        >>> network = build("test_resnet.r160_in1k", n_classes=3, image_size=(64, 64))
        >>> features(network, torch.zeros(2, 3, 64, 64)).shape
        torch.Size([2, 96])
    """
    layers = classifier_layers(model)
    with read_at_doors(model, {name: (name, _flat) for name in layers}) as caught:
        model(images)
    return torch.cat([torch.stack([caught[name] for name in names]).mean(0) for names in _shared(layers)], dim=1)


def set_head(model: nn.Module, weight: Tensor, bias: Tensor) -> None:
    """Write a fitted head into the network's own layers.

    Args:
        model: a network of `Backbone.build`.
        weight: (n_classes, n_features), of any floating type and device.
        bias: (n_classes,).

    Raises:
        BackboneError: the shapes are not those of this network.

    Example:
        >>> from autobackbone.backbones.build import build
        >>> network = build("test_resnet.r160_in1k", n_classes=3, image_size=(64, 64))
        >>> set_head(network, torch.zeros(3, 96), torch.tensor([1.0, 2.0, 3.0]))
        >>> network(torch.zeros(1, 3, 64, 64)).tolist()
        [[1.0, 2.0, 3.0]]
    """
    layers = classifier_layers(model)
    n_classes = int(next(iter(layers.values())).weight.shape[0])
    if weight.shape != (n_classes, n_features(model)) or bias.shape != (n_classes,):
        raise BackboneError(
            f"this network takes a head with weight {(n_classes, n_features(model))} and bias {(n_classes,)}; "
            f"{tuple(weight.shape)} and {tuple(bias.shape)} came. Build it with the number of classes of the head."
        )
    shared = _shared(layers)
    columns = torch.split(weight, [layers[names[0]].weight.shape[1] for names in shared], dim=1)
    with torch.no_grad():
        for names, part in zip(shared, columns, strict=True):
            # The network averages its layers, so a layer's share is 1 / n_layers of the logits.
            own = part * (len(layers) / len(names))
            for name in names:
                layers[name].weight.copy_(own.reshape(layers[name].weight.shape))
                _bias(layers[name], name).copy_(bias)


def scale_outputs(model: nn.Module, scale: NDArray[np.float64], shift: NDArray[np.float64]) -> None:
    """Change a network, in place, to give `outputs * scale + shift`.

    Args:
        model: a network of `Backbone.build`.
        scale: (n_outputs,).
        shift: (n_outputs,).

    Example:
        >>> from autobackbone.backbones.build import build
        >>> network = build("test_resnet.r160_in1k", n_classes=1, image_size=(64, 64))
        >>> set_head(network, torch.zeros(1, 96), torch.tensor([2.0]))
        >>> scale_outputs(network, np.array([10.0]), np.array([5.0]))
        >>> network(torch.zeros(1, 3, 64, 64)).tolist()
        [[25.0]]
    """
    with torch.no_grad():
        # The network averages its layers, so what is done to each is done to their mean.
        for name, layer in classifier_layers(model).items():
            factors = torch.as_tensor(scale, dtype=layer.weight.dtype, device=layer.weight.device)
            layer.weight.mul_(factors.reshape(-1, *[1] * (layer.weight.ndim - 1)))
            _bias(layer, name).mul_(factors).add_(torch.as_tensor(shift, dtype=factors.dtype, device=factors.device))


def head_weights(model: nn.Module) -> AffineHead:
    """The network's classifier as one linear map, the inverse of `set_head`.

    For pairs that look at two different tokens (DeiT and PiT with distillation) it is exact until fine-tuning has moved
    the two layers apart, and their mean from then on.
    """
    layers = classifier_layers(model)
    weights = [
        torch.stack([layers[name].weight.detach().flatten(1) for name in names]).sum(0) / len(layers)
        for names in _shared(layers)
    ]
    bias = torch.stack([_bias(layer, name).detach() for name, layer in layers.items()]).mean(0)
    return AffineHead(weight=torch.cat(weights, dim=1), bias=bias)


def n_features(model: nn.Module) -> int:
    """The width of what enters the classifier."""
    layers = classifier_layers(model)
    return sum(int(layers[names[0]].weight.shape[1]) for names in _shared(layers))


def verify_head(model: nn.Module, images: Tensor) -> bool:
    """Whether `model(images)` is the linear map of `head_weights` over `features`, up to rounding."""
    with torch.no_grad():
        head = head_weights(model)
        wanted = model(images)
        got = features(model, images) @ head.weight.T + head.bias
    return is_same(got, wanted)


def is_same(got: Tensor, wanted: Tensor) -> bool:
    """Whether these are the same outputs, up to rounding."""
    return torch.allclose(got, wanted, rtol=1e-4, atol=1e-5 * max(1.0, float(wanted.abs().max())))


def classifier_layers(model: nn.Module) -> dict[str, nn.Linear | nn.Conv2d]:
    """The layers whose outputs are logits, by name, as the network's own facts list them.

    Raises:
        BackboneError: the network has no classifier, or one that is not made of linear layers.
    """
    names = _listed(model)
    present = dict(model.named_modules())
    layers = {name: present[name] for name in names if name in present}
    linear = {name: layer for name, layer in layers.items() if isinstance(layer, (nn.Linear, nn.Conv2d))}
    if not linear or len(linear) != len(layers):
        raise BackboneError(
            f"{type(model).__name__} must end in linear layers or 1×1 convolutions to be given a new head; "
            f"{ {name: type(layer).__name__ for name, layer in layers.items()} or 'no classifier' } came. "
            "Choose another backbone."
        )
    return linear


def _listed(model: nn.Module) -> Sequence[str]:
    parts = parts_of(model)
    if parts is not None:
        return parts.classifier
    listed: str | Sequence[str] = getattr(model, "pretrained_cfg", {}).get("classifier") or ()
    return [listed] if isinstance(listed, str) else listed


def _flat(entering: Tensor) -> Tensor:
    return entering.flatten(1)


def _shared(layers: dict[str, nn.Linear | nn.Conv2d]) -> list[list[str]]:
    widths: dict[int, list[str]] = {}
    for name, layer in layers.items():
        widths.setdefault(int(layer.weight.shape[1]), []).append(name)
    return list(widths.values())


def _bias(layer: nn.Linear | nn.Conv2d, name: str) -> Tensor:
    if layer.bias is None:
        raise BackboneError(f"the classifier {name!r} must have a bias to take a fitted head; it has none.")
    return layer.bias

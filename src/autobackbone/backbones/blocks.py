"""Steps of depth: which parameters train with `n_unfrozen`, and which modules may move while they do.

A block is one group of timm's `group_matcher(coarse=True)`, or of `Parts` in a network from elsewhere, with four rules
of our own:

- the classifier is no block: it always trains;
- what no group claims but stands before the last block, such as relative positions that all blocks share, is stem;
- a group without any matrix or kernel (a last norm, VGG's batch norms) joins the block before it;
- whatever else is left over at the end (`conv_head`, VGG's two fully connected layers) is a block.

RDNet has only a fine grouping, which is by stage; it is taken. MetaFormer, CSATv2 and PiT have none: there each stage
is a block, everything before the stages is the stem, and what comes after follows the rules above.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from timm.models import group_parameters
from torch import Tensor, nn

from autobackbone.backbones.head import classifier_layers
from autobackbone.backbones.parts import parts_of
from autobackbone.errors import BackboneError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

BatchNormMode = Literal["fixed", "batch"]
"""`fixed`: running statistics stay as they were loaded; `batch`: those of unfrozen layers follow the data."""

# EfficientViM's mixing weights of its heads sit beside the heads and are of no use without them.
_PARTS_OF_A_CLASSIFIER = frozenset({"weights", "weights_dist"})


def blocks_of(model: nn.Module) -> tuple[tuple[str, ...], ...]:
    """The names of the parameters of each block, stem first; the classifier is left out.

    Args:
        model: a network of `Backbone.build`.

    Returns:
        One tuple of parameter names for each block. Together they hold every parameter but the classifier's, once.

    Example:
        >>> from autobackbone.backbones.build import build
        >>> [len(block) for block in blocks_of(build("test_resnet.r160_in1k", n_classes=3, image_size=(64, 64)))]
        [9, 6, 9, 12, 9]
    """
    sizes = {name: parameter.ndim for name, parameter in model.named_parameters()}
    classifier = set(head_parameter_names(model))
    blocks: list[list[str]] = []
    for group in _groups(model):
        names = [name for name in group if name not in classifier]
        if blocks and all(sizes[name] < 2 for name in names):
            blocks[-1] += names
        elif names:
            blocks.append(names)
    return tuple(tuple(block) for block in blocks)


def unfreeze(model: nn.Module, n_unfrozen: int, *, batch_norm: BatchNormMode = "fixed") -> None:
    """Let exactly the last blocks and the classifier train, and set every module's mode to match.

    Args:
        model: a network of `Backbone.build`.
        n_unfrozen: trailing blocks that train, from 0 (the classifier alone) to all of them.
        batch_norm: what the running statistics of unfrozen layers do; frozen ones never move.

    Raises:
        BackboneError: the network has fewer blocks.

    Example:
        >>> from autobackbone.backbones.build import build
        >>> network = build("test_resnet.r160_in1k", n_classes=3, image_size=(64, 64))
        >>> unfreeze(network, 0)
        >>> [name for name, parameter in network.named_parameters() if parameter.requires_grad]
        ['fc.weight', 'fc.bias']
    """
    trainable = trainable_names(model, n_unfrozen)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trainable)
    set_training_mode(model, batch_norm=batch_norm)


def trainable_names(model: nn.Module, n_unfrozen: int) -> frozenset[str]:
    """The names of the parameters that train with `n_unfrozen`: the last blocks' and the classifier's."""
    blocks = blocks_of(model)
    if not 0 <= n_unfrozen <= len(blocks):
        raise BackboneError(
            f"n_unfrozen of {type(model).__name__} goes from 0 to its {len(blocks)} blocks; {n_unfrozen} came."
        )
    unfrozen = blocks[len(blocks) - n_unfrozen :]
    return frozenset(name for block in unfrozen for name in block).union(head_parameter_names(model))


def set_training_mode(model: nn.Module, *, batch_norm: BatchNormMode = "fixed") -> None:
    """What to call at every epoch instead of `model.train()`: only what trains is in training mode.

    What trains is read from `requires_grad`, so it works on a network after `unfreeze` and on the tail of a split
    alike. A module without parameters (dropout, activation) follows the sibling before it. Frozen modules, and with
    `batch_norm="fixed"` all that keep running statistics, are in eval mode.
    """
    _set_modes(model, follows=True, batch_norm=batch_norm)


def moving_statistics(model: nn.Module) -> list[Tensor]:
    """The running means and variances that follow the data in the mode which the network is in: none if all are fixed.

    Example:
        >>> layer = nn.BatchNorm2d(3)
        >>> len(moving_statistics(layer)), len(moving_statistics(layer.eval()))
        (2, 0)
    """
    found = [
        getattr(module, name, None)
        for module in model.modules()
        if module.training and _keeps_statistics(module)
        for name in ("running_mean", "running_var")
    ]
    return [one for one in found if isinstance(one, Tensor)]


def head_parameter_names(model: nn.Module) -> tuple[str, ...]:
    """The names of the classifier's parameters."""
    inside = tuple(f"{name}." for name in classifier_layers(model))
    return tuple(
        name for name, _ in model.named_parameters() if name.startswith(inside) or name in _PARTS_OF_A_CLASSIFIER
    )


def _groups(model: nn.Module) -> Iterable[list[str]]:
    parts = parts_of(model)
    if parts is not None:
        return _groups_by_name(model, parts.blocks)
    matcher = getattr(model, "group_matcher", None)
    if matcher is None:
        return _groups_by_stage(model)
    try:
        grouping = matcher(coarse=True)
    except AssertionError:
        grouping = matcher(coarse=False)
    groups: dict[int, list[str]] = group_parameters(model, grouping)
    return _with_whole_stem(model, list(groups.values()))


def _with_whole_stem(model: nn.Module, groups: list[list[str]]) -> list[list[str]]:
    if len(groups) < 2:
        return groups
    place = {name: index for index, (name, _) in enumerate(model.named_parameters())}
    shared = [name for name in groups[-1] if place[name] < place[groups[-2][0]]]
    rest = [name for name in groups[-1] if name not in shared]
    return [[*groups[0], *shared], *groups[1:-1], rest]


def _groups_by_name(model: nn.Module, blocks: Sequence[Sequence[str]]) -> list[list[str]]:
    """Parameters by the names of modules, and last those that no name claims."""
    rest = [name for name, _ in model.named_parameters()]
    groups = []
    for block in blocks:
        inside = tuple(f"{name}." for name in block)
        groups.append([name for name in rest if name in block or name.startswith(inside)])
        rest = [name for name in rest if name not in groups[-1]]
    named = [group for group in groups if group]
    return _with_whole_stem(model, [*named, rest]) if rest else named


def _groups_by_stage(model: nn.Module) -> Iterable[list[str]]:
    stages = {
        f"{name}.{inner}"
        for name, child in model.named_children()
        if isinstance(child, (nn.Sequential, nn.ModuleList))
        for inner, _ in child.named_children()
    }
    groups: dict[str, list[str]] = {"stem": []}
    current = "stem"
    for name, _ in model.named_parameters():
        parent = ".".join(name.split(".")[:2])
        if parent in stages:
            current = parent
        elif current != "stem":
            current = "rest"
        groups.setdefault(current, []).append(name)
    return groups.values()


def _set_modes(module: nn.Module, *, follows: bool, batch_norm: BatchNormMode) -> bool:
    needs = [parameter.requires_grad for parameter in module.parameters()]
    trains = any(needs) if needs else follows
    # Through `train`, not the flag: LeViT and its kin keep attention biases computed in eval mode until it is called.
    module.train(trains and not (batch_norm == "fixed" and _keeps_statistics(module)))
    # In a half-frozen parent, whatever stands before the first parameter belongs to the frozen part.
    previous = all(needs) if needs else follows
    for child in module.children():
        previous = _set_modes(child, follows=previous, batch_norm=batch_norm)
    return trains


def _keeps_statistics(module: nn.Module) -> bool:
    return any(name.startswith("running_") for name, _ in module.named_buffers(recurse=False))

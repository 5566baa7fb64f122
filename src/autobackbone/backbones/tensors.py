"""Weight files of any origin as tensors under timm's names, every name and shape checked."""

from __future__ import annotations

import pickle
from functools import cache, lru_cache
from typing import TYPE_CHECKING

import timm
import torch
from safetensors import SafetensorError
from timm.models import load_state_dict as read_checkpoint

from autobackbone.backbones.names import architecture_of, pretrained_cfg
from autobackbone.errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

Tensors = dict[str, torch.Tensor]
_SHOWN = 3


def read_tensors(path: Path) -> Tensors:
    """Read a `.safetensors` file, or a torch file without running any code in it.

    The weights of checkpoints from training loops (`state_dict`, `model`, an average's before the last ones) are found,
    and prefixes of wrappers taken off.

    Raises:
        WeightsError: the file is damaged, of another kind, or needs code to be run.
    """
    try:
        tensors = read_checkpoint(str(path), weights_only=True)
    # torch reports a damaged file in any of these ways, depending on where it was cut; timm a list by AttributeError.
    except (
        SafetensorError,
        RuntimeError,
        pickle.UnpicklingError,
        EOFError,
        OSError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
    ) as error:
        raise WeightsError(
            f"{str(path)!r} cannot be read as weights: {error}. It may be cut off: fetch it again; wanted is a "
            ".safetensors file, or a torch file that holds tensors only."
        ) from error
    if not all(isinstance(value, torch.Tensor) for value in tensors.values()):
        raise WeightsError(f"{str(path)!r} holds more than named tensors; save the module's state_dict() instead.")
    return tensors


def own_tensors(state_dict: Mapping[str, torch.Tensor]) -> Tensors:
    """Give each tensor memory of its own, on the CPU: safetensors refuses to write any that share it."""
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state_dict.items()}


def by_name(name: str, tensors: Tensors, path: Path) -> Tensors:
    """Check tensors that carry timm's names, or names that timm's own converter for this architecture understands.

    Raises:
        WeightsError: names or shapes are not those of this backbone.
    """
    model = _skeleton(name)
    wanted = _shapes(model.state_dict())
    if differences(wanted, tensors, _classifier(name)):
        tensors = _converted(name, wanted, tensors, path)
    kept = {key: value for key, value in tensors.items() if key in wanted and tuple(value.shape) == wanted[key]}
    # Files older than torch 0.4.1 have no step counters of BatchNorm.
    counters = {key: torch.tensor(0) for key in wanted if _is_counter(key) and key not in kept}
    return kept | counters


def by_order(name: str, tensors: Tensors, path: Path) -> Tensors:
    """Give tensors in timm's order timm's names.

    Raises:
        WeightsError: their number or any shape differs.
    """
    wanted = _shapes(_skeleton(name).state_dict())
    if [tuple(value.shape) for value in tensors.values()] != list(wanted.values()):
        raise WeightsError(
            f"{str(path)!r} is not {name!r}: expected {len(wanted)} tensors in timm's order and shapes, found "
            f"{len(tensors)} that differ. Reinstall the package, or give a file with weights=."
        )
    return dict(zip(wanted, tensors.values(), strict=True))


def differences(
    wanted: Mapping[str, tuple[int, ...]], tensors: Mapping[str, torch.Tensor], classifier: tuple[str, ...]
) -> list[str]:
    """Say in words how tensors differ from what is wanted, the classifier apart; an empty list if they do not.

    Args:
        wanted: shapes by name.
        tensors: what was found.
        classifier: names of modules that may be missing or have another number of classes.

    Example:
        >>> differences({"stem": (2, 3), "head.weight": (5, 2)}, {"stem": torch.zeros(3, 2)}, ("head",))
        ['stem has shape (3, 2), expected (2, 3)']
    """
    heads = tuple(f"{module}." for module in classifier)
    body = {key for key in wanted if not key.startswith(heads) and not _is_counter(key)}
    found = {key for key in tensors if not key.startswith(heads) and not _is_counter(key)}
    shared = [key for key in wanted if key in body & found and tuple(tensors[key].shape) != wanted[key]]
    missing = [key for key in wanted if key in body - found]
    surplus = [key for key in tensors if key in found - body]
    return [
        *(f"{key} has shape {tuple(tensors[key].shape)}, expected {wanted[key]}" for key in shared),
        *(f"{key} is missing" for key in missing),
        *(f"{key} is not expected" for key in surplus),
    ]


def count_body_params(name: str) -> int:
    """Count the parameters of a backbone without its classifier, without allocating any.

    Example:
        >>> count_body_params("resnet50.a1_in1k")
        23508032
    """
    return _count_body(architecture_of(name))


@cache
def _count_body(architecture: str) -> int:
    heads = tuple(f"{module}." for module in _classifier(architecture))
    return sum(one.numel() for key, one in _skeleton(architecture).named_parameters() if not key.startswith(heads))


def _converted(name: str, wanted: Mapping[str, tuple[int, ...]], tensors: Tensors, path: Path) -> Tensors:
    # Hub files of some families keep their authors' names; timm converts them while it loads, and then checks all.
    overlay = {"state_dict": dict(tensors)}
    try:
        model = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay)
    # A converter meets a file that it was not written for: it may fail in any way that a dictionary or a shape can.
    except (RuntimeError, KeyError, ValueError, IndexError, AttributeError, AssertionError, TypeError) as error:
        told = differences(wanted, tensors, _classifier(name))
        more = f" and {len(told) - _SHOWN} more" if len(told) > _SHOWN else ""
        raise WeightsError(
            f"{str(path)!r} does not hold the weights of {name!r}: expected {len(wanted)} tensors, found "
            f"{len(tensors)}; {'; '.join(told[:_SHOWN])}{more}. Give the file of this very architecture."
        ) from error
    converted: Tensors = model.state_dict()
    return converted


# Each reading of weights is held against one, and to make it takes longer than to read a small file.
@lru_cache(maxsize=4)
def _skeleton(name: str) -> torch.nn.Module:
    with torch.device("meta"):
        model: torch.nn.Module = timm.create_model(name)
    return model


def _shapes(tensors: Mapping[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in tensors.items()}


def _classifier(name: str) -> tuple[str, ...]:
    modules = pretrained_cfg(name).classifier
    return (modules,) if isinstance(modules, str) else tuple(modules or ())


def _is_counter(key: str) -> bool:
    return key.endswith("num_batches_tracked")

"""From a name to a network with a new classifier, at any image size that it can take, without any download."""

from __future__ import annotations

from dataclasses import asdict
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Final

import timm
import torch
from torch import Tensor, nn

from autobackbone.backbones.head import classifier_layers, head_weights, set_head
from autobackbone.backbones.shorten import shorten
from autobackbone.backbones.sizes import sizes_to_try
from autobackbone.errors import BackboneError, WeightsError
from autobackbone.records import ImageSize, Normalisation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Heads that only helped the original training: Inception's auxiliary classifier, VOLO's one over all tokens, whose
# maximum would also make the logits more than a linear map of the features.
_AUXILIARY: Final = ("AuxLogits", "aux_head")


def build(
    name: str,
    *,
    n_classes: int,
    image_size: ImageSize,
    state_dict: Mapping[str, Tensor] | None = None,
    seed: int = 0,
    n_blocks_kept: int | None = None,
) -> nn.Module:
    """A timm network in eval mode with a new classifier.

    Nothing is downloaded, and the global random state stays as it was. Networks of a fixed input size are built for
    the wanted one where timm can resample what depends on it, such as position embeddings.

    Args:
        name: as timm writes it, tag included or not.
        n_classes: outputs of the new classifier, at least 1.
        image_size: height and width of the pictures that it will see.
        state_dict: pre-trained tensors under timm's names; a classifier among them is left out. `None` leaves the
            random initial weights.
        seed: of the initial weights: of all of them, or of the classifier alone where a `state_dict` came.
        n_blocks_kept: end the network after its first blocks (see `shorten`), at least 1 and fewer than it has; `None`
            for the whole. The `state_dict` is the whole network's. Nothing is verified: `cut_after` does that.

    Raises:
        BackboneError: timm does not know the name, or the network cannot take this image size or be cut so.
        WeightsError: the tensors are not those of this network.

    Example:
        >>> build("test_vit.r160_in1k", n_classes=5, image_size=(96, 128))(torch.zeros(2, 3, 96, 128)).shape
        torch.Size([2, 5])
    """
    if not _takes(name, image_size):
        raise BackboneError(
            f"{name!r} must be given pictures of a size that it can take, such as its own "
            f"{own_image_size(name)}; {image_size} came. See allowed_image_sizes({name!r}, …)."
        )
    model = _create(name, image_size, n_classes=n_classes, seed=seed)
    if state_dict is not None:
        model = _with_weights(model, dict(state_dict), name, image_size, seed=seed)
    whole = _with_plain_head(model).eval()
    return whole if n_blocks_kept is None else shorten(whole, n_blocks_kept, image_size, seed=seed).network


def outline(name: str) -> nn.Module:
    """What `build` makes for two classes at its own image size, with shapes but without numbers: computes nothing."""
    with torch.device("meta"):
        return _with_plain_head(_create(name, own_image_size(name), n_classes=2, seed=0))


def own_image_size(name: str) -> ImageSize:
    """Height and width in pixels that the weights were made for.

    Example:
        >>> own_image_size("inception_v3.tv_in1k")
        (299, 299)
    """
    _, height, width = _facts(name)["input_size"]
    return (height, width)


def normalisation(name: str) -> Normalisation:
    """How pixels enter this network.

    Example:
        >>> normalisation("tf_efficientnet_lite0.in1k").mean
        (0.5, 0.5, 0.5)
    """
    facts = _facts(name)
    return Normalisation(mean=facts["mean"], std=facts["std"], interpolation=facts["interpolation"])


def keep_fixed(model: nn.Module) -> None:
    """Make buffers of the parameters that do not train, such as MoCo v3's sine-cosine positions in timm.

    So they keep their names and places, and no later unfreezing can wake them.
    """
    for module in model.modules():
        for key, parameter in list(module.named_parameters(recurse=False)):
            if not parameter.requires_grad:
                delattr(module, key)
                module.register_buffer(key, parameter.detach())


def allowed_image_sizes(name: str, wanted: Sequence[ImageSize] | None) -> tuple[ImageSize, ...]:
    """The image sizes to try a network at, smallest first.

    Each was tried: the network ran at it, and the weights of its own size fit or could be resampled, all without
    computing (on torch's `meta` device).

    Args:
        name: as timm writes it.
        wanted: the user's sizes; one that the network cannot take goes to the nearest multiple of 32 px, or of its
            patches, or is left out. `None` for the own size and up to three smaller ones, spread evenly.

    Returns:
        Sizes without repetition; empty if the network can take none of the wanted ones.

    Example:
        >>> allowed_image_sizes("resnet50.a1_in1k", None)
        ((96, 96), (128, 128), (160, 160), (224, 224))
        >>> allowed_image_sizes("vit_small_patch14_dinov2.lvd142m", [(128, 160)])
        ((126, 154),)
    """
    return sizes_to_try(own_image_size(name), wanted, partial(_takes, name), _patch_sides(name))


def _patch_sides(name: str) -> tuple[int, ...]:
    sides = (getattr(module, "patch_size", None) for module in _outline(name).modules())
    return tuple(sorted({side[0] for side in sides if isinstance(side, tuple) and side[0] > 1}))


@lru_cache(maxsize=4096)
def _takes(name: str, image_size: ImageSize) -> bool:
    """Whether the network runs at this size and its published weights can be brought to it; computes nothing."""
    own = _outline(name)
    if image_size == own_image_size(name):
        return True
    argument = _size_argument(name, image_size)
    try:
        with torch.device("meta"), torch.no_grad():
            given = {"pretrained": True, "pretrained_cfg_overlay": _given(own.state_dict()), **argument}
            model = timm.create_model(name, **given) if argument else own
            model.eval()(torch.zeros(2, 3, *image_size))
    # Each architecture refuses in its own way: an assertion on the size, a shape that does not broadcast, an unknown
    # argument, weights that do not fit.
    except (AssertionError, RuntimeError, TypeError, ValueError, IndexError):
        return False
    # A patch embedding cuts off what does not fill a patch, and says nothing.
    sides = next(iter(_patch_sides(name)), 1) if argument else 1
    return all(side % sides == 0 for side in image_size)


@lru_cache(maxsize=8)
def _outline(name: str) -> nn.Module:
    """The network with shapes but without numbers."""
    _facts(name)
    with torch.device("meta"):
        model: nn.Module = timm.create_model(name)
    return model


def _size_argument(name: str, image_size: ImageSize) -> dict[str, Any]:
    is_fixed = bool(_facts(name).get("fixed_input_size"))
    return {"img_size": image_size} if is_fixed and image_size != own_image_size(name) else {}


def _create(name: str, image_size: ImageSize, *, n_classes: int, seed: int, **arguments: Any) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model: nn.Module = timm.create_model(
            name, num_classes=n_classes, **_size_argument(name, image_size), **arguments
        )
    return model


def _given(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Tell timm to take these tensors, all of them and nothing else."""
    return {"state_dict": dict(tensors), "custom_load": False, "classifier": None}


def _with_weights(
    model: nn.Module, tensors: dict[str, Tensor], name: str, image_size: ImageSize, *, seed: int
) -> nn.Module:
    heads = tuple(f"{head}." for head in (*classifier_layers(model), *_AUXILIARY))
    own = {key: value for key, value in model.state_dict().items() if key.startswith(heads)}
    body = {key: value for key, value in tensors.items() if not key.startswith(heads)}
    given = {**body, **own}
    if _difference(model, given) is None:
        model.load_state_dict(given)
        return model
    # Other shapes or names may be an older layout or another image size: timm's own conversion knows them.
    try:
        converted = _create(
            name,
            image_size,
            n_classes=next(iter(own.values())).shape[0],
            seed=seed,
            pretrained=True,
            pretrained_cfg_overlay=_given(given),
        )
    except (RuntimeError, KeyError, AttributeError) as error:
        raise _misfit(name, _difference(model, given)) from error
    untouched = _untouched(model, converted, given)
    if untouched:
        raise _misfit(name, f"missing {_some(untouched)}")
    model.load_state_dict(converted.state_dict())
    return model


def _difference(model: nn.Module, given: Mapping[str, Tensor]) -> str | None:
    wanted = model.state_dict()
    missing = [key for key in wanted if key not in given]
    unexpected = [key for key in given if key not in wanted]
    reshaped = [
        f"{key} {tuple(given[key].shape)} for {tuple(wanted[key].shape)}"
        for key in wanted
        if key in given and given[key].shape != wanted[key].shape
    ]
    kinds = {"missing": missing, "unexpected": unexpected, "of another shape": reshaped}
    return "; ".join(f"{kind} {_some(keys)}" for kind, keys in kinds.items() if keys) or None


def _untouched(fresh: nn.Module, loaded: nn.Module, given: Mapping[str, Tensor]) -> list[str]:
    """Random tensors that loading left as they were: some families load what they find and say nothing."""
    after = loaded.state_dict()
    return [
        key
        for key, value in fresh.state_dict().items()
        if value.is_floating_point()
        and bool((value != value.flatten()[0]).any())
        and torch.equal(value, after[key])
        and not (key in given and torch.equal(value, given[key]))
    ]


def _misfit(name: str, difference: str | None) -> WeightsError:
    return WeightsError(
        f"the weights do not fit {name!r}: {difference}. Give the file that timm publishes under this very name, "
        "or name the backbone that the weights belong to."
    )


def _some(keys: Sequence[str]) -> str:
    more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return ", ".join(keys[:3]) + more


def _with_plain_head(model: nn.Module) -> nn.Module:
    """Leave one linear map at the end, and only parameters that are meant to train."""
    if getattr(model, "aux_head", None) is not None:
        setattr(model, "aux_head", None)  # noqa: B010  torch types attributes as modules only
    keep_fixed(model)
    for key in ("weights", "weights_dist"):
        if isinstance(getattr(model, key, None), nn.Parameter):
            # EfficientViM mixes its four heads by these; an even mix is what `head` reads and writes.
            nn.init.ones_(getattr(model, key))
    # Where several layers are averaged they start alike, so that the head is one linear map.
    set_head(model, *head_weights(model))
    return model


@lru_cache(maxsize=4096)
def _facts(name: str) -> dict[str, Any]:
    if not timm.is_model(name):
        raise BackboneError(f"timm {timm.__version__} has no network {name!r}. See catalogue() for the names.")
    try:
        facts = timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        raise BackboneError(
            f"timm {timm.__version__} has no weights {name!r}: the part after the dot is unknown. See catalogue()."
        ) from error
    if facts is None:
        raise BackboneError(f"timm {timm.__version__} tells no input size of {name!r}. Choose another backbone.")
    return asdict(facts)

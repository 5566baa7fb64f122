"""Which backbones there are, and what users may call them."""

from __future__ import annotations

import difflib
import fnmatch
from functools import cache
from glob import has_magic
from typing import TYPE_CHECKING

import timm

from autobackbone.errors import BackboneError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from timm.models import PretrainedCfg

# Shorter ones are part of too many names.
_MIN_PART = 4


def resolve_names(patterns: str | Sequence[str] | None) -> tuple[str, ...]:
    """Turn what users write into timm's full names.

    A full name stands for itself, an architecture for the weights that timm takes by default. A glob is held against
    full names if it has a dot, else against architectures: `resnet50*` is one name an architecture, `resnet50.*` all
    weights of ResNet50.

    Args:
        patterns: names and globs; `None` for every pre-trained backbone.

    Returns:
        Full names, each once, in the order asked for.

    Raises:
        BackboneError: a name that timm does not know, a glob without a match, or nothing asked for.

    Example:
        >>> resolve_names(["resnet50", "inception_v3.tf_*"])
        ('resnet50.a1_in1k', 'inception_v3.tf_adv_in1k', 'inception_v3.tf_in1k')
    """
    if patterns is None:
        return pretrained_names()
    asked = [patterns] if isinstance(patterns, str) else list(patterns)
    if not asked or not all(isinstance(pattern, str) and pattern for pattern in asked):
        raise BackboneError(f"backbones are names or globs such as ['resnet50', 'convnext*']; {patterns!r} came.")
    return tuple(dict.fromkeys(name for pattern in asked for name in _resolve(pattern)))


@cache
def pretrained_names() -> tuple[str, ...]:
    """Every backbone that the installed timm has pre-trained weights for.

    Example:
        >>> "resnet50.a1_in1k" in pretrained_names()
        True
    """
    return tuple(timm.list_pretrained())


def architecture_of(name: str) -> str:
    """The part before the tag.

    Example:
        >>> architecture_of("resnet50.a1_in1k")
        'resnet50'
    """
    return name.split(".", maxsplit=1)[0]


def family_of(name: str) -> str:
    """The module of timm that defines the architecture.

    Example:
        >>> family_of("wide_resnet50_2.tv_in1k")
        'resnet'
    """
    module: str = timm.model_entrypoint(architecture_of(name)).__module__
    return module.rsplit(".", maxsplit=1)[-1]


def pretrained_cfg(name: str) -> PretrainedCfg:
    """What timm knows of a backbone's weights: where they are, their input, classes and licence.

    Raises:
        BackboneError: timm has no such weights.

    Example:
        >>> pretrained_cfg("resnet50.a1_in1k").input_size
        (3, 224, 224)
    """
    found = timm.get_pretrained_cfg(name, allow_unregistered=False)
    if found is None:
        raise BackboneError(_unknown(name))
    return found


@cache
def default_names() -> dict[str, str]:
    """The full name that each architecture stands for.

    Example:
        >>> default_names()["efficientnet_b0"]
        'efficientnet_b0.ra_in1k'
    """
    architectures = dict.fromkeys(map(architecture_of, pretrained_names()))
    named = {name: f"{name}.{pretrained_cfg(name).tag}" for name in architectures}
    return {architecture: name for architecture, name in named.items() if name in _pretrained_set()}


def is_known(name: str) -> bool:
    """Whether it is a name of a pre-trained backbone, full or short.

    Example:
        >>> is_known("resnet50"), is_known("resnet50.a1_in1k"), is_known("mine")
        (True, True, False)
    """
    return name in default_names() or name in _pretrained_set()


@cache
def _pretrained_set() -> frozenset[str]:
    return frozenset(pretrained_names())


def _resolve(pattern: str) -> Iterable[str]:
    if has_magic(pattern):
        return _resolve_glob(pattern)
    if is_known(pattern):
        return (default_names().get(pattern, pattern),)
    raise BackboneError(_unknown(pattern))


def _resolve_glob(pattern: str) -> list[str]:
    if "." in pattern:
        found = fnmatch.filter(pretrained_names(), pattern)
    else:
        found = [default_names()[match] for match in fnmatch.filter(default_names(), pattern)]
    if not found:
        raise BackboneError(
            f"no pre-trained backbone matches {pattern!r}. A glob without a dot is held against architectures "
            "('resnet50*'), one with a dot against full names ('resnet*.a1_*'); autobackbone.catalogue() lists all."
        )
    return found


def _unknown(name: str) -> str:
    if "." not in name and timm.is_model(name):
        return (
            f"timm knows {name!r}, but has no pre-trained weights for it. autobackbone.catalogue() lists all that has."
        )
    known = (*default_names(), *pretrained_names())
    # A part of a name, such as `lite0`, is like none of them as a whole.
    within = [one for one in default_names() if len(name) >= _MIN_PART and name in one]
    close = within[:4] or difflib.get_close_matches(name, known, n=4, cutoff=0.5)
    hint = f"Did you mean {', '.join(map(repr, close))}?" if close else "autobackbone.catalogue() lists all names."
    return f"timm {timm.__version__} knows no pre-trained backbone {name!r}. {hint}"

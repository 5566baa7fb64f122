"""torchvision's classification networks, called `torchvision:ARCHITECTURE.WEIGHTS`.

What is known of them (input size, normalisation, multiply-adds, size of the file) is what torchvision publishes with
its weights.
"""

from __future__ import annotations

import difflib
import fnmatch
import math
import re
from collections import OrderedDict
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from glob import has_magic
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
import torchvision
from torch import nn
from torchvision import models

from autobackbone.backbones import hub
from autobackbone.backbones.blocks import blocks_of
from autobackbone.backbones.elsewhere import body_tensors, dressed, finished, last_linear
from autobackbone.backbones.parts import Parts
from autobackbone.backbones.shorten import REFUSALS
from autobackbone.backbones.sizes import sizes_to_try
from autobackbone.backbones.tensors import read_tensors
from autobackbone.backbones.weights import WeightSource, given_file, single_file
from autobackbone.errors import BackboneError, WeightsError
from autobackbone.records import Normalisation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor
    from torchvision.models import WeightsEnum

    from autobackbone.backbones.weights import GivenWeights
    from autobackbone.records import ImageSize

PREFIX: Final = "torchvision:"
_SERVER: Final = "https://download.pytorch.org"
# MNASNet refuses tensors without a version of their own, which safetensors cannot hold. timm has it, too.
_LEFT_OUT: Final = "mnasnet*"
# Whose children are blocks, not they themselves.
_OPENED: Final = ("features", "trunk_output", "encoder", "encoder.layers", "blocks", "classifier", "heads")
# Classifiers that only helped the original training.
_AUXILIARY: Final = ("aux1.", "aux2.", "AuxLogits.")
# As in the files of before dots were forbidden in names of modules, which are the published ones.
_OLD_DENSE: Final = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\..*)$")
# These are published with weights for which their input is normalised once more, inside.
_TWICE_NORMALISED: Final = ("googlenet", "inception_v3")


@dataclass(frozen=True, slots=True)
class TorchvisionBackbone:
    """One network of torchvision, as `Backbone` has it.

    Args:
        name: full name, as `resolve_torchvision` gives it.

    Example:
        >>> alexnet = TorchvisionBackbone("torchvision:alexnet.IMAGENET1K_V1")
        >>> alexnet.n_blocks(), alexnet.gmacs((224, 224)), alexnet.image_sizes([(64, 64)])
        (7, 0.714, ((64, 64),))
    """

    name: str

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
            BackboneError: torchvision does not know it, or it cannot take this image size or be cut so.
        """
        if not _takes(self.name, image_size):
            raise BackboneError(
                f"{self.name!r} must be given pictures of a size that it can take, such as its own "
                f"{_own_size(self.name)}; {image_size} came."
            )
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            model = _made(_architecture(self.name))
        return finished(
            model,
            n_classes=n_classes,
            image_size=image_size,
            state_dict=state_dict,
            seed=seed,
            n_blocks_kept=n_blocks_kept,
        )

    def n_blocks(self) -> int:
        """How many blocks it has."""
        return len(blocks_of(_outline(_architecture(self.name))))

    def image_sizes(self, wanted: Sequence[ImageSize] | None) -> tuple[ImageSize, ...]:
        """The sizes that it runs at; of its transformers, ViT and MaxViT take their own alone."""
        return sizes_to_try(_own_size(self.name), wanted, partial(_takes, self.name))

    def normalisation(self) -> Normalisation:
        """As its weights were trained."""
        preset = _weights(self.name).transforms()
        return Normalisation(
            mean=tuple(preset.mean),
            std=tuple(preset.std),
            interpolation=str(preset.interpolation.value),  # type: ignore[arg-type]
        )

    def gmacs(self, image_size: ImageSize) -> float:
        """Scaled from the published ones."""
        own = _own_size(self.name)
        published: float = _weights(self.name).meta["_ops"]
        return published * image_size[0] * image_size[1] / (own[0] * own[1])

    def find_weights(self, given: GivenWeights) -> WeightSource:
        """A given file; what torch has downloaded before; or torchvision's server.

        Raises:
            WeightsError: they are nowhere, or `given` does not exist.
        """
        weights = _weights(self.name)
        file = Path(weights.url).name
        stems = (self.name, self.name.removeprefix(PREFIX), PREFIX + _architecture(self.name), Path(file).stem)
        path = given_file(stems, given) or single_file(given)
        if path is not None:
            return WeightSource(kind="file", path=path)
        cached = Path(torch.hub.get_dir()) / "checkpoints" / file
        if cached.is_file():
            return WeightSource(kind="cache", path=cached)
        if hub.is_answering(_SERVER):
            return WeightSource(kind="hub", download_megabytes=float(weights.meta["_file_size"]))
        raise WeightsError(
            f"the weights of {self.name!r} are not on this machine, and {_SERVER} cannot give them. Give the file or "
            f"a folder with {file!r} as weights=, or copy it to {str(cached.parent)!r}."
        )

    def load_state_dict(self, source: WeightSource) -> Mapping[str, Tensor]:
        """Read its weights; what is on torchvision's server is downloaded into torch's cache, and its hash checked.

        Raises:
            WeightsError: the file is damaged, or holds something else; or it could not be downloaded.
        """
        if source.path is not None:
            tensors, origin = read_tensors(source.path), repr(str(source.path))
        else:
            origin = _weights(self.name).url
            try:
                tensors = dict(
                    _weights(self.name).get_state_dict(
                        progress=False, check_hash=True, map_location="cpu", weights_only=True
                    )
                )
            except (OSError, RuntimeError) as error:
                raise WeightsError(
                    f"could not download {origin}: {error}. Try again, or give a file with weights=."
                ) from error
        return body_tensors(_outline(_architecture(self.name)), _today(tensors), origin, self.name)

    def code_digest(self) -> str:
        """Its code comes with torchvision."""
        return f"torchvision {torchvision.__version__}"


def resolve_torchvision(pattern: str) -> tuple[str, ...]:
    """Full names of what a user calls `torchvision:…`.

    A full name stands for itself, an architecture for the weights that torchvision takes by default. A glob is held
    against full names if it has a dot, else against architectures.

    Raises:
        BackboneError: a name that torchvision does not know, or a glob without a match.

    Example:
        >>> resolve_torchvision("torchvision:alexnet"), resolve_torchvision("torchvision:resnet18.*")
        (('torchvision:alexnet.IMAGENET1K_V1',), ('torchvision:resnet18.IMAGENET1K_V1',))
    """
    asked, default = pattern.removeprefix(PREFIX), default_names()
    if not has_magic(asked):
        if asked in default:
            return (default[asked],)
        if pattern in full_names():
            return (pattern,)
        raise BackboneError(_unknown(pattern))
    found = (
        [name for name in full_names() if fnmatch.fnmatchcase(name.removeprefix(PREFIX), asked)]
        if "." in asked
        else [default[match] for match in fnmatch.filter(default, asked)]
    )
    if not found:
        raise BackboneError(
            f"no network of torchvision matches {pattern!r}. A glob without a dot is held against architectures "
            f"('{PREFIX}resnet*'), one with a dot against full names ('{PREFIX}*.IMAGENET1K_V2')."
        )
    return tuple(found)


@cache
def full_names() -> tuple[str, ...]:
    """Every classification network of the installed torchvision with each of its weights, but those of features alone.

    Example:
        >>> "torchvision:alexnet.IMAGENET1K_V1" in full_names()
        True
    """
    return tuple(
        f"{PREFIX}{architecture}.{weights.name}"
        for architecture in models.list_models(module=models, exclude=_LEFT_OUT)
        for weights in models.get_model_weights(architecture)
        # VGG16 has some whose fully connected layers are no numbers.
        if not math.isnan(weights.meta["_metrics"]["ImageNet-1K"]["acc@1"])
    )


@cache
def default_names() -> dict[str, str]:
    """The full name that each architecture stands for.

    Example:
        >>> default_names()["resnet50"]
        'torchvision:resnet50.IMAGENET1K_V2'
    """
    architectures = dict.fromkeys(map(_architecture, full_names()))
    return {name: f"{PREFIX}{name}.{models.get_model_weights(name).DEFAULT.name}" for name in architectures}


def _unknown(pattern: str) -> str:
    asked = pattern.removeprefix(PREFIX)
    known = [*default_names(), *(name.removeprefix(PREFIX) for name in full_names())]
    # A slip of a finger is nearer than other networks.
    close = difflib.get_close_matches(asked, known, n=4, cutoff=0.9) or difflib.get_close_matches(
        asked, known, n=4, cutoff=0.5
    )
    hint = f" Did you mean {', '.join(repr(PREFIX + one) for one in close)}?" if close else ""
    return f"torchvision {torchvision.__version__} has no classification network {asked!r} with weights.{hint}"


def _architecture(name: str) -> str:
    return name.removeprefix(PREFIX).split(".", maxsplit=1)[0]


def _weights(name: str) -> WeightsEnum:
    if name not in full_names():
        raise BackboneError(_unknown(name))
    found: WeightsEnum = models.get_model_weights(_architecture(name))[name.rpartition(".")[2]]
    return found


def _own_size(name: str) -> ImageSize:
    (side,) = _weights(name).transforms().crop_size
    return (side, side)


def _made(architecture: str) -> nn.Module:
    """Of random weights, with the classifier of ImageNet's classes."""
    arguments: dict[str, Any] = {}
    if architecture in _TWICE_NORMALISED:
        arguments = {"aux_logits": False, "transform_input": True, "init_weights": False}
    model: nn.Module = models.get_model(architecture, weights=None, **arguments)
    if isinstance(model, models.SqueezeNet):
        # Its own takes the mean of what is positive in a map of logits, which is no linear map of any features. The
        # layer keeps its name, and comes last.
        layers = {"0": nn.Dropout(0.5), "2": nn.AdaptiveAvgPool2d(1), "1": nn.Conv2d(512, 1000, 1)}
        model.classifier = nn.Sequential(OrderedDict(layers))
    classifier = last_linear(model)
    assert classifier is not None
    return dressed(model, Parts(classifier=(classifier,), blocks=tuple((name,) for name in _steps(model))))


def _steps(model: nn.Module, prefix: str = "") -> list[str]:
    """Children in order, and in their place those of containers of blocks."""
    found = []
    for name, child in model.named_children():
        path = f"{prefix}{name}"
        found += _steps(child, f"{path}.") if path in _OPENED else [path]
    return found


@lru_cache(maxsize=8)
def _outline(architecture: str) -> nn.Module:
    """The network with shapes but without numbers."""
    try:
        with torch.device("meta"):
            return _made(architecture)
    except (NotImplementedError, RuntimeError):  # RegNet computes its widths by tensors
        with torch.random.fork_rng(devices=[]):
            return _made(architecture).to("meta")


@lru_cache(maxsize=4096)
def _takes(name: str, image_size: ImageSize) -> bool:
    """Whether the network runs at this size; computes nothing."""
    if image_size == _own_size(name):
        return True
    outline = _outline(_architecture(name))
    try:
        with torch.device("meta"), torch.no_grad():
            outline(torch.zeros(2, 3, *image_size))
    except REFUSALS:
        return False
    return True


def _today(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Published tensors under the names that torchvision has for them now, without auxiliary classifiers."""
    body = {name: tensor for name, tensor in tensors.items() if not name.startswith(_AUXILIARY)}
    return {_OLD_DENSE.sub(r"\1\2", name): tensor for name, tensor in body.items()}

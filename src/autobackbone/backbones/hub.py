"""The Hugging Face hub and its cache on this machine."""

from __future__ import annotations

import threading
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from huggingface_hub.utils._http import get_session

from autobackbone.backbones.names import pretrained_cfg
from autobackbone.errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Sequence

_ANSWER_S = 3.0
_FILES = (constants.SAFETENSORS_SINGLE_FILE, constants.PYTORCH_WEIGHTS_NAME)


def is_hub_reachable() -> bool:
    """Whether the hub answers; asked once a process, in at most about three seconds.

    `HF_HUB_OFFLINE=1` in the environment says no without asking.

    Example:
        >>> is_hub_reachable() in (True, False)
        True
    """
    return is_answering(constants.ENDPOINT)


def is_answering(server: str) -> bool:
    """Whether a server answers; with `HF_HUB_OFFLINE=1` none is asked.

    Args:
        server: its address, such as `https://download.pytorch.org`.
    """
    return not constants.HF_HUB_OFFLINE and _is_answering(server)


def cached_file(name: str) -> Path | None:
    """The weight file of a backbone in the hub's cache (`HF_HOME`, `HF_HUB_CACHE`), if it is there.

    Example:
        >>> cached_file("legacy_xception.tf_in1k") is None  # its weights never were on the hub
        True
    """
    repository = hub_repository(name)
    if repository is None:
        return None
    identity, revision = repository
    found = (try_to_load_from_cache(identity, file, revision=revision) for file in _files(name))
    return next((Path(path) for path in found if isinstance(path, str)), None)


def cached_names(names: Sequence[str]) -> frozenset[str]:
    """Those of `names` whose weight files are in the hub's cache.

    Example:
        >>> cached_names([])
        frozenset()
    """
    folder = Path(constants.HF_HUB_CACHE)
    present = {path.name for path in folder.glob("models--*")} if folder.is_dir() else set()
    return frozenset(name for name in names if _folder(name) in present and cached_file(name) is not None)


def download(name: str) -> Path:
    """Fetch the weight file of a backbone from the hub into its cache.

    Raises:
        WeightsError: the hub has none, or cannot be reached.
    """
    repository = hub_repository(name)
    if repository is None:
        raise WeightsError(f"the weights of {name!r} are not on the hub; give a file with weights=.")
    identity, revision = repository
    for file in _files(name):
        try:
            return Path(hf_hub_download(identity, file, revision=revision))
        # A kind of EntryNotFoundError and of OSError: the hub could not be asked, and the cache does not have it.
        except LocalEntryNotFoundError as error:
            raise WeightsError(_undelivered(file, identity, error)) from error
        except EntryNotFoundError:
            continue
        except (OSError, ValueError) as error:
            raise WeightsError(_undelivered(file, identity, error)) from error
    raise WeightsError(f"{identity!r} on the hub holds none of {', '.join(_files(name))}; give a file with weights=.")


def hub_repository(name: str) -> tuple[str, str | None] | None:
    """The repository and revision that hold the weights of a backbone, `None` if they are not on the hub.

    Example:
        >>> hub_repository("resnet50.a1_in1k")
        ('timm/resnet50.a1_in1k', None)
    """
    identity = pretrained_cfg(name).hf_hub_id
    if not identity:
        return None
    repository, _, revision = str(identity).partition("@")
    return repository, revision or None


def cache_folder() -> str:
    """Where the hub's cache is on this machine.

    Example:
        >>> isinstance(cache_folder(), str)
        True
    """
    return str(constants.HF_HUB_CACHE)


def _undelivered(file: str, identity: str, error: Exception) -> str:
    return f"could not download {file} of {identity!r} from the hub: {error}. Try again, or give a file with weights=."


@cache
def _is_answering(endpoint: str) -> bool:
    answers: list[bool] = []
    # A thread of its own: looking up a host name cannot be given a time limit, and may take a minute without a network.
    asking = threading.Thread(target=lambda: answers.append(_head(endpoint)), daemon=True)
    asking.start()
    asking.join(_ANSWER_S + 0.5)
    return answers == [True]


def _head(endpoint: str) -> bool:
    try:
        get_session().head(endpoint, timeout=_ANSWER_S)
    except Exception:  # noqa: BLE001 - the hub's client library, and with it what it raises, changes between versions
        return False
    return True


def _files(name: str) -> tuple[str, ...]:
    own: str | None = pretrained_cfg(name).hf_hub_filename
    return (own,) if own else _FILES


def _folder(name: str) -> str:
    repository = hub_repository(name)
    return "" if repository is None else "models--" + repository[0].replace("/", "--")

"""Lightning's data modules and torch's data loaders, known by their type, so that neither need be imported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autobackbone.data.sources import digest_picture
from autobackbone.data.torch_datasets import as_picture, is_map_style, is_normalised
from autobackbone.data.torchvision_datasets import is_torchvision
from autobackbone.errors import DataError

_LIGHTNING = ("pytorch_lightning", "lightning")
_FORM = "a LightningDataModule gives one DataLoader a part, with a dataset of (picture, label)"
_LOADERS = {"train": "train_dataloader", "val": "val_dataloader", "test": "test_dataloader"}
NOTE = "of each data loader its dataset is taken: samplers, collate functions and hooks for batches are not applied"


def is_data_module(dataset: Any) -> bool:
    """Whether it is a data module of either of Lightning's packages."""
    return any(
        base.__name__ == "LightningDataModule" and _is_lightnings(base.__module__) for base in type(dataset).__mro__
    )


def is_data_loader(dataset: Any) -> bool:
    """Whether it is torch's `DataLoader`, whose items are batches."""
    return any(
        base.__name__ == "DataLoader" and base.__module__ == "torch.utils.data.dataloader"
        for base in type(dataset).__mro__
    )


def splits_of(module: Any) -> dict[str, Any]:
    """Prepare a data module as Lightning's trainer does, and give its datasets by part.

    Its `prepare_data`, `setup("fit")` and, where it has a loader of test pictures, `setup("test")` are called. What a
    torchvision dataset changes is left out when it is read; of other datasets normalised pictures are refused.

    Args:
        module: see `is_data_module`.

    Raises:
        DataError: a hook raises, a part has several loaders, or pictures are normalised or change at random.
    """
    _called(module, "prepare_data")
    _called(module, "setup", "fit")
    splits = {}
    for part, loader in _LOADERS.items():
        if not _is_own(module, loader):
            continue
        if part == "test":
            _called(module, "setup", "test")
        dataset = _dataset(_called(module, loader), loader)
        if dataset is not None:
            _check_pictures(dataset, loader)
            splits[part] = dataset
    if "train" not in splits:
        raise DataError(f"{_FORM}; {type(module).__name__} has no train_dataloader.")
    return splits


def _is_lightnings(module: str) -> bool:
    return module.partition(".")[0] in _LIGHTNING


def _is_own(module: Any, name: str) -> bool:
    """Whether a module has a loader of its own, not the one that only raises."""
    if name in vars(module):  # as from_datasets sets them
        return True
    owner = next((base for base in type(module).__mro__ if name in vars(base)), None)
    return owner is not None and not _is_lightnings(owner.__module__)


def _called(module: Any, name: str, *arguments: str) -> Any:
    try:
        return getattr(module, name)(*arguments)
    except Exception as error:
        call = f"{name}({', '.join(map(repr, arguments))})"
        raise DataError(
            f"{call} of {type(module).__name__} raised {error!r}. It is called without a trainer: give its datasets "
            'as a dict, {"train": …, "val": …, "test": …}, where it needs one.'
        ) from error


def _dataset(loaders: Any, name: str) -> Any:
    """The dataset of the only loader; `None` where there is none."""
    several = list(loaders.values()) if isinstance(loaders, Mapping) else loaders
    several = list(several) if isinstance(several, (list, tuple)) else [several]
    if not several or several[0] is None:
        return None
    if len(several) > 1:
        raise DataError(f"{_FORM}; {name}() gives {len(several)}. Give one, or the datasets as a dict by part.")
    if not hasattr(several[0], "dataset"):
        raise DataError(f"{_FORM}; {name}() gives {type(several[0]).__name__}, which has no dataset.")
    return several[0].dataset


def _check_pictures(dataset: Any, name: str) -> None:
    """Look at the first picture twice.

    Raises:
        DataError: it is normalised, or another one the second time.
    """
    if is_torchvision(dataset) or not is_map_style(dataset) or isinstance(dataset, Mapping):
        return
    try:
        first, second = (as_picture(dataset[0][0]) for _ in range(2))
    except Exception:  # noqa: BLE001  # finding meets it again and says where
        return
    what = "are normalised, with values below 0" if is_normalised(first) else None
    if what is None and digest_picture(first) != digest_picture(second):
        what = "change each time they are read, as by a random transform"
    if what is not None:
        raise DataError(
            f"a search prepares pictures itself, and those of {name}() {what}. Give the module's datasets without "
            "such transforms (uint8, or Pillow images)."
        )

"""Any map-style dataset of (picture, label), known by its behaviour, so that torch need not be imported."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from autobackbone.data.labels import as_labelled
from autobackbone.data.pictures import is_deep
from autobackbone.data.sources import UNREADABLE, Fingerprint, Found, digest_picture
from autobackbone.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from autobackbone.records import ImageSize, Task

_FORM = "a dataset gives pairs (picture, label), the picture a Pillow image, an array (H, W, C) or a tensor (C, H, W)"


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetSource:
    """Pictures of a map-style dataset, read one at a time; named by their place in it."""

    dataset: Any = field(repr=False)
    names: tuple[str, ...] = field(repr=False)

    @property
    def is_thread_safe(self) -> bool:
        """Say no: a user's dataset may hold one open file."""
        return False

    def read(self, index: int) -> Image.Image | np.ndarray[Any, Any]:
        """Give the picture, a tensor as an array with its channels last."""
        return as_picture(self.dataset[index][0])

    def fingerprint(self, index: int) -> Fingerprint:
        """Digest the pixels."""
        try:
            picture = self.read(index)
            return Fingerprint(digest=digest_picture(picture), is_deep=is_deep(picture))
        except Exception:  # noqa: BLE001  # decoding meets it again and reports it
            return UNREADABLE

    def picture_size(self, index: int) -> ImageSize:
        """Give height and width; this reads the picture."""
        picture = self.read(index)
        return (picture.height, picture.width) if isinstance(picture, Image.Image) else picture.shape[:2]


def is_map_style(dataset: Any) -> bool:
    """Tell whether something has a length and items."""
    return hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")


def from_dataset(dataset: Any, task: Task | None = None) -> Found:
    """Take a map-style dataset of (picture, label).

    Where it has `targets`, as torchvision's have, no picture is read for its label; else each is read once and let go.
    Its `classes`, if it has any, name the labels 0, 1, ….

    Args:
        dataset: of pairs.
        task: what the labels are; `None` to read it from them.

    Raises:
        DataError: items that are no pairs, or labels that are not of the task.

    Example:
        >>> from_dataset([(np.zeros((4, 4), np.uint8), "cat"), (np.ones((4, 4), np.uint8), "ant")]).classes
        ('ant', 'cat')
    """
    try:
        n = len(dataset)
    except Exception as error:
        raise DataError(f"{_FORM}; the length of {type(dataset).__name__} raised {error!r}.") from error
    if n == 0:
        raise DataError(f"{_FORM}; an empty {type(dataset).__name__} came.")
    _label(dataset, 0)
    labels = _targets(dataset, n)
    read = as_labelled(list(_labels(dataset, n)) if labels is None else labels, task)
    names = tuple(str(index) for index in range(n))
    source = DatasetSource(dataset=dataset, names=names)
    classes = named(read.classes, dataset) if read.task != "regression" else read.classes
    return Found(source=source, classes=classes, labels=read.labels, task=read.task, notes=_oddities(source))


def _oddities(source: DatasetSource) -> tuple[str, ...]:
    """What a transform within a dataset does to pictures, by a few of them; each is read once more."""
    looks = sorted({0, len(source.names) - 1})
    try:
        twice = [(source.read(index), source.read(index)) for index in looks]
    except Exception:  # noqa: BLE001  # decoding meets it again and reports it
        return ()
    notes = []
    changing = [index for index, two in zip(looks, twice, strict=True) if len(set(map(digest_picture, two))) > 1]
    if changing:
        notes.append(
            f"picture {changing[0]} is another one each time it is read, as by a random transform: it is searched on "
            "as it came once, and the run cannot be continued. Give a dataset that changes nothing at random"
        )
    if any(is_normalised(picture) for picture, _ in twice):
        notes.append(
            "pictures have values below 0, as after Normalize: what is black and white is measured, and colours are "
            "not those that networks know. Give a dataset without that"
        )
    return tuple(notes)


def is_normalised(picture: Image.Image | np.ndarray[Any, Any]) -> bool:
    """Whether a picture holds real numbers below 0."""
    return isinstance(picture, np.ndarray) and picture.dtype.kind == "f" and bool((picture < 0).any())


def _label(dataset: Any, index: int) -> Any:
    try:
        item = dataset[index]
    except Exception as error:
        raise DataError(f"{_FORM}; reading item {index} of {type(dataset).__name__} raised {error!r}.") from error
    if not isinstance(item, (tuple, list)) or len(item) != 2:
        what = f"{len(item)} values" if isinstance(item, (tuple, list)) else type(item).__name__
        raise DataError(f"{_FORM}; item {index} of {type(dataset).__name__} is {what}.")
    return item[1]


def _targets(dataset: Any, n: int) -> list[Any] | None:
    targets = getattr(dataset, "targets", None)
    if targets is None or getattr(dataset, "target_transform", None) is not None or len(targets) != n:
        return None
    plain = list(as_array(targets)) if hasattr(targets, "detach") else list(targets)
    # Trusted only where it says what the items say.
    is_same = all(np.array_equal(plain[index], _label(dataset, index)) for index in {0, n // 2, n - 1})
    return plain if is_same else None


def _labels(dataset: Any, n: int) -> Iterator[Any]:
    for index in range(n):
        try:
            label = _label(dataset, index)
        except DataError as error:
            raise DataError(f"{error} Its label is lost with it: take that item out of the dataset.") from error
        yield label


def named(classes: tuple[str | int, ...], dataset: Any) -> tuple[str | int, ...]:
    """Name codes by a dataset's `classes`, if it has such.

    Raises:
        DataError: there are codes beyond them.
    """
    names = getattr(dataset, "classes", None)
    if not isinstance(names, (list, tuple)) or not all(isinstance(code, int) for code in classes):
        return classes
    if not all(0 <= int(code) < len(names) for code in classes):
        raise DataError(f"the dataset names {len(names)} classes, so labels run from 0 to {len(names) - 1}; {classes}.")
    return tuple(str(names[int(code)]) for code in classes)


def as_picture(picture: Any) -> Image.Image | np.ndarray[Any, Any]:
    """Take a Pillow image or an array as it is, a tensor as an array with its channels last.

    Raises:
        DataError: it is something else.
    """
    if isinstance(picture, (Image.Image, np.ndarray)):
        return picture
    if not hasattr(picture, "detach"):
        raise DataError(f"{_FORM}; the picture is {type(picture).__name__}.")
    array = as_array(picture)
    return np.moveaxis(array, 0, -1) if array.ndim == 3 else array


def as_array(tensor: Any) -> np.ndarray[Any, Any]:
    """Give a tensor's values as an array."""
    array: np.ndarray[Any, Any] = tensor.detach().cpu().numpy()
    return array

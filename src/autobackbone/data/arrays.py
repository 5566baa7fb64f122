"""Pictures in memory: `(X, y)`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from autobackbone.data.labels import as_labelled
from autobackbone.data.pictures import check_channels, is_deep
from autobackbone.data.sources import UNREADABLE, Fingerprint, Found, digest_picture
from autobackbone.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from autobackbone.records import ImageSize, Task

_FORM = "X is an array (n, H, W) or (n, H, W, channels), or a list of Pillow images or arrays"


@dataclass(frozen=True, slots=True, kw_only=True)
class ArraySource:
    """Pictures of an array (n, H, W[, C]) or of a list; named by their place in it."""

    pictures: Sequence[Any] | np.ndarray[Any, Any] = field(repr=False)
    names: tuple[str, ...] = field(repr=False)

    @property
    def is_thread_safe(self) -> bool:
        """Say yes: reading memory disturbs nobody."""
        return True

    def read(self, index: int) -> Image.Image | np.ndarray[Any, Any]:
        """Give the picture, not copied."""
        picture: Image.Image | np.ndarray[Any, Any] = self.pictures[index]
        return picture

    def fingerprint(self, index: int) -> Fingerprint:
        """Digest the pixels."""
        picture = self.read(index)
        try:
            return Fingerprint(digest=digest_picture(picture), is_deep=is_deep(picture))
        except Exception:  # noqa: BLE001  # of a broken file that is open and not read yet; decoding reports it
            return UNREADABLE

    def picture_size(self, index: int) -> ImageSize:
        """Give height and width."""
        picture = self.read(index)
        if isinstance(picture, Image.Image):
            return picture.height, picture.width
        return picture.shape[0], picture.shape[1]


def from_arrays(pictures: Any, labels: Any, channels: tuple[int, ...] | None, task: Task | None = None) -> Found:
    """Take `(X, y)` as a dataset.

    Args:
        pictures: (n, H, W) or (n, H, W, C) of any numbers, or a sequence of Pillow images and arrays of any sizes.
        labels: n entries, see `as_labelled`.
        channels: which channels will be taken of each picture.
        task: what the labels are; `None` to read it from them.

    Raises:
        DataError: other forms, unequal lengths, channels that cannot be read.

    Example:
        >>> from_arrays(np.zeros((2, 8, 8)), ["b", "a"], None).classes
        ('a', 'b')
    """
    checked = _checked_array(pictures, channels) if _is_numbers(pictures) else _checked_list(pictures, channels)
    try:
        n_labels = len(labels)
    except TypeError:
        raise DataError(f"y is a sequence of one entry a picture; {type(labels).__name__} came.") from None
    if n_labels != len(checked):
        raise DataError(f"every picture needs one label; {len(checked)} pictures and {n_labels} labels came.")
    read = as_labelled(labels, task)
    names = tuple(str(index) for index in range(len(checked)))
    source = ArraySource(pictures=checked, names=names)
    return Found(source=source, classes=read.classes, labels=read.labels, task=read.task)


def _is_numbers(pictures: Any) -> bool:
    return isinstance(pictures, np.ndarray) and pictures.dtype != object


def _checked_array(array: np.ndarray[Any, Any], channels: tuple[int, ...] | None) -> np.ndarray[Any, Any]:
    if array.dtype.kind not in "buif":
        raise DataError(f"{_FORM}; an array of {array.dtype} came.")
    if array.ndim not in (3, 4) or 0 in array.shape[1:]:
        hint = " Rows of features are no pictures: X.reshape(n, H, W)." if array.ndim == 2 else ""
        raise DataError(f"{_FORM}; an array of shape {array.shape} came.{hint}")
    check_channels(array.shape[1:], channels)
    return array


def _checked_list(pictures: Any, channels: tuple[int, ...] | None) -> list[Any]:
    if not isinstance(pictures, (list, tuple, np.ndarray)):
        raise DataError(f"{_FORM}; {type(pictures).__name__} came.")
    for index, picture in enumerate(pictures):
        if not isinstance(picture, (Image.Image, np.ndarray)):
            raise DataError(f"{_FORM}; X[{index}] is {type(picture).__name__}.")
        if isinstance(picture, np.ndarray):
            try:
                check_channels(picture.shape, channels)
            except DataError as error:
                raise type(error)(f"X[{index}]: {error}") from None
    return list(pictures)

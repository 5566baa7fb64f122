"""What every source of pictures promises.

To add a source: a class that keeps the promises of `Source`, a function that makes a `Found`, a line in
`surveying.find`.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from autobackbone.data.pictures import Picture
    from autobackbone.records import ImageSize, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """What a store must know of a picture before decoding it: its content's digest, and whether it is above 8 bits."""

    digest: bytes
    is_deep: bool


class Source(Protocol):
    """Pictures by number; knows nothing of labels."""

    @property
    def names(self) -> tuple[str, ...]:
        """One name a picture, by which a person finds it again."""

    @property
    def is_thread_safe(self) -> bool:
        """Whether `read` may be called from several threads at once."""

    def read(self, index: int) -> Picture:
        """Give a picture in any form that `to_pixels` takes; raises whatever it meets where it cannot."""

    def fingerprint(self, index: int) -> Fingerprint:
        """Digest a picture; a picture that cannot be read has a digest too and raises nothing."""

    def picture_size(self, index: int) -> ImageSize:
        """Give height and width, as cheaply as possible."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Found:
    """A dataset as it was found, before any split is made.

    Args:
        source: the pictures.
        classes: names of classes, labels or numbers, in the order of codes or columns.
        labels: (n,) int64 codes of classes, or (n, k), as `Labelled` holds them.
        task: what they are.
        given: (n,) int8, the codes of `parts` where the dataset brought its own split, else `None`.
        groups: (n,) names of groups where the dataset brought them, else `None`.
        notes: one line for whatever was passed over.
    """

    source: Source
    classes: tuple[str | int, ...]
    labels: np.ndarray[Any, Any]
    task: Task = "classification"
    given: np.ndarray[Any, np.dtype[np.int8]] | None = None
    groups: np.ndarray[Any, Any] | None = None
    notes: tuple[str, ...] = ()


UNREADABLE = Fingerprint(digest=hashlib.sha256(b"unreadable").digest(), is_deep=False)


def digest_picture(picture: Image.Image | np.ndarray[Any, Any]) -> bytes:
    """Digest the pixels of a picture that is not a file."""
    array = np.ascontiguousarray(np.asarray(picture))
    if isinstance(picture, Image.Image):
        # A palette or a rotation lies beside the pixels.
        form = f"{picture.mode} {picture.size} {picture.getpalette()} {dict(picture.getexif())}"
    else:
        form = f"{array.dtype.str} {array.shape}"
    sha = hashlib.sha256(form.encode())
    sha.update(array.data if array.size else b"")
    return sha.digest()


def printable(name: str) -> str:
    """Give a file name that any screen takes; bytes of it that are no valid text are written as numbers."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def natural_key(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Order names as people do, `a2` before `a10`, and always the same.

    Example:
        >>> sorted(["a10", "a2", "A1"], key=natural_key)
        ['A1', 'a2', 'a10']
    """
    parts = re.split(r"(\d+)", name.casefold())
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts], name

"""What every source of pictures promises.

To add a source: a class that keeps the promises of `Source`, a function that makes a `Found`, a line in
`finding.find`.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from PIL import Image

from autobackbone.errors import DataError

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
        column: gives the cells of a column by its name, one a picture, raising `DataError` where there is none of it;
            `None` where there are no columns.
    """

    source: Source
    classes: tuple[str | int, ...]
    labels: np.ndarray[Any, Any]
    task: Task = "classification"
    given: np.ndarray[Any, np.dtype[np.int8]] | None = None
    groups: np.ndarray[Any, Any] | None = None
    notes: tuple[str, ...] = ()
    column: Callable[[str], list[Any]] | None = None


class NoLabelsError(DataError):
    """None of the pictures has a label, as in the test part of a competition."""


UNREADABLE = Fingerprint(digest=hashlib.sha256(b"unreadable").digest(), is_deep=False)
# What ends a line, moves a cursor, turns the direction of what follows, or stands for a byte that is no valid text.
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def digest_picture(picture: Image.Image | np.ndarray[Any, Any]) -> bytes:
    """Digest the pixels of a picture that is not a file."""
    array = np.ascontiguousarray(np.asarray(picture))
    if isinstance(picture, Image.Image):
        # A palette, what it lets through and a rotation lie beside the pixels.
        seen_through = picture.info.get("transparency")
        form = f"{picture.mode} {picture.size} {picture.getpalette(None)} {seen_through} {_exif(picture)}"
    else:
        form = f"{array.dtype.str} {array.shape}"
    sha = hashlib.sha256(form.encode())
    sha.update(array.data if array.size else b"")
    return sha.digest()


def _exif(picture: Image.Image) -> str:
    try:
        return str(dict(picture.getexif()))
    except SyntaxError:  # Pillow's word for a damaged block, by which no picture is turned
        return "damaged"


def from_home(path: str | os.PathLike[str]) -> Path:
    """A path with `~` spelled out; as it is where there is no such home, for which `Path.expanduser` raises."""
    return Path(os.path.expanduser(path))  # noqa: PTH111


def printable(name: str) -> str:
    r"""Give a file name that any screen takes, on one line: what cannot be seen is written as numbers.

    Example:
        >>> printable("line\nfeed"), printable("not utf-8: \udcff"), printable("שלום.jpg")
        ('line\\nfeed', 'not utf-8: \\xff', 'שלום.jpg')
    """
    return _UNSEEN.sub(lambda found: _as_number(found[0]), name)


def _as_number(character: str) -> str:
    # Python keeps a byte that is no valid text as 0xDC00 and itself.
    is_byte = "\udc80" <= character <= "\udcff"
    return f"\\x{ord(character) - 0xDC00:02x}" if is_byte else character.encode("unicode_escape").decode()


def natural_key(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Order names as people do, `a2` before `a10`, and always the same.

    Example:
        >>> sorted(["a10", "a2", "A1"], key=natural_key)
        ['A1', 'a2', 'a10']
    """
    parts = re.split(r"(\d+)", name.casefold())
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts], name

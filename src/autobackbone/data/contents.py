"""Pictures as the bytes of their files, wherever those lie: in a folder, a table's cells, an archive."""

from __future__ import annotations

import hashlib

from autobackbone.data.pictures import is_deep, open_bytes, seen_size
from autobackbone.data.sources import Fingerprint
from autobackbone.records import ImageSize

_JPEG = b"\xff\xd8\xff"
"""Never above 8 bits, so its header need not be parsed: that would double the time of a digest."""


def fingerprint_of(content: bytes) -> Fingerprint:
    """Digest a picture file's bytes; those of no picture have a digest, too."""
    return Fingerprint(digest=hashlib.sha256(content).digest(), is_deep=_is_deep(content))


def size_of(content: bytes) -> ImageSize:
    """Read (height, width) as seen from a file's header; raises what Pillow raises."""
    with open_bytes(content) as image:
        return seen_size(image)


def _is_deep(content: bytes) -> bool:
    if content.startswith(_JPEG):
        return False
    try:
        return is_deep(open_bytes(content))
    except Exception:  # noqa: BLE001  # a broken file raises anything; decoding meets it again and reports it
        return False

"""A dataset decoded on disk and split: what every later step works on."""

from __future__ import annotations

import hashlib
import json
import warnings
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from autobackbone.data.encoded import EncodedPixels, Pixels
from autobackbone.data.parts import LEFT_OUT, PART_CODES, Codes, Labels, Parts
from autobackbone.data.pictures import quiet_pillow
from autobackbone.data.ranges import measure_range
from autobackbone.data.sources import printable
from autobackbone.data.store import (
    Unreadable,
    bytes_of,
    ensure_pixels,
    ensure_readable,
    fingerprints,
    free_bytes,
    is_stored,
    pixels_path,
    store_key,
    store_root,
    stored_bytes,
)
from autobackbone.data.strata import strata_of
from autobackbone.data.surveying import DataWarning, Survey, check_parts, count_pictures, part_sizes
from autobackbone.errors import DataError
from autobackbone.records import ImageSize, Part, Task, as_image_sizes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import pandas as pd

    from autobackbone.data.preparation import Preparation
    from autobackbone.data.sources import Fingerprint, Source

_MAX_UNREADABLE_SHARE = 0.1
# The rest of the disk is for the run itself.
_DISK_SHARE = 0.9


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DataBundle:
    """A dataset decoded on disk and split; n pictures in the survey's order.

    Args:
        root: the folder of its store.
        classes: names of classes, labels, or numbers to predict, in the order of codes or columns.
        names: n names.
        labels: (n,) int64 codes into `classes`, -1 for pictures of a class that was left out; (n, n_labels) int64 of 0
            and 1; or (n, n_targets) float64.
        parts: (n,) int8 codes of `PART_CODES`, or `LEFT_OUT`, also for unreadable pictures.
        digest: of the pictures and their labels.
        split_digest: of the pictures' names and parts.
        preparation: how pictures became pixels, the value range settled.
        skipped: one line for whatever was passed over or made.
        source: where the pictures came from, for sizes that are not stored yet.
        n_workers: threads that decode those.
        max_bytes: what all decoded sizes together may take; a size that has no room stays encoded. `None` for whatever
            the disk holds.
        task: what the labels are.
        made: the parts that were made out of the training part; the others were given, or follow times, and are kept.
        groups: (n,) int64 codes of the user's groups, each in one part; `None` without.
        copies: (n,) int64 codes of the groups of copies; `None` where they were not looked for.
    """

    root: Path
    classes: tuple[str | int, ...]
    names: tuple[str, ...] = field(repr=False)
    labels: Labels = field(repr=False)
    parts: Parts = field(repr=False)
    digest: str
    split_digest: str
    preparation: Preparation
    skipped: tuple[str, ...]
    source: Source = field(repr=False)
    n_workers: int = 2
    max_bytes: int | None = None
    task: Task = "classification"
    made: tuple[Part, ...] = ()
    groups: Codes | None = field(default=None, repr=False)
    copies: Codes | None = field(default=None, repr=False)
    _encoded: dict[ImageSize, EncodedPixels] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.labels.setflags(write=False)
        self.parts.setflags(write=False)
        for codes in (self.groups, self.copies):
            if codes is not None:
                codes.setflags(write=False)

    def indices(self, part: Part) -> Codes:
        """Give the numbers of a part's pictures, (n_part,) int64, ascending."""
        if part not in PART_CODES:
            raise DataError(f"a part is 'train', 'validation' or 'test'; {part!r} came.")
        return np.flatnonzero(self.parts == PART_CODES[part])

    def leaked(self, part: Part, into: Part = "train") -> Codes:
        """Give the numbers of a part's pictures that have a copy in another part, (n_leaked,) int64, ascending.

        Of a split that was given, these are what a score is flattered by. None where copies were not looked for.
        """
        indices = self.indices(part)
        if self.copies is None or part == into:
            return indices[:0]
        return indices[np.isin(self.copies[indices], self.copies[self.indices(into)])]

    def pixels(self, image_size: ImageSize | int) -> Pixels:
        """Open the pixels of one size, decoding it first if it is not stored yet.

        Returns:
            (n, height, width, 3) uint8, read-only, mapped from disk, or decoded whenever they are looked at, where
            there is no room for all. Rows of unreadable pictures are zeros.

        Raises:
            DataError: the size is not stored yet, and the pictures have changed since the bundle was made.
        """
        (size,) = _sizes([image_size])
        if size in self._encoded:  # however much room there is by now
            return self._encoded[size]
        if not is_stored(self.root, size):
            if self.stays_encoded(size):
                # Always the same one: it warns of a lost picture once.
                anew = EncodedPixels(self.source, self.preparation, size, n_workers=self.n_workers)
                return self._encoded.setdefault(size, anew)
            self._decode_late(size)
        path = pixels_path(self.root, size)
        stored: np.memmap[Any, np.dtype[np.uint8]] = np.load(path, mmap_mode="r", allow_pickle=False)
        return stored

    def has_pixels(self, image_size: ImageSize) -> bool:
        """Tell whether the pixels of one size are stored already."""
        return is_stored(self.root, image_size)

    def stays_encoded(self, image_size: ImageSize) -> bool:
        """Tell whether a size is not stored and has no room: each look at its pictures decodes them."""
        return not _with_room(self.root, len(self.names), (image_size,), self.max_bytes)

    def _decode_late(self, size: ImageSize) -> None:
        with quiet_pillow():
            if store_key(fingerprints(self.source, self.n_workers), self.preparation) != self.root.name:
                raise DataError(
                    f"the pictures have changed since they were decoded, so size {size} cannot be added to them. "
                    "Survey and decode the dataset again."
                )
            ensure_pixels(self.root, self.source, self.preparation, (size,), n_workers=self.n_workers)

    @property
    def strata(self) -> Codes:
        """(n,) int64: classes, or what stands for them."""
        return strata_of(self.labels, self.task)

    def counts(self) -> pd.DataFrame:
        """Count pictures: one row a class or label, or one for all; the columns train, validation and test."""
        return count_pictures(self.labels, self.parts, self.classes, self.task)


def decode(
    survey: Survey,
    image_sizes: Sequence[int | Sequence[int]],
    *,
    cache_dir: str | Path,
    n_workers: int = 2,
    max_bytes: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> DataBundle:
    """Decode every picture once, to all sizes, and keep the pixels on disk by content.

    What is stored already is not decoded again; labels and parts may change without that.

    Args:
        survey: the dataset.
        image_sizes: pixels, or (height, width), each from 8 to 4096.
        cache_dir: the folder for stores; this one lies in its `data/`.
        n_workers: threads, at least 1.
        max_bytes: what all decoded sizes together may take. Where they would take more, pictures are opened once to see
            which ones can be read, and stay encoded. `None` for whatever the disk holds.
        on_progress: called with (pictures done, n) after each picture that is decoded.

    Returns:
        The bundle; unreadable pictures are left out of its parts and named in `skipped`.

    Raises:
        DataError: more than 10 % of the pictures are unreadable, no picture of a class is left to train on, or the disk
            is too small.

    Warns:
        DataWarning: pictures were left out.

    Example:
        >>> import tempfile
        >>> from autobackbone.data import survey
        >>> found = survey((np.random.default_rng(0).integers(0, 256, (20, 8, 8), np.uint8), [0, 1] * 10))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     decode(found, [16], cache_dir=folder).pixels(16).shape
        (20, 16, 16, 3)
    """
    sizes = _sizes(image_sizes)
    with quiet_pillow():
        prints = fingerprints(survey.source, n_workers)
        preparation = _settled(survey, prints)
        root = store_root(cache_dir, prints, preparation)
        given = (root, survey.source, preparation)
        roomy = _with_room(root, len(survey.names), sizes, max_bytes)
        if roomy:
            unreadable = ensure_pixels(*given, roomy, n_workers=n_workers, on_progress=on_progress)
        else:
            unreadable = ensure_readable(*given, n_workers=n_workers, on_progress=on_progress)
    parts, skipped = _without_unreadable(survey, unreadable)
    encoded = [size for size in sizes if size not in roomy]
    if encoded:
        skipped = (*skipped, _stay_encoded(len(survey.names), encoded))
    return DataBundle(
        root=root,
        classes=survey.classes,
        names=survey.names,
        labels=survey.labels,
        parts=parts,
        digest=_digest(*(fingerprint.digest for fingerprint in prints), survey.labels.tobytes(), _json(survey.classes)),
        split_digest=split_digest(survey.names, parts),
        preparation=preparation,
        skipped=skipped,
        source=survey.source,
        n_workers=n_workers,
        max_bytes=max_bytes,
        task=survey.task,
        made=survey.made,
        groups=survey.groups,
    )


def split_digest(names: tuple[str, ...], parts: Parts) -> str:
    """Digest a split: the pictures' names and parts."""
    return _digest(_json(names), parts.tobytes())


def _with_room(root: Path, n: int, image_sizes: Sequence[ImageSize], max_bytes: int | None) -> tuple[ImageSize, ...]:
    """Those sizes that are stored, or have room beside what is; without a cap all of them, and the disk decides."""
    if max_bytes is None:
        return tuple(image_sizes)
    left = min(max_bytes - stored_bytes(root), int(_DISK_SHARE * free_bytes(root)))
    roomy = []
    for size in image_sizes:
        needed = 0 if is_stored(root, size) else bytes_of(n, (size,))
        if needed <= max(0, left):
            roomy.append(size)
            left -= needed
    return tuple(roomy)


def _stay_encoded(n: int, image_sizes: Sequence[ImageSize]) -> str:
    sizes = ", ".join(f"{height}x{width}" for height, width in image_sizes)
    return (
        f"pictures stay encoded: decoded to {sizes} px they would take {bytes_of(n, image_sizes) / 1e9:,.2f} GB, and "
        "there is no room for that; raise cache_gb, or ask for smaller image sizes, for a faster search"
    )


def is_decoded(survey: Survey, image_sizes: Sequence[ImageSize], *, cache_dir: str | Path, n_workers: int) -> bool:
    """Whether `decode` would find all of it on the disk. It digests every picture, which is far less than decoding."""
    with quiet_pillow():
        prints = fingerprints(survey.source, n_workers)
        root = store_root(cache_dir, prints, _settled(survey, prints))
    return all(is_stored(root, size) for size in image_sizes)


def _sizes(image_sizes: Any) -> tuple[ImageSize, ...]:
    sizes = as_image_sizes(image_sizes)
    if sizes is None:
        raise DataError("decoding needs image_sizes, such as [128, (160, 224)]; None came.")
    return sizes


def _settled(survey: Survey, prints: list[Fingerprint]) -> Preparation:
    preparation = survey.preparation
    if preparation.value_range is not None:
        return preparation
    return replace(preparation, value_range=measure_range(survey.source, prints, survey.parts, preparation.channels))


def _without_unreadable(survey: Survey, unreadable: Unreadable) -> tuple[Parts, tuple[str, ...]]:
    if not unreadable:
        return survey.parts.copy(), survey.skipped
    first = ", ".join(f"'{printable(survey.names[index])}'" for index in list(unreadable)[:3])
    more = ", …" if len(unreadable) > 3 else ""
    line = f"{len(unreadable)} of {len(survey.names)} pictures cannot be read: {first}{more}"
    reason = next(iter(unreadable.values())).removesuffix(".")
    if len(unreadable) > _MAX_UNREADABLE_SHARE * len(survey.names):
        raise DataError(f"{line}. The first says: {reason}. At most 10 % may be: repair or remove them.")
    parts = survey.parts.copy()
    parts[list(unreadable)] = LEFT_OUT
    notes = check_parts(count_pictures(survey.labels, parts, survey.classes, survey.task), part_sizes(parts))
    warnings.warn(f"{line}; left out. The first says: {reason}.", DataWarning, stacklevel=3)
    return parts, tuple(dict.fromkeys((*survey.skipped, f"{line}; left out", *notes)))


def _digest(*contents: bytes) -> str:
    sha = hashlib.sha256()
    for content in contents:
        sha.update(content)
    return sha.hexdigest()[:32]


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()

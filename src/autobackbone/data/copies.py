"""Copies among pictures: the same picture twice, also re-encoded, rescaled or mirrored left-right."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from autobackbone.data.encoded import Pixels
    from autobackbone.data.parts import Codes

# Hashes of 64 bits. Of 36,576 planted copies 3 had no hash within 4 bits (docs/benchmarks/copies.md), and two hashes
# that differ in 4 bits are equal in one of five bands.
_MAX_BITS = 4
_BANDS = tuple(np.uint64(sum(1 << bit for bit in range(band, 64, _MAX_BITS + 1))) for band in range(_MAX_BITS + 1))
# Where thousands share a band, only neighbours in order of the whole hash are compared: a bound for large data.
_MAX_COMPARED = 4096
_MAX_CANDIDATES = 32
# What is kept of a picture while copies are looked for: 3 kB, less than the features that screening holds of it.
_SIDE = 32
# Of grey levels, 0 to 255, between two thumbnails. Planted copies came to 6.2 and 50, and correlated by 0.974 or more;
# other pictures that hash alike, among them two photographs of one scene, begin at 11. Of 35 pairs in low contrast that
# are that near, such as sheets of paper on white, 33 correlate less, and all 35 hash otherwise: it takes all of these.
_MAX_RMS = 8.0
_MAX_DIFFERENCE = 64
_MIN_CORRELATION = 0.97
# A picture has a few copies. What looks like more than so many others was taken by a fixed camera, or drawn.
_MAX_LINKS = 16
_N_AT_ONCE = 256


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Copies:
    """Which of n pictures are copies of each other.

    Args:
        codes: (n,) int64, the group of each picture; one without copies is a group of its own.
        pairs: (n_pairs, 2) int64, numbers of pictures found to be copies, ascending; of a picture that is there more
            than once to the bit, only the first is compared with others.
        is_mirrored: (n_pairs,) bool, whether the second of a pair is mirrored left-right.
        n_alike: pictures that look like more than 16 others: taken for different ones of one scene, and left alone.
    """

    codes: Codes
    pairs: Codes
    is_mirrored: NDArray[np.bool_]
    n_alike: int = 0

    @property
    def groups(self) -> list[list[int]]:
        """The groups of two and more pictures, by their first ones."""
        return groups_of(self.codes)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Looks:
    """What is kept of n pictures: whose pixels are equal, hashes as they are and mirrored, and thumbnails."""

    digests: NDArray[np.uint64]
    hashes: NDArray[np.uint64]
    mirrored: NDArray[np.uint64]
    thumbnails: NDArray[np.uint8]

    def __getitem__(self, some: Codes) -> Looks:
        return Looks(
            digests=self.digests[some],
            hashes=self.hashes[some],
            mirrored=self.mirrored[some],
            thumbnails=self.thumbnails[some],
        )


def find_copies(
    pixels: Pixels, used: Codes | None = None, *, on_progress: Callable[[int, int], None] | None = None
) -> Copies:
    """Find the pictures that are there more than once.

    Equal pixels are copies. Others are candidates if their perceptual hashes, or one and the mirrored other, differ in
    4 bits of 64 at most, and copies if their thumbnails of 32 x 32 pixels agree as well. A group of more than 16 is a
    picture and those that are copies of that very one, so that no chain of small differences joins a class.

    Args:
        pixels: (n, height, width, 3) uint8, read a few hundred at a time.
        used: (n_used,) int64 numbers of the pictures to compare, ascending; the others stay alone. `None` for all.
        on_progress: called with (pictures done, n_used) now and then.

    Example:
        >>> drawn = np.random.default_rng(0).integers(0, 256, (9, 8, 8, 3), np.uint8).repeat(8, 1).repeat(8, 2)
        >>> drawn[7] = drawn[2, :, ::-1]
        >>> find_copies(drawn).groups
        [[2, 7]]

    Source: DCT hash of Zauner 2010, "Implementation and benchmarking of perceptual image hash functions"; bands as in
        Manku et al. 2007, "Detecting near-duplicates for web crawling".
    """
    n = int(pixels.shape[0])
    used = np.arange(n) if used is None else used
    looks = look(pixels, used, on_progress)
    _, firsts, whose = np.unique(looks.digests, return_index=True, return_inverse=True)
    kept = np.unique(firsts)
    first = np.searchsorted(kept, firsts[whose])
    pairs, is_mirrored = _verified(looks[kept], *_candidates(looks[kept]))
    n_links = np.bincount(pairs.ravel(), minlength=len(kept))
    is_alike = n_links > _MAX_LINKS
    is_kept = ~is_alike[pairs].any(1)
    pairs, is_mirrored = pairs[is_kept], is_mirrored[is_kept]
    codes = np.arange(n)
    codes[used] = used[kept[_joined(len(kept), pairs)[first]]]
    repeated = np.flatnonzero(kept[first] != np.arange(len(used)))
    all_pairs = used[np.concatenate([kept[pairs], np.column_stack([kept[first[repeated]], repeated])])]
    order = np.lexsort(all_pairs.T[::-1])
    return Copies(
        codes=np.unique(codes, return_inverse=True)[1].astype(np.int64),
        pairs=all_pairs[order],
        is_mirrored=np.concatenate([is_mirrored, np.zeros(len(repeated), bool)])[order],
        n_alike=int(is_alike.sum()),
    )


def groups_of(codes: Codes) -> list[list[int]]:
    """List the groups of two and more that codes tell, each ascending, by their first ones.

    Example:
        >>> groups_of(np.array([0, 1, 2, 1, 3]))
        [[1, 3]]
    """
    ends = np.cumsum(np.unique(codes, return_counts=True)[1])[:-1]
    groups = np.split(np.argsort(codes, kind="stable"), ends)
    return sorted(group.tolist() for group in groups if len(group) > 1)


def codes_of(groups: Iterable[Sequence[int]], n: int) -> Codes:
    """Give the codes (n,) of groups of pictures, the way back from `groups_of`; numbers from n on are passed over.

    Example:
        >>> codes_of([[1, 3]], 5)
        array([0, 1, 2, 1, 3])
    """
    codes = np.arange(n)
    for group in groups:
        members = [index for index in group if index < n]
        codes[members] = min(members, default=0)
    return np.unique(codes, return_inverse=True)[1].astype(np.int64)


def look(pixels: Pixels, used: Codes, on_progress: Callable[[int, int], None] | None = None) -> Looks:
    """Read pictures, a few hundred at a time, and keep what tells copies."""
    n = len(used)
    looks = Looks(
        digests=np.empty(n, np.uint64),
        hashes=np.empty(n, np.uint64),
        mirrored=np.empty(n, np.uint64),
        thumbnails=np.empty((n, _SIDE, _SIDE, 3), np.uint8),
    )
    for begin in range(0, n, _N_AT_ONCE):
        for place, picture in enumerate(pixels[used[begin : begin + _N_AT_ONCE]], start=begin):
            content = hashlib.blake2b(np.ascontiguousarray(picture).data, digest_size=8)
            looks.digests[place] = np.frombuffer(content.digest(), np.uint64)[0]
            looks.hashes[place], looks.mirrored[place], looks.thumbnails[place] = look_at(picture)
        if on_progress is not None:
            on_progress(min(begin + _N_AT_ONCE, n), n)
    return looks


def look_at(picture: NDArray[Any]) -> tuple[int, int, NDArray[np.uint8]]:
    """Hash one picture, as it is and mirrored, and give its thumbnail (32, 32, 3) uint8."""
    small = Image.fromarray(picture).resize((_SIDE, _SIDE), Image.Resampling.BOX)
    return _hash(small), _hash(small.transpose(Image.Transpose.FLIP_LEFT_RIGHT)), np.asarray(small)


def _hash(picture: Image.Image) -> int:
    from imagehash import phash

    return int.from_bytes(np.packbits(phash(picture).hash).tobytes())


def _candidates(looks: Looks) -> tuple[Codes, NDArray[np.bool_]]:
    """Pairs (n_pairs, 2) of pictures that hash alike, the first below the second, and whether one is mirrored.

    Of each first picture the nearest few, all nearest ones before the next.
    """
    n = len(looks.hashes)
    both = np.concatenate([looks.hashes, looks.mirrored])
    numbers = [_numbered(*ends, n) for band in _BANDS for ends in _alike_in(both, band)]
    found = np.unique(np.concatenate([np.empty(0, np.int64), *numbers]))
    firsts, seconds, is_mirrored = found // (2 * n), found // 2 % n, found % 2 == 1
    distances = np.bitwise_count(
        looks.hashes[firsts] ^ np.where(is_mirrored, looks.mirrored[seconds], looks.hashes[seconds])
    )
    order = np.lexsort([distances, firsts])
    ranks = np.arange(len(order)) - np.searchsorted(firsts[order], firsts[order])
    # A symmetrical picture hashes like its own mirror image.
    is_kept = (ranks < _MAX_CANDIDATES) & (firsts != seconds)[order]
    kept = order[is_kept][np.argsort(ranks[is_kept], kind="stable")]
    return np.column_stack([firsts, seconds])[kept], is_mirrored[kept]


def _numbered(one: Codes, other: Codes, n: int) -> Codes:
    """Give each pair of hashes, the mirrored ones from n on, one number that tells its pictures and whether one is."""
    # Two mirrored ones are a second look at a pair: other bits of them are near to turning.
    is_mirrored = (one >= n) != (other >= n)
    one, other = one % n, other % n
    numbers: Codes = (np.minimum(one, other) * n + np.maximum(one, other)) * 2 + is_mirrored
    return numbers


def _alike_in(hashes: NDArray[np.uint64], band: np.uint64) -> Iterator[tuple[Codes, Codes]]:
    """Pairs of hashes, equal in a band, that differ in few bits; of each hash with the next ones in order."""
    order = np.lexsort([hashes, hashes & band])
    keys, sorted_hashes = (hashes & band)[order], hashes[order]
    n_found = np.zeros(len(order), np.int64)
    at = np.arange(len(order))
    for step in range(1, _MAX_COMPARED + 1):
        at = at[at + step < len(order)]
        at = at[(keys[at] == keys[at + step]) & (n_found[at] < _MAX_CANDIDATES)]
        if not at.size:
            return
        is_near = np.bitwise_count(sorted_hashes[at] ^ sorted_hashes[at + step]) <= _MAX_BITS
        near = at[is_near]
        n_found[near] += 1
        yield order[near], order[near + step]


def _verified(looks: Looks, pairs: Codes, is_mirrored: NDArray[np.bool_]) -> tuple[Codes, NDArray[np.bool_]]:
    """Those of the pairs whose thumbnails agree; a pair once, as it is if both ways hold."""
    is_same = np.zeros(len(pairs), bool)
    n_links = np.zeros(len(looks.hashes), np.int64)
    for begin in range(0, len(pairs), _N_AT_ONCE):
        some = np.arange(begin, min(begin + _N_AT_ONCE, len(pairs)))
        # What is linked too often already needs no further link.
        some = some[(n_links[pairs[some]] <= _MAX_LINKS).any(1)]
        seconds = looks.thumbnails[pairs[some, 1]]
        seconds = np.where(is_mirrored[some, None, None, None], seconds[:, :, ::-1], seconds)
        is_same[some] = agree(looks.thumbnails[pairs[some, 0]], seconds)
        np.add.at(n_links, pairs[some[is_same[some]]], 1)
    pairs, is_mirrored = pairs[is_same], is_mirrored[is_same]
    order = np.lexsort([is_mirrored, pairs[:, 1], pairs[:, 0]])
    _, firsts = np.unique(pairs[order], axis=0, return_index=True)
    return pairs[order[firsts]], is_mirrored[order[firsts]]


def agree(firsts: NDArray[np.uint8], seconds: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Tell which thumbnails (n, 32, 32, 3) are those of copies: near in each place, on average, and in what varies."""
    one, other = (of.reshape(-1, 3 * _SIDE**2).astype(np.float32) for of in (firsts, seconds))
    differences = one - other
    rms = np.sqrt((differences**2).mean(1))
    one, other = (of - of.mean(1, keepdims=True) for of in (one, other))
    covariances = (one * other).sum(1)
    scales = np.sqrt((one**2).sum(1) * (other**2).sum(1))
    is_alike = covariances >= _MIN_CORRELATION * scales
    is_near = (rms <= _MAX_RMS) & (np.abs(differences).max(1, initial=0.0) <= _MAX_DIFFERENCE)
    is_same: NDArray[np.bool_] = is_near & is_alike & (scales > 0)
    return is_same


def _joined(n: int, pairs: Codes) -> Codes:
    """One picture of each group, (n,) int64: pairs connect, and in long chains the pictures linked to one of them."""
    ones = np.ones(len(pairs), bool)
    links = coo_matrix((ones, (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    _, labels = connected_components(links, directed=False)
    _, firsts, sizes = np.unique(labels, return_index=True, return_counts=True)
    centres: Codes = firsts[labels].astype(np.int64)
    is_long = (sizes > _MAX_LINKS)[labels]
    if is_long.any():
        centres[is_long] = _stars(n, pairs)[is_long]
    return centres


def _stars(n: int, pairs: Codes) -> Codes:
    """Of each picture the one whose copy it is: the one with most links takes all that are linked to it, and so on."""
    centres = np.full(n, -1, np.int64)
    ends = np.concatenate([pairs, pairs[:, ::-1]])
    ends = ends[np.argsort(ends[:, 0], kind="stable")]
    n_links = np.bincount(ends[:, 0], minlength=n)
    begins = np.cumsum(n_links) - n_links
    for centre in np.argsort(-n_links, kind="stable").tolist():
        if centres[centre] < 0:
            linked = ends[begins[centre] : begins[centre] + n_links[centre], 1]
            centres[linked[centres[linked] < 0]] = centre
            centres[centre] = centre
    return centres

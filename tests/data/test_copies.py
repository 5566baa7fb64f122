from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps
from sklearn.datasets import load_digits
from tests.conftest import make_pictures

from autobackbone.data import Preparation, codes_of, decode, find_copies, groups_of, survey, to_pixels
from autobackbone.data.copies import Looks, _candidates, look

if TYPE_CHECKING:
    from collections.abc import Callable

SIDE = 64


def scene(seed: int, *, width: int = 120, height: int = 90) -> Image.Image:
    """A smooth picture of its own, with some texture."""
    generator = np.random.default_rng(seed)
    rough = Image.fromarray(generator.integers(0, 256, (7, 9, 3), np.uint8))
    smooth = np.asarray(rough.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float64)
    grain = generator.normal(0, 4, (height, width, 1))
    return Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8))


def jpeg(picture: Image.Image, quality: int) -> Image.Image:
    written = io.BytesIO()
    picture.save(written, "JPEG", quality=quality)
    return Image.open(written).convert("RGB")


def half(picture: Image.Image) -> Image.Image:
    return picture.resize((picture.width // 2, picture.height // 2))


def stacked(pictures: list[Image.Image]) -> np.ndarray:
    return np.stack([to_pixels(picture, (SIDE, SIDE), Preparation()) for picture in pictures])


KINDS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "same": lambda picture: picture,
    "JPEG 95": lambda picture: jpeg(picture, 95),
    "JPEG 70": lambda picture: jpeg(picture, 70),
    "JPEG 40": lambda picture: jpeg(picture, 40),
    "half": half,
    "half, JPEG 75": lambda picture: jpeg(half(picture), 75),
    "mirrored": ImageOps.mirror,
    "mirrored, JPEG 40": lambda picture: jpeg(ImageOps.mirror(picture), 40),
    "mirrored, half": lambda picture: half(ImageOps.mirror(picture)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_copies_are_found_and_nothing_else(kind):
    pictures = [scene(seed) for seed in range(40)]
    planted = [KINDS[kind](picture) for picture in pictures[10:30]]
    found = find_copies(stacked(pictures + planted))
    assert found.groups == [[index, index + 30] for index in range(10, 30)]
    assert found.pairs.tolist() == found.groups
    assert found.is_mirrored.tolist() == [kind.startswith("mirrored")] * 20
    assert found.n_alike == 0
    assert found.codes.dtype == np.int64
    assert len(np.unique(found.codes)) == 40


def test_all_copies_of_a_picture_are_one_group():
    pictures = [scene(seed) for seed in range(5)]
    planted = [change(pictures[3]) for change in KINDS.values()]
    assert find_copies(stacked(pictures + planted)).groups == [[3, *range(5, 5 + len(KINDS))]]


def test_similar_pictures_are_not_copies():
    digits = load_digits()
    pixels = np.stack([to_pixels(image, (SIDE, SIDE), Preparation(value_range=(0, 16))) for image in digits.images])
    pairs, _ = _candidates(look(pixels, np.arange(len(pixels))))
    assert len(pairs) > 20  # the hash alone would take these for copies
    assert find_copies(pixels).groups == []


def test_a_class_of_similar_pictures_is_not_merged():
    pictures, _ = make_pictures(n_per_class=60, n_classes=1, side=SIDE)
    assert find_copies(pictures).groups == []


def test_a_fixed_camera_makes_no_copies():
    generator = np.random.default_rng(0)
    still = np.asarray(scene(0).resize((SIDE, SIDE)), dtype=np.float64)
    pictures = [(still + generator.normal(0, 3, still.shape)).clip(0, 255).astype(np.uint8) for _ in range(90)]
    pictures.append(pictures[7])
    found = find_copies(np.stack(pictures))
    assert found.n_alike == 90
    assert found.groups == [[7, 90]]  # to the bit it is a copy all the same


def test_what_moves_before_a_fixed_camera_tells_its_pictures_apart():
    still = np.asarray(scene(0).resize((SIDE, SIDE)))
    pictures = np.repeat(still[None], 12, axis=0)
    for place, picture in enumerate(pictures):
        picture[20:26, 5 * place : 5 * place + 6] = 255 - picture[20:26, 5 * place : 5 * place + 6]
    found = find_copies(pictures)
    assert found.groups == []


def test_no_chain_of_small_differences_joins_a_class():
    first, last = (stacked([scene(seed)])[0].astype(np.float64) for seed in (0, 1))
    shares = np.linspace(0, 1, 60)
    pictures = np.stack([(first + share * (last - first)).astype(np.uint8) for share in shares])
    found = find_copies(pictures)
    assert found.n_alike == 0
    links = np.zeros((60, 60), bool)
    links[tuple(found.pairs.T)] = True
    assert links[range(59), range(1, 60)].mean() > 0.9  # one long chain
    assert max(map(len, found.groups)) <= 17
    for group in found.groups:
        # Each is a copy of one picture of its group.
        assert (links | links.T | np.eye(60, dtype=bool))[np.ix_(group, group)].all(1).any()


@given(st.permutations(range(12)))
def test_the_order_of_pictures_changes_no_group(order):
    pixels = stacked([scene(seed) for seed in range(8)])
    pixels = np.concatenate([pixels, pixels[2:4, :, ::-1], pixels[2:3], stacked([jpeg(scene(5), 60)])])
    found = find_copies(pixels[list(order)])
    assert {frozenset(order[index] for index in group) for group in found.groups} == {
        frozenset({2, 8, 10}),
        frozenset({3, 9}),
        frozenset({5, 11}),
    }


@given(st.integers(0, 10**6), st.integers(1, 16))
def test_bands_find_the_pairs_that_the_definition_does(seed, n):
    generator = np.random.default_rng(seed)
    few = generator.integers(0, 2**63, 2).astype(np.uint64)
    hashes, mirrored = (few[generator.integers(0, 2, n)] ^ _few_bits(generator, n) for _ in range(2))
    nothing = np.zeros(n, np.uint64)
    looks = Looks(digests=nothing, hashes=hashes, mirrored=mirrored, thumbnails=np.zeros((n, 32, 32, 3), np.uint8))
    pairs, is_mirrored = _candidates(looks)
    expected = set()
    for one in range(n):
        for other in range(one + 1, n):
            both = ((hashes, hashes, False), (mirrored, mirrored, False), (hashes, mirrored, True))
            for of, against, turned in (*both, (mirrored, hashes, True)):
                if int(of[one] ^ against[other]).bit_count() <= 4:
                    expected.add((one, other, turned))
    assert {(*pair, bool(turned)) for pair, turned in zip(pairs.tolist(), is_mirrored, strict=True)} == expected


def _few_bits(generator: Any, n: int) -> np.ndarray:
    bits = generator.random((n, 64)) < 0.04
    return np.packbits(bits, axis=1).view(np.uint64)[:, 0]


def test_pictures_that_are_not_used_stay_alone(tmp_path):
    pixels = stacked([scene(seed) for seed in range(6)])
    pixels[[1, 2]] = 0  # as unreadable ones are stored
    pixels[5] = pixels[0]
    found = find_copies(pixels, np.array([0, 3, 4, 5]))
    assert found.groups == [[0, 5]]
    assert find_copies(pixels).groups == [[0, 5], [1, 2]]
    assert find_copies(pixels, np.array([], np.int64)).groups == []


def test_pictures_that_stay_encoded_have_the_same_copies(tmp_path):
    for index in range(24):
        folder = tmp_path / "photos" / ("ant", "bee")[index % 2]
        folder.mkdir(parents=True, exist_ok=True)
        scene(index % 20).save(folder / f"{index:02}.png")
    dataset = survey(tmp_path / "photos")
    stored = decode(dataset, [SIDE], cache_dir=tmp_path / "stored")
    encoded = decode(dataset, [SIDE], cache_dir=tmp_path / "encoded", max_bytes=0)
    assert encoded.stays_encoded((SIDE, SIDE))
    done: list[tuple[int, int]] = []
    found = find_copies(encoded.pixels(SIDE), on_progress=lambda *some: done.append(some))
    assert done == [(24, 24)]
    assert len(found.groups) == 4
    np.testing.assert_array_equal(found.codes, find_copies(stored.pixels(SIDE)).codes)


@given(st.lists(st.integers(0, 6), min_size=1, max_size=20))
def test_groups_and_codes_tell_the_same(codes):
    groups = groups_of(np.array(codes))
    again = codes_of(groups, len(codes))
    assert groups_of(again) == groups
    assert len(np.unique(again)) == len(set(codes))

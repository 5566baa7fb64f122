from __future__ import annotations

import errno
import os
import shutil
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_digits

from autobackbone.data import LEFT_OUT, DataWarning, Preparation, decode, preprocess_ms, store, survey, to_pixels
from autobackbone.data.arrays import ArraySource
from autobackbone.data.store import ensure_pixels
from autobackbone.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("resize", ["squash", "pad", "crop"])
def test_the_store_and_to_pixels_agree_to_the_bit(tree, tmp_path, resize):
    found = survey(tree, resize=resize)
    bundle = decode(found, [16, (24, 20)], cache_dir=tmp_path)
    for size in ((16, 16), (24, 20)):
        stored = bundle.pixels(size)
        assert stored.shape == (60, *size, 3)
        for index, name in enumerate(bundle.names):
            assert np.array_equal(stored[index], to_pixels(tree / name, size, bundle.preparation))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int64, np.float32, np.bool_])
def test_the_store_and_to_pixels_agree_on_arrays(tmp_path, dtype):
    pictures = np.random.default_rng(0).integers(0, 300, (20, 9, 7)).astype(dtype)
    bundle = decode(survey((pictures, [0, 1] * 10)), [12], cache_dir=tmp_path)
    again = np.stack([to_pixels(picture, (12, 12), bundle.preparation) for picture in pictures])
    assert np.array_equal(bundle.pixels(12), again)
    assert again.max() > 200


def test_the_range_is_that_of_the_training_part(tmp_path):
    rng = np.random.default_rng(0)
    pictures = rng.integers(1000, 3000, (50, 32, 32)).astype(np.uint16)
    found = survey((pictures, [0, 1] * 25))
    outside = found.parts != 0
    pictures[outside] += 20_000
    low, high = decode(found, [8], cache_dir=tmp_path).preparation.value_range or (0.0, 0.0)
    expected = np.percentile(pictures[~outside], [0.1, 99.9])
    assert np.allclose([low, high], expected, atol=2)


def test_a_given_range_is_kept_and_8_bits_need_none(tmp_path, tree):
    digits = load_digits()
    found = survey((digits.images[:200], digits.target[:200]), value_range=(0, 32))
    bundle = decode(found, [8], cache_dir=tmp_path)
    assert bundle.preparation.value_range == (0, 32)
    assert bundle.pixels(8).max() == 128
    measured = decode(survey((digits.images[:200], digits.target[:200])), [8], cache_dir=tmp_path)
    assert measured.preparation.value_range == (0, 16)
    assert decode(survey(tree), [8], cache_dir=tmp_path).preparation.value_range is None


def test_pictures_that_are_all_alike_have_a_range_too(tmp_path):
    bundle = decode(survey((np.full((20, 4, 4), 7.0), [0, 1] * 10)), [8], cache_dir=tmp_path)
    assert bundle.preparation.value_range == (7, 8)


def test_16_bit_files_are_found_among_others(tmp_path, tree):
    for index in range(3):
        Image.fromarray(np.full((8, 8), 5000 + 1000 * index, np.uint16)).save(tree / "ant" / f"deep{index}.png")
    bundle = decode(survey(tree), [8], cache_dir=tmp_path)
    value_range = bundle.preparation.value_range
    assert value_range is not None
    assert 5000 <= value_range[0] < value_range[1] <= 7000
    plain = bundle.names.index("ant/0.png")
    expected = to_pixels(tree / "ant/0.png", (8, 8), Preparation())
    assert np.array_equal(bundle.pixels(8)[plain], expected)


def test_what_is_stored_is_not_decoded_again(tree, tmp_path):
    seen: list[tuple[int, int]] = []
    first = decode(survey(tree), [16], cache_dir=tmp_path, on_progress=lambda *done: seen.append(done))
    assert seen == [(index + 1, 60) for index in range(60)]
    seen.clear()
    second = decode(survey(tree, seed=9), [16], cache_dir=tmp_path, on_progress=lambda *done: seen.append(done))
    assert seen == []
    assert second.root == first.root
    assert second.digest == first.digest
    assert second.split_digest != first.split_digest
    assert not list(first.root.glob("partial-*"))


def test_a_moved_or_renamed_folder_keeps_its_store_and_a_changed_picture_does_not(tree, tmp_path):
    before = decode(survey(tree), [8], cache_dir=tmp_path)
    moved = tree.rename(tmp_path / "elsewhere")
    assert decode(survey(moved), [8], cache_dir=tmp_path).root == before.root
    Image.new("RGB", (9, 9)).save(moved / "ant" / "3.png")
    after = decode(survey(moved), [8], cache_dir=tmp_path)
    assert after.root != before.root
    assert after.digest != before.digest


def test_another_size_is_decoded_when_it_is_asked_for(tree, tmp_path):
    bundle = decode(survey(tree), [8], cache_dir=tmp_path)
    late = np.array(bundle.pixels((10, 12)))
    together = decode(survey(tree), [8, (10, 12)], cache_dir=tmp_path / "other")
    assert np.array_equal(late, together.pixels((10, 12)))


def test_a_size_cannot_be_added_to_pictures_that_changed(tree, tmp_path):
    bundle = decode(survey(tree), [8], cache_dir=tmp_path)
    Image.new("RGB", (9, 9)).save(tree / "ant" / "3.png")
    with pytest.raises(DataError, match=r"changed since they were decoded, so size \(9, 9\)"):
        bundle.pixels(9)
    assert bundle.pixels(8).shape == (60, 8, 8, 3)


def test_only_what_was_abandoned_long_ago_is_removed(tree, tmp_path):
    root = decode(survey(tree), [8], cache_dir=tmp_path).root
    old, young = root / "partial-old", root / "partial-young"
    old.mkdir()
    young.mkdir()
    os.utime(old, (time.time() - 10**6,) * 2)
    decode(survey(tree), [8], cache_dir=tmp_path)  # also where nothing is to be decoded any more
    assert (old.exists(), young.exists()) == (False, True)


def test_pixels_are_read_only_and_parts_are_disjoint(tree, tmp_path):
    bundle = decode(survey(tree), [8], cache_dir=tmp_path)
    with pytest.raises(ValueError, match="read-only"):
        bundle.pixels(8)[0] = 0
    together = np.concatenate([bundle.indices(part) for part in ("train", "validation", "test")])
    assert sorted(together.tolist()) == list(range(60))
    assert (np.diff(bundle.indices("train")) > 0).all()
    with pytest.raises(DataError, match="'val' came"):
        bundle.indices("val")  # type: ignore[arg-type]


def damage(tree: Path, kinds: int) -> list[str]:
    whole = (tree / "ant" / "0.png").read_bytes()
    contents = [b"", whole[: len(whole) // 2], b"no picture at all", b"\xff\xd8\xff\xe0garbage"][:kinds]
    for index, content in enumerate(contents):
        (tree / "bee" / f"{index}.png").write_bytes(content)
    return [f"bee/{index}.png" for index in range(kinds)]


def test_unreadable_pictures_are_named_counted_and_left_out(tree, tmp_path):
    broken = damage(tree, 4)
    (tree / "cat" / "gone.png").symlink_to(tree / "nowhere.png")
    found = survey(tree)
    for _ in range(2):  # decoded, then from the store
        with pytest.warns(DataWarning, match=r"5 of 61 pictures cannot be read: 'bee/0.png'.*left out") as caught:
            bundle = decode(found, [8], cache_dir=tmp_path)
        assert len(caught) == 1
        lost = {bundle.names[index] for index in np.flatnonzero(bundle.parts == LEFT_OUT)}
        assert lost == {*broken, "cat/gone.png"}
        assert bundle.counts().sum().sum() == 56
        assert any("5 of 61 pictures cannot be read" in line for line in bundle.skipped)
    assert np.array_equal(bundle.labels, found.labels)
    assert not bundle.pixels(8)[bundle.names.index("bee/1.png")].any()


def test_a_bomb_is_unreadable(tree, tmp_path, monkeypatch):
    Image.new("L", (50, 50)).save(tree / "ant" / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.warns(DataWarning, match=r"1 of 61 .*'ant/bomb.png'.*DecompressionBombError"):
        decode(survey(tree), [8], cache_dir=tmp_path)


def test_nan_is_unreadable(tmp_path):
    pictures = np.random.default_rng(0).random((40, 4, 4))
    pictures[7, 0, 0] = np.nan
    with pytest.warns(DataWarning, match=r"1 of 40 .*'7'.*NaN or infinite"):
        bundle = decode(survey((pictures, [0, 1] * 20)), [8], cache_dir=tmp_path)
    assert bundle.parts[7] == LEFT_OUT


def test_too_many_unreadable_pictures_end_it(tree, tmp_path):
    for path in sorted((tree / "ant").iterdir())[:7]:
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"7 of 60 .*'ant/0.png'.*The first says: .*cannot identify.*At most 10 %"):
        decode(survey(tree), [8], cache_dir=tmp_path)


def test_a_class_without_readable_training_pictures_ends_it(tmp_path):
    pictures = np.random.default_rng(0).random((100, 4, 4))
    found = survey((pictures, [1] * 6 + [0] * 94))
    pictures[np.flatnonzero((found.labels == 1) & (found.parts == 0))] = np.nan
    with pytest.raises(DataError, match=r"no picture to train on is left of the classes \[1\]"):
        decode(found, [8], cache_dir=tmp_path)


def test_other_channels_among_files_end_it_by_name(tmp_path):
    pictures = [np.zeros((4, 4, 3), np.uint8)] * 20
    found = survey((pictures, [0, 1] * 10))
    assert isinstance(found.source, ArraySource)
    found.source.pictures[3] = np.zeros((4, 4, 5), np.uint8)  # type: ignore[index]
    with pytest.raises(DataError, match=r"picture '3': .*channels=\(i, j, k\)"):
        decode(found, [8], cache_dir=tmp_path)


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=60), st.integers(0, 10**6))
def test_no_damage_to_a_file_stops_the_work(tmp_path_factory, insert, position):
    folder = tmp_path_factory.mktemp("damaged")
    for name in ("a", "b"):
        (folder / name).mkdir()
        for index in range(10):
            picture = Image.fromarray(np.random.default_rng(index).integers(0, 256, (8, 8, 3), np.uint8))
            picture.save(folder / name / f"{index}.{'jpg' if index % 2 else 'png'}")
    victim = folder / "a" / f"{position % 10}.{'jpg' if position % 2 else 'png'}"
    content = victim.read_bytes()
    place = position % len(content)
    victim.write_bytes(content[:place] + insert + content[place + len(insert) // 2 :])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        bundle = decode(survey(folder), [8], cache_dir=folder / "cache")
    assert (bundle.parts == LEFT_OUT).sum() <= 1
    shutil.rmtree(folder)


def test_a_stopped_decode_leaves_nothing_and_the_next_one_is_whole(tree, tmp_path):
    def stop(done: int, _: int) -> None:
        if done == 30:
            raise KeyboardInterrupt

    found = survey(tree)
    with pytest.raises(KeyboardInterrupt):
        decode(found, [8], cache_dir=tmp_path, on_progress=stop)
    assert not [path for path in (tmp_path / "data").rglob("*") if path.is_file()]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]
    assert decode(found, [8], cache_dir=tmp_path).pixels(8).any(axis=(1, 2, 3)).all()


def test_several_at_once_write_the_same_store(tree, tmp_path):
    found = survey(tree)
    with ThreadPoolExecutor(4) as pool:
        bundles = list(pool.map(lambda _: decode(found, [8, 12], cache_dir=tmp_path, n_workers=1), range(4)))
    assert len({bundle.root for bundle in bundles}) == 1
    alone = decode(found, [12], cache_dir=tmp_path / "alone")
    for bundle in bundles:
        assert np.array_equal(bundle.pixels(12), alone.pixels(12))
    assert sorted(path.name for path in bundles[0].root.iterdir()) == [
        f"pixels-{side}x{side}.{kind}" for side in (12, 8) for kind in ("json", "npy")
    ]


@pytest.mark.parametrize("n_workers", [1, 2, 5])
def test_the_number_of_workers_changes_nothing(tree, tmp_path, n_workers):
    bundle = decode(survey(tree), [8], cache_dir=tmp_path / str(n_workers), n_workers=n_workers)
    expected = np.stack([to_pixels(tree / name, (8, 8), Preparation()) for name in bundle.names])
    assert np.array_equal(bundle.pixels(8), expected)


def test_a_disk_too_small_is_told_before(tmp_path):
    class Endless:
        names = range(10**12)
        is_thread_safe = True

        def __getattr__(self, name: str) -> Any:
            raise AssertionError(f"{name} must not be asked for")

    source: Any = Endless.__new__(Endless)
    with pytest.raises(DataError, match=r"need .* GB and .* GB free"):
        ensure_pixels(tmp_path, source, Preparation(), ((512, 512),), n_workers=1)


def test_preprocessing_is_timed_on_the_pictures_themselves(tree, tmp_path):
    big = tmp_path / "big"
    for name in ("a", "b"):
        (big / name).mkdir(parents=True)
        for index in range(5):
            Image.effect_noise((1200, 1200), 50).convert("RGB").save(big / name / f"{index}.jpg")
    assert 0 < preprocess_ms(survey(tree), (32, 32)) < preprocess_ms(survey(big), (32, 32), n=4)
    digits = load_digits()
    assert preprocess_ms(survey((digits.images, digits.target)), (32, 32)) > 0


def test_nothing_readable_cannot_be_timed(tree):
    found = survey(tree)
    for path in tree.rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"none of 20 pictures can be read, such as 'ant/0.png'"):
        preprocess_ms(found, (8, 8))


@pytest.mark.parametrize("name", ["pixels-16x16.npy", "pixels-16x16.json"])
@pytest.mark.parametrize("content", [None, b"", b"{", b"[1]"])
def test_damaged_pixels_are_decoded_anew(tree, tmp_path, caplog, name, content):
    found = survey(tree)
    whole = decode(found, [16], cache_dir=tmp_path)
    pixels = np.array(whole.pixels(16))
    file = whole.root / name
    file.write_bytes(file.read_bytes()[:-30] if content is None else content)
    again = decode(found, [16], cache_dir=tmp_path)
    np.testing.assert_array_equal(again.pixels(16), pixels)
    assert "it is made anew" in caplog.text
    (whole.root / "pixels-16x16.npy").unlink()
    np.testing.assert_array_equal(decode(found, [16], cache_dir=tmp_path).pixels(16), pixels)


def test_a_disk_that_fills_up_while_pictures_are_decoded_is_told(tree, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.EFBIG, "File too large")

    monkeypatch.setattr(store, "_new_pixels", full)
    with pytest.raises(DataError, match=r"no room for the decoded pictures.*Free some of the disk"):
        decode(survey(tree), [16], cache_dir=tmp_path)
    assert not list(tmp_path.rglob("partial-*"))

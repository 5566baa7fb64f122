from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ImageOps
from tests.data.conftest import noise
from tests.data.test_copies import half, jpeg, scene
from tests.data.test_excerpt import SlowPictures

from autobackbone.data import (
    LEFT_OUT,
    PART_CODES,
    TEST,
    TRAIN,
    VALIDATION,
    DataBundle,
    codes_of,
    decode,
    find_copies,
    look_for_copies,
    survey,
    with_copies_together,
)

if TYPE_CHECKING:
    from pathlib import Path

SIZE = (64, 64)


def photos(root: Path) -> Path:
    """Two classes of 30 pictures, the last six of each changed copies of the first six."""
    changes = (ImageOps.mirror, half, lambda picture: jpeg(picture, 60)) * 2
    for start, name in enumerate(("ant", "bee")):
        (root / name).mkdir(parents=True)
        own = [scene(100 * start + index) for index in range(24)]
        copies = [change(picture) for change, picture in zip(changes, own, strict=False)]
        for index, picture in enumerate(own + copies):
            picture.save(root / name / f"{index:02}.png")
    return root


def checked(dataset: Any, cache: Path, **arguments: Any) -> tuple[DataBundle, DataBundle]:
    before = decode(survey(dataset, **arguments), [SIZE], cache_dir=cache)
    return before, look_for_copies(before, [SIZE], budget_s=None)


def parts_by_group(bundle: DataBundle) -> list[set[int]]:
    assert bundle.copies is not None
    return [set(bundle.parts[bundle.copies == code].tolist()) - {LEFT_OUT} for code in np.unique(bundle.copies)]


def test_copies_lie_in_one_part_and_nothing_else_moves(tmp_path):
    before, after = checked(photos(tmp_path / "photos"), tmp_path)
    torn = [parts for parts in parts_by_group(replace(before, copies=after.copies)) if len(parts) > 1]
    assert torn
    assert all(len(parts) == 1 for parts in parts_by_group(after))
    moved = np.flatnonzero(before.parts != after.parts)
    assert len(moved) == len(torn)  # of a pair, one
    assert after.names[moved[0]] > "ant/23.png"  # the later one
    line = "24 pictures are copies in 12 groups, such as 'ant/00.png' and 'ant/24.png'; "
    now = ", ".join(f"{(after.parts == code).sum()} {part}" for part, code in PART_CODES.items())
    moving = f"{len(moved)} pictures moved to another part, so that copies lie in one: now {now}"
    assert after.skipped[-1] == line + moving
    assert after.counts().sum().tolist() != before.counts().sum().tolist()
    assert after.split_digest != before.split_digest
    assert after.digest == before.digest
    assert not after.leaked("validation").size
    assert not after.leaked("test").size


def test_the_same_data_give_the_same_split(tmp_path):
    folder = photos(tmp_path / "photos")
    (_, first), (_, second) = checked(folder, tmp_path / "one"), checked(folder, tmp_path / "two")
    assert first.split_digest == second.split_digest
    assert first.copies is not None
    assert with_copies_together(checked(folder, tmp_path / "one")[0], first.copies).skipped == second.skipped


def test_where_there_are_none_nothing_changes(tmp_path, tree):
    before, after = checked(tree, tmp_path)
    assert after.skipped == before.skipped
    assert after.split_digest == before.split_digest
    assert after.copies is not None
    assert len(np.unique(after.copies)) == len(after.names)


def test_groups_of_the_user_stay_whole(tmp_path):
    def object_of(name: str) -> str:
        return name[0] + str(int(name[4:6]) // 3)

    before, after = checked(photos(tmp_path / "photos"), tmp_path, groups=object_of)
    assert all(len(parts) == 1 for parts in parts_by_group(after))
    objects = np.array([object_of(name) for name in after.names])
    for one in np.unique(objects):
        assert len(set(after.parts[objects == one].tolist())) == 1
    moved = set(objects[before.parts != after.parts].tolist())
    assert moved
    assert moved < set(objects.tolist())


def given_split(root: Path, *parts: str) -> Path:
    for start, part in enumerate(parts):
        for label, name in enumerate(("ant", "bee")):
            (root / part / name).mkdir(parents=True)
            for index in range(20):
                scene(1000 * start + 100 * label + index).save(root / part / name / f"{index:02}.png")
    return root


def test_a_given_split_is_told_of_and_not_altered(tmp_path):
    folder = given_split(tmp_path / "photos", "train", "val", "test")
    for index in range(4):
        ImageOps.mirror(scene(index)).save(folder / "test" / "ant" / f"copy{index}.png")
    jpeg(scene(5), 60).save(folder / "val" / "ant" / "copy.png")
    half(scene(1107)).save(folder / "test" / "bee" / "copy.png")
    before, after = checked(folder, tmp_path)
    np.testing.assert_array_equal(before.parts, after.parts)
    assert after.split_digest == before.split_digest
    assert [after.names[index] for index in after.leaked("test")] == [f"test/ant/copy{index}.png" for index in range(4)]
    assert [after.names[index] for index in after.leaked("validation")] == ["val/ant/copy.png"]
    assert [after.names[index] for index in after.leaked("test", "validation")] == ["test/bee/copy.png"]
    assert before.leaked("test").size == 0  # not looked for
    assert (
        "4 pictures of the test part have a copy in the training part ('test/ant/copy0.png', 'test/ant/copy1.png', "
        "'test/ant/copy2.png', …); the given split is kept" in after.skipped
    )
    assert (
        "1 picture of the validation part has a copy in the training part ('val/ant/copy.png'); the given split is kept"
    ) in after.skipped
    assert (
        "1 picture of the test part has a copy in the validation part ('test/bee/copy.png'); the given split is kept"
    ) in after.skipped


def test_of_a_half_given_split_only_what_was_made_changes(tmp_path):
    folder = given_split(tmp_path / "photos", "train", "test")
    for index in range(20):
        half(scene(index)).save(folder / "train" / "ant" / f"copy{index}.png")
    ImageOps.mirror(scene(0)).save(folder / "test" / "ant" / "copy.png")
    before, after = checked(folder, tmp_path)
    is_test = before.parts == TEST
    np.testing.assert_array_equal(is_test, after.parts == TEST)
    assert (before.parts != after.parts).any()
    assert not after.leaked("validation").size or after.names[after.leaked("validation")[0]] == "train/ant/00.png"
    inner = after.copies[~is_test]
    for code in np.unique(inner):
        assert len(set(after.parts[~is_test][inner == code].tolist())) == 1
    leaked = [after.names[index] for index in after.leaked("test")]
    assert leaked == (["test/ant/copy.png"] if after.parts[after.names.index("train/ant/00.png")] == TRAIN else [])


def test_one_picture_many_times_does_not_stop_the_work(tmp_path):
    pictures = np.repeat(noise(0)[None], 30, axis=0)
    before, after = checked((pictures, [0, 1] * 15), tmp_path)
    np.testing.assert_array_equal(before.parts, after.parts)
    assert any("together they would leave a part or a class without pictures" in line for line in after.skipped)
    assert after.leaked("test").tolist() == before.indices("test").tolist()


def test_a_class_keeps_pictures_to_train_on(tmp_path):
    pictures = np.stack([noise(seed) for seed in range(40)])
    before = decode(survey((pictures, [0] * 34 + [1] * 6)), [SIZE], cache_dir=tmp_path)
    rare = np.flatnonzero(before.labels == 1)
    parts = before.parts.copy()
    parts[rare] = [TEST, VALIDATION, *[TRAIN] * 4]  # a group goes to the part of its first picture
    after = with_copies_together(replace(before, parts=parts), codes_of([rare.tolist()], 40))
    assert (after.parts[rare] == TRAIN).all()
    np.testing.assert_array_equal(after.parts[:34], parts[:34])
    assert any("no pictures in test of the classes [1]" in line for line in after.skipped)


def test_copies_with_different_labels_are_named(tmp_path):
    folder = photos(tmp_path / "photos")
    scene(3).save(folder / "bee" / "stray.png")
    _, after = checked(folder, tmp_path)
    assert (
        "1 group of copies carries different labels: 'ant/03.png' (ant), 'bee/stray.png' (bee); "
        "result.contradictions() lists each copy"
    ) in after.skipped


def test_of_many_copies_with_different_labels_the_first_are_named(tmp_path):
    folder = photos(tmp_path / "photos")
    for index in (0, 7, 9, 11):
        scene(index).save(folder / "bee" / f"stray{index:02}.png")
    _, after = checked(folder, tmp_path)
    assert any(
        line.startswith(
            "4 groups of copies carry different labels: 'ant/00.png' (ant), 'bee/stray00.png' (bee); 'ant/07"
        )
        and line.endswith("; …; result.contradictions() lists each copy")
        for line in after.skipped
    )


def labelled(labels: Any, cache: Path) -> DataBundle:
    """Pictures of which 7 is 2 mirrored, and 14 to 19 are 8 to 13."""
    pictures = np.stack([np.asarray(scene(seed, width=64, height=64)) for seed in range(20)])
    pictures[7], pictures[14:] = pictures[2, :, ::-1], pictures[8:14]
    return checked((pictures, labels), cache)[1]


def test_several_labels_a_picture_contradict_as_a_whole(tmp_path):
    rows = np.random.default_rng(0).permuted(np.repeat([[1, 0, 1], [0, 1, 0]], 10, axis=0), axis=0)
    rows[14:] = rows[8:14]
    rows[[2, 7]] = [[1, 0, 1], [0, 0, 0]]
    bundle = labelled(rows, tmp_path)
    assert bundle.task == "multilabel"
    assert all(len(parts) == 1 for parts in parts_by_group(bundle))
    assert any(
        line.startswith("1 group of copies carries different labels: '2' (0 and 2), '7' (none); ")
        for line in bundle.skipped
    )


def test_measurements_do_not_contradict(tmp_path):
    bundle = labelled(np.linspace(0, 1, 20), tmp_path)
    assert bundle.task == "regression"
    assert all(len(parts) == 1 for parts in parts_by_group(bundle))
    assert any("14 pictures are copies in 7 groups" in line for line in bundle.skipped)
    assert not any("different labels" in line for line in bundle.skipped)


def test_a_split_by_time_is_told_of_and_not_altered(tmp_path):
    pictures = np.stack([noise(seed) for seed in range(20)])
    pictures[-1] = pictures[0]
    before, after = checked((pictures, [0, 1] * 10), tmp_path, times=range(20))
    np.testing.assert_array_equal(before.parts, after.parts)
    assert after.leaked("test").tolist() == [19]
    assert "1 picture of the test part has a copy in the training part ('19'); the given split is kept" in after.skipped


def test_for_want_of_time_it_is_left_out_and_said(tmp_path):
    before = decode(survey(photos(tmp_path / "photos")), [SIZE], cache_dir=tmp_path)
    left_out = look_for_copies(before, [SIZE], budget_s=0.0)
    np.testing.assert_array_equal(before.parts, left_out.parts)
    assert left_out.copies is None
    assert left_out.split_digest == before.split_digest
    (line,) = set(left_out.skipped) - set(before.skipped)
    assert line.startswith("copies were not looked for: among 60 pictures that takes about")
    with_time = look_for_copies(before, [SIZE], budget_s=1e6)
    np.testing.assert_array_equal(with_time.copies, look_for_copies(before, [SIZE], budget_s=None).copies)


@pytest.mark.slow
def test_pictures_that_have_to_be_decoded_for_it_count_with_that(tmp_path):
    dataset = survey(SlowPictures(["ant", "bee"] * 40, 0.02))
    encoded = decode(dataset, [SIZE], cache_dir=tmp_path, max_bytes=0)
    left_out = look_for_copies(encoded, [SIZE], budget_s=20.0)  # 80 take 1.6 s, and 0.6 s are allowed
    assert left_out.copies is None


def test_the_smallest_stored_size_is_looked_at(tmp_path):
    before = decode(survey(photos(tmp_path / "photos")), [SIZE], cache_dir=tmp_path)
    after = look_for_copies(before, [(32, 32), SIZE], budget_s=None)
    assert not before.has_pixels((32, 32))  # another size is not decoded for it
    np.testing.assert_array_equal(after.copies, find_copies(before.pixels(SIZE)).codes)


def test_what_looks_alike_too_often_is_said(tmp_path):
    generator = np.random.default_rng(0)
    still = np.asarray(scene(0).resize(SIZE), dtype=np.float64)
    pictures = (still + generator.normal(0, 3, (40, *still.shape))).clip(0, 255).astype(np.uint8)
    before, after = checked((pictures, [0, 1] * 20), tmp_path)
    np.testing.assert_array_equal(before.parts, after.parts)
    assert after.skipped[-1].startswith("40 pictures look like more than 16 others each")


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    pictures = np.stack([noise(seed) for seed in range(60)])
    return decode(survey((pictures, [0, 1, 2] * 20)), [SIZE], cache_dir=tmp_path_factory.mktemp("cache"))


GROUPS = st.lists(st.integers(0, 25), min_size=60, max_size=60)


@given(copies=GROUPS, groups=st.none() | GROUPS)
def test_either_all_groups_are_whole_or_nothing_moves(plain, copies, groups):
    codes = np.array(copies)
    before = plain if groups is None else replace(plain, groups=np.array(groups))
    after = with_copies_together(before, codes)
    for part in (TRAIN, VALIDATION, TEST):
        assert (after.parts == part).any()
    if np.array_equal(before.parts, after.parts):
        return
    for together in (codes, before.groups):
        for code in () if together is None else np.unique(together):
            assert len(set(after.parts[together == code].tolist())) == 1


def test_shares_are_kept_where_all_pictures_have_copies(plain):
    n = 3000
    parts = np.random.default_rng(0).permutation(np.repeat([TRAIN, VALIDATION, TEST], [1920, 480, 600])).astype(np.int8)
    large = replace(plain, names=tuple(map(str, range(n))), labels=np.arange(n) % 3, parts=parts)
    after = with_copies_together(large, np.arange(n) % (n // 5))
    shares = np.bincount(after.parts) / n
    assert np.abs(shares - [0.64, 0.16, 0.2]).max() < 0.05  # five each; the part of most would give 0.9 to training


def test_pictures_of_the_suite_are_no_copies(pictures, tmp_path):
    _, after = checked(pictures, tmp_path)
    assert after.copies is not None
    assert len(np.unique(after.copies)) == len(after.names)

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from autobackbone.data import decode, printable, restricted, survey
from autobackbone.data.folders import from_folder
from autobackbone.data.parts import TEST, TRAIN, VALIDATION
from autobackbone.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path


def touch(root: Path, *names: str) -> Path:
    """Empty files will do: finding opens none."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def test_classes_and_pictures_come_in_natural_order(tmp_path):
    touch(tmp_path, "c10/2.jpg", "c10/10.JPG", "c2/b.png", "c2/a.webp")
    found = from_folder(tmp_path)
    assert found.classes == ("c2", "c10")
    assert found.source.names == ("c2/a.webp", "c2/b.png", "c10/2.jpg", "c10/10.JPG")
    assert found.labels.tolist() == [0, 0, 1, 1]
    assert found.given is None
    assert found.notes == ()


def test_what_is_passed_over_is_told_in_one_line_each(tmp_path):
    touch(tmp_path, "README.md", "a/1.jpg", "b/1.jpg", "a/notes.txt", "b/x.heic", "b/y.txt", ".git/1.jpg", "a/._1.jpg")
    touch(tmp_path, "loose.jpg")
    (tmp_path / "empty").mkdir()
    found = from_folder(str(tmp_path))
    assert found.source.names == ("a/1.jpg", "b/1.jpg")
    assert found.notes == (
        "1 folder without pictures: 'empty'",
        "1 pictures beside the class folders have no label: not used",
        "2 hidden files or folders: '.git', 'a/._1.jpg'",
        "3 files that are no pictures by their suffix (.txt 2, .heic 1)",
    )


def test_folders_inside_a_class_count_to_it(tmp_path):
    found = from_folder(touch(tmp_path, "a/x/y/1.jpg", "a/2.jpg", "b/1.jpg"))
    assert found.source.names == ("a/2.jpg", "a/x/y/1.jpg", "b/1.jpg")
    assert found.labels.tolist() == [0, 0, 1]


def test_links_in_a_circle_end(tmp_path):
    touch(tmp_path, "a/1.jpg", "b/1.jpg")
    (tmp_path / "a" / "self").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "b" / "x").mkdir()
    (tmp_path / "b" / "x" / "y").symlink_to(tmp_path / "b")
    assert from_folder(tmp_path).source.names == ("a/1.jpg", "b/1.jpg")


def test_two_ways_to_one_folder_count_once_and_always_by_the_first_name(tmp_path):
    touch(tmp_path, "a/x/1.jpg", "b/1.jpg")
    (tmp_path / "a" / "w").symlink_to(tmp_path / "a" / "x")
    assert from_folder(tmp_path).source.names == ("a/w/1.jpg", "b/1.jpg")


def test_a_link_to_nothing_is_a_picture_that_cannot_be_read_and_a_pipe_is_none(tmp_path):
    touch(tmp_path, "a/1.jpg", "b/1.jpg")
    (tmp_path / "a" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    os.mkfifo(tmp_path / "b" / "pipe.jpg")
    assert from_folder(tmp_path).source.names == ("a/1.jpg", "a/gone.jpg", "b/1.jpg")


@pytest.mark.parametrize("validation", ["val", "valid", "Validation"])
def test_a_given_split_is_understood(tmp_path, validation):
    touch(tmp_path, "Train/a/1.jpg", "Train/b/1.jpg", f"{validation}/a/1.jpg", "TEST/b/1.jpg")
    found = from_folder(tmp_path)
    assert found.classes == ("a", "b")
    assert found.given is not None
    by_part = {int(part): name for part, name in zip(found.given, found.source.names, strict=True) if part != TRAIN}
    assert by_part == {VALIDATION: f"{validation}/a/1.jpg", TEST: "TEST/b/1.jpg"}


def test_an_unlabelled_test_is_left_out(tmp_path):
    found = from_folder(touch(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "test/1.jpg", "test/2.jpg"))
    assert found.source.names == ("train/a/1.jpg", "train/b/1.jpg")
    assert found.notes == ("'test/' holds 2 pictures and no class folders: no labels, not used",)


def test_folders_beside_the_parts_are_told(tmp_path):
    found = from_folder(touch(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "val/a/1.jpg", "extra/c/1.jpg"))
    assert found.notes == ("1 folder beside the parts, not used: 'extra'",)


def test_a_class_may_be_called_train(tmp_path):
    found = from_folder(touch(tmp_path, "train/1.jpg", "car/1.jpg", "bus/1.jpg"))
    assert found.classes == ("bus", "car", "train")
    nested = from_folder(touch(tmp_path, "train/steam/2.jpg"))
    assert nested.classes == ("bus", "car", "train")


def test_classes_absent_from_train_are_named(tmp_path):
    touch(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "val/dog/1.jpg", "test/dog/1.jpg", "test/fox/1.jpg")
    with pytest.raises(DataError, match=r"only in validation or test: 'dog', 'fox'\. 'train/' has 'a', 'b'"):
        from_folder(tmp_path)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("1.jpg", "2.jpg", "README.md"), "2 pictures directly in .* no labels.*root/CLASS"),
        (("a/1.txt", "b/c/2.txt"), "2 sub-folders in .*, none with a picture"),
        ((), "neither pictures nor sub-folders"),
        (("train/1.jpg", "test/2.jpg"), "found 'test/', 'train/' in .*no class folders with pictures in 'train/'"),
    ],
)
def test_another_layout_is_refused_with_the_expected_one(tmp_path, names, message):
    with pytest.raises(DataError, match=message):
        from_folder(touch(tmp_path, *names))


def test_no_folder_is_refused(tmp_path):
    touch(tmp_path, "a.zip")
    with pytest.raises(DataError, match="a file is at"):
        from_folder(tmp_path / "a.zip")
    with pytest.raises(DataError, match="nothing is at"):
        from_folder(tmp_path / "missing")


def test_a_name_that_is_no_text_elsewhere_is_read(tmp_path):
    touch(tmp_path, "a/1.jpg", "b/1.jpg")
    odd = os.fsencode(tmp_path / "a") + b"/\xff.png"
    Image.new("RGB", (3, 2)).save(tmp_path / "plain.png")
    os.rename(tmp_path / "plain.png", os.fsdecode(odd))  # noqa: PTH104  # the name is no valid text
    source = from_folder(tmp_path).source
    index = next(i for i, name in enumerate(source.names) if name.endswith(".png"))
    assert source.picture_size(index) == (2, 3)
    assert printable(source.names[index]) == "a/\\xff.png"


def test_names_that_are_no_text_are_read_and_written_as_numbers(tmp_path):
    for name in (b"a\xff", b"b"):
        folder = os.path.join(os.fsencode(tmp_path), name)  # noqa: PTH118  a path of bytes
        os.mkdir(folder)  # noqa: PTH102
        for index in range(6):
            with open(os.path.join(folder, b"p\xfe%d.png" % index), "wb") as file:  # noqa: PTH118, PTH123
                Image.new("RGB", (8, 8), (40 * index, 0, 0)).save(file, "PNG")
    found = survey(tmp_path)
    assert found.classes == ("a\\xff", "b")
    bundle = decode(found, [8], cache_dir=tmp_path / "cache")
    assert len(bundle.skipped) == len(found.skipped)  # all of them could be read
    names = frozenset(printable(name) for name in found.names)
    assert all(name.isascii() for name in names)
    assert restricted(found, names).names == found.names

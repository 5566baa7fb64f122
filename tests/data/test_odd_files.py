"""Folders from anywhere: names, links, rights, files that are none, and files that go away."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tests.data.conftest import noise
from tests.data.oddities import SIDE, decoded, encoded, folder_of, pixels_of, taken

from autobackbone.data import printable, survey
from autobackbone.data.sources import natural_key
from autobackbone.errors import DataError

pytestmark = pytest.mark.timeout(60)  # what waits for a pipe waits for ever

NAMES = (
    "čšž ö 写真 📷.png",
    "שלום עולם.png",
    "\u202egnp.exe.png",
    "line\nfeed\r.png",
    "\x1b[2Jescape\x07\x7f.png",
    "a\u2028b\x85c.png",
    " leading and trailing .png",
    "-rf.png",
    "100%s{0}$HOME`;&|.png",
    "quote'\"\\.png",
    "١٢٣ ² ½.png",
    "9" * 200 + ".png",
    "n" * 196 + ".png",
    "é.png",
    "e\u0301.png",
    os.fsdecode(b"no \xff\xfe text \xc3.png"),
)


def test_a_picture_is_taken_whatever_its_name(tmp_path):
    files = {name: encoded(Image.fromarray(noise(i, SIDE, SIDE)), "PNG") for i, name in enumerate(NAMES)}
    found, bundle = taken(tmp_path, files)
    for i, name in enumerate(NAMES):
        assert np.array_equal(found[name], noise(i, SIDE, SIDE)), ascii(name)
    assert len({printable(name) for name in NAMES}) == len(NAMES)
    assert sorted(bundle.names, key=natural_key) == list(bundle.names)


@pytest.mark.parametrize("name", NAMES)
def test_a_broken_picture_is_named_on_one_line_whatever_its_name(tmp_path, name):
    _, bundle = taken(tmp_path, {name: b"broken"})  # which looks for the name itself
    (line,) = (line for line in bundle.skipped if "cannot be read" in line)
    assert line.encode("utf-8")
    assert not {*"\n\r\x1b\x07\x7f\x85\u2028\u202e"} & set(line)
    assert len(line.splitlines()) == 1


def test_names_that_anybody_can_read_stay_as_they_are():
    for name in ("čšž ö 写真 📷.png", "שלום עולם.png", "مرحبا.jpg", "quote'\"\\.png", "١٢٣ ² ½.png"):
        assert printable(name) == name
    assert printable("a\nb\x00\u202e\udcff\ud800") == r"a\nb\x00\u202e\xff\ud800"


def test_a_class_may_have_any_name(tmp_path):
    photos = folder_of(tmp_path, {})
    (photos / "a").rename(photos / "line\nfeed")
    (photos / "b").rename(photos / os.fsdecode(b"\xff"))
    assert survey(photos).classes == (r"\xff", r"line\nfeed")


@pytest.mark.parametrize("name", ["nul\0byte.png", "x" * 300 + ".png", "\ud800.png", "a/" * 3000 + ".png", "", " "])
def test_a_name_that_no_file_can_have_is_left_out_of_a_table(tmp_path, name):
    photos = folder_of(tmp_path, {})
    rows = [{"file": str(path), "label": path.parent.name} for path in sorted(photos.rglob("*.png"))]
    # Of objects: where pyarrow is installed, pandas keeps texts in it, and half a pair of surrogates cannot be one.
    table = pd.DataFrame([*rows, {"file": name, "label": "a"}], dtype=object)
    pixels = pixels_of(decoded(survey(table), tmp_path / "cache"))
    assert [of for of, pixel in pixels.items() if pixel is None] == [name]


def test_links_lead_to_what_they_lead_to(tmp_path):
    photos, outside = folder_of(tmp_path, {}, n_sound=60), tmp_path / "outside"
    picture = noise(1, SIDE, SIDE)
    outside.mkdir()
    Image.fromarray(picture).save(outside / "there.png")
    (photos / "a" / "folder").symlink_to(outside)
    (photos / "a" / "file.png").symlink_to(outside / "there.png")
    (photos / "a" / "self.png").symlink_to("self.png")
    (photos / "a" / "self").symlink_to("self")
    (photos / "a" / "left.png").symlink_to("right.png")
    (photos / "a" / "right.png").symlink_to("left.png")
    (photos / "a" / "round").symlink_to(photos)
    (photos / "loop").symlink_to("loop")
    (photos / "nowhere").symlink_to(tmp_path / "nowhere")
    pixels = pixels_of(decoded(survey(photos), tmp_path / "cache"))
    assert np.array_equal(pixels["a/folder/there.png"], picture)
    assert np.array_equal(pixels["a/file.png"], picture)
    assert {name for name, of in pixels.items() if of is None} == {"a/self.png", "a/left.png", "a/right.png"}


def test_a_folder_that_leads_to_itself_is_no_dataset(tmp_path):
    (tmp_path / "self").symlink_to("self")
    with pytest.raises(DataError, match=r"nothing is at '.*self'"):
        survey(tmp_path / "self")


@pytest.mark.parametrize("name", ["x" * 300, "a/" * 3000])
def test_a_name_that_no_folder_can_have_is_no_dataset(tmp_path, name):
    with pytest.raises(DataError, match="nothing is at"):
        survey(tmp_path / name)


def not_readable(path: Path) -> Path:
    path.chmod(0)
    if os.access(path, os.R_OK):
        path.chmod(0o755)
        pytest.skip("this user reads everything")
    return path


def test_a_folder_without_rights_is_named(tmp_path):
    photos = folder_of(tmp_path, {})
    (photos / "a" / "locked").mkdir()
    locked = not_readable(photos / "a" / "locked")
    with pytest.raises(DataError, match=r"cannot list the folder '.*locked': Permission denied\. Make it readable"):
        survey(photos)
    locked.chmod(0o755)


def test_a_link_into_a_folder_without_rights_and_a_file_without_are_left_out(tmp_path):
    photos = folder_of(tmp_path, {"file.png": b"", "linked.png": b""})
    (tmp_path / "locked").mkdir()
    (photos / "a" / "linked.png").rename(tmp_path / "locked" / "linked.png")
    (photos / "a" / "linked.png").symlink_to(tmp_path / "locked" / "linked.png")
    locked = not_readable(tmp_path / "locked")
    not_readable(photos / "a" / "file.png")
    pixels = pixels_of(decoded(survey(photos), tmp_path / "cache"))
    locked.chmod(0o755)
    assert {name for name, of in pixels.items() if of is None} == {"a/file.png", "a/linked.png"}


@pytest.fixture
def with_waiting(tmp_path, monkeypatch):
    """A dataset, and beside its pictures what is no file: a pipe, a socket, a device, and links to them."""
    photos = folder_of(tmp_path, {}, n_sound=60)
    monkeypatch.chdir(photos / "a")  # the name of a socket has room for a hundred bytes
    os.mkfifo("pipe.png")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket.png")
        Path("to_pipe.png").symlink_to("pipe.png")
        Path("to_socket.png").symlink_to("socket.png")
        Path("to_zero.png").symlink_to("/dev/zero")
        yield photos


def test_what_is_no_file_is_not_waited_for(with_waiting, tmp_path):
    pixels = pixels_of(decoded(survey(with_waiting), tmp_path / "cache"))
    assert not {"a/pipe.png", "a/socket.png"} & pixels.keys()
    lost = {name for name, of in pixels.items() if of is None}
    assert lost == {"a/to_pipe.png", "a/to_socket.png", "a/to_zero.png"}


@pytest.mark.parametrize("name", ["pipe.png", "socket.png", "to_zero.png", ".", "/dev/zero"])
def test_what_is_no_file_is_left_out_of_a_table(with_waiting, tmp_path, name):
    rows = [{"file": str(path), "label": path.parent.name} for path in sorted(with_waiting.rglob("sound*.png"))]
    table = pd.DataFrame([*rows, {"file": name, "label": "a"}])
    pixels = pixels_of(decoded(survey(table), tmp_path / "cache"))
    assert [of for of, pixel in pixels.items() if pixel is None] == [name]


def test_files_that_vanish_after_the_survey_are_left_out(tmp_path):
    photos = folder_of(tmp_path, {"gone.png": b"later"})
    found = survey(photos)
    (photos / "a" / "gone.png").unlink()
    (photos / "b" / "sound1.png").unlink()
    pixels = pixels_of(decoded(found, tmp_path / "cache"))
    assert {name for name, of in pixels.items() if of is None} == {"a/gone.png", "b/sound1.png"}


@pytest.mark.parametrize("becomes", ["nothing", "half", "folder", "pipe"])
def test_a_file_that_changes_between_its_digest_and_its_decoding_is_left_out(tmp_path, becomes):
    content = encoded(Image.fromarray(noise(0, SIDE, SIDE)), "PNG")
    photos = folder_of(tmp_path, {"z.png": content})
    last = photos / "b" / "zz.png"
    last.write_bytes(content)

    def change(n_done: int, _: int) -> None:
        if n_done == 1:
            last.unlink()
            make = {
                "half": lambda: last.write_bytes(content[:100]),
                "folder": last.mkdir,
                "pipe": lambda: os.mkfifo(last),
            }
            make.get(becomes, lambda: None)()

    found = survey(photos)
    assert found.names[-1] == "b/zz.png"
    pixels = pixels_of(decoded(found, tmp_path / "cache", n_workers=1, on_progress=change))
    assert {name for name, of in pixels.items() if of is None} == {"b/zz.png"}


def test_a_folder_that_vanishes_after_the_survey_ends_it_by_name(tmp_path):
    photos = folder_of(tmp_path, {})
    found = survey(photos)
    photos.rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"20 of 20 pictures cannot be read: 'a/sound0\.png'.*FileNotFoundError"):
        decoded(found, tmp_path / "cache")

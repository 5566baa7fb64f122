from __future__ import annotations

import io
import json
import os
import tarfile

import numpy as np
import pytest
from PIL import Image
from tests.data.conftest import noise

from autobackbone.data import TEST, TRAIN, decode, survey
from autobackbone.data.finding import find
from autobackbone.errors import DataError


def png(index: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(noise(index)).save(file, "PNG")
    return file.getvalue()


def write(path, members, *, form=tarfile.PAX_FORMAT) -> None:
    """Members are pairs of a name and bytes, or a `TarInfo` alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
                continue
            info = tarfile.TarInfo(member[0])
            info.size = len(member[1])
            archive.addfile(info, io.BytesIO(member[1]))


def labelled(first: int, n: int, kind="cls", label=lambda index: str(index % 2).encode()):
    return [
        member
        for index in range(first, first + n)
        for member in ((f"{index:04d}.png", png(index)), (f"{index:04d}.{kind}", label(index)))
    ]


@pytest.fixture
def shards(tmp_path):
    folder = tmp_path / "shards"
    for number in range(3):
        write(folder / f"part-{number}.tar", labelled(10 * number, 10))
    return folder


def test_a_folder_a_pattern_a_range_a_list_and_one_archive_are_taken(shards):
    whole = find(shards, None)
    assert whole.source.names[11] == "part-1.tar/0011.png"
    assert whole.classes == (0, 1)
    assert whole.labels.tolist() == [0, 1] * 15
    assert np.array_equal(np.asarray(whole.source.read(23)), noise(23))
    assert whole.source.picture_size(0) == (12, 10)
    for given in (
        str(shards / "part-*.tar"),
        str(shards / "part-{0..2}.tar"),
        sorted(shards.iterdir()),
        tuple(map(str, sorted(shards.iterdir()))),
    ):
        found = find(given, None)
        assert found.source.names == whole.source.names
        assert found.labels.tolist() == whole.labels.tolist()
    assert len(find(shards / "part-2.tar", None).labels) == 10


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_format_of_archives_and_long_names_are_read(tmp_path, form):
    names = [f"{'d' * 60}/{'e' * 40}/{index}" for index in range(6)]
    members = [
        m for i, name in enumerate(names) for m in ((f"{name}.png", png(i)), (f"{name}.cls", b"ab"[i % 2 :][:1]))
    ]
    write(tmp_path / "a.tar", members, form=form)
    found = find(tmp_path / "a.tar", None)
    assert found.classes == ("a", "b")
    assert found.source.names[2] == f"a.tar/{names[2]}.png"
    assert np.array_equal(np.asarray(found.source.read(5)), noise(5))


def test_a_picture_has_the_digest_of_its_file(shards, tmp_path):
    (tmp_path / "ant").mkdir()
    (tmp_path / "ant" / "a.png").write_bytes(png(12))
    assert find(shards, None).source.fingerprint(12) == find(tmp_path, None).source.fingerprint(0)


def test_folders_and_names_of_parts_are_a_given_split(tmp_path):
    write(tmp_path / "a" / "train" / "0.tar", labelled(0, 20))
    write(tmp_path / "a" / "test" / "0.tar", labelled(20, 4))
    write(tmp_path / "b" / "set-train-0.tar", labelled(0, 20))
    write(tmp_path / "b" / "set-test-0.tar", labelled(20, 4))
    for name in "ab":
        found = find(tmp_path / name, None)
        assert found.given is not None
        assert sorted(found.given.tolist()) == [TRAIN] * 20 + [TEST] * 4
        assert survey(tmp_path / name).sizes()["test"] == 4


def test_a_name_that_only_holds_the_word_is_no_part(tmp_path):
    write(tmp_path / "trains-0.tar", labelled(0, 10))
    write(tmp_path / "test-0.tar", labelled(10, 10))
    assert find(tmp_path, None).given is None


def test_json_has_labels_of_any_kind(tmp_path):
    def entries(index: int) -> bytes:
        facts = {"label": "ab"[index % 2], "tags": ["x"] * (index % 2), "age": index / 2, "height": index}
        return json.dumps(facts).encode()

    write(tmp_path / "a.tar", labelled(0, 8, "json", entries))
    assert find(tmp_path / "a.tar", None).classes == ("a", "b")
    assert find(tmp_path / "a.tar", None, label="tags").task == "multilabel"
    age = find(tmp_path / "a.tar", None, label="age")
    assert (age.task, age.classes) == ("regression", ("age",))
    both = find(tmp_path / "a.tar", None, label=["age", "height"])
    assert both.labels[3].tolist() == [1.5, 3]
    with pytest.raises(DataError, match=r"0000\.json has 'label', 'tags', 'age', 'height'\. Say which: label="):
        find(tmp_path / "a.tar", None, label="weight")


def test_links_devices_and_files_without_a_key_are_passed_over_and_nothing_is_extracted(tmp_path):
    secret = tmp_path / "secret.png"
    secret.write_bytes(png(99))
    odd = []
    for kind, name in ((tarfile.SYMTYPE, "x.png"), (tarfile.LNKTYPE, "y.png"), (tarfile.CHRTYPE, "z.png")):
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, str(secret)
        odd.append(info)
    hidden = [("._0000.png", b"resource fork"), ("README", b"text")]
    outside = [("../../evil.png", png(50)), ("../../evil.cls", b"1"), ("/abs.png", png(51)), ("/abs.cls", b"0")]
    write(tmp_path / "in" / "a.tar", [*odd, *hidden, *labelled(0, 8), *outside])
    before = sorted(tmp_path.rglob("*"))
    found = find(tmp_path / "in", None)
    for index in range(len(found.labels)):
        found.source.read(index)
    assert len(found.labels) == 10
    assert np.array_equal(np.asarray(found.source.read(8)), noise(50))
    assert found.notes == ("5 members of archives are links or have no key and kind: not used",)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("n_bytes", [100, 512, 700, 1024, 5000, -1024, -1025])
def test_an_archive_that_is_cut_off_is_named(tmp_path, n_bytes):
    path = tmp_path / "cut.tar"
    write(path, labelled(0, 10))
    content = path.read_bytes()
    end = len(content.rstrip(b"\0"))
    end += -end % 512  # of the last member; zeros follow
    kept = content[:n_bytes] if n_bytes > 0 else content[: end + 1024 + n_bytes]
    path.write_bytes(kept)
    with pytest.raises(DataError, match=r"cut\.tar' (is cut off before its end|cannot be read as a tar archive)"):
        find(path, None)


def test_an_archive_that_becomes_shorter_later_gives_unreadable_pictures(shards):
    found = find(shards, None)
    os.truncate(shards / "part-2.tar", 600)
    with pytest.raises(DataError, match=r"part-2\.tar' has become shorter"):
        found.source.read(29)
    assert not found.source.fingerprint(29).is_deep


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("a.png", png(0))], r"a\.tar' has none for 'a'"),
        ([("a.cls", b"1")], r"no picture is in 1 archive, such as '.*a\.tar'"),
        ([("a.png", png(0)), ("a.jpg", png(0)), ("a.cls", b"1")], r"has several for 'a': a\.png, a\.jpg"),
        ([("a.png", png(0)), ("a.json", b"{")], r"a\.json is no JSON"),
        ([("a.png", png(0)), ("a.json", b"[1]")], r"a\.json has list"),
        ([("a.png", png(0)), ("a.cls", b"\xff")], r"a\.cls is no text in UTF-8"),
        ([("a.png", png(0)), ("a.cls", b"1" * 1_000_001)], r"takes 1,000,001 bytes, too many for a label"),
        ([("a.png", png(0)), ("a.cls", b" "), ("b.png", png(1)), ("b.cls", b"x")], "1 are missing"),
    ],
)
def test_what_cannot_be_used_is_told(tmp_path, members, message):
    write(tmp_path / "a.tar", members)
    with pytest.raises(DataError, match=message):
        find(tmp_path / "a.tar", None)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("nothing.tar", r"nothing is at '.*nothing\.tar'"),
        ("text-{0..300000000}.tar", r"nothing is at '.*text-0\.tar'"),
        (f"{'x' * 300}.tar", r"nothing is at '.*xxx\.tar'"),
        (f"*{'x' * 300}.tar", r"no file matches"),
        ("a\0.tar", r"nothing is at '.*a\\x00\.tar'"),
        ("no-*.tar", r"no file matches '.*no-\*\.tar'"),
        ("packed.tar.gz", r"packed\.tar\.gz' is packed"),
        ("text.tar", r"text\.tar' cannot be read as a tar archive"),
    ],
)
def test_what_is_no_archive_is_told(tmp_path, given, message):
    (tmp_path / "packed.tar.gz").write_bytes(b"\x1f\x8b")
    (tmp_path / "text.tar").write_text("no archive" * 100)
    with pytest.raises(DataError, match=message):
        find(str(tmp_path / given), None)


def test_shards_are_decoded_as_any_pictures(shards, tmp_path):
    bundle = decode(survey(shards), [8], cache_dir=tmp_path / "cache")
    assert bundle.pixels(8).shape == (30, 8, 8, 3)
    assert decode(survey(shards), [8], cache_dir=tmp_path / "cache").digest == bundle.digest


@pytest.mark.parametrize("suffix", ["", ".csv", ".tar"])
@pytest.mark.parametrize("path", ["~no_such_user/pictures", "x" * 300, "a\0b"])
def test_a_path_that_cannot_be_is_nothing(path, suffix):
    with pytest.raises(DataError, match=r"nothing is at|cannot be read as CSV"):
        find(path + suffix, None)

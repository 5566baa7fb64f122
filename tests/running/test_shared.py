"""Files in a folder that several machines see, on a disk and behind an address."""

import pytest

from autobackbone.errors import ArgumentError, TrialError
from autobackbone.running.shared import SharedFolder


@pytest.fixture(params=["{}/seen", "{}/a::b ü", "file://{}/seen", "memory://{}"])
def shared(request, tmp_path):
    found = SharedFolder(request.param.format(tmp_path))
    yield found
    found.remove("a")


def test_a_file_comes_back_as_it_went(shared, tmp_path):
    (tmp_path / "here").write_bytes(b"\0 bytes")
    assert not shared.has("a/b/there")
    shared.put(tmp_path / "here", "a/b/there")
    assert shared.has("a/b/there")
    shared.get("a/b/there", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b"\0 bytes"
    (tmp_path / "here").write_bytes(b"newer")
    shared.put(tmp_path / "here", "a/b/there")
    shared.get("a/b/there", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b"newer"
    assert shared.names("a/b") == ["a/b/there"]


def test_what_is_removed_is_gone_and_what_was_never_there_too(shared, tmp_path):
    (tmp_path / "here").write_bytes(b"1")
    shared.put(tmp_path / "here", "a/b/there")
    shared.remove("a")
    shared.remove("a")
    assert not shared.has("a/b/there")
    assert shared.names("a/b") == []


def test_what_cannot_be_read_or_written_is_told_and_leaves_nothing(shared, tmp_path):
    with pytest.raises(TrialError, match="could not be read from 'a/nothing'"):
        shared.get("a/nothing", tmp_path / "back")
    with pytest.raises(TrialError, match="could not be copied to 'a/there'"):
        shared.put(tmp_path / "nothing", "a/there")
    assert shared.names("a") == []
    assert sorted(file.name for file in tmp_path.iterdir() if file.is_file()) == []


def test_an_address_that_nothing_reads_is_told():
    with pytest.raises(ArgumentError, match="'nowhere://x' cannot be used"):
        SharedFolder("nowhere://x")


def test_a_folder_that_can_be_written_is_found_so_and_left_as_it_was(shared):
    shared.require_writable()
    assert shared.names("") == []


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ArgumentError, match="shared is a folder that can be written, and a file could not be written"):
        SharedFolder(str(tmp_path / "file" / "below")).require_writable()

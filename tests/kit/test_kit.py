"""A kit is timed by a process that has nothing but ONNX Runtime, and its table is a target."""

import csv
import subprocess
import sys

import pytest
from tests.conftest import TINY, command

from autobackbone import Target, write_kit
from autobackbone.errors import ArgumentError, BackboneError
from autobackbone.kit import SCRIPT, TABLE
from autobackbone.records import Body

OTHER = "test_efficientnet.r160_in1k"


@pytest.fixture(scope="module")
def kit(tmp_path_factory):
    return write_kit(tmp_path_factory.mktemp("kits") / "kit", backbones=[TINY, OTHER], image_sizes=[32])


def time_them(kit, *arguments):
    """As on another machine: in isolated mode no path leads to this package."""
    line = [sys.executable, "-I", str(kit.folder / SCRIPT), "--seconds", "0.05", "--threads", "1", *arguments]
    return subprocess.run(line, capture_output=True, text=True, check=True, timeout=120).stdout


def rows_of(kit):
    with (kit.folder / TABLE).open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_table_that_the_script_fills_in_is_a_target(kit):
    assert kit.bodies == (Body(TINY, (32, 32)), Body(OTHER, (32, 32)))
    assert {row["latency_ms"] for row in rows_of(kit)} == {""}
    said = time_them(kit)
    assert said.count(" passes") == 2
    target = Target.from_csv(kit.folder / TABLE, name="a board")
    assert [(one.backbone, one.image_size) for one in target.timings] == [(body[0], body[1]) for body in kit.bodies]
    assert all(0 < one.latency_noise_ms < 10 * one.latency_ms for one in target.timings)
    assert all(one.latency_ms <= one.latency_p95_ms for one in target.timings)
    before = rows_of(kit)
    assert " passes" not in time_them(kit)  # it goes on where it was stopped
    assert rows_of(kit) == before
    assert not list(kit.folder.glob("*.part"))


@pytest.mark.slow
def test_cuts_are_those_that_a_search_tries(tmp_path):
    kit = write_kit(tmp_path, backbones=TINY, image_sizes=32, cuts=True)
    assert [body.n_blocks_kept for body in kit.bodies] == [None, 3, 4]
    assert [row["n_blocks_kept"] for row in rows_of(kit)] == ["", "3", "4"]
    assert len({row["file"] for row in rows_of(kit)}) == 3
    assert "3 networks, " in str(kit)


def test_a_folder_that_holds_something_is_left_as_it_is(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ArgumentError, match=r"a kit goes to an empty folder, and .* holds something"):
        write_kit(tmp_path, backbones=TINY, image_sizes=32)
    with pytest.raises(ArgumentError, match="making it failed"):
        write_kit(tmp_path / "mine.txt", backbones=TINY, image_sizes=32)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


def test_a_name_that_nobody_knows_is_told(tmp_path):
    with pytest.raises(BackboneError, match="resnet5000"):
        write_kit(tmp_path, backbones="resnet5000")


def test_the_command_line_writes_one(tmp_path):
    done = command("kit", tmp_path / "kit", "--backbone", TINY, "--image-size", "32")
    assert done.code == 0
    assert "1 network, " in done.out
    assert f"{TINY}-32x32.onnx" in done.err
    assert {file.name for file in (tmp_path / "kit").iterdir()} == {f"{TINY}-32x32.onnx", SCRIPT, TABLE}

"""A kit is timed by a process that has nothing but ONNX Runtime, and its table is a target."""

import ast
import csv
import re
import resource
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest
from tests.conftest import TINY, command, make_pictures
from tests.smalldisk import needs_small_disk, on_small_disk, read_only_view

from autobackbone import OwnBackbone, Target, plan, write_kit
from autobackbone.errors import ArgumentError, AutobackboneError
from autobackbone.kit import SCRIPT, TABLE, _file_name
from autobackbone.records import Body

OTHER = "test_efficientnet.r160_in1k"


@pytest.fixture(scope="module")
def kit(tmp_path_factory):
    return write_kit(tmp_path_factory.mktemp("kits") / "kit", backbones=[TINY, OTHER], image_sizes=[32])


def started(folder, *arguments):
    """As on another machine: in isolated mode no path leads to this package."""
    line = [sys.executable, "-I", str(folder / SCRIPT), "--seconds", "0.05", "--threads", "1", *arguments]
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=120)


def time_them(kit, *arguments):
    done = started(kit.folder, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def edited(kit, tmp_path):
    """A function: the kit with a table of these lines, timed; code, out and err, and the table afterwards."""

    def timed(*lines, arguments=()):
        folder = tmp_path / "edited"
        shutil.copytree(kit.folder, folder)
        table = folder / TABLE
        table.unlink()
        if lines:
            table.write_text("\n".join(lines) + "\n", encoding="utf-8")
        done = started(folder, *arguments)
        assert "Traceback" not in done.stderr
        after = table.read_text(encoding="utf-8") if lines else ""
        return SimpleNamespace(code=done.returncode, out=done.stdout, err=done.stderr, table=after)

    return timed


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
    again = time_them(kit, "--batch-size", "4")
    assert " passes\n" not in again  # it goes on where it was stopped
    assert "rows that had a latency, and were passed over, whatever the arguments are now: 2. Empty" in again
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
    for folder in (tmp_path / "mine.txt", tmp_path / "mine.txt" / "kit"):
        with pytest.raises(ArgumentError, match="Not a directory"):
            write_kit(folder, backbones=TINY, image_sizes=32)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


def test_a_kit_that_was_cut_off_is_known_as_such(kit, tmp_path):
    shutil.copytree(kit.folder, tmp_path / "kit")
    with pytest.raises(ArgumentError, match="holds something"):
        write_kit(tmp_path / "kit", backbones=TINY, image_sizes=32)
    (tmp_path / "kit" / TABLE).unlink()
    with pytest.raises(ArgumentError, match=r"looks like a kit that was cut off: it has networks and no latencies.csv"):
        write_kit(tmp_path / "kit", backbones=TINY, image_sizes=32)


@pytest.mark.parametrize(
    ("folder", "asked", "message"),
    [
        (None, {}, "a kit goes to a folder, whose path is a text or a Path, not None"),
        ("a\0b", {}, "null byte"),
        ("kit", {"backbones": 5}, "backbones is a name, a glob, an OwnBackbone, or a list of such, not 5"),
        ("kit", {"backbones": [TINY, 5]}, "or a list of such"),
        ("kit", {"backbones": "resnet5000"}, "resnet5000"),
        ("kit", {"backbones": ""}, "backbones are names or globs"),
        ("kit", {"backbones": TINY, "image_sizes": -1}, "an image size is pixels"),
        # As on a full disk: a file may be this long and no longer.
        ("new/kit", {"backbones": TINY, "image_sizes": 32}, r"with room for its networks.*File too large"),
    ],
)
def test_what_is_refused_leaves_nothing_behind(tmp_path, monkeypatch, folder, asked, message):
    monkeypatch.chdir(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, limits[1]))
    try:
        with pytest.raises(AutobackboneError, match=message):
            write_kit(folder, **asked)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())


def refused(disk):
    """What is said of a kit on a disk that takes nothing, and what is there then."""
    with pytest.raises(ArgumentError, match="a kit goes to a folder") as told:
        write_kit(read_only_view(disk) / "kit", backbones=TINY, image_sizes=32)
    return [str(told.value), [file.name for file in disk.iterdir()]]


@pytest.mark.slow
@needs_small_disk
def test_a_disk_that_is_read_only_is_told(tmp_path):
    (tmp_path / "disk").mkdir()
    told, there = on_small_disk(refused, 1000, tmp_path / "disk")
    assert "Read-only file system" in told
    assert there == []


def test_a_network_of_the_users_own_is_written_and_timed(tmp_path):
    own = OwnBackbone(factory="tests.backbones.ownnets:tiny", name="my:net", image_size=48)
    kit = write_kit(tmp_path / "kit", backbones=own, image_sizes=48)
    assert kit.bodies == (Body("my:net", (48, 48)),)
    assert "my_net-48x48.onnx: " in time_them(kit)
    target = Target.from_csv(kit.folder / TABLE)
    planned = plan(make_pictures(), 60, backbones=[own], target=target, cache_dir=tmp_path / "cache")
    assert planned.image_sizes == {"my:net": ((48, 48),)}


def test_names_that_differ_by_a_sign_are_two_files():
    taken = set()
    for name in ("my:net", "my+net", "My:net"):
        taken.add(_file_name(Body(name, (48, 48)), taken).lower())
    assert taken == {"my_net-48x48.onnx", "my_net-48x48-2.onnx", "my_net-48x48-3.onnx"}


def test_the_command_line_writes_one(tmp_path):
    done = command("kit", tmp_path / "kit", "--backbone", TINY, "--image-size", "32")
    assert done.code == 0
    assert "1 network, " in done.out
    assert f"{TINY}-32x32.onnx" in done.err
    assert {file.name for file in (tmp_path / "kit").iterdir()} == {f"{TINY}-32x32.onnx", SCRIPT, TABLE}
    for option in ("--backbone", "--image-size"):
        done = command("kit", tmp_path / "none", option, "")
        assert done.code == 1
        assert "an option that takes names or sizes has none: '' came" in done.err
    assert not (tmp_path / "none").exists()


FILE = f"{TINY}-32x32.onnx"


def test_a_provider_that_is_not_there_times_nothing(edited):
    table = ("file,backbone,height,width,latency_ms", f"{FILE},{TINY},32,32,")
    done = edited(*table, arguments=("--provider", "XnnpackExecutionProvider"))
    assert done.code == 1
    assert "error: the onnxruntime that is installed has no XnnpackExecutionProvider; it has " in done.err
    assert "CPUExecutionProvider" in done.err
    assert done.table.splitlines() == list(table)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--batch-size", "0"), "--batch-size: a whole number from 1 is wanted, not 0"),
        (("--threads", "-1"), "--threads: a whole number from 0 is wanted, not -1"),
        (("--seconds", "nan"), "--seconds: a number above 0 is wanted, not nan"),
    ],
)
def test_numbers_that_time_nothing_are_refused(kit, arguments, message):
    done = started(kit.folder, *arguments)
    assert done.returncode == 2
    assert message in done.stderr


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ((), "cannot be read: .*No such file"),
        (("file;height;width;latency_ms", f"{FILE};32;32;"), "lacks the columns file, .*commas between"),
        (("file,height,width,width", f"{FILE},32,32,32"), "several columns of one name: file, height, width, width"),
        (("file,height,width", f"{FILE},32,32,5"), "row 2 of latencies.csv has more cells than its header"),
        (("file,height,width", f'"{FILE},32,32', f"{FILE},32,32"), "cannot be read: unexpected end of data"),
        (("file,height,width",), "has a header and no rows"),
    ],
)
def test_a_table_that_cannot_be_filled_in_is_told(edited, lines, message):
    done = edited(*lines)
    assert done.code == 1
    assert done.err.startswith("error: ")
    assert len(done.err.splitlines()) == 1
    assert re.search(message, done.err)


def test_a_row_that_cannot_be_timed_leaves_the_others(edited):
    done = edited(
        "file, width, height",  # in another order, with spaces, and without what is to be filled in
        "nowhere.onnx,32,32",
        f"{FILE},32",
        f"{FILE},32,tall",
        f"{FILE},64,32",
        f"{FILE}, 32.0,32.0,,",
        ",,",
    )
    assert done.code == 1
    assert [line.partition(": left out: ")[0] for line in done.err.splitlines()[:3]] == [
        "row 2, nowhere.onnx",
        *(f"row {number}, {FILE}" for number in (3, 4)),
    ]
    assert "height is a whole number of at least 1, not 'tall'" in done.err
    assert done.err.endswith("that still have no latency: 4\n")
    rows = list(csv.DictReader(done.table.splitlines()))
    assert [bool(row["latency_ms"]) for row in rows] == [False, False, False, False, True, False]
    assert all(float(rows[4][name]) > 0 for name in ("latency_p95_ms", "latency_noise_ms"))


def test_the_script_is_of_python_3_8(kit):
    ast.parse((kit.folder / SCRIPT).read_text(encoding="utf-8"), feature_version=(3, 8))

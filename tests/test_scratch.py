import os
import subprocess
import sys
import tempfile

import pytest

from autobackbone.scratch import scratch_folder

DIES = """
import os, sys
from autobackbone.scratch import scratch_folder
with scratch_folder() as folder:
    (folder / "deep").mkdir()
    (folder / "deep" / "file").write_text("much")
    print(folder, flush=True)
    if sys.argv[1] == "dies":
        os.kill(os.getpid(), 9)
    sys.stdin.read()
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Where temporary folders lie."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def process(place, what):
    line = [sys.executable, "-c", DIES, what]
    environment = os.environ | {"TMPDIR": str(place), "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(line, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def grow_old(place):
    """As if all of it had been made an hour ago."""
    for file in place.glob("*/lock"):
        os.utime(file, (file.stat().st_atime - 3600, file.stat().st_mtime - 3600))


def folders(place):
    return {path.name for path in place.iterdir()}


def test_a_folder_is_there_as_long_as_it_is_needed(place):
    with scratch_folder() as folder:
        assert folder.parent == place
        (folder / "file").write_text("text")
    with pytest.raises(ValueError, match=r"^mine$"), scratch_folder():
        raise ValueError("mine")
    assert folders(place) == set()


def test_what_a_kill_left_is_removed_and_what_is_in_use_stays(place):
    with process(place, "dies") as dead:
        left = dead.stdout.readline().strip()
        assert dead.wait() == -9
    with scratch_folder():  # too young: it may be about to be locked
        assert os.path.isdir(left)  # noqa: PTH112
    with process(place, "waits") as alive:
        in_use = alive.stdout.readline().strip()
        (place / "others").mkdir()
        (place / "autobackbone-scratch-unlocked").mkdir()
        grow_old(place)
        with scratch_folder() as own:
            names = {own.name, os.path.basename(in_use), "others", "autobackbone-scratch-unlocked"}  # noqa: PTH119
            assert folders(place) == names
        alive.stdin.close()
        assert alive.wait() == 0


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="this system has no such users")
def test_a_link_is_not_followed(place, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "lock").touch()
    os.utime(elsewhere / "lock", (0, 0))
    (place / "autobackbone-scratch-link").symlink_to(elsewhere)
    with scratch_folder():
        pass
    assert folders(elsewhere) == {"lock"}

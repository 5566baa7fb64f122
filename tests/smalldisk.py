"""Runs a function of a test in a process with a disk of its own, small and real: it fills up, or is read-only.

Linux lets any user mount one in a namespace of processes, where nobody else sees it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import autobackbone

_MOUNT = 'mount -t tmpfs -o size="$1"k small "$2" && shift 2 && exec "$@"'


def _unshared(kilobytes, disk):
    return ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", _MOUNT, "sh", str(kilobytes), str(disk)]


@cache
def is_possible() -> bool:
    """Whether this system lets tests have one."""
    if shutil.which("unshare") is None:
        return False
    tried = [*_unshared(64, Path("/mnt")), "true"]
    return subprocess.run(tried, capture_output=True, check=False).returncode == 0


needs_small_disk = pytest.mark.skipif(
    not is_possible(), reason="this system lets no process mount a disk in a namespace of its own"
)


def on_small_disk(function, kilobytes, disk, *arguments):
    """What a function of a test module returns, as JSON, called with the disk's path and texts.

    Args:
        function: at the top of a module that can be imported.
        kilobytes: of the disk.
        disk: an empty folder, over which it is mounted.
        arguments: texts.
    """
    code = (
        "import importlib, json, sys\nfrom pathlib import Path\n"
        "function = getattr(importlib.import_module(sys.argv[1]), sys.argv[2])\n"
        "print(json.dumps(function(Path(sys.argv[3]), *sys.argv[4:])))"
    )
    called = [function.__module__, function.__name__, str(disk), *map(str, arguments)]
    paths = (Path(autobackbone.__file__).parents[1], Path(__file__).parents[1])
    done = subprocess.run(
        [*_unshared(kilobytes, disk), sys.executable, "-c", code, *called],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths))},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def leave(disk, n_bytes):
    """Fill a disk up to some bytes; returns the file that does."""
    facts = os.statvfs(disk)
    ballast = disk / "ballast"
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, facts.f_bavail * facts.f_frsize - n_bytes))
    return ballast


def read_only_view(disk):
    """The same disk at another place, where nothing can be written."""
    view = disk.with_name("view")
    view.mkdir()
    for line in (["--bind", str(disk), str(view)], ["-o", "remount,bind,ro", str(view)]):
        subprocess.run(["mount", *line], check=True)
    return view

"""Searches in processes of their own, one sitting after the other, which can be killed at any moment and begun again.

A process that has imported everything waits: for each line that it is told it forks, and the fork searches. So a
sitting begins at once, as one whose imports take no time would.

Each sitting writes a diary: which leg of which trial began, what was said, and the memory that it held then.
"""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
import sys
import traceback
from pathlib import Path

import autobackbone

ROOT = Path(__file__).parents[1]
_LEG = re.compile(r"trial (\d+), from epoch \d+ to ")


class Sittings:
    """Begins sittings with the same arguments; to be used in a `with`, at whose end none is left.

    Args:
        asked: what is searched, as `_search` takes it, plain data.
        inside: a command that runs another one, such as in a namespace.
        environment: beside that of this process.
    """

    def __init__(self, asked, inside=(), **environment):
        paths = os.pathsep.join(map(str, (Path(autobackbone.__file__).parents[1], ROOT)))
        self._waiting = subprocess.Popen(
            [*inside, sys.executable, "-m", "tests.sittings", json.dumps(asked)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": paths} | environment,
        )
        assert self._answer(120) == "ready"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._waiting.kill()  # a sitting dies with it
        self._waiting.wait()
        self._waiting.stdin.close()
        self._waiting.stdout.close()

    def begin(self, run_dir, diary, **changes):
        """Begin one; returns its process number."""
        line = json.dumps({"run_dir": str(run_dir), "diary": str(diary), "changes": changes})
        self._waiting.stdin.write(line.encode() + b"\n")
        return int(self._answer(60))

    def ended(self, seconds):
        """How the sitting that was begun last has ended, 0 if well; `None` while it goes on, after so many seconds."""
        answer = self._answer(seconds)
        return None if answer is None else int(answer)

    def _answer(self, seconds):
        if not select.select([self._waiting.stdout], [], [], max(0.0, seconds))[0]:
            return None
        return self._waiting.stdout.readline().decode().strip()


def legs_in(diary):
    """The trial of each leg that began, in their order."""
    return [entry["leg"] for entry in entries_of(diary) if "leg" in entry]


def entries_of(diary):
    """All that a diary holds; of a last line that was cut off nothing."""
    if not diary.exists():
        return []
    return [json.loads(line) for line in diary.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]


class Writes:
    """A reporter that keeps a diary."""

    def __init__(self, diary):
        self._diary = diary.open("a", buffering=1, encoding="utf-8")

    def say(self, line):
        self._write({"said": line})

    def stage(self, name):
        self._write({"stage": name})

    def progress(self, share, detail):
        found = _LEG.match(detail)
        if found:
            self._write({"leg": int(found[1]), "held": _held()})

    def close(self):
        self._write({"closed": True})
        self._diary.close()

    def _write(self, entry):
        self._diary.write(json.dumps(entry) + "\n")


def _held():
    """Bytes of this process, and of its worker, that no file is mapped to."""
    from tests.running.conftest import workers_of

    from autobackbone.running.child import resident_bytes

    return [resident_bytes(pid) for pid in (os.getpid(), *workers_of(os.getpid()))]


def _search(asked, run_dir, diary, changes):
    from tests.conftest import make_pictures

    from autobackbone import Budget, select_backbone

    given = asked | changes
    dataset = given.pop("dataset", None) or make_pictures()
    budget = Budget(**given.pop("budget"))
    return select_backbone(dataset, budget, run_dir=run_dir, progress=Writes(diary), **given)


def _sit(asked, order, parent):
    from autobackbone._worker import _die_with

    _die_with(parent)
    os.dup2(2, 1)  # answers are not its own to give
    code = 1
    try:
        _search(asked, Path(order["run_dir"]), Path(order["diary"]), order["changes"])
        code = 0
    except BaseException:  # noqa: BLE001  whatever it is, it is told, and the fork ends
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def main():
    """Fork at each line of standard input; give the process number of the fork, then its code."""
    import matplotlib.figure  # noqa: F401
    import pytorch_lightning  # noqa: F401
    import timm  # noqa: F401

    import autobackbone._api
    import autobackbone.course
    import autobackbone.plots.front  # noqa: F401

    asked, parent = json.loads(sys.argv[1]), os.getpid()
    _tell("ready")
    for line in sys.stdin:
        sitting = os.fork()
        if sitting == 0:
            _sit(asked, json.loads(line), parent)
        _tell(sitting)
        _tell(os.waitstatus_to_exitcode(os.waitpid(sitting, 0)[1]))


def _tell(what):
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()

import mmap
import os
import signal
import subprocess
import sys
import time

import pytest
from tests.running.conftest import HAS_PROC, is_running

from autobackbone.running.child import Bounds, Child, machine_bytes, resident_bytes

PARENT = """
import os, sys, time
from pathlib import Path
from autobackbone.running.child import Child
child = Child(Path(sys.argv[1]))
print(child.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(not HAS_PROC, reason="this system does not tell")
def test_memory_is_what_is_held_and_not_what_is_mapped():
    before = resident_bytes(os.getpid())
    # From the system itself: a process that has let go of much may have room for 50 MB that it holds already.
    with mmap.mmap(-1, 50_000_000) as held:
        held.write(b"x" * 50_000_000)
        assert 40e6 < resident_bytes(os.getpid()) - before < 120e6
    assert before < Bounds().memory_bytes < machine_bytes()
    assert resident_bytes(2**30) is None


def test_a_worker_ends_when_its_orders_do(tmp_path):
    child = Child(tmp_path)
    assert child.is_alive()
    child._process.stdin.close()
    assert child.cause_of_death() == "ended by itself with code 0"
    child.end(is_idle=True)


def test_what_a_worker_printed_at_last_is_told(tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\nprint('hello')\nsys.stdout.flush()\nprint('no licence', file=sys.stderr)\nos._exit(3)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    child = Child(tmp_path)
    while child.is_alive():
        assert child.answer(0.1) is None  # a greeting is none
    assert child.cause_of_death() == "ended by itself with code 3: no licence"
    child.tell({"do": "let go"})  # nobody is disturbed
    child.end()


@pytest.mark.skipif(not HAS_PROC, reason="this system does not tell which processes there are")
@pytest.mark.parametrize("signal_of", [signal.SIGKILL, signal.SIGTERM])
def test_no_worker_outlives_its_parent(tmp_path, signal_of):
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as parent:
        worker = int(parent.stdout.readline())
        assert is_running(worker)
        parent.send_signal(signal_of)
    until = time.monotonic() + 30
    while is_running(worker) and time.monotonic() < until:
        time.sleep(0.05)
    assert not is_running(worker)

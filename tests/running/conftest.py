"""Worker processes that can be found again, and a metric through which they are told what to do."""

import os
from pathlib import Path

import pytest

HAS_PROC = Path("/proc/self/stat").exists()

OBEDIENT = """
import os
import signal
import sys
import time
from pathlib import Path

import torch
from torchmetrics import Metric

ORDER = Path({order!r})


def obey():
    if os.getpid() == {parent} or not ORDER.exists():
        return
    order = ORDER.read_text()
    ORDER.unlink()
    if order == "print":
        print('{{"is": "trained"}}', flush=True)
        os.write(1, b'{{"is": "beat"}}\\n')
    elif order == "hang":
        ORDER.with_name("hangs").write_text(str(os.getpid()))
        time.sleep(600)
    elif order == "bug":
        raise ZeroDivisionError("a bug")
    elif order == "out of memory once":
        raise MemoryError
    elif order == "out of memory":
        ORDER.write_text(order)  # for as long as it lies there
        raise MemoryError
    elif order.startswith("grow"):
        if order == "grow again":
            ORDER.write_text(order)
        held = b"x" * 400_000_000
        time.sleep(600)
    else:
        os.kill(os.getpid(), signal.Signals[order])


class Obedient(Metric):
    '''Accuracy. Before that it does what stands in a file, but never in the process of the tests.'''

    higher_is_better = True
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0
    full_state_update = False

    def __init__(self):
        super().__init__()
        self.add_state("share", default=torch.tensor(0.0), dist_reduce_fx="mean")

    def update(self, predictions, labels):
        obey()
        self.share = (predictions.argmax(1) == labels).float().mean()

    def compute(self):
        return self.share
"""


def workers_of(parent):
    """The worker processes of a process."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes()
            its_parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
        except OSError:
            continue
        if b"autobackbone._worker" in line and int(its_parent) == parent:
            found.append(int(folder.name))
    return found


def is_running(pid):
    """Whether a process is there that has not ended; one that nobody asks after stays in the table."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture(scope="session")
def order(tmp_path_factory):
    """The file in which the worker's metric, `obedient:Obedient`, is given an order; it goes when it is obeyed."""
    folder = tmp_path_factory.mktemp("modules")
    file = folder / "order"
    (folder / "obedient.py").write_text(OBEDIENT.format(order=str(file), parent=os.getpid()))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield file

"""A worker process, `python -m autobackbone._worker PARENT`: begun by a run that has its trials trained elsewhere.

Orders come line by line on standard input, and answers leave on what was standard output, each a JSON object. Whatever
prints, prints to standard error. It ends when its parent does, however that died.
"""

from __future__ import annotations

import ctypes
import json
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

BEAT_S = 1.0
"""A sign of life is given so often, also while something long is computed."""
_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Serve one parent, whose process number is the only argument."""
    # The terminal sends Ctrl-C to all of its processes: the parent decides what becomes of this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _die_with(int(sys.argv[1]))
    answers = _Answers(_taken_output())
    threading.Thread(target=answers.beat, daemon=True).start()
    orders: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(orders,), daemon=True).start()
    # After the first sign of life: torch alone takes seconds.
    from autobackbone.running.serving import serve

    serve(_each(orders), answers.give)


def _die_with(parent: int) -> None:
    """Have the kernel end this process when its parent dies, where there is such a kernel; else standard input ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL))
        if os.getppid() != parent:  # it died before that
            os._exit(0)


def _taken_output() -> BinaryIO:
    """What was standard output, for answers alone."""
    pipe = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return pipe


def _listen(orders: queue.SimpleQueue[dict[str, Any]]) -> None:
    """Pass orders on. Their end is the parent's: what is being computed is of no use to anybody any more."""
    for line in sys.stdin.buffer:
        orders.put(json.loads(line))
    os._exit(0)


def _each(orders: queue.SimpleQueue[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    while True:
        yield orders.get()


class _Answers:
    """Lines to the parent, from two threads."""

    def __init__(self, pipe: BinaryIO) -> None:
        self._pipe, self._lock = pipe, threading.Lock()

    def give(self, answer: Mapping[str, Any]) -> None:
        line = json.dumps(answer).encode() + b"\n"
        try:
            with self._lock:
                self._pipe.write(line)
                self._pipe.flush()
        except OSError:  # nobody listens any more
            os._exit(0)

    def beat(self) -> None:
        while True:
            self.give({"is": "beat"})
            time.sleep(BEAT_S)


if __name__ == "__main__":
    main()

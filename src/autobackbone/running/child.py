"""A worker process as its parent sees it: begun, told, heard, watched, ended."""

from __future__ import annotations

import json
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_LOG = logging.getLogger(__name__)
_MEMORY_SHARE = 0.8
_TAIL_BYTES = 2_000
# An idle worker ends at once when its orders do.
_FAREWELL_S = 2.0


def machine_bytes() -> int | None:
    """The memory that processes may have here: of the machine, or of the control group; `None` where that is unknown.

    Example:
        >>> machine_bytes() is None or machine_bytes() > 10**8
        True
    """
    found = []
    with suppress(OSError, ValueError, AttributeError):
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):  # "max" is no number
            found.append(int(Path(file).read_text(encoding="ascii")))
    return min(found, default=None)


def resident_bytes(pid: int) -> int | None:
    """The memory of a process that can be had back only by ending it; `None` where the system does not tell.

    Pages of mapped files are left out: pixels and activations lie in such, and the system takes them back as it likes.
    """
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    kilobytes = {name: value.split()[0] for name, _, value in (line.partition(":") for line in lines) if value.strip()}
    parts = [kilobytes[name] for name in ("RssAnon", "RssShmem") if name in kilobytes]
    return 1024 * sum(map(int, parts)) if parts else None


def _usual_memory_bytes() -> int | None:
    whole = machine_bytes()
    return None if whole is None else int(_MEMORY_SHARE * whole)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How far a worker process may go before it is ended.

    Args:
        silent_s: seconds without a sign of life, of which it gives one a second.
        late_s: seconds beyond the end that its training was given.
        memory_bytes: that it may hold, mapped files left out; eight tenths of the machine's if not given, and `None`
            for no limit. Looked after on Linux alone.
    """

    silent_s: float = 30.0
    late_s: float = 10.0
    memory_bytes: int | None = field(default_factory=_usual_memory_bytes)


class Child:
    """One worker process.

    Args:
        folder: where what it prints is kept.
        rank: its number among those that train together.
        environment: beside that of this process.
    """

    def __init__(self, folder: Path, rank: int = 0, environment: Mapping[str, str] | None = None) -> None:
        self._printed = folder / f"printed-{rank}.txt"
        with self._printed.open("wb") as printed:
            self._process = subprocess.Popen(  # noqa: S603  this very Python, and a module of ours
                # Safe path: what lies in the working directory must not stand in for a library.
                [sys.executable, "-P", "-m", "autobackbone._worker", str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=printed,
                env={**os.environ, **(environment or {}), "PYTHONPATH": _search_path()},
            )
        self._heard_at = time.monotonic()
        self._answers: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._listener = threading.Thread(target=self._listen, daemon=True, name="worker's answers")
        self._listener.start()

    @property
    def pid(self) -> int:
        """Its process number."""
        return self._process.pid

    def is_alive(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def silent_s(self) -> float:
        """Seconds since it gave a sign of life."""
        return time.monotonic() - self._heard_at

    def forgive(self) -> None:
        """Count its silence from now on."""
        self._heard_at = time.monotonic()

    def tell(self, order: Mapping[str, Any]) -> None:
        """Give it an order; whether it still lives, whoever waits for its answer finds out."""
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()

    def answer(self, timeout_s: float) -> dict[str, Any] | None:
        """Its next answer; `None` where none came in time, or none can come any more."""
        if not self.is_alive():
            self._listener.join(timeout_s)  # what it said at last
            timeout_s = 0.0
        try:
            return self._answers.get(timeout=timeout_s) if timeout_s > 0 else self._answers.get_nowait()
        except queue.Empty:
            return None

    def end(self, *, is_idle: bool = False) -> None:
        """End it, and leave nothing of it behind; an idle one may end by itself."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if is_idle:
            with suppress(OSError):
                self._process.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_FAREWELL_S)
        self._process.kill()
        self._process.wait()
        self._listener.join()
        with suppress(OSError):
            self._process.stdin.close()
        self._process.stdout.close()

    def cause_of_death(self) -> str:
        """Why it has ended, in words."""
        code = self._process.wait()
        if code < 0:
            with suppress(ValueError):
                return f"was killed by signal {-code} ({signal.Signals(-code).name})"
            return f"was killed by signal {-code}"
        printed = self._printed.read_bytes()[-_TAIL_BYTES:].decode(errors="replace").strip().splitlines()
        return f"ended by itself with code {code}" + (f": {printed[-1]}" if printed else "")

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._heard_at = time.monotonic()
            try:
                said = json.loads(line)
                is_beat = said["is"] == "beat"
            except (ValueError, TypeError, KeyError):  # printed while Python started, before its output was taken
                _LOG.debug("a worker process printed %r", line)
                continue
            if not is_beat:
                self._answers.put(said)


def _search_path() -> str:
    """Where this process finds modules, so that the worker finds the same ones."""
    return os.pathsep.join(folder or str(Path.cwd()) for folder in sys.path)

"""Tells a run to people: a live view on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Sequence
from typing import IO, Any

from rich.console import Console as RichConsole
from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

from autobackbone.showing import harmless

# Drawn twice a second: a livelier line would take time from a small network's latency on the other cores.
_DRAWN_PER_S = 2
# Of the front, so that a small terminal still shows what was said.
_MOST_LINES = 8


class Console:
    """A reporter that writes to standard error, so that standard output stays for results.

    What it is told is shown letter by letter: a class may be named `[red]` or `:key:`. A reader that goes away never
    ends a search.

    Args:
        file: where to write; `None` for standard error as it is now.
        is_terminal: whether a line may be drawn over; `None` asks the file.

    Example:
        >>> import io
        >>> told = io.StringIO()
        >>> reporter = Console(told)
        >>> reporter.stage("read")
        >>> reporter.say("skipped: [red] :key:")
        >>> print(told.getvalue(), end="")
        [read]
        skipped: [red] :key:
    """

    def __init__(self, file: IO[str] | None = None, *, is_terminal: bool | None = None) -> None:
        outlet: Any = _Outlet(sys.stderr if file is None else file)
        self._console = RichConsole(
            file=outlet, force_terminal=is_terminal, markup=False, emoji=False, highlight=False, soft_wrap=True
        )
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=16),
            TextColumn("{task.percentage:.0f} %"),
            TimeElapsedColumn(),
            TextColumn("used"),
            TimeRemainingColumn(),
            TextColumn("left"),
            # What no longer fits is cut off here, not from the bar or the clocks.
            TextColumn("{task.fields[detail]}", markup=False, table_column=Column(no_wrap=True, ratio=1)),
            expand=True,
            console=self._console,
        )
        self._front: Sequence[str] = ()
        self._live = Live(
            console=self._console,
            transient=True,
            refresh_per_second=_DRAWN_PER_S,
            get_renderable=self._view,
        )
        self._task: TaskID | None = None

    def say(self, line: str) -> None:
        """One line that stays, or several; what a terminal would obey is written as numbers."""
        self._console.print(harmless(line, keeps="\n"))

    def stage(self, name: str) -> None:
        """A stage begins."""
        if not self._console.is_terminal:
            self._console.print(f"[{name}]")
            return
        if self._task is None:
            self._task = self._progress.add_task(name, total=1.0, detail="")
            self._live.start(refresh=True)
        self._progress.update(self._task, description=name, detail="")

    def progress(self, share: float, detail: str) -> None:
        """Only on a terminal: a line for each step would drown the others."""
        if self._task is not None:
            self._progress.update(self._task, completed=share, detail=harmless(detail))

    def standing(self, front: Callable[[], Sequence[str]]) -> None:
        """The front so far, a line for each trial, under the live line; asked for only on a terminal."""
        if self._task is not None:
            self._front = [harmless(line) for line in front()]

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._task is not None:  # else rich writes an empty line
            self._live.stop()

    def _view(self) -> Group:
        """What is done, and below it the front."""
        shown, n_more = self._front[:_MOST_LINES], len(self._front) - _MOST_LINES
        lines = [*shown, *([f"  and {n_more} more on the front"] if n_more > 0 else [])]
        return Group(self._progress, *(Text(line, no_wrap=True, overflow="ellipsis") for line in lines))


class _Outlet:
    """A text file that takes everything and never fails.

    rich ends the process when its reader has gone away, and a process without standard error has `None` there.
    """

    def __init__(self, file: IO[str] | None) -> None:
        self._file = file

    @property
    def encoding(self) -> str:
        return getattr(self._file, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        if self._file is not None:
            # What an old encoding cannot write becomes a question mark.
            readable = text.encode(self.encoding, "replace").decode(self.encoding)
            with contextlib.suppress(OSError, ValueError):  # a broken pipe; a closed file
                self._file.write(readable)
        return len(text)

    def flush(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError, ValueError):
                self._file.flush()

    def isatty(self) -> bool:
        if self._file is None:
            return False
        with contextlib.suppress(ValueError):
            return self._file.isatty()
        return False

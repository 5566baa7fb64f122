"""Tells a run to people: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys

from rich.console import Console as RichConsole
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

_LABEL = "{task.description}"


class Console:
    """A reporter that writes to standard error, so that standard output stays for results."""

    def __init__(self) -> None:
        self._console = RichConsole(file=sys.stderr, highlight=False, soft_wrap=True)
        self._progress = Progress(
            TextColumn(_LABEL), BarColumn(), TimeElapsedColumn(), TextColumn("{task.fields[detail]}"),
            console=self._console, transient=True,
        )  # fmt: skip
        self._task: TaskID | None = None
        self._stage = ""

    def say(self, line: str) -> None:
        """One line that stays."""
        self._console.print(line, markup=False)

    def stage(self, name: str) -> None:
        """A stage begins."""
        self._stage = name
        if not self._console.is_terminal:
            self._console.print(f"[{name}]", markup=False)
            return
        if self._task is None:
            self._progress.start()
            self._task = self._progress.add_task(name, total=1.0, detail="")
        self._progress.update(self._task, description=name)

    def progress(self, share: float, detail: str) -> None:
        """Only on a terminal: a line for each step would drown the others."""
        if self._task is not None:
            self._progress.update(self._task, completed=share, detail=detail)

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._progress.stop()

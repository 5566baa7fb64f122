"""What a run tells while it works: to whom, is the caller's choice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol


class Reporter(Protocol):
    """Listens to a run.

    One that has a method `standing` is also given, whenever a trial has ended, a function that says the front in lines.
    """

    def say(self, line: str) -> None:
        """One line that stays."""

    def stage(self, name: str) -> None:
        """A stage begins: stream (of an iterable that takes a while), read, screen, search, folds, confirm."""

    def progress(self, share: float, detail: str) -> None:
        """How much of the whole budget is used, from 0 to 1, and what is being done."""

    def close(self) -> None:
        """The run has ended."""


class Silent:
    """Tells nobody."""

    def say(self, line: str) -> None:
        """Nothing."""

    def stage(self, name: str) -> None:
        """Nothing."""

    def progress(self, share: float, detail: str) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def tell_standing(reporter: Reporter, front: Callable[[], Sequence[str]]) -> None:
    """Let a reporter show where the front stands, if it has a method `standing`."""
    standing = getattr(reporter, "standing", None)
    if standing is not None:
        standing(front)

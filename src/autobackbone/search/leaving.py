"""Backbones whose trainings fail one after the other leave the search."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

N_IN_A_ROW = 3


@dataclass(slots=True)
class Failures:
    """Trainings that failed in a row, by backbone; of one sitting, since the cause may be gone in the next.

    Example:
        >>> failures = Failures()
        >>> [failures.note("a", is_failed=True) for _ in range(3)], failures.has_left("a"), failures.has_left("b")
        ([False, False, True], True, False)
    """

    _in_a_row: Counter[str] = field(default_factory=Counter, init=False)

    def note(self, backbone: str, *, is_failed: bool) -> bool:
        """Note how a training ended; whether this one makes its backbone leave."""
        self._in_a_row[backbone] = self._in_a_row[backbone] + 1 if is_failed else 0
        return self._in_a_row[backbone] == N_IN_A_ROW

    def has_left(self, backbone: str) -> bool:
        """Whether nothing of it is tried any more."""
        return self._in_a_row[backbone] >= N_IN_A_ROW

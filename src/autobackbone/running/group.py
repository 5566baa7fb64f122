"""Worker processes that train together, as their parent sees them: all get each order, and one answer comes of it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from autobackbone.errors import TrialMemoryError
from autobackbone.running.child import Child, resident_bytes

MEETING = "meeting"
"""The file in the folder of a set-up by which ranks find each other."""
# What all of them raise, they raise at one step: so much later the others wait for one that has failed alone.
_TOGETHER_S = 5.0


class Group:
    """Worker processes, one a rank; of one alone what `Child` is.

    An error that all have told leaves them as they were, ready for the next order. Where one has failed alone, others
    wait for it for ever: then the group is whole no more, and is to be ended.

    Args:
        folder: where they find what they are told, and where what they print is kept.
        n: how many.
        environment: of each, beside that of this process.
    """

    def __init__(self, folder: Path, n: int = 1, environment: Mapping[str, str] | None = None) -> None:
        self.is_whole = True
        self._answers: dict[int, dict[str, Any]] = {}
        self._failed_at: float | None = None
        self._children: list[Child] = []
        (folder / MEETING).unlink(missing_ok=True)  # by which others have met
        try:
            for rank in range(n):
                self._children.append(Child(folder, rank, environment))
        except BaseException:
            self.end()
            raise

    @property
    def pids(self) -> tuple[int, ...]:
        """Process numbers, by rank."""
        return tuple(child.pid for child in self._children)

    @property
    def subject(self) -> str:
        """What the group is called where something is said of all of it."""
        return "its worker process" if len(self._children) == 1 else f"its {len(self._children)} worker processes"

    def members(self) -> Iterator[tuple[str, Child]]:
        """Each process, and what it is called."""
        for rank, child in enumerate(self._children):
            yield self._named(rank), child

    def is_alive(self) -> bool:
        """Whether none has ended."""
        return all(child.is_alive() for child in self._children)

    def is_any_alive(self) -> bool:
        """Whether one has not ended."""
        return any(child.is_alive() for child in self._children)

    def resident_bytes(self) -> int | None:
        """The memory that all of them hold, as `child.resident_bytes` tells it."""
        held = [resident_bytes(pid) for pid in self.pids]
        return None if None in held else sum(one or 0 for one in held)

    def forgive(self) -> None:
        """Count their silence from now on."""
        for child in self._children:
            child.forgive()

    def tell(self, order: Mapping[str, Any]) -> None:
        """Give all of them an order, each with its rank."""
        self._answers, self._failed_at = {}, None
        for rank, child in enumerate(self._children):
            child.tell({**order, "rank": rank, "n_ranks": len(self._children)})

    def answer(self, timeout_s: float) -> dict[str, Any] | None:
        """What came of the order: the first rank's answer, or why it failed; `None` where that is not known yet."""
        for rank, child in enumerate(self._children):
            if rank not in self._answers:
                answer = child.answer(timeout_s)
                timeout_s = 0.0  # they answer together, or not at all
                if answer is not None:
                    self._answers[rank] = answer
                    if answer["is"] == "failed" and self._failed_at is None:
                        self._failed_at = time.monotonic()
        have_all = len(self._answers) == len(self._children)
        is_late = self._failed_at is not None and time.monotonic() > self._failed_at + _TOGETHER_S
        if not have_all and not is_late:
            return None
        return self._answers[0] if self._failed_at is None else self._failure()

    def end(self, *, is_idle: bool = False) -> None:
        """End all of them, and leave nothing of them behind; idle ones may end by themselves."""
        for child in self._children:
            child.end(is_idle=is_idle)

    def _failure(self) -> dict[str, Any]:
        """Why they failed: what the first rank says, or who failed alone; not who merely failed with another one."""
        failures = {rank: one for rank, one in self._answers.items() if one["is"] == "failed"}
        causes = [rank for rank, one in failures.items() if not one["follows"]] or list(failures)
        is_shared = len(failures) == len(self._children)
        cause = min(causes) if is_shared else causes[0]
        answer = failures[cause]
        # Memory that was too small for all of them may be so of one: others are begun, with half as many pictures.
        self.is_whole = len(self._children) == 1 or (is_shared and answer["error"] != TrialMemoryError.__name__)
        if not is_shared:
            answer = {**answer, "message": f"{self._named(cause)}: {answer['message']}"}
        return {**answer, "n_measured": self._answers.get(0, {}).get("n_measured", 0)}

    def _named(self, rank: int) -> str:
        n = len(self._children)
        return self.subject if n == 1 else f"rank {rank} of its {n} worker processes"

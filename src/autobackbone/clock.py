"""How much of the budget is left."""

from __future__ import annotations

import time
from dataclasses import dataclass

from autobackbone.records import Budget


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """The time of one run.

    Args:
        budget: of the run.
        begun: `time.monotonic()` of the call.
        used_before_s: seconds that earlier sittings of the same run have used since the run began.
        settled_s: how much of that an earlier, completed budget has paid.
    """

    budget: Budget
    begun: float
    used_before_s: float = 0.0
    settled_s: float = 0.0

    def run_s(self) -> float:
        """Seconds of work since the run began, earlier sittings included."""
        return self.used_before_s + time.monotonic() - self.begun

    @property
    def until(self) -> float | None:
        """`time.monotonic()` at which the budget ends; `None` if it has no limit of time."""
        if self.budget.wall_clock_s is None:
            return None
        return self.begun + self.budget.wall_clock_s - (self.used_before_s - self.settled_s)

    def left_s(self) -> float:
        """Seconds left, not below 0; infinite without a limit of time."""
        return float("inf") if self.until is None else max(0.0, self.until - time.monotonic())

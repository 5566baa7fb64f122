"""Real parts for tests: what stands in for slow things, without mocking them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from autobackbone.errors import TrialError
from autobackbone.records import Candidate, Trial, TrialState

Value = Callable[[Candidate], float]
"""A candidate to its final score, or to its seconds."""


@dataclass(frozen=True, slots=True)
class LookedUp:
    """A training that gives the trial itself.

    Args:
        train: gives the trial, or raises why there is none.
    """

    train: Callable[[], Trial]

    def finished(self, wait: Callable[[], Trial]) -> Trial:
        """Nothing is left to be done."""
        return wait()


@dataclass(frozen=True, slots=True, kw_only=True)
class TableEvaluator:
    """An evaluator that looks scores up: the search is tested in milliseconds.

    Args:
        latency_ms: by backbone.
        n_blocks: by backbone.
        score: of a candidate; `TrialError` from it is a failed trial.
        seconds: that a candidate is expected to take.
        curve: of a candidate, its score after each epoch; `None` where one epoch gives the final score.
        is_higher_better: whether the best epoch of a curve is the highest.
    """

    latency_ms: Mapping[str, float]
    n_blocks: Mapping[str, int]
    score: Value
    seconds: Value = lambda _: 0.0
    curve: Callable[[Candidate], Sequence[float]] | None = None
    is_higher_better: bool = True

    def n_epochs(self, candidate: Candidate) -> int:
        """As long as its curve."""
        return 1 if self.curve is None else len(self.curve(candidate))

    def expected_s(self, candidate: Candidate, *, n_before: int = 0, n_epochs: int | None = None) -> float:
        """As the table says, for its share of the epochs."""
        whole = self.n_epochs(candidate)
        return self.seconds(candidate) * ((n_epochs or whole) - n_before) / whole

    def begin(self, candidate: Candidate) -> Trial:
        """What is known before."""
        n_blocks = candidate.n_blocks_kept or self.n_blocks[candidate.backbone]
        return candidate.begun(n_blocks, latency_ms=self.latency_ms[candidate.backbone])

    def is_priced(self, candidate: Candidate) -> bool:
        """Whether the table has its latency."""
        return candidate.backbone in self.latency_ms

    def ready(
        self, number: int, candidate: Candidate, until: float | None, *, n_before: int = 0, pause_at: int | None = None
    ) -> LookedUp:
        """Whatever `evaluate` does, it does while it trains."""
        return LookedUp(partial(self.evaluate, number, candidate, until, n_before=n_before, pause_at=pause_at))

    def give_up(self) -> None:
        """Nothing: looking up takes no time."""

    def evaluate(
        self,
        number: int,
        candidate: Candidate,
        until: float | None,
        *,
        n_before: int = 0,  # noqa: ARG002  a table needs no start
        pause_at: int | None = None,
    ) -> Trial:
        """Look the score up."""
        if until is not None and self.seconds(candidate) == float("inf"):
            raise TrialError("the table has no such candidate")
        seen = tuple(self._curve(candidate))[:pause_at]
        best = max if self.is_higher_better else min
        state: TrialState = "finished" if pause_at is None else "running"
        known = replace(self.begin(candidate), number=number, state=state, score=best(seen))
        return replace(known, rung_scores=seen, n_epochs=len(seen))

    def _curve(self, candidate: Candidate) -> Sequence[float]:
        return [self.score(candidate)] if self.curve is None else self.curve(candidate)


@dataclass(frozen=True, slots=True)
class SleepingEvaluator:
    """An evaluator whose trainings take the time that they are expected to take, asleep: what a search does beside them
    can be measured.

    Args:
        table: what they find.
    """

    table: TableEvaluator
    _is_given_up: threading.Event = field(default_factory=threading.Event, init=False, repr=False, compare=False)

    def n_epochs(self, candidate: Candidate) -> int:
        """As the table has them."""
        return self.table.n_epochs(candidate)

    def expected_s(self, candidate: Candidate, *, n_before: int = 0, n_epochs: int | None = None) -> float:
        """As the table says."""
        return self.table.expected_s(candidate, n_before=n_before, n_epochs=n_epochs)

    def begin(self, candidate: Candidate) -> Trial:
        """As the table has it."""
        return self.table.begin(candidate)

    def is_priced(self, candidate: Candidate) -> bool:
        """As the table says."""
        return self.table.is_priced(candidate)

    def ready(
        self, number: int, candidate: Candidate, until: float | None, *, n_before: int = 0, pause_at: int | None = None
    ) -> LookedUp:
        """A training that sleeps, until it is given up at most."""
        found = self.table.ready(number, candidate, until, n_before=n_before, pause_at=pause_at)
        asleep_s = self.expected_s(candidate, n_before=n_before, n_epochs=pause_at)

        def train() -> Trial:
            if self._is_given_up.wait(asleep_s):
                raise TrialError("it was given up")
            return found.train()

        return LookedUp(train)

    def give_up(self) -> None:
        """Wake all that sleep."""
        self._is_given_up.set()

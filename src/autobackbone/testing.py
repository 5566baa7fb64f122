"""Real parts for tests: what stands in for slow things, without mocking them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from autobackbone.errors import TrialError
from autobackbone.records import Candidate, Trial

Curve = Callable[[Candidate], float]
"""A candidate to its final score."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableEvaluator:
    """An evaluator that looks scores up: the search is tested in milliseconds.

    Args:
        latency_ms: by backbone.
        n_blocks: by backbone.
        score: of a candidate; `TrialError` from it is a failed trial.
        seconds: that a candidate is expected to take.
    """

    latency_ms: Mapping[str, float]
    n_blocks: Mapping[str, int]
    score: Curve
    seconds: Curve = lambda _: 0.0

    def expected_s(self, candidate: Candidate) -> float:
        """As the table says."""
        return self.seconds(candidate)

    def begin(self, candidate: Candidate) -> Trial:
        """What is known before."""
        return Trial(
            number=0,
            state="running",
            reason="",
            backbone=candidate.backbone,
            image_size=candidate.image_size,
            n_unfrozen=candidate.n_unfrozen,
            n_blocks=self.n_blocks[candidate.backbone],
            lr=candidate.lr,
            score=None,
            latency_ms=self.latency_ms[candidate.backbone],
            extras=dict(candidate.extras),
        )

    def evaluate(self, number: int, candidate: Candidate, until: float | None) -> Trial:
        """Look the score up."""
        from dataclasses import replace

        if until is not None and self.seconds(candidate) == float("inf"):
            raise TrialError("the table has no such candidate")
        return replace(self.begin(candidate), number=number, state="finished", score=self.score(candidate))

"""Seconds that a candidate will take: guessed from its forward pass, corrected by what training took in this run."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

from autobackbone.records import Body, Candidate

EXACT_FACTOR = 1.6
"""Screening rounds where it may; what scores takes up to so much longer."""
SETUP_S = 0.5
"""Building a network and reading its weights, beside its forward passes."""
# A step forward and back costs about three forward passes.
_TRAINING_FACTOR = 3.0
# Building a network, splitting it and timing some steps.
_TRAINING_SETUP_S = 1.5


@dataclass(slots=True, kw_only=True)
class Costs:
    """Learned as the run goes on.

    Args:
        n_train: training pictures.
        n_validation: validation pictures.
        forward_s: seconds of a forward pass over one picture, by body.
        n_blocks: of each body.
    """

    n_train: int
    n_validation: int
    n_blocks: dict[Body, int] = field(default_factory=dict)
    forward_s: dict[Body, float] = field(default_factory=dict)
    _epochs: dict[tuple[Body, int], float] = field(default_factory=dict)
    _ratios: list[float] = field(default_factory=list)
    _stored: set[tuple[Body, int]] = field(default_factory=set)

    def expected_s(self, candidate: Candidate, n_epochs: int, *, is_stored: bool = False) -> float:
        """Seconds of a training of so many epochs, its setup included; infinite for a body that was never run.

        Args:
            candidate: something to try.
            n_epochs: how long it would train.
            is_stored: whether what its frozen part gives is stored already.
        """
        body = candidate.body
        if body not in self.forward_s:
            return float("inf")
        known = (body, candidate.n_unfrozen)
        is_known = known in self._epochs
        epoch_s = self._epochs[known] if is_known else self._guess_epoch_s(candidate) * self._correction()
        # What was trained without a store cannot be stored, and its epochs took all of it; a store may have left since.
        needs_none = is_stored or (is_known and known not in self._stored)
        prefix_s = 0.0 if needs_none else self.forward_s[body] * (self.n_train + self.n_validation)
        return _TRAINING_SETUP_S + prefix_s + n_epochs * epoch_s

    def learn(self, candidate: Candidate, epoch_s: float, *, is_stored: bool = False) -> None:
        """Remember what an epoch really took, and whether on a store of what its frozen part gives."""
        known = (candidate.body, candidate.n_unfrozen)
        self._stored = self._stored | {known} if is_stored else self._stored - {known}
        self._ratios.append(epoch_s / self._guess_epoch_s(candidate))
        self._epochs[candidate.body, candidate.n_unfrozen] = epoch_s

    def _guess_epoch_s(self, candidate: Candidate) -> float:
        tail_share = candidate.n_unfrozen / self.n_blocks[candidate.body]
        forward_s = self.forward_s[candidate.body]
        return forward_s * tail_share * (_TRAINING_FACTOR * self.n_train + self.n_validation)

    def _correction(self) -> float:
        return statistics.median(self._ratios) if self._ratios else 1.0

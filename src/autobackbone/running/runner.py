"""What a search wants of whoever trains its candidates."""

from __future__ import annotations

from typing import Protocol

from torch import nn

from autobackbone.convexhead import Head
from autobackbone.data import DataBundle
from autobackbone.records import Candidate
from autobackbone.training.fit import Outcome
from autobackbone.training.pausing import Leg


class Tunes(Protocol):
    """Trains candidates."""

    def tune(
        self, candidate: Candidate, head: Head, *, until: float | None = None, n_views: int = 1, leg: Leg | None = None
    ) -> tuple[nn.Module, Outcome]:
        """Fine-tune one candidate, as `Tuner.tune` says."""


class Runner(Tunes, Protocol):
    """Trains the candidates of a search: `Tuner` in this process, `WorkerTuner` in another one, `WorkerPool` in more,
    `RayTuner` on the machines of a cluster.

    `tune` may be called from as many threads at once as trainings may run side by side; all else from one thread.
    """

    @property
    def n_at_once(self) -> int:
        """How many trainings may run side by side now, at least 1; where machines come and go, it changes."""

    def n_epochs(self, candidate: Candidate) -> int:
        """The last rung: how long a candidate trains if there is time."""

    def start_s(self) -> float:
        """Seconds before a training can begin now: 0 where nothing has to be started for it."""

    def let_go(self) -> None:
        """Give up what was kept for a training that might go on right away."""

    def give_up(self) -> None:
        """End whatever is being trained in other threads: each of these trainings fails, and none begins any more."""

    def dealt(self, bundle: DataBundle, held: DataBundle) -> Tunes:
        """Who trains on the same pictures in other parts, as `Tuner.dealt` says."""

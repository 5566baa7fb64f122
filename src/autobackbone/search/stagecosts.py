"""What each stage of a run took, over all its sittings, and for what its time was too short."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from autobackbone.progress import Reporter, tell_standing
from autobackbone.records import is_number

if TYPE_CHECKING:
    import optuna

_STAGES = "stages"
_UNTIMELY = "n_untimely"
_FIRST = "prepare"


class StageClock:
    """A reporter that passes on all that it is told, and times the stages; what it knows is kept at the next one.

    Args:
        told: who listens.
        begun: `time.monotonic()` of the call.
    """

    def __init__(self, told: Reporter, begun: float) -> None:
        self._told = told
        self._name, self._since = _FIRST, begun
        self._seconds: dict[str, float] = {}
        self._study: optuna.Study | None = None

    def keep_in(self, study: optuna.Study) -> None:
        """Keep them on a study from now on, beside those of earlier sittings."""
        self._study = study
        before = read_stages(study)
        self._seconds = before | {name: before.get(name, 0.0) + here for name, here in self._seconds.items()}

    def say(self, line: str) -> None:
        """As `Reporter` has it."""
        self._told.say(line)

    def stage(self, name: str) -> None:
        """As `Reporter` has it; the one before has ended."""
        self.end()
        self._name = name
        self._told.stage(name)

    def progress(self, share: float, detail: str) -> None:
        """As `Reporter` has it."""
        self._told.progress(share, detail)

    def standing(self, front: Callable[[], Sequence[str]]) -> None:
        """As `Reporter` may have it."""
        tell_standing(self._told, front)

    def close(self) -> None:
        """As `Reporter` has it."""
        self._told.close()

    def end(self) -> None:
        """The stage has ended."""
        now = time.monotonic()
        self._seconds[self._name] = self._seconds.get(self._name, 0.0) + now - self._since
        self._since = now
        if self._study is not None:
            self._study.set_user_attr(_STAGES, self._seconds)


def read_stages(study: optuna.Study) -> dict[str, float]:
    """Seconds of each stage, in their order; empty of a run from before they were kept, or that says no such thing."""
    noted = study.user_attrs.get(_STAGES)
    if not isinstance(noted, Mapping) or not all(map(_is_seconds, noted.values())):
        return {}
    return {str(name): float(value) for name, value in noted.items()}


def note_untimely(study: optuna.Study, n_pairs: int) -> None:
    """Keep how many pairs of backbone and image size the last sitting did not screen for want of time."""
    study.set_user_attr(_UNTIMELY, n_pairs)


def read_untimely(study: optuna.Study) -> int | None:
    """What `note_untimely` kept; `None` of a run that has not, or not yet."""
    noted = study.user_attrs.get(_UNTIMELY)
    return noted if isinstance(noted, int) and not isinstance(noted, bool) and noted >= 0 else None


def _is_seconds(value: object) -> bool:
    return is_number(value) and 0 <= value < math.inf  # type: ignore[operator]

"""What a run has measured and decided by the clock, line by line, so that another search can take it from there.

A search hangs on what things cost: latencies, seconds of a pass and of an epoch, the way in which a pass is fastest,
the precision of a step. All of it differs a little whenever it is measured. Who takes it from a record decides the
same.
"""

from __future__ import annotations

import json
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from autobackbone.errors import RunError
from autobackbone.records import Latency, is_number

Name = TypeVar("Name", bound=str)
_LOG = logging.getLogger(__name__)
_OF, _IS = "of", "is"
RecordedCosts = Mapping[str, Sequence[Any]]
"""Plain data by what it is of, in the order in which it was measured."""


@dataclass(slots=True, kw_only=True)
class CostRecord:
    """Notes what is measured; where an earlier run is repeated, gives what that has noted instead.

    Args:
        file: one JSON object a line, appended to; `None` keeps nothing.
        repeated: what an earlier run has noted, see `read_costs`; empty to measure everything.
        n_measured: how often nothing had been noted.

    Example:
        >>> CostRecord(repeated={"epoch of a": [2.0, 3.0]}).seconds("epoch of a", lambda: 9.0)
        2.0
    """

    file: Path | None = None
    repeated: RecordedCosts = field(default_factory=dict)
    n_measured: int = 0
    _n_used: Counter[str] = field(default_factory=Counter, init=False, repr=False)

    def __post_init__(self) -> None:
        """A run that goes on has used what its file holds; a line that was cut off by a kill is taken away."""
        if self.file is None or not self.file.is_file():
            return
        text = self.file.read_bytes()
        whole = text[: text.rfind(b"\n") + 1]
        if len(whole) < len(text):
            self.file.write_bytes(whole)
        self._n_used.update({of: len(values) for of, values in read_costs(self.file).items()})

    def recalled(self, of: str) -> Any:
        """What was noted next of something, the last one where no more was; `None` where nothing was."""
        noted = self.repeated.get(of)
        if not noted:
            self.n_measured += 1
            return None
        return noted[min(self._n_used[of], len(noted) - 1)]

    def note(self, of: str, value: Any) -> None:
        """Keep what was measured, or recalled."""
        self._n_used[of] += 1
        if self.file is None:
            return
        try:
            with self.file.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps({_OF: of, _IS: value}) + "\n")
        except OSError as error:  # no search ends for want of a note
            _LOG.warning("what things cost is recorded no more in %s: %s", self.file, error)
            self.file = None

    def seconds(self, of: str, measure: Callable[[], float]) -> float:
        """Seconds: what was noted, else what is measured."""
        recalled = self.recalled(of)
        if recalled is not None and not is_number(recalled):
            raise _damaged(of, "a number", recalled)
        value = float(measure() if recalled is None else recalled)
        self.note(of, value)
        return value

    def one_of(self, of: str, choices: Sequence[Name], choose: Callable[[], Name]) -> Name:
        """A choice: the one that was noted, else the one that is made."""
        recalled = self.recalled(of)
        if recalled is not None and recalled not in choices:
            raise _damaged(of, f"one of {', '.join(choices)}", recalled)
        value: Name = choose() if recalled is None else recalled
        self.note(of, value)
        return value

    def latencies(self, of: str, measure: Callable[[], Sequence[Latency]]) -> list[Latency]:
        """Latencies, those of several networks in their order: what was noted, else what is measured."""
        recalled = self.recalled(of)
        if recalled is not None and not (isinstance(recalled, list) and all(map(_is_latency, recalled))):
            raise _damaged(of, "a list of latencies", recalled)
        found = list(measure()) if recalled is None else [Latency(**one) for one in recalled]
        self.note(of, [asdict(one) for one in found])
        return found


@dataclass(frozen=True, slots=True)
class CostEntry:
    """One line of a record, for who knows what it means."""

    record: CostRecord
    of: str

    def recalled(self) -> Any:
        """As `CostRecord.recalled` does."""
        return self.record.recalled(self.of)

    def note(self, value: Any) -> None:
        """As `CostRecord.note` does."""
        self.record.note(self.of, value)


def read_costs(file: Path) -> dict[str, list[Any]]:
    """What a run has noted, by what it is of.

    Raises:
        RunError: a line is none of ours.
    """
    found: dict[str, list[Any]] = defaultdict(list)
    try:
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(keepends=True), 1):
            if not line.endswith("\n"):  # cut off by a kill
                break
            noted = json.loads(line)
            if not isinstance(noted, dict) or set(noted) != {_OF, _IS} or not isinstance(noted[_OF], str):
                raise RunError(f"{str(file)!r} is damaged: line {number} is no cost. Remove it, or give another run.")
            found[noted[_OF]].append(noted[_IS])
    except (OSError, ValueError) as error:
        raise RunError(f"{str(file)!r} cannot be read: {error}. Give another run.") from error
    return dict(found)


def _is_latency(value: Any) -> bool:
    names = {one.name for one in fields(Latency)}
    return isinstance(value, dict) and set(value) == names and all(map(is_number, value.values()))


def _damaged(of: str, wanted: str, came: Any) -> RunError:
    return RunError(f"the recorded costs are damaged: {of} should be {wanted}, and {came!r} came. Give another run.")

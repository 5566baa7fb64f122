"""What a run has measured and decided by the clock, line by line, so that another search can take it from there.

A search hangs on what things cost: latencies, seconds of a pass and of an epoch, the way in which a pass is fastest,
the precision of a step. All of it differs a little whenever it is measured. Who takes it from a record decides the
same.
"""

from __future__ import annotations

import json
import logging
import math
import os
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from autobackbone.errors import RunError
from autobackbone.records import Latency, is_number

_LOG = logging.getLogger(__name__)
_Name = TypeVar("_Name", bound=str)
_OF, _IS = "of", "is"
# Bytes of a line: latencies of a hundred networks take 15,000.
_LONGEST = 1_000_000
# No pass or epoch takes less, or a year, and sums of what does neither end at infinity.
_LEAST_S = 1e-9
_MOST_S = 3e7
# Pictures a second.
_HIGHEST_SPEED = 1e9
SITTING = "sitting"
"""What a sitting notes first: its budget."""
SIDE_BY_SIDE = "side by side"
"""What a sitting notes where several trainings ran at once: how many might, when it began."""
RecordedCosts = Mapping[str, Sequence[Any]]
"""Plain data by what it is of, in the order in which it was measured."""


@dataclass(slots=True, kw_only=True)
class CostRecord:
    """Notes what is measured; where an earlier run is repeated, gives what that has noted instead.

    Threads may share it.

    Args:
        file: one JSON object a line, appended to; `None` keeps nothing.
        repeated: what an earlier run has noted, see `read_costs`; empty to measure everything.
        source: the folder of that run, for messages.
        n_measured: how often nothing had been noted.

    Example:
        >>> CostRecord(repeated={"epoch of a": [2.0, 3.0]}).seconds("epoch of a", lambda: 9.0)
        2.0
    """

    file: Path | None = None
    repeated: RecordedCosts = field(default_factory=dict)
    source: Path | None = None
    n_measured: int = 0
    _n_used: Counter[str] = field(default_factory=Counter, init=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """A run that goes on has used what its file holds; a line that a kill has cut off is taken away."""
        if self.file is None or not self.file.is_file():
            return
        n_whole = 0
        try:
            for noted, n_bytes in _lines(self.file):
                n_whole += n_bytes
                # Damaged lines of its own end no run: they are only to be repeated by others.
                self._n_used.update([noted[0]] if noted else [])
            os.truncate(self.file, n_whole)
        except OSError as error:
            self._give_up(error)

    def recalled(self, of: str) -> Any:
        """What was noted next of something, the last one where no more was; `None` where nothing was."""
        noted = self.repeated.get(of)
        if not noted:
            self.add_measured(1)
            return None
        return noted[min(self._n_used[of], len(noted) - 1)]

    def add_measured(self, n: int) -> None:
        """Count what had not been noted, here or by a record in another process."""
        with self._lock:
            self.n_measured += n

    def note(self, of: str, value: Any) -> None:
        """Keep what was measured, or recalled."""
        with self._lock:
            self._n_used[of] += 1
            if self.file is None:
                return
            try:
                with self.file.open("a", encoding="utf-8") as lines:
                    lines.write(json.dumps({_OF: of, _IS: value}, allow_nan=False) + "\n")
            except OSError as error:  # no search ends for want of a note
                self._give_up(error)

    def ahead(self) -> RecordedCosts:
        """What would be recalled from now on, for a record in another process."""
        known = {of: noted for of, noted in self.repeated.items() if noted}
        return {of: noted[min(self._n_used[of], len(noted) - 1) :] for of, noted in known.items()}

    def take_over(self, file: Path) -> None:
        """Note what a record in another process has noted in its file, if that is there."""
        if file.is_file():
            for of, values in read_costs(file).items():
                for value in values:
                    self.note(of, value)

    def seconds(self, of: str, measure: Callable[[], float]) -> float:
        """Seconds: what was noted, else what is measured."""
        recalled = self.recalled(of)
        if recalled is not None and not _is_between(recalled, _LEAST_S, _MOST_S):
            raise self.damaged(of, "seconds", recalled)
        value = float(measure() if recalled is None else recalled)
        self.note(of, value)
        return value

    def one_of(self, of: str, choices: Sequence[_Name], choose: Callable[[], _Name]) -> _Name:
        """A choice: the one that was noted, else the one that is made."""
        recalled = self.recalled(of)
        if recalled is not None and recalled not in choices:
            raise self.damaged(of, f"one of {', '.join(choices)}", recalled)
        value: _Name = choose() if recalled is None else recalled
        self.note(of, value)
        return value

    def latencies(self, of: str, n: int, measure: Callable[[], Sequence[Latency]]) -> list[Latency]:
        """Latencies of so many networks, in their order: what was noted, else what is measured."""
        recalled = self.recalled(of)
        is_list = isinstance(recalled, list) and len(recalled) == n and all(map(_is_latency, recalled))
        if recalled is not None and not is_list:
            raise self.damaged(of, f"a list of {n} latencies" if n > 1 else "a list of one latency", recalled)
        found = list(measure()) if recalled is None else [_latency(one) for one in recalled]
        self.note(of, [_plain(one) for one in found])
        return found

    def damaged(self, of: str, wanted: str, came: Any) -> RunError:
        """The error for a recorded value that cannot be used."""
        where = "" if self.source is None else f" of {str(self.source)!r}"
        return RunError(
            f"the recorded costs{where} are damaged: {of} should be {wanted}, and {came!r} came. Give another run, or "
            "none to measure."
        )

    def _give_up(self, error: OSError) -> None:
        _LOG.warning("what things cost is recorded no more in %s: %s", self.file, error)
        self.file = None


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

    def damaged(self, wanted: str, came: Any) -> RunError:
        """As `CostRecord.damaged` does."""
        return self.record.damaged(self.of, wanted, came)


def read_costs(file: Path) -> dict[str, list[Any]]:
    """What a run has noted, by what it is of.

    Raises:
        RunError: the file cannot be read, or a line is none of ours.
    """
    found: dict[str, list[Any]] = defaultdict(list)
    try:
        for number, (noted, _) in enumerate(_lines(file), 1):
            if noted is None:
                raise RunError(f"{str(file)!r} is damaged: line {number} is no cost. Give another run.")
            found[noted[0]].append(noted[1])
    except OSError as error:
        raise RunError(f"{str(file)!r} cannot be read: {error}. Give another run.") from error
    return dict(found)


def is_one_untimed_sitting(costs: RecordedCosts) -> bool:
    """Whether all of it was noted by one sitting that no clock ended, one training after the other: only such a search
    comes out the same again.
    """
    sittings = costs.get(SITTING, ())
    if costs.get(SIDE_BY_SIDE):
        return False
    return len(sittings) == 1 and isinstance(sittings[0], dict) and sittings[0].get("wall_clock_s", 0.0) is None


def _lines(file: Path) -> Iterator[tuple[tuple[str, Any] | None, int]]:
    """What each whole line holds, `None` for one that is no cost, and its bytes. A last one without an end was cut off
    by a kill.
    """
    with file.open("rb") as lines:
        # No more of a line is read than one of ours can have: one from elsewhere may fill the memory.
        for line in iter(lambda: lines.readline(_LONGEST + 1), b""):
            if len(line) <= _LONGEST and not line.endswith(b"\n"):
                return
            try:
                noted = json.loads(line) if len(line) <= _LONGEST else None
            except (ValueError, RecursionError):
                noted = None
            if isinstance(noted, dict) and set(noted) == {_OF, _IS} and isinstance(noted[_OF], str):
                yield (noted[_OF], noted[_IS]), len(line)
            else:
                yield None, len(line)


def _plain(latency: Latency) -> dict[str, float | None]:
    """JSON knows no NaN, which stands where a batch of 32 does not fit."""
    return {name: value if math.isfinite(value) else None for name, value in asdict(latency).items()}


def _latency(noted: Mapping[str, Any]) -> Latency:
    values: dict[str, Any] = {name: math.nan if value is None else value for name, value in noted.items()}
    return Latency(**values)


def _is_latency(value: Any) -> bool:
    if not isinstance(value, dict) or set(value) != {one.name for one in fields(Latency)}:
        return False
    least_ms, most_ms = 1e3 * _LEAST_S, 1e3 * _MOST_S
    speed, n = value["images_per_s"], value["n_repeats"]
    return (
        all(_is_between(value[name], least_ms, most_ms) for name in ("p50_ms", "p95_ms"))
        and _is_between(value["noise_ms"], 0, most_ms)
        # Alone among them it may not be known: where a batch of 32 does not fit, and side by side.
        and (speed is None or _is_between(speed, 1 / _MOST_S, _HIGHEST_SPEED))
        and isinstance(n, int)
        and _is_between(n, 1, _HIGHEST_SPEED * _MOST_S)
    )


def _is_between(value: Any, least: float, most: float) -> bool:
    return is_number(value) and least <= value <= most

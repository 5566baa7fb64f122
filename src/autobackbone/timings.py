"""Latencies that were measured elsewhere, as a table of comma-separated values."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from glob import has_magic
from os import PathLike
from pathlib import Path
from typing import Any

from autobackbone.errors import TargetError

_NEEDED = ("backbone", "height", "width", "latency_ms")
_CUT, _P95, _NOISE = "n_blocks_kept", "latency_p95_ms", "latency_noise_ms"
COLUMNS = ("file", "backbone", "height", "width", _CUT, "latency_ms", _P95, _NOISE)
"""Of a table that is to be filled in; more of them are passed over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """What one network took elsewhere.

    Args:
        backbone: its full name.
        image_size: height and width in pixels.
        n_blocks_kept: of how many first blocks alone; `None` of all.
        latency_ms: median milliseconds of one forward pass, above 0.
        latency_p95_ms: the 95th percentile of the same; `None` where that is not known.
        latency_noise_ms: half-width within which two medians cannot be told apart; `None` where that is not known.
    """

    backbone: str
    image_size: tuple[int, int]
    n_blocks_kept: int | None = None
    latency_ms: float
    latency_p95_ms: float | None = None
    latency_noise_ms: float | None = None


def read_timings(path: str | Path) -> tuple[Timing, ...]:
    """Read a table of latencies. Rows whose latency was left empty are passed over.

    Args:
        path: a CSV file with the columns `backbone`, `height`, `width` and `latency_ms`, and perhaps `n_blocks_kept`,
            `latency_p95_ms` and `latency_noise_ms`; empty cells of these say nothing.

    Raises:
        TargetError: it cannot be read, lacks a column or has it twice, has a cell too many or one that is no such
            number; or no row has a latency.
    """
    names, rows = _read_table(path)
    missing = [name for name in _NEEDED if name not in names]
    if missing:
        hint = " Let commas separate its cells, not semicolons." if any(";" in name for name in names) else ""
        raise TargetError(
            f"{str(path)!r} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}: a table of latencies has "
            f"{', '.join(_NEEDED)}, and perhaps {_CUT}, {_P95}, {_NOISE}. "
            + (f"It has {', '.join(names)}.{hint}" if names else "It is empty.")
        )
    twice = [name for name in (*_NEEDED, _CUT, _P95, _NOISE) if names.count(name) > 1]
    if twice:
        raise TargetError(f"{str(path)!r} has several columns called {', '.join(twice)}. Leave one of them.")
    found = [
        _timing(row, f"{str(path)!r}, row {number}")
        for number, row in enumerate(rows, start=2)
        if _cell(row, "latency_ms")
    ]
    if not rows:
        raise TargetError(f"{str(path)!r} has a header and no row. Give it one for each network that was timed.")
    if not found:
        raise TargetError(f"no row of {str(path)!r} has a latency_ms. Fill in at least one.")
    return _distinct(found, str(path))


def _read_table(path: str | Path) -> tuple[list[str], list[dict[str, str | None]]]:
    """The names of its columns, and its rows by them."""
    if not isinstance(path, (str, PathLike)):
        raise TargetError(f"a table of latencies is the path of a CSV file, not {path!r}.")
    wanted = f"{str(path)!r} is to be a CSV file of latencies, and cannot be read"
    try:
        with Path(path).expanduser().open(encoding="utf-8-sig", newline="") as file:
            # Strictly: else a quote that nobody closes takes all rows behind it into one cell.
            reader = csv.DictReader(file, skipinitialspace=True, strict=True)
            names = [str(name).strip() for name in reader.fieldnames or ()]
            reader.fieldnames = names
            rows = list(reader)
    except csv.Error as error:
        raise TargetError(
            f"{wanted}: {error}. It looks as if a quote were opened and not closed; in a cell, two stand for one."
        ) from error
    except (OSError, ValueError, RuntimeError) as error:
        raise TargetError(f"{wanted}: {error}.") from error
    for number, row in enumerate(rows, start=2):
        beyond: Any = row.pop(None, ())  # where csv puts cells that have no column
        if any(cell.strip() for cell in beyond):
            raise TargetError(
                f"{str(path)!r}, row {number} has more cells than there are columns: {', '.join(beyond)} came behind "
                "them. Write numbers with a point."
            )
    return names, rows


def as_timings(given: object) -> tuple[Timing, ...] | None:
    """Timings, themselves or as JSON has them.

    Raises:
        TargetError: they are none.
    """
    if given is None:
        return None
    if not isinstance(given, Sequence) or isinstance(given, str) or not given:
        raise TargetError(f"target.timings are those of a table, as Target.from_csv reads it, not {given!r}.")
    return tuple(one if isinstance(one, Timing) else _from_json(one) for one in given)


def _from_json(given: object) -> Timing:
    wanted = "target.timings are those of a table, as Target.from_csv reads it"
    if not isinstance(given, Mapping):
        raise TargetError(f"{wanted}: {given!r} came.")
    try:
        height, width = given["image_size"]
        numbers = {name: given.get(name) for name in ("latency_ms", _P95, _NOISE)}
        row = {name: "" if value is None else str(value) for name, value in numbers.items()}
        kept = given.get(_CUT)
        row |= {"backbone": str(given["backbone"]), "height": str(height), "width": str(width)}
        return _timing(row | {_CUT: "" if kept is None else str(kept)}, "target.timings")
    except TargetError:
        raise
    except (LookupError, TypeError, ValueError) as error:
        raise TargetError(f"{wanted}: {given!r} came.") from error


def _distinct(found: Sequence[Timing], path: str) -> tuple[Timing, ...]:
    seen = set()
    for one in found:
        key = (one.backbone, one.image_size, one.n_blocks_kept)
        if key in seen:
            cut = "" if one.n_blocks_kept is None else f", first {one.n_blocks_kept} blocks"
            raise TargetError(
                f"{path!r} has several rows of {one.backbone} at {one.image_size[0]}x{one.image_size[1]} px{cut}. "
                "Leave one of them."
            )
        seen.add(key)
    return tuple(found)


def _timing(row: Mapping[str, str | None], where: str) -> Timing:
    kept = _cell(row, _CUT)
    optional = {name: _number(row, name, where) if _cell(row, name) else None for name in (_P95, _NOISE)}
    backbone = _cell(row, "backbone")
    if not backbone:
        raise TargetError(f"{where}: backbone is the full name of a network, and the cell is empty.")
    if has_magic(backbone):
        raise TargetError(f"{where}: backbone is the full name of one network, and {backbone!r} is a glob of several.")
    return Timing(
        backbone=backbone,
        image_size=(_whole(row, "height", where), _whole(row, "width", where)),
        n_blocks_kept=_whole(row, _CUT, where) if kept else None,
        latency_ms=_number(row, "latency_ms", where),
        latency_p95_ms=optional[_P95],
        latency_noise_ms=optional[_NOISE],
    )


def _cell(row: Mapping[str, str | None], name: str) -> str:
    return (row.get(name) or "").strip()


def _number(row: Mapping[str, str | None], name: str, where: str) -> float:
    value = _read(_cell(row, name))
    if not 0 < value < math.inf:
        raise TargetError(f"{where}: {name} is a number above 0, in milliseconds, not {_cell(row, name)!r}.")
    return value


def _whole(row: Mapping[str, str | None], name: str, where: str) -> int:
    value = _read(_cell(row, name))
    # A table that went through a spreadsheet, or a frame with empty cells, has 4.0 for 4.
    if not 1 <= value < math.inf or value != int(value):
        raise TargetError(f"{where}: {name} is a whole number of at least 1, not {_cell(row, name)!r}.")
    return int(value)


def _read(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan

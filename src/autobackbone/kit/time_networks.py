"""Times the networks beside it with ONNX Runtime, and fills in latencies.csv.

python time_networks.py --threads 4 --batch-size 1 --provider CPUExecutionProvider

Needs Python 3.8 or newer, numpy and onnxruntime, and nothing else. A row that has a latency is passed over, so that
it goes on where it was stopped; empty its latency_ms to time it anew. Any other program may fill in the table as well:
median milliseconds of one forward pass of each file, whose input has the shape (batch, 3, height, width).
"""

import argparse
import csv
import math
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Dict, List, Tuple

HERE = Path(__file__).resolve().parent
TABLE = HERE / "latencies.csv"
NEEDED = ("file", "height", "width")
FILLED = ("latency_ms", "latency_p95_ms", "latency_noise_ms")
SECONDS, FEWEST = 2.0, 5
# Intervals of this width around two medians touch when the medians differ by less than can be told at the 5 % level.
Z = 1.39


class Refused(Exception):  # noqa: N818  it is told, and ends the program
    """Why nothing can be timed."""


def timed(file: Path, shape: Tuple[int, ...], provider: str, threads: int, seconds: float) -> List[float]:
    """Milliseconds of passes in ascending order, after a quarter of the time to warm up."""
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(file), options, providers=[provider])
    # What cannot be started is replaced by the CPU, without an error.
    if provider not in session.get_providers():
        raise Refused(f"{provider} cannot be started here: onnxruntime took {', '.join(session.get_providers())}")
    given = {session.get_inputs()[0].name: np.random.default_rng(0).random(shape, dtype=np.float32)}
    began = time.perf_counter()
    session.run(None, given)
    while time.perf_counter() - began < seconds / 4:
        session.run(None, given)
    passes: List[float] = []
    while len(passes) < FEWEST or time.perf_counter() - began < seconds:
        start = time.perf_counter()
        session.run(None, given)
        passes.append(1000 * (time.perf_counter() - start))
    return sorted(passes)


def filled(row: Dict[str, str], passes: List[float]) -> Dict[str, str]:
    """The row with median, 95th percentile and half the width of the median's interval, from order statistics."""
    n = len(passes)
    reach = Z * math.sqrt(n) / 2
    low, high = max(math.floor(n / 2 - reach), 0), min(math.ceil(n / 2 + reach), n - 1)
    median = statistics.median(passes)
    return {
        **row,
        "latency_ms": f"{median:.4f}",
        "latency_p95_ms": f"{passes[min(n - 1, math.ceil(0.95 * n) - 1)]:.4f}",
        # Medians of one network, minutes apart, differ by two per cent where nothing disturbs them.
        "latency_noise_ms": f"{max((passes[high] - passes[low]) / 2, 0.02 * median):.4f}",
    }


def read() -> Tuple[List[str], List[Dict[str, str]]]:
    """The columns and rows of the table, with all that is to be filled in."""
    try:
        with TABLE.open(newline="", encoding="utf-8-sig") as file:
            # Strictly: else a quote that nobody closes swallows all rows behind it.
            lines = [line for line in csv.reader(file, skipinitialspace=True, strict=True) if line]
    except (OSError, ValueError, csv.Error) as error:
        raise Refused(f"the table of the networks, {TABLE}, cannot be read: {error}") from error
    names = [name.strip() for name in (lines[0] if lines else [])]
    missing = [name for name in NEEDED if name not in names]
    if missing:
        hint = "; its cells are to have commas between, not semicolons" if any(";" in name for name in names) else ""
        raise Refused(f"{TABLE.name} lacks the columns {', '.join(missing)}{hint}")
    if len(set(names)) < len(names):
        raise Refused(f"{TABLE.name} has several columns of one name: {', '.join(names)}")
    rows = []
    for number, line in enumerate(lines[1:], start=2):
        if any(cell.strip() for cell in line[len(names) :]):
            raise Refused(f"row {number} of {TABLE.name} has more cells than its header: {', '.join(line)}")
        cells = [cell.strip() for cell in line] + [""] * len(names)
        rows.append({**dict.fromkeys(FILLED, ""), **dict(zip(names, cells))})  # noqa: B905  since Python 3.10
    return names + [name for name in FILLED if name not in names], rows


def write(names: List[str], rows: List[Dict[str, str]]) -> None:
    """Replace the table as a whole, so that no half of it is ever there."""
    beside = TABLE.with_name("latencies.csv.part")
    try:
        with beside.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(rows)
        os.replace(str(beside), str(TABLE))  # noqa: PTH105  as on any system
    except OSError as error:
        raise Refused(f"{TABLE} cannot be written: {error}") from error


def whole(row: Dict[str, str], name: str) -> int:
    """A number of pixels; a spreadsheet may have made 32.0 of 32."""
    try:
        value = float(row[name])
        if value >= 1 and value == int(value):
            return int(value)
    except (ValueError, OverflowError):
        pass
    raise ValueError(f"{name} is a whole number of at least 1, not {row[name]!r}")


def median_of(row: Dict[str, str], given: argparse.Namespace) -> Tuple[Dict[str, str], int]:
    """The row, filled in, and of how many passes."""
    shape = (given.batch_size, 3, whole(row, "height"), whole(row, "width"))
    file = HERE / row["file"]
    if not file.is_file():
        raise FileNotFoundError(f"there is no such file in {HERE}")
    passes = timed(file, shape, given.provider, given.threads, given.seconds)
    return filled(row, passes), len(passes)


def require_provider(provider: str) -> None:
    """Make sure that onnxruntime knows it: in place of one that it does not know it takes the CPU."""
    try:
        import numpy as np  # noqa: F401
        import onnxruntime
    except ImportError as error:
        raise Refused(f"{error}: pip install numpy onnxruntime") from error
    there = onnxruntime.get_available_providers()
    if provider not in there:
        raise Refused(f"the onnxruntime that is installed has no {provider}; it has {', '.join(there)}")


def fill_in(given: argparse.Namespace) -> bool:
    """Time each row without a latency, and save it when that is done. Returns whether none is left."""
    names, rows = read()
    waiting = [place for place, row in enumerate(rows) if any(row.values()) and not row["latency_ms"]]
    n_failed, n_had = 0, sum(bool(row["latency_ms"]) for row in rows)
    if waiting:
        require_provider(given.provider)
        write(names, rows)  # where it cannot be, that is told before hours of timing
    for place in waiting:
        try:
            rows[place], n_passes = median_of(rows[place], given)
        except Refused:
            raise
        except Exception as error:  # noqa: BLE001  whatever a runtime raises: the other rows can be timed
            n_failed += 1
            print(f"row {place + 2}, {rows[place]['file'] or 'without a file'}: left out: {error}", file=sys.stderr)
            continue
        write(names, rows)
        print(f"{rows[place]['file']}: {rows[place]['latency_ms']} ms, {n_passes} passes", flush=True)
    if n_had:
        print(
            f"rows that had a latency, and were passed over, whatever the arguments are now: {n_had}. "
            "Empty their latency_ms to time them anew."
        )
    if n_failed:
        print(f"rows of {TABLE} that still have no latency: {n_failed}", file=sys.stderr)
    elif not rows:
        raise Refused(f"{TABLE} has a header and no rows")
    else:
        print(f"{TABLE} is filled in")
    return not n_failed


def from_0(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"a whole number from 0 is wanted, not {text}")
    return value


def from_1(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"a whole number from 1 is wanted, not {text}")
    return value


def time_given(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"a number above 0 is wanted, not {text}")
    return value


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the networks beside this file, and fill in latencies.csv.")
    parser.add_argument("--threads", type=from_0, default=0, help="of one pass; 0 for all cores")
    parser.add_argument("--batch-size", type=from_1, default=1, help="pictures in one pass")
    parser.add_argument(
        "--provider", default="CPUExecutionProvider", help="of ONNX Runtime, such as XnnpackExecutionProvider"
    )
    parser.add_argument("--seconds", type=time_given, default=SECONDS, help="for each network")
    try:
        is_whole = fill_in(parser.parse_args())
    except Refused as refused:
        sys.exit(f"error: {refused}")
    sys.exit(not is_whole)


if __name__ == "__main__":
    main()

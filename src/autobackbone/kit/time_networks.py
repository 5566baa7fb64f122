"""Times the networks beside it with ONNX Runtime, and fills in latencies.csv.

python time_networks.py --threads 4 --batch-size 1 --provider CPUExecutionProvider

Needs Python 3.8 or newer, numpy and onnxruntime, and nothing else. A row that has a latency is passed over, so that
it goes on where it was stopped. Any other program may fill in the table as well: median milliseconds of one forward
pass of each file, whose input has the shape (batch, 3, height, width).
"""

import argparse
import csv
import math
import os
import statistics
import time
from pathlib import Path
from typing import Dict, List, Tuple

HERE = Path(__file__).resolve().parent
TABLE = HERE / "latencies.csv"
SECONDS, FEWEST = 2.0, 5
# Intervals of this width around two medians touch when the medians differ by less than can be told at the 5 % level.
Z = 1.39


def timed(file: Path, shape: Tuple[int, ...], provider: str, threads: int, seconds: float) -> List[float]:
    """Milliseconds of passes in ascending order, after a quarter of the time to warm up."""
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(file), options, providers=[provider])
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


def write(names: List[str], rows: List[Dict[str, str]]) -> None:
    """Replace the table as a whole, so that no half of it is ever there."""
    beside = TABLE.with_name("latencies.csv.part")
    with beside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)
    os.replace(str(beside), str(TABLE))  # noqa: PTH105  as on any system


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the networks beside this file, and fill in latencies.csv.")
    parser.add_argument("--threads", type=int, default=0, help="of one pass; 0 for all cores")
    parser.add_argument("--batch-size", type=int, default=1, help="pictures in one pass")
    parser.add_argument(
        "--provider", default="CPUExecutionProvider", help="of ONNX Runtime, such as XnnpackExecutionProvider"
    )
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for each network")
    given = parser.parse_args()
    with TABLE.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        names, rows = list(reader.fieldnames or ()), list(reader)
    for number, row in enumerate(rows):
        if row["latency_ms"].strip():
            continue
        shape = (given.batch_size, 3, int(row["height"]), int(row["width"]))
        passes = timed(HERE / row["file"], shape, given.provider, given.threads, given.seconds)
        rows[number] = filled(row, passes)
        write(names, rows)
        print(f"{row['file']}: {rows[number]['latency_ms']} ms, {len(passes)} passes", flush=True)
    print(f"{TABLE} is filled in")


if __name__ == "__main__":
    main()

"""What each runtime makes of the same networks: latency, and what preparing them takes.

python benchmarks/runtimes.py    # needs the extras onnx and openvino, and a C++ compiler
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import get_args

import timm
from reporting import machine, write_report

from autobackbone import Target
from autobackbone.errors import TargetError
from autobackbone.latency.forward import forward_of, preparing_s
from autobackbone.latency.measure import measure
from autobackbone.latency.target import resolve
from autobackbone.records import Runtime

BACKBONES = (
    "tf_efficientnet_lite0",
    "mobilenetv3_large_100",
    "resnet18",
    "resnet50",
    "inception_v3",
    "vit_tiny_patch16_224",
)
SIDE = 224
RUNTIMES: tuple[Runtime, ...] = get_args(Runtime)
OPENING = f"""
Networks of random weights at {SIDE} px, one picture a pass. In brackets the seconds that exporting or compiling took,
which a search pays for each network that it times.
"""


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    asked = parser.parse_args()
    facts = [of(name, asked.threads) for name in BACKBONES]
    rows = [f"| {one['backbone']} | {' | '.join(told(one, runtime) for runtime in RUNTIMES)} |" for one in facts]
    text = "\n".join(
        (
            OPENING,
            machine(asked.threads),
            "",
            f"| network, ms a pass | {' | '.join(RUNTIMES)} |",
            "|---" * (1 + len(RUNTIMES)) + "|",
            *rows,
            "",
        )
    )
    print(text)
    write_report(asked.out, "runtimes", text, facts)


def of(name: str, n_threads: int) -> dict[str, object]:
    """Milliseconds and seconds of one network in each runtime; `None` where a runtime cannot run it."""
    network = timm.create_model(name, num_classes=10).eval()
    found: dict[str, object] = {"backbone": name}
    for runtime in RUNTIMES:
        target = resolve(Target(device="cpu", runtime=runtime, n_threads=n_threads))
        began = time.perf_counter()
        try:
            forward_of(network, (SIDE, SIDE), target).on_batch(1)()
            prepared_s = time.perf_counter() - began if preparing_s(target) else 0.0
            found[runtime] = {"ms": measure(network, (SIDE, SIDE), target, seconds=3).p50_ms, "prepared_s": prepared_s}
        except TargetError as error:
            print(f"{name}: {error}")
            found[runtime] = None
        print(name, runtime, found[runtime], flush=True)
    return found


def told(one: dict[str, object], runtime: Runtime) -> str:
    """A cell."""
    figures = one[runtime]
    if not isinstance(figures, dict):
        return "–"
    prepared = f" ({figures['prepared_s']:.0f} s)" if figures["prepared_s"] else ""
    return f"{figures['ms']:.1f}{prepared}"


if __name__ == "__main__":
    main()

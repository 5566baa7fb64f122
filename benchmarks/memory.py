"""Does memory grow with the number of pictures? Screening and a training over few and over many synthetic ones.

Each measurement is a process of its own: its peak of anonymous memory (RssAnon of /proc, so Linux only) while it
screens a network and trains its last blocks. Mapped pages are the page cache's and do not count. Usage:

    python benchmarks/memory.py --counts 5000 50000
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.lib.format import open_memmap
from reporting import machine, write_report

from autobackbone.backbones.source import BackboneSource
from autobackbone.backbones.weights import find_weights
from autobackbone.data import decode, survey
from autobackbone.records import Body, Candidate
from autobackbone.screening import screen
from autobackbone.training.activations import ActivationCache
from autobackbone.training.stores import Stores
from autobackbone.training.tuner import Tuner

BACKBONE = "tf_efficientnet_lite0.in1k"
SIZE = (160, 160)
CPU = torch.device("cpu")
N_CLASSES = 10
WANTED_MB = 200


def main() -> None:
    """Measure each count in its own process, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counts", type=int, nargs="+", default=[5000, 50_000])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    parser.add_argument("--one", type=int, help="measure this count alone and print its peaks")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    if asked.one is not None:
        print(*_peaks(asked.one))
        return
    peaks = {n: _in_a_process(n, asked.threads) for n in asked.counts}
    few, many = min(peaks), max(peaks)
    grown = [peaks[many][stage] - peaks[few][stage] for stage in range(2)]
    features_mb = (many - few) * 1280 * 4 / 1e6
    rows = [f"| {n:,} | {screening:,.0f} | {training:,.0f} |" for n, (screening, training) in sorted(peaks.items())]
    text = "\n".join(
        (
            machine(asked.threads),
            "",
            f"Synthetic pictures of {SIZE[0]} px, {BACKBONE}, two of eight blocks, one epoch; peaks of anonymous "
            "memory, MB.",
            "",
            "| pictures | screening | training |",
            "|---|---|---|",
            *rows,
            "",
            f"Training grew by {grown[1]:,.0f} MB (wanted: less than {WANTED_MB}); screening by {grown[0]:,.0f} MB, "
            f"where the feature matrix grows by {features_mb:,.0f} MB (wanted: no more than that).",
            "",
        )
    )
    print(text)
    write_report(asked.out, "memory", text, [{"pictures": n, "peaks_mb": of} for n, of in peaks.items()])


def _in_a_process(n_pictures: int, n_threads: int) -> tuple[float, float]:
    command = [sys.executable, __file__, "--one", str(n_pictures), "--threads", str(n_threads)]
    ended = subprocess.run(command, capture_output=True, check=True, text=True)
    screening, training = ended.stdout.split()[-2:]
    return float(screening), float(training)


def _peaks(n_pictures: int) -> tuple[float, float]:
    """Peaks of screening and of training, MB."""
    with tempfile.TemporaryDirectory() as folder:
        pictures, labels = _pictures(Path(folder) / "pictures.npy", n_pictures)
        bundle = decode(survey((pictures, labels)), [SIZE], cache_dir=Path(folder) / "data")
        source = BackboneSource({BACKBONE: find_weights(BACKBONE)}, n_classes=N_CLASSES, seed=0)
        cache = ActivationCache(folder=Path(folder) / "activations", max_bytes=10**12)
        stores = Stores(bundle=bundle, source=source, cache=cache, device=CPU, seed=0)
        with _Watch() as screening:
            network = source.network(BACKBONE, SIZE)
            with stores.filling(network, Body(BACKBONE, SIZE), [2]) as taps:
                normalisation = source.normalisation(BACKBONE)
                screened = screen(network, bundle, SIZE, normalisation, seed=0, device=CPU, taps=taps)
        assert screened is not None
        del network
        tuner = Tuner(stores=stores, score=lambda probabilities: float(probabilities.max()))
        candidate = Candidate(backbone=BACKBONE, image_size=SIZE, n_unfrozen=2, lr=1e-4, extras={"n_epochs": 1})
        with _Watch() as training:
            tuner.tune(candidate, screened.head)
        return screening.peak_mb, training.peak_mb


def _pictures(file: Path, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise around a colour of each class, in a file that is mapped."""
    generator = np.random.default_rng(0)
    labels = generator.integers(N_CLASSES, size=n)
    colours = generator.integers(40, 216, (N_CLASSES, 1, 1, 3))
    pictures = open_memmap(file, mode="w+", dtype=np.uint8, shape=(n, *SIZE, 3))
    noise = generator.integers(-40, 40, (64, *SIZE, 3))
    for number, label in enumerate(labels.tolist()):
        pictures[number] = colours[label] + noise[number % len(noise)]
    return pictures, labels


class _Watch:
    """Looks at this process's anonymous memory twenty times a second."""

    def __init__(self) -> None:
        self.peak_mb = 0.0
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _look(self) -> None:
        status = Path("/proc/self/status")
        while not self._is_over.is_set():
            found = re.search(r"^RssAnon:\s+(\d+) kB", status.read_text(encoding="ascii"), flags=re.MULTILINE)
            assert found is not None
            self.peak_mb = max(self.peak_mb, int(found[1]) * 1024 / 1e6)
            time.sleep(0.05)


if __name__ == "__main__":
    main()

"""What the library's passes and trainings cost beside a bare PyTorch loop in the same precision.

python benchmarks/throughput.py PICTURES
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from reporting import machine, write_report
from torch import Tensor, nn

from autobackbone.backbones.blocks import set_training_mode, unfreeze
from autobackbone.backbones.head import set_head
from autobackbone.backbones.source import TimmSource
from autobackbone.backbones.weights import find_weights
from autobackbone.data import DataBundle, decode, survey
from autobackbone.exporting.transform import normalise
from autobackbone.metrics import metric_for, score
from autobackbone.records import Body, Candidate
from autobackbone.screening import screen
from autobackbone.training.activations import ActivationCache
from autobackbone.training.stores import Stores
from autobackbone.training.tuner import Tuner

BACKBONE = "tf_efficientnet_lite0.in1k"
CPU = torch.device("cpu")
N_EPOCHS = 3
DEPTH = 2


def main() -> None:
    """Measure, each part beside its bare loop, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--side", type=int, default=160)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    with tempfile.TemporaryDirectory() as folder:
        found = survey(asked.pictures)
        bundle = decode(found, [asked.side], cache_dir=folder)
        rows = _rows(bundle, (asked.side, asked.side), Path(folder))
    text = "\n".join(
        (
            f"Pictures: {asked.pictures.name} at {asked.side} px, {BACKBONE}. {machine(asked.threads)}",
            "",
            "| what | bare loop | here | ratio | wanted |",
            "|---|---|---|---|---|",
            *rows,
            "",
        )
    )
    print(text)
    write_report(asked.out, "throughput", text, rows)


def _rows(bundle: DataBundle, size: tuple[int, int], folder: Path) -> list[str]:
    source = TimmSource({BACKBONE: find_weights(BACKBONE)}, n_classes=len(bundle.classes))
    stores = Stores(
        bundle=bundle,
        source=source,
        cache=ActivationCache(folder=folder / "activations", max_bytes=10**11),
        device=CPU,
        seed=0,
    )
    indices = np.concatenate([bundle.indices("train"), bundle.indices("validation")])
    network = source.network(BACKBONE, size)
    # The bare loop may round, too, where that is faster; it rounds all, and here what scores is not rounded.
    bare_s = min(_bare_pass(network, bundle, indices, size, source, is_rounded=way) for way in (False, True))
    with stores.filling(network, Body(BACKBONE, size), (DEPTH,)) as taps:
        screened = screen(network, bundle, size, source.normalisation(BACKBONE), seed=0, device=CPU, taps=taps)
    pass_s = screened.seconds_per_image * len(indices)
    head_s = screened.seconds - pass_s
    labels = bundle.labels[bundle.indices("validation")]
    metric = metric_for("accuracy", n_classes=len(bundle.classes))
    tuner = Tuner(stores=stores, score=lambda p: score(metric, p, labels))
    candidate = Candidate(
        backbone=BACKBONE, image_size=size, n_unfrozen=DEPTH, lr=5e-4, extras={"n_epochs": N_EPOCHS, "batch_size": 64}
    )
    _, outcome = tuner.tune(candidate, screened.head)
    # Another rate on the same stored activations: what a search does most of the time.
    begun = time.perf_counter()
    tuner.tune(replace(candidate, lr=3e-4), screened.head)
    trial_s = time.perf_counter() - begun
    tail_s = _bare_tail(stores, size, screened.head)
    n = len(indices)
    return [
        f"| feature pass, store of {DEPTH} blocks written beside it | {n / bare_s:.0f} pictures/s | "
        f"{n / pass_s:.0f} | {bare_s / pass_s:.2f} | at least 0.9 |",
        f"| feature pass, in forward passes | 1 | {pass_s / bare_s:.2f} | | at most 1.1 |",
        f"| head, in forward passes | | {head_s / bare_s:.2f} | | at most 0.5 |",
        f"| {N_EPOCHS} epochs of a tail of {DEPTH} blocks, scored | {tail_s:.1f} s | {outcome.seconds:.1f} s | "
        f"{tail_s / outcome.seconds:.2f} | at least 0.9 |",
        f"| the same trial at another rate, beyond the bare loop | | {trial_s - tail_s:.2f} s | | less than 0.3 s |",
    ]


@torch.inference_mode()
def _bare_pass(
    network: nn.Module,
    bundle: DataBundle,
    indices: np.ndarray,
    size: tuple[int, int],
    source: TimmSource,
    *,
    is_rounded: bool,
) -> float:
    pixels, norm = bundle.pixels(size), source.normalisation(BACKBONE)
    if is_rounded:  # as who rounds lays weights out
        network = copy.deepcopy(network).to(memory_format=torch.channels_last)

    def one(start: int) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=is_rounded):
            batch: Tensor = network(normalise(torch.from_numpy(pixels[indices[start : start + 32]]), norm))
        return batch

    one(0)
    return _timed(lambda: [one(start) for start in range(0, len(indices), 32)])


def _bare_tail(stores: Stores, size: tuple[int, int], head: object) -> float:
    """Forward, backward, AdamW and the scoring of validation on the same stored activations, and nothing else."""
    network = stores.source.network(BACKBONE, size)
    set_head(network, torch.from_numpy(head.weight), torch.from_numpy(head.bias))  # type: ignore[attr-defined]
    unfreeze(network, DEPTH)
    split = stores.split(network, Body(BACKBONE, size), DEPTH)
    assert split is not None
    (view,) = stores.views(split, Body(BACKBONE, size), DEPTH, n_views=1, until=None)
    (train,), (validation,) = stores.rows(1)
    labels = torch.from_numpy(stores.bundle.labels[stores.bundle.indices("train")].copy())
    tail = split.tail.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW([p for p in tail.parameters() if p.requires_grad], lr=5e-4, fused=True)
    generator = torch.Generator().manual_seed(0)

    def look(rows: np.ndarray) -> Tensor:
        return torch.from_numpy(view[rows]).float().contiguous(memory_format=torch.channels_last)

    def epoch() -> None:
        set_training_mode(tail)
        for some in torch.randperm(len(train), generator=generator).split(64):
            nn.functional.cross_entropy(tail(look(train[some.numpy()])), labels[some]).backward()
            optimizer.step()
            optimizer.zero_grad()
        with torch.inference_mode():
            tail.eval()
            for start in range(0, len(validation), 64):
                tail(look(validation[start : start + 64]))

    return _timed(lambda: [epoch() for _ in range(N_EPOCHS)])


def _timed(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()

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
from autobackbone.backbones.source import BackboneSource
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
            "Each figure is the better of two. The bare loop in the same precision rounds the training pictures to",
            "bfloat16, channels last, and scores validation pictures in float32, 32 at once, as here; the other one is",
            "the faster of one that rounds all pictures and one that rounds none. The pass here also writes the store,",
            "and tries several ways on its first few hundred pictures.",
            "",
        )
    )
    print(text)
    write_report(asked.out, "throughput", text, rows)


def _rows(bundle: DataBundle, size: tuple[int, int], folder: Path) -> list[str]:
    source = BackboneSource({BACKBONE: find_weights(BACKBONE)}, n_classes=len(bundle.classes))
    both = [
        Stores(
            bundle=bundle,
            source=source,
            cache=ActivationCache(folder=folder / name, max_bytes=10**11),
            device=CPU,
            seed=0,
        )
        for name in ("first", "second")
    ]
    stores = both[0]
    network = source.network(BACKBONE, size)
    bare_s, same_s, passes = np.inf, np.inf, []
    for one in both:
        bare_s = min(bare_s, *(_bare_pass(stores, network, size, rounded=parts) for parts in ((), (0, 1))))
        same_s = min(same_s, _bare_pass(stores, network, size, rounded=(0,)))
        with one.filling(network, Body(BACKBONE, size), (DEPTH,)) as taps:
            screened = screen(network, bundle, size, source.normalisation(BACKBONE), seed=0, device=CPU, taps=taps)
            assert screened is not None
            passes.append(screened)
    n = len(bundle.indices("train")) + len(bundle.indices("validation"))
    pass_s = min(screened.seconds_per_image for screened in passes) * n
    head_s = min(screened.seconds - screened.seconds_per_image * n for screened in passes)
    screened = passes[0]
    labels = bundle.labels[bundle.indices("validation")]
    metric = metric_for("accuracy", n_outputs=len(bundle.classes))
    tuner = Tuner(stores=stores, score=lambda p: score(metric, p, labels))
    candidate = Candidate(
        backbone=BACKBONE, image_size=size, n_unfrozen=DEPTH, lr=5e-4, extras={"n_epochs": N_EPOCHS, "batch_size": 64}
    )
    tuner.tune(candidate, screened.head)
    # Another rate on the same stored activations: what a search does most of the time.
    bare_tail_s, tail_s, beyond_s = np.inf, np.inf, np.inf
    for lr in (3e-4, 4e-4):
        begun = time.perf_counter()
        _, outcome = tuner.tune(replace(candidate, lr=lr), screened.head)
        beyond_s = min(beyond_s, time.perf_counter() - begun - outcome.seconds)
        tail_s = min(tail_s, outcome.seconds)
        bare_tail_s = min(bare_tail_s, _bare_tail(stores, size, screened.head))
    return [
        f"| feature pass in the same precision, store of {DEPTH} blocks written beside it | "
        f"{n / same_s:.0f} pictures/s | {n / pass_s:.0f} | {same_s / pass_s:.2f} | at least 0.9 |",
        f"| feature pass, in forward passes in the same precision | 1 | {pass_s / same_s:.2f} | | at most 1.1 |",
        f"| feature pass beside the faster loop of one precision | {n / bare_s:.0f} pictures/s | {n / pass_s:.0f} | "
        f"{bare_s / pass_s:.2f} | |",
        f"| head, in forward passes in the same precision | | {head_s / same_s:.2f} | | at most 0.5 |",
        f"| {N_EPOCHS} epochs of a tail of {DEPTH} blocks, scored | {bare_tail_s:.1f} s | {tail_s:.1f} s | "
        f"{bare_tail_s / tail_s:.2f} | at least 0.9 |",
        f"| the same trial at another rate, beyond its epochs | | {beyond_s:.2f} s | | less than 0.3 s |",
    ]


@torch.inference_mode()
def _bare_pass(stores: Stores, network: nn.Module, size: tuple[int, int], *, rounded: tuple[int, ...]) -> float:
    """Seconds over training pictures (part 0) and validation pictures (part 1), of which some parts may be rounded."""
    pixels, norm = stores.bundle.pixels(size), stores.source.normalisation(BACKBONE)
    laid_out = copy.deepcopy(network).to(memory_format=torch.channels_last)  # as who rounds lays weights out
    parts = [stores.bundle.indices("train"), stores.bundle.indices("validation")]

    def one(part: int, start: int) -> Tensor:
        way = laid_out if part in rounded else network
        with torch.autocast("cpu", torch.bfloat16, enabled=part in rounded):
            return way(normalise(torch.from_numpy(pixels[parts[part][start : start + 32]]), norm))  # type: ignore[no-any-return]

    for part in (0, 1):
        one(part, 0)
    return _timed(lambda: [one(part, start) for part in (0, 1) for start in range(0, len(parts[part]), 32)])


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
        for some in torch.split(torch.randperm(len(train), generator=generator), 64):
            torch.autograd.backward(nn.functional.cross_entropy(tail(look(train[some.numpy()])), labels[some]))
            optimizer.step()
            optimizer.zero_grad()
        with torch.inference_mode():
            tail.eval()
            for start in range(0, len(validation), 64):
                tail(look(validation[start : start + 64]))

    def epochs() -> None:
        for _ in range(N_EPOCHS):
            epoch()

    return _timed(epochs)


def _timed(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()

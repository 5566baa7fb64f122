"""What pre-training buys: the smallest network from scratch beside it frozen and fine-tuned, with the same seconds.

python benchmarks/transfer.py PICTURES --seconds 300
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from reporting import machine, write_report
from torch import nn

from autobackbone.backbones.blocks import blocks_of
from autobackbone.backbones.build import build
from autobackbone.backbones.head import set_head
from autobackbone.backbones.source import BackboneSource
from autobackbone.backbones.weights import find_weights
from autobackbone.data import decode, survey
from autobackbone.metrics import metric_for, score
from autobackbone.records import Candidate, ImageSize, Normalisation
from autobackbone.screening import predict, screen
from autobackbone.training.activations import ActivationCache
from autobackbone.training.stores import Stores
from autobackbone.training.tuner import Tuner

BACKBONE = "tf_efficientnet_lite0.in1k"
CPU = torch.device("cpu")
LEARNING_RATES = {"from scratch": 2e-3, "all blocks fine-tuned": 2e-4, "2 of 8 blocks fine-tuned": 5e-4}


class Scratch:
    """The architecture without its weights."""

    def __init__(self, source: BackboneSource) -> None:
        self.source = source

    def network(self, backbone: str, image_size: ImageSize, n_blocks_kept: int | None = None) -> nn.Module:
        """As timm initialises it."""
        n_classes = self.source.n_classes
        return build(backbone, n_classes=n_classes, image_size=image_size, seed=0, n_blocks_kept=n_blocks_kept).eval()

    def normalisation(self, backbone: str) -> Normalisation:
        """As its pre-trained weights want it."""
        return self.source.normalisation(backbone)

    def weights_digest(self, backbone: str) -> str:
        """Not that of the weights."""
        return f"scratch {backbone}"


def main() -> None:
    """Train the three with the same seconds each, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    size = (asked.size, asked.size)
    found = survey(asked.pictures)
    with tempfile.TemporaryDirectory() as folder:
        bundle = decode(found, [size], cache_dir=Path(folder) / "data")
        source = BackboneSource({BACKBONE: find_weights(BACKBONE)}, n_classes=len(bundle.classes), seed=0)
        metric = metric_for("accuracy", n_outputs=len(bundle.classes))
        labels = {part: bundle.labels[bundle.indices(part)] for part in ("validation", "test")}

        def scored(probabilities: NDArray[np.float32], part: str = "validation") -> float:
            return score(metric, probabilities, labels[part])

        cache = ActivationCache(folder=Path(folder) / "activations", max_bytes=10**11)
        stores = Stores(bundle=bundle, source=source, cache=cache, device=CPU, seed=0)
        frozen = source.network(BACKBONE, size)
        begun = time.monotonic()
        screened = screen(frozen, bundle, size, source.normalisation(BACKBONE), seed=0, device=CPU)
        screen_s = time.monotonic() - begun
        assert screened is not None
        n_blocks = len(blocks_of(frozen))
        set_head(frozen, torch.from_numpy(screened.head.weight), torch.from_numpy(screened.head.bias))
        indices = bundle.indices("test")

        def on_test(network: nn.Module) -> float:
            answers = predict(network, bundle, indices, size, source.normalisation(BACKBONE), device=CPU)
            return scored(answers, "test")

        facts = [_fact("frozen, convex head", screen_s, 0, scored(screened.predictions), on_test(frozen))]
        for name, lr in LEARNING_RATES.items():
            is_scratch = name == "from scratch"
            depth = 2 if name.startswith("2") else n_blocks
            tuner = Tuner(
                stores=replace(stores, source=Scratch(source)) if is_scratch else stores,
                score=scored,
                batch_norm="batch" if is_scratch else "fixed",
            )
            head = replace(screened.head, weight=screened.head.weight * 0) if is_scratch else screened.head
            candidate = Candidate(
                backbone=BACKBONE, image_size=size, n_unfrozen=depth, lr=lr, extras={"n_epochs": 1000}
            )
            # What is fine-tuned begins with the screened head, so that its seconds count.
            left_s = asked.seconds - (0 if is_scratch else screen_s)
            begun = time.monotonic()
            network, outcome = tuner.tune(candidate, head, until=begun + left_s, n_views=2)
            seconds = time.monotonic() - begun + (0 if is_scratch else screen_s)
            scores = max(outcome.rung_scores), on_test(network)
            facts.append(_fact(f"{name}, lr {lr:g}", seconds, outcome.n_epochs, *scores))
            facts[-1]["curve"] = list(outcome.rung_scores)
    text = "\n".join(
        (
            machine(asked.threads),
            "",
            f"{asked.pictures.name}, {BACKBONE} at {size[0]} px, {asked.seconds:g} s each with screening; one seed.",
            "",
            "| network | seconds | epochs | validation | test |",
            "|---|---|---|---|---|",
            *(
                f"| {row['name']} | {row['seconds']:.0f} | {row['n_epochs']} | {row['validation']:.3f} | "
                f"{row['test']:.3f} |"
                for row in facts
            ),
            "",
        )
    )
    print(text)
    write_report(asked.out, "transfer", text, facts, _figure(facts))


def _fact(name: str, seconds: float, n_epochs: int, validation: float, test: float) -> dict[str, Any]:
    return {"name": name, "seconds": seconds, "n_epochs": n_epochs, "validation": validation, "test": test}


def _figure(facts: list[dict[str, Any]]) -> Figure:
    figure, axis = plt.subplots(figsize=(6, 4), layout="constrained")
    for row in facts[1:]:
        axis.plot(row["curve"], label=str(row["name"]))
    axis.axhline(float(str(facts[0]["validation"])), color="grey", linestyle="--", label=str(facts[0]["name"]))
    axis.set(xlabel="epoch", ylabel="validation accuracy")
    axis.legend()
    return figure


if __name__ == "__main__":
    main()

"""Whether weights and balanced sampling help where classes are uneven: half of the classes thinned to a tenth.

python benchmarks/imbalance.py PICTURES --thin glass metal plastic
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from reporting import machine, write_report

from autobackbone.backbones.head import set_head
from autobackbone.backbones.source import BackboneSource
from autobackbone.backbones.weights import find_weights
from autobackbone.convexhead import Head
from autobackbone.data import LEFT_OUT, TEST, DataBundle, Survey, decode, survey
from autobackbone.metrics import metric_for, score
from autobackbone.records import Candidate
from autobackbone.screening import predict, screen
from autobackbone.training.activations import ActivationCache
from autobackbone.training.stores import Stores
from autobackbone.training.tuner import STEP_PRECISION, Tuner

BACKBONE = "tf_efficientnet_lite0.in1k"
CPU = torch.device("cpu")
# Name, weights of the head that training begins with, and what the training itself does.
TRAININGS: tuple[tuple[str, str, Mapping[str, str]], ...] = (
    ("nothing", "none", {}),
    ("class_weights", "balanced", {"class_weights": "balanced"}),
    ("sampling", "none", {"sampling": "balanced"}),
    ("both", "balanced", {"class_weights": "balanced", "sampling": "balanced"}),
)


def thinned(found: Survey, classes: NDArray[np.int64], one_in: int, seed: int) -> Survey:
    """One in so many of some classes' training and validation pictures; the test part stays, to judge them well."""
    parts, generator = found.parts.copy(), np.random.default_rng(seed)
    for code in classes:
        for part in (part for part in np.unique(parts) if part not in (TEST, LEFT_OUT)):
            members = np.flatnonzero((found.labels == code) & (parts == part))
            kept = generator.choice(members, max(2, len(members) // one_in), replace=False)
            parts[np.setdiff1d(members, kept)] = LEFT_OUT
    return replace(found, parts=parts)


def judged(predictions: NDArray[np.float32], labels: NDArray[np.int64], counts: NDArray[np.int64]) -> dict[str, float]:
    """Recall of each class, weighted as the thinned dataset has them, as it is, and of the thinned ones alone."""
    n_classes = predictions.shape[1]
    is_right = predictions.argmax(axis=1) == labels
    recalls = np.array([is_right[labels == code].mean() for code in range(n_classes)])
    return {
        "accuracy": float(recalls @ counts / counts.sum()),
        "balanced": score(metric_for("balanced_accuracy", n_outputs=n_classes), predictions, labels),
        "rare": float(recalls[counts < counts.max() / 5].mean()),
        "common": float(recalls[counts >= counts.max() / 5].mean()),
    }


def measured(bundle: DataBundle, folder: Path, asked: argparse.Namespace, seed: int) -> list[dict[str, Any]]:
    """All heads and trainings on one thinned dataset."""
    size = (asked.size, asked.size)
    source = BackboneSource({BACKBONE: find_weights(BACKBONE)}, n_classes=len(bundle.classes), seed=seed)
    normalisation = source.normalisation(BACKBONE)
    labels = {part: bundle.labels[bundle.indices(part)] for part in ("train", "validation", "test")}
    counts = np.bincount(labels["train"])
    balanced = metric_for("balanced_accuracy", n_outputs=len(counts))
    cache = ActivationCache(folder=folder / f"activations{seed}", max_bytes=10**11)
    stores = Stores(bundle=bundle, source=source, cache=cache, device=CPU, seed=seed)
    tuner = Tuner(stores=stores, score=lambda predictions: score(balanced, predictions, labels["validation"]))

    def row(what: str, answer: str, network: torch.nn.Module) -> dict[str, Any]:
        answers = predict(network, bundle, bundle.indices("test"), size, normalisation, device=CPU)
        found = {"seed": seed, "what": what, "answer": answer, **judged(answers, labels["test"], counts)}
        print(found, flush=True)
        return found

    rows, heads = list[dict[str, Any]](), dict[str, Head]()
    for weights in ("none", "balanced"):
        network = source.network(BACKBONE, size)
        screened = screen(network, bundle, size, normalisation, seed=seed, device=CPU, class_weights=weights)
        assert screened is not None
        heads[weights] = screened.head
        set_head(network, torch.from_numpy(screened.head.weight), torch.from_numpy(screened.head.bias))
        rows.append(row("frozen", "nothing" if weights == "none" else "class_weights", network))
    for name, weights, extras in TRAININGS:
        candidate = Candidate(
            backbone=BACKBONE,
            image_size=size,
            n_unfrozen=asked.blocks,
            lr=asked.lr,
            # Left to a clock, one of them may be in bfloat16 and another not.
            extras={"n_epochs": asked.epochs, STEP_PRECISION: "float32", **extras},
        )
        network, _ = tuner.tune(candidate, heads[weights])
        rows.append(row(f"{asked.blocks} blocks fine-tuned", name, network))
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Means over the seeds, and the lowest and highest balanced accuracy."""
    lines = [
        "| trained | answer | accuracy | balanced accuracy | of the thinned classes | of the others |",
        "|---|---|---|---|---|---|",
    ]
    for what, answer in dict.fromkeys((row["what"], row["answer"]) for row in rows):
        own = [row for row in rows if (row["what"], row["answer"]) == (what, answer)]
        mean = {name: np.mean([row[name] for row in own]) for name in ("accuracy", "balanced", "rare", "common")}
        ends = f"{min(row['balanced'] for row in own):.3f} to {max(row['balanced'] for row in own):.3f}"
        lines.append(
            f"| {what} | {answer} | {mean['accuracy']:.3f} | {mean['balanced']:.3f} ({ends}) | {mean['rare']:.3f} | "
            f"{mean['common']:.3f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Thin, train, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--thin", nargs="+", help="classes; every second one if none is named")
    parser.add_argument("--one-in", type=int, default=10)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--blocks", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    rows, n_test = list[dict[str, Any]](), 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for seed in range(asked.seeds):
            found = survey(asked.pictures, seed=seed)
            asked.thin = asked.thin or found.classes[1::2]
            codes = np.array([found.classes.index(name) for name in asked.thin])
            part = thinned(found, codes, asked.one_in, seed)
            bundle = decode(part, [asked.size], cache_dir=folder / "data")
            rows += measured(bundle, folder, asked, seed)
            counts, n_test = bundle.counts(), len(bundle.indices("test"))
    named = ", ".join(f"{number} {name}" for name, number in counts["train"].items())
    text = "\n".join(
        (
            machine(asked.threads),
            "",
            f"{asked.pictures.name}, one in {asked.one_in} of the training and validation pictures of "
            f"{', '.join(asked.thin)} kept: {named} to train on. {BACKBONE} at {asked.size} px, "
            f"{asked.epochs} epochs at {asked.lr:g}; the epoch that is kept has the best balanced accuracy on the "
            f"validation part. Means of {asked.seeds} seeds of split and thinning. The test part, {n_test} pictures, "
            "stays whole, so that rare classes are judged well; accuracy is what it would be with classes as uneven as "
            "those to train on. The last columns are the mean share of right answers of the classes of each kind.",
            "",
            table(rows),
            "",
        )
    )
    print(text)
    write_report(asked.out, "imbalance", text, rows)


if __name__ == "__main__":
    main()

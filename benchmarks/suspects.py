"""How many of the wrong labels that were planted are found, and how far up in the list.

python benchmarks/suspects.py FOLDER_OR_CSV …    # of a CSV file `name.csv:column,column` names the labels
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from reporting import machine, write_report
from similar import named_survey

from autobackbone.backbones.source import BackboneSource
from autobackbone.backbones.weights import find_weights
from autobackbone.data import DataBundle, decode
from autobackbone.screening import Features, extract, fair_order, with_head
from autobackbone.suspicion import mean_known, suspicion_of

LITE0, LITE1 = "tf_efficientnet_lite0.in1k", "tf_efficientnet_lite1.in1k"
JUDGES = ((LITE0, 96), (LITE0, 128), (LITE1, 96))
SHARE = 0.05
Floats = NDArray[np.float32]
OPENING = f"""
Of the training and validation pictures of each set {SHARE:.0%} were given a wrong label, by chance. Heads were then
fitted on frozen features as in a search, and the labels that their predictions contradict were listed, the most suspect
first: of training pictures by what is said out of fold. *First 20*, *first 50*, *first k*: the share of planted labels
among that many of the list, *k* being how many were planted; {SHARE:.0%} would be chance. *Found*: the share of planted
labels that are in the list at all. *Listed*: its length. Means over the seeds. Labels that were wrong before anything
was planted count as right here.

Exchanged are classes for another one at random (*any*), or for the one that a head which has not seen the picture takes
for the next likely (*alike*), as people do; of several labels one is taken off or put on; numbers are those of another
picture, which may be nearly the same.
"""
RULES = """
The first 50 and the first k by other rules, three judges together: the probability of the given label alone
(*self-confidence*), the difference to the likeliest other one (*margin*), and the *raised ratio* of the two, which is
used.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One set, one way of planting, one judge or three; means over seeds.

    Args:
        name: of the set.
        planting: how labels were exchanged.
        judges: who judges.
        n: training and validation pictures.
        k: planted labels.
        precisions: share of planted labels among the first 20, 50 and k.
        found: share of planted labels that are listed.
        n_listed: length of the list.
        by_rule: share of planted labels among the first 50 and the first k by each rule, for classes.
    """

    name: str
    planting: str
    judges: str
    n: int
    k: int
    precisions: tuple[float, float, float]
    found: float
    n_listed: float
    by_rule: dict[str, list[float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sets", nargs="+")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    rows = []
    for text in asked.sets:
        rows += _rows(text, asked.seeds)
        print(f"{text} is done", flush=True)
    seeds = f"\n{asked.seeds} seeds.\n"
    report = "\n".join((machine(asked.threads), OPENING, seeds, _table(rows), RULES, _rule_table(rows), ""))
    print(report)
    write_report(asked.out, "suspects", report, [asdict(row) for row in rows])


def _rows(text: str, n_seeds: int) -> list[Row]:
    name, found = named_survey(text)
    with tempfile.TemporaryDirectory() as folder:
        bundle = decode(found, sorted({side for _, side in JUDGES}), cache_dir=folder)
        seen = {f"{backbone.split('.')[0]}, {side} px": _features(bundle, backbone, side) for backbone, side in JUDGES}
        rows = []
        for planting in ("any", "alike") if bundle.task == "classification" else ("any",):
            measured: dict[str, list[Any]] = {}
            for seed in range(n_seeds):
                labels, wrong = _planted(bundle, planting, list(seen.values()), seed)
                judged = replace(bundle, labels=labels)
                said: dict[str, NDArray[Any]] = {
                    judge: _said(judged, features, seed) for judge, features in seen.items()
                }
                said["three judges"] = mean_known(list(said.values()))
                for judge, predictions in said.items():
                    measured.setdefault(judge, []).append(_measured(judged, predictions, wrong))
            n = len(fair_order(bundle, seed=0))
            rows += [_row(name, planting, judge, n, round(SHARE * n), of) for judge, of in measured.items()]
    return rows


def _features(bundle: DataBundle, backbone: str, side: int) -> Features:
    source = BackboneSource({backbone: find_weights(backbone)}, n_classes=len(bundle.classes), seed=0)
    network, size = source.network(backbone, (side, side)), (side, side)
    order = fair_order(bundle, seed=0)
    return extract(network, bundle, order, size, source.normalisation(backbone), device=torch.device("cpu"))


def _said(bundle: DataBundle, features: Features, seed: int) -> Floats:
    """What a head that has not seen a picture says of it, (n_images, n_outputs)."""
    screened = with_head(replace(features, train=features.train.copy()), bundle, seed=seed)
    assert screened is not None
    assert screened.out_of_fold is not None
    said = np.full((len(bundle.labels), len(bundle.classes)), np.nan, np.float32)
    said[bundle.indices("train")] = screened.out_of_fold
    said[bundle.indices("validation")] = screened.predictions
    return said


def _planted(
    bundle: DataBundle, planting: str, seen: Sequence[Features], seed: int
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Labels with wrong ones among them, and which pictures have those."""
    rng = np.random.default_rng(seed)
    looked = np.sort(fair_order(bundle, seed=0))
    wrong = rng.choice(looked, round(SHARE * len(looked)), replace=False)
    labels, before = bundle.labels.copy(), bundle.labels[wrong]
    if bundle.task == "multilabel":
        which = rng.integers(0, len(bundle.classes), len(wrong))
        labels[wrong, which] = 1 - labels[wrong, which]
    elif bundle.task == "regression":
        labels[wrong] = bundle.labels[rng.permutation(looked)[: len(wrong)]]
    elif planting == "any":
        labels[wrong] = (before + rng.integers(1, len(bundle.classes), len(wrong))) % len(bundle.classes)
    else:
        said = mean_known([_said(bundle, features, seed) for features in seen])[wrong]
        said[np.arange(len(wrong)), before] = -1
        labels[wrong] = said.argmax(axis=1)
    return labels, wrong


def _measured(bundle: DataBundle, said: Floats, wrong: NDArray[np.int64]) -> tuple[list[float], dict[str, list[float]]]:
    found = suspicion_of(said, bundle.labels, bundle.task)
    is_wrong = np.isin(found.pictures, wrong)
    first = [float(is_wrong[:n].mean()) if n else 0.0 for n in (20, 50, len(wrong))]
    by_rule = {}
    if bundle.task == "classification":
        rules = {
            "raised ratio": -found.scores,
            "self-confidence": found.given,
            "margin": found.given - found.suggested,
        }
        for rule, values in rules.items():
            is_wrong_by_rule = is_wrong[np.argsort(values, kind="stable")]
            by_rule[rule] = [float(is_wrong_by_rule[:n].mean()) for n in (50, len(wrong))]
    return [*first, float(np.isin(wrong, found.pictures).mean()), float(len(found.pictures))], by_rule


def _row(name: str, planting: str, judges: str, n: int, k: int, measured: list[Any]) -> Row:
    means = np.mean([numbers for numbers, _ in measured], axis=0).round(3).tolist()
    rules = measured[0][1]
    return Row(
        name=name,
        planting=planting,
        judges=judges,
        n=n,
        k=k,
        precisions=(means[0], means[1], means[2]),
        found=means[3],
        n_listed=means[4],
        by_rule={rule: np.mean([by[rule] for _, by in measured], axis=0).round(3).tolist() for rule in rules},
    )


def _table(rows: Sequence[Row]) -> str:
    return "\n".join(
        (
            "| set | exchanged for | judged by | pictures | k | first 20 | first 50 | first k | found | listed |",
            "|---|---|---|---|---|---|---|---|---|---|",
            *(
                f"| {row.name} | {row.planting} | {row.judges} | {row.n:,} | {row.k} | "
                + " | ".join(f"{value:.2f}" for value in row.precisions)
                + f" | {row.found:.2f} | {row.n_listed:.0f} |"
                for row in rows
            ),
        )
    )


def _rule_table(rows: Sequence[Row]) -> str:
    of_classes = [row for row in rows if row.by_rule and row.judges == "three judges"]
    rules = list(of_classes[0].by_rule) if of_classes else []
    return "\n".join(
        (
            f"| set | exchanged for | {' | '.join(rules)} |",
            "|---|---|" + "---|" * len(rules),
            *(
                f"| {row.name} | {row.planting} | "
                + " | ".join(", ".join(f"{share:.2f}" for share in row.by_rule[rule]) for rule in rules)
                + " |"
                for row in of_classes
            ),
        )
    )


if __name__ == "__main__":
    main()

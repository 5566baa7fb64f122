"""Pictures, each with what heads that have not seen it say of it: what `honesty` and `regret` draw from.

Frozen networks make that cheap. One pass of each network at each image size gives the features of the whole network and
of its cut ones, and a convex head is fitted on each two thirds of the pictures for the others. Both are kept, so that
another run draws at once.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.model_selection import KFold, StratifiedKFold

from autobackbone.backbones.cut import cut_entries, pooled
from autobackbone.backbones.source import BackboneSource
from autobackbone.backbones.weights import find_weights
from autobackbone.convexhead import fit_head
from autobackbone.data import LEFT_OUT, DataBundle, decode, survey
from autobackbone.exporting.transform import normalise
from autobackbone.metrics import Metric, score, to_maximised
from autobackbone.records import Body, Task

BACKBONES = ("tf_efficientnet_lite0.in1k", "tf_efficientnet_lite1.in1k", "tf_efficientnet_lite2.in1k")
SEED = 0
N_FOLDS = 3
# Blocks that a cut network may lack; with more of them missing none was near the best.
N_FEWER = 3
_CHUNK = 32
HELP = (
    "a folder with one sub-folder per class, or a CSV file with the columns that are to be predicted, "
    "as `labels.csv:area` or `labels.csv:red,green`"
)


class Option(NamedTuple):
    """A candidate: a frozen network with heads.

    Args:
        body: the network.
        predictions: (n_images, n_outputs) float32, each row by a head that has not seen the picture.
    """

    body: Body
    predictions: NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """A set of pictures and what each candidate says of them; benchmarks take it for all pictures that there are.

    Args:
        name: of the set.
        task: what the labels are.
        labels: (n_images,) or (n_images, n_outputs).
        options: the candidates.
    """

    name: str
    task: Task
    n_outputs: int
    labels: NDArray[Any]
    options: tuple[Option, ...]

    def truths(self, metric: Metric) -> NDArray[np.float64]:
        """(n_options,) scores on all pictures."""
        return np.array([score(metric, option.predictions, self.labels) for option in self.options])

    def drawable(self, numbers: Sequence[int]) -> list[int]:
        """The numbers of pictures that are at most two thirds of the set."""
        return [n for n in numbers if n <= len(self.labels) * 2 / 3]

    def of_similar_quality(self, metric: Metric, n_most: int) -> Pool:
        """The same with the best candidates alone."""
        ranked = np.argsort([-to_maximised(metric, value) for value in self.truths(metric)], kind="stable")
        options = tuple(self.options[row] for row in sorted(ranked[:n_most]))
        return Pool(name=self.name, task=self.task, n_outputs=self.n_outputs, labels=self.labels, options=options)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """What all draws of one set, metric and number of pictures have in common.

    Args:
        name: of the set.
        n_pool: pictures of the set.
        metric: its name.
        truth: of the best candidate, in the metric's own sign and unit.
        n: pictures of each draw.
        n_draws: draws.
        seconds: of all draws.
    """

    name: str
    n_pool: int
    metric: str
    truth: float
    n: int
    n_draws: int
    seconds: float


def arguments(doc: str | None) -> argparse.ArgumentParser:
    """What both benchmarks ask."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", help=HELP)
    parser.add_argument("--sizes", type=int, nargs="+", default=[96, 160])
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--kept", type=Path, required=True, help="a folder for features, heads and latencies")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    return parser


def pools(sets: Sequence[str], sizes: Sequence[int], kept: Path) -> Iterator[Pool]:
    """Each set with its candidates, from what is kept or anew."""
    for text in sets:
        path, _, columns = text.partition(":")
        name = Path(path).stem if not columns else Path(path).resolve().parent.name
        found = survey(Path(path), label=columns.split(",") if columns else None, seed=SEED)
        yield _pool(name, decode(found, sizes, cache_dir=kept / "data"), sizes, kept)


def _pool(name: str, bundle: DataBundle, sizes: Sequence[int], kept: Path) -> Pool:
    rows = np.flatnonzero(bundle.parts != LEFT_OUT)
    labels = bundle.labels[rows]
    source = BackboneSource({name: find_weights(name) for name in BACKBONES}, n_classes=len(bundle.classes), seed=SEED)
    options = []
    for backbone in BACKBONES:
        for side in sizes:
            for body, features in _features(Body(backbone, (side, side)), bundle, rows, source, kept):
                path = kept / "heads" / f"{_key(bundle, body)}.npy"
                if not path.is_file():
                    _write(path, _held_out(features, labels, bundle.task, len(bundle.classes)))
                    print(f"{name}: heads of {body} are done", flush=True)
                options.append(Option(body, np.load(path)))
    return Pool(name=name, task=bundle.task, n_outputs=len(bundle.classes), labels=labels, options=tuple(options))


def _features(
    whole: Body, bundle: DataBundle, rows: NDArray[np.int64], source: BackboneSource, kept: Path
) -> Iterator[tuple[Body, NDArray[np.float32]]]:
    """Of the network and of its cut ones: (n_images, n_features)."""
    n_blocks = source.n_blocks(whole.backbone)
    bodies = [whole._replace(n_blocks_kept=n) for n in range(n_blocks - N_FEWER, n_blocks)] + [whole]
    paths = {body: kept / "features" / f"{_key(bundle, body)}.npy" for body in bodies}
    if not all(path.is_file() for path in paths.values()):
        for n_kept, features in _passed(whole, bundle, rows, source).items():
            body = whole if n_kept == n_blocks else whole._replace(n_blocks_kept=n_kept)
            _write(paths[body], features)
        print(f"{whole} has passed {len(rows):,} pictures", flush=True)
    for body in bodies:
        yield body, np.load(paths[body])


def _passed(
    whole: Body, bundle: DataBundle, rows: NDArray[np.int64], source: BackboneSource
) -> dict[int, NDArray[np.float32]]:
    """By the number of kept blocks."""
    network, norm = source.network(*whole), source.normalisation(whole.backbone)
    pixels, n_blocks = bundle.pixels(whole.image_size), source.n_blocks(whole.backbone)

    def look(some: NDArray[np.int64]) -> torch.Tensor:
        return normalise(torch.from_numpy(pixels[some]), norm)

    entries = cut_entries(network, look(rows[:2]), range(n_blocks - N_FEWER, n_blocks))
    with torch.inference_mode():
        chunks = [pooled(network, entries, look(rows[at : at + _CHUNK])) for at in range(0, len(rows), _CHUNK)]
    return {n_kept: torch.cat([chunk[n_kept] for chunk in chunks]).numpy() for n_kept in chunks[0]}


def _held_out(features: NDArray[np.float32], labels: NDArray[Any], task: Task, n_outputs: int) -> NDArray[np.float32]:
    """(n_images, n_outputs), each row by a head that was fitted on the other folds."""
    folds = (StratifiedKFold if task == "classification" else KFold)(N_FOLDS, shuffle=True, random_state=SEED)
    said = np.empty((len(labels), n_outputs), np.float32)
    for seen, unseen in folds.split(features, labels):
        head = fit_head(features[seen], labels[seen], n_outputs=n_outputs, task=task, seed=SEED)
        said[unseen] = head.predictions(features[unseen], task)
    return said


def _key(bundle: DataBundle, body: Body) -> str:
    """Names what is kept by the pictures and labels it stands on."""
    digest = hashlib.sha256(f"{bundle.digest} {body} {N_FOLDS} {SEED}".encode()).hexdigest()[:16]
    return f"{body.backbone.partition('.')[0]}-{body.image_size[0]}-{body.n_blocks_kept or 'all'}-{digest}"


def _write(path: Path, values: NDArray[np.float32]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".part.npy")
    np.save(aside, values)
    aside.replace(path)

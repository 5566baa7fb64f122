"""How similar changed pictures are to what they were made of, by frozen features, and how similar other pictures are.

python benchmarks/similar.py FOLDER_OR_CSV …    # of a CSV file `name.csv:column` names the labels
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from copies import cropped, jpeg
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps
from reporting import machine, write_report
from sklearn.datasets import load_digits

from autobackbone.backbones.source import BackboneSource
from autobackbone.backbones.weights import find_weights
from autobackbone.data import Survey, decode, survey
from autobackbone.data.pictures import as_rgb
from autobackbone.screening import Features, extract, fair_order
from autobackbone.similarity import least_similarity, nearest_of

BACKBONE = "tf_efficientnet_lite0.in1k"
Picture = Image.Image
Floats = NDArray[np.float32]
OPENING = f"""
Frozen features of {BACKBONE}. Training pictures, chosen by chance, were changed: the share of them whose
most similar training picture is the one they were made of, at the *least* similarity or more. Similarity is the cosine
of features that are whitened by the covariance of the training pictures. *As they came*: how many validation pictures,
which nobody has changed, have such a training picture. `digits` are those of scikit-learn, 8 px.
"""
PLAIN = """
The same with centred features that are not whitened, at the cosine that as many validation pictures reach (at least
one).
"""


def shifted(picture: Picture) -> Picture:
    """A twentieth of width and height is cut away, all of it at the left and the top."""
    return picture.crop((round(picture.width / 20), round(picture.height / 20), picture.width, picture.height))


KINDS: dict[str, Callable[[Picture], Picture]] = {
    "a twentieth cut away": shifted,
    "a twentieth cut away on each side": cropped,
    "mirrored": ImageOps.mirror,
    "JPEG 40": lambda picture: jpeg(picture, 40),
    "brighter by a tenth": lambda picture: ImageEnhance.Brightness(picture).enhance(1.1),
}


class Pictures(torch.utils.data.Dataset[tuple[Picture, int]]):
    """Pictures with any label, as a data set."""

    def __init__(self, items: list[tuple[Picture, int]]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Picture, int]:
        return self.items[index]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One set at one size.

    Args:
        name: of the set.
        size: pixels of a side.
        n_train: training pictures.
        n_validation: validation pictures.
        n_planted: changed pictures of each kind.
        found: share of the planted ones that were found, by kind.
        plain: the same by centred features.
        least: similarity at which pictures are told to show one thing.
        similarities: (n_validation,) of the validation pictures to their most similar training pictures.
        pairs: names of those above the threshold, the most similar first.
    """

    name: str
    size: int
    n_train: int
    n_validation: int
    n_planted: int
    found: dict[str, float]
    plain: dict[str, float]
    least: float
    similarities: list[float]
    pairs: list[tuple[str, str, float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sets", nargs="+")
    parser.add_argument("--sizes", type=int, nargs="+", default=[96, 128])
    parser.add_argument("--planted", type=int, default=120)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    digits = load_digits()
    surveys = [named_survey(text) for text in asked.sets]
    surveys.append(("digits", survey((digits.images, digits.target))))
    rows = []
    for name, found in surveys:
        for size in asked.sizes:
            # Of 8 pixels nothing can be cut away.
            rows.append(_row(name, found, size, 0 if name == "digits" else asked.planted))
            print(f"{name} at {size} px is done", flush=True)
    text = "\n".join((machine(asked.threads), OPENING, _table(rows), PLAIN, _plain_table(rows), ""))
    print(text)
    write_report(asked.out, "similar", text, [_facts(row) for row in rows])


def named_survey(text: str) -> tuple[str, Survey]:
    """A set by the path of its folder, or of a CSV file and its columns of labels."""
    path, _, columns = text.partition(":")
    named = columns.split(",")
    found = survey(path, label=named if len(named) > 1 else columns) if columns else survey(path)
    return (Path(path).parent if path.endswith(".csv") else Path(path)).name, found


def _row(name: str, found: Survey, size: int, n_planted: int) -> Row:
    reached = _features(found, size)
    rng = np.random.default_rng(0)
    some = rng.choice(len(reached.train), min(n_planted, len(reached.train)), replace=False)
    originals = [as_rgb(found.source.read(int(index))) for index in reached.train_indices[some]]
    nearest = nearest_of(reached.train, reached.others)
    mean = reached.train.mean(axis=0)
    of_others = _cosines(reached.train, reached.others, mean).max(axis=1)
    least = least_similarity(nearest.similarities)
    n_above = int((nearest.similarities >= least).sum())
    threshold = float(np.sort(of_others)[-max(1, n_above)])
    shares, plain = {}, {}
    for kind, change in KINDS.items() if originals else ():
        changed = _features_of([change(picture) for picture in originals], size)
        again = nearest_of(reached.train, changed)
        shares[kind] = float(((again.rows == some) & (again.similarities >= least)).mean())
        cosines = _cosines(reached.train, changed, mean)
        plain[kind] = float(((cosines.argmax(axis=1) == some) & (cosines.max(axis=1) >= threshold)).mean())
    order = np.argsort(-nearest.similarities)[:n_above]
    names = found.names
    return Row(
        name=name,
        size=size,
        n_train=len(reached.train),
        n_validation=len(reached.others),
        n_planted=len(some),
        found=shares,
        plain=plain,
        least=least,
        similarities=[round(float(value), 4) for value in nearest.similarities],
        pairs=[
            (
                names[reached.other_indices[row]],
                names[reached.train_indices[nearest.rows[row]]],
                round(float(nearest.similarities[row]), 3),
            )
            for row in order
        ],
    )


def _features(found: Survey, size: int, *, is_split: bool = True) -> Features:
    """Of training and validation pictures, or of all in their order."""
    with tempfile.TemporaryDirectory() as folder:
        bundle = decode(found, [size], cache_dir=folder)
        source = BackboneSource({BACKBONE: find_weights(BACKBONE)}, n_classes=2, seed=0)
        network = source.network(BACKBONE, (size, size))
        order = fair_order(bundle, seed=0) if is_split else np.arange(len(bundle.names))
        return extract(network, bundle, order, (size, size), source.normalisation(BACKBONE), device=torch.device("cpu"))


def _features_of(pictures: list[Picture], size: int) -> Floats:
    """Features of pictures, in their order."""
    listed = survey(Pictures([(picture, number % 2) for number, picture in enumerate(pictures)]))
    reached = _features(listed, size, is_split=False)
    found = np.full((len(pictures), reached.train.shape[1]), np.nan, np.float32)
    found[reached.train_indices], found[reached.other_indices] = reached.train, reached.others
    return found


def _cosines(train: Floats, others: Floats, mean: Floats) -> Floats:
    def unit(features: Floats) -> Floats:
        centred = features - mean
        return np.asarray(centred / np.linalg.norm(centred, axis=1, keepdims=True))

    return np.asarray(unit(others) @ unit(train).T)


def _table(rows: list[Row]) -> str:
    return "\n".join(
        (
            f"| set | px | train | planted | {' | '.join(KINDS)} | least | as they came | their median |",
            "|---|---|---|---|" + "---|" * (len(KINDS) + 3),
            *(
                f"| {row.name} | {row.size} | {row.n_train:,} | {row.n_planted} | "
                + " | ".join(f"{row.found[kind]:.2f}" if row.found else "" for kind in KINDS)
                + f" | {row.least:.2f} | {len(row.pairs)} of {row.n_validation} | {np.median(row.similarities):.2f} |"
                for row in rows
            ),
        )
    )


def _plain_table(rows: list[Row]) -> str:
    return "\n".join(
        (
            f"| set | px | {' | '.join(KINDS)} |",
            "|---|---|" + "---|" * len(KINDS),
            *(
                f"| {row.name} | {row.size} | " + " | ".join(f"{row.plain[kind]:.2f}" for kind in KINDS) + " |"
                for row in rows
                if row.plain
            ),
        )
    )


def _facts(row: Row) -> dict[str, Any]:
    return asdict(row)


if __name__ == "__main__":
    main()

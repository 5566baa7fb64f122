"""Every cell of a grid, one after another, each trained to its end: the baseline of `against_exhaustive`.

The grid crosses backbones, image sizes, numbers of unfrozen blocks and learning rates. A frozen network with its convex
head has no rate: it is one cell, which serves all of them. What was run is kept after each cell: a grid that was
interrupted goes on.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray
from torch import nn

from autobackbone.backbones.head import set_head
from autobackbone.backbones.source import BackboneSource
from autobackbone.backbones.weights import find_weights
from autobackbone.convexhead import Head
from autobackbone.data import DataBundle
from autobackbone.errors import TrialError
from autobackbone.latency.measure import measure
from autobackbone.metrics import Metric, metric_for, score
from autobackbone.records import Body, Candidate, Part, Target
from autobackbone.screening import predict, screen
from autobackbone.training.activations import ActivationCache
from autobackbone.training.stores import Stores
from autobackbone.training.tuner import MAX_EPOCHS, Tuner

# As a search trains what nothing hurries.
N_VIEWS = 2
SEED = 0


class Place(NamedTuple):
    """Where in the grid a cell lies; `lr` is `None` where nothing is unfrozen."""

    backbone: str
    side: int
    n_unfrozen: int
    lr: float | None

    @property
    def body(self) -> Body:
        return Body(self.backbone, (self.side, self.side))


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """What came of one place.

    Args:
        side: pixels of height and width.
        validation: accuracy; `None` where it could not be trained.
        test: accuracy of the whole network; `None` likewise.
        latency_ms: of its backbone at its size, measured once for all cells of the pair.
        seconds: what it cost: of a frozen one the pass and the head; of others the training, and the storing of
            activations for the first one of its pair and depth.
        hits: of each validation picture, in the bundle's order, 1 where it is named rightly and 0 where not, so that
            cells can be compared picture by picture.
        reason: why it could not be trained.
    """

    backbone: str
    side: int
    n_unfrozen: int
    lr: float | None
    validation: float | None
    test: float | None
    latency_ms: float
    seconds: float
    n_epochs: int = 0
    hits: str = ""
    reason: str = ""

    @property
    def place(self) -> Place:
        return Place(self.backbone, self.side, self.n_unfrozen, self.lr)


class Table:
    """The cells that were run, in a JSON file that is written anew after each of them.

    Args:
        path: the file; its cells count if they come from the same machine and versions, on whatever day, and from the
            same pictures in the same parts with the same recipe.
        machine: as `reporting.machine` names it.
        bundle: the pictures and parts.
    """

    def __init__(self, path: Path, machine: str, bundle: DataBundle) -> None:
        self.path = path
        self.machine = machine
        self.trained_on = f"pictures {bundle.digest}, parts {bundle.split_digest}; {MAX_EPOCHS} epochs, {N_VIEWS} views"
        self.cells: dict[Place, Cell] = {}
        if path.is_file():
            self._take_up(json.loads(path.read_text(encoding="utf-8")))

    def add(self, cell: Cell) -> None:
        """Keep a cell."""
        self.cells[cell.place] = cell
        cells = [asdict(cell) for cell in self.cells.values()]
        content = {"machine": self.machine, "trained_on": self.trained_on, "cells": cells}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        aside = self.path.with_suffix(".part")
        aside.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        aside.replace(self.path)
        print(f"grid, cell {len(self.cells)}: {cell}", flush=True)

    def _take_up(self, kept: dict[str, object]) -> None:
        is_same = (_undated(str(kept["machine"])), kept["trained_on"]) == (_undated(self.machine), self.trained_on)
        if not is_same:
            print(f"the grid in {self.path} is of another machine, version or data set: all cells are run anew")
            return
        fields = kept["cells"]
        assert isinstance(fields, list)
        self.machine = str(kept["machine"])
        self.cells = {cell.place: cell for cell in (Cell(**of_cell) for of_cell in fields)}


def _undated(machine: str) -> str:
    return machine.rpartition(";")[0]


def places(
    backbones: Sequence[str], sides: Sequence[int], depths: Sequence[int], rates: Sequence[float]
) -> list[Place]:
    """The grid in the order in which it is run; frozen cells, whose heads are where others start, are always there."""
    every = [
        Place(backbone, side, depth, lr)
        for backbone, side, depth in itertools.product(backbones, sides, sorted({0, *depths}))
        for lr in (rates if depth else (None,))
    ]
    return list(dict.fromkeys(every))


def exhaust(
    wanted: Sequence[Place], table: Table, bundle: DataBundle, target: Target, folder: Path
) -> tuple[Cell, ...]:
    """Run the places that the table does not have.

    Args:
        wanted: from `places`.
        table: takes each cell as soon as it is there.
        bundle: the pictures, decoded to all sizes.
        target: where latency is measured and networks are trained; settled.
        folder: for activations.

    Returns:
        All cells that are wanted, in that order.
    """
    runner = _runner(wanted, bundle, target, folder)
    for _, of_pair in itertools.groupby(wanted, key=lambda place: place.body):
        pair = list(of_pair)
        missing = [place for place in pair if place not in table.cells]
        before = [table.cells[place] for place in pair if place in table.cells]
        for cell in runner.cells(missing, before) if missing else ():
            table.add(cell)
    return tuple(table.cells[place] for place in wanted)


def _runner(wanted: Sequence[Place], bundle: DataBundle, target: Target, folder: Path) -> _Runner:
    backbones = dict.fromkeys(place.backbone for place in wanted)
    n_classes = len(bundle.classes)
    stores = Stores(
        bundle=bundle,
        source=BackboneSource({name: find_weights(name) for name in backbones}, n_classes=n_classes, seed=SEED),
        cache=ActivationCache(folder=folder, max_bytes=10**11),
        device=torch.device(target.device),
        seed=SEED,
    )
    return _Runner(stores=stores, metric=metric_for("accuracy", n_outputs=n_classes), target=target)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Runner:
    """Runs cells, with one store of activations for all of a pair and depth."""

    stores: Stores
    metric: Metric
    target: Target

    def cells(self, missing: Sequence[Place], before: Sequence[Cell]) -> Iterator[Cell]:
        """The missing cells of one backbone at one size, of which others may have been run before."""
        body = missing[0].body
        latency_ms = before[0].latency_ms if before else self._latency_ms(body)
        # Where only its cell is there already, the head is fitted again, and nobody pays for it twice.
        frozen, head = self._frozen(body, latency_ms)
        paid_depths = {cell.n_unfrozen for cell in before}
        for place in missing:
            if place.n_unfrozen in paid_depths:
                self._store(place)
            yield self._tuned(place, head, latency_ms) if place.n_unfrozen else frozen

    def _latency_ms(self, body: Body) -> float:
        network = self.stores.source.network(*body)
        return round(measure(network, body.image_size, self.target).p50_ms, 3)

    def _frozen(self, body: Body, latency_ms: float) -> tuple[Cell, Head]:
        begun = time.monotonic()
        network = self.stores.source.network(*body).to(self.stores.device)
        screened = screen(
            network,
            self.stores.bundle,
            body.image_size,
            self.stores.source.normalisation(body.backbone),
            seed=SEED,
            device=self.stores.device,
            precision=self.target.precision,
        )
        seconds = time.monotonic() - begun
        assert screened is not None, "a validation part and two classes are needed"
        set_head(network, torch.from_numpy(screened.head.weight), torch.from_numpy(screened.head.bias))
        cell = Cell(
            backbone=body.backbone,
            side=body.image_size[0],
            n_unfrozen=0,
            lr=None,
            validation=self._scored(screened.predictions, "validation"),
            test=self._on_test(network, body),
            latency_ms=latency_ms,
            seconds=round(seconds, 2),
            hits=self._hits(screened.predictions),
        )
        return cell, screened.head

    def _tuned(self, place: Place, head: Head, latency_ms: float) -> Cell:
        tuner = Tuner(stores=self.stores, score=lambda answers: self._scored(answers, "validation"))
        candidate = Candidate(
            backbone=place.backbone, image_size=place.body.image_size, n_unfrozen=place.n_unfrozen, lr=place.lr
        )
        begun = time.monotonic()
        validation: float | None = None
        test: float | None = None
        n_epochs, hits, reason = 0, "", ""
        try:
            network, outcome = tuner.tune(candidate, head, n_views=N_VIEWS)
            seconds = time.monotonic() - begun
            validation, n_epochs = outcome.rung_scores[outcome.best_epoch], outcome.n_epochs
            hits = self._hits(outcome.predictions)
            test = self._on_test(network, place.body)
        except TrialError as error:
            seconds, reason = time.monotonic() - begun, str(error)
        return Cell(
            **place._asdict(),
            validation=validation,
            test=test,
            latency_ms=latency_ms,
            seconds=round(seconds, 2),
            n_epochs=n_epochs,
            hits=hits,
            reason=reason,
        )

    def _store(self, place: Place) -> None:
        """What an interrupted run has paid for in another cell, and whose folder is gone: outside of all clocks."""
        if self.stores.is_stored(place.body, place.n_unfrozen):
            return
        network = self.stores.source.network(*place.body).to(self.stores.device)
        split = self.stores.split(network, place.body, place.n_unfrozen)
        if split is not None:
            self.stores.views(split, place.body, place.n_unfrozen, n_views=N_VIEWS, until=None)

    def _on_test(self, network: nn.Module, body: Body) -> float:
        answers = predict(
            network.to(self.stores.device),
            self.stores.bundle,
            self.stores.bundle.indices("test"),
            body.image_size,
            self.stores.source.normalisation(body.backbone),
            device=self.stores.device,
            precision=self.target.precision,
        )
        return self._scored(answers, "test")

    def _hits(self, answers: NDArray[Any]) -> str:
        labels = self.stores.bundle.labels[self.stores.bundle.indices("validation")]
        return "".join("1" if is_right else "0" for is_right in answers.argmax(axis=1) == labels)

    def _scored(self, answers: NDArray[Any], part: Part) -> float:
        labels = self.stores.bundle.labels[self.stores.bundle.indices(part)]
        return score(self.metric, answers, labels)

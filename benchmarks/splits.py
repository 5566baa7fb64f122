"""How many cuts of each timm family hold, so that what is frozen runs once and its output is stored.

One network of each family, random weights with no branch switched off, two real pictures. Each family has a process of
its own, with limits of memory and time, so that one that is too large costs its own row only.

python benchmarks/splits.py
python benchmarks/splits.py --families pit tnt
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import resource
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import groupby
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from families import LARGE, QUICK, SLOW, wake
from PIL import Image
from reporting import write_report
from sklearn.datasets import load_sample_images
from torch import Tensor, nn

from autobackbone.backbones.blocks import blocks_of
from autobackbone.backbones.build import allowed_image_sizes, build, normalisation, outline, own_image_size
from autobackbone.backbones.split import split_at
from autobackbone.errors import AutobackboneError
from autobackbone.exporting.transform import normalise
from autobackbone.memory import memory_errors_translated
from autobackbone.records import ImageSize

HOLDS = "holds"
IN_DOUBLE = "holds in double precision"
ROWS = "several rows enter for a picture, such as windows"
OPENING = """
For each family of timm: how many cuts hold, so that the frozen part of a network runs once and the tail trains on what
is stored. A network of n blocks has n - 1 cuts, one for each `n_unfrozen` from 1 to n - 1; with all blocks unfrozen
nothing is left to store. A cut holds if it is verified as in a search: on two real pictures the tail gives the
network's logits and gradients, and one row is stored for each picture. It may lie before the first layer that trains,
or further up, and then what is frozen between them runs again. Where none holds the whole network trains, and only
speed is lost.

Weights are random, and no branch is switched off. Where they make a network so sensitive to rounding that its gradients
are not repeated in single precision, a cut is verified in double precision. Other networks of a family may have other
cuts; a search verifies its own.
"""
CLOSING = """
What does not hold, by `n_unfrozen`. *Other gradients* or *other logits*: beside what enters the first module that
trains, something behind the cut reads what came before it, such as a skip connection or another scale.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One family.

    Args:
        family: timm's module.
        network: the one that stands for it.
        n_blocks: as a search counts them.
        image_size: height and width in pixels, if it was built.
        found: for each `n_unfrozen` that was tried, from 1 on, `HOLDS` or why it does not.
        ended: why not all were tried; empty if they were.
        has_matcher: whether timm groups its layers; otherwise a block is a stage.
    """

    family: str
    network: str
    n_blocks: int
    image_size: ImageSize | None
    found: list[str]
    ended: str
    has_matcher: bool

    @property
    def n_cuts(self) -> int:
        """How many there are to try."""
        return self.n_blocks - 1

    @property
    def n_hold(self) -> int:
        """How many are verified."""
        return self.found.count(HOLDS) + self.found.count(IN_DOUBLE)


def main() -> None:
    """Try every family and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    parser.add_argument("--side", type=int, default=96, help="of the pictures, where a network can take it")
    parser.add_argument("--seconds", type=float, default=600, help="that one family may take")
    parser.add_argument("--gigabytes", type=float, default=6, help="that one family may take")
    parser.add_argument("--families", nargs="*", help="to try again; all others keep the rows that they have")
    asked = parser.parse_args()
    # Before any process is forked: threads do not survive it.
    torch.set_num_threads(1)
    kept = _kept(asked.out) if asked.families else {}
    rows = []
    for family in sorted(timm.list_modules()):
        is_kept = family in kept and family not in asked.families
        rows.append(kept[family] if is_kept else _row(family, asked))
        print(_line(rows[-1]), flush=True)
    text = _text(rows)
    print(text)
    write_report(asked.out, "splits", text, [asdict(row) for row in rows])


def _kept(folder: Path) -> dict[str, Row]:
    facts = json.loads((folder / "splits.json").read_text(encoding="utf-8"))
    return {fact["family"]: Row(**fact) for fact in facts}


def _row(family: str, asked: argparse.Namespace) -> Row:
    """Try one family in a process of its own; what it told before it ended counts."""
    network = {**QUICK, **SLOW, **LARGE}[family][0]
    skeleton = outline(network)
    facts, ended = _told(network, asked)
    return Row(
        family=family,
        network=network,
        n_blocks=len(blocks_of(skeleton)),
        image_size=facts[0] if facts else None,
        found=facts[1:],
        ended=ended,
        has_matcher=hasattr(skeleton, "group_matcher"),
    )


def _told(network: str, asked: argparse.Namespace) -> tuple[list[Any], str]:
    """The facts of a network as far as its process came, and why it came no further, if so."""
    processes = get_context("fork")
    hears, tells = processes.Pipe(duplex=False)
    process = processes.Process(target=_tell, args=(tells, network, asked))
    process.start()
    tells.close()
    facts: list[Any] = []
    until = time.monotonic() + asked.seconds
    try:
        while hears.poll(max(0.0, until - time.monotonic())):
            facts.append(hears.recv())
    except EOFError:
        process.join()
    else:
        process.kill()
        process.join()
        return facts, f"no more time after {asked.seconds:.0f} s"
    if facts and isinstance(facts[-1], Exception):
        return facts[:-1], str(facts[-1])
    return facts, f"its process ended with code {process.exitcode}" if process.exitcode else ""


def _tell(tells: Connection, network: str, asked: argparse.Namespace) -> None:
    _limit_memory(asked.gigabytes)
    try:
        with memory_errors_translated():
            for fact in _facts_of(network, asked.side):
                tells.send(fact)
    except (AutobackboneError, RuntimeError) as error:
        tells.send(RuntimeError(str(error)))


def _limit_memory(gigabytes: float) -> None:
    n_bytes = int(gigabytes * 2**30)
    resource.setrlimit(resource.RLIMIT_DATA, (n_bytes, n_bytes))


def _facts_of(network: str, side: int) -> Iterator[Any]:
    """The image size, and then for each cut whether it holds."""
    size = next(iter(allowed_image_sizes(network, [(side, side)])), own_image_size(network))
    model = wake(build(network, n_classes=3, image_size=size))
    sample = _pictures(network, size)
    faults = _Faults()
    yield size
    for n_unfrozen in range(1, len(blocks_of(model))):
        yield _found(model, n_unfrozen, sample, faults)


def _pictures(network: str, size: ImageSize) -> Tensor:
    """A temple and a flower (2, 3, height, width), normalised."""
    height, width = size
    resized = [Image.fromarray(picture).resize((width, height)) for picture in load_sample_images().images]
    return normalise(torch.from_numpy(np.stack([np.asarray(picture) for picture in resized])), normalisation(network))


def _found(model: nn.Module, n_unfrozen: int, sample: Tensor, faults: _Faults) -> str:
    faults.seen.clear()
    split = split_at(model, n_unfrozen, sample)
    if split is not None:
        return HOLDS if len(split.prefix(sample)) == len(sample) else ROWS
    # The first one tried lies nearest to what trains.
    fault = faults.seen[0] if faults.seen else "no module holds what trains"
    # Random weights may lie so that rounding turns a ReLU on or off; then the double precision tells.
    split = split_at(copy.deepcopy(model).double(), n_unfrozen, sample.double())
    return fault if split is None or len(split.prefix(sample.double())) != len(sample) else IN_DOUBLE


class _Faults(logging.Handler):
    """Hears why cuts that were tried do not hold."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.seen: list[str] = []
        log = logging.getLogger("autobackbone.backbones.split")
        log.setLevel(logging.DEBUG)
        log.propagate = False
        log.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.append(str(record.args[-1]))  # type: ignore[index]


def _text(rows: Sequence[Row]) -> str:
    n_cuts, n_hold = sum(row.n_cuts for row in rows), sum(row.n_hold for row in rows)
    n_whole = sum(row.n_hold == row.n_cuts for row in rows)
    n_none = sum(row.n_hold == 0 for row in rows)
    n_untried = sum(row.n_cuts - len(row.found) for row in rows)
    summary = (
        f"**{len(rows)} families, {n_cuts} cuts, {n_hold} hold ({n_hold / n_cuts:.0%})**: all of them in {n_whole} "
        f"families, none in {n_none}; {n_untried} could not be tried. timm {version('timm')}, torch {version('torch')}."
    )
    head = ("| family | network | px | blocks | cuts | hold | what does not |", "|---|---|---|---|---|---|---|")
    return "\n".join((summary, OPENING, *head, *map(_line, rows), CLOSING))


def _line(row: Row) -> str:
    side = "–" if row.image_size is None else str(row.image_size[0])
    cells = (row.family, f"`{row.network}`", side, row.n_blocks, row.n_cuts, row.n_hold, _why(row))
    return f"| {' | '.join(map(str, cells))} |"


def _why(row: Row) -> str:
    told = [] if row.has_matcher else ["no `group_matcher`: each stage is a block"]
    numbered = list(enumerate(row.found, 1))
    for reason, group in groupby(numbered, key=lambda pair: pair[1]):
        numbers = [number for number, _ in group]
        if reason != HOLDS:
            told.append(f"{_span(numbers[0], numbers[-1])}: {reason}")
    if len(row.found) < row.n_cuts:
        told.append(f"{_span(len(row.found) + 1, row.n_cuts)}: not tried, {row.ended}")
    return "; ".join(told)


def _span(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}–{last}"


if __name__ == "__main__":
    main()

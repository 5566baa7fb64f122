"""The pictures that a trial gets wrong most surely, as small pictures inside of a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from autobackbone.data import Source, printable
from autobackbone.data.finding import find
from autobackbone.data.pictures import as_rgb, quiet_pillow
from autobackbone.errors import AutobackboneError
from autobackbone.records import Task, counted
from autobackbone.reports.seen import RunSeen, Said
from autobackbone.tasks import names_of

_SIDE = 144
_QUALITY = 80
# What all of them together may add to a page.
_MOST_BYTES = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """One picture.

    Args:
        part: that it is of.
        label: as users write it.
        said: what the trial said instead.
        sureness: how sure it was, or how far off, in words.
        weight: by which the worst come first.
        picture: a `data:` address of a JPEG; `None` where the picture is not at hand.
    """

    name: str
    part: str
    label: str
    said: str
    sureness: str
    weight: float
    picture: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistakes:
    """The worst first, and what is to be said of them."""

    shown: tuple[Mistake, ...]
    n_wrong: int
    n_judged: int
    note: str


def mistakes_of(seen: RunSeen, said: Sequence[Said], n: int, dataset: Any) -> Mistakes:
    """Find them, and their pictures where those are at hand.

    Args:
        seen: the run.
        said: what a trial said of pictures.
        n: how many are shown, at least 0.
        dataset: as it was given to the search; `None` for the path that the run has noted.
    """
    found = [mistake for one in said for mistake in _wrong(one, seen.reader.task, seen.classes)]
    found.sort(key=lambda mistake: (-mistake.weight, mistake.name))
    n_judged = sum(len(one.names) for one in said)
    shown, note = found[:n], ""
    if shown:
        shown, note = _with_pictures(seen, shown, dataset)
    return Mistakes(shown=tuple(shown), n_wrong=len(found), n_judged=n_judged, note=note)


def _wrong(said: Said, task: Task, classes: tuple[str, ...]) -> list[Mistake]:
    if task == "classification":
        return _wrong_classes(said, classes)
    return _wrong_labels(said, classes) if task == "multilabel" else _wrong_numbers(said, classes)


def _wrong_classes(said: Said, classes: tuple[str, ...]) -> list[Mistake]:
    likeliest, rows = said.predictions.argmax(axis=1), np.arange(len(said.labels))
    sure, of_label = said.predictions[rows, likeliest], said.predictions[rows, said.labels]
    return [
        Mistake(
            name=str(said.names[row]),
            part=said.part,
            label=classes[said.labels[row]],
            said=classes[likeliest[row]],
            sureness=f"{100 * sure[row]:.1f} % sure; {100 * of_label[row]:.1f} % for its label",
            weight=float(sure[row]),
        )
        for row in np.flatnonzero(likeliest != said.labels)
    ]


def _wrong_labels(said: Said, classes: tuple[str, ...]) -> list[Mistake]:
    off = np.abs(said.predictions - said.labels)
    worst = off.argmax(axis=1)
    found = []
    for row in np.flatnonzero(off.max(axis=1) > 0.5):
        label = worst[row]
        is_there, is_said = bool(said.labels[row, label]), said.predictions[row] > 0.5
        sure = 100 * (1 - said.predictions[row, label] if is_there else said.predictions[row, label])
        found.append(
            Mistake(
                name=str(said.names[row]),
                part=said.part,
                label=names_of(said.labels[row], classes) or "none",
                said=names_of(is_said, classes) or "none",
                sureness=f"{sure:.1f} % sure that {classes[label]!r} is {'not ' if is_there else ''}there",
                weight=float(off[row, label]),
            )
        )
    return found


def _wrong_numbers(said: Said, classes: tuple[str, ...]) -> list[Mistake]:
    """Those that are off by more than the numbers themselves differ, by their standard deviation; else nothing is
    wrong, only off.
    """
    spread = said.labels.std(axis=0)
    off = np.divide(np.abs(said.predictions - said.labels), spread, out=np.zeros_like(said.labels), where=spread > 0)
    worst = off.argmax(axis=1)
    return [
        Mistake(
            name=str(said.names[row]),
            part=said.part,
            label=f"{classes[worst[row]]} {said.labels[row, worst[row]]:.4g}",
            said=f"{said.predictions[row, worst[row]]:.4g}",
            sureness=f"off by {off[row, worst[row]]:.2g} standard deviations of the labels",
            weight=float(off[row, worst[row]]),
        )
        for row in np.flatnonzero(off.max(axis=1) > 1)
    ]


def _with_pictures(seen: RunSeen, mistakes: list[Mistake], dataset: Any) -> tuple[list[Mistake], str]:
    """The same with their pictures, as far as they are at hand; and what to say where they are not."""
    given = dataset if dataset is not None else seen.facts.get("dataset")
    if given is None:
        return mistakes, "The pictures are not at hand: the run holds no path to them. Give dataset= to see them here."
    try:
        preparation = seen.reader.preparation
        source = find(given, preparation.channels, task=seen.reader.task, label=seen.facts.get("label")).source
    except (AutobackboneError, OSError) as error:
        return mistakes, f"The pictures are not at hand: {error}"
    place = {printable(name): index for index, name in enumerate(source.names)}
    found, left, n_absent = [], _MOST_BYTES, 0
    for mistake in mistakes:
        picture = _picture(source, place.get(mistake.name), seen)
        n_absent += picture is None
        if picture is not None and len(picture) <= left:
            left -= len(picture)
            mistake = replace(mistake, picture=picture)  # noqa: PLW2901
        found.append(mistake)
    note = ""
    if n_absent:
        note = f"{counted(n_absent, 'picture')} of these cannot be shown: not in the dataset any more, or unreadable."
    return found, note


def _picture(source: Source, index: int | None, seen: RunSeen) -> str | None:
    """A `data:` address; `None` where the picture cannot be had."""
    if index is None:
        return None
    preparation = seen.reader.preparation
    try:
        with quiet_pillow():
            whole = as_rgb(source.read(index), value_range=preparation.value_range, channels=preparation.channels)
    except Exception:  # noqa: BLE001  decoders meet broken bytes with any exception
        return None
    return as_address(whole)


def as_address(picture: Image.Image) -> str:
    """A small copy of a picture as a `data:` address, without anything but its pixels."""
    small = picture.convert("RGB")
    small.thumbnail((_SIDE, _SIDE))
    clean: NDArray[np.uint8] = np.asarray(small)
    written = io.BytesIO()
    Image.fromarray(clean).save(written, format="JPEG", quality=_QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(written.getvalue()).decode('ascii')}"

"""What a person should look at again, as tables: labels that are probably wrong, and copies that contradict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from autobackbone.data import PART_CODES, contradicting
from autobackbone.errors import ArgumentError, RunError
from autobackbone.loading import RunReader
from autobackbone.metrics import Metric
from autobackbone.records import Trial
from autobackbone.search import trialfiles
from autobackbone.search.frozen import judges_of
from autobackbone.suspicion import mean_known, suspicion_of
from autobackbone.tasks import names_of


def suspects(reader: RunReader, trials: Sequence[Trial], metric: Metric, n: int) -> pd.DataFrame:
    """Labels that are probably wrong, as `Selection.suspects` tells it.

    Raises:
        ArgumentError: `n` is no whole number above 0.
        RunError: nothing is screened yet.
    """
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise ArgumentError(f"n is how many suspects are wanted, a whole number above 0; {n!r} came.")
    judges = judges_of(trials, metric)
    if not judges:
        raise RunError("no frozen network is screened yet: let the search go on, and ask again.")
    pictures = trialfiles.read_pictures(reader.run)
    labels = reader.all_labels()
    parts = pictures["part"].to_numpy()
    said = mean_known([_said(reader, judge, parts) for judge in judges])
    found = suspicion_of(said, labels, reader.task)
    rows = found.pictures[:n]
    shown = [_shown(reader, labels[row], said[row], found.outputs[place]) for place, row in enumerate(rows)]
    # pandas shows the first and the last of what is too wide for a terminal: those that are read first stand there.
    return pd.DataFrame(
        {
            "name": pictures["name"].to_numpy()[rows],
            "label": pd.Series([label for label, _ in shown], dtype=None if shown else "object"),
            "label_probability": found.given[:n],
            "part": parts[rows],
            "suggested_probability": found.suggested[:n],
            "suggested": pd.Series([suggested for _, suggested in shown], dtype=None if shown else "object"),
            "score": found.scores[:n],
        }
    )


def contradictions(reader: RunReader) -> pd.DataFrame:
    """Copies of one picture with different labels, as `Selection.contradictions` tells it.

    Raises:
        RunError: the run has not looked for copies, or what it notes of its pictures is damaged.
    """
    pictures = trialfiles.read_pictures(reader.run)
    labels = reader.all_labels()
    copies = trialfiles.copies_noted(reader.run, reader.run.read_facts(), len(pictures))
    if copies is None:
        raise RunError(
            f"the run {str(reader.run.path)!r} has not looked for copies: its notes tell how much time that takes. "
            "Search with more time in another run_dir."
        )
    parts = pictures["part"].to_numpy()
    used = np.flatnonzero(np.isin(parts, list(PART_CODES)))
    groups = contradicting(copies[used], labels[used], reader.task)
    sizes = np.array([len(group) for group in groups], np.int64)
    rows = used[np.array([place for group in groups for place in group], np.int64)]
    shown = [_named(reader, labels[row]) for row in rows]
    return pd.DataFrame(
        {
            "name": pictures["name"].to_numpy()[rows],
            "part": parts[rows],
            "label": pd.Series(shown, dtype=None if shown else "object"),
            "group": np.repeat(np.arange(len(groups)), sizes),
        }
    )


def _said(reader: RunReader, judge: Trial, parts: NDArray[Any]) -> NDArray[np.float32]:
    """What a judge says of pictures that it has not seen, (n_images, n_outputs); NaN of all others."""
    said = np.full((len(parts), len(reader.classes)), np.nan, np.float32)
    said[parts == "validation"] = reader.predictions(judge, "validation")
    out_of_fold = reader.out_of_fold(judge)
    if out_of_fold is not None:
        said[parts == "train"] = out_of_fold
    return said


def _shown(reader: RunReader, label: Any, said: NDArray[np.float64], output: int) -> tuple[Any, Any]:
    """A label and what is suggested instead, as users write them."""
    classes = reader.classes
    if reader.task == "classification":
        return _named(reader, label), classes[output]
    if reader.task == "multilabel":
        suggested = np.where(np.arange(len(classes)) == output, 1 - label, label)
        return _named(reader, label), _named(reader, suggested)
    if len(classes) == 1:
        return float(label[0]), float(said[0])
    return f"{classes[output]} {label[output]:.6g}", f"{classes[output]} {said[output]:.6g}"


def _named(reader: RunReader, label: Any) -> str | int:
    """A class, or the labels of one picture in one text."""
    return reader.classes[label] if reader.task == "classification" else names_of(label, reader.classes)

"""Validation pictures that look like training pictures: told and kept, and nothing else is done about them."""

from __future__ import annotations

import numpy as np
import pandas as pd

from autobackbone.data import DataBundle, printable
from autobackbone.errors import RunError, TrialError
from autobackbone.memory import memory_errors_translated
from autobackbone.runfolder import RunFolder, write_text
from autobackbone.screening import Features
from autobackbone.search.workshop import Workshop
from autobackbone.similarity import expected_s, least_similarity, nearest_of

_MOST_PICTURES = 20_000
# Of the time left.
_SHARE = 0.02
_MOST_S = 5.0
# Of validation pictures: where so many look like a training picture, the network may see all pictures alike. Of real
# sets and pre-trained networks 4 % do at most (docs/benchmarks/similar.md).
_NEARLY_ALL = 0.9
_COLUMNS = ("name", "part", "other_name", "other_part", "similarity")


def note_similar(shop: Workshop, reached: Features) -> None:
    """Look once in a run which validation pictures look like a training picture, where that takes little of the time.

    Copies that were found before are told already, and not among them. Nothing of the split changes.

    Args:
        shop: of the run.
        reached: features of a whole network, as they came out of it.
    """
    if shop.run.similar_file.is_file() or len(reached.others) == 0 or len(reached.train) == 0:
        return
    n_train, n_features = reached.train.shape
    if n_train > _MOST_PICTURES:
        return
    allowed_s = min(_MOST_S, _SHARE * shop.clock.left_s())
    if expected_s(n_train, len(reached.others), n_features) > allowed_s:
        return
    try:
        with memory_errors_translated():
            table = _similar(shop.bundle, reached)
        write_text(shop.run.similar_file, table.to_csv(index=False))
    except (TrialError, OSError) as error:  # whoever fits a head, or writes one, tells it
        shop.reporter.say(f"similar pictures were not looked for: {error}")
        return
    if len(table):
        shop.reporter.say(similar_line(table, len(reached.others)))


def read_similar(run: RunFolder) -> pd.DataFrame:
    """Pairs of a validation picture and the training picture it looks like, the most similar first.

    Raises:
        RunError: nothing was looked for, or the table is damaged.
    """
    if not run.similar_file.is_file():
        raise RunError(
            f"the run {str(run.path)!r} has not looked for similar pictures: it does so with the first network that it "
            f"screens, among up to {_MOST_PICTURES:,} training pictures, where that takes less than "
            f"{100 * _SHARE:.0f} % of the time. Search with more time in another run_dir."
        )
    try:
        table = pd.read_csv(run.similar_file, dtype=dict.fromkeys(_COLUMNS[:4], str), keep_default_na=False)
        return table.astype({"similarity": "float64"})[list(_COLUMNS)]
    except (OSError, ValueError, KeyError) as error:
        raise RunError(
            f"{str(run.similar_file)!r} cannot be read ({error}). Put it back as the search wrote it, or remove it."
        ) from error


def similar_line(table: pd.DataFrame, n_validation: int) -> str:
    """One line for users, of a table with at least one row, found among so many validation pictures."""
    name, _, other, _, _ = table.iloc[0]
    look, least = "looks" if len(table) == 1 else "look", table["similarity"].min()
    told = (
        f"{len(table):,} of {n_validation:,} validation pictures {look} much like a training picture (similarity "
        f"{least:.2f} and more), such as '{name}' and '{other}':"
    )
    if len(table) >= _NEARLY_ALL * n_validation:
        return (
            f"{told} so many say little, as a small network, or one of random weights, sees most pictures alike; look "
            "at some, and give groups= if they do show the same objects, as frames of one film"
        )
    return f"{told} if they show the same object, scores flatter; give groups= to keep it in one part"


def _similar(bundle: DataBundle, reached: Features) -> pd.DataFrame:
    found = nearest_of(reached.train, reached.others)
    ours, theirs = reached.other_indices, reached.train_indices[found.rows]
    is_near = found.similarities >= least_similarity(found.similarities)
    if bundle.copies is not None:
        is_near &= bundle.copies[ours] != bundle.copies[theirs]
    order = np.flatnonzero(is_near)[np.argsort(-found.similarities[is_near], kind="stable")]
    rows = [
        (
            printable(bundle.names[ours[row]]),
            "validation",
            printable(bundle.names[theirs[row]]),
            "train",
            round(float(found.similarities[row]), 4),
        )
        for row in order
    ]
    return pd.DataFrame(rows, columns=list(_COLUMNS))

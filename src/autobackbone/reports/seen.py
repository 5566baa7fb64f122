"""What of a run is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autobackbone.choosing import Choice
from autobackbone.errors import RunError
from autobackbone.loading import RunReader
from autobackbone.metrics import Metric
from autobackbone.optimism import Optimism
from autobackbone.records import ImageSize, Trial
from autobackbone.search import trialfiles


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSeen:
    """A run as it stands: begun, cut off or ended.

    Args:
        reader: of its folder.
        facts: of its `run.json`.
        target: where latencies were measured, in one line.
        metric: of the scores.
        trials: all of them, in order of number.
        front: fastest first; empty while none has finished.
        choice: the trial to use, and why; `None` while none has finished, or where none keeps the limits.
        unchosen: why there is no choice; empty where there is one.
        optimism: how much its scores flatter; `None` where no trial is confirmed.
        advice: sentences on what overfits.
        stage_seconds: of each stage, in their order; empty of a run that has not noted them.
        has_ended: whether its budget was spent to its end.
    """

    reader: RunReader
    facts: Mapping[str, Any]
    target: str
    metric: Metric
    trials: tuple[Trial, ...]
    front: tuple[Trial, ...]
    choice: Choice | None
    unchosen: str
    optimism: Optimism | None
    advice: tuple[str, ...]
    stage_seconds: Mapping[str, float] = field(default_factory=dict)
    has_ended: bool = False

    @property
    def finished(self) -> list[Trial]:
        """Those that have a score and a latency."""
        return [
            one
            for one in self.trials
            if one.state == "finished" and one.score is not None and one.latency_ms is not None
        ]

    @property
    def chosen(self) -> Trial | None:
        """The trial to use."""
        return None if self.choice is None else self.choice.trial

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of classes, labels or numbers."""
        return tuple(map(str, self.reader.classes))

    @property
    def image_sizes(self) -> dict[str, tuple[ImageSize, ...]]:
        """What the search could choose from, by backbone."""
        return {name: tuple((int(h), int(w)) for h, w in of) for name, of in self.facts["image_sizes"]}

    @property
    def whys(self) -> dict[str, str]:
        """What spoke for each backbone; runs from before this was noted say nothing."""
        noted = self.facts.get("whys")
        return {str(name): str(why) for name, why in noted.items()} if isinstance(noted, Mapping) else {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a trial said of some pictures that it was not trained on.

    Args:
        part: `validation`, `test`, or `folds` over training and validation pictures.
        names: n names.
        predictions: (n, n_outputs), none of them missing.
        labels: (n,) or (n, k).
    """

    part: str
    names: NDArray[Any]
    predictions: NDArray[np.float64]
    labels: NDArray[Any]

    def only(self, is_kept: NDArray[np.bool_]) -> Said:
        """Some of the pictures; `is_kept` is (n,)."""
        kept = {"names": self.names[is_kept], "predictions": self.predictions[is_kept], "labels": self.labels[is_kept]}
        return Said(part=self.part, **kept)


def said_of(seen: RunSeen, trial: Trial) -> list[Said]:
    """What is kept of a trial: by folds where it has them, else of the validation part; and of the test part.

    What is not there, or damaged, is left out: the rest of a run is still good.
    """
    ways = ("folds" if trial.fold_score is not None else "validation", "test")
    found = []
    for part in ways:
        try:
            one = said_part(seen, trial, part)
        except RunError:
            continue
        if one is not None and len(one.names):
            found.append(one)
    return found


def said_part(seen: RunSeen, trial: Trial, part: str) -> Said | None:
    """What is kept of a trial of `validation`, `test` or `folds`; `None` where nothing is.

    Raises:
        RunError: it is damaged.
    """
    reader = seen.reader
    pictures = trialfiles.read_pictures(reader.run)
    if part == "folds":
        repeats = reader.fold_predictions(trial).astype(np.float64)
        # Of several repeats each picture counts once: the mean of what was said.
        is_known = ~np.isnan(repeats).any(axis=(0, 2))
        predictions, labels = repeats.mean(axis=0), reader.pooled_labels()
        names = pictures["name"][pictures["part"].isin(["train", "validation"])].to_numpy()
    else:
        wanted: Any = part
        if not reader.has_predictions(trial, wanted):
            return None
        predictions, labels = reader.predictions(trial, wanted).astype(np.float64), reader.labels(wanted)
        is_known = ~np.isnan(predictions).any(axis=1)
        names = pictures["name"][pictures["part"] == part].to_numpy()
    return Said(part=part, names=names[is_known], predictions=predictions[is_known], labels=labels[is_known])

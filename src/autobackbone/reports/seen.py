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

_FILES = {"validation": trialfiles.VALIDATION, "test": trialfiles.TEST, "folds": trialfiles.FOLDS}


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
        n_untimely: pairs of network and image size that were not screened for want of time; `None` where that is not
            noted.
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
    n_untimely: int | None = None
    # Read once: of a thousand trials the same few columns are needed.
    _pictures: dict[str, tuple[NDArray[Any], NDArray[Any]]] = field(default_factory=dict, repr=False, compare=False)

    def pictures(self, part: str) -> tuple[NDArray[Any], NDArray[Any]]:
        """Names and labels of a part, or of `folds`, in the order of predictions; read once.

        Raises:
            RunError: the table is not there, or is none.
        """
        if part not in self._pictures:
            parts = ("train", "validation") if part == "folds" else (part,)
            table = trialfiles.read_pictures(self.reader.run)
            is_in = table["part"].isin(parts).to_numpy()
            self._pictures[part] = table["name"].to_numpy()[is_in], self.reader.all_labels()[is_in]
        return self._pictures[part]

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
    run, n_outputs = seen.reader.run, len(seen.reader.classes)
    if not trialfiles.is_kept(run, trial.number, _FILES[part]):
        return None
    names, labels = seen.pictures(part)
    if part == "folds":
        repeats = trialfiles.load_folds(run, trial.number, (len(names), n_outputs)).astype(np.float64)
        # Of several repeats each picture counts once: the mean of what was said; NaN where one has not reached it.
        predictions = repeats.mean(axis=0)
    else:
        shape = (len(names), n_outputs)
        predictions = trialfiles.load_predictions(run, trial.number, _FILES[part], shape=shape).astype(np.float64)
    said = Said(part=part, names=names, predictions=predictions, labels=labels)
    return said.only(np.isfinite(predictions).all(axis=1))

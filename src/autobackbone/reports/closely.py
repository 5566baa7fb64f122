"""What a page tells of one trial when it is picked: its facts, its learning curve, what it takes for what."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from autobackbone.choosing import front_line, scored_on
from autobackbone.metrics import Metric, scale_of, shown, to_maximised
from autobackbone.metrics.details import LabelScore, NumberScore, confusions, label_scores, number_scores
from autobackbone.records import Trial, shown_megabytes
from autobackbone.reports.seen import RunSeen, Said, said_of
from autobackbone.trialframe import searched

# Classes of which a table of all pairs can be read; of more, the pairs that are taken for each other most.
_MOST_CLASSES = 24
_N_PAIRS = 20
# Points of one picture of predicted against true numbers.
_MOST_POINTS = 300
_MOST_NUMBERS = 200_000

Plain = dict[str, Any]
"""What JSON can hold."""


def close_ups(seen: RunSeen, trials: Sequence[Trial]) -> dict[int, list[Plain]]:
    """Of each trial, the worthiest first, what its predictions come to, as long as a page stays small."""
    found: dict[int, list[Plain]] = {}
    left = _MOST_NUMBERS
    for trial in trials:
        told = [_close_up(seen, one) for one in said_of(seen, trial)]
        left -= sum(map(_size, told))
        if left < 0:
            break
        found[trial.number] = told
    return found


def rows_of(trial: Trial, metric: Metric) -> list[tuple[str, str]]:
    """Its facts as they are read, one a row."""
    depth = "frozen: its head alone was fitted"
    if trial.n_unfrozen:
        depth = f"{trial.n_unfrozen} of {trial.n_blocks} blocks trained"
    validated = _with_error(trial.score, trial.score_se, metric)
    told: list[tuple[str, str | None]] = [
        ("backbone", trial.backbone),
        ("blocks kept", None if trial.n_blocks_kept is None else f"the first {trial.n_blocks_kept}"),
        ("image size", f"{trial.image_size[0]} × {trial.image_size[1]} px (height × width), {trial.resize}"),
        ("depth", depth),
        ("learning rate", _formed(trial.lr, ".2e")),
        ("epochs", str(trial.n_epochs) if trial.n_epochs else None),
        *((name.replace("_", " "), _value(value)) for name, value in searched(trial).items()),
        (f"{metric.name} in validation", None if validated is None else f"{validated}{scored_on(trial)}"),
        ("balanced accuracy", None if trial.balanced_score is None else f"{100 * trial.balanced_score:.1f} %"),
        (f"{metric.name} by folds", _with_error(trial.fold_score, trial.fold_se, metric)),
        (f"{metric.name} in test", tested(trial, metric)),
        ("latency", latency_of(trial)),
        ("preparing a picture", _formed(trial.preprocess_ms, ".2f", " ms")),
        ("throughput", _formed(trial.images_per_s, ",.0f", " pictures/s")),
        ("parameters", _formed(trial.n_params, ",d")),
        ("weights", None if trial.megabytes is None else f"{shown_megabytes(trial.megabytes)} MB"),
        ("training took", _formed(trial.train_seconds, ",.0f", " s")),
        ("overfits", "yes: validation fell while training went on" if trial.overfits else None),
        ("remark", trial.reason or None),
    ]
    return [(name, value) for name, value in told if value is not None]


def latency_of(trial: Trial) -> str | None:
    """Median, noise and 95th percentile."""
    if trial.latency_ms is None:
        return None
    noise = f" ± {trial.latency_noise_ms:.2f}" if trial.latency_noise_ms else ""
    slow = f" (95 of 100 passes within {trial.latency_p95_ms:.2f} ms)" if trial.latency_p95_ms is not None else ""
    return f"{trial.latency_ms:.2f}{noise} ms{slow}"


def tested(trial: Trial, metric: Metric) -> str | None:
    """Test score and its interval; `None` where it is not confirmed."""
    if trial.test_score is None or trial.test_score_low is None or trial.test_score_high is None:
        return None
    low, high = shown(metric, trial.test_score_low), shown(metric, trial.test_score_high)
    return f"{shown(metric, trial.test_score)} (95 %: {low} to {high})"


def curve_of(trial: Trial, metric: Metric) -> Plain | None:
    """Scores after each epoch, as axes show them; `None` where it was not trained in epochs."""
    if not trial.rung_scores:
        return None
    factor = scale_of(metric)[0]
    scaled = [[_plain(factor * score) for score in of] for of in (trial.rung_scores, trial.train_scores)]
    return {"validation": scaled[0], "train": scaled[1]}


def worthiest_first(trials: Sequence[Trial], chosen: Trial | None, metric: Metric) -> list[Trial]:
    """The chosen one, the front, then by score: what is told closely as long as there is room."""

    def place(trial: Trial) -> tuple[bool, bool, float, int]:
        is_chosen = chosen is not None and trial.number == chosen.number
        return not is_chosen, not trial.on_front, -to_maximised(metric, trial.score or 0.0), trial.number

    return sorted(trials, key=place)


def one_line(trial: Trial, metric: Metric) -> str:
    """What it is, for a label."""
    return " ".join(front_line(trial, metric, is_chosen=False).split())


def _close_up(seen: RunSeen, said: Said) -> Plain:
    known = {"part": said.part, "n": len(said.names)}
    if seen.reader.task == "classification":
        return known | _taken_for(said, seen.classes)
    if seen.reader.task == "multilabel":
        scores = label_scores(said.predictions, said.labels)
        return known | {"labels": [_label_row(*one) for one in zip(seen.classes, scores, strict=True)]}
    return known | _against_truth(said, seen.classes)


def _taken_for(said: Said, classes: Sequence[str]) -> Plain:
    counts = confusions(said.predictions, said.labels)
    if len(classes) <= _MOST_CLASSES:
        return {"matrix": counts.tolist()}
    wrong = counts - np.diag(np.diag(counts))
    order = np.argsort(-wrong, axis=None, kind="stable")[:_N_PAIRS]
    pairs = [divmod(int(place), len(classes)) for place in order]
    return {
        "pairs": [[classes[i], classes[j], int(wrong[i, j]), int(counts[i].sum())] for i, j in pairs if wrong[i, j]]
    }


def _label_row(name: str, score: LabelScore) -> list[Any]:
    return [name, score.n, *map(_share, (score.precision, score.recall, score.average_precision))]


def _against_truth(said: Said, targets: Sequence[str]) -> Plain:
    """Evenly spaced pictures in order of the truth, so that both ends are seen."""
    return {
        "numbers": [
            _target(name, said.labels[:, column], said.predictions[:, column], score)
            for column, (name, score) in enumerate(
                zip(targets, number_scores(said.predictions, said.labels), strict=True)
            )
        ]
    }


def _target(name: str, truth: Any, said: Any, score: NumberScore) -> Plain:
    order = np.argsort(truth, kind="stable")
    taken = order[np.unique(np.linspace(0, len(order) - 1, min(len(order), _MOST_POINTS)).astype(int))]
    error = f"mean absolute error {score.mean_absolute_error:.4g}, bias {score.bias:+.4g}"
    return {
        "name": name,
        "points": [[float(f"{truth[row]:.5g}"), float(f"{said[row]:.5g}")] for row in taken],
        "caption": f"{error}; the numbers themselves have a standard deviation of {score.spread:.4g}",
    }


def _size(told: Plain) -> int:
    """Numbers in it, about."""
    rows = [*told.get("matrix", ()), *told.get("pairs", ()), *told.get("labels", ())]
    return sum(map(len, rows)) + sum(2 * len(target["points"]) for target in told.get("numbers", ()))


def _with_error(value: float | None, error: float | None, metric: Metric) -> str | None:
    if value is None:
        return None
    if error is None or not math.isfinite(error):
        return shown(metric, value)
    scale, unit = scale_of(metric)
    return f"{shown(metric, value)} ± {scale * error:.2g}{unit}"


def _formed(value: float | None, form: str, unit: str = "") -> str | None:
    return None if value is None or not math.isfinite(value) else f"{value:{form}}{unit}"


def _value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _share(value: float) -> str:
    return f"{100 * value:.1f} %" if math.isfinite(value) else "–"


def _plain(value: float) -> float | None:
    """JSON knows no NaN."""
    return round(value, 6) if math.isfinite(value) else None

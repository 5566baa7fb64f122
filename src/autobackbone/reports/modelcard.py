"""What stands beside a network that is given away: a model card as the Hugging Face Hub reads it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from autobackbone.backbones.licences import licence_note
from autobackbone.backbones.names import pretrained_cfg
from autobackbone.choosing import as_they_stand, name_of, scored_on
from autobackbone.errors import ArgumentError
from autobackbone.judging import has_folds
from autobackbone.metrics import Metric, shown
from autobackbone.records import Task, Trial, shown_megabytes
from autobackbone.reports.seen import RunSeen
from autobackbone.runfolder import written_whole
from autobackbone.showing import harmless

# What the hub calls each task; it has no name for numbers.
_TASKS: Mapping[Task, str | None] = {
    "classification": "image-classification",
    "multilabel": "image-classification",
    "regression": None,
}
_FILE = "README.md"
# Licences whose names are the hub's own; another one is "other", and is named in words.
_HUB_LICENCES = frozenset(
    {"apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0"}
)
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|#&!])")


def save_model_card(seen: RunSeen, trial: Trial, folder: Path) -> None:
    """Write `README.md` into a folder, whole or not at all.

    Raises:
        ArgumentError: it cannot be written.
    """
    text = model_card(seen, trial)
    try:
        with written_whole(folder / _FILE) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ArgumentError(f"cannot write to {str(folder)!r}: {error}. Name a folder that can be written.") from error


def model_card(seen: RunSeen, trial: Trial) -> str:
    """A model card of a trial of a timm backbone: scores, the front it comes from, data digest, licence of the weights.

    It names no path, and what pictures or classes are called stands where nothing is read as Markdown.

    Args:
        seen: of the run.
        trial: whose network it is.

    Returns:
        Markdown that begins with the hub's metadata.
    """
    cfg = pretrained_cfg(trial.backbone)
    licence = cfg.license or "unknown"
    is_known = licence in _HUB_LICENCES
    data = ModelCardData(
        model_name=f"{trial.backbone}, tuned",
        library_name="timm",
        pipeline_tag=_TASKS[seen.reader.task],
        tags=["timm", "autobackbone"],
        license=licence if is_known else "other",
        license_name=None if is_known else licence,
        base_model=cfg.hf_hub_id or None,
        eval_results=[_result(seen, trial)],
    )
    return f"---\n{data.to_yaml()}\n---\n\n{_body(seen, trial, licence)}"


def _result(seen: RunSeen, trial: Trial) -> EvalResult:
    """The score on the test part, or on the validation part where it was not confirmed."""
    value = trial.score if trial.test_score is None else trial.test_score
    return EvalResult(
        task_type=_TASKS[seen.reader.task] or seen.reader.task,
        dataset_type="imagefolder",
        dataset_name=f"pictures of digest {_plain(seen.facts['data_digest'])[:12]}",
        dataset_split="validation" if trial.test_score is None else "test",
        metric_type=_plain(seen.metric.name),
        metric_value=value,
    )


def _body(seen: RunSeen, trial: Trial, licence: str) -> str:
    note = licence_note(licence)
    unknown = f" ({note})" if note else ""
    depth = (
        "frozen, with a linear head of its own"
        if trial.n_unfrozen == 0
        else f"the last {trial.n_unfrozen} of {trial.n_blocks} blocks fine-tuned at a learning rate of {trial.lr:.1e}"
    )
    (height, width), preparation = trial.image_size, seen.reader.preparation
    return f"""# {trial.backbone}, tuned by autobackbone

`{trial.backbone}` of [timm](https://github.com/huggingface/pytorch-image-models), {depth}.
Pictures are resized to {height} × {width} px ({preparation.resize}, {preparation.interpolation}).
A search over backbones, depths and learning rates has found it.

## Use

```python
import timm

model = timm.create_model("hf-hub:OWNER/NAME", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
```

Its outputs are {_outputs(seen)}:

{_listed(seen.classes)}

## How good it is

{_scores(seen, trial)}

## The front it comes from

Latencies on {_plain(seen.target)}.

{_front(seen, trial)}

## Data and licence

- Digest of the pictures and labels: {_plain(seen.facts["data_digest"])}.
- Licence of the pre-trained weights, as timm names it: {licence}{unknown}. What was tuned from them is bound by it.
  The pictures have a licence of their own.
- Versions: {_versions(seen.facts)}.
"""


def _outputs(seen: RunSeen) -> str:
    return {
        "classification": "logits of classes, whose softmax are probabilities, in this order",
        "multilabel": "logits of labels, the sigmoid of each its probability, in this order",
        "regression": "numbers in the labels' own units, in this order",
    }[seen.reader.task]


def _listed(classes: tuple[str, ...]) -> str:
    """In an indented block, where nothing is read as Markdown or HTML."""
    return "\n".join(f"    {json.dumps(name, ensure_ascii=True)}" for name in classes)


def _scores(seen: RunSeen, trial: Trial) -> str:
    metric, name = seen.metric, _plain(seen.metric.name)
    is_by_it = seen.chosen is not None and seen.chosen.number == trial.number and not has_folds(seen.front)
    part = "Validation part, by which it was chosen" if is_by_it else "Validation part"
    lines = [f"- {part}: {name} {_with_error(metric, trial.score, trial.score_se)}{scored_on(trial)}"]
    if trial.fold_score is not None:
        lines.append(f"- By folds: {name} {_with_error(metric, trial.fold_score, trial.fold_se)}")
    if trial.test_score is not None and trial.test_score_low is not None and trial.test_score_high is not None:
        low, high = shown(metric, trial.test_score_low), shown(metric, trial.test_score_high)
        lines.append(
            f"- Test part, which the search has not seen: {name} {shown(metric, trial.test_score)} "
            f"(95 % interval {low} to {high})"
        )
    return "\n".join(lines)


def _with_error(metric: Metric, score: float | None, error: float | None) -> str:
    if score is None:
        return "none"
    return (
        shown(metric, score) if error is None else f"{shown(metric, score)} ± {shown(metric, error)} (standard error)"
    )


def _front(seen: RunSeen, trial: Trial) -> str:
    rows = [f"| | network | latency, ms | {_plain(seen.metric.name)} | MB |", "|---|---|---|---|---|"]
    for one in as_they_stand(seen.front) if has_folds(seen.front) else seen.front:
        mark = "this" if one.number == trial.number else ""
        score = "" if one.score is None else f"{shown(seen.metric, one.score)}{scored_on(one)}"
        latency = "" if one.latency_ms is None else f"{one.latency_ms:.2f}"
        megabytes = "" if one.megabytes is None else shown_megabytes(one.megabytes)
        rows.append(f"| {mark} | {_plain(name_of(one))} | {latency} | {score} | {megabytes} |")
    return "\n".join(rows)


def _versions(facts: Mapping[str, Any]) -> str:
    noted = facts.get("versions")
    return (
        ", ".join(f"{_plain(name)} {_plain(of)}" for name, of in noted.items())
        if isinstance(noted, Mapping)
        else "unknown"
    )


def _plain(text: object) -> str:
    """A run may be anybody's: what it says stays text, in one line."""
    return _SPECIAL.sub(r"\\\1", " ".join(harmless(str(text)).split()))

"""What `run.json` and `pictures.csv` hold: written once when a run begins, checked when it is continued."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from autobackbone.backbones.every import Backbones
from autobackbone.backbones.weights import GivenWeights
from autobackbone.choosing import settled_tolerance
from autobackbone.data import PART_CODES, Codes, DataBundle, PartSource, groups_of, n_streamed, printable
from autobackbone.errors import RunError
from autobackbone.latency.target import hardware
from autobackbone.loading import OWN_BACKBONES, noted_own
from autobackbone.preparing import Known, Prepared
from autobackbone.runfolder import RunFolder
from autobackbone.search.trialfiles import copies_noted, read_pictures, write_pictures
from autobackbone.search.warmstart import WarmStart
from autobackbone.settings import Settings

_PACKAGES = (
    "autobackbone",
    "torch",
    "torchvision",
    "timm",
    "optuna",
    "pytorch-lightning",
    "scikit-learn",
    "numpy",
    "pillow",
    "imagehash",
)
_COSTS = "costs"
_WARM_START = "warm_start"


def begin_or_continue(
    run: RunFolder, prepared: Prepared, bundle: DataBundle, storage: Mapping[str, str] | None = None
) -> None:
    """Write the facts of a new run, or check that an old one goes on with the same data and arguments.

    Args:
        run: its folder.
        prepared: what is searched.
        bundle: its data.
        storage: the server and the study of a new run, where that is no file.

    Raises:
        RunError: the dataset or an argument that decides what is comparable has changed.
    """
    if run.exists():
        _check_same(run, prepared, bundle)
        _write_pictures(run, bundle)  # the same as before: were it lost or damaged, that would be told only at the end
        return
    _write_pictures(run, bundle)
    # Last: it says that a run is here.
    run.write_facts({**_facts(prepared, bundle), "storage": storage})


def note_added(run: RunFolder, prepared: Prepared) -> None:
    """Write down which backbones a run has now: after its study has taken over, so that a refusal changes nothing."""
    facts = run.read_facts()
    own = {**noted_own(run, facts), **_own(prepared.settings)}
    run.write_facts({**facts, "image_sizes": _image_sizes(prepared), OWN_BACKBONES: own})


def note_storage(run: RunFolder, storage: Mapping[str, str]) -> None:
    """Write down in which server the study is, where that has another address now."""
    facts = run.read_facts()
    if facts.get("storage") != storage:
        run.write_facts({**facts, "storage": storage})


def note_measured(run: RunFolder, settings: Settings) -> str | None:
    """Write down that a run which took its costs from another one measures them from now on; what to say of that,
    `None` where it is not so.
    """
    facts = run.read_facts()
    before = facts["arguments"].get(_COSTS)
    if before is None or settings.costs is not None:
        return None
    note = "a later sitting measured latencies and seconds itself"
    if note not in facts["notes"]:
        run.write_facts({**facts, "notes": [*facts["notes"], note]})
    return f"latencies and seconds are measured from here on, no more those that {before!r} recorded"


def known(run: RunFolder, settings: Settings) -> Known:
    """What a run has settled for those who continue it.

    Raises:
        RunError: an argument that decides what is comparable has changed.
    """
    facts = run.read_facts()
    if not facts["image_sizes"] or not all(of for _, of in facts["image_sizes"]):
        raise run.damaged("'image_sizes' must name at least one backbone with a size")
    asked = settings.decisive()
    changed = [
        f"{name}={before!r} (now {asked.get(name)!r})"
        # Runs from before these were noted had none.
        for name, before in {"trainer_kwargs": {}, **facts["arguments"]}.items()
        # Without costs it is measured from then on: they may be gone, or end where the run is to go on.
        if asked.get(name) != before and not (name == _COSTS and settings.costs is None)
    ]
    if changed:
        raise RunError(
            f"the run {str(run.path)!r} was begun with {', '.join(changed)}. Give the same to continue it, or another "
            "run_dir."
        )
    Backbones(own=settings.own, noted=noted_own(run, facts)).require_given()
    names = None
    if facts.get("is_excerpt"):
        names = frozenset(read_pictures(run)["name"])
    return Known(
        image_sizes={name: tuple((int(h), int(w)) for h, w in of) for name, of in facts["image_sizes"]},
        names=names,
        warm_start=_known_warm_start(run, facts, settings),
        n_streamed=facts.get("n_streamed"),
    )


def _known_warm_start(run: RunFolder, facts: Mapping[str, Any], settings: Settings) -> WarmStart | None:
    """The front that a run began from, as it was then: the other run may be gone, or have gone on."""
    noted = facts.get(_WARM_START)
    try:
        known = None if noted is None else WarmStart.from_json(noted)
    except (ValueError, TypeError) as error:
        raise run.damaged(f"{_WARM_START!r} cannot be read ({error})") from error
    before = None if known is None else known.path
    if settings.warm_start is not None and str(settings.warm_start.absolute()) != before:
        raise RunError(
            f"the run {str(run.path)!r} was begun with warm_start={before!r} (now {str(settings.warm_start)!r}). Leave "
            "it out to continue it, or give another run_dir."
        )
    return known


def known_copies(run: RunFolder, n: int) -> Codes | None:
    """The groups of copies that a run found when it began, (n,) int64 codes; `None` where it did not look.

    They decided its split: whether a later sitting would have the time to look, or another way of looking, may not.

    Raises:
        RunError: they are none.
    """
    return copies_noted(run, run.read_facts(), n)


def _write_pictures(run: RunFolder, bundle: DataBundle) -> None:
    part_names = {code: name for name, code in PART_CODES.items()}
    parts = [part_names.get(int(code), "left out") for code in bundle.parts]
    names = [printable(name) for name in bundle.names]
    write_pictures(run, names, bundle.labels, parts)


def _facts(prepared: Prepared, bundle: DataBundle) -> dict[str, Any]:
    settings = prepared.settings
    return {
        "begun_at": datetime.now(tz=UTC).isoformat(timespec="seconds"),
        "task": bundle.task,
        "dataset": _path_of(settings.dataset),
        "label": list(settings.label) if isinstance(settings.label, tuple) else settings.label,
        "metric": prepared.metric.spec,
        "target_line": prepared.plan.target_line,
        "hardware": hardware(prepared.target),
        "n_torch_threads": torch.get_num_threads(),
        "n_cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in _PACKAGES},
        "arguments": settings.decisive(),
        "asked": settings.asked(),
        "limits": settings.decisive()["limits"],
        "tolerance": settled_tolerance(prepared.metric, settings.tolerance),
        "weights": _plain(settings.weights),
        _WARM_START: None if prepared.warm_start is None else prepared.warm_start.to_json(),
        "classes": list(bundle.classes),
        "is_excerpt": isinstance(prepared.survey.source, PartSource),
        "n_streamed": n_streamed(prepared.survey.source),
        "data_digest": bundle.digest,
        "split_digest": bundle.split_digest,
        "copies": None if bundle.copies is None else groups_of(bundle.copies),
        "preparation": bundle.preparation.to_json(),
        "image_sizes": _image_sizes(prepared),
        "whys": {name: prepared.plan.whys[name] for name in prepared.image_sizes if name in prepared.plan.whys},
        OWN_BACKBONES: _own(settings),
        "notes": [*bundle.skipped, *prepared.plan.notes, *_on_costs(settings)],
    }


def _on_costs(settings: Settings) -> tuple[str, ...]:
    """Where latencies and seconds come from, if they were not measured by this run."""
    if settings.costs is None:
        return ()
    line = RunFolder(path=settings.costs).read_facts()["target_line"]
    return (f"latencies and seconds were recorded by {str(settings.costs)!r} on {line}",)


def _image_sizes(prepared: Prepared) -> list[list[Any]]:
    """Of each backbone, in its order."""
    return [[name, [list(size) for size in of]] for name, of in prepared.image_sizes.items()]


def _own(settings: Settings) -> dict[str, Any]:
    """Backbones of the user's own, as plain data: who opens the run has to give the same."""
    return {name: one.to_json() for name, one in settings.own.items()}


def _check_same(run: RunFolder, prepared: Prepared, bundle: DataBundle) -> None:
    facts = run.read_facts()
    _check_facts(run, facts, prepared, bundle)
    if facts["data_digest"] != bundle.digest or facts["split_digest"] != bundle.split_digest:
        raise RunError(
            f"the dataset has changed since the run {str(run.path)!r} began (digest {facts['data_digest'][:12]}, "
            f"now {bundle.digest[:12]}), so its scores would not be comparable. Give another run_dir."
        )


def _check_facts(run: RunFolder, facts: Mapping[str, Any], prepared: Prepared, bundle: DataBundle) -> None:
    now = {
        "task": bundle.task,
        "metric": prepared.metric.spec,
        "preparation": bundle.preparation.to_json(),
        "weights": _plain(prepared.settings.weights),
        "tolerance": settled_tolerance(prepared.metric, prepared.settings.tolerance),
        "hardware": hardware(prepared.target),
    }
    for name, value in json.loads(json.dumps(now)).items():
        if value != facts[name]:
            raise RunError(
                f"the run {str(run.path)!r} was begun with {name}={facts[name]!r}, and {value!r} came. "
                "Give the same to continue it, or another run_dir."
            )


def _path_of(dataset: Any) -> Any:
    """Where the pictures are, so that the run can be trained again: a path, a list of such, or one for each part;
    `None` for what lies in memory.
    """
    if isinstance(dataset, (str, os.PathLike)):
        return str(Path(dataset).expanduser().absolute())
    if isinstance(dataset, Mapping):
        paths = {name: _path_of(of) for name, of in dataset.items()}
        return None if None in paths.values() else paths
    if isinstance(dataset, (list, tuple)) and all(isinstance(of, (str, os.PathLike)) for of in dataset):
        return [_path_of(path) for path in dataset]
    return None


def _plain(weights: GivenWeights) -> Any:
    """Where weights were given, so that it means the same from any working directory."""
    if weights is None:
        return None
    if isinstance(weights, Mapping):
        return {name: str(Path(path).expanduser().absolute()) for name, path in weights.items()}
    return str(Path(weights).expanduser().absolute())

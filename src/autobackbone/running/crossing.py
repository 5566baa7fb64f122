"""What goes to a worker process and what comes back: JSON, arrays and tensors, in files. Nothing that could be run."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays

from autobackbone.backbones.every import Backbones
from autobackbone.backbones.source import BackboneSource
from autobackbone.backbones.weights import WeightSource
from autobackbone.convexhead import Head
from autobackbone.costrecord import CostRecord
from autobackbone.data import DataBundle, PartSource, Preparation, Source
from autobackbone.data.folders import FolderSource
from autobackbone.errors import ArgumentError, TrialError
from autobackbone.handing import Handed
from autobackbone.metrics import Metric, metric_for
from autobackbone.ownbackbone import OwnBackbone
from autobackbone.records import Candidate, ImageSize
from autobackbone.runfolder import FULL
from autobackbone.training.activations import ActivationCache
from autobackbone.training.fit import Outcome
from autobackbone.training.pausing import Leg
from autobackbone.training.ranks import ALONE, Ranks
from autobackbone.training.scorers import Scorers
from autobackbone.training.stores import Stores
from autobackbone.training.tuner import Tuner

SETUP, _NAMES, _LABELS, _PARTS = "setup.json", "names.json", "labels.npy", "parts.npy"
_HEAD, _DEALT = "head.safetensors", "dealt.npy"
WEIGHTS, PREDICTIONS, COSTS = "weights.safetensors", "predictions.npy", "costs.jsonl"
JOB_FILES = (WEIGHTS, PREDICTIONS, COSTS)
"""What may come out of a training."""
_REMEDY = "give workers=0, devices_per_trial=1 and no runner, which trains in this process"


def require_crossing(metric: Metric, own: Iterable[OwnBackbone] = ()) -> None:
    """Make sure that a worker process can make the metric of a search, and the user's own backbones.

    Raises:
        ArgumentError: one of them is defined where the search was called, and there alone.
    """
    for one in own:
        one.require_crossing()
    module = metric.spec.partition(":")[0]
    if metric.is_own and module == "__main__":
        raise ArgumentError(
            f"other processes need a metric that they can import, and {metric.spec!r} is defined in the script "
            f"or session that was started. Put it into a module of its own, or {_REMEDY}."
        )


def require_pictures(bundle: DataBundle, image_sizes: Sequence[ImageSize]) -> None:
    """Make sure that a worker process can look at the pictures.

    Raises:
        ArgumentError: there is no room for decoded ones, and encoded ones lie in the memory of this process.
    """
    encoded = [size for size in image_sizes if bundle.stays_encoded(size)]
    if encoded and _folder_of(bundle.source) is None:
        sizes = ", ".join(f"{height}x{width}" for height, width in encoded)
        raise ArgumentError(
            "other processes need pictures on the disk. These are not the files of one folder, and decoded to "
            f"{sizes} px they have no room. Raise cache_gb, ask for smaller image_sizes, or {_REMEDY}."
        )


def write_setup(
    folder: Path, tuner: Tuner, metric: Metric, source: BackboneSource, *, n_threads: int | None = None
) -> None:
    """Write all that a worker process has to know of a search.

    Args:
        folder: is there.
        tuner: that trains in this process.
        metric: that scores it.
        source: of its networks.
        n_threads: of the worker; as many as this process has if not given.
    """
    stores, bundle = tuner.stores, tuner.stores.bundle
    np.save(folder / _LABELS, bundle.labels, allow_pickle=False)
    np.save(folder / _PARTS, bundle.parts, allow_pickle=False)
    _write(folder / _NAMES, bundle.names)
    facts = {
        "bundle": {
            "root": str(bundle.root.absolute()),
            "classes": bundle.classes,
            "digest": bundle.digest,
            "split_digest": bundle.split_digest,
            "n_workers": bundle.n_workers,
            "max_bytes": bundle.max_bytes,
            "task": bundle.task,
        },
        "preparation": bundle.preparation.to_json(),
        "pictures": _text_or_none(_folder_of(bundle.source)),
        "weights": {name: asdict(one) | {"path": _text_or_none(one.path)} for name, one in source.weights.items()},
        "own_backbones": [one.to_json() for one in source.backbones.own.values()],
        "source": {"n_classes": source.n_classes, "seed": source.seed},
        "cache": {"folder": str(stores.cache.folder.absolute()), "max_bytes": stores.cache.max_bytes},
        "stores": {"seed": stores.seed, "precision": stores.precision, "owner": stores.owner},
        "device": str(stores.device),
        "n_threads": n_threads or torch.get_num_threads(),
        "batch_norm": tuner.batch_norm,
        "handed": tuner.handed.to_json(),
        "metric": metric.spec,
        "costs": stores.record.ahead(),
    }
    _write(folder / SETUP, facts)


def read_setup(folder: Path, ranks: Ranks = ALONE) -> Tuner:
    """What trains in a worker process, as `write_setup` described it.

    Args:
        folder: that was written to.
        ranks: those that train together; they share the threads of the processor.

    Raises:
        MetricError: the metric cannot be made here.
    """
    facts = _read(folder / SETUP)
    torch.set_num_threads(max(1, facts["n_threads"] // ranks.n))
    bundle = _bundle(folder, facts)
    weights = {
        name: WeightSource(**one | {"path": _path_or_none(one["path"])}) for name, one in facts["weights"].items()
    }
    own = {one["name"]: OwnBackbone.from_json(one) for one in facts["own_backbones"]}
    stores = Stores(
        bundle=bundle,
        source=BackboneSource(weights, **facts["source"], backbones=Backbones(own=own)),
        cache=ActivationCache(folder=Path(facts["cache"]["folder"]), max_bytes=facts["cache"]["max_bytes"]),
        device=ranks.device(torch.device(facts["device"])),
        record=CostRecord(repeated=facts["costs"]),
        **facts["stores"],
    )
    metric = metric_for(facts["metric"], bundle.task, n_outputs=len(bundle.classes))
    scorers = Scorers(metric=metric, labels=bundle.labels[bundle.indices("validation")])
    return Tuner(
        stores=stores,
        score=scorers.score,
        score_passed=scorers.score_passed,
        batch_norm=facts["batch_norm"],
        ranks=ranks,
        handed=Handed.from_json(facts["handed"]),
    )


def is_within_reach(bundle: DataBundle, image_size: ImageSize) -> bool:
    """Whether pictures of a size can be looked at in a worker process."""
    return bundle.has_pixels(image_size) or not isinstance(bundle.source, _Elsewhere)


def _bundle(folder: Path, facts: Mapping[str, Any]) -> DataBundle:
    of, names, pictures = facts["bundle"], tuple(_read(folder / _NAMES)), _path_or_none(facts["pictures"])
    return DataBundle(
        root=Path(of["root"]),
        classes=tuple(of["classes"]),
        names=names,
        labels=np.load(folder / _LABELS, allow_pickle=False),
        parts=np.load(folder / _PARTS, allow_pickle=False),
        preparation=Preparation.from_json(facts["preparation"]),
        skipped=(),
        source=_Elsewhere(names=names) if pictures is None else FolderSource(root=pictures, names=names),
        **{name: of[name] for name in ("digest", "split_digest", "n_workers", "max_bytes", "task")},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Elsewhere:
    """Pictures in the memory of another process, of which only decoded ones can be looked at here."""

    names: tuple[str, ...]
    is_thread_safe: bool = True

    def read(self, index: int) -> Any:
        raise self._gone(index)

    def fingerprint(self, index: int) -> Any:
        raise self._gone(index)

    def picture_size(self, index: int) -> ImageSize:
        raise self._gone(index)

    def _gone(self, index: int) -> OSError:
        return OSError(f"picture {self.names[index]!r} lies in the memory of another process")


def _folder_of(source: Source) -> Path | None:
    """The folder under which pictures lie by their names; `None` where they lie elsewhere."""
    while isinstance(source, PartSource):
        source = source.whole
    return source.root.absolute() if isinstance(source, FolderSource) else None


def write_job(folder: Path, candidate: Candidate, head: Head, leg: Leg | None) -> dict[str, Any]:
    """Write the head to a folder, and give the rest as plain data."""
    save_arrays(head.arrays(), folder / _HEAD)
    return {
        "candidate": asdict(candidate),
        "leg": None if leg is None else asdict(leg) | {"checkpoint": str(leg.checkpoint.absolute())},
    }


def read_job(folder: Path, order: Mapping[str, Any]) -> tuple[Candidate, Head, Leg | None]:
    """What `write_job` has written; of the head only what training begins with."""
    arrays, of, leg = load_arrays(folder / _HEAD), order["candidate"], order["leg"]
    return (
        Candidate(**of | {"image_size": tuple(of["image_size"])}),
        Head(weight=arrays["weight"], bias=arrays["bias"], strength=0.0),
        None if leg is None else Leg(**leg | {"checkpoint": Path(leg["checkpoint"])}),
    )


def write_dealt(folder: Path, stores: Stores) -> list[str] | None:
    """Write in which parts pictures are, where these are others than those of the set-up.

    Returns:
        What names both splits, of what trains and of what is stored; `None` where the parts are those of the set-up.
    """
    if stores.held is None:
        return None
    both = (stores.bundle, stores.held)
    np.save(folder / _DEALT, np.stack([one.parts for one in both]), allow_pickle=False)
    return [one.split_digest for one in both]


def read_dealt(folder: Path, digests: Sequence[str] | None, tuner: Tuner) -> Tuner:
    """What trains on pictures in the parts that `write_dealt` has written; where it wrote none, as it was set up."""
    if digests is None:
        return tuner
    whole, parts = tuner.stores.bundle, np.load(folder / _DEALT, allow_pickle=False)
    bundle, held = (replace(whole, parts=of, split_digest=name) for of, name in zip(parts, digests, strict=True))
    return tuner.dealt(bundle, held)


_IN_FILES = ("predictions", "weights")


def outcome_facts(outcome: Outcome) -> dict[str, Any]:
    """What training gave, but for arrays and tensors, as plain data."""
    return {one.name: getattr(outcome, one.name) for one in fields(outcome) if one.name not in _IN_FILES}


def outcome_of(facts: Mapping[str, Any], predictions: NDArray[np.float32]) -> Outcome:
    """What training gave; of `weights` nothing, since the network has them."""
    scores = {name: tuple(facts[name]) for name in ("rung_scores", "train_scores")}
    return Outcome(**{**facts, **scores}, predictions=predictions, weights={})


@contextmanager
def told_of_disk(folder: Path) -> Iterator[None]:
    """Raises: TrialError: the disk is full; safetensors tells it in its own way."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        if isinstance(error, OSError) and error.errno not in FULL:
            raise
        raise TrialError(f"there was no room in {str(folder)!r}: {error}. Free some of the disk") from error


def _write(file: Path, value: Any) -> None:
    file.write_text(json.dumps(value), encoding="ascii")  # what is no valid text of a name is escaped


def _read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="ascii"))


def _text_or_none(path: Path | None) -> str | None:
    return None if path is None else str(Path(path).absolute())


def _path_or_none(text: str | None) -> Path | None:
    return None if text is None else Path(text)

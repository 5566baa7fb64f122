"""What another run has found: its front is tried first in a new one, as far as it lies in the new space.

Only candidates cross over, never a score: what they were worth on other pictures, or with another seed, says nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast, get_args

from autobackbone.choosing import front_of
from autobackbone.errors import RunError
from autobackbone.metrics import metric_for
from autobackbone.records import Body, Candidate, ImageSize, Limits, Task, Trial, is_number
from autobackbone.runfolder import RunFolder
from autobackbone.search.extras import NUMBERS, WORDS
from autobackbone.search.legs import candidate_of
from autobackbone.search.soundness import sound
from autobackbone.search.space import Space
from autobackbone.search.study import is_maximised, load_study, read_sound_trials
from autobackbone.search.studyplace import place_of_run
from autobackbone.servers import Server

_SEARCHED = (*NUMBERS, *WORDS)
# As many as a front may have; one of a folder from elsewhere may be of any length.
_MOST = 1000
_LARGEST = 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmStart:
    """The front of another run.

    Args:
        path: of that run.
        task: what its labels were.
        front: what was tried there, the fastest first; frozen networks, too.
    """

    path: str
    task: Task
    front: tuple[Candidate, ...]

    @property
    def backbones(self) -> tuple[str, ...]:
        """Each once, in the order of the front."""
        return tuple(dict.fromkeys(candidate.backbone for candidate in self.front))

    def pairs(self, image_sizes: Mapping[str, Sequence[ImageSize]]) -> list[tuple[str, ImageSize]]:
        """What to screen first: pairs of backbone and image size that the front stands on, in its order.

        Args:
            image_sizes: of each backbone that is searched now; others are left out, and sizes taken to the nearest.
        """
        known = [one for one in self.front if one.backbone in image_sizes]
        sizes = [_nearest_size(one.image_size, image_sizes[one.backbone]) for one in known]
        return list(dict.fromkeys((one.backbone, size) for one, size in zip(known, sizes, strict=True)))

    def within(self, space: Space) -> tuple[list[Candidate], list[str]]:
        """The front as it lies in a space, in its order, and a line on each of it that is not as it was.

        What a space does not have is left out, or taken to the nearest that it has.
        """
        found: dict[tuple[Body, int, float | None], Candidate] = {}
        lines = []
        for one in self.front:
            if one.backbone not in space.image_sizes:
                lines.append(f"warm start: left out: {_told(one)}: that backbone is not searched here")
                continue
            moved = _within(one, space)
            found.setdefault((moved.body, moved.n_unfrozen, moved.lr), moved)
            changes = list(_changes(one, moved))
            if changes:
                lines.append(f"warm start: {_told(one)} is tried with {', '.join(changes)}, to lie in this search")
        return list(found.values()), lines

    def to_json(self) -> dict[str, Any]:
        """Give a plain dict that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_json(cls, noted: Any) -> WarmStart:
        """Take up what a run has noted, which may come from elsewhere.

        Raises:
            ValueError: it is none of ours.
        """
        try:
            front = tuple(_candidate(one) for one in noted["front"][:_MOST])
            path, task = noted["path"], noted["task"]
        except (LookupError, TypeError, AttributeError) as error:
            raise ValueError(f"it is no front of another run ({error!r})") from error
        if not isinstance(path, str) or task not in get_args(Task):
            raise ValueError(f"its path is a text and its task one of {', '.join(get_args(Task))}")
        return cls(path=path, task=cast("Task", task), front=front)


def read_warm_start(path: Path, server: Server | None = None) -> WarmStart:
    """Read the front of another run; nothing of that run is changed.

    Args:
        path: of its folder.
        server: that has its study, as the user has named it now; `None` for a file, or for one named before.

    Raises:
        RunError: there is no run, it is damaged, or no trial of it has finished.
    """
    run = RunFolder(path=path)
    facts = run.read_facts()
    study = load_study(place_of_run(run, facts, server))
    # Which way is better is all that a front needs; the run's own metric may be code.
    metric = metric_for("accuracy" if is_maximised(study) else "log_loss", n_outputs=2)
    front = front_of(read_sound_trials(study), metric, Limits(**facts["limits"]))
    if not front:
        raise RunError(
            f"warm_start is a run that has found something: no trial of {str(path)!r} has finished. Go on with it "
            "first, or give another one."
        )
    return WarmStart(path=str(path.absolute()), task=facts["task"], front=tuple(map(_tried, front[:_MOST])))


def _tried(trial: Trial) -> Candidate:
    """What was tried, without what a training has noted beside it."""
    candidate = candidate_of(trial)
    return replace(candidate, extras=_searched(candidate.extras))


def _searched(extras: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in extras.items() if name in _SEARCHED and _is_value(name, value)}


def _is_value(name: str, value: Any) -> bool:
    if name in WORDS:
        return value in WORDS[name]
    kind, _ = NUMBERS[name]
    return is_number(value) and 0 <= value <= _LARGEST and (kind is float or isinstance(value, int))


def _candidate(noted: Mapping[str, Any]) -> Candidate:
    fields = {name: value for name, value in noted.items() if name not in ("image_size", "extras")}
    size, extras = tuple(noted["image_size"]), _searched(noted["extras"])
    candidate = Candidate(**fields, image_size=size, extras=extras)
    (trial,) = sound([candidate.begun(0)])
    return candidate_of(trial)


def _within(one: Candidate, space: Space) -> Candidate:
    size = _nearest_size(one.image_size, space.image_sizes[one.backbone])
    kept = _nearest_cut(one, space)
    if one.n_unfrozen == 0:
        return Candidate(backbone=one.backbone, image_size=size, n_unfrozen=0, n_blocks_kept=kept)
    lowest, highest = space.depths(one.backbone, kept)
    lr = space.typical_lr if one.lr is None or not math.isfinite(one.lr) else one.lr
    return Candidate(
        backbone=one.backbone,
        image_size=size,
        n_unfrozen=min(max(one.n_unfrozen, lowest), highest),
        lr=_inside(lr, space.lr),
        extras={name: _inside(one.extras[name], of) for name, of in space.extras.items() if name in one.extras},
        n_blocks_kept=kept,
    )


def _nearest_size(size: ImageSize, sizes: Sequence[ImageSize]) -> ImageSize:
    return min(sizes, key=lambda other: (abs(other[0] - size[0]) + abs(other[1] - size[1]), other))


def _nearest_cut(one: Candidate, space: Space) -> int | None:
    """So many first blocks, or the nearest number that is searched; all of them count as one more cut."""
    if one.n_blocks_kept is None:
        return None
    wanted, n_blocks = one.n_blocks_kept, space.n_blocks[one.backbone]
    return min((*space.kept.get(one.backbone, ()), None), key=lambda kept: abs((kept or n_blocks) - wanted))


def _inside(value: Any, setting: Any) -> Any:
    """A value, taken into what is searched: words, bounds, or the one that is fixed."""
    if not isinstance(setting, tuple):
        return setting
    if isinstance(setting[0], str):
        return value if value in setting else setting[0]
    return min(max(value, setting[0]), setting[1])


def _changes(one: Candidate, moved: Candidate) -> Iterator[str]:
    if one.body != moved.body:
        is_whole = moved.n_blocks_kept is None and one.n_blocks_kept is not None
        yield str(moved.body).removeprefix(f"{moved.backbone} at ") + (", all blocks" if is_whole else "")
    if one.n_unfrozen != moved.n_unfrozen:
        yield f"{moved.n_unfrozen} unfrozen"
    if one.n_unfrozen > 0 and one.lr != moved.lr:
        yield f"lr {moved.lr:.1e}"
    for name, value in moved.extras.items():
        if value != one.extras[name]:
            yield f"{name} {value}"


def _told(one: Candidate) -> str:
    tuned = f", {one.n_unfrozen} unfrozen, lr {one.lr or math.nan:.1e}" if one.n_unfrozen else ", frozen"
    return f"{one.body}{tuned}"

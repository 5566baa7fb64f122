"""What is tried before the sampler has a say: usual depths at a rate that rarely harms, the cheap ones first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from autobackbone.records import Candidate, Trial
from autobackbone.search.legs import candidate_of
from autobackbone.search.steps import Search
from autobackbone.search.study import was_cut_off

_LR = 5e-4
# Processes that may die over an opening before it is left.
_N_DEATHS = 2


def openings(trials: Sequence[Trial], search: Search) -> list[Candidate]:
    """What shall be tried first; each whole screened backbone at its best size, the fastest first, its last blocks;
    then the same ones deeper. Where no training can start from a whole one, its best cut takes its place.
    """
    best: dict[str, Trial] = {}
    # A head that an earlier sitting has fitted on a part of the pictures is no start.
    bodies = set(search.space.bodies())
    starts = [one for one in trials if one.state == "finished" and one.n_unfrozen == 0 and one.body in bodies]
    whole = {one.backbone for one in starts if one.n_blocks_kept is None}
    for trial in starts:
        is_wanted = trial.n_blocks_kept is None or trial.backbone not in whole
        if is_wanted and (trial.backbone not in best or _is_better(trial, best[trial.backbone], search)):
            best[trial.backbone] = trial
    fastest_first = sorted(best.values(), key=lambda trial: trial.latency_ms or 0.0)
    by_depth = zip(*(_of(trial, search) for trial in fastest_first), strict=True)
    return [*asked_first(search), *(candidate for of_depth in by_depth for candidate in of_depth)]


def asked_first(search: Search) -> list[Candidate]:
    """What shall be tried before all else, as far as training can start from there."""
    bodies = set(search.space.bodies())
    return [search.space.candidate(search.space.suggestion(one)) for one in search.first if one.body in bodies]


def untried(candidates: Iterable[Candidate], trials: Sequence[Trial]) -> Iterator[Candidate]:
    """Those whose body, depth and rate no trial has. What a process died over is tried once more, and no third time: it
    may be what it died of.
    """
    cut_off = Counter(_key(candidate_of(trial)) for trial in trials if was_cut_off(trial))
    tried = {_key(candidate_of(trial)) for trial in trials if not was_cut_off(trial)}
    return (one for one in candidates if _key(one) not in tried and cut_off[_key(one)] < _N_DEATHS)


def _key(candidate: Candidate) -> tuple[Any, ...]:
    return candidate.body, candidate.n_unfrozen, candidate.lr


def _is_better(one: Trial, other: Trial, search: Search) -> bool:
    assert one.score is not None
    assert other.score is not None
    return (one.score > other.score) == search.is_higher_better and one.score != other.score


def _of(screened: Trial, search: Search) -> list[Candidate]:
    space = search.space
    lr = min(max(_LR, space.lr[0]), space.lr[1]) if isinstance(space.lr, tuple) else space.lr
    wanted = [
        Candidate(**screened.body._asdict(), n_unfrozen=depth, lr=lr)
        for depth in space.opening_depths(screened.backbone, screened.n_blocks_kept)
    ]
    # As a suggestion means them: with whatever else is fixed or searched.
    return [space.candidate(space.suggestion(candidate)) for candidate in wanted]

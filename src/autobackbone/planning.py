"""What a run would do and what it would cost, before anything is trained."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from autobackbone.backbones.weights import WeightSource
from autobackbone.data import FEW_PICTURES, N_FOLDS, Survey, bytes_of
from autobackbone.records import Budget, ImageSize, Limits, Part, Task, counted

Gmacs = Callable[[str, ImageSize], float]
"""Multiply-adds of one picture, 10**9, of a backbone at an image size."""

# Decoding and resizing with Pillow, megapixels of originals a second and thread.
_DECODED_MEGAPIXELS_PER_S = 25.0
# Measuring a latency and building a network, seconds.
_PRICING_S = 3.0
# How much of the time screening may take: what is left goes to fine-tuning, which gains more per second from then on.
SCREENING_SHARE = 0.4
# The first pair is screened even where it takes longer.
_MOST_SHARE = 0.8
# Where nothing is fine-tuned, all but what confirming takes.
FROZEN_SHARE = 0.9
FOLDS_SHARE = 0.25
"""Of the budget, what is kept back for folds at most."""
# Five heads, seconds.
_FOLDED_HEADS_S = 2.5
# About half the pixels of the own size, nearly all of its accuracy: 91.2 of 92.3 % on 100-px pictures, frozen features.
_MIDDLE_SHARE = 0.7


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run would do; printing it shows all of it.

    Args:
        target_line: where latency is measured.
        task: what the labels are.
        counts: pictures by class or label (rows), or all of them, and part (columns).
        sizes: pictures by part.
        skipped: what was left out or made, one line each.
        image_sizes: the sizes of each backbone.
        whys: one line on each backbone.
        sources: where the weights of each backbone are.
        download_megabytes: to fetch before the search.
        disk_megabytes: of decoded pictures, at most.
        first_sizes: image sizes that screening is expected to reach: the ones that are decoded at once.
        stage_seconds: expected seconds of each stage.
        n_trials: expected number of trials.
        notes: what else is worth knowing.
    """

    target_line: str
    metric: str
    budget: Budget
    limits: Limits
    task: Task
    counts: pd.DataFrame
    sizes: Mapping[Part, int]
    skipped: tuple[str, ...]
    image_sizes: Mapping[str, tuple[ImageSize, ...]]
    whys: Mapping[str, str]
    sources: Mapping[str, WeightSource]
    download_megabytes: float
    disk_megabytes: float
    first_sizes: tuple[ImageSize, ...]
    stage_seconds: Mapping[str, float]
    n_trials: int
    notes: tuple[str, ...]

    def __str__(self) -> str:
        """The whole plan as text."""
        lines = [
            f"target: {self.target_line}",
            f"pictures: {sum(self.sizes.values()):,}{self._labels()}: "
            + ", ".join(f"{number:,} {part}" for part, number in self.sizes.items()),
            *(_class_lines(self.counts) if self.task != "regression" else ()),
            *(f"  {line}" for line in self.skipped),
            f"score: {self.metric}; budget: {_budget(self.budget)}{_limits(self.limits)}",
            f"backbones: {len(self.image_sizes)}, {sum(map(len, self.image_sizes.values()))} with their image sizes",
            *(self._backbone_line(name) for name in self.image_sizes),
            f"download: {self.download_megabytes:,.0f} MB; disk for decoded pictures: {self.disk_megabytes:,.0f} MB",
            "expected: "
            + ", ".join(f"{stage} {seconds:,.0f} s" for stage, seconds in self.stage_seconds.items())
            + f"; about {counted(self.n_trials, 'trial')}",
            *self.notes,
        ]
        return "\n".join(lines)

    def _labels(self) -> str:
        if self.task == "regression":
            return " with numbers to predict"
        return (
            f" of {len(self.counts):,} classes"
            if self.task == "classification"
            else (f" with {len(self.counts):,} labels, each there or not")
        )

    def _backbone_line(self, name: str) -> str:
        sizes = ", ".join(f"{h}" if h == w else f"{h}x{w}" for h, w in self.image_sizes[name])
        source = self.sources[name]
        where = f"{source.download_megabytes or 0:,.0f} MB from the hub" if source.kind == "hub" else source.kind
        return f"  {name} at {sizes} px ({where}): {self.whys.get(name, 'asked for')}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What the time is expected to be spent on.

    Args:
        stage_seconds: by stage.
        n_trials: screened and fine-tuned ones.
        first_sizes: image sizes that screening reaches.
    """

    stage_seconds: Mapping[str, float]
    n_trials: int
    first_sizes: tuple[ImageSize, ...]


def forecast(
    survey: Survey,
    image_sizes: Mapping[str, Sequence[ImageSize]],
    budget: Budget,
    *,
    gmacs: Gmacs,
    seconds_per_gmac: float,
    n_workers: int,
    is_frozen_only: bool = False,
    first: Sequence[tuple[str, ImageSize]] = (),
) -> Forecast:
    """Expected seconds of each stage, from published multiply-adds and one measured speed.

    Args:
        gmacs: of each pair.
        seconds_per_gmac: of a forward pass here.
        n_workers: threads that decode.
        is_frozen_only: whether nothing is fine-tuned.
        first: pairs that are screened before all others.
    """
    sizes = survey.sizes()
    n_screened, n_all = sizes["train"] + sizes["validation"], sum(sizes.values())
    height, width = survey.picture_size_hint or (500, 500)
    read_s = 1.0 + n_all * height * width / 1e6 / _DECODED_MEGAPIXELS_PER_S / n_workers
    order = screening_order(image_sizes, first, gmacs=gmacs)
    # Few pictures: frozen networks are scored by folds with their pass.
    are_few = "validation" in survey.made and n_screened < FEW_PICTURES
    heads_s = _FOLDED_HEADS_S if are_few else 0.0
    passes_s = {pair: gmacs(*pair) * seconds_per_gmac * n_screened + _PRICING_S + heads_s for pair in order}
    screening_share, most_share = (FROZEN_SHARE, FROZEN_SHARE) if is_frozen_only else (SCREENING_SHARE, _MOST_SHARE)
    left_s = float("inf") if budget.wall_clock_s is None else max(0.0, budget.wall_clock_s - read_s)
    reached = _affordable(passes_s, left_s * screening_share) or [min(order, key=passes_s.__getitem__)]
    screen_s = min(sum(passes_s[pair] for pair in reached), most_share * left_s)
    # A trial takes about one forward pass for its activations and as much again for its epochs.
    trial_s = 2 * (statistics.median(passes_s[pair] for pair in reached) - heads_s)
    confirm_s = min(0.3 * screen_s + 2, 0.2 * left_s, left_s - screen_s)
    # Half of a trial's seconds are its epochs; one of those on the front is fine-tuned, if anything is.
    folds_s = min(N_FOLDS * trial_s / 2, FOLDS_SHARE * left_s) if are_few and not is_frozen_only else 0.0
    n_fitting = None if left_s == float("inf") else max(0, int((left_s - screen_s - confirm_s - folds_s) / trial_s))
    n_tuned = 0 if is_frozen_only else min(n for n in (n_fitting, budget.n_trials) if n is not None)
    stages = {"read": min(read_s, budget.wall_clock_s or read_s), "screen": screen_s, "search": n_tuned * trial_s}
    if folds_s > 0:
        stages["folds"] = folds_s
    return Forecast(
        stage_seconds={**stages, "confirm": confirm_s},
        n_trials=len(reached) + n_tuned,
        first_sizes=tuple(sorted({size for _, size in reached})),
    )


def screening_order(
    image_sizes: Mapping[str, Sequence[ImageSize]], first: Sequence[tuple[str, ImageSize]] = (), *, gmacs: Gmacs
) -> list[tuple[str, ImageSize]]:
    """Pairs of backbone and image size in the order in which they are screened: those of `first`; then each backbone at
    a middle size first, then larger sizes, then smaller ones; small backbones first.
    """
    ranked = [(rank, name, size) for name, of in image_sizes.items() for rank, size in zip(_ranks(of), of, strict=True)]
    usual = [(name, size) for _, name, size in sorted(ranked, key=lambda item: (item[0], gmacs(item[1], item[2])))]
    return [*first, *(pair for pair in usual if pair not in first)]


def _ranks(sizes: Sequence[ImageSize]) -> list[int]:
    """0 for the size nearest to seven tenths of the largest side, then the larger ones, then the smaller ones."""
    sides = [max(size) for size in sizes]
    middle = min(range(len(sides)), key=lambda index: abs(sides[index] - _MIDDLE_SHARE * sides[-1]))
    return [index - middle if index >= middle else len(sides) + middle - index for index in range(len(sides))]


def stored_megabytes(n_pictures: int, image_sizes: Mapping[str, Sequence[ImageSize]]) -> float:
    """Disk for decoded pictures in all sizes, 10**6 bytes."""
    sizes = {size for of in image_sizes.values() for size in of}
    return bytes_of(n_pictures, sizes) / 1e6


def _affordable(passes_s: Mapping[tuple[str, ImageSize], float], allowed_s: float) -> list[tuple[str, ImageSize]]:
    """In order, each pair that still fits."""
    reached, total = [], 0.0
    for pair, seconds in passes_s.items():
        if total + seconds <= allowed_s:
            reached.append(pair)
            total += seconds
    return reached


def _class_lines(counts: pd.DataFrame) -> list[str]:
    totals = counts.sum(axis=1)
    shown = [f"{_on_one_line(str(name))} {int(number):,}" for name, number in totals.items()]
    rest = "" if len(shown) <= 12 else f" … and {len(shown) - 12:,} more, from {totals.min():,} to {totals.max():,}"
    return [f"  {', '.join(shown[:12])}{rest}"]


def _on_one_line(name: str) -> str:
    return name if name.isprintable() else repr(name)[1:-1]


def _budget(budget: Budget) -> str:
    seconds = None if budget.wall_clock_s is None else f"{budget.wall_clock_s:,.0f} s"
    trials = None if budget.n_trials is None else f"{counted(budget.n_trials, 'trial')} after screening"
    return " or ".join(part for part in (seconds, trials) if part)


def _limits(limits: Limits) -> str:
    names = ("latency_ms", "latency_p95_ms", "n_params", "megabytes")
    set_ones = [f"{name} up to {getattr(limits, name):g}" for name in names if getattr(limits, name) is not None]
    return f"; limits: {', '.join(set_ones)}" if set_ones else ""

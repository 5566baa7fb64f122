"""Frozen features and the convex head on them: the trials with `n_unfrozen=0`.

One forward pass for each backbone and image size, then logistic or ridge regression: no learning rate, no epochs, an
exact optimum in seconds, and the best starting head for fine-tuning (linear probing first: Kumar et al., ICLR 2022).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autobackbone.backbones.doors import read_at_doors
from autobackbone.backbones.head import features as network_features
from autobackbone.backbones.split import packed
from autobackbone.convexhead import Floats, Head, Ints, fit_head
from autobackbone.costrecord import CostEntry
from autobackbone.data import LEFT_OUT, TEST, TRAIN, DataBundle
from autobackbone.data import fair_order as in_fair_order
from autobackbone.errors import TrialError
from autobackbone.exporting.transform import normalise
from autobackbone.latency.target import dtype_of
from autobackbone.memory import memory_errors_translated
from autobackbone.passes import passes
from autobackbone.records import Balancing, ImageSize, Normalisation, Part, Precision
from autobackbone.tasks import can_be_learned, predictions_of

# Training pictures that say how well a head fits them: a copy of their features has to be made for it.
_N_JUDGED = 1000
# Nobody computed over a chunk that took so many seconds, and so many times as many as most.
_SLEPT_S, _SLEPT_FACTOR = 10.0, 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Tap:
    """What is taken out of a pass on its way.

    Args:
        module: the name of the module at whose door it stands.
        read: what enters there, to a tensor (n, …) of its own: a layer behind the door may work in place.
        tell: told that tensor, on the CPU, chunk by chunk in the order of the pass.
    """

    module: str
    read: Callable[[Any], Tensor]
    tell: Callable[[Tensor], None]


def copied(entering: Any) -> Tensor:
    """All of what enters a module, as `packed` gives it."""
    return packed(entering).clone()


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """What enters the classifier, one row for each picture that was reached in time.

    Args:
        train: (n_train, n_features) float32, of training pictures.
        train_indices: (n_train,) which picture of the bundle each row is.
        others: (n_others, n_features) float32, of validation pictures or whatever else passed.
        other_indices: (n_others,) which pictures those are.
        seconds: what the pass took.
    """

    train: Floats
    train_indices: Ints
    others: Floats
    other_indices: Ints
    seconds: float

    @classmethod
    def of(cls, values: Floats, indices: Ints, bundle: DataBundle, *, seconds: float) -> Features:
        """Rows (n, n_features) of pictures (n,) in any order; the two parts are copies."""
        is_train = bundle.parts[indices] == TRAIN
        return cls(
            train=np.asarray(values[is_train]),
            train_indices=indices[is_train],
            others=np.asarray(values[~is_train]),
            other_indices=indices[~is_train],
            seconds=seconds,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Screened:
    """A frozen network with its convex head.

    Args:
        head: to be folded into the network's own classifier.
        predictions: (n_validation, n_outputs) float32 in the bundle's order; NaN for pictures not reached in time.
        out_of_fold: (n_train, n_outputs) float32 in the bundle's order, what heads that have not seen a training
            picture say of it; NaN where there is nothing, `None` where there is nothing of any.
        n_train: training pictures that the head was fitted on.
        train_predictions: (n_judged, n_outputs) float32 of the first of the training pictures that passed.
        train_labels: theirs, (n_judged,) or (n_judged, k).
        seconds_per_image: of the forward pass.
        seconds: forward pass and head together.
    """

    head: Head
    predictions: Floats
    out_of_fold: Floats | None
    n_train: int
    train_predictions: Floats
    train_labels: NDArray[Any]
    seconds_per_image: float
    seconds: float


def screen(  # noqa: PLR0913  one pass and one head, and all that may be said of both
    network: nn.Module,
    bundle: DataBundle,
    image_size: ImageSize,
    normalisation: Normalisation,
    *,
    seed: int,
    device: torch.device,
    precision: Precision = "float32",
    until: float | None = None,
    head_until: float | None = None,
    n_most: int | None = None,
    on_progress: Callable[[float], None] | None = None,
    taps: Sequence[Tap] = (),
    on_features: Callable[[Features], None] | None = None,
    class_weights: Balancing = "none",
    entry: CostEntry | None = None,
) -> Screened | None:
    """Fit a convex head on the frozen features of a network.

    Args:
        network: in eval mode on `device`.
        bundle: only its training and validation parts are looked at.
        image_size: height and width in pixels.
        normalisation: how pixels enter the network.
        seed: of the inner folds and of the order of pictures.
        device: where the forward pass runs.
        precision: in which validation pictures are scored: the target's.
        until: `time.monotonic()` at which the forward pass ends, whatever it has reached; the order of pictures keeps
            classes and parts in proportion, so that a part of the pass is still a fair, smaller data set.
        head_until: `time.monotonic()` by which the head is fitted, as well as the time allows.
        n_most: pictures that pass, the first ones of that order; `None` for all.
        on_progress: told the share of pictures done.
        taps: what else is wanted of the pass, picture after picture in the fair order.
        on_features: told the features before the head is fitted, which changes them.
        class_weights: of the head, see `fit_head`.
        entry: of the pass, see `passes`.

    Returns:
        The frozen network's head and its validation predictions; `None` if `until` came before there was enough to fit.

    Raises:
        TrialError: features are no numbers.
        TrialMemoryError: memory is too small for a single picture, or for the head.
    """
    order = fair_order(bundle, seed=seed)[:n_most]
    reached = extract(
        network,
        bundle,
        order,
        image_size,
        normalisation,
        device=device,
        precision=precision,
        until=until,
        on_progress=on_progress,
        taps=taps,
        entry=entry,
    )
    if on_features is not None:
        on_features(reached)
    return with_head(reached, bundle, seed=seed, until=head_until, class_weights=class_weights)


def with_head(
    reached: Features,
    bundle: DataBundle,
    *,
    seed: int,
    until: float | None = None,
    class_weights: Balancing = "none",
) -> Screened | None:
    """Fit a convex head on features, and score it on validation pictures.

    Args:
        reached: of training and validation pictures, in an order that keeps classes and parts in proportion; those of
            training pictures are standardised in place.
        bundle: whose pictures they are.
        seed: of the inner folds.
        until: `time.monotonic()` by which the head is fitted, as well as the time allows.
        class_weights: see `fit_head`.

    Returns:
        `None` if too little was reached to fit.

    Raises:
        TrialMemoryError: memory is too small for the head.
    """
    begun = time.monotonic()
    labels, n_reached = bundle.labels[reached.train_indices], len(reached.train) + len(reached.others)
    if not can_be_learned(labels, bundle.task) or len(reached.others) == 0:
        return None
    judged = reached.train[:_N_JUDGED].copy()
    with memory_errors_translated():
        # A second matrix of features may be more than memory holds.
        head = fit_head(
            reached.train,
            labels,
            n_outputs=len(bundle.classes),
            task=bundle.task,
            seed=seed,
            until=until,
            copy=False,
            class_weights=class_weights,
        )
    predictions = head.predictions(reached.others, bundle.task)
    out_of_fold = head.out_of_fold
    return Screened(
        head=replace(head, out_of_fold=None),
        predictions=_of_part(bundle, "validation", reached.other_indices, predictions),
        out_of_fold=None if out_of_fold is None else _of_part(bundle, "train", reached.train_indices, out_of_fold),
        n_train=head.n_pictures or len(labels),
        train_predictions=head.predictions(judged, bundle.task),
        train_labels=labels[:_N_JUDGED],
        seconds_per_image=reached.seconds / n_reached,
        seconds=reached.seconds + time.monotonic() - begun,
    )


def _of_part(bundle: DataBundle, part: Part, indices: Ints, predictions: Floats) -> Floats:
    """Predictions of some pictures of a part, as rows of all its pictures."""
    every = bundle.indices(part)
    found = np.full((len(every), predictions.shape[1]), np.nan, dtype=np.float32)
    found[np.searchsorted(every, indices)] = predictions
    return found


def extract(
    network: nn.Module,
    bundle: DataBundle,
    indices: Ints,
    image_size: ImageSize,
    normalisation: Normalisation,
    *,
    device: torch.device,
    precision: Precision = "float32",
    until: float | None = None,
    on_progress: Callable[[float], None] | None = None,
    taps: Sequence[Tap] = (),
    entry: CostEntry | None = None,
) -> Features:
    """One forward pass over stored pictures, up to what enters the classifier.

    Training pictures may pass in bfloat16, where that is faster; those that score pass in the precision that is asked.
    The course of the pass is noted in an entry, or recalled from it.

    Returns:
        Features in the order of `indices`, as many as were reached before `until`, at least one batch.

    Raises:
        TrialError: features are no numbers.
        TrialMemoryError: memory is too small for a single picture.
    """
    begun = time.monotonic()
    pixels = bundle.pixels(image_size)

    def look(some: Ints) -> Tensor:
        return normalise(torch.from_numpy(pixels[some]).to(device), normalisation)

    is_train = bundle.parts[indices] == TRAIN
    n_train = int(is_train.sum())
    # Each row has its place in one matrix, training pictures first, so that none is held twice.
    places = np.where(is_train, is_train.cumsum() - 1, n_train + (~is_train).cumsum() - 1)
    matrix: Floats | None = None
    n_done, marks = 0, [begun]
    passing = _ToFeatures(network, tuple((tap.module, tap.read) for tap in taps), precision)
    for some, (values, *entering) in passes(passing, look, indices, may_round=is_train, entry=entry):
        rows = values.float().numpy()
        if not np.isfinite(rows).all():
            raise TrialError("its features are no numbers: an activation is beyond the precision of the target")
        matrix = np.empty((len(indices), rows.shape[1]), np.float32) if matrix is None else matrix
        matrix[places[n_done : n_done + len(some)]] = rows
        for tap, activations in zip(taps, entering, strict=True):
            tap.tell(activations)
        n_done += len(some)
        marks.append(time.monotonic())
        if on_progress is not None:
            on_progress(n_done / len(indices))
        if until is not None and time.monotonic() >= until:
            break
    assert matrix is not None  # there is at least one picture
    n_trained = int(is_train[:n_done].sum())
    return Features(
        train=matrix[:n_trained],
        train_indices=indices[:n_done][is_train[:n_done]],
        others=matrix[n_train : n_train + n_done - n_trained],
        other_indices=indices[:n_done][~is_train[:n_done]],
        seconds=_awake_s(np.diff(marks)),
    )


def _awake_s(chunks_s: NDArray[np.float64]) -> float:
    """Seconds of a pass from those of its chunks: one over which the machine slept counts as the others do.

    What a pass took says for all of the run, and for later sittings, what such a network costs.
    """
    usual_s = float(np.median(chunks_s))
    return float(np.where(chunks_s > max(_SLEPT_S, _SLEPT_FACTOR * usual_s), usual_s, chunks_s).sum())


def predict(
    network: nn.Module,
    bundle: DataBundle,
    indices: Ints,
    image_size: ImageSize,
    normalisation: Normalisation,
    *,
    device: torch.device,
    precision: Precision = "float32",
    entry: CostEntry | None = None,
) -> Floats:
    """What a whole network says of pictures, (n_images, n_outputs) float32, in the order of `indices`.

    The course of the pass is noted in an entry, or recalled from it.

    Raises:
        TrialError: an answer is no number.
        TrialMemoryError: memory is too small for a single picture.
    """
    pixels = bundle.pixels(image_size)

    def look(some: Ints) -> Tensor:
        return normalise(torch.from_numpy(pixels[some]).to(device), normalisation)

    chunks = passes(_ToLogits(network, precision), look, indices, entry=entry)
    found = np.concatenate([predictions_of(logits, bundle.task).numpy() for _, (logits,) in chunks])
    if not np.isfinite(found).all():
        raise TrialError(f"its answers are no numbers in {precision}")
    return found


class _ToFeatures(nn.Module):
    """What enters the classifier, and what is read at the doors of some other modules, as a network of its own."""

    def __init__(
        self, network: nn.Module, reads: tuple[tuple[str, Callable[[Any], Tensor]], ...], precision: Precision
    ) -> None:
        super().__init__()
        self.network = network
        self.reads = reads
        self.precision = precision

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        reads = dict(enumerate(self.reads))
        with read_at_doors(self.network, reads) as caught, _in_precision(self.precision, x.device):
            features = network_features(self.network, x)
        return (features, *(caught[number] for number in range(len(self.reads))))


class _ToLogits(nn.Module):
    """The network, its answer in a tuple."""

    def __init__(self, network: nn.Module, precision: Precision) -> None:
        super().__init__()
        self.network = network
        self.precision = precision

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        with _in_precision(self.precision, x.device):
            return (self.network(x),)


def _in_precision(precision: Precision, device: torch.device) -> AbstractContextManager[Any]:
    """As the target computes; whoever computes in half precision already is left alone."""
    is_half = precision != "float32"
    return torch.autocast(device.type, dtype_of(precision)) if is_half else nullcontext()


def fair_order(bundle: DataBundle, *, seed: int) -> Ints:
    """Training and validation pictures in an order in which every beginning keeps parts and classes in proportion."""
    parts = np.where(bundle.parts == TEST, LEFT_OUT, bundle.parts)
    return in_fair_order(bundle.strata, parts, seed=seed)

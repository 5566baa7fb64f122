"""Frozen features and the convex head on them: the trials with `n_unfrozen=0`.

One forward pass for each backbone and image size, then logistic regression: no learning rate, no epochs, an exact
optimum in seconds, and the best starting head for fine-tuning (linear probing first: Kumar et al., ICLR 2022).
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.model_selection import StratifiedKFold, train_test_split
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from autobackbone.backbones.head import features as network_features
from autobackbone.data import TRAIN, DataBundle
from autobackbone.exporting.transform import normalise
from autobackbone.records import ImageSize, Normalisation

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

# Inverse strengths of the penalty on standardised features. On 300 to 2,000 pictures the best of a finer and wider grid
# lay inside; ends are reached by very easy and very noisy data.
_STRENGTHS = tuple(float(10.0**power) for power in (-4, -3, -2, -1, 0))
_FALLBACK_STRENGTH = 1e-2
# More pictures than this say nothing new about the strength, but cost each of the inner fits its share.
_MAX_FOR_STRENGTH = 4000


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A linear head with the scaling of features folded in.

    Args:
        weight: (n_classes, n_features) float32.
        bias: (n_classes,) float32.
        strength: the inverse penalty that inner folds chose.
    """

    weight: Floats
    bias: Floats
    strength: float

    def probabilities(self, features: Floats) -> Floats:
        """Softmax of the head's output: (n_images, n_features) → (n_images, n_classes)."""
        logits = torch.from_numpy(features) @ torch.from_numpy(self.weight).T + torch.from_numpy(self.bias)
        return np.asarray(torch.softmax(logits, dim=1).numpy(), dtype=np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """What enters the classifier, one row for each picture that was reached in time.

    Args:
        values: (n_reached, n_features) float32.
        indices: (n_reached,) which picture of the bundle each row is.
        seconds: what the pass took.
    """

    values: Floats
    indices: Ints
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Screened:
    """A frozen network with its convex head.

    Args:
        head: to be folded into the network's own classifier.
        probabilities: (n_validation, n_classes) float32 in the bundle's order; NaN for pictures not reached in time.
        n_train: training pictures that the head was fitted on.
        seconds_per_image: of the forward pass.
        seconds: forward pass and head together.
    """

    head: Head
    probabilities: Floats
    n_train: int
    seconds_per_image: float
    seconds: float


def screen(
    network: nn.Module,
    bundle: DataBundle,
    image_size: ImageSize,
    normalisation: Normalisation,
    *,
    seed: int,
    device: torch.device,
    until: float | None = None,
    on_progress: Callable[[float], None] | None = None,
) -> Screened | None:
    """Fit a convex head on the frozen features of a network.

    Args:
        network: in eval mode on `device`.
        bundle: only its training and validation parts are looked at.
        image_size: height and width in pixels.
        normalisation: how pixels enter the network.
        seed: of the inner folds and of the order of pictures.
        device: where the forward pass runs.
        until: `time.monotonic()` at which the forward pass ends, whatever it has reached; the order of pictures keeps
            classes and parts in proportion, so that a part of the pass is still a fair, smaller data set.
        on_progress: told the share of pictures done.

    Returns:
        The frozen network's head and its validation predictions; `None` if `until` came before there was enough to fit.
    """
    begun = time.monotonic()
    order = fair_order(bundle, seed=seed)
    reached = extract(
        network, bundle, order, image_size, normalisation, device=device, until=until, on_progress=on_progress
    )
    is_train = bundle.parts[reached.indices] == TRAIN
    labels = bundle.labels[reached.indices]
    if len(np.unique(labels[is_train])) < 2 or is_train.all():
        return None
    head = fit_head(reached.values[is_train], labels[is_train], n_classes=len(bundle.classes), seed=seed)
    validation = bundle.indices("validation")
    probabilities = np.full((len(validation), len(bundle.classes)), np.nan, dtype=np.float32)
    rows = np.searchsorted(validation, reached.indices[~is_train])
    probabilities[rows] = head.probabilities(reached.values[~is_train])
    return Screened(
        head=head,
        probabilities=probabilities,
        n_train=int(is_train.sum()),
        seconds_per_image=reached.seconds / len(reached.indices),
        seconds=time.monotonic() - begun,
    )


def extract(
    network: nn.Module,
    bundle: DataBundle,
    indices: Ints,
    image_size: ImageSize,
    normalisation: Normalisation,
    *,
    device: torch.device,
    batch_size: int = 32,
    until: float | None = None,
    on_progress: Callable[[float], None] | None = None,
) -> Features:
    """One forward pass over stored pictures, up to what enters the classifier.

    Returns:
        Features in the order of `indices`, as many as were reached before `until`, at least one batch.
    """
    begun = time.monotonic()
    chunks: list[Floats] = []
    n_done = 0
    with torch.inference_mode():
        for x in _inputs(bundle, indices, image_size, normalisation, device=device, batch_size=batch_size):
            chunks.append(network_features(network, x).float().cpu().numpy())
            n_done += len(x)
            if on_progress is not None:
                on_progress(n_done / len(indices))
            if until is not None and time.monotonic() >= until:
                break
    return Features(values=np.concatenate(chunks), indices=indices[:n_done], seconds=time.monotonic() - begun)


def predict(
    network: nn.Module,
    bundle: DataBundle,
    indices: Ints,
    image_size: ImageSize,
    normalisation: Normalisation,
    *,
    device: torch.device,
    batch_size: int = 32,
) -> Floats:
    """Probabilities of a whole network, (n_images, n_classes) float32, in the order of `indices`."""
    with torch.inference_mode():
        chunks = [
            torch.softmax(network(x).float(), dim=1).cpu().numpy()
            for x in _inputs(bundle, indices, image_size, normalisation, device=device, batch_size=batch_size)
        ]
    return np.concatenate(chunks)


def fit_head(features: Floats, labels: Ints, *, n_classes: int, seed: int) -> Head:
    """Logistic regression on standardised features, its penalty chosen by folds inside the training part.

    Args:
        features: (n_images, n_features) float32.
        labels: (n_images,) from 0 to n_classes - 1; a class may be absent, and is then never predicted.

    Returns:
        The head with the standardisation folded in: it takes raw features.
    """
    scaler = StandardScaler().fit(features)
    scaled = scaler.transform(features)
    # One thread: the products are small, and threads that wait for each other beside other work took 50 s for 2 s.
    with threadpool_limits(1, user_api="blas"), _tolerating_slow_convergence():
        strength = _choose_strength(scaled, labels, seed=seed)
        model = LogisticRegression(C=strength, max_iter=300, tol=1e-4).fit(scaled, labels)
    # Two classes come as one row: the log-odds of the second.
    coef = model.coef_ if len(model.classes_) > 2 else np.concatenate([-model.coef_ / 2, model.coef_ / 2])
    intercept = (
        model.intercept_ if len(model.classes_) > 2 else np.concatenate([-model.intercept_ / 2, model.intercept_ / 2])
    )
    weight = np.zeros((n_classes, features.shape[1]))
    bias = np.full(n_classes, float(intercept.min()) - 20.0)
    weight[model.classes_] = coef / scaler.scale_
    bias[model.classes_] = intercept - (coef / scaler.scale_) @ scaler.mean_
    return Head(weight=weight.astype(np.float32), bias=bias.astype(np.float32), strength=strength)


def fair_order(bundle: DataBundle, *, seed: int) -> Ints:
    """Training and validation pictures in an order in which every beginning keeps parts and classes in proportion."""
    generator = np.random.default_rng(seed)
    wanted = np.concatenate([bundle.indices("train"), bundle.indices("validation")])
    place = np.empty(len(wanted))
    strata = bundle.labels[wanted] * 2 + (bundle.parts[wanted] != TRAIN)
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        # The i-th of m members stands at (i + u) / m of the way, u its own random share of a step.
        place[members] = (generator.permutation(len(members)) + generator.random()) / len(members)
    return np.asarray(wanted[np.argsort(place, kind="stable")], dtype=np.int64)


def _choose_strength(scaled: Floats, labels: Ints, *, seed: int) -> float:
    if len(labels) > _MAX_FOR_STRENGTH:
        scaled, labels = _stratified_part(scaled, labels, seed=seed)
    n_folds = min(3, int(np.bincount(labels)[np.unique(labels)].min()))
    if n_folds < 2:
        return _FALLBACK_STRENGTH
    folds = StratifiedKFold(n_folds, shuffle=True, random_state=seed)
    model = LogisticRegressionCV(
        Cs=_STRENGTHS,
        cv=folds,
        l1_ratios=(0.0,),
        scoring="neg_log_loss",
        max_iter=100,
        tol=1e-3,
        refit=False,
        use_legacy_attributes=False,
    )
    return float(model.fit(scaled, labels).C_)


def _stratified_part(scaled: Floats, labels: Ints, *, seed: int) -> tuple[Floats, Ints]:
    is_common = np.bincount(labels)[labels] >= 2
    part, _ = train_test_split(
        np.flatnonzero(is_common), train_size=_MAX_FOR_STRENGTH, stratify=labels[is_common], random_state=seed
    )
    return scaled[part], labels[part]


class _tolerating_slow_convergence(warnings.catch_warnings):  # noqa: N801 — used as a statement, like its parent
    """The optimum is flat where it is slow: a head stopped early there predicts the same."""

    def __enter__(self) -> None:
        super().__enter__()
        warnings.simplefilter("ignore", ConvergenceWarning)


def _inputs(
    bundle: DataBundle,
    indices: Ints,
    image_size: ImageSize,
    normalisation: Normalisation,
    *,
    device: torch.device,
    batch_size: int,
) -> Iterator[Tensor]:
    pixels = bundle.pixels(image_size)
    for start in range(0, len(indices), batch_size):
        batch = torch.from_numpy(pixels[indices[start : start + batch_size]])
        yield normalise(batch.to(device), normalisation)

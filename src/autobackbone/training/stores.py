"""Which stores of activations a candidate trains on, and how they are filled: by an own pass or by screening's."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autobackbone.backbones.cut import CutEntry, cut_entries
from autobackbone.backbones.split import Prefix, Split, split_at
from autobackbone.costrecord import CostEntry, CostRecord
from autobackbone.data import TRAIN, DataBundle, Pixels
from autobackbone.errors import TrialError
from autobackbone.exporting.transform import normalise
from autobackbone.passes import passes
from autobackbone.records import Body, ImageSize, Normalisation, Precision
from autobackbone.screening import Tap, copied, fair_order
from autobackbone.training.activations import ActivationCache, NoRoomError, StoreWriter, TooLargeError, stored
from autobackbone.training.rows import epoch_seed
from autobackbone.training.views import Augment

Ints = NDArray[np.int64]
_NO_CUTS: Mapping[int, CutEntry] = MappingProxyType({})


class NetworkSource(Protocol):
    """Builds networks: the pre-trained weights of a backbone with a fresh classifier, in eval mode on the CPU."""

    def network(self, backbone: str, image_size: ImageSize, n_blocks_kept: int | None = None) -> nn.Module:
        """A new network, the caller's own; where a number of blocks is given, of the first ones alone."""

    def normalisation(self, backbone: str) -> Normalisation:
        """How pixels enter it."""

    def weights_digest(self, backbone: str) -> str:
        """Names the weights: two that differ have different digests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What stores have found out of a body at a depth, for those of another process.

    Args:
        is_verified: whether a cut was looked for.
        entry: where the network was cut; `None` where it cannot be, or nobody has looked.
        n_at_once: with how many pictures in memory its trainings begin; `None` where whole batches have fitted so far.
    """

    is_verified: bool
    entry: str | None
    n_at_once: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Give a plain dict that JSON can hold."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stores:
    """The stores of one data set.

    Args:
        bundle: pictures; only training and validation parts are stored.
        source: builds networks.
        cache: where stores lie.
        device: where the frozen part runs.
        seed: of the order of pictures, which is that of screening, and of augmentation.
        precision: in which what scores is computed: the target's.
        record: where the course of each pass is noted, or taken from an earlier run.
        owner: names the run whose stores these are alone: what others have stored then decides on nothing, neither on
            what is worth its time nor, by how it was rounded, on scores. `None` shares them.
        held: the same pictures in parts of which more are stored, so that several bundles which train on some of them
            share stores; `None` stores the bundle's own.
        entries: by body and depth where the network was cut, as verified since these stores were made; `None` where it
            cannot be.
        n_at_once: by body and depth how many pictures trainings may have in memory, where a batch was too large for it.
    """

    bundle: DataBundle
    source: NetworkSource
    cache: ActivationCache
    device: torch.device
    seed: int
    precision: Precision = "float32"
    record: CostRecord = field(default_factory=CostRecord, repr=False, compare=False)
    owner: str | None = None
    held: DataBundle | None = None
    entries: dict[tuple[Body, int], str | None] = field(default_factory=dict, init=False, repr=False, compare=False)
    n_at_once: dict[tuple[Body, int], int] = field(default_factory=dict, init=False, repr=False, compare=False)

    def dealt(self, bundle: DataBundle, held: DataBundle) -> Stores:
        """Those of the same pictures in other parts; what is found out there stays there.

        Args:
            bundle: says which ones train.
            held: says which ones are stored.
        """
        found = replace(self, bundle=bundle, held=held)
        found.entries.update(self.entries)
        found.n_at_once.update(self.n_at_once)
        return found

    def split(self, network: nn.Module, body: Body, n_unfrozen: int) -> Split | None:
        """The network in two, verified on real pictures; `None` where no cut holds or none can be stored by picture."""
        key, sample = (body, n_unfrozen), self._sample(body)
        if key in self.entries and self.entries[key] is None:
            return None
        split = split_at(network, n_unfrozen, sample, verified=self.entries.get(key))
        # Windows of one picture are rows of their own in some networks: they cannot be shuffled by picture.
        if split is not None and key not in self.entries and len(split.prefix(sample)) != len(sample):
            split = None
        self.entries[key] = None if split is None else split.entry
        return split

    def settled(self, body: Body, n_unfrozen: int) -> Settled:
        """What has been found out so far."""
        key = (body, n_unfrozen)
        is_verified, entry = key in self.entries, self.entries.get(key)
        return Settled(is_verified=is_verified, entry=entry, n_at_once=self.n_at_once.get(key))

    def settle(self, body: Body, n_unfrozen: int, found: Settled) -> None:
        """Take over what other stores of the same pictures and networks have found out."""
        if found.is_verified:
            self.entries[body, n_unfrozen] = found.entry
        if found.n_at_once is not None:
            self.n_at_once[body, n_unfrozen] = found.n_at_once

    def cuts(self, network: nn.Module, body: Body, wanted: Iterable[int]) -> dict[int, CutEntry]:
        """Those of the wanted numbers of first blocks whose features one pass gives, verified on real pictures."""
        numbers = tuple(wanted)
        return cut_entries(network, self._sample(body), numbers) if numbers else {}

    def views(
        self, split: Split, body: Body, n_unfrozen: int, *, n_views: int, until: float | None
    ) -> list[NDArray[Any]]:
        """As many views as there is room for: the pictures as they are, then moved and zoomed ones; perhaps none.

        Args:
            split: of this body at this depth.
            body: what is split.
            n_unfrozen: its depth.
            n_views: wanted, at least 1.
            until: `time.monotonic()` at which the computing is given up.

        Raises:
            TrialError: time ended first, or an activation is no number.
        """
        made: list[NDArray[Any]] = []
        with suppress(NoRoomError):
            for view in range(n_views):
                order = self._order(view)
                entry = CostEntry(self.record, f"view {view} of {body}, {n_unfrozen} unfrozen")

                def compute(order: Ints = order, view: int = view, entry: CostEntry = entry) -> Iterator[Tensor]:
                    prefix = Prefix(split.model, split.entry)
                    may_round = self._stored.parts[order] == TRAIN
                    look = self._look(body, view)
                    for _, (values,) in passes(prefix, look, order, may_round=may_round, entry=entry):
                        yield values

                path = self._path(body, n_unfrozen, view)
                made.append(stored(self.cache, path, compute, n_rows=len(order), until=until))
        return made

    def rows(self, n_views: int) -> tuple[Ints, Ints]:
        """Where pictures lie in the stores.

        Returns:
            Rows of training pictures (n_views, n_train) in each view, and of validation pictures (1, n_validation) in
            the first one, in the bundle's order.
        """
        train, validation = self.bundle.indices("train"), self.bundle.indices("validation")
        places = []
        for view in range(n_views):
            order = self._order(view)
            place = np.full(len(self.bundle.labels), -1, np.int64)
            place[order] = np.arange(len(order))
            places.append(place)
        return np.stack([place[train] for place in places]), places[0][validation][None]

    @contextmanager
    def filling(
        self, network: nn.Module, body: Body, depths: Collection[int], cuts: Mapping[int, CutEntry] = _NO_CUTS
    ) -> Iterator[list[Tap]]:
        """Fill the first views of some depths, and the features of some cuts, while a pass of screening runs anyway.

        Args:
            network: the one that passes.
            body: what it is: a whole one.
            depths: numbers of unfrozen blocks; what is stored already, or has no verified cut, is passed over.
            cuts: by the number of first blocks, how one pass gives their features.

        Yields:
            What is to be told what enters modules. A pass that ends early leaves nothing.
        """
        n_rows = len(self._order(0))
        with ExitStack() as stack:
            taps: list[Tap] = []
            for depth in depths:
                path = self._path(body, depth, 0)
                split = None if self.cache.opened(path) is not None else self.split(network, body, depth)
                if split is not None and all(tap.module != split.entry for tap in taps):
                    writer = stack.enter_context(StoreWriter(self.cache, path, n_rows))
                    taps.append(Tap(module=split.entry, read=copied, tell=_until_it_fails(writer)))
            for n_kept, entry in cuts.items():
                path = self._features_path(body._replace(n_blocks_kept=n_kept))
                if self.cache.opened(path) is None:
                    writer = stack.enter_context(StoreWriter(self.cache, path, n_rows, dtype=np.float32))
                    taps.append(Tap(module=entry.module, read=entry.pool, tell=_until_it_fails(writer)))
            yield taps

    def is_stored(self, body: Body, n_unfrozen: int) -> bool:
        """Whether the first view is there."""
        return self._path(body, n_unfrozen, 0).is_file()

    def features(self, body: Body) -> NDArray[np.float32] | None:
        """Features of a cut body, (n_images, n_features), as `filling` left them: in the order of screening.

        `None` if there are none.
        """
        path = self._features_path(body)
        return self.cache.opened(path)

    def _order(self, view: int) -> Ints:
        """The first view holds training and validation pictures as screening meets them, others training alone."""
        order = fair_order(self._stored, seed=self.seed)
        return order if view == 0 else order[self._stored.parts[order] == TRAIN]

    @property
    def _stored(self) -> DataBundle:
        return self.bundle if self.held is None else self.held

    def _sample(self, body: Body) -> Tensor:
        return self._look(body)(self.bundle.indices("train")[:2])

    def _look(self, body: Body, view: int = 0) -> Look:
        return Look(
            pixels=self.bundle.pixels(body.image_size),
            normalisation=self.source.normalisation(body.backbone),
            device=self.device,
            augment=None if view == 0 else Augment(self.seed),
            seed=epoch_seed(self.seed, view),
        )

    def _features_path(self, body: Body) -> Path:
        return self._path(body, 0, 0)

    def _path(self, body: Body, n_unfrozen: int, view: int) -> Path:
        return self.cache.path(
            pictures=self.bundle.digest,
            preparation=self.bundle.preparation.to_json(),
            split=self._stored.split_digest,
            backbone=body.backbone,
            weights=self.source.weights_digest(body.backbone),
            image_size=body.image_size,
            n_blocks_kept=body.n_blocks_kept,
            n_unfrozen=n_unfrozen,
            view=view,
            order=["fair", self.seed],
            # Validation rows score, so all that they depend on is in the name.
            precision=self.precision,
            torch=torch.__version__,
            timm=version("timm"),
            **({} if self.owner is None else {"owner": self.owner}),
        )


def _until_it_fails(writer: StoreWriter) -> Callable[[Tensor], None]:
    """A store is a convenience: where it cannot be, the pass that fills it goes on."""
    is_failed = False

    def add(values: Tensor) -> None:
        nonlocal is_failed
        if not is_failed:
            try:
                writer.add(values)
            except (NoRoomError, TooLargeError, TrialError):
                is_failed = True
                writer.give_up()

    return add


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """Numbers of pictures to a network's input."""

    pixels: Pixels
    normalisation: Normalisation
    device: torch.device
    augment: Augment | None
    seed: int = 0

    def __call__(self, some: Ints) -> Tensor:
        """Give the input (n, 3, height, width) of pictures with these numbers (n,)."""
        pictures = torch.from_numpy(self.pixels[some])
        if self.augment is not None:
            # The same view however often others were looked at before: which ways are tried hangs on the clock.
            self.augment.begin(self.seed + int(some[0]))
        seen = pictures if self.augment is None else self.augment(pictures)
        return normalise(seen.to(self.device), self.normalisation)

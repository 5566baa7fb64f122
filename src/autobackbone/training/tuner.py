"""Fine-tunes candidates on one data set, each from its screened head."""

from __future__ import annotations

import copy
import gc
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autobackbone.backbones.blocks import BatchNormMode, set_training_mode, unfreeze
from autobackbone.backbones.head import set_head
from autobackbone.backbones.split import Split, Tail
from autobackbone.convexhead import Head
from autobackbone.data import DataBundle, Pixels
from autobackbone.errors import EpochTooLongError, TrialError, TrialMemoryError
from autobackbone.exporting.transform import normalise
from autobackbone.handing import NOTHING, Handed
from autobackbone.memory import memory_errors_translated
from autobackbone.records import Balancing, Candidate, Normalisation, Task
from autobackbone.training.fit import Outcome, Scorer, Trainee, fit
from autobackbone.training.given import given_for
from autobackbone.training.objective import Objective
from autobackbone.training.passed import PassedScorer
from autobackbone.training.pausing import Leg
from autobackbone.training.ranks import ALONE, Ranks
from autobackbone.training.recipe import Recipe, StepPrecision
from autobackbone.training.rows import Rows
from autobackbone.training.steps import measured
from autobackbone.training.stores import Settled, Stores
from autobackbone.training.views import Augment

MAX_EPOCHS = 10
# Below this, warm-up and decay leave no training between them.
MIN_EPOCHS = 3
# A training that went on at its rate needs so many epochs more to let it fall.
LEAST_MORE = 2
# Of classes, which exclude each other; what is said of several labels should stay a probability.
_SMOOTHING = 0.1
_PRECISIONS: tuple[StepPrecision, ...] = get_args(StepPrecision)
# Among a trial's extras: in which precision its steps multiply, where that is not float32.
STEP_PRECISION = "step_precision"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuner:
    """Trains candidates with at least one unfrozen block.

    Args:
        stores: the pictures, the networks, and what is stored of them.
        score: of validation predictions, maximised.
        batch_norm: `"fixed"` keeps running statistics still (batch statistics cost ten points, measured from a good
            head on a tail of one stage).
        score_passed: of the training pictures as they pass, maximised; `None` to leave them unscored.
        ranks: the processes that train each candidate together, each with a tuner like this one.
        handed: by the user to Lightning's trainer.
    """

    stores: Stores
    score: Scorer
    batch_norm: BatchNormMode = "fixed"
    score_passed: PassedScorer | None = None
    ranks: Ranks = ALONE
    handed: Handed = NOTHING
    _warm: dict[tuple[Path, int], _Bench] = field(default_factory=dict, init=False, repr=False, compare=False)
    _step_s: dict[tuple[Any, ...], float] = field(default_factory=dict, init=False, repr=False, compare=False)
    _chosen: dict[tuple[Any, ...], StepPrecision] = field(default_factory=dict, init=False, repr=False, compare=False)

    def tune(
        self,
        candidate: Candidate,
        head: Head,
        *,
        until: float | None = None,
        n_views: int = 1,
        leg: Leg | None = None,
    ) -> tuple[nn.Module, Outcome]:
        """Fine-tune one candidate; where memory is too small, once more from the start, each step in two passes.

        Args:
            candidate: `n_unfrozen` of at least 1, with a learning rate.
            head: the screened head of its backbone and image size: the start.
            until: `time.monotonic()` by which it has ended; the number of epochs is chosen to fit.
            n_views: 1 trains on the pictures as they are; more, also on so many moved and zoomed views of them. Where
                nothing is stored, any number above 1 draws a new view at each step.
            leg: the part of the training that is trained now; `None` for all of it.

        Returns:
            The network with the best rung's weights, in eval mode on the CPU, and what training gave.

        Raises:
            TrialError: it could not be trained, for the reason that is said.
            EpochTooLongError: not one epoch fits, as timed steps or the first epoch itself tell.
            TrialMemoryError: nor did half as many pictures in one pass fit.
        """
        try:
            with memory_errors_translated():
                return self._tune(candidate, head, self._in_passes(candidate), until, n_views, leg)
        except TrialMemoryError:
            # Others may have had room enough: whoever begins new ones halves it for all.
            if self.ranks.n > 1 or not self.halve(candidate):
                raise
        # Behind the handler: inside it the error would keep what the first attempt had taken.
        self._warm.clear()
        _free_memory()
        with memory_errors_translated():
            return self._tune(candidate, head, self._in_passes(candidate), until, n_views, from_the_start(leg))

    def halve(self, candidate: Candidate) -> bool:
        """Have its next training, and those of its kind, take half as many pictures at once, in twice as many passes a
        step; `False` where it is a single one already.
        """
        n_at_once = self._in_passes(candidate).batch_size // 2
        if n_at_once > 0:
            self.stores.n_at_once[candidate.body, candidate.n_unfrozen] = n_at_once
        return n_at_once > 0

    def let_go(self) -> None:
        """Give up what was kept for a training that might go on right away: its network and its stores."""
        self._warm.clear()

    def dealt(self, bundle: DataBundle, held: DataBundle) -> Tuner:
        """One that trains on the same pictures in other parts, and scores nothing on the way.

        Args:
            bundle: says which ones it trains on; it has no validation part.
            held: says which ones are stored: several that train on some of these share stores, and one pass fills them.
        """
        stores = self.stores.dealt(bundle, held)
        return replace(self, stores=stores, score=lambda _: 0.0, score_passed=None)

    @property
    def n_at_once(self) -> int:
        """How many trainings may run side by side: one, since Lightning and Ctrl-C want the main thread."""
        return 1

    def give_up(self) -> None:
        """Nothing: no other thread trains."""

    def start_s(self) -> float:
        """Seconds before a training can begin: none."""
        return 0.0

    def n_epochs(self, candidate: Candidate) -> int:
        """The last rung: how long a candidate trains if there is time."""
        return self._recipe(candidate).n_epochs

    def _tune(
        self,
        candidate: Candidate,
        head: Head,
        recipe: Recipe,
        until: float | None,
        n_views: int,
        leg: Leg | None = None,
    ) -> tuple[nn.Module, Outcome]:
        bench = None if leg is None or leg.n_before == 0 else self._warm.get((leg.checkpoint, n_views))
        self._warm.clear()
        if bench is None:
            network = self.stores.source.network(*candidate.body).to(self.stores.device)
            set_head(network, torch.from_numpy(head.weight), torch.from_numpy(head.bias))
            unfreeze(network, candidate.n_unfrozen, batch_norm=self.batch_norm)
            trainee = _channels_last(self._trainee(network, candidate, until, n_views))
            trainee.objective.begin(network)
            key = (candidate.body, candidate.n_unfrozen, recipe.batch_size, type(trainee.module))
            settled = "float32" if "precision" in self.handed.trainer else _settled(candidate, leg)
            precision = self.ranks.agreed(lambda: self._precision(key, trainee, recipe, settled))
            bench = _Bench(network, trainee, key, precision)
        recipe = self._fitted(replace(recipe, precision=bench.precision), bench, until, leg)
        with _freed_afterwards():
            outcome = fit(
                bench.trainee,
                recipe,
                self.score,
                score_passed=self.score_passed,
                until=until,
                leg=leg,
                ranks=self.ranks,
                given=given_for(self.handed, candidate, self.ranks),
            )
        _take_buffers(bench.network, bench.trainee.module)
        if outcome.n_epochs > 0 and not outcome.is_cut_short:
            # What really passed corrects a measurement that other work disturbed.
            n_steps = outcome.n_epochs * _steps_an_epoch(bench.trainee, recipe)
            self._step_s[*bench.key, bench.precision] = outcome.seconds / n_steps
        if leg is not None and leg.pause_at is not None:
            # It may well go on next: then all is as it was, and only the checkpoint is read.
            self._warm[leg.checkpoint, n_views] = bench
            network = copy.deepcopy(bench.network)
        else:
            network = bench.network
        bench.trainee.objective.end(network)
        return network.cpu().eval(), outcome

    def _fitted(self, recipe: Recipe, bench: _Bench, until: float | None, leg: Leg | None) -> Recipe:
        """The recipe, as long as the time allows."""

        def n_epochs() -> int:
            return _fitted(recipe, bench.trainee, self._step_s[*bench.key, bench.precision], until, leg).n_epochs

        return replace(recipe, n_epochs=self.ranks.agreed(n_epochs))

    def _precision(
        self, key: tuple[Any, ...], trainee: Trainee, recipe: Recipe, settled: StepPrecision | None
    ) -> StepPrecision:
        """Measured once for a part of a body, whatever the rate, with the seconds that a step takes in it."""
        chosen = settled or self._chosen.get(key)
        if chosen is None or (*key, chosen) not in self._step_s:
            chosen = self._measured(key, trainee, recipe, chosen)
        if settled is None:
            self._chosen[key] = chosen
        return chosen

    def _measured(
        self, key: tuple[Any, ...], trainee: Trainee, recipe: Recipe, chosen: StepPrecision | None
    ) -> StepPrecision:
        """Times a step, in the precision that is chosen already, or was when the run that is repeated measured it."""
        found: dict[StepPrecision, float] = {}

        n_own = max(min(2, recipe.batch_size), math.ceil(recipe.batch_size / self.ranks.n))

        def measure(wanted: StepPrecision | None = None) -> StepPrecision:
            steps = measured(trainee, replace(recipe, batch_size=n_own), wanted)
            found[steps.precision] = steps.seconds
            return steps.precision

        body, n_unfrozen, batch_size, _ = key
        of = f"step of {body}, {n_unfrozen} unfrozen, {batch_size} pictures"
        if self.ranks.n > 1:
            of = f"{of} on {self.ranks.n} devices"
        precision = chosen or self.stores.record.one_of(of, _PRECISIONS, measure)
        if precision not in found:
            measure(precision)
        self._step_s[*key, precision] = found[precision]
        return precision

    def _trainee(self, network: nn.Module, candidate: Candidate, until: float | None, n_views: int) -> Trainee:
        split = self._split(network, candidate)
        views: list[NDArray[Any] | Pixels] = []
        if split is not None:
            views = [*self._views(split, candidate, until, n_views)]
        labels = {part: self.stores.bundle.labels[self.stores.bundle.indices(part)] for part in ("train", "validation")}
        module: nn.Module = network
        prepare: Callable[[Tensor], Tensor] = _to_float
        augment = None
        if split is not None and views:
            train, validation = self.stores.rows(len(views))
            module = split.tail
        else:
            views = [self.stores.bundle.pixels(candidate.image_size)]
            train, validation = (
                self.stores.bundle.indices("train")[None],
                self.stores.bundle.indices("validation")[None],
            )
            augment = Augment(self.stores.seed) if n_views > 1 else None
            prepare = _Normalise(self.stores.source.normalisation(candidate.backbone))
        return Trainee(
            module=module,
            set_mode=lambda: set_training_mode(module, batch_norm=self.batch_norm),
            prepare=prepare,
            train=Rows(views, train, labels["train"], augment=augment, seed=self.stores.seed),
            validation=Rows(views[:1], validation, labels["validation"]),
            device=self.stores.device,
            objective=Objective.of(self.stores.bundle.task, labels["train"], class_weights=class_weights_of(candidate)),
        )

    def _split(self, network: nn.Module, candidate: Candidate) -> Split | None:
        """As the first rank has verified it."""
        at, found = (candidate.body, candidate.n_unfrozen), []

        def verified() -> dict[str, Any]:
            found.append(self.stores.split(network, *at))
            return self.stores.settled(*at).to_json()

        settled = self.ranks.agreed(verified)
        if self.ranks.is_first:
            return found[0]
        self.stores.settle(*at, Settled(**settled))
        return self.stores.split(network, *at)

    def _views(self, split: Split, candidate: Candidate, until: float | None, n_views: int) -> list[NDArray[Any]]:
        """The first rank stores what is not there yet; others open it."""
        made: list[NDArray[Any]] = []

        def stored(n_wanted: int) -> int:
            made.extend(self.stores.views(split, candidate.body, candidate.n_unfrozen, n_views=n_wanted, until=until))
            return len(made)

        n_stored = self.ranks.agreed(lambda: stored(n_views))
        if not self.ranks.is_first and stored(n_stored) < n_stored:
            raise TrialError("what the first of its processes has stored was removed before others opened it")
        return made

    def _in_passes(self, candidate: Candidate) -> Recipe:
        """Its recipe, each step in as many passes as it takes to have no more pictures in memory than may be."""
        recipe, n_at_once = self._recipe(candidate), self.stores.n_at_once.get((candidate.body, candidate.n_unfrozen))
        while n_at_once is not None and recipe.batch_size > n_at_once:
            recipe = replace(recipe, batch_size=recipe.batch_size // 2, accumulate=2 * recipe.accumulate)
        return recipe

    def _recipe(self, candidate: Candidate) -> Recipe:
        bundle = self.stores.bundle
        recipe = recipe_of(candidate, bundle.task, n_train=len(bundle.indices("train")), seed=self.stores.seed)
        return replace(recipe, accumulate=self.handed.accumulate)


def recipe_of(candidate: Candidate, task: Task, *, n_train: int, seed: int) -> Recipe:
    """The numbers of a candidate's training.

    Args:
        candidate: with a learning rate.
        task: what the labels are.
        n_train: pictures of the training part.
        seed: of the order of pictures, dropout.
    """
    assert candidate.lr is not None
    extras = candidate.extras
    # At least twenty steps an epoch where there are so many pictures: smaller data wants smaller batches.
    fitting = 2 ** int(math.log2(max(4, min(64, n_train // 20))))
    return Recipe(
        lr=candidate.lr,
        n_epochs=int(extras.get("n_epochs", MAX_EPOCHS)),
        batch_size=int(extras.get("batch_size", fitting)),
        weight_decay=float(extras.get("weight_decay", 0.01)),
        label_smoothing=float(extras.get("label_smoothing", _SMOOTHING if task == "classification" else 0.0)),
        seed=seed,
        sampling=_balancing(candidate, "sampling"),
    )


def training_device() -> torch.device:
    """Where training runs: the best that this machine has."""
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return accelerator or torch.device("cpu")


def from_the_start(leg: Leg | None) -> Leg | None:
    """A leg that goes on from no checkpoint: it trains what came before it, too."""
    return None if leg is None else replace(leg, n_before=0)


def class_weights_of(candidate: Candidate) -> Balancing:
    """Whether its loss weighs classes. What is drawn equally often counts the same already: twice would turn the odds
    over.
    """
    return "none" if _balancing(candidate, "sampling") == "balanced" else _balancing(candidate, "class_weights")


def _balancing(candidate: Candidate, name: str) -> Balancing:
    return "balanced" if candidate.extras.get(name) == "balanced" else "none"


@contextmanager
def _freed_afterwards() -> Iterator[None]:
    """A trainer refers to itself, and so holds weights, averages and optimizer until Python looks for such circles by
    itself, many trainings later: over 200 short ones a process grew by 103 MB, and so by 1 MB.

    To look at all that a process has would take 0.3 s; what was there before the training is left out.
    """
    is_any_frozen = gc.get_freeze_count() > 0  # the user's own
    if not is_any_frozen:
        gc.freeze()
    try:
        yield
    finally:
        gc.collect()
        if not is_any_frozen:
            gc.unfreeze()


def _free_memory() -> None:
    gc.collect()  # Lightning's trainer and its loops refer to each other
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@dataclass(frozen=True, slots=True)
class _Bench:
    """A network, what of it is trained, what names such a part, and in which precision its steps multiply."""

    network: nn.Module
    trainee: Trainee
    key: tuple[Any, ...]
    precision: StepPrecision


def _take_buffers(network: nn.Module, tail: nn.Module) -> None:
    """Give a network its tail's running statistics: who moves a module between devices makes new tensors of them, and
    parameters alone stay shared.
    """
    if isinstance(tail, Tail):
        own = dict(network.named_buffers())
        with torch.no_grad():
            for name, buffer in tail.body.named_buffers():
                if name in own and own[name] is not buffer:
                    own[name].copy_(buffer)


def _settled(candidate: Candidate, leg: Leg | None) -> StepPrecision | None:
    """A training that goes on, or is repeated, keeps the precision that it began in."""
    if STEP_PRECISION in candidate.extras:
        return "bfloat16" if candidate.extras[STEP_PRECISION] == "bfloat16" else "float32"
    return None if leg is None or leg.n_before == 0 else "float32"


def _fitted(recipe: Recipe, trainee: Trainee, step_s: float, until: float | None, leg: Leg | None) -> Recipe:
    """The recipe, as long as the time allows."""
    n_before = 0 if leg is None else leg.n_before
    if until is None:
        return recipe
    epoch_s = step_s * _steps_an_epoch(trainee, recipe)
    n_fitting = int((until - time.monotonic()) * 0.9 / epoch_s)
    if n_fitting < 1:
        left_s = max(0.0, until - time.monotonic())
        raise EpochTooLongError(f"one epoch takes {epoch_s:.1f} s, and {left_s:.1f} s were left", epoch_s)
    return replace(recipe, n_epochs=min(recipe.n_epochs, n_before + n_fitting))


def _steps_an_epoch(trainee: Trainee, recipe: Recipe) -> float:
    """A validation row costs a forward pass, about a third of a training row."""
    return math.ceil(len(trainee.train) / recipe.batch_size) + len(trainee.validation) / recipe.batch_size / 3


def _channels_last(trainee: Trainee) -> Trainee:
    """Lay the weights of convolutions out as processors like it: their steps took 7.6 ms a picture on two cores of a
    server, and 12.5 ms with channels first.

    Not decided by the clock: rounding depends on the layout, and the same seed shall train the same network.
    """
    if not any(parameter.ndim == 4 for parameter in trainee.module.parameters()):
        return trainee
    trainee.module.to(memory_format=torch.channels_last)
    return replace(trainee, prepare=_ChannelsLast(trainee.prepare))


def _to_float(stored_batch: Tensor) -> Tensor:
    return stored_batch.to(torch.float32)


@dataclass(frozen=True, slots=True)
class _Normalise:
    normalisation: Normalisation

    def __call__(self, stored_batch: Tensor) -> Tensor:
        return normalise(stored_batch, self.normalisation)


@dataclass(frozen=True, slots=True)
class _ChannelsLast:
    prepare: Callable[[Tensor], Tensor]

    def __call__(self, stored_batch: Tensor) -> Tensor:
        prepared = self.prepare(stored_batch)
        return prepared.contiguous(memory_format=torch.channels_last) if prepared.ndim == 4 else prepared

import itertools
import tempfile
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.conftest import TINY
from tests.training.conftest import CPU, SIZE, Source, candidate, with_cache
from torch import nn

from autobackbone.backbones.blocks import blocks_of, trainable_names, unfreeze
from autobackbone.backbones.build import normalisation
from autobackbone.backbones.head import classifier_layers
from autobackbone.backbones.split import Tail
from autobackbone.data import LEFT_OUT
from autobackbone.errors import TrialError, TrialMemoryError
from autobackbone.screening import predict, screen
from autobackbone.training.pausing import Leg
from autobackbone.training.steps import measured
from autobackbone.training.tuner import STEP_PRECISION, _take_buffers


@pytest.mark.parametrize("is_stored", [True, False])
@pytest.mark.parametrize("n_unfrozen", [1, 2, 99])
def test_exactly_the_unfrozen_blocks_and_the_head_change(tuner, screened, tmp_path, n_unfrozen, is_stored):
    tuner = with_cache(tuner, tmp_path / "stored", 10**9 if is_stored else 0)
    before = Source().network(TINY, SIZE)
    n_unfrozen = min(n_unfrozen, len(blocks_of(before)))
    after, _ = tuner.tune(candidate(n_unfrozen=n_unfrozen), screened.head)
    trained = trainable_names(before, n_unfrozen)
    old, new = before.state_dict(), after.state_dict()
    assert list(old) == list(new)
    moved = {name for name in old if not torch.equal(old[name], new[name])}
    assert moved <= trained
    assert len(moved) > 0.9 * len(trained)


@pytest.mark.parametrize("is_stored", [True, False])
def test_a_cut_network_is_tuned_like_any_other(tuner, bundle, tmp_path, is_stored):
    tuner = with_cache(tuner, tmp_path / "stored", 10**9 if is_stored else 0)
    before = Source().network(TINY, SIZE, 3)
    head = screen(before, bundle, SIZE, normalisation(TINY), seed=0, device=CPU).head
    after, outcome = tuner.tune(candidate(n_unfrozen=1, n_blocks_kept=3), head)
    old, new = before.state_dict(), after.state_dict()
    moved = {name for name in old if not torch.equal(old[name], new[name])}
    assert list(old) == list(new)
    assert moved
    assert moved <= trainable_names(before, 1)
    again = predict(after, bundle, bundle.indices("validation"), SIZE, normalisation(TINY), device=CPU)
    np.testing.assert_allclose(again, outcome.predictions, atol=0.02)


def test_the_outcome_is_what_the_returned_network_says(tuner, screened, bundle):
    network, outcome = tuner.tune(candidate(n_unfrozen=2), screened.head)
    again = predict(network, bundle, bundle.indices("validation"), SIZE, normalisation(TINY), device=CPU)
    # The tail was fed half-precision activations.
    np.testing.assert_allclose(again, outcome.predictions, atol=0.02)
    assert len(outcome.rung_scores) == 2
    assert tuner.score(outcome.predictions) == pytest.approx(max(outcome.rung_scores))
    assert not network.training


def test_nothing_in_the_returned_network_is_older_than_its_weights(tuner, bundle):
    # EfficientViT keeps attention biases that it computed in eval mode, until a mode is set again.
    name = "efficientvit_m0"
    fresh = Source().network(name, SIZE)
    head = screen(fresh, bundle, SIZE, normalisation(name), seed=0, device=CPU).head
    wanted = replace(candidate(n_unfrozen=4, lr=1e-2, extras={"n_epochs": 4}), backbone=name)
    n_scored = itertools.count()
    first_is_best = replace(tuner, score=lambda _: -float(next(n_scored)))
    network, outcome = first_is_best.tune(wanted, head)
    assert outcome.best_epoch == 0
    fresh = Source().network(name, SIZE)
    biases = [key for key, _ in fresh.named_parameters() if "attention_biases" in key]
    assert any(not torch.equal(fresh.get_parameter(key), network.get_parameter(key)) for key in biases)
    fresh.load_state_dict(network.state_dict())
    pictures = torch.rand(4, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        # Their weights lie in other layouts, which round differently on some processors.
        torch.testing.assert_close(network(pictures), fresh(pictures), rtol=1e-5, atol=1e-5)
    again = predict(network, bundle, bundle.indices("validation"), SIZE, normalisation(name), device=CPU)
    np.testing.assert_allclose(again, outcome.predictions, atol=0.02)


def test_training_starts_from_the_screened_head(tuner, screened, bundle):
    _, outcome = tuner.tune(candidate(lr=1e-12), screened.head)
    np.testing.assert_allclose(outcome.predictions, screened.predictions, atol=0.02)


def test_training_learns(tuner, screened):
    blank = replace(screened.head, weight=screened.head.weight * 0)
    _, outcome = tuner.tune(candidate(n_unfrozen=3, lr=3e-3, extras={"n_epochs": 8}), blank)
    assert outcome.rung_scores[-1] > outcome.rung_scores[0]


def test_the_same_seed_trains_the_same_network(tuner, screened):
    one, _ = tuner.tune(candidate(), screened.head)
    two, _ = tuner.tune(candidate(), screened.head)
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))


def test_without_room_for_a_store_the_whole_network_trains_the_same_way(tuner, screened, bundle, tmp_path):
    without = with_cache(tuner, tmp_path / "none", 1)
    stored, _ = tuner.tune(candidate(), screened.head)
    whole, _ = without.tune(candidate(), screened.head)
    assert list((tmp_path / "none").iterdir()) == []
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(value, stored.state_dict()[name], atol=5e-3, rtol=0.05)


def test_a_disk_that_fills_up_leaves_the_whole_network_to_train(tuner, screened, tmp_path):
    resource = pytest.importorskip("resource")
    without = with_cache(tuner, tmp_path / "none", 1)
    whole, _ = without.tune(candidate(), screened.head)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        full, _ = tuner.tune(candidate(), screened.head)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tuner.stores.cache.folder.iterdir()) == []
    assert all(torch.equal(a, b) for a, b in zip(full.parameters(), whole.parameters(), strict=True))


def test_a_second_view_without_room_is_left_out_and_the_first_stays(tuner, screened):
    tuner.tune(candidate(), screened.head)
    (first,) = tuner.stores.cache.folder.glob("*.npy")
    tight = with_cache(tuner, tuner.stores.cache.folder, int(1.2 * first.stat().st_size))
    one, _ = tight.tune(candidate(), screened.head)
    three, _ = tight.tune(candidate(), screened.head, n_views=3)
    assert list(tuner.stores.cache.folder.glob("*.npy")) == [first]
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), three.parameters(), strict=True))


def test_running_statistics_stand_still_unless_asked(tuner, screened):
    before = Source().network(TINY, SIZE).state_dict()
    moving, _ = replace(tuner, batch_norm="batch").tune(candidate(n_unfrozen=2), screened.head)
    still, _ = tuner.tune(candidate(n_unfrozen=2), screened.head)
    statistics = [name for name in before if "running" in name]
    assert all(torch.equal(before[name], still.state_dict()[name]) for name in statistics)
    assert any(not torch.equal(before[name], moving.state_dict()[name]) for name in statistics)


def test_moving_statistics_are_kept_from_the_epoch_that_is_kept(tuner, screened, bundle, tmp_path):
    falling = itertools.count(0, -1)
    moving = replace(
        with_cache(tuner, tmp_path / "none", 1), batch_norm="batch", score=lambda _: float(next(falling) % -100)
    )
    network, outcome = moving.tune(candidate(n_unfrozen=2, lr=1e-2, extras={"n_epochs": 4}), screened.head)
    assert outcome.best_epoch == 0
    again = predict(network, bundle, bundle.indices("validation"), SIZE, normalisation(TINY), device=CPU)
    np.testing.assert_allclose(again, outcome.predictions, atol=1e-5)


def test_timing_a_step_moves_nothing(tuner, screened):
    moving = replace(tuner, batch_norm="batch")
    network = Source().network(TINY, SIZE)
    unfreeze(network, 2, batch_norm="batch")
    trainee = moving._trainee(network, candidate(n_unfrozen=2), None, 1)
    measured(trainee, moving._recipe(candidate(n_unfrozen=2)))
    for name, value in Source().network(TINY, SIZE).state_dict().items():
        assert torch.equal(network.state_dict()[name], value), name


def test_a_loss_that_is_no_number_is_a_failed_trial(tuner, screened):
    with pytest.raises(TrialError, match="the loss became"):
        tuner.tune(candidate(n_unfrozen=3, lr=1e30, extras={"n_epochs": 4}), screened.head)


# Left to a clock, either of two trainings may be the one in bfloat16.
EXACT = {STEP_PRECISION: "float32"}
BALANCED = {"class_weights": "balanced", "sampling": "balanced"}
OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory"),
]


class SmallSource(Source):
    """Networks that train on at most `n_fitting` pictures at once, from their so-many-th pass on."""

    def __init__(self, error, n_fitting, n_passes=0):
        self.error, self.n_fitting, self.n_passes = error, n_fitting, n_passes

    def network(self, backbone, image_size, n_blocks_kept=None):
        network = super().network(backbone, image_size, n_blocks_kept)
        passes = []

        def refuse(_, arguments):
            if torch.is_grad_enabled():
                passes.append(len(arguments[0]))
                if len(passes) > self.n_passes and passes[-1] > self.n_fitting:
                    raise self.error

        classifier_layers(network)["fc"].register_forward_pre_hook(refuse)
        return network


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("n_passes", [0, 9])  # while a step is timed, and in the middle of training
def test_where_memory_is_too_small_training_begins_anew_in_halves_of_a_step(tuner, screened, error, n_passes):
    wanted = candidate(lr=3e-3, extras={"n_epochs": 4, "batch_size": 8, **EXACT})
    small = replace(tuner, stores=replace(tuner.stores, source=SmallSource(error, n_fitting=4, n_passes=n_passes)))
    network, outcome = small.tune(wanted, screened.head)
    recipe = replace(tuner._recipe(wanted), batch_size=4, accumulate=2)
    alike, again = tuner._tune(wanted, screened.head, recipe, None, 1)
    assert outcome.rung_scores == again.rung_scores
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), alike.parameters(), strict=True))


def test_two_passes_of_half_as_many_pictures_make_the_same_steps(tuner, screened, bundle):
    n_train = len(bundle.indices("train"))
    wanted = candidate(n_unfrozen=2, extras={"n_epochs": 8, "batch_size": n_train, **EXACT})
    _, whole = tuner.tune(wanted, screened.head)
    recipe = tuner._recipe(wanted)
    _, halves = tuner._tune(wanted, screened.head, replace(recipe, batch_size=n_train // 2, accumulate=2), None, 1)
    _, single = tuner._tune(wanted, screened.head, replace(recipe, batch_size=n_train // 2), None, 1)
    np.testing.assert_allclose(halves.predictions, whole.predictions, atol=1e-3)
    assert np.abs(single.predictions - whole.predictions).max() > 1e-2


def test_memory_that_is_too_small_for_half_as_many_is_a_failed_trial(tuner, screened):
    small = replace(tuner, stores=replace(tuner.stores, source=SmallSource(MemoryError(), n_fitting=3)))
    with pytest.raises(TrialMemoryError, match="out of memory"):
        small.tune(candidate(extras={"n_epochs": 1, "batch_size": 8}), screened.head)
    with pytest.raises(TrialMemoryError, match="out of memory"):
        replace(small, stores=replace(small.stores, source=SmallSource(MemoryError(), n_fitting=0))).tune(
            candidate(extras={"n_epochs": 1, "batch_size": 1}), screened.head
        )


def test_what_has_nothing_to_do_with_memory_is_told_as_it_is(tuner, screened):
    broken = replace(tuner, stores=replace(tuner.stores, source=SmallSource(RuntimeError("a bug"), n_fitting=4)))
    with pytest.raises(RuntimeError, match="a bug"):
        broken.tune(candidate(extras={"n_epochs": 1, "batch_size": 8}), screened.head)


def test_time_that_is_over_is_a_failed_trial_and_short_time_a_shorter_training(tuner, screened):
    with pytest.raises(TrialError, match=r"time ended|s were left"):
        tuner.tune(candidate(), screened.head, until=time.monotonic() - 1)
    begun = time.monotonic()
    _, outcome = tuner.tune(candidate(extras={"n_epochs": 100_000}), screened.head, until=begun + 6)
    assert 1 <= len(outcome.rung_scores) < 100_000
    assert time.monotonic() < begun + 12


def test_augmented_views_are_stored_beside_the_first_and_only_training_sees_them(tuner, screened, bundle):
    _, plain = tuner.tune(candidate(lr=1e-12), screened.head, n_views=1)
    _, outcome = tuner.tune(candidate(lr=1e-12), screened.head, n_views=3)
    assert len(list(tuner.stores.cache.folder.glob("*.npy"))) == 3
    np.testing.assert_allclose(outcome.predictions, plain.predictions, atol=1e-6)
    one, _ = tuner.tune(candidate(), screened.head, n_views=1)
    three, _ = tuner.tune(candidate(), screened.head, n_views=3)
    assert any(not torch.equal(a, b) for a, b in zip(one.parameters(), three.parameters(), strict=True))


@pytest.mark.parametrize("is_same_process", [True, False])
@pytest.mark.parametrize(
    ("is_stored", "batch_norm", "balancing"),
    [(True, "fixed", {}), (False, "batch", {}), (True, "fixed", {"sampling": "balanced"}), (False, "fixed", BALANCED)],
)
def test_a_training_that_pauses_goes_on_as_if_it_had_not(
    tuner, screened, tmp_path, is_same_process, is_stored, batch_norm, balancing
):
    tuner = replace(with_cache(tuner, tmp_path / "stored", 10**9 if is_stored else 0), batch_norm=batch_norm)
    wanted = candidate(n_unfrozen=2, extras={"n_epochs": 5, **balancing, **EXACT})
    unbroken, whole = tuner.tune(wanted, screened.head, n_views=2)
    checkpoint = tmp_path / "checkpoint.ckpt"
    paused, first = tuner.tune(wanted, screened.head, n_views=2, leg=Leg(checkpoint=checkpoint, pause_at=1))
    assert (first.n_epochs, first.is_cut_short, checkpoint.is_file()) == (1, False, True)
    of_pause = {name: value.clone() for name, value in paused.state_dict().items()}
    later = tuner if is_same_process else replace(tuner, score=tuner.score)
    _, second = later.tune(wanted, screened.head, n_views=2, leg=Leg(checkpoint=checkpoint, n_before=1, pause_at=3))
    resumed, third = later.tune(wanted, screened.head, n_views=2, leg=Leg(checkpoint=checkpoint, n_before=3))
    assert (second.n_epochs, third.n_epochs) == (2, 2)
    assert third.rung_scores == whole.rung_scores
    assert third.rung_scores[:3] == second.rung_scores
    assert third.train_scores == whole.train_scores
    assert third.train_scores[:3] == second.train_scores
    assert len(set(whole.train_scores)) == len(whole.train_scores) == 5
    assert third.best_epoch == whole.best_epoch
    np.testing.assert_array_equal(third.predictions, whole.predictions)
    for name, value in unbroken.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    # What a pause gave is the caller's own.
    assert all(torch.equal(value, of_pause[name]) for name, value in paused.state_dict().items())


def test_balancing_trains_another_network_and_what_is_drawn_evenly_is_not_weighed_too(tuner, screened, bundle):
    # The pictures have even classes: most of one are left out.
    parts, members = bundle.parts.copy(), bundle.indices("train")
    parts[members[bundle.labels[members] == 2][1:]] = LEFT_OUT
    few = replace(bundle, parts=parts, split_digest="uneven")
    n_scored = itertools.count()
    uneven = replace(tuner, stores=replace(tuner.stores, bundle=few), score=lambda _: float(next(n_scored)))
    blank, settings = replace(screened.head, weight=screened.head.weight * 0), {"n_epochs": 8, **EXACT}
    found = {
        name: uneven.tune(candidate(n_unfrozen=2, lr=3e-3, extras={**settings, **extras}), blank)[1]
        for name, extras in {
            "none": {},
            "weights": {"class_weights": "balanced"},
            "sampling": {"sampling": "balanced"},
            "both": BALANCED,
        }.items()
    }
    rare = {name: outcome.predictions[:, 2].mean() for name, outcome in found.items()}
    assert min(rare["weights"], rare["sampling"]) > rare["none"], rare
    np.testing.assert_array_equal(found["both"].predictions, found["sampling"].predictions)


@pytest.mark.parametrize("is_stored", [True, False])
def test_a_checkpoint_holds_what_training_moves_and_nothing_frozen(tuner, screened, tmp_path, is_stored):
    tuner = with_cache(tuner, tmp_path / "stored", 10**9 if is_stored else 0)
    checkpoint = tmp_path / "checkpoint.ckpt"
    network, _ = tuner.tune(candidate(), screened.head, leg=Leg(checkpoint=checkpoint, pause_at=1))
    trained = trainable_names(network, 1)
    held = torch.load(checkpoint, weights_only=True)
    for state in ("state_dict", "current_model_state"):
        # The tail behind a store holds the network as its body.
        assert {name.removeprefix("module.").removeprefix("body.") for name in held[state]} == trained
    n_bytes = sum(network.get_parameter(name).nbytes for name in trained)
    # Present and averaged weights, and two moments of each; names and numbers take the rest.
    assert 4 * n_bytes < checkpoint.stat().st_size < 4 * n_bytes + 50_000


@pytest.mark.parametrize(("pause_at", "batch_norm"), [(1, "fixed"), (1, "batch"), (2, "fixed")])
def test_a_resumed_training_may_be_the_best_where_it_paused(tuner, screened, tmp_path, pause_at, batch_norm):
    n_scored = itertools.count()
    first_is_best = replace(tuner, score=lambda _: -float(next(n_scored)), batch_norm=batch_norm)
    wanted, checkpoint = candidate(n_unfrozen=2, lr=1e-2, extras={"n_epochs": 3}), tmp_path / "checkpoint.ckpt"
    paused, first = first_is_best.tune(wanted, screened.head, leg=Leg(checkpoint=checkpoint, pause_at=pause_at))
    again = replace(first_is_best, score=first_is_best.score)
    ended, last = again.tune(wanted, screened.head, leg=Leg(checkpoint=checkpoint, n_before=pause_at))
    assert (last.best_epoch, len(last.rung_scores)) == (0, 3)
    np.testing.assert_array_equal(first.predictions, last.predictions)
    assert all(torch.equal(value, ended.state_dict()[name]) for name, value in paused.state_dict().items())


def test_a_resumed_training_ends_within_its_time(tuner, screened, tmp_path):
    wanted, checkpoint = candidate(extras={"n_epochs": 10_000}), tmp_path / "checkpoint.ckpt"
    tuner.tune(wanted, screened.head, leg=Leg(checkpoint=checkpoint, pause_at=2))
    _, outcome = tuner.tune(
        wanted, screened.head, until=time.monotonic() + 2.0, leg=Leg(checkpoint=checkpoint, n_before=2)
    )
    assert len(outcome.rung_scores) == 2 + outcome.n_epochs
    assert 1 <= outcome.n_epochs < 9_998


def test_a_checkpoint_is_written_where_it_is_to_lie(tuner, screened, tmp_path, monkeypatch):
    """What a kill left in the temporary folder of a machine, nobody would remove."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    checkpoint = tmp_path / "run" / "checkpoint.ckpt"
    checkpoint.parent.mkdir()
    tuner.tune(candidate(), screened.head, leg=Leg(checkpoint=checkpoint, pause_at=1))
    assert list(checkpoint.parent.iterdir()) == [checkpoint]
    assert not (tmp_path / "none").exists()


def test_without_room_for_a_checkpoint_a_training_ends_at_its_rung(tuner, screened, tmp_path):
    resource = pytest.importorskip("resource")
    wanted, checkpoint = candidate(extras={"n_epochs": 4}), tmp_path / "checkpoint.ckpt"
    tuner.tune(wanted, screened.head)  # its activations are stored from now on
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, limits[1]))
    try:
        _, outcome = tuner.tune(wanted, screened.head, leg=Leg(checkpoint=checkpoint, pause_at=1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (len(outcome.rung_scores), outcome.is_cut_short) == (1, False)
    assert list(tmp_path.glob("*.ckpt*")) + list(tmp_path.glob(".*.ckpt*")) == []


@pytest.mark.parametrize("damage", ["removed", "torn", "of another depth", "with a store that is gone"])
def test_a_checkpoint_that_cannot_be_used_fails_the_trial_alone(tuner, screened, tmp_path, damage):
    wanted, checkpoint = candidate(n_unfrozen=2, extras={"n_epochs": 4}), tmp_path / "checkpoint.ckpt"
    tuner.tune(wanted, screened.head, leg=Leg(checkpoint=checkpoint, pause_at=1))
    if damage == "removed":
        checkpoint.unlink()
    elif damage == "torn":
        checkpoint.write_bytes(checkpoint.read_bytes()[:5000])
    elif damage == "of another depth":
        wanted = replace(wanted, n_unfrozen=3)
    else:
        tuner = with_cache(tuner, tmp_path / "full", 0)
    again = replace(tuner, score=tuner.score)
    with pytest.raises(TrialError, match="it cannot go on: its checkpoint is"):
        again.tune(wanted, screened.head, leg=Leg(checkpoint=checkpoint, n_before=1))


def test_what_memory_has_taught_is_kept_for_the_next_leg(tuner, screened, tmp_path):
    source = SmallSource(MemoryError(), n_fitting=4)
    small = replace(tuner, stores=replace(tuner.stores, source=source))
    wanted = candidate(lr=3e-3, extras={"n_epochs": 4, "batch_size": 8})
    leg = Leg(checkpoint=tmp_path / "checkpoint", pause_at=1)
    _, first = small.tune(wanted, screened.head, leg=leg)
    _, second = small.tune(wanted, screened.head, leg=replace(leg, n_before=1, pause_at=2))
    assert (first.n_epochs, second.n_epochs) == (1, 1)
    assert second.rung_scores[:1] == first.rung_scores


def test_running_statistics_that_moved_to_new_tensors_come_back(tuner, screened):
    moving = replace(tuner, batch_norm="batch")
    network = moving.stores.source.network(TINY, SIZE)
    unfreeze(network, 2, batch_norm="batch")
    tail = moving._trainee(network, candidate(n_unfrozen=2), None, 1).module
    assert isinstance(tail, Tail)
    norm = next(module for module in reversed(list(tail.body.modules())) if isinstance(module, nn.BatchNorm2d))
    name = next(name for name, module in tail.body.named_modules() if module is norm)
    norm.running_mean = norm.running_mean.clone() + 1  # as a move to another device and back does
    own = network.get_submodule(name).running_mean
    assert not torch.equal(own, norm.running_mean)
    _take_buffers(network, tail)
    assert torch.equal(own, norm.running_mean)


def test_a_smaller_batch_than_memory_has_taught_stays_as_it_is(tuner, screened):
    small = replace(tuner, stores=replace(tuner.stores, source=SmallSource(MemoryError(), n_fitting=4)))
    small.tune(candidate(extras={"n_epochs": 1, "batch_size": 8}), screened.head)
    _, outcome = small.tune(candidate(extras={"n_epochs": 1, "batch_size": 1}), screened.head)
    assert outcome.n_epochs == 1

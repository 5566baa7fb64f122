import copy
import time
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.conftest import TINY, make_pictures

from autobackbone.backbones.build import build, normalisation
from autobackbone.backbones.head import set_head
from autobackbone.backbones.split import split_at
from autobackbone.convexhead import fit_head
from autobackbone.data import TRAIN, decode, survey
from autobackbone.errors import TrialError, TrialMemoryError
from autobackbone.exporting.transform import normalise
from autobackbone.screening import Features, Tap, copied, extract, fair_order, predict, screen

CPU = torch.device("cpu")
SIZE = (32, 32)


@pytest.fixture(scope="module")
def bundle(pictures, tmp_path_factory):
    return decode(survey(pictures), [SIZE], cache_dir=tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def network():
    return build(TINY, n_classes=3, image_size=SIZE)


def test_the_head_inside_the_network_says_what_the_head_beside_it_says(bundle, network):
    screened = screen(network, bundle, SIZE, normalisation(TINY), seed=0, device=CPU)
    set_head(network, torch.from_numpy(screened.head.weight), torch.from_numpy(screened.head.bias))
    validation = bundle.indices("validation")
    inside = predict(network, bundle, validation, SIZE, normalisation(TINY), device=CPU)
    np.testing.assert_allclose(inside, screened.predictions, atol=1e-5)
    assert screened.n_train == len(bundle.indices("train"))


def test_a_tap_is_told_what_the_tail_takes_also_where_branches_enter_in_a_list(bundle):
    network = build("selecsls42b.in1k", n_classes=3, image_size=SIZE)
    some = bundle.indices("train")[:6]
    images = normalise(torch.from_numpy(bundle.pixels(SIZE)[some]), normalisation("selecsls42b.in1k"))
    split = split_at(network, 2, images[:2])
    assert split is not None
    assert isinstance(split.tail.entering, list)
    told = []
    taps = [Tap(module=split.entry, read=copied, tell=told.append)]
    extract(network, bundle, some, SIZE, normalisation("selecsls42b.in1k"), device=CPU, taps=taps)
    torch.testing.assert_close(torch.cat(told), split.prefix(images))


def test_the_test_part_is_never_looked_at(bundle, network):
    looked = set(fair_order(bundle, seed=0).tolist())
    assert looked == set(bundle.indices("train").tolist()) | set(bundle.indices("validation").tolist())
    assert not looked & set(bundle.indices("test").tolist())


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000))
def test_every_beginning_of_the_order_keeps_classes_and_parts_in_proportion(seed):
    found = survey(make_pictures(n_per_class=50, side=8))
    bundle = _without_pixels(found)
    order = fair_order(bundle, seed=seed)
    for n in (20, 40, 60):
        begin = order[:n]
        share = (bundle.parts[begin] == TRAIN).mean()
        assert abs(share - len(bundle.indices("train")) / len(order)) < 0.15
        assert np.bincount(bundle.labels[begin], minlength=3).min() >= n // 3 - 3


def _without_pixels(found):
    class Bundle:
        parts, labels, classes, strata, task = found.parts, found.labels, found.classes, found.strata, found.task

        def indices(self, part):
            return np.flatnonzero(found.parts == {"train": 0, "validation": 1, "test": 2}[part])

    return Bundle()


def test_where_memory_is_too_small_for_a_batch_its_parts_say_the_same(bundle, network):
    def refuse_more_than(n):
        def refuse(_, arguments):
            if len(arguments[0]) > n:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")

        return network.register_forward_pre_hook(refuse)

    given = (network, bundle, bundle.indices("train"), SIZE, normalisation(TINY))
    features, probabilities = extract(*given, device=CPU).train, predict(*given, device=CPU)
    handle = refuse_more_than(3)
    np.testing.assert_allclose(extract(*given, device=CPU).train, features, atol=1e-4)
    np.testing.assert_allclose(predict(*given, device=CPU), probabilities, atol=1e-5)
    handle.remove()
    handle = refuse_more_than(0)
    with pytest.raises(TrialMemoryError, match="out of memory"):
        screen(network, bundle, SIZE, normalisation(TINY), seed=0, device=CPU)
    with pytest.raises(TrialMemoryError, match="out of memory"):
        predict(*given, device=CPU)
    handle.remove()


def test_what_scores_is_in_the_precision_of_the_target(bundle, network):
    given = (network, bundle, bundle.indices("validation"), SIZE, normalisation(TINY))
    whole, half = (predict(*given, device=CPU, precision=name) for name in ("float32", "bfloat16"))
    assert not np.array_equal(whole, half)
    np.testing.assert_allclose(half, whole, atol=0.05)
    np.testing.assert_allclose(half.sum(axis=1), 1, atol=1e-5)


def test_the_end_of_the_head_is_given_on_and_leaves_small_data_as_they_are(bundle, network):
    now = time.monotonic()
    ends = {"ample": now + 600, "over": now - 1}
    timed = {
        name: screen(network, bundle, SIZE, normalisation(TINY), seed=0, device=CPU, head_until=end)
        for name, end in ends.items()
    }
    whole = screen(network, bundle, SIZE, normalisation(TINY), seed=0, device=CPU)
    np.testing.assert_array_equal(timed["ample"].predictions, whole.predictions)
    assert timed["over"].n_train < whole.n_train == len(bundle.indices("train"))
    assert np.isfinite(timed["over"].predictions).all()


def test_time_cuts_the_pass_but_leaves_a_head(bundle, network):
    screened = screen(network, bundle, SIZE, normalisation(TINY), seed=0, device=CPU, until=time.monotonic())
    if screened is not None:  # one batch of 32 reaches all classes here
        assert screened.n_train < len(bundle.indices("train")) or len(bundle.labels) <= 64
        assert np.isfinite(screened.head.weight).all()
    reached = extract(network, bundle, fair_order(bundle, seed=0), SIZE, normalisation(TINY), device=CPU, until=0.0)
    n_reached = len(reached.train) + len(reached.others)
    assert 8 <= n_reached <= 32
    assert (len(reached.train_indices), len(reached.other_indices)) == (len(reached.train), len(reached.others))
    assert set(bundle.parts[reached.train_indices]) == {TRAIN}


def test_what_is_no_number_is_an_error_of_the_trial(bundle, network):
    broken = copy.deepcopy(network)
    with torch.no_grad():
        next(broken.parameters()).fill_(float("nan"))
    given = (broken, bundle, SIZE, normalisation(TINY))
    with pytest.raises(TrialError, match="features are no numbers"):
        screen(*given, seed=0, device=CPU)
    with pytest.raises(TrialError, match="answers are no numbers in float32"):
        predict(broken, bundle, bundle.indices("validation"), SIZE, normalisation(TINY), device=CPU)


def test_each_row_is_of_its_picture_whatever_the_order(bundle, network):
    order = np.random.default_rng(0).permutation(np.flatnonzero(bundle.parts <= 1))
    given = {"image_size": SIZE, "normalisation": normalisation(TINY), "device": CPU}
    reached = extract(network, bundle, order, **given)
    one_by_one = {index: extract(network, bundle, np.array([index]), **given) for index in order[:12]}
    for values, indices in ((reached.train, reached.train_indices), (reached.others, reached.other_indices)):
        for row, index in zip(values, indices, strict=True):
            if index in one_by_one:
                alone = one_by_one[index]
                np.testing.assert_allclose(np.concatenate([alone.train, alone.others])[0], row, atol=1e-4)
    assert sorted([*reached.train_indices, *reached.other_indices]) == sorted(order)
    # As rows in the order of the pass, such as stored ones.
    whole = np.empty((len(bundle.labels), reached.train.shape[1]), np.float32)
    whole[reached.train_indices], whole[reached.other_indices] = reached.train, reached.others
    same = Features.of(whole[order], order, bundle, seconds=1.0)
    np.testing.assert_array_equal(same.train, reached.train)
    np.testing.assert_array_equal(same.other_indices, reached.other_indices)


def test_fitting_a_head_in_place_takes_no_second_matrix():
    peaks, rng = [], np.random.default_rng(0)
    for n in (10_000, 40_000):
        features, labels = rng.standard_normal((n, 128)).astype(np.float32), rng.integers(0, 2, n)
        tracemalloc.start()
        fit_head(features, labels, n_outputs=2, seed=0, copy=False)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 0.2 * 30_000 * 128 * 4


def test_a_machine_that_sleeps_in_the_midst_of_a_pass_makes_its_network_no_slower(network, tmp_path, monkeypatch):
    """What a pass took is what all of the run, and later sittings, take such a network to cost."""
    bundle = decode(survey(make_pictures(60)), [(32, 32)], cache_dir=tmp_path)
    order, clock, seen = fair_order(bundle, seed=0), time.monotonic, []

    def sleep(done):
        seen.append(done)
        if len(seen) == 3:
            monkeypatch.setattr(time, "monotonic", lambda: clock() + 3600.0)

    reached = extract(
        network, bundle, order, (32, 32), normalisation(TINY), device=torch.device("cpu"), on_progress=sleep
    )
    assert len(seen) > 4
    assert len(reached.train) + len(reached.others) == len(order)
    assert reached.seconds < 60

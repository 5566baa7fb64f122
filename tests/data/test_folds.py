from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.data.conftest import noise

from autobackbone.data import FEW_PICTURES, TEST, TRAIN, VALIDATION, decode, folds_of, pooled, survey, wants_folds

N = 60
SEEDS = st.integers(0, 20)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    pictures = np.random.default_rng(0).integers(0, 256, (N, 8, 8, 3), np.uint8)
    return decode(survey((pictures, [0, 1, 2] * 20)), [16], cache_dir=tmp_path_factory.mktemp("data"))


@given(labels=st.lists(st.integers(0, 3), min_size=N, max_size=N), seed=SEEDS)
def test_every_class_is_spread_evenly_over_the_folds(bundle, labels, seed):
    own = replace(bundle, labels=np.array(labels))
    members, folds = pooled(own), folds_of(own, seed=seed)
    assert set(bundle.parts[members]) == {TRAIN, VALIDATION}
    assert len(members) == len(folds) == (bundle.parts != TEST).sum()
    for label in set(own.labels[members].tolist()):
        counts = np.bincount(folds[own.labels[members] == label], minlength=5)
        assert counts.max() - counts.min() <= 1


@given(groups=st.lists(st.integers(0, 9), min_size=N, max_size=N), seed=SEEDS)
def test_groups_and_copies_stay_whole_and_no_fold_is_empty(bundle, groups, seed):
    copies = np.arange(N)
    copies[1::2] = copies[::2]  # neighbours are copies, whatever their groups
    own = replace(bundle, groups=np.array(groups), copies=copies)
    folds = folds_of(own, seed=seed)
    members = pooled(own)
    if folds is None:
        return
    assert np.bincount(folds).min() > 0
    assert folds.max() > 0
    for codes in (own.groups, own.copies):
        for code in np.unique(codes[members]):
            assert len(set(folds[codes[members] == code])) == 1


def test_copies_alone_stay_whole(bundle):
    copies = np.arange(N) // 4
    folds = folds_of(replace(bundle, copies=copies), seed=0)
    assert folds.max() == 4
    assert all(len(set(folds[copies[pooled(bundle)] == code])) == 1 for code in set(copies[pooled(bundle)]))


@pytest.mark.parametrize("task", ["regression", "multilabel"])
def test_what_stands_for_classes_is_spread_too(bundle, task):
    generator = np.random.default_rng(0)
    numbers, labels = generator.normal(size=(N, 2)), generator.integers(0, 2, (N, 3))
    own = replace(bundle, task=task, labels=numbers if task == "regression" else labels)
    folds = folds_of(own, seed=0)
    assert np.bincount(folds).max() - np.bincount(folds).min() <= 2
    if task == "regression":  # each fold has its share of small and of large numbers
        main = numbers[pooled(own)].sum(axis=1)
        assert np.ptp([main[folds == fold].mean() for fold in range(5)]) < main.std()


def test_the_seed_alone_decides(bundle):
    one, same, other = (folds_of(bundle, seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_there_are_as_many_folds_as_groups_allow(bundle):
    assert folds_of(replace(bundle, groups=np.arange(N) % 3), seed=0).max() == 2
    assert folds_of(replace(bundle, groups=np.zeros(N, np.int64)), seed=0) is None


def test_folds_are_wanted_of_few_pictures_whose_validation_part_was_made(bundle):
    assert bundle.made == ("test", "validation")
    assert wants_folds(bundle)
    assert wants_folds(replace(bundle, made=("validation",)))
    assert not wants_folds(replace(bundle, made=()))
    assert not wants_folds(replace(bundle, made=("test",)))
    assert not wants_folds(replace(bundle, parts=np.zeros(FEW_PICTURES, np.int8)))
    assert wants_folds(replace(bundle, parts=np.zeros(FEW_PICTURES - 1, np.int8)))


def test_a_split_that_follows_times_wants_none(tmp_path):
    pictures = np.stack([noise(seed) for seed in range(40)])
    found = survey((pictures, [0, 1] * 20), times=list(range(40)))
    assert not wants_folds(decode(found, [16], cache_dir=tmp_path))

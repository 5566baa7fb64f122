from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autobackbone.data import TEST, TRAIN, VALIDATION, DataWarning, survey
from autobackbone.data.parts import split_parts
from autobackbone.data.strata import one_fifth_greedily, strata_of
from autobackbone.errors import DataError

SEEDS = st.integers(0, 1000)


def several(seed: int, n: int = 120, n_labels: int = 4) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return (generator.random((n, n_labels)) < generator.uniform(0.05, 0.6, n_labels)).astype(np.int64)


@given(SEEDS, st.integers(1, 3))
def test_each_tenth_of_numbers_is_in_every_part_in_its_share(seed, n_targets):
    values = np.random.default_rng(seed).lognormal(size=(200, n_targets))
    parts = split_parts(values, "regression", given=None, groups=None, seed=seed).parts
    strata = strata_of(values, "regression")
    assert np.bincount(strata).tolist() == [20] * 10
    assert [int((parts == part).sum()) for part in (TRAIN, VALIDATION, TEST)] == [128, 32, 40]
    assert all(3 <= int((parts[strata == k] == TEST).sum()) <= 5 for k in range(10))


def test_the_strata_of_one_number_follow_its_order():
    values = np.random.default_rng(0).normal(size=(100, 1))
    strata = strata_of(values, "regression")[np.argsort(values[:, 0])]
    assert (np.diff(strata) >= 0).all() or (np.diff(strata) <= 0).all()


@given(SEEDS)
def test_a_greedy_fifth_holds_every_label_in_its_share(seed):
    labels = several(seed)
    chosen = one_fifth_greedily(labels, None, seed)
    assert abs(len(chosen) - 24) <= 5
    n_with = labels.sum(axis=0)
    assert (np.abs(labels[chosen].sum(axis=0) - 0.2 * n_with) <= 4).all()
    # A label that a fair share would give one picture at least has one.
    assert (labels[chosen].sum(axis=0)[n_with >= 5] >= 1).all()


def test_a_greedy_deal_is_fairer_than_chance():
    labels = several(3, n=300, n_labels=12)
    fair = np.abs(labels[one_fifth_greedily(labels, None, 0)].mean(axis=0) - labels.mean(axis=0)).mean()
    draws = [np.random.default_rng(seed).permutation(300)[:60] for seed in range(50)]
    by_chance = np.mean([np.abs(labels[rows].mean(axis=0) - labels.mean(axis=0)).mean() for rows in draws])
    assert fair < by_chance / 3


@given(SEEDS)
def test_a_greedy_fifth_keeps_groups_whole(seed):
    labels, groups = several(seed), np.random.default_rng(seed).integers(0, 30, 120)
    chosen = one_fifth_greedily(labels, groups, seed)
    assert 0 < len(chosen) < 120
    assert not set(groups[chosen]) & set(np.delete(groups, chosen))


@given(SEEDS)
def test_every_part_of_a_multilabel_split_has_pictures(seed):
    parts = split_parts(several(seed), "multilabel", given=None, groups=None, seed=seed).parts
    assert set(parts) == {TRAIN, VALIDATION, TEST}


def test_labels_that_too_few_pictures_have_are_left_out():
    labels = np.column_stack([np.arange(40) % 2, np.arange(40) < 4, np.arange(40) > 1])
    pictures = np.zeros((40, 4, 4), np.uint8)
    with pytest.warns(DataWarning, match=r"2 labels that too few of 40 pictures have or have not: 1 \(4\), 2 \(38\)"):
        found = survey((pictures, labels))
    assert found.classes == (0,)
    assert found.labels.shape == (40, 1)
    with pytest.raises(DataError, match="or leave them out with rare='leave_out'"):
        survey((pictures, labels), rare="error")


def test_too_few_pictures_to_split_are_refused():
    with pytest.raises(DataError, match="at least 5 pictures to take parts from; 4 came"):
        survey((np.zeros((4, 4, 4), np.uint8), [0.5, 1.5, 2.5, 3.5]))
    with pytest.raises(DataError, match="at least 5 groups to take parts from; 2 came"):
        survey((np.zeros((20, 4, 4), np.uint8), np.arange(20) / 3), groups=np.arange(20) % 2)


def test_five_numbers_are_enough():
    found = survey((np.zeros((5, 4, 4), np.uint8), [0.5, 1.5, 2.5, 3.5, 4.5]))
    assert found.sizes() == {"train": 3, "validation": 1, "test": 1}

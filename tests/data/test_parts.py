from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from autobackbone.data.parts import LEFT_OUT, TEST, TRAIN, VALIDATION, encode_groups, split_parts
from autobackbone.errors import DataError

SIZES = st.lists(st.integers(1, 40), min_size=2, max_size=5)


def labels_of(sizes: list[int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))


def counted(labels: np.ndarray, parts: np.ndarray, code: int) -> dict[int, int]:
    return {part: int(((labels == code) & (parts == part)).sum()) for part in (TRAIN, VALIDATION, TEST, LEFT_OUT)}


@given(SIZES, st.integers(0, 5))
def test_every_class_is_in_every_part_in_its_share_or_wholly_left_out(sizes, seed):
    labels = labels_of(sizes)
    split = split_parts(labels, given=None, groups=None, seed=seed)
    for code, n in enumerate(sizes):
        found = counted(labels, split.parts, code)
        if n < 5:
            assert code in split.rare
            assert found[LEFT_OUT] == n
            continue
        assert code not in split.rare
        assert found[LEFT_OUT] == 0
        assert min(found[TRAIN], found[VALIDATION], found[TEST]) >= 1
        assert abs(found[TEST] - 0.2 * n) < 1
        assert abs(found[VALIDATION] - 0.2 * (n - found[TEST])) < 1


@given(SIZES, st.integers(0, 100))
def test_the_seed_alone_decides(sizes, seed):
    labels = labels_of(sizes)
    first, again = (split_parts(labels, given=None, groups=None, seed=seed).parts for _ in range(2))
    assert np.array_equal(first, again)


def test_another_seed_gives_another_split():
    labels = labels_of([50, 50])
    first, second = (split_parts(labels, given=None, groups=None, seed=seed).parts for seed in (0, 1))
    assert not np.array_equal(first, second)


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 14)), min_size=30, max_size=90), st.integers(0, 3))
def test_groups_are_kept_whole(pairs, seed):
    labels, groups = (np.array(side, np.int64) for side in zip(*pairs, strict=True))
    split = split_parts(labels, given=None, groups=groups, seed=seed)
    kept = split.parts != LEFT_OUT
    assume(kept.any())
    for group in np.unique(groups[kept]):
        assert len(np.unique(split.parts[kept & (groups == group)])) == 1
    for code in set(range(3)) - set(split.rare):
        assert counted(labels, split.parts, code)[TRAIN] >= 1


def test_groups_that_allow_it_keep_the_shares():
    labels, groups = np.tile([0, 1], 250), np.repeat(np.arange(50), 10)
    parts = split_parts(labels, given=None, groups=groups, seed=0).parts
    assert [int((parts == part).sum()) for part in (TRAIN, VALIDATION, TEST)] == [320, 80, 100]


def test_a_class_with_fewer_groups_than_parts_is_left_out():
    labels = np.repeat([0, 1, 2], 20)
    groups = np.concatenate([np.arange(20) % 7, 10 + np.arange(20) % 7, 20 + np.arange(20) % 2])
    assert split_parts(labels, given=None, groups=groups, seed=0).rare == (2,)


@given(SIZES, st.sets(st.sampled_from([VALIDATION, TEST]), min_size=1), st.integers(0, 3))
def test_a_given_split_is_kept_exactly(sizes, brought, seed):
    labels = labels_of([*sizes, 10, 10])
    parts = np.random.default_rng(seed).choice([TRAIN, TRAIN, TRAIN, *brought], len(labels)).astype(np.int8)
    for part in brought:
        parts[int(part)] = part
    before = parts.copy()
    split = split_parts(labels, given=parts, groups=None, seed=seed)
    assert np.array_equal(parts, before)
    for part in brought:
        assert np.array_equal(
            split.parts[~np.isin(labels, split.rare)] == part, (before == part)[~np.isin(labels, split.rare)]
        )
    n_train = np.bincount(labels[before == TRAIN], minlength=len(sizes) + 2)
    is_given = np.bincount(labels[np.isin(before, list(brought))], minlength=len(sizes) + 2) > 0
    if (n_train >= 5).sum() >= 2:
        assert not (n_train > 0)[is_given & np.isin(np.arange(len(n_train)), split.rare)].any()
    for part, name in ((VALIDATION, "validation"), (TEST, "test")):
        made = [note for note in split.notes if f"no {name} part was given" in note]
        assert len(made) == (part not in brought)


def partly_given(sizes: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """Labels and parts of classes of which so many pictures were given to train, and so many to test."""
    labels = np.repeat(np.arange(len(sizes)), [sum(size) for size in sizes])
    return labels, np.concatenate([np.repeat([TRAIN, TEST], size) for size in sizes]).astype(np.int8)


def test_a_class_too_rare_to_train_on_for_a_part_that_is_made_stays_as_it_is_given():
    labels, parts = partly_given([(30, 10), (30, 10), (4, 20), (1, 1)])
    split = split_parts(labels, given=parts, groups=None, seed=0)
    assert (split.rare, split.made) == ((), ("validation",))
    np.testing.assert_array_equal(split.parts == TEST, parts == TEST)
    assert counted(labels, split.parts, 0) == {TRAIN: 24, VALIDATION: 6, TEST: 10, LEFT_OUT: 0}
    assert counted(labels, split.parts, 2) == {TRAIN: 4, VALIDATION: 0, TEST: 20, LEFT_OUT: 0}
    assert counted(labels, split.parts, 3) == {TRAIN: 1, VALIDATION: 0, TEST: 1, LEFT_OUT: 0}


@pytest.mark.parametrize(
    ("sizes", "rare"),
    [
        ([(30, 10), (30, 10), (0, 20)], (2,)),  # nothing to learn it from
        ([(30, 10), (30, 10), (4, 0)], (2,)),  # no given part has it
        ([(30, 10), (4, 20)], (1,)),  # the made part would have one class
    ],
)
def test_a_rare_class_is_left_out_where_keeping_it_serves_nothing(sizes, rare):
    labels, parts = partly_given(sizes)
    split = split_parts(labels, given=parts, groups=None, seed=0)
    assert split.rare == rare
    assert (split.parts[np.isin(labels, rare)] == LEFT_OUT).all()


@pytest.mark.parametrize("seed", range(5))
def test_what_shares_a_group_with_a_rare_class_stays_with_it(seed):
    labels, parts = partly_given([(30, 10), (30, 10), (4, 20)])
    groups = np.arange(len(labels))
    rare = np.flatnonzero((labels == 2) & (parts == TRAIN))
    groups[:8] = np.repeat(groups[rare], 2)
    split = split_parts(labels, given=parts, groups=groups, seed=seed)
    assert split.rare == ()
    assert (split.parts[:8] == TRAIN).all()
    assert (split.parts[rare] == TRAIN).all()
    assert counted(labels, split.parts, 0)[VALIDATION] > 0


def test_a_rare_class_leaves_where_its_groups_would_take_another_class_along():
    labels, parts = partly_given([(30, 10), (30, 10), (4, 20)])
    groups = np.arange(len(labels))
    is_second = (labels == 1) & (parts == TRAIN)
    groups[is_second] = np.where(np.arange(30) < 15, 1000, 1001)  # two groups: one to train on, one to validate
    groups[(labels == 2) & (parts == TRAIN)] = 1000
    assert split_parts(labels, given=parts, groups=groups, seed=0).rare == (2,)


def test_groups_torn_by_a_given_split_are_told():
    parts = np.array([TRAIN, TRAIN, VALIDATION, TEST], np.int8)
    groups = np.array([0, 1, 1, 2])
    split = split_parts(np.array([0, 1, 0, 1]), given=parts, groups=groups, seed=0)
    assert np.array_equal(split.parts, parts)
    assert any("1 group lies in more than one given part" in note for note in split.notes)


def test_groups_as_a_list_and_as_a_function_are_the_same():
    names = ("a/p1_1.jpg", "a/p2_1.jpg", "b/p1_2.jpg")
    by_name = encode_groups(lambda name: name.split("/")[1][:2], names)
    by_list = encode_groups(["p1", "p2", "p1"], names)
    assert by_name is not None
    assert by_list is not None
    assert by_name.tolist() == by_list.tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([1, 2], "2 entries and 3 pictures"),
        ([1, None, 2], "every picture needs a group; picture 'b'"),
        ([1, 1, 1], "all are 1"),
        ([[1], [2], [1]], "a group is a number or a text"),
    ],
)
def test_groups_that_cannot_be_read_are_refused(groups, message):
    with pytest.raises(DataError, match=message):
        encode_groups(groups, ("a", "b", "c"))

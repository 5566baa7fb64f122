import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from autobackbone.crossfitting import halves


@given(arrays(np.int64, st.integers(0, 40), elements=st.integers(0, 4)), st.integers(0, 5))
def test_halves_share_the_pictures_and_each_class(labels, seed):
    one, other = halves(labels, seed=seed)
    assert sorted([*one, *other]) == list(range(len(labels)))
    counts = np.bincount(labels[one], minlength=5) - np.bincount(labels[other], minlength=5)
    assert (np.abs(counts) <= 1).all()
    assert (halves(labels, seed=seed)[0] == one).all()


def test_halves_of_several_labels_and_of_numbers():
    one, other = halves(np.zeros((7, 3)))
    assert sorted([*one, *other]) == list(range(7))
    numbers = np.random.default_rng(0).normal(size=100)
    assert sorted(np.concatenate(halves(numbers))) == list(range(100))
    assert sorted(halves(numbers, seed=1)[0]) != sorted(halves(numbers)[0])

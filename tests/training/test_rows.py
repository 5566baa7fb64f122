from __future__ import annotations

import numpy as np
import pytest

from autobackbone.training.rows import Rows, shuffled

LABELS = np.repeat([0, 1, 2], [300, 60, 6])


def batches(sampling, *, seed=0):
    """Rows that hold their own number, in batches."""
    stored = np.arange(len(LABELS), dtype=np.float32)[:, None]
    return shuffled(Rows([stored], np.arange(len(LABELS))[None], LABELS), 16, seed=seed, sampling=sampling)


def drawn(loader, epoch):
    """As Lightning does it: the epoch is told, and the batches are taken."""
    loader.sampler.set_epoch(epoch)
    return np.concatenate([inputs[:, 0].numpy().astype(int) for inputs, _ in loader])


def test_each_row_comes_once_unless_classes_are_balanced():
    assert sorted(drawn(batches("none"), 0)) == list(range(len(LABELS)))
    balanced = drawn(batches("balanced"), 0)
    assert len(balanced) == len(LABELS)
    assert len(np.unique(balanced)) < len(LABELS)


def test_balanced_classes_are_drawn_equally_often_and_their_pictures_too():
    loader, n_epochs = batches("balanced"), 200
    rows = np.concatenate([drawn(loader, epoch) for epoch in range(n_epochs)])
    expected = len(rows) / 3
    # Six standard deviations of a binomial count.
    assert np.bincount(LABELS[rows]) == pytest.approx([expected] * 3, abs=6 * np.sqrt(len(rows) * 2 / 9))
    of_rare = np.bincount(rows)[LABELS == 2]
    assert of_rare == pytest.approx([expected / 6] * 6, abs=6 * np.sqrt(expected / 6))


@pytest.mark.parametrize("sampling", ["none", "balanced"])
def test_an_epoch_draws_the_same_whatever_was_drawn_before(sampling):
    one, other = batches(sampling), batches(sampling)
    drawn(one, 0)
    drawn(one, 1)
    np.testing.assert_array_equal(drawn(one, 5), drawn(other, 5))
    assert (drawn(one, 5) != drawn(one, 6)).any()
    assert (drawn(one, 5) != drawn(batches(sampling, seed=1), 5)).any()

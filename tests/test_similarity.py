import numpy as np
import pytest

from autobackbone.similarity import expected_s, nearest_of


def features(n, seed=0, n_features=24):
    """As of a network: positive, of unequal sizes, and with much in common."""
    generator = np.random.default_rng(seed)
    latent = generator.normal(size=(n, 6)) @ np.random.default_rng(9).normal(size=(6, n_features))
    return np.maximum(0, 3 + latent + 0.3 * generator.normal(size=(n, n_features))).astype(np.float32)


def test_the_nearest_is_that_of_the_definition_block_by_block():
    train, others = features(2500), features(30, seed=1)
    covariance = np.cov(train.T.astype(np.float64), bias=True)
    covariance += np.eye(len(covariance)) * np.trace(covariance) / len(covariance)
    mean = train.mean(axis=0, dtype=np.float64)
    whitening = np.linalg.inv(np.linalg.cholesky(covariance)).T
    white = [(some - mean) @ whitening for some in (train, others)]
    of_train, of_others = (some / np.linalg.norm(some, axis=1, keepdims=True) for some in white)
    cosines = of_others @ of_train.T
    found = nearest_of(train, others)
    np.testing.assert_array_equal(found.rows, cosines.argmax(axis=1))
    np.testing.assert_allclose(found.similarities, cosines.max(axis=1), atol=1e-3)
    assert (found.rows >= 1024).any(), "some lie in a later block"


def test_a_picture_that_hardly_changed_is_found_again_among_those_with_much_in_common():
    train = features(300)
    noise = np.random.default_rng(2).normal(size=(40, train.shape[1]))
    changed = train[:40] + (0.05 * noise).astype(np.float32)
    found = nearest_of(train, changed)
    assert found.rows.tolist() == list(range(40))
    strangers = nearest_of(train, features(40, seed=5))
    assert found.similarities.min() > strangers.similarities.max()


@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e20])
def test_the_unit_of_features_changes_nothing(scale):
    train, others = features(200), features(20, seed=1)
    found, plain = (nearest_of(train * np.float32(by), others * np.float32(by)) for by in (scale, 1))
    np.testing.assert_array_equal(found.rows, plain.rows)
    np.testing.assert_allclose(found.similarities, plain.similarities, atol=1e-3)


@pytest.mark.parametrize("train", [np.ones((1, 4), np.float32), np.ones((9, 4), np.float32)])
def test_features_that_never_vary_are_similar_to_nothing(train):
    assert (nearest_of(train, train[:1]).similarities <= 0).all()


def test_more_pictures_are_expected_to_take_longer():
    assert expected_s(20_000, 5_000, 64) > 10 * expected_s(200, 50, 64) > 0

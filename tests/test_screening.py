import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from tests.conftest import TINY, make_pictures

from autobackbone.backbones.build import build, normalisation
from autobackbone.backbones.head import set_head
from autobackbone.data import TRAIN, decode, survey
from autobackbone.screening import extract, fair_order, fit_head, predict, screen

CPU = torch.device("cpu")
SIZE = (32, 32)


@pytest.fixture(scope="module")
def bundle(pictures, tmp_path_factory):
    return decode(survey(pictures), [SIZE], cache_dir=tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def network():
    return build(TINY, n_classes=3, image_size=SIZE)


def blobs(n_classes, n=240, n_features=12, seed=0):
    generator = np.random.default_rng(seed)
    labels = np.arange(n) % n_classes
    centres = generator.normal(0, 1, (n_classes, n_features))
    features = centres[labels] * 1.5 + generator.normal(0, 1, (n, n_features))
    return (features * generator.uniform(0.1, 9, n_features) + 5).astype(np.float32), labels


@pytest.mark.parametrize("n_classes", [2, 3, 7])
def test_the_folded_head_is_scaler_and_regression_in_one(n_classes):
    features, labels = blobs(n_classes)
    head = fit_head(features, labels, n_classes=n_classes, seed=0)
    scaler = StandardScaler().fit(features)
    model = LogisticRegression(C=head.strength, max_iter=2000).fit(scaler.transform(features), labels)
    np.testing.assert_allclose(head.probabilities(features), model.predict_proba(scaler.transform(features)), atol=5e-3)


def test_a_class_that_training_never_saw_is_never_predicted():
    features, labels = blobs(3)
    head = fit_head(features, labels + (labels > 0), n_classes=4, seed=0)
    probabilities = head.probabilities(features)
    assert probabilities[:, 1].max() < 1e-6
    assert (probabilities.argmax(1) == labels + (labels > 0)).mean() > 0.9


def test_a_class_with_a_single_picture_still_gives_a_head():
    features, labels = blobs(2, n=21)
    labels = np.where(np.arange(21) == 0, 2, labels)
    assert fit_head(features, labels, n_classes=3, seed=0).weight.shape == (3, 12)


def test_the_head_inside_the_network_says_what_the_head_beside_it_says(bundle, network):
    screened = screen(network, bundle, SIZE, normalisation(TINY), seed=0, device=CPU)
    set_head(network, torch.from_numpy(screened.head.weight), torch.from_numpy(screened.head.bias))
    validation = bundle.indices("validation")
    inside = predict(network, bundle, validation, SIZE, normalisation(TINY), device=CPU)
    np.testing.assert_allclose(inside, screened.probabilities, atol=1e-5)
    assert screened.n_train == len(bundle.indices("train"))


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
        parts, labels, classes = found.parts, found.labels, found.classes

        def indices(self, part):
            return np.flatnonzero(found.parts == {"train": 0, "validation": 1, "test": 2}[part])

    return Bundle()


def test_time_cuts_the_pass_but_leaves_a_head(bundle, network):
    screened = screen(network, bundle, SIZE, normalisation(TINY), seed=0, device=CPU, until=time.monotonic())
    if screened is not None:  # one batch of 32 reaches all classes here
        assert screened.n_train < len(bundle.indices("train")) or len(bundle.labels) <= 64
        assert np.isfinite(screened.head.weight).all()
    reached = extract(
        network, bundle, fair_order(bundle, seed=0), SIZE, normalisation(TINY), device=CPU, batch_size=8, until=0.0
    )
    assert len(reached.values) == len(reached.indices) == 8

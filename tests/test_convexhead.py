import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression, Ridge, RidgeCV
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler

from autobackbone.convexhead import fit_head
from autobackbone.convexhead.ridge import _PENALTIES, fit_ridge
from autobackbone.convexhead.strength import STRENGTHS, _folds, _stratified_part, choose_strength


def blobs(n_classes, n=240, n_features=12, noise=1.0, seed=0):
    generator = np.random.default_rng(seed)
    labels = np.arange(n) % n_classes
    centres = generator.normal(0, 1, (n_classes, n_features))
    features = centres[labels] * 1.5 + generator.normal(0, noise, (n, n_features))
    return (features * generator.uniform(0.1, 9, n_features) + 5).astype(np.float32), labels


@pytest.mark.parametrize("n_classes", [2, 3, 7])
def test_the_folded_head_is_scaler_and_regression_in_one(n_classes):
    features, labels = blobs(n_classes)
    head = fit_head(features, labels, n_outputs=n_classes, seed=0)
    scaler = StandardScaler().fit(features)
    scaler.scale_ = np.maximum(scaler.scale_, 0.5 * np.median(scaler.scale_))
    model = LogisticRegression(C=head.strength, max_iter=2000).fit(scaler.transform(features), labels)
    np.testing.assert_allclose(
        head.predictions(features, "classification"), model.predict_proba(scaler.transform(features)), atol=5e-3
    )


@pytest.mark.parametrize("n_classes", [2, 3])
def test_a_balanced_head_is_scikit_learns(n_classes):
    features, labels = blobs(n_classes, noise=4.0)
    kept = (labels > 0) | (np.arange(len(labels)) % 10 == 0)
    features, labels = features[kept], labels[kept]
    heads = {
        weights: fit_head(features, labels, n_outputs=n_classes, seed=0, class_weights=weights)
        for weights in ("none", "balanced")
    }
    scaler = StandardScaler().fit(features)
    scaler.scale_ = np.maximum(scaler.scale_, 0.5 * np.median(scaler.scale_))
    model = LogisticRegression(C=heads["balanced"].strength, max_iter=2000, class_weight="balanced")
    wanted = model.fit(scaler.transform(features), labels).predict_proba(scaler.transform(features))
    np.testing.assert_allclose(heads["balanced"].predictions(features, "classification"), wanted, atol=5e-3)
    rare = {weights: head.predictions(features, "classification")[:, 0].mean() for weights, head in heads.items()}
    assert rare["balanced"] > 1.5 * rare["none"]


def test_a_balanced_head_of_labels_weighs_each_for_itself():
    features, classes = blobs(2, noise=4.0)
    labels = np.stack([(classes == 0) & (np.arange(len(classes)) % 10 == 0), classes == 1], axis=1).astype(np.int64)
    given = {"n_outputs": 2, "task": "multilabel", "seed": 0}
    plain, balanced = (fit_head(features, labels, **given, class_weights=weights) for weights in ("none", "balanced"))
    rare = [head.predictions(features, "multilabel")[:, 0].mean() for head in (plain, balanced)]
    assert rare[1] > 2 * rare[0]
    # Half of the pictures have the other one: there is nothing to weigh.
    np.testing.assert_allclose(balanced.weight[1], plain.weight[1], rtol=1e-4, atol=1e-5)


def test_a_class_that_training_never_saw_is_never_predicted():
    features, labels = blobs(3)
    head = fit_head(features, labels + (labels > 0), n_outputs=4, seed=0)
    probabilities = head.predictions(features, "classification")
    assert probabilities[:, 1].max() < 1e-6
    assert (probabilities.argmax(1) == labels + (labels > 0)).mean() > 0.9


def test_a_class_with_a_single_picture_still_gives_a_head():
    features, labels = blobs(2, n=21)
    labels = np.where(np.arange(21) == 0, 2, labels)
    assert fit_head(features, labels, n_outputs=3, seed=0).weight.shape == (3, 12)


@pytest.mark.parametrize("n_classes", [2, 5])
def test_with_time_for_everything_the_head_is_that_without_a_deadline(n_classes):
    features, labels = blobs(n_classes)
    plain = fit_head(features, labels, n_outputs=n_classes, seed=0)
    timed = fit_head(features, labels, n_outputs=n_classes, seed=0, until=time.monotonic() + 600)
    np.testing.assert_array_equal(timed.weight, plain.weight)
    np.testing.assert_array_equal(timed.bias, plain.bias)
    assert timed.strength == plain.strength
    assert timed.n_pictures == plain.n_pictures == len(labels)


def test_many_classes_end_in_time_with_a_head_that_has_learned():
    # Without a deadline this takes three times as long and more.
    features, labels = blobs(300, n=6000, n_features=800, noise=12.0)
    seen, unseen = slice(0, 5000), slice(5000, None)
    begun = time.monotonic()
    head = fit_head(features[seen], labels[seen], n_outputs=300, seed=0, until=begun + 2)
    assert time.monotonic() - begun < 3
    assert (head.predictions(features[unseen], "classification").argmax(1) == labels[unseen]).mean() > 10 / 300


def test_a_deadline_that_is_over_still_gives_a_head_that_knows_every_class():
    features, labels = blobs(40, n=4000)
    head = fit_head(features, labels, n_outputs=40, seed=0, until=time.monotonic() - 1)
    assert 40 <= head.n_pictures < 4000
    probabilities = head.predictions(features, "classification")
    assert np.isfinite(probabilities).all()
    assert len(np.unique(probabilities.argmax(1))) > 30
    assert (probabilities.argmax(1) == labels).mean() > 10 / 40


def test_a_class_with_a_single_picture_is_kept_however_short_the_time():
    features, labels = blobs(3, n=3000)
    labels[1234] = 3
    for end in (time.monotonic() - 1, time.monotonic() + 600):
        head = fit_head(features, labels, n_outputs=4, seed=0, until=end)
        assert head.bias[3] > head.bias[:3].min() - 19  # one that was never seen lies 20 below the least


@pytest.mark.parametrize("n_wanted", range(90, 101))
def test_a_part_that_is_nearly_all_can_be_had(n_wanted):
    labels = np.arange(100) % 10
    part = _stratified_part(labels, n_wanted, seed=0)
    assert n_wanted <= len(np.unique(part)) == len(part) <= 100
    assert len(np.unique(labels[part])) == 10


def test_numbers_are_fitted_as_scikit_learn_would_with_the_penalty_that_leaving_one_out_chooses():
    generator = np.random.default_rng(0)
    features = (generator.normal(size=(80, 20)) * generator.uniform(0.1, 9, 20) + 3).astype(np.float32)
    numbers = features @ generator.normal(size=(20, 2)) * [1e-3, 1e4] + generator.normal(size=(80, 2)) * [1e-3, 1e4]
    head = fit_head(features, numbers, n_outputs=2, task="regression", seed=0)
    scaled = StandardScaler().fit_transform(features)
    alphas = [10.0**power for power in np.arange(-1, 6.5, 0.5)]
    for k in range(2):
        model = RidgeCV(alphas=alphas).fit(scaled, numbers[:, k])
        wanted = model.predict(scaled)
        found = head.predictions(features, "regression")[:, k]
        np.testing.assert_allclose(found, wanted, atol=2e-3 * numbers[:, k].std())


def test_each_label_has_a_logistic_regression_of_its_own():
    generator = np.random.default_rng(0)
    features = generator.normal(size=(150, 8)).astype(np.float32)
    labels = (features[:, :3] + 0.3 * generator.normal(size=(150, 3)) > [0, 0.5, -0.5]).astype(np.int64)
    head = fit_head(features, labels, n_outputs=3, task="multilabel", seed=0)
    alone = [fit_head(features, labels[:, k], n_outputs=2, seed=0) for k in range(3)]
    found = head.predictions(features, "multilabel")
    for k in range(3):
        wanted = alone[k].predictions(features, "classification")[:, 1]
        np.testing.assert_allclose(found[:, k], wanted, atol=1e-4)
    assert ((found > 0.5) == labels).mean() > 0.9


def test_a_label_that_all_pictures_have_or_none_is_said_of_all_or_none():
    generator = np.random.default_rng(0)
    features = generator.normal(size=(30, 4)).astype(np.float32)
    labels = np.column_stack([np.zeros(30), np.ones(30), generator.integers(0, 2, 30)]).astype(np.int64)
    found = fit_head(features, labels, n_outputs=3, task="multilabel", seed=0).predictions(features, "multilabel")
    assert (found[:, 0] < 1e-6).all()
    assert (found[:, 1] > 1 - 1e-6).all()


def test_a_deadline_is_shared_by_all_labels():
    generator = np.random.default_rng(0)
    features = generator.normal(size=(400, 64)).astype(np.float32)
    labels = (generator.random((400, 12)) < 0.3).astype(np.int64)
    head = fit_head(features, labels, n_outputs=12, task="multilabel", seed=0, until=time.monotonic() - 1)
    assert np.isfinite(head.weight).all()
    assert head.n_pictures is not None
    assert head.n_pictures >= 4


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_a_feature_that_hardly_varies_in_training_outvotes_nothing_where_it_does(task):
    generator = np.random.default_rng(0)
    features = generator.normal(size=(100, 20)).astype(np.float32)
    features[:, 7] = 1e-4 * generator.normal(size=100)
    labels = (features[:, 0] > 0).astype(np.int64) if task == "classification" else features[:, :1].astype(np.float64)
    head = fit_head(features, labels, n_outputs=2 if task == "classification" else 1, task=task, seed=0)
    moved = features.copy()
    moved[:, 7] = 1.0
    np.testing.assert_allclose(head.predictions(moved, task), head.predictions(features, task), atol=0.02)


def test_features_that_never_vary_are_fitted_without_them():
    labels = np.arange(20) % 2
    head = fit_head(np.ones((20, 3), np.float32), labels, n_outputs=2, seed=0)
    np.testing.assert_allclose(head.predictions(np.ones((1, 3), np.float32), "classification"), [[0.5, 0.5]], atol=1e-6)


def of_folds(features, labels, strength, seed=0):
    """What heads on the other folds say of each, as scikit-learn fits them."""
    scaler = StandardScaler().fit(features)
    scaler.scale_ = np.maximum(scaler.scale_, 0.5 * np.median(scaler.scale_))
    scaled = scaler.transform(features)
    nearest = STRENGTHS[np.abs(np.log10(STRENGTHS) - np.log10(strength)).argmin()]
    found = np.empty((len(labels), labels.max() + 1))
    for fitted, held_out in StratifiedKFold(3, shuffle=True, random_state=seed).split(features, labels):
        model = LogisticRegression(C=nearest, max_iter=2000).fit(scaled[fitted], labels[fitted])
        found[held_out] = model.predict_proba(scaled[held_out])
    return found


@pytest.mark.parametrize("n_classes", [2, 5])
def test_what_is_said_out_of_fold_is_said_by_a_head_on_the_other_folds(n_classes):
    features, labels = blobs(n_classes, noise=4.0)
    head = fit_head(features, labels, n_outputs=n_classes, seed=0)
    np.testing.assert_allclose(head.out_of_fold, of_folds(features, labels, head.strength), atol=0.02)


@pytest.mark.parametrize("n", [300, 4500])
def test_labels_without_meaning_are_guessed_out_of_fold_whatever_the_head_has_learned_by_heart(n):
    generator = np.random.default_rng(0)
    features = generator.normal(size=(n, 2 * n if n < 1000 else 40)).astype(np.float32)
    labels = generator.integers(0, 2, n)
    said = fit_head(features, labels, n_outputs=2, seed=0).out_of_fold
    assert np.isfinite(said).all()
    np.testing.assert_allclose(said.sum(axis=1), 1, atol=1e-5)
    assert abs((said.argmax(axis=1) == labels).mean() - 0.5) < 3 * 0.5 / np.sqrt(n)


def test_pictures_beyond_those_of_the_folds_are_judged_by_all_fits_unless_their_class_is_in_none():
    features, labels = blobs(3, n=5000)
    labels[1234] = 3
    head = fit_head(features, labels, n_outputs=4, seed=0)
    is_judged = np.isfinite(head.out_of_fold).all(axis=1)
    assert np.flatnonzero(~is_judged).tolist() == [1234]
    assert (head.out_of_fold[is_judged].argmax(axis=1) == labels[is_judged]).mean() > 0.9
    assert (head.out_of_fold[is_judged, 3] == 0).all()


@pytest.mark.parametrize("n", [300, 4500])
def test_a_class_with_one_picture_takes_neither_penalty_nor_judgement_from_the_others(n):
    features, labels = blobs(3, n=n, noise=4.0)
    features, rest = StandardScaler().fit_transform(features), np.arange(n) != 123
    rare = np.where(rest, labels, 3)
    strength, said = choose_strength(features, rare, n_classes=4, n_most=None, n_others=None, seed=0)
    alone, wanted = choose_strength(features[rest], labels[rest], n_classes=3, n_most=None, n_others=None, seed=0)
    assert strength == alone
    assert np.isnan(said[123]).all()
    np.testing.assert_allclose(said[rest][:, :3], wanted, rtol=1e-5)
    assert (said[rest, 3] == 0).all()


def test_where_only_one_class_has_two_pictures_there_are_no_folds():
    features, labels = blobs(2, n=20)
    labels = np.where(np.arange(20) == 0, 1, 0)
    assert choose_strength(features, labels, n_classes=2, n_most=None, n_others=None, seed=0)[1] is None


@given(sizes=st.lists(st.integers(2, 7), min_size=2, max_size=6), seed=st.integers(0, 9))
def test_each_fit_of_the_folds_sees_every_class_and_each_row_is_held_out_once(sizes, seed):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    folds = _folds(labels, seed=seed)
    assert len(folds) == min(3, max(sizes))
    for fitted, held_out in folds:
        assert set(labels[fitted]) == set(range(len(sizes)))
        assert not set(fitted) & set(held_out)
    assert sorted(np.concatenate([held_out for _, held_out in folds])) == list(range(len(labels)))


@pytest.mark.filterwarnings("ignore:The least populated class in y has only 2 members")
@pytest.mark.parametrize("n_classes", [1, 3])
def test_a_class_of_two_takes_no_fold_from_the_others(n_classes):
    features, labels = blobs(n_classes + 1, n=90, noise=4.0)
    small = np.flatnonzero(labels == n_classes)
    kept = np.sort(np.concatenate([np.flatnonzero(labels != n_classes), small[:2]]))
    features, labels = features[kept], labels[kept]
    head = fit_head(features, labels, n_outputs=n_classes + 1, seed=0)
    # Of three folds, one of which holds out nothing of the small class.
    np.testing.assert_allclose(head.out_of_fold, of_folds(features, labels, head.strength), atol=0.02)


def test_where_there_is_no_time_for_folds_nothing_is_said_out_of_fold():
    features, labels = blobs(40, n=4000)
    assert fit_head(features, labels, n_outputs=40, seed=0, until=time.monotonic() - 1).out_of_fold is None
    several = np.eye(3, dtype=np.int64)[np.arange(4000) % 3]
    head = fit_head(features, several, n_outputs=3, task="multilabel", seed=0, until=time.monotonic() - 1)
    assert head.out_of_fold is None


def test_a_deadline_takes_judgement_from_pictures_in_no_fold_before_it_is_late():
    features, labels = blobs(3, n=9000)
    _, said = choose_strength(features, labels, n_classes=3, n_most=300, n_others=50, seed=0)
    assert np.isfinite(said).all(axis=1).sum() == 350


def test_each_label_is_judged_out_of_fold_and_one_that_all_pictures_have_is_not():
    generator = np.random.default_rng(0)
    features = generator.normal(size=(150, 8)).astype(np.float32)
    labels = (features[:, :3] + 0.3 * generator.normal(size=(150, 3)) > [0, 0.5, -9]).astype(np.int64)
    said = fit_head(features, labels, n_outputs=3, task="multilabel", seed=0).out_of_fold
    assert np.isnan(said[:, 2]).all()
    for k in range(2):
        alone = fit_head(features, labels[:, k], n_outputs=2, seed=0).out_of_fold
        np.testing.assert_array_equal(said[:, k], alone[:, 1])
    assert ((said[:, :2] > 0.5) == labels[:, :2]).mean() > 0.85


@pytest.mark.parametrize("n_features", [20, 120])
def test_numbers_are_said_by_a_ridge_without_the_picture(n_features):
    generator = np.random.default_rng(0)
    scaled = StandardScaler().fit_transform(generator.normal(size=(60, n_features))).astype(np.float32)
    numbers = scaled[:, :2] * [1e-3, 1e4] + generator.normal(size=(60, 2)) * [1e-3, 1e4]
    said = fit_ridge(scaled, numbers).out_of_fold
    penalties = np.atleast_1d(
        RidgeCV(alphas=_PENALTIES, alpha_per_target=True).fit(scaled.astype(float), numbers).alpha_
    )
    for left_out in (0, 31, 59):
        rest = np.arange(60) != left_out
        for k, penalty in enumerate(penalties):
            model = Ridge(alpha=penalty).fit(scaled[rest].astype(float), numbers[rest, k])
            wanted = model.predict(scaled[[left_out]].astype(float))[0]
            assert said[left_out, k] == pytest.approx(wanted, abs=2e-3 * numbers[:, k].std())


def test_numbers_beyond_those_that_chose_the_penalty_are_said_by_a_ridge_of_those():
    generator = np.random.default_rng(0)
    scaled = generator.normal(size=(4300, 5)).astype(np.float32)
    numbers = scaled[:, :1].astype(np.float64) + 0.1 * generator.normal(size=(4300, 1))
    said = fit_ridge(scaled, numbers).out_of_fold
    assert np.abs(said - numbers).max() < 0.6

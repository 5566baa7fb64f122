import gc
import pickle
import subprocess
import sys
import warnings
from collections import Counter
from copy import deepcopy
from inspect import signature
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import check_estimator, estimator_checks_generator
from tests.conftest import TINY, make_pictures
from torch import nn

from autobackbone import Budget, OwnBackbone, select_backbone
from autobackbone.backbones.head import features
from autobackbone.data import DataWarning
from autobackbone.errors import ArgumentError, BackboneError, DataError
from autobackbone.plugins.sklearn import (
    EXPECTED_FAILED_CHECKS,
    BackboneClassifier,
    BackboneFeatures,
    BackboneRegressor,
)
from autobackbone.plugins.targets import class_targets

X, CODES = make_pictures(n_per_class=14, n_classes=3)
NAMES = np.array(["flat", "slanted", "upright"])
Y = NAMES[CODES]
BRIGHTNESS = X.mean(axis=(1, 2, 3)) / 7

# Of scikit-learn's checks those that fit nothing, or little, and a few that fit.
QUICK = {
    "check_estimator_cloneable",
    "check_estimator_repr",
    "check_no_attributes_set_in_init",
    "check_estimators_unfitted",
    "check_do_not_raise_errors_in_init_or_set_params",
    "check_mixin_order",
    "check_complex_data",
    "check_estimators_empty_data_messages",
    "check_estimator_sparse_array",
    "check_classifiers_one_label",
    "check_classifiers_regression_target",
    "check_supervised_y_no_nan",
    "check_parameters_default_constructible",
    "check_fit2d_1sample",
    "check_fit2d_1feature",
    "check_get_params_invariance",
    "check_set_params",
    "check_fit1d",
    "check_requires_y_none",
    "check_n_features_in_after_fitting",
}


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """Parameters of a search that a tiny network makes short: heads on the whole frozen network alone."""
    folder = tmp_path_factory.mktemp("sklearn")
    weights = folder / f"{TINY}.safetensors"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_file(timm.create_model(TINY).state_dict(), weights)
    return {
        "budget": Budget(n_trials=1),
        "backbones": TINY,
        "weights": weights,
        "image_sizes": 32,
        "space": {"n_unfrozen": 0, "n_blocks_kept": None},
        "cache_dir": folder / "cache",
    }


@pytest.fixture(scope="module")
def fixed(asked, tmp_path_factory):
    """The same, with latencies that an earlier run has measured: the same seed finds the same network."""
    costs = tmp_path_factory.mktemp("costs") / "run"
    given = {name: value for name, value in asked.items() if name != "budget"}
    select_backbone((X, CODES), asked["budget"], **given, run_dir=costs, progress=False)
    return asked | {"costs": costs}


@pytest.fixture(scope="module")
def fitted(asked, tmp_path_factory):
    """Fine-tuned."""
    runs = tmp_path_factory.mktemp("runs")
    space = {"n_unfrozen": (1, 2), "n_epochs": 2, "n_blocks_kept": None}
    return BackboneClassifier(**(asked | {"space": space}), runs_dir=runs).fit(X, Y)


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for number, pixels in enumerate(X):
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return [folder / f"{number}.png" for number in range(len(X))]


@pytest.fixture
def extractor(asked):
    return BackboneFeatures(TINY, image_size=32, weights=asked["weights"], device="cpu")


def estimators(fixed, extractor):
    # Some of the data sets are so small that all validation labels are one number, by which there is no r2.
    return [BackboneClassifier(**fixed), BackboneRegressor(**fixed, metric="rmse"), extractor]


def test_what_predicts_is_what_the_search_has_chosen(fitted):
    found = fitted.selection_
    assert fitted.best_trial_ == found.best
    assert fitted.classes_.tolist() == NAMES.tolist()
    assert fitted.predict(X).tolist() == found.predict(X).tolist()
    np.testing.assert_array_equal(fitted.predict_proba(X), found.predict_proba(X))
    assert fitted.score(X, Y) == (found.predict(X) == Y).mean()
    assert not hasattr(fitted, "n_features_in_")


def test_the_arguments_are_those_of_the_search():
    own = set(signature(BackboneClassifier).parameters) - {"prefer", "runs_dir", "random_state"}
    asked = set(signature(select_backbone).parameters)
    given = {"dataset", "task", "label", "groups", "run_dir", "seed"}
    # To scikit-learn `warm_start` is another thing; and times make a split that an X of rows knows nothing of.
    assert asked - own == given | {"warm_start", "times"}
    defaults = signature(select_backbone).parameters
    same = own - {"budget", "progress"}
    assert all(signature(BackboneClassifier).parameters[name].default == defaults[name].default for name in same)
    assert signature(BackboneRegressor) == signature(BackboneClassifier)


@pytest.mark.parametrize("kind", ["texts", "array of texts", "series", "one column", "pillow", "list of arrays"])
def test_pictures_come_in_all_forms(kind, fitted, paths):
    texts = [str(path) for path in paths]
    given = {
        "texts": texts,
        "array of texts": np.array(texts),
        "series": pd.Series(paths),
        "one column": pd.DataFrame({"file": texts}),
        "pillow": [Image.fromarray(pixels) for pixels in X],
        "list of arrays": list(X),
    }[kind]
    np.testing.assert_array_equal(fitted.predict_proba(given), fitted.predict_proba(X))


def test_one_colour_picture_is_not_read_as_a_stack_of_grey_ones(fitted, extractor, paths):
    with pytest.raises(
        DataError, match=r"\(40, 40, 3\) may be one picture.*fitted on one of shape \(42, 40, 40, 3\).*X\[None\]"
    ):
        fitted.predict(X[0])
    assert fitted.predict(X[:1]).shape == fitted.predict(X[0][None]).shape == (1,)
    assert fitted.predict(X[:5, :, :, 0]).shape == (5,)  # no picture has 40 channels
    with pytest.raises(DataError, match="was fitted on no array"):
        clone(extractor).fit(paths[:2]).transform(X[0])
    narrow = clone(extractor).fit(np.zeros((5, 16, 3), np.uint8))
    assert narrow.transform(np.zeros((4, 16, 3), np.uint8)).shape == (4, 96)


@pytest.mark.parametrize(
    "nothing", [X[:0], [], X[:0, :, 0, 0], pd.DataFrame({"file": []}), pd.Series([], dtype=object)]
)
def test_no_pictures_are_refused_as_scikit_learn_does_it(nothing, fitted, extractor):
    extractor.fit(X[:2])
    message = r"Found array with 0 sample\(s\) \(shape=\(0.*\)\) while a minimum of 1 is required by Backbone"
    for call in (fitted.predict, fitted.predict_proba, extractor.transform):
        with pytest.raises(ValueError, match=message):
            call(nothing)
    with pytest.raises(ValueError, match="Found array with 0 sample"):
        clone(extractor).fit(nothing)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("x.jpg", r"pictures, or a matrix of numbers; 'x\.jpg' came\. A single picture stands in a list"),
        (None, "None came"),
        ({}, "a dict came"),
        (Image.fromarray(X[0]), "a Image came"),
        ([1, 2], "was fitted on pictures, and a list of int came"),
        ([[1, 2], [3, 4]], "was fitted on pictures, and rows of numbers came"),
        (pd.Series([1.0], index=[7]), "and a Series of float came"),
        (np.zeros(3), r"and an array of shape \(3,\) came"),
        ({1, 2}, "and a set came"),
    ],
)
def test_what_came_in_place_of_pictures_is_named(given, message, fitted):
    with pytest.raises(DataError, match=message):
        fitted.predict(given)


def test_a_single_picture_stands_in_a_list(fitted):
    with pytest.raises(DataError, match=r"was fitted on pictures, and rows of numbers came.*\[picture\]"):
        fitted.predict(X[0, :, :, 0])
    assert fitted.predict([X[0, :, :, 0]]).shape == (1,)


def test_files_that_are_not_there_are_named(fitted):
    with pytest.raises(DataError, match=r"1 of 1 pictures are not there, the first 'gone\.png'"):
        fitted.predict(["gone.png"])


def test_a_run_ends_with_its_estimator_and_a_pickle_goes_on(asked):
    estimator = BackboneClassifier(**asked).fit(X, CODES)
    said, run, carried = estimator.predict_proba(X), Path(estimator.run_dir_), pickle.dumps(estimator)
    assert (run / "run.json").is_file()
    alive = pickle.loads(carried)
    assert alive.selection_.best.number == estimator.best_trial_.number
    del estimator, alive
    gc.collect()
    assert not run.parent.exists()
    copy = pickle.loads(carried)
    assert not hasattr(copy, "selection_")
    with pytest.raises(AttributeError, match="is gone, and with it its selection"):
        _ = copy.selection_
    np.testing.assert_array_equal(copy.predict_proba(X), said)
    with pytest.raises(NotFittedError, match="not fitted yet"):
        _ = clone(copy).selection_


def test_a_joblib_file_predicts_in_another_process_without_the_run(fitted, tmp_path):
    copy = pickle.loads(pickle.dumps(fitted))
    copy.run_dir_ = str(tmp_path / "gone")
    joblib.dump(copy, tmp_path / "estimator.joblib")
    np.save(tmp_path / "pictures.npy", X)
    content = pickle.dumps(copy)
    assert b"torch" not in content.replace(b"torchmetrics", b"")  # tensors alone, and no modules' code
    code = """
import sys, joblib, numpy as np
folder = sys.argv[1]
estimator = joblib.load(f"{folder}/estimator.joblib")
np.save(f"{folder}/said.npy", estimator.predict_proba(np.load(f"{folder}/pictures.npy")))
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    np.testing.assert_allclose(np.load(tmp_path / "said.npy"), fitted.predict_proba(X), atol=1e-6)


def net():
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))


def test_what_lives_in_memory_alone_is_copied_and_not_pickled(asked):
    own = OwnBackbone(factory=lambda: net(), name="mem", image_size=32)  # noqa: PLW0108  no name to import
    estimator = BackboneClassifier(**(asked | {"backbones": own, "weights": None})).fit(X, Y)
    copy = deepcopy(estimator)
    np.testing.assert_array_equal(copy.predict_proba(X), estimator.predict_proba(X))
    assert copy.network_.network is not estimator.network_.network
    extractor = BackboneFeatures(FrozenEstimator(estimator)).fit(X)
    assert extractor.transform(X).shape == (42, 8)
    for fitted in (estimator, copy, extractor, estimator.network_):
        with pytest.raises(
            ArgumentError, match=r"the factory of 'mem' is defined in .*factory=\"package\.module:name\""
        ):
            pickle.dumps(fitted)


def test_a_copy_has_no_hand_in_the_run(fitted):
    copy = deepcopy(fitted)
    assert copy.selection_ is not fitted.selection_
    assert copy.best_trial_ == fitted.best_trial_
    np.testing.assert_array_equal(copy.predict(X), fitted.predict(X))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"prefer": "acuracy"}, r"prefer must be one of 'accuracy', .*, not 'acuracy'"),
        ({"runs_dir": 5}, r"runs_dir is the path of a folder, or None, not 5"),
        ({"runs_dir": "/proc/x"}, r"runs_dir is a folder that can be made .*'/proc/x': No such file"),
        ({"runs_dir": __file__}, r"test_sklearn\.py': something else is there"),
        ({"runs_dir": f"{__file__}/runs"}, r"test_sklearn\.py/runs': Not a directory"),
        ({"runs_dir": "a\0b"}, r"embedded null byte"),
        ({"random_state": "seed"}, r"'seed' cannot be used to seed"),
    ],
)
def test_a_parameter_that_cannot_be_is_told_before_the_search(parameters, message, asked, monkeypatch):
    monkeypatch.setattr("autobackbone.plugins.sklearn.select_backbone", lambda *_, **__: pytest.fail("it searched"))
    with pytest.raises(ValueError, match=message):
        BackboneClassifier(**asked, **parameters).fit(X, Y)


def test_runs_are_kept_where_they_are_wanted_each_in_its_own_folder(asked, tmp_path):
    estimator = BackboneRegressor(**asked, runs_dir=tmp_path / "runs")
    runs = [estimator.fit(X, BRIGHTNESS).run_dir_ for _ in range(2)]
    assert sorted(map(str, (tmp_path / "runs").iterdir())) == sorted(runs)
    copy = pickle.loads(pickle.dumps(estimator))
    del estimator
    gc.collect()
    assert copy.selection_.path == Path(runs[1])
    assert copy.predict(X).dtype == np.float32


def test_a_fit_that_fails_leaves_nothing_behind(asked, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(BackboneError, match="knows no pre-trained backbone"):
        BackboneClassifier(**(asked | {"backbones": "no_such_network"})).fit(X, Y)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_paths_are_searched_on_as_arrays_are(fixed, paths):
    by_path = BackboneClassifier(**fixed).fit(paths, [" spaced", "b", "c"] * 14).predict_proba(paths)
    by_array = BackboneClassifier(**fixed).fit(X, [" spaced", "b", "c"] * 14)
    assert by_array.classes_.tolist() == [" spaced", "b", "c"]
    np.testing.assert_allclose(by_path, by_array.predict_proba(X), atol=1e-5)


def test_a_path_that_is_repeated_is_searched_on_once(asked, paths):
    rows = np.random.default_rng(0).integers(0, len(X), 60)
    n_again = 60 - len(set(rows.tolist()))
    given = np.array([str(path) for path in paths])[rows]
    with pytest.warns(DataWarning, match=rf"{n_again} of 60 rows repeat a picture: each is searched on once"):
        estimator = BackboneClassifier(**asked).fit(given, Y[rows], groups=rows % 10)
    table = pd.read_csv(Path(estimator.run_dir_) / "pictures.csv")
    assert sorted(table["name"]) == sorted(set(given.tolist()))
    number = table["name"].map(lambda name: int(Path(name).stem))
    assert all(len(set(parts)) == 1 for _, parts in table["part"].groupby(number % 10))
    with pytest.raises(DataError, match=r"0\.png' is in rows 0 and 42, as flat and upright"):
        BackboneClassifier(**asked).fit([*paths, paths[0]], [*Y, "upright"])


@pytest.mark.parametrize(
    ("y", "classes"),
    [
        (pd.Series(CODES, dtype="Int64"), np.array([0, 1, 2])),
        (pd.Series(CODES > 0, dtype="boolean"), np.array([False, True])),
        (pd.Series(Y, dtype="string"), NAMES),
    ],
)
def test_classes_of_pandas_own_types_are_as_they_were_written(y, classes):
    estimator = BackboneClassifier()
    found = class_targets(estimator, y, len(y)).classes
    assert found.tolist() == classes.tolist()
    assert found.dtype in (classes.dtype, object)
    with pytest.raises(ValueError, match=r"every picture needs an entry of y; row 0 has NaN"):
        class_targets(estimator, y.where(np.arange(len(y)) > 0), len(y))


def test_a_class_too_rare_to_be_learned_has_its_column_all_the_same(asked):
    labels = Y.astype(object)
    labels[:3] = "a rare one"
    with pytest.warns(DataWarning, match="1 classes too rare"):
        estimator = BackboneClassifier(**asked).fit(X, labels)
    said = estimator.predict_proba(X)
    assert estimator.classes_.tolist() == ["a rare one", *NAMES]
    assert (said[:, 0] == 0).all()
    np.testing.assert_allclose(said.sum(axis=1), 1, atol=1e-5)
    with pytest.raises(DataError, match="too rare for the split"):
        BackboneClassifier(**asked, rare="error").fit(X, labels)


@pytest.mark.parametrize("form", ["array", pytest.param("paths", marks=pytest.mark.slow)])
def test_several_labels_each_have_a_column(form, asked, paths):
    labels = np.stack([CODES == 0, CODES != 1, np.arange(len(X)) < 40], axis=1).astype(int)
    given = X if form == "array" else paths
    with pytest.warns(DataWarning, match="1 labels that too few"):
        estimator = BackboneClassifier(**asked).fit(given, labels)
    said = estimator.predict_proba(given)
    assert estimator.classes_.tolist() == [0, 1, 2]
    np.testing.assert_allclose(said[:, 2], 40 / 42)
    assert estimator.predict(given).tolist() == (said > 0.5).astype(int).tolist()
    assert 0 <= estimator.score(given, labels) <= 1


@pytest.mark.parametrize("form", [pytest.param("array", marks=pytest.mark.slow), "paths"])
def test_several_numbers_have_the_shape_they_came_in(form, asked, paths):
    numbers = np.stack([BRIGHTNESS, CODES + 0.5], axis=1)
    given = X if form == "array" else paths
    estimator = BackboneRegressor(**asked).fit(given, numbers)
    said = estimator.predict(given)
    assert said.shape == numbers.shape
    np.testing.assert_allclose(said, estimator.selection_.predict(X), rtol=1e-4)
    assert np.isfinite(estimator.score(given, numbers))


def test_labels_that_are_none_are_refused(asked):
    with pytest.raises(DataError, match="42 pictures and 41 entries came"):
        BackboneClassifier(**asked).fit(X, Y[1:])
    with pytest.raises(DataError, match="Fit one estimator for each column"):
        BackboneClassifier(**asked).fit(X, np.stack([CODES, CODES], axis=1))
    with pytest.raises(DataError, match="n_samples=4 came"):
        BackboneRegressor(**asked).fit(X[:4], BRIGHTNESS[:4])
    with pytest.raises(ValueError, match="requires y to be passed"):
        BackboneRegressor(**asked).fit(X, None)


@pytest.mark.slow
def test_groups_stay_together(asked):
    groups = np.arange(len(X)) % 10
    estimator = BackboneClassifier(**asked).fit(X, Y, groups=groups)
    table = pd.read_csv(Path(estimator.run_dir_) / "pictures.csv")
    assert all(len(set(parts)) == 1 for _, parts in table["part"].groupby(groups))


@pytest.mark.slow
def test_a_word_chooses_another_trial_of_the_front(asked):
    estimator = BackboneClassifier(**(asked | {"space": {"n_unfrozen": 0}}), prefer="speed").fit(X, Y)
    assert estimator.best_trial_ == estimator.selection_.front[0]


def test_a_seed_is_drawn_where_none_is_given(asked):
    state = np.random.RandomState(3)
    expected = np.random.RandomState(3).randint(2**31)
    estimator = BackboneRegressor(**asked, random_state=state).fit(X, BRIGHTNESS)
    run = Path(estimator.run_dir_) / "run.json"
    assert f'"seed": {expected}' in run.read_text(encoding="utf-8")


def test_parameters_are_stored_as_given(asked):
    estimator = BackboneClassifier(**asked)
    assert estimator.get_params()["space"] is asked["space"]
    assert estimator.set_params(budget="5s").budget == "5s"
    assert clone(estimator).get_params()["weights"] == asked["weights"]
    assert get_tags(estimator).classifier_tags.multi_label


def test_features_are_what_enters_the_classifier(extractor, fitted):
    said = extractor.fit_transform(X)
    assert said.shape == (42, 96)
    assert said.dtype == np.float32
    assert extractor.get_feature_names_out()[:2].tolist() == ["backbonefeatures0", "backbonefeatures1"]
    network, transform = extractor.network_.network, extractor.network_.transform
    with torch.inference_mode():
        wanted = features(network, torch.stack([transform(pixels) for pixels in X]))
    np.testing.assert_allclose(said, wanted.numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(clone(extractor).set_params(batch_size=5).fit_transform(X), said, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(extractor)).transform(X), said)


def test_features_that_are_not_pooled_are_the_map(extractor):
    pooled = extractor.fit_transform(X[:4])
    said = clone(extractor).set_params(pooled=False).fit_transform(X[:4])
    assert said.shape == (4, 96)  # a map of one position
    np.testing.assert_allclose(said, pooled, rtol=1e-4, atol=1e-5)
    larger = clone(extractor).set_params(pooled=False, image_size=(64, 96)).fit(X[:4])
    assert larger.transform(X[:4]).shape == (4, 96 * 2 * 3)
    assert len(larger.get_feature_names_out()) == 96 * 2 * 3


def test_features_prepare_pictures_as_the_search_does(asked):
    deep = (X[..., 0].astype(np.uint16) + 1000) * 40
    found = BackboneClassifier(**asked).fit(deep, CODES)
    train = np.flatnonzero(pd.read_csv(Path(found.run_dir_) / "pictures.csv")["part"] == "train")
    extractor = BackboneFeatures(TINY, image_size=32, weights=asked["weights"]).fit(deep[train])
    assert extractor.network_.transform == found.network_.transform
    taken = BackboneFeatures(FrozenEstimator(found)).fit(deep)
    np.testing.assert_array_equal(taken.transform(deep), extractor.transform(deep))


def test_features_of_what_was_found(fitted):
    by_estimator = BackboneFeatures(FrozenEstimator(fitted))
    said = by_estimator.fit_transform(X)
    with torch.inference_mode():
        batch = torch.stack([fitted.network_.transform(pixels) for pixels in X])
        wanted = features(fitted.network_.network, batch)
    np.testing.assert_allclose(said, wanted.numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(BackboneFeatures(fitted.selection_).fit_transform(X), said)
    np.testing.assert_array_equal(clone(by_estimator).fit_transform(X), said)
    _ = fitted.selection_.study  # a copy does without its connection
    np.testing.assert_array_equal(clone(BackboneFeatures(fitted.selection_)).fit_transform(X), said)
    assert by_estimator.network_.network is not fitted.network_.network


def test_features_of_what_cannot_be(extractor, fitted):
    with pytest.raises(NotFittedError, match="give FrozenEstimator"):
        clone(BackboneFeatures(fitted)).fit(X)
    with pytest.raises(ArgumentError, match="leave image_size, channels out"):
        BackboneFeatures(fitted, image_size=64, channels=(0,)).fit(X)
    with pytest.raises(ArgumentError, match="backbone is the name of one, a Selection, or a fitted"):
        BackboneFeatures(LogisticRegression()).fit(X)
    with pytest.raises(ArgumentError, match=r"backbone is the name of one.*None came"):
        BackboneFeatures(None, image_size=32).fit(X)
    with pytest.raises(DataError, match=r"channels is \(i,\) or \(i, j, k\), whole numbers from 0; 5 came"):
        clone(extractor).set_params(channels=5).fit(X)
    with pytest.raises(BackboneError, match=r"'test_\*' are \d+\. Name one"):
        BackboneFeatures("test_*").fit(X)
    with pytest.raises(ArgumentError, match="batch_size is a whole number from 1; 0 came"):
        clone(extractor).set_params(batch_size=0).fit(X)
    with pytest.raises(DataError, match="was fitted on rows of 6 features, and pictures came"):
        clone(extractor).fit(np.random.default_rng(0).normal(size=(5, 6))).transform(X)


def test_a_grid_over_a_pipeline(extractor):
    pipeline = make_pipeline(extractor, LogisticRegression(max_iter=200))
    grid = GridSearchCV(pipeline, {"backbonefeatures__image_size": [32, 64]}, cv=KFold(3, shuffle=True, random_state=0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a head that has not converged
        grid.fit(X, Y)
    assert set(grid.predict(X)) <= set(NAMES)
    assert grid.cv_results_["mean_test_score"].shape == (2,)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(grid)).predict_proba(X), grid.predict_proba(X))


@pytest.mark.slow
def test_scores_by_cross_validation(asked):
    """Each fold is a search of its own; stripes are easy even for random features."""
    space = {"n_unfrozen": (1, 2), "n_epochs": 3, "n_blocks_kept": None}
    folds = KFold(3, shuffle=True, random_state=0)
    scores = cross_val_score(BackboneClassifier(**(asked | {"space": space})), X, Y, cv=folds, error_score="raise")
    assert scores.shape == (3,)
    assert scores.mean() > 1 / 3


@pytest.mark.slow
def test_a_grid_over_searches(asked, tmp_path):
    estimator = BackboneRegressor(**asked, runs_dir=tmp_path / "runs")
    grid = GridSearchCV(estimator, {"image_sizes": [32, 64]}, cv=KFold(2, shuffle=True, random_state=0), n_jobs=2)
    grid.fit(X, BRIGHTNESS)
    assert len(list((tmp_path / "runs").iterdir())) == 5
    assert grid.best_estimator_.selection_.best.image_size == (grid.best_params_["image_sizes"],) * 2
    joblib.dump(grid, tmp_path / "grid.joblib")
    np.testing.assert_array_equal(joblib.load(tmp_path / "grid.joblib").predict(X), grid.predict(X))


def test_each_expected_failure_has_a_reason():
    assert set(EXPECTED_FAILED_CHECKS) == {"BackboneClassifier", "BackboneRegressor", "BackboneFeatures"}
    for failing in EXPECTED_FAILED_CHECKS.values():
        assert len(failing) <= 5
        assert all(name.startswith("check_") and len(reason) > 20 for name, reason in failing.items())


@pytest.mark.parametrize("which", [0, 1], ids=["BackboneClassifier", "BackboneRegressor"])
def test_scikit_learns_quick_checks_hold(which, fixed, extractor):
    estimator = estimators(fixed, extractor)[which]
    expected = EXPECTED_FAILED_CHECKS[type(estimator).__name__]
    held = []
    for one, check in estimator_checks_generator(estimator, expected_failed_checks=expected, mark="skip"):
        name = getattr(check, "func", check).__name__
        if name in QUICK:
            check(one)
            held.append(name)
    assert len(held) >= 18


def all_checks(estimator):
    expected = EXPECTED_FAILED_CHECKS[type(estimator).__name__]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes too rare in some of the data sets, and of heads of no convergence
        results = check_estimator(estimator, expected_failed_checks=dict(expected), on_fail=None, on_skip=None)
    states = Counter(result["status"] for result in results)
    failed = {result["check_name"]: result["exception"] for result in results if result["status"] == "failed"}
    assert failed == {}
    assert {result["check_name"] for result in results if result["status"] == "xfail"} == set(expected)
    return states


def test_all_of_scikit_learns_checks_hold_of_features(extractor):
    assert all_checks(extractor)["passed"] >= 45


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("which", [0, 1], ids=["BackboneClassifier", "BackboneRegressor"])
def test_all_of_scikit_learns_checks_hold(which, fixed, extractor):
    assert all_checks(estimators(fixed, extractor)[which])["passed"] >= 45

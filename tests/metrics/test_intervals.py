"""Intervals against closed forms, and how often they hold what they are to hold."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, lognorm, norm
from scipy.stats import t as student
from tests.metrics.conftest import ALL, example, found

from autobackbone.errors import ArgumentError, MetricError
from autobackbone.metrics import interval, metric_for, paired_interval, paired_loss, score, standard_error
from autobackbone.metrics.closed import auroc_interval, f1_interval, recall_interval, wilson
from autobackbone.metrics.graded import graded, moving_mean, moving_numbers, moving_of
from autobackbone.metrics.studentised import EXPLAINED, LOSS, studentised_interval

every_metric = pytest.mark.parametrize(("task", "name"), ALL)


@pytest.mark.parametrize(("n_right", "n_images"), [(0, 1), (0, 7), (7, 7), (3, 10), (95, 100), (1999, 2000)])
@pytest.mark.parametrize("confidence", [0.5, 0.95])
def test_the_interval_of_a_count_is_wilsons(n_right, n_images, confidence):
    labels = np.where(np.arange(n_images) < n_right, 0, 1)
    low, high = interval(
        metric_for("accuracy", n_outputs=2), np.tile([0.9, 0.1], (n_images, 1)), labels, confidence=confidence
    )
    if n_images == 1:
        assert (low, high) == (0, 1)
        return
    z, share = norm.ppf((1 + confidence) / 2), n_right / n_images
    middle = (share + z**2 / (2 * n_images)) / (1 + z**2 / n_images)
    half = z / (1 + z**2 / n_images) * math.sqrt(share * (1 - share) / n_images + z**2 / (4 * n_images**2))
    assert (low, high) == pytest.approx((middle - half, middle + half), abs=1e-12)


@every_metric
@given(seed=st.integers(0, 10_000), n_images=st.integers(2, 30), sharpness=st.sampled_from([0.3, 2.0, 20.0]))
@settings(max_examples=12)
def test_an_interval_is_no_nan_holds_the_score_and_stays_within_what_a_score_can_be(
    task, name, seed, n_images, sharpness
):
    predictions, labels = example(task, seed, n_images, n_present=2, sharpness=sharpness)
    metric = found(task, name)
    value, (low, high) = score(metric, predictions, labels), interval(metric, predictions, labels)
    assert low <= high
    assert math.isnan(value) or low <= value <= high
    assert low >= (-math.inf if name == "r2" else 0)
    assert high <= (1 if metric.unit == "points" else math.inf)
    sure, unsure = (interval(metric, predictions, labels, confidence=c) for c in (0.5, 0.99))
    assert min(unsure[0], sure[0]) == pytest.approx(unsure[0])
    assert max(unsure[1], sure[1]) == pytest.approx(unsure[1])


@every_metric
def test_more_pictures_narrow_an_interval(task, name):
    metric = found(task, name)
    widths = [np.diff(interval(metric, *example(task, 0, n)))[0] for n in (100, 1600)]
    assert widths[1] < widths[0] / 2


@every_metric
def test_an_interval_is_about_two_standard_errors_either_way(task, name):
    predictions, labels = example(task, 2, 600)
    metric = found(task, name)
    low, high = interval(metric, predictions, labels)
    assert (high - low) / 2 == pytest.approx(1.96 * standard_error(metric, predictions, labels), rel=0.2)


@every_metric
def test_nothing_missed_is_not_taken_for_never_missing(task, name):
    generator = np.random.default_rng(0)
    labels = {
        "classification": np.arange(40) % 8,
        "multilabel": (generator.random((40, 6)) < 0.4).astype(int),
        "regression": generator.normal(size=(40, 3)),
    }[task]
    low, high = interval(found(task, name), np.eye(8)[labels] if task == "classification" else labels, labels)
    if task == "regression" or name == "log_loss":  # where missing has no share, nothing is known of its size
        assert low == pytest.approx(high, abs=1e-12)
    else:
        assert high == 1
        assert 0.5 < low < 0.985


def held(metric, truth, draw, n_draws=400):
    """In which share of draws the interval holds the truth, and in which it lies above and below it."""
    generator = np.random.default_rng(0)
    ends = np.array([interval(metric, *draw(generator)) for _ in range(n_draws)])
    is_above, is_below = ends[:, 0] > truth, ends[:, 1] < truth
    return 1 - is_above.mean() - is_below.mean(), is_above.mean(), is_below.mean()


def test_the_interval_of_a_skewed_mean_holds_the_truth_as_often_as_it_says():
    """Errors of a log-normal distribution, 50 of them, hard for any interval."""
    metric, truth = metric_for("mae", "regression", n_outputs=1), lognorm(1).mean()
    share, _, below = held(metric, truth, lambda rng: (rng.lognormal(size=(50, 1)), np.zeros((50, 1))))
    assert 0.90 <= share <= 0.98
    # Resampled scores alone lie too low: the truth is above them far more often than below.
    assert below < 0.08


@pytest.mark.parametrize("name", ["r2", "rmse"])
def test_the_interval_of_squared_errors_with_long_tails_holds_the_truth(name):
    """Student's t with five degrees of freedom: variance 5 / 3."""
    truth = {"r2": 1 - (5 / 3) / (5 / 3 + 4), "rmse": math.sqrt(5 / 3)}[name]

    def draw(rng):
        said = rng.normal(0, 2, (80, 1))
        return said, said + rng.standard_t(5, (80, 1))

    assert 0.92 <= held(metric_for(name, "regression", n_outputs=1), truth, draw)[0] <= 0.985


@pytest.mark.parametrize(("n", "distance"), [(60, 3.0), (100, 2.0), (200, 3.0)])
def test_the_interval_of_auroc_holds_the_truth_near_its_end_with_few_positives(n, distance):
    """A fifth of the pictures has the label; their probabilities are normal, a distance away from the others'."""

    def draw(rng):
        is_in = rng.random((n, 1)) < 0.2
        is_in[:2, 0] = True, False  # that it is defined
        return 1 / (1 + np.exp(-rng.normal(distance * is_in, 1) / 4)), is_in.astype(int)

    truth = norm.cdf(distance / math.sqrt(2))
    assert 0.91 <= held(metric_for("auroc", "multilabel", n_outputs=1), truth, draw)[0] <= 0.995


@pytest.mark.parametrize("n", [50, 100, 200])
@pytest.mark.parametrize(
    ("shares", "recalls"),
    [
        ([0.35, 0.25, 0.2, 0.1, 0.06, 0.04], [0.95, 0.92, 0.9, 0.85, 0.8, 0.75]),
        ([1 / 6] * 6, [0.99, 0.98, 0.97, 0.96, 0.95, 0.9]),
        ([0.5, 0.3, 0.1, 0.05, 0.03, 0.02], [0.95, 0.9, 0.6, 0.5, 0.4, 0.3]),
    ],
    ids=["rare", "even", "rare and hard"],
)
@pytest.mark.parametrize("name", ["balanced_accuracy", "f1_macro"])
def test_the_interval_of_a_mean_over_classes_holds_the_truth_also_with_rare_ones(name, shares, recalls, n):
    """A missed picture is taken for any other class alike."""
    shares, recalls = np.array(shares), np.array(recalls)

    def draw(rng):
        labels = rng.choice(6, n, p=shares)
        said = np.where(rng.random(n) < recalls[labels], labels, (labels + rng.integers(1, 6, n)) % 6)
        return np.eye(6)[said], labels

    missed = shares * (1 - recalls) / 5
    n_found = shares * recalls + missed.sum() - missed
    truths = {"balanced_accuracy": recalls.mean(), "f1_macro": np.mean(2 * shares * recalls / (shares + n_found))}
    assert 0.90 <= held(metric_for(name, n_outputs=6), truths[name], draw)[0] <= 0.995


@pytest.mark.parametrize("n_hit", [0, 3, 39, 40])
def test_one_class_alone_is_a_count(n_hit):
    is_true, is_found = np.ones((40, 1), bool), np.arange(40)[:, None] < n_hit
    theirs = binomtest(n_hit, 40).proportion_ci(0.9, method="wilson")
    assert recall_interval(n_hit / 40, is_true, is_found, 0.9) == pytest.approx(tuple(theirs))
    assert wilson(n_hit / 40, 40, 0.9) == pytest.approx(tuple(theirs))


def test_a_rare_class_without_a_miss_does_not_say_that_nothing_is_known():
    labels = np.repeat([0, 1], [990, 10])
    low, high = interval(metric_for("balanced_accuracy", n_outputs=2), np.eye(2)[labels], labels)
    assert 0.8 < low < 0.9
    assert high == 1
    low, _ = interval(metric_for("f1_macro", n_outputs=2), np.eye(2)[labels], labels)
    assert 0.8 < low < 0.95
    even = np.arange(100) % 10
    low, _ = interval(metric_for("balanced_accuracy", n_outputs=10), np.eye(10)[even], even)
    assert low == pytest.approx(wilson(1.0, 100, 0.95)[0], abs=1e-3)


def test_classes_that_are_all_told_apart_do_not_make_the_others_surer():
    """A column without a mistake varies, too: without it the interval is narrower by its share alone."""
    generator = np.random.default_rng(0)
    hard = generator.random((60, 2)) < 0.5
    said = 1 / (1 + np.exp(-generator.normal(2.0 * hard, 1)))
    easy = hard[:, :1]
    metric = [metric_for("auroc", "multilabel", n_outputs=n) for n in (2, 3)]
    (low, high), (low_with, high_with) = (
        interval(metric[0], said, hard.astype(int)),
        interval(metric[1], np.hstack([said, easy]), np.hstack([hard, easy]).astype(int)),
    )
    assert high_with - low_with > 0.75 * (high - low)


@pytest.mark.parametrize("name", ["mae", "rmse", "r2"])
def test_the_worst_picture_may_stand_for_another_one(name):
    """The end of worse scores moves away when that picture is worse; the other end hardly does."""
    generator = np.random.default_rng(0)
    labels = generator.normal(size=(100, 1))
    said = labels + 0.3 * generator.normal(size=(100, 1))
    metric = metric_for(name, "regression", n_outputs=1)
    moving = moving_of(metric, said.astype(np.float64), labels)
    assert moving is not None
    plain = studentised_interval(
        graded(moving), 100, scale=EXPLAINED if name == "r2" else LOSS, confidence=0.95, seed=0
    )
    assert plain is not None
    low, high = interval(metric, said, labels)
    if name == "r2":
        assert low < plain[0]
        assert high == plain[1]
    else:
        assert low == plain[0]
        assert high > plain[1]


def test_two_classes_are_one_column_to_auroc():
    """Each picture stands in both, and would be counted twice."""
    generator = np.random.default_rng(0)
    labels = np.repeat([0, 1], [45, 5])
    second = 1 / (1 + np.exp(-generator.normal(2 * labels - 1, 1)))
    both = np.stack([1 - second, second], axis=1)
    of_classes = interval(metric_for("auroc", n_outputs=2), both, labels)
    of_label = interval(metric_for("auroc", "multilabel", n_outputs=1), second[:, None], labels[:, None])
    assert of_classes == pytest.approx(of_label)
    apart = np.stack([1 - labels, labels], axis=1).astype(float)
    assert interval(metric_for("auroc", n_outputs=2), apart, labels)[0] == pytest.approx(wilson(1.0, 5, 0.95)[0])


def test_classes_without_a_picture_widen_an_interval():
    generator = np.random.default_rng(0)
    is_true = np.eye(6, dtype=bool)[generator.integers(0, 4, 200)]
    is_found = np.where(generator.random((200, 1)) < 0.9, is_true, np.roll(is_true, 1, axis=1))
    for of_classes in (recall_interval, f1_interval):
        seen = of_classes(0.9, is_true[:, :5], is_found[:, :5], 0.95)
        more = of_classes(0.9, is_true, is_found, 0.95)
        assert more[0] < seen[0]
        assert more[1] > seen[1]


def test_the_error_of_auroc_is_delongs_of_all_pairs():
    generator = np.random.default_rng(0)
    is_in = generator.random(50) < 0.3
    column = np.round(generator.normal(is_in, 1), 1)
    wins = np.array([[(a > b) + (a == b) / 2 for b in column[~is_in]] for a in column[is_in]])
    value, (n_in, n_out) = wins.mean(), wins.shape
    parts = wins.mean(axis=1).var(ddof=1) / n_in, wins.mean(axis=0).var(ddof=1) / n_out
    n_free = sum(parts) ** 2 / (parts[0] ** 2 / (n_in - 1) + parts[1] ** 2 / (n_out - 1))
    low, high = auroc_interval(column[:, None], is_in[:, None], 0.9)
    middle, half = math.log(value / (1 - value)), (_logit(high) - _logit(low)) / 2
    assert (_logit(high) + _logit(low)) / 2 == pytest.approx(middle)
    assert half == pytest.approx(student.ppf(0.95, n_free) * math.sqrt(sum(parts)) / (value * (1 - value)))


def _logit(share):
    return math.log(share / (1 - share))


@pytest.mark.parametrize("name", ["mae", "rmse", "r2"])
def test_a_resample_has_the_score_and_the_error_that_its_pictures_have(name):
    predictions, labels = example("regression", 3, 300)
    metric = found("regression", name)
    moving = (
        moving_mean(np.abs(predictions - labels).mean(axis=1))
        if name == "mae"
        else moving_numbers(metric, predictions, labels)
    )
    rows = np.random.default_rng(1).integers(0, 300, (4, 300))
    scores, errors = graded(moving)(np.stack([np.bincount(row, minlength=300) for row in rows]).astype(float))
    for row, value, error in zip(rows, scores, errors, strict=True):
        assert value == pytest.approx(score(metric, predictions[row], labels[row]), rel=1e-6)
        assert error == pytest.approx(standard_error(metric, predictions[row], labels[row]), rel=0.15)


def test_an_interval_of_normal_errors_is_students():
    """On a plain scale a studentised mean of normal numbers strays as Student's t does."""
    shares = np.random.default_rng(0).normal(100, 1, 400)
    low, high = studentised_interval(graded(moving_mean(shares)), 400, scale=LOSS, confidence=0.95, seed=0)
    half = student.ppf(0.975, 399) * shares.std(ddof=1) / 20
    assert (high - low) / 2 == pytest.approx(half, rel=0.08)
    assert (high + low) / 2 == pytest.approx(shares.mean(), abs=0.2 * half)


def held_difference(metric, truth, draw, n_draws=400):
    generator = np.random.default_rng(1)
    ends = np.array([paired_interval(metric, *draw(generator)) for _ in range(n_draws)])
    return np.mean((ends[:, 0] <= truth) & (truth <= ends[:, 1]))


def test_the_interval_of_a_loss_of_accuracy_holds_the_truth():
    """Of 100 pictures the first model names 5 % that the second misses, and misses 2 % that the second names."""

    def draw(rng):
        kinds = rng.choice(4, 100, p=[0.85, 0.08, 0.05, 0.02])
        labels = np.zeros(100, int)
        first, second = np.isin(kinds, [0, 2]), np.isin(kinds, [0, 3])
        said = [np.where(right[:, None], [0.9, 0.1], [0.1, 0.9]) for right in (first, second)]
        return said[0], said[1], labels

    assert 0.93 <= held_difference(metric_for("accuracy", n_outputs=2), 0.03, draw) <= 0.99


def test_the_interval_of_a_larger_loss_holds_the_truth():
    """Errors of the second model are by half larger, log-normal ones, and the two go together."""

    def draw(rng):
        first = rng.lognormal(size=(80, 1))
        return first, 1.5 * first * rng.uniform(0.5, 1.5, (80, 1)), np.zeros((80, 1))

    metric = metric_for("mae", "regression", n_outputs=1)
    assert 0.89 <= held_difference(metric, 0.5 * lognorm(1).mean(), draw) <= 0.985


@every_metric
def test_the_interval_of_a_loss_changes_sign_with_the_roles(task, name):
    metric = found(task, name)
    (first, labels), (second, _) = example(task, 0, 150), example(task, 1, 150)
    low, high = paired_interval(metric, first, second, labels)
    assert low <= paired_loss(metric, first, second, labels)[0] <= high
    turned = paired_interval(metric, second, first, labels)
    assert turned == pytest.approx((-high, -low), abs=0.1 * (high - low))


@pytest.mark.parametrize(("n_rest", "n_own"), [(45, 5), (90, 10), (25, 25)])
@pytest.mark.parametrize("name", ["auroc", "balanced_accuracy"])
def test_the_interval_of_no_loss_holds_it_with_few_pictures_of_a_class(name, n_rest, n_own):
    labels = np.repeat([0, 1], [n_rest, n_own])

    def draw(rng):
        said = 1 / (1 + np.exp(-rng.normal(labels - 0.5, 0.7, (2, len(labels)))))
        return *(np.stack([1 - one, one], axis=1) for one in said), labels

    assert 0.90 <= held_difference(metric_for(name, n_outputs=2), 0.0, draw) <= 0.995


@pytest.mark.parametrize("prevalences", [[0.5, 0.2, 0.06], [0.5, 0.06]])
def test_the_interval_of_map_holds_the_truth_also_with_a_rare_label(prevalences):
    """Resamples that lack a label say nothing of it: by them alone the truth is held in 0.79 to 0.87."""
    rates = np.array(prevalences)

    def draw(rng, n=60):
        labels = (rng.random((n, len(rates))) < rates).astype(int)
        labels[0] = 1  # that all are defined
        return 1 / (1 + np.exp(-rng.normal(1.5 * labels, 1))), labels

    metric = metric_for("map", "multilabel", n_outputs=len(rates))
    truth = score(metric, *draw(np.random.default_rng(9), 100_000))
    assert 0.92 <= held(metric, truth, draw)[0] <= 0.995


def test_models_that_say_the_same_are_not_surely_the_same():
    metric, same = metric_for("accuracy", n_outputs=2), np.tile([0.9, 0.1], (60, 1))
    low, high = paired_interval(metric, same, same, np.arange(60) % 2)
    assert (low, high) == pytest.approx((-1.96 / 62, 1.96 / 62), rel=1e-3)
    assert paired_interval(metric, same[:1], same[:1], [0]) == (-math.inf, math.inf)
    labels = np.repeat([0, 1], 6)
    for name in ("balanced_accuracy", "f1_macro", "auroc"):
        low, high = paired_interval(metric_for(name, n_outputs=2), np.eye(2)[labels], np.eye(2)[labels], labels)
        assert -0.4 < low < -0.05
        assert 0.05 < high < 0.4
    with pytest.raises(ArgumentError, match=r"between 0 and 1, as 0\.95 does"):
        paired_interval(metric, same, same, np.arange(60) % 2, confidence=95)


def test_with_two_pictures_the_interval_is_wide_and_finite():
    low, high = interval(metric_for("mae", "regression", n_outputs=1), [[1.0], [3.0]], [[0.0], [0.0]])
    assert 0 < low < 0.1
    assert 100 < high < math.inf


@pytest.mark.parametrize("confidence", [0, 1, -0.5, 95])
def test_a_confidence_is_a_share(confidence):
    with pytest.raises(ArgumentError, match=r"between 0 and 1, as 0\.95 does"):
        interval(metric_for("accuracy", n_outputs=2), [[0.9, 0.1]], [0], confidence=confidence)


def _all_of(metric, predictions, labels):
    """Score, standard error, interval, loss to another model with its error, and the interval of that."""
    other = labels + 1.5 * (predictions - labels)
    return np.array(
        [
            score(metric, predictions, labels),
            standard_error(metric, predictions, labels),
            *interval(metric, predictions, labels),
            *paired_loss(metric, predictions, other, labels),
            *paired_interval(metric, predictions, other, labels),
        ]
    )


@pytest.mark.parametrize("name", ["r2", "mae", "rmse"])
@given(seed=st.integers(0, 10_000), exponent=st.integers(-140, 90))
@settings(max_examples=25)
def test_the_unit_of_numbers_changes_nothing_but_the_unit(name, seed, exponent):
    """Whatever the size of the numbers: nothing overflows on the way, and warnings are errors here."""
    metric, (predictions, labels) = found("regression", name), example("regression", seed, n_images=30)
    unit = 10.0**exponent
    scaled = _all_of(metric, predictions * unit, labels * unit)
    expected = _all_of(metric, predictions, labels) * (1.0 if name == "r2" else unit)
    np.testing.assert_allclose(scaled, expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["r2", "mae", "rmse"])
@pytest.mark.parametrize("exponent", [101, 150, 154, 200, 300])
def test_numbers_whose_squares_nothing_can_hold_are_told(name, exponent):
    metric, (predictions, labels) = found("regression", name), example("regression", 0)
    predictions, labels = predictions / 1e7 * 10.0**exponent, labels / 1e7 * 10.0**exponent
    for ask in (score, standard_error, interval):
        with pytest.raises(MetricError, match=rf"{name} is for numbers up to 1e\+100; .* came. Divide"):
            ask(metric, predictions, labels)
    with pytest.raises(MetricError, match="Divide predictions and labels by a constant"):
        paired_interval(metric, predictions, labels, labels)


@pytest.mark.parametrize("exponent", [60, 76, 78, 90])
def test_predictions_that_are_beyond_all_labels_have_errors_in_proportion(exponent):
    metric, (predictions, labels) = found("regression", "r2"), example("regression", 3)
    far = labels + (predictions - labels) * 1e40
    farther = labels + (predictions - labels) * 10.0**exponent
    found_at = standard_error(metric, farther, labels)
    assert found_at == pytest.approx(standard_error(metric, far, labels) * 10.0 ** (2 * (exponent - 40)), rel=1e-6)
    low, high = interval(metric, farther, labels)
    assert low <= score(metric, farther, labels) <= high

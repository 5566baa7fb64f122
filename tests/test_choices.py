import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.test_choosing import ACCURACY, LABELS, LOSS, predictions, trial

from autobackbone.choices import best_within, fastest_at_least, knee_of, preferred
from autobackbone.choosing import choose, front_of
from autobackbone.errors import ArgumentError, LimitsError, RunError
from autobackbone.metrics import metric_for
from autobackbone.pareto import front_mask
from autobackbone.records import Limits

METRICS = st.sampled_from([ACCURACY, LOSS])
latencies = st.sampled_from([1.0, 1.1, 2.0, 4.0, 8.0])


def sized(number, score, latency_ms, n_params, megabytes=1.0, train_seconds=1.0):
    known = {"n_params": n_params, "megabytes": megabytes, "train_seconds": train_seconds}
    return replace(trial(number, score, latency_ms), **known)


@st.composite
def trials(draw, least=1):
    rows = st.tuples(
        st.integers(100, 200), latencies, st.sampled_from([None, 10, 20, 30]), st.sampled_from([None, 1.0, 2.0, 5.0])
    )
    drawn = draw(st.lists(rows, min_size=least, max_size=8))
    return [sized(i, right / 200, ms, n_params, train_seconds=s) for i, (right, ms, n_params, s) in enumerate(drawn)]


def picked(prefer, front, metric=ACCURACY, tolerance=0.5):
    return preferred(
        prefer, front, lambda one: predictions(round(one.score * 200)), LABELS, metric, tolerance=tolerance
    )


def better(metric, score, other):
    return score > other if metric.is_higher_better else score < other


@given(trials(), METRICS)
def test_accuracy_and_speed_are_the_two_ends_of_the_front(tried, metric):
    front = front_of(tried, metric, Limits())
    top, fast = picked("accuracy", front, metric), picked("speed", front, metric)
    assert not any(better(metric, one.score, top.score) for one in front)
    assert all(top.latency_ms <= one.latency_ms for one in front if one.score == top.score)
    assert fast.latency_ms == min(one.latency_ms for one in front)
    assert not any(better(metric, one.score, fast.score) for one in front if one.latency_ms == fast.latency_ms)


@given(trials(), METRICS)
def test_the_knee_is_on_the_front_and_is_what_balanced_means(tried, metric):
    front = front_of(tried, metric, Limits())
    knee = knee_of(front, metric)
    sign = 1 if metric.is_higher_better else -1
    on_front = front_mask([sign * one.score for one in tried], [one.latency_ms for one in tried])
    assert on_front[knee.number]
    assert picked("balanced", front, metric) == knee


@given(trials(), st.sampled_from([0.0, 0.5, 10.0]))
def test_what_trains_fastest_is_as_good_as_the_top_and_none_so_good_is_quicker(tried, tolerance):
    front = front_of(tried, ACCURACY, Limits())
    quick = picked("training_speed", front, tolerance=tolerance)
    top = picked("accuracy", front)
    n_wrong = round(200 * (top.score - quick.score))
    assert n_wrong == 0 or (n_wrong <= 1 and 100 * n_wrong / 200 <= tolerance + 1e-9)
    chosen = choose(front, lambda one: predictions(round(one.score * 200)), LABELS, ACCURACY, tolerance=tolerance).trial
    seconds = [math.inf if one.train_seconds is None else one.train_seconds for one in (quick, top, chosen)]
    assert seconds[0] == min(seconds)


def test_of_two_that_tie_within_noise_the_slower_may_be_quicker_to_train():
    slow = replace(sized(0, 0.9, 1.1, 1, train_seconds=1.0), latency_noise_ms=0.1)
    fast = replace(sized(1, 0.9, 1.0, 1, train_seconds=9.0), latency_noise_ms=0.1)
    front = front_of([slow, fast], ACCURACY, Limits())
    assert len(front) == 2
    assert picked("training_speed", front).number == 0
    assert picked("speed", front).number == 1


@pytest.mark.parametrize("word", ["fast", None, "Accuracy", 1, ["speed"]])
def test_a_word_that_is_not_known_is_named_with_the_four(word):
    with pytest.raises(ArgumentError, match=r"one of 'accuracy', 'speed', 'balanced', 'training_speed', not "):
        picked(word, [trial(0, 0.9, 1.0)])


@given(
    trials(least=0),
    METRICS,
    st.one_of(st.none(), st.sampled_from([0.5, 1.0, 2.0])),
    st.one_of(st.none(), st.sampled_from([5, 10, 25])),
)
def test_the_best_within_limits_keeps_them_and_none_that_does_is_better(tried, metric, latency_ms, n_params):
    def keeps(one):
        is_fast = latency_ms is None or one.latency_ms <= latency_ms
        return is_fast and (n_params is None or (one.n_params is not None and one.n_params <= n_params))

    limits = {"latency_ms": latency_ms, "n_params": n_params}
    if latency_ms is None and n_params is None:
        with pytest.raises(ArgumentError, match=r"one or more of latency_ms, n_params, megabytes; none came"):
            best_within(tried, metric, **limits)
    elif not any(map(keeps, tried)):
        with pytest.raises(LimitsError, match="keeps .*=" if tried else "no trial has finished"):
            best_within(tried, metric, **limits)
    else:
        best = best_within(tried, metric, **limits)
        assert keeps(best)
        rivals = [one for one in tried if keeps(one)]
        assert not any(better(metric, one.score, best.score) for one in rivals)
        assert all(best.latency_ms <= one.latency_ms for one in rivals if one.score == best.score)


def test_what_is_nearest_to_all_limits_is_named():
    tried = [sized(0, 0.9, 2.0, 1_000_000, 4.0), sized(1, 0.8, 1.2, 9_000_000, 36.0)]
    with pytest.raises(LimitsError, match=r"keeps latency_ms=1 and n_params=900,000; the nearest, trial 0 .* 2\.00 ms"):
        best_within(tried, ACCURACY, latency_ms=1.0, n_params=900_000)
    with pytest.raises(LimitsError, match=r"the nearest, trial 0 .*, has 4\.0 MB\. Allow more"):
        best_within(tried, ACCURACY, megabytes=3)
    unknown = [replace(tried[0], n_params=None)]
    with pytest.raises(LimitsError, match="has n_params unknown"):
        best_within(unknown, ACCURACY, n_params=5)


@pytest.mark.parametrize("name", ["latency_ms", "n_params", "megabytes"])
@pytest.mark.parametrize("value", ["small", True, 0, -2.0, math.nan])
def test_a_limit_that_is_no_number_above_0_is_named(name, value):
    with pytest.raises(ArgumentError, match=rf"{name} must be .* above 0, not {value!r}; leave it out"):
        best_within([sized(0, 0.9, 1.0, 5)], ACCURACY, **{name: value})


@given(trials(), METRICS, st.integers(90, 200))
def test_the_fastest_that_is_good_enough_is_good_enough_and_the_fastest(tried, metric, wanted):
    front, score = front_of(tried, metric, Limits()), wanted / 200
    good = [one for one in front if one.score == score or better(metric, one.score, score)]
    if good:
        fastest = fastest_at_least(front, score, metric)
        assert fastest in good
        assert fastest.latency_ms == min(one.latency_ms for one in good)
    else:
        best = picked("accuracy", front, metric)
        side = "at least" if metric.is_higher_better else "at most"
        with pytest.raises(LimitsError, match=rf"{metric.name} of {side} .*; the best is trial {best.number} "):
            fastest_at_least(front, score, metric)


@pytest.mark.parametrize("score", [None, "0.9", True, math.nan])
def test_a_score_that_is_no_number_is_named(score):
    with pytest.raises(ArgumentError, match=f"score must be a number in the unit of accuracy, .* not {score!r}"):
        fastest_at_least([trial(0, 0.9, 1.0)], score, ACCURACY)


@pytest.mark.parametrize(
    ("metric", "score", "message"),
    [
        (ACCURACY, 50, r"score must be between 0 and 1 \(0\.9, not 90\), as accuracy is, not 50\."),
        (ACCURACY, -math.inf, "between 0 and 1"),
        (LOSS, -0.1, r"score must be at least 0, as log_loss is, not -0\.1"),
        (metric_for("r2", "regression", n_outputs=1), 1.5, r"score must be at most 1, as r2 is, not 1\.5"),
    ],
)
def test_a_score_that_no_network_can_have_is_told(metric, score, message):
    with pytest.raises(ArgumentError, match=message):
        fastest_at_least([trial(0, 0.9, 1.0)], score, metric)


def test_what_a_metric_of_ones_own_can_be_is_not_known():
    own = metric_for("torchmetrics.regression:SpearmanCorrCoef", "regression", n_outputs=1)
    assert fastest_at_least([trial(0, 0.9, 1.0)], -0.5, own).number == 0


def test_numbers_of_numpy_are_numbers():
    tried = [sized(0, 0.75, 1.0, 5)]
    assert fastest_at_least(tried, np.float32(0.75), ACCURACY).number == 0
    assert best_within(tried, ACCURACY, n_params=np.int64(5), latency_ms=np.float32(1)).number == 0


@pytest.mark.parametrize("prefer", ["accuracy", "speed", "balanced", "training_speed"])
def test_without_a_finished_trial_there_is_nothing_to_prefer(prefer):
    with pytest.raises(RunError, match="no trial has finished"):
        picked(prefer, [])
    with pytest.raises(RunError, match="no trial has finished"):
        fastest_at_least([], 0.5, ACCURACY)

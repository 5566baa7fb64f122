"""The fast routines equal their definitions, on small grids where ties and NaN are certain."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autobackbone import pareto
from autobackbone.pareto import front_layers, front_mask, good_enough, good_enough_mask, hypervolume, knee

# Few values, so that most examples hold ties in one column or both.
cells = st.sampled_from([0.0, 1.0, 2.0, 3.0, 4.0, np.nan, -np.inf, np.inf])
finite_cells = st.integers(0, 6).map(float)
rows = st.lists(st.tuples(cells, cells), max_size=12)
finite_rows = st.lists(st.tuples(finite_cells, finite_cells), min_size=1, max_size=12)
noisy_rows = st.lists(st.tuples(finite_cells, finite_cells, st.sampled_from([0.0, 0.25, 0.5, 1.0])), max_size=12)


def columns(points: Any, n_columns: int = 2) -> tuple[Any, ...]:
    return tuple(np.array(points, dtype=float).reshape(-1, n_columns).T)


def is_beaten_by_definition(scores: Any, latencies: Any, i: int) -> bool:
    return any(
        scores[j] >= scores[i]
        and latencies[j] <= latencies[i]
        and (scores[j] > scores[i] or latencies[j] < latencies[i])
        for j in range(len(scores))
    )


def beats(j: Any, i: Any) -> bool:
    """Row j beats row i; a row is (score, latency, noise)."""
    is_tied = abs(j[1] - i[1]) <= j[2] + i[2]
    return (j[0] > i[0] and (j[1] < i[1] or is_tied)) or (j[0] == i[0] and j[1] < i[1] and not is_tied)


@given(rows)
def test_front_is_what_nothing_dominates(points):
    scores, latencies = columns(points)
    expected = [
        not (np.isnan(scores[i]) or np.isnan(latencies[i])) and not is_beaten_by_definition(scores, latencies, i)
        for i in range(len(points))
    ]
    assert front_mask(scores, latencies).tolist() == expected


@given(noisy_rows)
def test_noisy_front_beats_all_outside_and_none_inside(points):
    scores, latencies, noise = columns(points, 3)
    mask = front_mask(scores, latencies, noise)
    inside = [point for point, is_in in zip(points, mask, strict=True) if is_in]
    for point, is_in in zip(points, mask, strict=True):
        assert any(beats(other, point) for other in inside) != is_in


@given(noisy_rows, st.randoms())
def test_front_does_not_change_with_row_order(points, random):
    order = list(range(len(points)))
    random.shuffle(order)
    scores, latencies, noise = columns(points, 3)
    shuffled = front_mask(scores[order], latencies[order], noise[order])
    assert shuffled.tolist() == front_mask(scores, latencies, noise)[order].tolist()


@given(noisy_rows)
def test_points_outside_change_nothing(points):
    scores, latencies, noise = columns(points, 3)
    mask = front_mask(scores, latencies, noise)
    assert front_mask(scores[mask], latencies[mask], noise[mask]).all()


@given(noisy_rows)
def test_noisy_front_rises(points):
    scores, latencies, noise = columns(points, 3)
    mask = front_mask(scores, latencies, noise)
    order = np.lexsort((scores[mask], latencies[mask]))
    assert (np.diff(scores[mask][order]) >= 0).all()


@given(rows)
def test_noise_that_nobody_knows_is_none(points):
    scores, latencies = columns(points)
    unknown = np.full(len(points), np.nan)
    assert front_mask(scores, latencies, unknown).tolist() == front_mask(scores, latencies).tolist()


def test_a_chain_of_tied_neighbours_keeps_both_ends():
    latencies = 10 + 0.1 * np.arange(50)
    mask = front_mask(0.5 + 0.01 * np.arange(50), latencies, np.full(50, 0.06))
    assert mask[-1]
    assert mask.sum() == 25


def test_hundred_thousand_points_take_a_blink_because_few_are_walked(monkeypatch):
    walked: list[int] = []
    walk = pareto._walk

    def counted(scores, lows, highs):
        walked.append(len(scores))
        return walk(scores, lows, highs)

    monkeypatch.setattr(pareto, "_walk", counted)
    generator = np.random.default_rng(0)
    scores, latencies = generator.random((2, 100_000))
    best_s = min(_timed(lambda: front_mask(scores, latencies)) for _ in range(3))
    assert max(walked) < 100
    assert best_s < 0.2


def _timed(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


@given(finite_rows)
def test_hypervolume_counts_the_cells_that_points_cover(points):
    scores, latencies = columns(points)
    corner_score, corner_latency = 1, 5
    covered = {
        (score, latency)
        for point_score, point_latency in points
        for score in range(corner_score, int(point_score))
        for latency in range(int(point_latency), corner_latency)
    }
    assert hypervolume(scores, latencies, (corner_score, corner_latency)) == len(covered)


@given(rows)
def test_hypervolume_comes_from_the_front_alone(points):
    finite = [point for point in points if np.isfinite(point).all()]
    scores, latencies = columns(finite)
    mask = front_mask(scores, latencies)
    alone = hypervolume(scores[mask], latencies[mask], (-1, 9))
    with_nan = hypervolume([*scores, np.nan, 9], [*latencies, 1, np.nan], (-1, 9))
    assert alone == with_nan == hypervolume(scores, latencies, (-1, 9))


@given(finite_rows, st.sampled_from([0.5, 2.0, 1024.0]))
def test_knee_is_on_the_front_in_any_unit(points, factor):
    scores, latencies = columns(points)
    found = knee(scores, 1 + latencies)
    assert front_mask(scores, latencies)[found]
    scaled = knee(4 * scores - 8, factor * (1 + latencies))
    heights = _heights(scores, 1 + latencies)
    assert heights[scaled] == pytest.approx(heights[found], abs=1e-9)
    assert heights[found] == pytest.approx(np.nanmax(np.where(front_mask(scores, latencies), heights, np.nan)))


def _heights(scores: Any, latencies: Any) -> Any:
    """Distance above the chord by its definition, as a determinant."""
    mask = front_mask(scores, latencies)
    front = sorted((np.log(lat), score) for lat, score in zip(latencies[mask], scores[mask], strict=True))
    (x0, y0), (x1, y1) = front[0], front[-1]
    width, height = (x1 - x0) or 1.0, (y1 - y0) or 1.0
    return (scores - y0) / height - (np.log(latencies) - x0) / width


def test_knee_needs_positive_latencies():
    with pytest.raises(ValueError, match="above 0 milliseconds"):
        knee([1.0, 2.0], [0.0, 1.0])


losses = st.sampled_from([-0.01, 0.0, 0.002, 0.005, 0.01, np.nan])
errors = st.sampled_from([0.0, 0.002, 0.004, 0.02])
judged = st.lists(st.tuples(finite_cells, finite_cells, losses, errors), min_size=1, max_size=10)


@given(judged, st.sampled_from([0.0, 0.005, 0.05]))
def test_good_enough_is_the_fastest_within_both(points, tolerance):
    scores, latencies, loss, error = columns(points, 4)
    mask = front_mask(scores, latencies)
    top = max(score for score, is_in in zip(scores, mask, strict=True) if is_in)
    worthy = [
        i
        for i in range(len(points))
        if mask[i] and (scores[i] == top or (loss[i] <= error[i] and loss[i] <= tolerance))
    ]
    expected = min(worthy, key=lambda i: (latencies[i], -scores[i], i))
    assert good_enough(scores, latencies, loss, error, tolerance) == expected
    assert np.flatnonzero(good_enough_mask(scores, latencies, loss, error, tolerance)).tolist() == worthy


def test_good_enough_does_not_hang_on_the_last_bit():
    one_of_many = [(n, 1 / n, np.sqrt((1 / n) / n)) for n in range(2, 500)]
    assert any(loss > error for _, loss, error in one_of_many), "rounding must matter somewhere, or this shows nothing"
    for _, loss, error in one_of_many:
        assert good_enough([0.8, 0.9], [1.0, 2.0], [loss, 0.0], [error, 0.0], tolerance=1.0) == 0


def test_good_enough_sees_noise():
    arguments = ([0.899, 0.9], [1.99, 2.0], [0.001, 0.0], [0.01, 0.0], 0.005)
    assert good_enough(*arguments) == 0
    assert good_enough(*arguments, noise=[0.1, 0.1]) == 1


def test_nothing_finished_is_an_error_and_no_front():
    assert front_mask([], []).tolist() == []
    assert hypervolume([], [], (0, 1)) == 0
    with pytest.raises(ValueError, match="at least one row with a score and a latency"):
        knee([np.nan], [1.0])
    with pytest.raises(ValueError, match="at least one row with a score and a latency"):
        good_enough([np.nan], [1.0], [0.0], [0.0], 0.005)


def test_wrong_columns_are_named():
    with pytest.raises(ValueError, match=r"latencies must have the shape of the other columns, \(2,\); \(3,\) came"):
        front_mask([1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match=r"scores must have the shape \(n,\)"):
        front_mask([[1, 2]], [[1, 2]])
    with pytest.raises(ValueError, match="noise must be at least 0"):
        front_mask([1, 2], [1, 2], [-1, 0])
    with pytest.raises(ValueError, match="tolerance must be at least 0"):
        good_enough([1], [1], [0], [0], tolerance=-0.1)


@given(noisy_rows)
def test_layers_are_the_front_of_what_is_left_until_nothing_is(points):
    scores, latencies, noise = columns([*points, (np.nan, 1.0, 0.0)], 3)
    left = np.flatnonzero(~np.isnan(scores))
    for layer in front_layers(scores, latencies, noise):
        mask = front_mask(scores[left], latencies[left], noise[left])
        assert layer.tolist() == left[mask].tolist()
        left = left[~mask]
    assert len(left) == 0

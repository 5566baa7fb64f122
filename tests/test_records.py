"""A record that is wrong cannot exist; what users write in many forms becomes one."""

from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autobackbone.errors import AutobackboneError, BudgetError, DataError, LimitsError, TargetError
from autobackbone.records import Budget, Candidate, Limits, Target, as_budget, as_image_sizes

NO_PRECISION: Any = "int8"
UNITS = {"s": 1, "sec": 1, "min": 60, "m": 60, "h": 3600, "hour": 3600, "hours": 3600, "d": 86400}


@given(st.floats(1e-3, 1e9))
def test_seconds_and_their_text_are_one_budget(seconds):
    assert as_budget(seconds) == Budget(wall_clock_s=seconds)
    assert as_budget(f"{seconds:.3f}") == as_budget(f"{seconds:.3f} s") == as_budget(float(f"{seconds:.3f}"))


parts = st.lists(st.tuples(st.integers(1, 500), st.sampled_from(sorted(UNITS))), min_size=1, max_size=4)


@given(parts, st.sampled_from(["", " ", "  "]), st.booleans())
def test_a_text_is_the_sum_of_its_parts(read, space, is_upper):
    text = " ".join(f"{number}{space}{unit}" for number, unit in read)
    expected = sum(number * UNITS[unit] for number, unit in read)
    assert as_budget(text.upper() if is_upper else text) == Budget(wall_clock_s=float(expected))


@given(st.text(max_size=12))
def test_any_text_is_a_budget_or_a_budget_error(text):
    try:
        budget = as_budget(text)
    except BudgetError as error:
        assert isinstance(error, ValueError)  # noqa: PT017  either outcome is right, for different texts
    else:
        assert budget.wall_clock_s is not None
        assert budget.wall_clock_s > 0


def test_a_budget_stays_itself():
    budget = Budget(n_trials=0)
    assert as_budget(budget) is budget


@pytest.mark.parametrize("value", ["", "soon", "10 parsecs", "-5s", "1h and 5min", "min", "1..5s"])
def test_texts_that_are_no_time_are_named(value):
    with pytest.raises(BudgetError, match=r"cannot read .* as a time\. Write seconds"):
        as_budget(value)


@pytest.mark.parametrize("value", [True, None, [], {"s": 1}])
def test_other_kinds_are_no_budget(value):
    with pytest.raises(BudgetError, match="a budget is seconds, a text such as '10min'"):
        as_budget(value)


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), "0s"])
def test_a_budget_without_time_cannot_exist(value):
    with pytest.raises(BudgetError, match="wall_clock_s must be seconds above 0, at most 1e"):
        as_budget(value)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (Budget, BudgetError, "needs wall_clock_s, n_trials or both; neither came"),
        (lambda: Budget(n_trials=-1), BudgetError, "n_trials must be a whole number of at least 0, not -1"),
        (lambda: Budget(n_trials=True), BudgetError, "n_trials must be a whole number"),
        (lambda: Limits(latency_ms=0), LimitsError, r"limits\.latency_ms must be above 0, not 0"),
        (lambda: Limits(megabytes=float("nan")), LimitsError, r"limits\.megabytes must be above 0"),
        (lambda: Limits(n_params=True), LimitsError, r"limits\.n_params must be above 0"),
        (lambda: Target(device="tpu"), TargetError, r"target\.device must be .* not 'tpu'"),
        (lambda: Target(device="cuda:x"), TargetError, r"target\.device must be .* not 'cuda:x'"),
        (lambda: Target(batch_size=0), TargetError, r"target\.batch_size must be a whole number of at least 1, not 0"),
        (lambda: Target(n_threads=0), TargetError, r"target\.n_threads must be a whole number of at least 1, not 0"),
        (lambda: Target(precision=NO_PRECISION), TargetError, r"target\.precision must be .* not 'int8'"),
    ],
)
def test_wrong_records_cannot_exist(make: Any, error: type[AutobackboneError], message: str):
    with pytest.raises(error, match=message):
        make()


sides = st.integers(8, 4096)


@given(st.lists(sides | st.tuples(sides, sides), min_size=1, max_size=8))
def test_image_sizes_are_pairs_without_repeats_in_their_order(sizes):
    found = as_image_sizes(sizes)
    pairs = [(size, size) if isinstance(size, int) else size for size in sizes]
    assert found is not None
    assert list(found) == sorted(set(pairs), key=pairs.index)
    assert as_image_sizes(found) == found


def test_one_size_is_a_list_of_one_and_none_is_left_open():
    assert as_image_sizes(128) == ((128, 128),)
    assert as_image_sizes(None) is None


@pytest.mark.parametrize("sizes", [[], "128", 0.5, {128}])
def test_what_is_no_list_of_sizes_is_named(sizes):
    with pytest.raises(DataError, match="image_sizes is a list such as"):
        as_image_sizes(sizes)


@pytest.mark.parametrize("sizes", [[7], [4097], [(1, 2, 3)], [(128, 7)], [128.0], [None], 4])
def test_sizes_out_of_range_are_named(sizes):
    with pytest.raises(DataError, match=r"each from 8 to 4096; .* came"):
        as_image_sizes(sizes)


def test_records_are_frozen_and_closed():
    candidate = Candidate(backbone="a.b", image_size=(96, 96), n_unfrozen=3, lr=3e-4)
    with pytest.raises(FrozenInstanceError, match="cannot assign to field 'lr'"):
        candidate.lr = 1e-4  # type: ignore[misc]
    assert not hasattr(candidate, "__dict__")
    assert replace(candidate, lr=1e-4).lr == 1e-4

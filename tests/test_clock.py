import time

import pytest

from autobackbone.clock import Clock
from autobackbone.records import Budget


def test_what_earlier_sittings_used_of_this_budget_is_gone():
    clock = Clock(budget=Budget(wall_clock_s=100), begun=time.monotonic(), used_before_s=70, settled_s=30)
    assert clock.left_s() == pytest.approx(60, abs=1)
    assert clock.run_s() == pytest.approx(70, abs=1)


def test_without_a_limit_of_time_none_is_used_up():
    clock = Clock(budget=Budget(n_trials=3), begun=time.monotonic())
    assert clock.until is None
    assert clock.left_s() == float("inf")


def test_time_that_is_over_is_none_left():
    assert Clock(budget=Budget(wall_clock_s=1), begun=time.monotonic() - 5).left_s() == 0.0

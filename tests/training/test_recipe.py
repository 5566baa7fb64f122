from hypothesis import given
from hypothesis import strategies as st

from autobackbone.training.recipe import Recipe, lr_factor


@given(st.integers(1, 2000), st.floats(0.01, 0.4), st.floats(0.05, 0.5))
def test_the_rate_rises_stays_and_falls_and_is_never_over_its_peak(n_steps, warmup_epochs, decay_share):
    recipe = Recipe(lr=1e-3, n_epochs=1, warmup_epochs=warmup_epochs, decay_share=decay_share)
    factors = [lr_factor(step, n_steps, recipe) for step in range(n_steps)]
    assert all(0 < factor <= 1 for factor in factors)
    peak = factors.index(max(factors))
    assert factors[: peak + 1] == sorted(factors[: peak + 1])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)


def test_the_middle_is_constant():
    recipe = Recipe(lr=1e-3, n_epochs=1, warmup_epochs=0.1, decay_share=0.3)
    assert {lr_factor(step, 100, recipe) for step in range(10, 70)} == {1.0}
    assert lr_factor(99, 100, recipe) < 0.05


def test_early_rungs_are_the_same_however_long_the_training_and_a_pause_does_not_decay():
    short, long = (Recipe(lr=1e-3, n_epochs=n_epochs) for n_epochs in (3, 12))
    assert [lr_factor(step, 20, short) for step in range(40)] == [lr_factor(step, 20, long) for step in range(40)]
    paused = [lr_factor(step, 20, short, is_decaying=False) for step in range(60)]
    assert paused[:40] == [lr_factor(step, 20, short) for step in range(40)]
    assert set(paused[40:]) == {1.0}

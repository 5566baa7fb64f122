from hypothesis import given
from hypothesis import strategies as st

from autobackbone.training.recipe import Recipe, lr_factor


@given(st.integers(1, 2000), st.floats(0.01, 0.4), st.floats(0.05, 0.5))
def test_the_rate_rises_stays_and_falls_and_is_never_over_its_peak(n_steps, warmup_share, decay_share):
    recipe = Recipe(lr=1e-3, n_epochs=1, warmup_share=warmup_share, decay_share=decay_share)
    factors = [lr_factor(step, n_steps, recipe) for step in range(n_steps)]
    assert all(0 < factor <= 1 for factor in factors)
    peak = factors.index(max(factors))
    assert factors[: peak + 1] == sorted(factors[: peak + 1])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)


def test_the_middle_is_constant():
    recipe = Recipe(lr=1e-3, n_epochs=1, warmup_share=0.1, decay_share=0.3)
    assert {lr_factor(step, 100, recipe) for step in range(10, 70)} == {1.0}
    assert lr_factor(99, 100, recipe) < 0.05

"""Suggestions that can be carried out: a sampler's own, drawn again until one is allowed, else what is like it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

Suggestion = Mapping[str, Any]

# Where one suggestion in ten is allowed, ninety-six of a hundred asks find one.
_MAX_DRAWS = 32


class AllowedSampler(BaseSampler):
    """Wraps a sampler and rejects what cannot be tried: what is asked follows its model, given that it can be.

    Args:
        base: the sampler that draws.
        distributions: the whole search space.
        is_allowed: told a whole suggestion.
        fallback: told the last suggestion where none of some draws is allowed; gives one that is, or `None` if there is
            none, and then the last one passes.
    """

    def __init__(
        self,
        base: BaseSampler,
        distributions: Mapping[str, BaseDistribution],
        is_allowed: Callable[[Suggestion], bool],
        fallback: Callable[[Suggestion], Suggestion | None],
    ) -> None:
        self._base = base
        self._distributions = dict(distributions)
        self._is_allowed = is_allowed
        self._fallback = fallback

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """All of it: every parameter is drawn before any is suggested."""
        own = self._base.infer_relative_search_space(study, trial)
        return {**self._distributions, **own}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """A whole suggestion, allowed if any is."""
        suggestion: dict[str, Any] = {}
        for _ in range(_MAX_DRAWS):
            suggestion = self._draw(study, trial, search_space)
            if self._is_allowed(suggestion):
                return suggestion
        return dict(self._fallback(suggestion) or suggestion)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """As the base does."""
        return self._base.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """As the base does."""
        self._base.before_trial(study, trial)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """As the base does."""
        self._base.after_trial(study, trial, state, values)

    def reseed_rng(self) -> None:
        """As the base does."""
        self._base.reseed_rng()

    def _draw(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        own = self._base.infer_relative_search_space(study, trial)
        # A density over a single value is no number.
        fixed = {name: _only(space) for name, space in search_space.items() if space.single()}
        own = {name: space for name, space in own.items() if name not in fixed}
        drawn = self._base.sample_relative(study, trial, own)
        # A sampler that still gathers its first trials draws nothing jointly.
        missing = {name: space for name, space in search_space.items() if name not in drawn and name not in fixed}
        return (
            drawn
            | fixed
            | {name: self.sample_independent(study, trial, name, space) for name, space in missing.items()}
        )


def _only(space: BaseDistribution) -> Any:
    return space.choices[0] if isinstance(space, CategoricalDistribution) else space.low  # type: ignore[attr-defined]

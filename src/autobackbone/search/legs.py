"""Which paused trial goes on next, and how far: by expected growth of the front per second, inside the time."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from autobackbone.choosing import scored_share
from autobackbone.records import Candidate, Trial
from autobackbone.search.rungs import Curve, Standing, promoted, rungs


class Seconds(Protocol):
    """As an evaluator expects them."""

    def __call__(self, candidate: Candidate, *, n_before: int = 0, n_epochs: int | None = None) -> float:
        """Seconds from one epoch to another; `None` is the shortest useful end."""


class Epochs(Protocol):
    """As an evaluator knows them."""

    def __call__(self, candidate: Candidate) -> int:
        """How long a candidate trains if there is time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NextLeg:
    """Whose leg is trained next, and how far it goes: a decision, which training turns into a leg with a checkpoint.

    Args:
        number: of the trial.
        n_before: epochs that it has been trained already.
        pause_at: the epoch after which it pauses; `None` trains it to its end.
    """

    number: int
    n_before: int
    pause_at: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What is known at the moment of a decision.

    Args:
        curves: of all trials with a score.
        paused: what waits at a rung, by number.
        n_epochs: how long a candidate trains if there is time.
        expected_s: seconds of a part of it.
        left_s: seconds that are left; infinite without a limit of time.
    """

    curves: Sequence[Curve]
    paused: Mapping[int, Candidate]
    n_epochs: Epochs
    expected_s: Seconds
    left_s: float
    standing: Standing = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "standing", Standing(self.curves))


def next_leg(view: View, *, can_ask: bool) -> NextLeg | None:
    """What goes on next; `None` if something new is tried first, or nothing that pauses can or should go on.

    The best half of each rung goes on at once. Where nothing new can be asked, halves are rounded up, and with a limit
    of time whatever is left of it goes to the others, too. And a good trial must not wait until it is too late for it:
    it goes on when one more new trial would leave less time than the rest of its training takes. Who goes to its end
    with a limit of time takes what others would need: it is the one whose end enlarges the front most, whatever its
    rung and however long it takes.

    Args:
        view: of the moment.
        can_ask: whether a new trial could be begun.
    """
    hopeful = [number for number in view.paused if _fits(view, number)]
    chosen: Collection[int] = promoted(view.standing, hopeful, is_last_call=not can_ask)
    is_timed = view.left_s < float("inf")
    is_late = is_timed and (not can_ask or _is_late(view, hopeful))
    number = _most_gainful(view, chosen or (hopeful if is_late else ()))
    if number is None:
        return None
    leg = _leg(view, number)
    if not is_timed or leg.pause_at is not None:
        return leg
    best = _best_end(view, hopeful)
    assert best is not None  # the number is one of them
    return _leg(view, best)


def rung_leg(view: View) -> NextLeg | None:
    """What goes on to its next rung while new trials have to wait: of the best half of a rung, rounded up, the one that
    gains most; `None` if nothing pauses before a higher rung.
    """
    hopeful = [number for number in view.paused if _fits(view, number) and _higher_rungs(view, number)]
    number = _most_gainful(view, promoted(view.standing, hopeful, is_last_call=True))
    if number is None:
        return None
    return NextLeg(number=number, n_before=_curve(view, number).n_epochs, pause_at=_higher_rungs(view, number)[0])


def seconds_to_end(view: View) -> float:
    """Seconds that the best of those that pause and can end in time needs to its end; 0 if there is none."""
    number = _best_end(view, [number for number in view.paused if _fits(view, number)])
    return 0.0 if number is None else _whole_s(view, number)


def candidate_of(trial: Trial) -> Candidate:
    """What was tried."""
    return Candidate(**trial.body._asdict(), n_unfrozen=trial.n_unfrozen, lr=trial.lr, extras=dict(trial.extras))


def curve_of(trial: Trial, sign: float) -> Curve:
    """A trial with a score, as rungs compare it; `sign` turns its score so that more is better."""
    assert trial.latency_ms is not None
    assert trial.score is not None
    return Curve(
        number=trial.number,
        latency_ms=trial.latency_ms,
        noise_ms=trial.latency_noise_ms or 0.0,
        scores=tuple(sign * score for score in trial.rung_scores or (trial.score,)),
        n_epochs=len(trial.rung_scores),
        has_ended=trial.state == "finished",
    )


def curves_of(trials: Sequence[Trial], sign: float) -> list[Curve]:
    """Those of all trials with a score; one on a part of the validation pictures only while there is no other."""
    scored = [trial for trial in trials if trial.score is not None]
    most = max(map(scored_share, scored), default=1.0)
    return [curve_of(trial, sign) for trial in scored if scored_share(trial) == most]


def _curve(view: View, number: int) -> Curve:
    return view.standing.by_number[number]


def _higher_rungs(view: View, number: int) -> list[int]:
    n_before = _curve(view, number).n_epochs
    return [rung for rung in rungs(view.n_epochs(view.paused[number])) if rung > n_before]


def _fits(view: View, number: int) -> bool:
    """Whether its shortest useful end does."""
    expected_s = view.expected_s(view.paused[number], n_before=_curve(view, number).n_epochs)
    return math.isfinite(expected_s) and expected_s <= view.left_s


def _whole_s(view: View, number: int) -> float:
    candidate = view.paused[number]
    return view.expected_s(candidate, n_before=_curve(view, number).n_epochs, n_epochs=view.n_epochs(candidate))


def _half_s(view: View, number: int, n_before: int) -> float:
    """Seconds until half of its training is done, since most of what it gains, it gains by then; and at least what its
    shortest useful end takes.
    """
    candidate = view.paused[number]
    half = max((view.n_epochs(candidate) + 1) // 2, n_before + 1)
    half_s = view.expected_s(candidate, n_before=n_before, n_epochs=half)
    return max(half_s, view.expected_s(candidate, n_before=n_before))


def _new_s(view: View, number: int) -> float:
    """Seconds of one more trial to its first rung, if it is like this one."""
    candidate = view.paused[number]
    return view.expected_s(candidate, n_epochs=rungs(view.n_epochs(candidate))[0])


def _is_late(view: View, hopeful: Collection[int]) -> bool:
    """Whether one more new trial would leave too little time for the best one that waits to end."""
    number = _best_end(view, hopeful)
    if number is None:
        return False
    return view.left_s - _new_s(view, number) < _whole_s(view, number)


def _most_gainful(view: View, numbers: Collection[int]) -> int | None:
    """By growth of the front per second; of equals the best score, and of those the first."""

    def gain(number: int) -> tuple[float, float, int]:
        curve = _curve(view, number)
        seconds = max(1e-3, _whole_s(view, number))
        return view.standing.growth(curve) / seconds, curve.best(), -number

    return max(numbers, key=gain, default=None)


def _best_end(view: View, numbers: Collection[int]) -> int | None:
    """By growth of the front at its end, if all that is left of the time is used for it; where that is too short, by as
    much of it as fits.
    """

    def gain(number: int) -> tuple[float, float, int]:
        curve = _curve(view, number)
        share = min(1.0, view.left_s / max(1e-3, _whole_s(view, number)))
        return view.standing.growth(curve) * share, curve.best(), -number

    return max(numbers, key=gain, default=None)


def _leg(view: View, number: int) -> NextLeg:
    """To the next rung, unless the time left then would be too short to use what it says."""
    candidate, n_before = view.paused[number], _curve(view, number).n_epochs
    higher = _higher_rungs(view, number)
    if higher:
        left_s = view.left_s - view.expected_s(candidate, n_before=n_before, n_epochs=higher[0])
        if left_s - _new_s(view, number) >= _half_s(view, number, higher[0]):
            return NextLeg(number=number, n_before=n_before, pause_at=higher[0])
    return NextLeg(number=number, n_before=n_before, pause_at=None)

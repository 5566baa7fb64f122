"""The search loop with several trainings side by side, in threads that sleep as long as it is said that they train."""

import math
import threading
import time
from collections import Counter
from dataclasses import dataclass, field, replace

import pytest
from sqlalchemy import event

from autobackbone.errors import EpochTooLongError, TrialError
from autobackbone.records import Candidate
from autobackbone.search.climb import climb
from autobackbone.search.space import Space
from autobackbone.search.steps import Flight, Search, begin_asked, land, view, without_hopeless
from autobackbone.search.study import add_screened, adopt_abandoned, open_study, read_trials
from autobackbone.testing import LookedUp, SleepingEvaluator, TableEvaluator

SIZE, BLOCKS, LATENCY = (32, 32), {"small": 4, "large": 6}, {"small": 2.0, "large": 9.0}
SPACE = Space(image_sizes=dict.fromkeys(BLOCKS, (SIZE,)), n_blocks=BLOCKS)


def score(candidate):
    return 0.8 + 0.01 * candidate.n_unfrozen - 0.05 * abs(math.log10(candidate.lr / 1e-3))


def curve(candidate):
    return [score(candidate) - 0.1 / epoch for epoch in range(1, 5)]


@dataclass
class Watched:
    """A sleeping evaluator that notes what trains beside what, and who is priced meanwhile.

    Args:
        inner: that trains.
        error: what a training raises, if it is told a leg for which it gives one.
        unpriced: backbones whose latency would have to be measured.
        gate: that the first trainings pass together alone.
    """

    inner: SleepingEvaluator
    error: object = lambda _number, _n_before: None
    unpriced: tuple[str, ...] = ()
    gate: threading.Barrier | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)
    now: list[int] = field(default_factory=list)
    most: int = 0
    legs: list[tuple[int, int, int | None]] = field(default_factory=list)
    priced_beside: list[tuple[str, int]] = field(default_factory=list)
    is_given_up: bool = False

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def begin(self, candidate):
        self.priced_beside.append((candidate.backbone, len(self.now)))
        return self.inner.begin(candidate)

    def is_priced(self, candidate):
        return candidate.backbone not in self.unpriced

    def give_up(self):
        self.is_given_up = True
        self.inner.give_up()

    def ready(self, number, candidate, until, *, n_before=0, pause_at=None):
        found = self.inner.ready(number, candidate, until, n_before=n_before, pause_at=pause_at)

        def train():
            with self.lock:
                assert number not in self.now, "one trial trains twice at once"
                self.now.append(number)
                self.most = max(self.most, len(self.now))
                self.legs.append((number, n_before, pause_at))
                is_gated = self.gate is not None and len(self.legs) <= self.gate.parties
            if is_gated:
                self.gate.wait(60)
            try:
                trial = found.train()
                error = self.error(number, n_before)
                if error is not None:
                    raise error
                return trial
            finally:
                with self.lock:
                    self.now.remove(number)

        return LookedUp(train)


@pytest.fixture
def make_search(tmp_path):
    def make(*, n_at_once=3, n_trials=8, seconds=lambda _: 0.2, name="study", **watched):
        study = open_study(tmp_path / f"{name}.db", is_higher_better=True, metric_name="accuracy", seed=0)
        table = TableEvaluator(latency_ms=LATENCY, n_blocks=BLOCKS, score=score, curve=curve, seconds=seconds)
        if not read_trials(study):
            for backbone, value in (("small", 0.7), ("large", 0.75)):
                known = table.begin(Candidate(backbone=backbone, image_size=SIZE, n_unfrozen=0))
                add_screened(study, SPACE, replace(known, state="finished", score=value))
        return Search(
            study=study,
            space=SPACE,
            evaluator=Watched(SleepingEvaluator(table), **watched),
            left_s=lambda: math.inf,
            now_s=lambda: 1.0,
            is_higher_better=True,
            n_trials=n_trials,
            n_at_once=lambda: n_at_once,
        )

    return make


def tuned_of(search):
    return [trial for trial in read_trials(search.study) if trial.n_unfrozen]


def test_as_many_train_side_by_side_as_may_and_one_thread_talks_to_the_study(make_search):
    search, talked = make_search(gate=threading.Barrier(3)), set()
    engine = search.study._storage._backend.engine
    event.listen(engine, "before_cursor_execute", lambda *_: talked.add(threading.current_thread()))
    assert climb(search) == 8
    assert search.evaluator.most == 3
    assert talked == {threading.main_thread()}
    assert len(tuned_of(search)) == 8
    # Each trial goes on from where it stood, and no part of it is trained twice.
    by_number = {}
    for number, n_before, pause_at in search.evaluator.legs:
        assert n_before == by_number.get(number, 0)
        by_number[number] = pause_at
    assert max(Counter((number, n_before) for number, n_before, _ in search.evaluator.legs).values()) == 1
    assert {trial.state for trial in tuned_of(search)} <= {"finished", "running", "stopped"}
    assert any(trial.state == "finished" and trial.n_epochs == 4 for trial in tuned_of(search))
    # The threads have ended with the search.
    assert not [one for one in threading.enumerate() if one.name.startswith("training")]


def test_one_at_a_time_trains_in_the_thread_of_the_search(make_search):
    search, threads = make_search(n_at_once=1, n_trials=2), set()
    error = lambda *_: threads.add(threading.current_thread())  # noqa: E731
    search.evaluator.error = error
    climb(search)
    assert threads == {threading.main_thread()}
    assert search.evaluator.most == 1


def test_no_latency_is_measured_beside_a_training(make_search):
    search = make_search(unpriced=("large",), n_trials=5, seconds=lambda _: 4.0)
    assert climb(search) == 5
    beside = [n for backbone, n in search.evaluator.priced_beside if backbone == "large"]
    assert set(beside) == {0}
    assert any(n > 0 for backbone, n in search.evaluator.priced_beside if backbone == "small")


def test_a_training_that_fails_costs_its_trial_alone(make_search):
    died = TrialError("its worker process was killed by signal 9 (SIGKILL)")
    search = make_search(error=lambda number, _: died if number == 3 else None)
    assert climb(search) == 8
    trials = tuned_of(search)
    assert [(trial.number, trial.reason) for trial in trials if trial.state == "failed"] == [(3, str(died))]
    assert sum(bool(trial.rung_scores) for trial in trials) == 7


def test_what_nobody_had_the_time_for_is_no_trial_that_was_granted(make_search):
    slow = EpochTooLongError("one epoch takes 9.0 s, and 1.0 s were left", 9.0)
    search = make_search(n_trials=4, error=lambda number, _: slow if number == 3 else None)
    assert climb(search) == 4
    assert [trial.number for trial in tuned_of(search) if trial.state == "stopped" and not trial.rung_scores] == [3]
    assert sum(bool(trial.rung_scores) for trial in tuned_of(search)) == 4


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_what_ends_the_search_gives_up_all_trainings_and_another_sitting_goes_on(make_search, error):
    """As Ctrl-C in the main thread does, or a bug."""

    def end(trial):
        raise error("in the midst of it")

    search = make_search(seconds=lambda one: 0.2 if one.backbone == "small" else 1000.0)
    with pytest.raises(error, match="in the midst of it"):
        climb(replace(search, on_trial=end))
    assert search.evaluator.is_given_up
    assert search.evaluator.now == []
    left = tuned_of(search)
    assert {trial.state for trial in left} == {"running"}
    assert len(left) >= 3
    paused = {trial.number for trial in left if trial.is_paused}
    assert paused
    assert adopt_abandoned(search.study, lambda number: number in paused) == len(left) - len(paused)
    again = make_search(n_at_once=2, n_trials=3)
    assert climb(again) == 3
    trials = read_trials(again.study)
    assert len(tuned_of(again)) == len(left) + 3
    for number in paused:
        assert trials[number].rung_scores[:1] == left[number - 2].rung_scores


def test_what_is_in_flight_neither_goes_on_nor_is_stopped_as_hopeless(make_search):
    search = make_search(n_at_once=1, n_trials=6, seconds=lambda _: 0.0)
    climb(search)
    # Far below all that ended, by more than any of them has gained.
    worst = replace(search.evaluator.inner.table, curve=lambda _: [0.1, 0.1, 0.1, 0.1])
    search = replace(search, evaluator=SleepingEvaluator(worst))
    flight = begin_asked(search, search.study.ask(SPACE.distributions()))
    assert isinstance(flight, Flight)
    number = flight.known.number
    assert land(search, flight, flight.training.train) == "running"
    trials = without_hopeless(search, {number})
    assert trials[number].is_paused
    assert number in view(search, trials).paused
    assert number not in view(search, trials, {number}).paused
    assert number in {curve.number for curve in view(search, trials, {number}).curves}
    assert without_hopeless(search)[number].state == "stopped"


def test_a_search_side_by_side_ends_early_too(make_search):
    lines = []
    search = make_search(n_trials=60, seconds=lambda _: 0.0)
    flat = replace(search.evaluator.inner.table, curve=None, score=lambda _: 0.9)
    search = replace(search, evaluator=SleepingEvaluator(flat), stop_early=True, say=lines.append)
    assert climb(search) < 60
    assert "no more are begun" in lines[0]
    assert not [trial for trial in tuned_of(search) if trial.state == "running"]


@pytest.mark.slow
def test_the_end_of_the_time_is_waited_for(make_search):
    search = make_search(n_trials=None, seconds=lambda _: 1.0, gate=threading.Barrier(3))
    until = time.monotonic() + 4.0
    climb(replace(search, left_s=lambda: max(0.0, until - time.monotonic())))
    assert search.evaluator.now == []
    assert search.evaluator.most == 3
    assert sum(bool(trial.rung_scores) for trial in tuned_of(search)) >= 3
    assert not [trial for trial in tuned_of(search) if trial.state == "running" and not trial.is_paused]
    assert time.monotonic() < until + 1.0 + 5.0  # of a leg that began at the last moment; and a busy machine

"""A process that dies between any two writes to the study: who goes on loses nothing and repeats nothing."""

from __future__ import annotations

import math
import shutil
from collections import Counter
from dataclasses import replace

import pytest
from sqlalchemy import event

from autobackbone.errors import RunError
from autobackbone.records import Candidate
from autobackbone.search.climb import climb
from autobackbone.search.openings import openings, untried
from autobackbone.search.space import Space
from autobackbone.search.steps import Search
from autobackbone.search.study import add_screened, adopt_abandoned, n_tuned, open_study, read_trials, record
from autobackbone.testing import TableEvaluator

SIZE, BLOCKS, LATENCY = (32, 32), {"small": 4, "large": 6}, {"small": 2.0, "large": 9.0}
SPACE = Space(image_sizes=dict.fromkeys(BLOCKS, (SIZE,)), n_blocks=BLOCKS)
N_TRIALS = 3


class DeadError(BaseException):
    """Like a kill: nothing holds it up."""


def score(candidate):
    return 0.8 + 0.01 * candidate.n_unfrozen - 0.05 * abs(math.log10(candidate.lr / 1e-3))


def curve(candidate):
    return [score(candidate) - 0.1 / epoch for epoch in range(1, 5)]


TABLE = TableEvaluator(latency_ms=LATENCY, n_blocks=BLOCKS, score=score, curve=curve)


def opened(file):
    return open_study(file, is_higher_better=True, metric_name="accuracy", seed=0)


@pytest.fixture(scope="module")
def screened(tmp_path_factory):
    """A study in which two networks are screened."""
    file = tmp_path_factory.mktemp("screened") / "study.db"
    study = opened(file)
    for name, value in (("small", 0.7), ("large", 0.75)):
        known = TABLE.begin(Candidate(backbone=name, image_size=SIZE, n_unfrozen=0))
        add_screened(study, SPACE, replace(known, state="finished", score=value))
    study._storage._backend.engine.dispose()
    return file


def sit(study, n_trials):
    """One sitting, as a run has it: what it finds is adopted first."""
    waiting = {trial.number for trial in read_trials(study) if trial.is_paused}
    adopt_abandoned(study, lambda number: number in waiting)
    search = Search(
        study=study,
        space=SPACE,
        evaluator=TABLE,
        left_s=lambda: math.inf,
        now_s=lambda: 1.0,
        is_higher_better=True,
        n_trials=n_trials - n_tuned(study),
    )
    climb(search)
    return search


def dies_at(study, n):
    """Have the nth write from now on be the first that is not kept."""
    seen, engine = Counter(), study._storage._backend.engine

    def notice(connection, cursor, statement, *_):
        seen["pending"] += not statement.startswith("SELECT")

    def die(_):
        seen["writes"] += seen["pending"] > 0
        seen["pending"] = 0
        if seen["writes"] == n:
            raise DeadError

    event.listen(engine, "before_cursor_execute", notice)
    event.listen(engine, "commit", die)


def sit_until_it_dies(file, n):
    """Whether it did, before it ended."""
    study = opened(file)
    dies_at(study, n)
    try:
        sit(study, N_TRIALS)
    except DeadError:
        return True
    finally:
        study._storage._backend.engine.dispose()
    return False


def require_nothing_lost(screened, file, n):
    """Die at the nth write, go on, and look at what came out; whether there was such a write."""
    shutil.copy(screened, file)
    if not sit_until_it_dies(file, n):
        return False
    study = opened(file)
    before = read_trials(study)
    search = sit(study, N_TRIALS)
    after = read_trials(study)
    for one, other in zip(before, after, strict=False):
        if one.state in ("finished", "stopped", "failed"):
            assert other == one
        if one.rung_scores:
            assert other.state != "failed"
            assert other.rung_scores[: len(one.rung_scores)] == one.rung_scores
    assert n_tuned(study) == N_TRIALS
    assert "waiting" not in {trial.state for trial in after}
    assert all(trial.is_paused for trial in after if trial.state == "running")
    tried = Counter((trial.body, trial.n_unfrozen, trial.lr) for trial in after if trial.state != "failed")
    assert max(tried.values()) == 1
    # What the sampler is asked for comes after all that is usually tried first.
    wanted = openings(after, search)[:N_TRIALS]
    assert not list(untried(wanted, [trial for trial in after if trial.state != "failed"]))
    study._storage._backend.engine.dispose()
    return True


def test_a_death_between_two_writes_loses_nothing(screened, tmp_path):
    assert all(require_nothing_lost(screened, tmp_path / f"{n}.db", n) for n in (2, 9, 17, 25))


@pytest.mark.slow
def test_a_death_between_any_two_writes_loses_nothing(screened, tmp_path):
    n = 1
    while require_nothing_lost(screened, tmp_path / f"{n}.db", n):
        n += 1
    assert n > 25


def begun(study, **changes):
    """A trial that was asked and noted, as one that trains."""
    search_space = SPACE.distributions()
    asked = study.ask(search_space)
    known = TABLE.begin(SPACE.candidate(asked.params))
    return replace(known, number=asked.number, **changes)


@pytest.mark.parametrize("ending", ["finished", "stopped", "failed"])
def test_an_ending_that_was_noted_is_the_ending(screened, tmp_path, ending):
    """Also of a trial that could go on from an older checkpoint: it would train again what it has trained."""
    shutil.copy(screened, tmp_path / "study.db")
    study = opened(tmp_path / "study.db")
    noted = begun(study, score=0.9, reason="a reason", rung_scores=(0.8, 0.9), finished_at_s=3.0)
    record(study, noted, ending=ending)
    assert adopt_abandoned(study, lambda _: True) == 0
    trial = read_trials(study)[-1]
    assert (trial.state, trial.score, trial.reason) == (ending, 0.9, "a reason")
    assert study.get_trials()[-1].values == ([0.9, noted.latency_ms] if ending == "finished" else None)


def test_an_ending_that_is_none_of_ours_is_told(screened, tmp_path):
    shutil.copy(screened, tmp_path / "study.db")
    study = opened(tmp_path / "study.db")
    noted = begun(study)
    record(study, replace(noted, score="high"), ending="finished")
    with pytest.raises(RunError, match=r"is damaged: .*high"):
        adopt_abandoned(study)


def test_an_opening_that_two_processes_died_over_is_left(screened, tmp_path):
    shutil.copy(screened, tmp_path / "study.db")
    study = opened(tmp_path / "study.db")
    search = sit(study, 0)
    (first, second, *_) = openings(read_trials(study), search)
    for n in (1, 2):
        study.enqueue_trial(SPACE.suggestion(first))
        record(study, begun(study))
        assert adopt_abandoned(study) == 1
        left = list(untried([first, second], read_trials(study)))
        assert left == ([first, second] if n == 1 else [second])

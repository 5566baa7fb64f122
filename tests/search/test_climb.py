import itertools
import math
import re
import time
from dataclasses import replace

import optuna
import pytest

from autobackbone.errors import EpochTooLongError, RunError, TrialError, TrialMemoryError
from autobackbone.records import Candidate, Limits, Trial
from autobackbone.search.climb import climb
from autobackbone.search.early import climb_early
from autobackbone.search.legs import candidate_of
from autobackbone.search.openings import openings, untried
from autobackbone.search.space import Space
from autobackbone.search.steps import Search, try_asked
from autobackbone.search.study import (
    Ledger,
    add_screened,
    adopt_abandoned,
    begin_sitting,
    end_sitting,
    load_study,
    open_study,
    read_trials,
)
from autobackbone.testing import TableEvaluator

SIZES = {"small": ((96, 96), (160, 160)), "large": ((160, 160), (224, 224))}
BLOCKS = {"small": 8, "large": 5}
LATENCY = {"small": 2.0, "large": 9.0}


def score(candidate):
    """Best at lr 1e-3; deeper is better; the large one a little better."""
    off = abs(math.log10(candidate.lr / 1e-3))
    return 0.8 + 0.02 * (candidate.backbone == "large") + 0.01 * candidate.n_unfrozen - 0.05 * off


@pytest.fixture
def make_search(tmp_path):
    def make(
        *, evaluate=score, seconds=lambda _: 0.0, left_s=lambda: math.inf, n_trials=6, seed=0, name="study", sign=1
    ):
        file = tmp_path / f"{name}.db"
        study = open_study(file, is_higher_better=sign > 0, metric_name="accuracy", seed=seed)
        space = Space(image_sizes=SIZES, n_blocks=BLOCKS)
        table = TableEvaluator(latency_ms=LATENCY, n_blocks=BLOCKS, score=evaluate, seconds=seconds)
        if not read_trials(study):
            for backbone, size, value in (
                ("large", (160, 160), 0.80),
                ("small", (96, 96), 0.7),
                ("small", (160, 160), 0.75),
            ):
                frozen = Candidate(backbone=backbone, image_size=size, n_unfrozen=0)
                known = table.begin(frozen)
                add_screened(study, space, Trial(**{**_fields(known), "state": "finished", "score": sign * value}))
        began = time.monotonic()
        return Search(
            study=study,
            space=space,
            evaluator=table,
            left_s=left_s,
            now_s=lambda: time.monotonic() - began,
            is_higher_better=sign > 0,
            n_trials=n_trials,
        )

    return make


def _fields(trial):
    return {name: getattr(trial, name) for name in trial.__slots__}


def test_the_number_of_trials_is_kept_and_screened_ones_do_not_count(make_search):
    search = make_search(n_trials=6)
    assert climb(search) == 6
    trials = read_trials(search.study)
    assert [trial.state for trial in trials[:9]] == ["finished"] * 9
    assert [trial.n_unfrozen for trial in trials[:3]] == [0, 0, 0]
    assert all(trial.n_unfrozen >= 1 for trial in trials[3:])


def test_small_backbones_come_first_at_their_best_size(make_search):
    search = make_search(n_trials=2)
    opening = openings(read_trials(search.study), search)
    assert [(c.backbone, c.image_size) for c in opening[:2]] == [("small", (160, 160)), ("large", (160, 160))]
    climb(search)
    tuned = read_trials(search.study)[3:5]
    assert [trial.backbone for trial in tuned] == ["small", "large"]


def test_what_stands_in_the_study_is_what_was_tried(make_search):
    search = make_search(n_trials=5)
    climb(search)
    for stored, trial in zip(search.study.get_trials(), read_trials(search.study), strict=True):
        if trial.state == "finished":
            assert stored.values == [trial.score, trial.latency_ms]
            assert search.space.candidate(stored.params).backbone == trial.backbone
        if trial.n_unfrozen:
            assert trial.score == pytest.approx(score(search.space.candidate(stored.params)))


def test_the_same_seed_gives_the_same_trials(make_search):
    def tried(name, seed):
        search = make_search(n_trials=12, seed=seed, name=name)
        climb(search)
        return [(t.backbone, t.image_size, t.n_unfrozen, t.lr) for t in read_trials(search.study)]

    assert tried("one", 0) == tried("two", 0)
    assert tried("one", 0) != tried("three", 1)


def test_what_breaks_a_limit_stops_nothing_that_keeps_it(make_search):
    search = make_search(n_trials=1)
    trials = read_trials(search.study)
    fast, slow = sorted(trials, key=lambda one: one.latency_ms)[:: len(trials) - 1]
    assert search.rivals(trials) == trials
    kept = replace(search, limits=Limits(latency_ms=fast.latency_ms))
    assert slow not in kept.rivals(trials)
    assert fast in kept.rivals(trials)
    paused = replace(slow, state="running", rung_scores=(0.5,), score=0.5, n_epochs=1)
    assert paused in kept.rivals([fast, paused])
    assert replace(search, limits=Limits(latency_ms=1e-9)).rivals(trials) == trials


def test_a_failing_trial_is_recorded_with_its_reason_and_the_search_goes_on(make_search):
    search = make_search(evaluate=fails_when_large, n_trials=4)
    assert climb(search) == 4
    failed = [trial for trial in read_trials(search.study) if trial.state == "failed"]
    assert failed
    assert {trial.reason for trial in failed} == {"out of memory"}
    assert {trial.backbone for trial in failed} == {"large"}


def fails_when_large(candidate):
    if candidate.backbone == "large":
        raise TrialError("out of memory")
    return score(candidate)


def test_a_backbone_of_which_three_trainings_in_a_row_fail_leaves_the_search(make_search):
    lines = []
    search = replace(make_search(evaluate=fails_when_large, n_trials=20), say=lines.append)
    assert climb(search) == 20
    tuned = [trial for trial in read_trials(search.study) if trial.n_unfrozen]
    assert [trial.state for trial in tuned if trial.backbone == "large"] == ["failed"] * 3
    assert len(tuned) == 20
    (line,) = lines
    assert line == "left out from now on: large, 3 trainings of which failed in a row, the last since out of memory"
    # What is known of it in this sitting is known to a later part of the search, too.
    again = replace(make_search(evaluate=fails_when_large, n_trials=10), failures=search.failures)
    assert climb(again) == 10
    later = read_trials(again.study)[len(tuned) + 3 :]
    assert {trial.backbone for trial in later} == {"small"}


def test_where_all_backbones_have_left_the_search_ends(make_search):
    def fails(_):
        raise TrialError("its worker process was killed by signal 9")

    search = make_search(evaluate=fails, n_trials=20)
    assert climb(search) == 6
    assert not [trial for trial in read_trials(search.study) if trial.state == "running"]


def test_a_training_that_succeeds_or_is_merely_slow_makes_no_backbone_leave(make_search):
    ways = [TrialError("broken"), TrialError("broken"), EpochTooLongError("too slow", 9.0), None]
    ends = {name: itertools.cycle(ways) for name in SIZES}

    def now_and_then(candidate):
        error = next(ends[candidate.backbone])
        if error is not None:
            raise error
        return score(candidate)

    lines = []
    search = replace(make_search(evaluate=now_and_then, n_trials=12), say=lines.append)
    assert climb(search) == 12
    assert lines == []


def test_what_pauses_of_a_backbone_that_has_left_does_not_go_on(make_search):
    search = make_search(n_trials=6)
    search = replace(search, evaluator=replace(search.evaluator, curve=rising))
    for name in SIZES:
        asked = {"backbone": name, "size_share": 0.9, "depth_share": 0.5, "lr": 1e-3}
        search.study.enqueue_trial(asked)
        assert try_asked(search, search.study.ask(search.space.distributions())) == "running"
    for _ in range(3):
        search.failures.note("large", is_failed=True)
    climb(search)
    assert [t.n_epochs for t in read_trials(search.study) if t.n_unfrozen and t.backbone == "large"] == [1]


def test_a_bug_is_not_swallowed(make_search):
    def broken(_):
        raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError, match="a bug"):
        climb(make_search(evaluate=broken))


def test_nothing_is_begun_that_cannot_end_in_time(make_search):
    search = make_search(seconds=lambda c: 100.0 if c.backbone == "large" else 1.0, left_s=lambda: 50.0, n_trials=5)
    climb(search)
    tuned = [trial for trial in read_trials(search.study) if trial.n_unfrozen]
    assert {trial.backbone for trial in tuned if trial.state == "finished"} == {"small"}
    assert len(tuned) == 5  # what does not fit is drawn again, and leaves no trace


def test_openings_are_as_deep_as_the_time_allows(make_search):
    search = make_search(seconds=lambda c: 10.0 * c.n_unfrozen, left_s=lambda: 25.0, n_trials=2)
    climb(search)
    assert [trial.n_unfrozen for trial in read_trials(search.study)[3:5]] == [1, 1]


def test_the_search_ends_where_nothing_fits_any_more(make_search):
    search = make_search(seconds=lambda _: 100.0, left_s=lambda: 50.0, n_trials=None)
    assert climb(search) == 0
    assert len(read_trials(search.study)) == 3


def test_what_fits_at_one_rate_alone_is_found_too(make_search):
    def seconds(candidate):
        return 1.0 if candidate.n_unfrozen == 1 and candidate.lr == c_lr else 100.0

    search = make_search(seconds=seconds, left_s=lambda: 50.0, n_trials=3)
    assert climb(search) == 3
    tuned = [trial for trial in read_trials(search.study) if trial.n_unfrozen]
    assert {(trial.state, trial.n_unfrozen, trial.lr) for trial in tuned} == {("finished", 1, c_lr)}


c_lr = Space(image_sizes=SIZES, n_blocks=BLOCKS).typical_lr


def test_without_time_nothing_is_asked_and_nothing_waits(make_search):
    search = make_search(left_s=lambda: 0.0, n_trials=None)
    assert climb(search) == 0
    assert len(read_trials(search.study)) == 3


def test_the_joint_model_finds_the_better_rates(make_search):
    search = make_search(n_trials=60)
    climb(search)
    tuned = [trial for trial in read_trials(search.study) if trial.n_unfrozen and trial.state == "finished"]
    early, late = tuned[4:16], tuned[-20:]
    assert sum(t.score for t in late) / len(late) > sum(t.score for t in early) / len(early)


def test_trials_of_a_process_that_died_are_adopted(make_search, tmp_path):
    search = make_search(n_trials=1)
    climb(search)
    search.study.ask(search.space.distributions())
    assert adopt_abandoned(search.study) == 1
    assert adopt_abandoned(search.study) == 0
    (failed,) = [trial for trial in read_trials(search.study) if trial.state == "failed"]
    assert failed.reason == "interrupted before it ended"


def test_a_completed_budget_is_settled_and_a_broken_one_goes_on(make_search):
    study = make_search(n_trials=2).study
    first = begin_sitting(study)
    assert first == Ledger()
    climb(make_search(n_trials=2))
    study = make_search(n_trials=2).study  # whoever opens it writes alone, and has to see what others wrote before
    broken = begin_sitting(study)
    assert (broken.settled_s, broken.settled_trials) == (0.0, 0)
    assert broken.run_s > 0
    end_sitting(study, broken, 50.0, is_completed=True)
    second = begin_sitting(study)
    assert second == Ledger(run_s=50.0, settled_s=50.0, settled_trials=2)
    assert begin_sitting(study) == second  # a process that dies settles nothing more


def test_a_study_can_be_read_without_writing(make_search, tmp_path):
    search = make_search(n_trials=3)
    climb(search)
    file = tmp_path / "study.db"
    before = file.read_bytes()
    again = load_study(file)
    assert read_trials(again) == read_trials(search.study)
    with pytest.raises(RunError, match="is open for reading alone"):
        again.set_user_attr("x", 1)
    assert file.read_bytes() == before


def test_a_backbone_that_cannot_be_trained_is_never_tried_without_a_clock(make_search):
    search = make_search(seconds=lambda c: math.inf if c.backbone == "large" else 0.0, n_trials=20)
    assert climb(search) == 20
    tuned = [trial for trial in read_trials(search.study) if trial.n_unfrozen and trial.state == "finished"]
    assert {trial.backbone for trial in tuned} == {"small"}


def test_a_run_may_lie_under_any_name(tmp_path):
    folder = tmp_path / "try #2 100% ?"
    folder.mkdir()
    open_study(folder / "study.db", is_higher_better=True, metric_name="accuracy", seed=0)
    assert (folder / "study.db").is_file()
    assert load_study(folder / "study.db").trials == []


def test_a_second_sitting_draws_other_candidates_than_the_first(make_search):
    def tuned(study):
        return [trial.lr for trial in read_trials(study) if trial.n_unfrozen]

    first = make_search(n_trials=6)
    climb(first)
    second = make_search(n_trials=6)
    climb(second)
    lrs = tuned(second.study)
    assert len(set(lrs[4:6]) & set(lrs[6:])) == 0


def rising(candidate):
    """Ten epochs from two thirds of the final score to it."""
    return [score(candidate) * (2 + (epoch + 1) / 10) / 3 for epoch in range(10)]


def test_most_trials_stop_at_a_rung_and_the_best_go_to_their_end(make_search):
    search = make_search(n_trials=30)
    search = replace(search, evaluator=replace(search.evaluator, curve=rising))
    assert climb(search) == 30
    tuned = read_trials(search.study)[3:]
    lengths = [trial.n_epochs for trial in tuned]
    assert set(lengths) <= {1, 2, 4, 10}
    assert all((trial.n_epochs == 10) == (trial.state == "finished") for trial in tuned)
    assert 1 <= lengths.count(10) <= 8
    assert sum(lengths) < 0.6 * 10 * 30
    best = max(tuned, key=lambda trial: rising(candidate_of(trial))[-1])
    assert best.state == "finished"
    for stored, trial in zip(search.study.get_trials()[3:], tuned, strict=True):
        is_pruned = stored.state == optuna.trial.TrialState.PRUNED
        assert is_pruned == (trial.state == "stopped")
        assert trial.score == max(trial.rung_scores)
        assert (stored.values is None) == (trial.state != "finished")


def test_what_pauses_goes_on_in_a_later_sitting(make_search):
    def interrupt(_):
        raise KeyboardInterrupt

    first = make_search()
    with pytest.raises(KeyboardInterrupt):
        climb(replace(first, evaluator=replace(first.evaluator, curve=rising), on_trial=interrupt))
    paused = [trial for trial in read_trials(first.study) if trial.state == "running"]
    assert [trial.n_epochs for trial in paused] == [1]
    assert adopt_abandoned(first.study, lambda number: number == paused[0].number) == 0
    second = make_search(n_trials=4)
    climb(replace(second, evaluator=replace(second.evaluator, curve=rising)))
    trials = read_trials(second.study)
    assert len(trials) == 3 + 1 + 4
    assert trials[paused[0].number].rung_scores[:1] == paused[0].rung_scores
    assert adopt_abandoned(second.study) == sum(trial.state == "running" for trial in trials)


def test_a_trial_that_fails_on_its_way_keeps_what_it_had_reached(make_search):
    class Fails(TableEvaluator):
        def evaluate(self, number, candidate, until, *, n_before=0, pause_at=None):
            if n_before:
                raise TrialError("out of memory")
            return super().evaluate(number, candidate, until, n_before=n_before, pause_at=pause_at)

    search = make_search(n_trials=3)
    table = search.evaluator
    fails = Fails(latency_ms=LATENCY, n_blocks=BLOCKS, score=table.score, curve=rising)
    climb(replace(search, evaluator=fails))
    failed = [trial for trial in read_trials(search.study) if "out of memory" in trial.reason]
    assert failed
    assert {(trial.state, trial.n_epochs, trial.reason) for trial in failed} == {
        ("finished", 1, "ended after epoch 1: out of memory")
    }
    assert all(trial.score == trial.rung_scores[0] for trial in failed)


def steadily(candidate):
    """Ten epochs, most gained in the first."""
    return [score(candidate) * (1 - 0.1 / (1 + epoch)) for epoch in range(10)]


@pytest.fixture
def make_early(make_search):
    """A search whose clock moves by what its trials are expected to take."""

    def make(*, allowed_s, seconds=10.0, left_s=math.inf, n_trials=None, name="study"):
        search = make_search(seconds=lambda _: seconds, left_s=lambda: left_s, n_trials=n_trials, name=name)
        table = replace(search.evaluator, curve=steadily)
        clock = Clockwork(table)
        early = replace(search, evaluator=clock, now_s=lambda: clock.spent_s)
        climb_early(early, elsewhere_s=allowed_s)
        return early

    return make


class Clockwork:
    """A table whose trials take what they are expected to take, by a clock of its own."""

    def __init__(self, table):
        self.table = table
        self.spent_s = 0.0
        self.n_epochs, self.expected_s, self.begin = table.n_epochs, table.expected_s, table.begin

    def ready(self, number, candidate, until, *, n_before=0, pause_at=None):
        self.spent_s += self.expected_s(candidate, n_before=n_before, n_epochs=pause_at)
        return self.table.ready(number, candidate, until, n_before=n_before, pause_at=pause_at)


def tuned_of(search):
    return [trial for trial in read_trials(search.study) if trial.n_unfrozen > 0]


def test_early_each_backbone_is_begun_then_deeper_and_the_best_go_on_from_rung_to_rung(make_early):
    search = make_early(allowed_s=100.0)
    trials = tuned_of(search)
    assert [(trial.backbone, trial.n_unfrozen) for trial in trials[:2]] == [("small", 2), ("large", 1)]
    # Deeper ones only of what has shown two epochs.
    assert {(trial.backbone, trial.n_unfrozen) for trial in trials[2:]} <= {("small", 4), ("large", 2)}
    assert len(trials) > 2
    for deeper in trials[2:]:
        (shallower,) = (trial for trial in trials[:2] if trial.backbone == deeper.backbone)
        assert shallower.rung_at_s[1] <= deeper.rung_at_s[0]
    # Nothing is trained to its end, however long it may take.
    assert {trial.state for trial in trials} == {"running"}
    assert {trial.n_epochs for trial in trials} <= {1, 2, 4}
    assert max(trial.n_epochs for trial in trials) == 4


@pytest.mark.parametrize(("left_s", "spent_s"), [(39.0, 12.0), (41.0, 1.0)])
def test_where_few_trainings_fit_depth_comes_before_more_backbones(make_early, left_s, spent_s):
    # Half of the small network takes ten seconds: more than a quarter of 39, less than one of 41. Three tenths of the
    # whole budget are 12 s then; all else has taken one.
    search = make_early(allowed_s=1.0, left_s=left_s)
    assert search.evaluator.spent_s == pytest.approx(spent_s, abs=1.0)


def test_what_pauses_is_said_to_need_its_time(make_search):
    search = make_search(seconds=lambda _: 10.0, left_s=lambda: 100.0, n_trials=1)
    search = replace(search, evaluator=replace(search.evaluator, curve=steadily))
    assert climb_early(replace(search, n_trials=0), elsewhere_s=1.0) == 0.0
    reserve_s = climb_early(search, elsewhere_s=1.0)
    (begun,) = tuned_of(search)
    assert begun.state == "running"
    assert reserve_s == pytest.approx(10.0 - begun.n_epochs)


def test_early_takes_about_as_long_as_it_may(make_early):
    # An epoch takes a second: half of the next leg has to fit.
    assert [trial.n_epochs for trial in tuned_of(make_early(allowed_s=0.4, name="none"))] == []
    assert [trial.n_epochs for trial in tuned_of(make_early(allowed_s=0.6, name="one"))] == [1]
    assert [trial.n_epochs for trial in tuned_of(make_early(allowed_s=2.2, name="two"))] == [1, 1]


def test_early_nothing_is_begun_that_could_not_be_ended(make_early):
    assert tuned_of(make_early(allowed_s=100.0, left_s=5.0)) == []


def test_early_trials_count_among_those_that_may_begin(make_early):
    assert len(tuned_of(make_early(allowed_s=100.0, n_trials=1, name="one"))) == 1
    assert len(tuned_of(make_early(allowed_s=100.0, n_trials=0, name="none"))) == 0


def test_what_began_early_goes_on_and_is_not_begun_again(make_early):
    search = make_early(allowed_s=100.0)
    n_begun = len(tuned_of(search))
    climb(replace(search, n_trials=2))
    trials = tuned_of(search)
    assert len(trials) == n_begun + 2
    assert len({(t.backbone, t.image_size, t.n_unfrozen, t.lr) for t in trials}) == len(trials)
    # And each score says when it could be used.
    for trial in trials:
        assert len(trial.rung_at_s) == len(trial.rung_scores) == trial.n_epochs
        assert list(trial.rung_at_s) == sorted(trial.rung_at_s)
        assert trial.rung_at_s[-1] <= search.evaluator.spent_s


def test_what_became_too_long_while_it_was_asked_costs_no_price(make_search):
    left_s, priced = [100.0], []
    search = make_search(seconds=lambda _: 10.0, left_s=lambda: left_s[0])
    evaluator = Watched(search.evaluator, priced)
    search = replace(search, evaluator=evaluator)
    asked = search.study.ask(search.space.distributions())
    left_s[0] = 5.0
    assert try_asked(search, asked) == "stopped"
    trial = read_trials(search.study)[-1]
    assert (trial.state, trial.latency_ms, priced) == ("stopped", None, [])
    assert trial.reason.startswith("not begun")


def test_what_cannot_be_priced_is_a_failed_trial(make_search):
    search = make_search()
    search = replace(search, evaluator=Watched(search.evaluator, [], TrialMemoryError("out of memory")))
    assert try_asked(search, search.study.ask(search.space.distributions())) == "failed"
    assert read_trials(search.study)[-1].reason == "out of memory"


class Watched:
    """Notes what is priced, or refuses to."""

    def __init__(self, evaluator, priced, error=None):
        self.evaluator, self.priced, self.error = evaluator, priced, error

    def __getattr__(self, name):
        return getattr(self.evaluator, name)

    def begin(self, candidate):
        self.priced.append(candidate)
        if self.error is not None:
            raise self.error
        return self.evaluator.begin(candidate)


def test_an_opening_that_died_with_its_process_is_tried_again(make_early):
    search = make_early(allowed_s=0.0)
    (opening, *_) = untried(openings(read_trials(search.study), search), read_trials(search.study))
    search.study.enqueue_trial(search.space.suggestion(opening))
    search.study.ask(search.space.distributions())
    assert adopt_abandoned(search.study) == 1
    climb_early(search, elsewhere_s=100.0)
    begun = [trial for trial in read_trials(search.study) if trial.n_unfrozen > 0 and trial.rung_scores]
    assert (begun[0].backbone, begun[0].n_unfrozen, begun[0].lr) == (opening.backbone, opening.n_unfrozen, opening.lr)


def test_a_rate_that_is_fixed_is_drawn_as_it_is(make_search):
    search = make_search(n_trials=20)
    search = replace(search, space=replace(search.space, lr=1e-3))
    climb(search)
    assert {trial.lr for trial in read_trials(search.study) if trial.n_unfrozen > 0} == {1e-3}


def test_where_lower_is_better_the_same_trials_go_on(make_search):
    def turned(candidate):
        return [-value for value in rising(candidate)]

    found = []
    for sign, curve in ((1, rising), (-1, turned)):
        search = make_search(name=f"study{sign}", sign=sign, n_trials=12)
        climb(replace(search, evaluator=replace(search.evaluator, curve=curve, is_higher_better=sign > 0)))
        found.append([(candidate_of(t), t.state, t.n_epochs, sign * t.score) for t in read_trials(search.study)])
    assert found[0] == found[1]
    assert {n_epochs for _, _, n_epochs, _ in found[0]} >= {0, 1, 2, 10}


def test_a_search_ends_early_where_it_is_asked_to_and_says_so_either_way(make_search):
    """All trainings after the first few score the same."""
    for stop_early in (True, False):
        lines = []
        search = make_search(evaluate=lambda _: 0.9, n_trials=40, name=f"early{stop_early}")
        begun = climb(replace(search, stop_early=stop_early, say=lines.append))
        assert begun < 40 if stop_early else begun == 40
        (line,) = lines
        assert "hardly worth it" in line
        assert re.search(r"grow by \d+\.\d %: ", line)
        assert ("no more are begun" in line) == stop_early


FIRST = (
    Candidate(backbone="large", image_size=(160, 160), n_unfrozen=3, lr=2e-4),
    Candidate(backbone="large", image_size=(224, 224), n_unfrozen=2, lr=2e-4),  # not screened
    Candidate(backbone="small", image_size=(96, 96), n_unfrozen=5, lr=8e-4),
)


def with_first(search):
    """Some candidates are to be tried before all others, one of which nothing can start from."""
    screened = {trial.body for trial in read_trials(search.study) if trial.n_unfrozen == 0}
    return replace(search, first=FIRST, space=search.space.with_reachable(frozenset(screened)))


def tried(search):
    return [(trial.body, trial.n_unfrozen, trial.lr) for trial in tuned_of(search)]


def test_what_shall_be_tried_first_is_and_once(make_search):
    search = with_first(make_search(n_trials=4))
    climb(search)
    wanted = [(one.body, one.n_unfrozen, one.lr) for one in FIRST]
    found = tried(search)
    assert found[:2] == [wanted[0], wanted[2]]
    # Then the usual openings, the fastest network first.
    assert [(body.backbone, depth, lr) for body, depth, lr in found[2:]] == [("small", 2, 5e-4), ("large", 1, 5e-4)]
    climb(replace(search, n_trials=2))
    assert len(set(tried(search))) == len(tried(search)) == 6


def test_what_shall_be_tried_first_is_passed_over_where_it_cannot_end(make_search):
    search = make_search(seconds=lambda one: 100.0 if one.backbone == "large" else 1.0, left_s=lambda: 50.0, n_trials=1)
    climb(with_first(search))
    assert tried(search) == [(FIRST[2].body, 5, 8e-4)]


def test_early_nothing_else_is_begun_before_what_shall_be_tried_first(make_search):
    def early(search, **changes):
        climb_early(replace(search, evaluator=replace(search.evaluator, curve=steadily), **changes), elsewhere_s=100.0)
        return tried(search)

    search = with_first(make_search(seconds=lambda _: 10.0, left_s=lambda: 1000.0, n_trials=3))
    assert early(search, first=(), is_awaiting=True) == []
    found = early(search)
    assert found[:2] == [(one.body, one.n_unfrozen, one.lr) for one in (FIRST[0], FIRST[2])]


def test_where_no_training_can_start_from_a_whole_network_its_best_cut_opens(make_search):
    search = make_search()
    cuts = {
        kept: Candidate(backbone="large", image_size=(160, 160), n_unfrozen=0, n_blocks_kept=kept) for kept in (3, 4)
    }
    space = replace(search.space, kept={"large": (3, 4)})
    for kept, cut in cuts.items():
        known = search.evaluator.begin(cut)
        add_screened(search.study, space, replace(known, state="finished", score=0.5 + kept / 100, number=kept))
    trials = read_trials(search.study)

    def opened(*bodies):
        of = openings(trials, replace(search, space=space.with_reachable(frozenset(bodies))))
        return [(one.n_blocks_kept, one.n_unfrozen) for one in of]

    assert opened(cuts[3].body, cuts[4].body) == [(4, 1), (4, 2)]
    whole = cuts[3].body._replace(n_blocks_kept=None)
    assert opened(whole, cuts[4].body) == [(None, 1), (None, 2)]

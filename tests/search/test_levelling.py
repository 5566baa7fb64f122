"""Latencies are told apart only where they were measured side by side."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from autobackbone import Budget
from autobackbone.metrics import metric_for
from autobackbone.records import Body, Latency, Limits, Target, Trial
from autobackbone.search import levelling
from autobackbone.search.levelling import level, levelling_s
from autobackbone.search.space import Space
from autobackbone.search.study import add_screened, load_study, note_latencies, open_study, read_trials

SIZES = {"a": ((64, 64), (96, 96)), "b": ((64, 64),)}


def trial(backbone, side, latency_ms):
    return Trial(
        number=0, state="finished", reason="", backbone=backbone, image_size=(side, side), n_unfrozen=0, n_blocks=4,
        lr=None, score=0.5, latency_ms=latency_ms, latency_noise_ms=0.1,
    )  # fmt: skip


def shop(**limits):
    clock = SimpleNamespace(budget=Budget(wall_clock_s=100))
    return SimpleNamespace(limits=Limits(**limits), clock=clock, target=Target())


def test_one_body_has_nothing_to_be_compared_with():
    assert levelling_s(shop(), [trial("a", 64, 1.0), trial("a", 64, 1.0)]) == 0
    assert levelling_s(shop(), []) == 0
    assert levelling_s(shop(), [trial("a", 64, 1.0), trial("b", 64, 1.0)]) == pytest.approx(2 * (0.5 + 0.3))
    # All of them together take a fiftieth of the budget, but for building them.
    many = [trial("a", 64 + n, 1.0) for n in range(10)]
    assert levelling_s(shop(), many) == pytest.approx(2 + 10 * 0.3)


@pytest.mark.parametrize("limit", ["latency_ms", "latency_p95_ms"])
def test_a_limit_that_was_kept_stays_kept(limit):
    assert levelling_s(shop(**{limit: 20}), [trial("a", 64, 1.0), trial("b", 64, 1.0)]) == 0


def test_what_is_on_the_front_by_folds_is_measured_as_well(monkeypatch):
    """A validation part of few pictures may have beaten it."""
    measured = []
    monkeypatch.setattr(levelling, "_measure", lambda _, bodies: measured.extend(bodies) or True)
    lucky = replace(trial("a", 64, 1.0), score=0.9, fold_score=0.6)
    steady = replace(trial("b", 64, 3.0), number=1, score=0.8, fold_score=0.8)
    beaten = replace(trial("a", 96, 9.0), number=2, score=0.5, fold_score=0.5)
    own = shop()
    own.trials = own.rivals = lambda: [lucky, steady, beaten]
    own.metric = metric_for("accuracy", n_outputs=2)
    own.clock.left_s = lambda: 50.0
    own.reporter = SimpleNamespace(progress=lambda *_: None)
    own.use_share = lambda: 0.5
    assert level(own)
    assert measured == [lucky.body, steady.body]


def test_what_was_measured_side_by_side_stands_for_all_trials_of_a_body(tmp_path):
    file = tmp_path / "study.db"
    study = open_study(file, is_higher_better=True, metric_name="accuracy", seed=0)
    space = Space(image_sizes=SIZES, n_blocks={"a": 4, "b": 4}, kept={}, extras={})
    for one in (trial("a", 64, 1.0), trial("a", 96, 3.0), trial("b", 64, 2.0)):
        add_screened(study, space, one)
    found = Latency(p50_ms=7.0, p95_ms=8.0, noise_ms=0.3, images_per_s=float("nan"), n_repeats=9)
    note_latencies(study, {Body("a", (64, 64)): found})
    note_latencies(study, {Body("b", (64, 64)): found})
    for opened in (study, load_study(file)):
        read = read_trials(opened)
        assert [one.latency_ms for one in read] == [7.0, 3.0, 7.0]
        assert [one.latency_noise_ms for one in read] == [0.3, 0.1, 0.3]
        assert [one.latency_p95_ms for one in read] == [8.0, None, 8.0]

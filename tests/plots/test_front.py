"""The facts say what the trials say; the drawing says what the facts say."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import _pylab_helpers
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from autobackbone.metrics import metric_for, to_maximised
from autobackbone.pareto import front_mask
from autobackbone.plots.front import OTHERS, draw_front, front_facts
from autobackbone.records import Trial

ACCURACY = metric_for("accuracy", n_outputs=8)
LOG_LOSS = metric_for("log_loss", n_outputs=8)
LINE = "cpu (AMD EPYC, 2 threads), float32, batch 1"


def trial(number: int, score: float | None, latency_ms: float | None, **others: Any) -> Trial:
    facts: dict[str, Any] = {"state": "finished", "reason": "", "backbone": "a.b", "image_size": (96, 96)}
    facts |= {"n_unfrozen": number % 3, "n_blocks": 8, "lr": None} | others
    return Trial(number=number, score=score, latency_ms=latency_ms, **facts)


def with_front(trials: list[Trial], metric: Any = ACCURACY) -> list[Trial]:
    mask = front_mask([to_maximised(metric, t.score or 0.0) for t in trials], [t.latency_ms or 0.0 for t in trials])
    return [replace(t, on_front=bool(is_on)) for t, is_on in zip(trials, mask, strict=True)]


runs = st.lists(st.tuples(st.integers(0, 100), st.integers(1, 40), st.integers(0, 9)), min_size=1, max_size=25).map(
    lambda rows: with_front([trial(i, s / 100, ms / 2, backbone=f"net{b}.x") for i, (s, ms, b) in enumerate(rows)])
)


@given(runs, st.randoms())
def test_facts_do_not_change_with_row_order(trials, random):
    shuffled = list(trials)
    random.shuffle(shuffled)
    assert front_facts(shuffled, LINE, ACCURACY, 0) == front_facts(trials, LINE, ACCURACY, 0)


@given(runs)
def test_every_finished_trial_is_a_point_and_the_front_is_never_clipped(trials):
    facts = front_facts(trials, LINE, ACCURACY, None)
    assert [point.number for point in facts.points] == [t.number for t in trials]
    assert {point.group for point in facts.points} <= set(facts.groups)
    assert not any(point.is_clipped for point in facts.points if point.on_front)
    heights = [height for _, height in facts.steps]
    assert heights == sorted(heights)
    assert len(facts.steps) == sum(t.on_front for t in trials)


@given(runs)
def test_a_trial_without_result_changes_nothing(trials):
    unfinished = [trial(900, 0.9, 1.0, state="stopped"), trial(901, None, 1.0), trial(902, 0.9, None, state="failed")]
    assert front_facts([*trials, *unfinished], LINE, ACCURACY, 0) == front_facts(trials, LINE, ACCURACY, 0)


def test_a_trial_that_learnt_nothing_does_not_press_the_others_together():
    trials = with_front([trial(0, 0.90, 1.0), trial(1, 0.92, 2.0), trial(2, 0.05, 3.0)])
    facts = front_facts(trials, LINE, ACCURACY, None)
    assert [point.is_clipped for point in facts.points] == [False, False, True]
    assert 80 < facts.floor < 90


def test_losses_are_clipped_upwards_and_drawn_with_the_better_above():
    trials = with_front([trial(0, 0.5, 1.0), trial(1, 0.4, 2.0), trial(2, 9.0, 3.0)], LOG_LOSS)
    facts = front_facts(trials, LINE, LOG_LOSS, 1)
    assert [point.is_clipped for point in facts.points] == [False, False, True]
    assert [height for _, height in facts.steps] == [0.5, 0.4]
    bottom, top = draw_front(facts).axes[0].get_ylim()
    assert bottom > top


def test_errors_in_the_unit_of_the_labels_are_drawn_whatever_their_size():
    mae = metric_for("mae", "regression", n_outputs=1)
    for size in (1e-3, 1e6):
        trials = with_front([trial(0, 0.9 * size, 2.0), trial(1, size, 1.0), trial(2, 50 * size, 3.0)], mae)
        facts = front_facts(trials, LINE, mae, 0)
        assert [point.is_clipped for point in facts.points] == [False, False, True]
        assert facts.height_label == "validation mae (better is up)"


def test_r2_is_drawn_as_it_is_and_not_as_a_share():
    r2 = metric_for("r2", "regression", n_outputs=1)
    tested = {"test_score": 0.6, "test_score_low": 0.5, "test_score_high": 0.7}
    trials = with_front([trial(0, 0.7, 1.0, **tested), trial(1, 0.75, 2.0, **tested), trial(2, -3.0, 3.0)], r2)
    facts = front_facts(trials, LINE, r2, 0)
    assert facts.height_label == "validation r2"
    assert facts.steps == ((1.0, 0.7), (2.0, 0.75))
    assert facts.points[0].tested == (0.6, 0.5, 0.7)
    # One that learnt nothing stands on the lower edge, and that is near the others.
    assert [point.is_clipped for point in facts.points] == [False, False, True]
    assert facts.floor == pytest.approx(0.5)
    assert "r2 (%)" not in drawn_texts(draw_front(facts))


def test_more_backbones_than_colours_share_the_last_and_the_front_keeps_its_own():
    trials = with_front([trial(i, 0.5, 5.0, backbone=f"many{i % 20}.x") for i in range(60)])
    trials = [replace(t, on_front=False) for t in trials]
    trials.append(trial(99, 0.9, 1.0, backbone="zz_best.x", on_front=True))
    facts = front_facts(trials, LINE, ACCURACY, 99)
    assert facts.groups[0] == "zz_best.x"
    assert facts.groups[-1] == OTHERS
    assert len(facts.groups) == 7


def drawn_texts(figure: Figure) -> str:
    axes = figure.axes[0]
    legend = axes.get_legend()
    entries = [text.get_text() for text in legend.get_texts()] if legend else []
    return "\n".join([axes.get_xlabel(), axes.get_ylabel(), axes.get_title(loc="left"), *entries])


@pytest.mark.parametrize("n_trials", [1, 3, 300])
def test_the_picture_says_where_what_and_which(n_trials, tmp_path):
    trials = with_front([trial(i, 0.5 + (i * 7 % 40) / 100, 1.0 + i % 13) for i in range(n_trials)])
    figure = draw_front(front_facts(trials, LINE, ACCURACY, 0))
    texts = drawn_texts(figure)
    assert texts.count(LINE) == 2
    assert "validation accuracy (%)" in texts
    assert "chosen: a.b\n96 px, frozen features\n50.0 % at 1 ms" in texts
    assert f"{n_trials} finished trial" in texts
    figure.savefig(tmp_path / "front.png")
    assert (tmp_path / "front.png").stat().st_size > 10_000
    assert not _pylab_helpers.Gcf.figs


def test_markers_tell_frozen_from_tuned_and_colours_tell_backbones():
    trials = [
        trial(0, 0.8, 1.0, backbone="a.x"),
        trial(1, 0.9, 2.0, backbone="b.x"),
        trial(3, 0.9, 3.0, backbone="b.x"),
    ]
    axes: Any = draw_front(front_facts(trials, LINE, ACCURACY, None)).axes[0]
    dots = {tuple(dot.get_offsets().tolist()[0]): dot for dot in axes.collections}
    frozen, tuned, frozen_too = (dots[ms, height] for ms, height in ((1.0, 80.0), (2.0, 90.0), (3.0, 90.0)))
    assert to_hex(frozen.get_facecolor()[0]) == to_hex(frozen_too.get_facecolor()[0]) == "#ffffff"
    assert to_hex(tuned.get_facecolor()[0]) == to_hex(tuned.get_edgecolor()[0]) != "#ffffff"
    assert to_hex(frozen_too.get_edgecolor()[0]) == to_hex(tuned.get_edgecolor()[0])
    assert to_hex(frozen.get_edgecolor()[0]) != to_hex(tuned.get_edgecolor()[0])


def test_it_draws_into_given_axes_and_survives_an_empty_run():
    figure = Figure()
    left, right = figure.subplots(1, 2)
    assert draw_front(front_facts([], LINE, ACCURACY, None), right) is figure
    assert right.get_xlabel().endswith(LINE)
    assert not left.get_xlabel()


def test_latencies_of_one_backbone_still_get_readable_ticks():
    trials = [trial(i, 0.8 + i / 100, 3.0 + i / 100) for i in range(3)]
    figure = draw_front(front_facts(with_front(trials), LINE, ACCURACY, 2))
    figure.canvas.draw()
    labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert sum(bool(label) for label in labels) >= 3


def test_what_noise_leaves_open_of_a_latency_of_the_front_is_drawn():
    trials = with_front([trial(0, 0.9, 4.0, latency_noise_ms=1.0), trial(1, 0.8, 8.0, latency_noise_ms=1.0)])
    facts = front_facts([*trials, trial(2, 0.95, 9.0, on_front=True, latency_noise_ms=50.0)], LINE, ACCURACY, None)
    assert [point.reach_ms for point in facts.points] == [(3.0, 5.0), None, (2.25, 59.0)]
    (axes,) = draw_front(facts).axes
    drawn = [tuple(line.get_xdata()) for line in axes.lines]
    assert drawn.count((3.0, 5.0)) == 1
    assert axes.get_xlim()[0] < 2.25
    assert axes.get_xlim()[1] > 59.0
    assert "latency ± noise" in [text.get_text() for text in axes.get_legend().get_texts()]
    still = draw_front(front_facts(with_front([trial(0, 0.9, 4.0)]), LINE, ACCURACY, None)).axes[0]
    assert "latency ± noise" not in [text.get_text() for text in still.get_legend().get_texts()]

import contextlib
import io
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autobackbone.metrics import metric_for
from autobackbone.records import Limits, Trial
from autobackbone.tables import _published, print_catalogue, print_selection

LONG = "eva02_large_patch14_448.mim_m38m_ft_in22k_in1k"
TRIAL = Trial(
    number=0, state="finished", reason="", backbone=LONG, image_size=(448, 320), n_unfrozen=2, n_blocks=24, lr=3e-4,
    score=0.91234, latency_ms=1234.567, latency_p95_ms=2345.678, images_per_s=1.25, megabytes=1220.4, test_score=None,
)  # fmt: skip
REASON = "the network [red] ran out of memory :boom: " * 3


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Printed(SimpleNamespace):
    """What is printed of a selection, without a run behind it."""

    target, metric, path = "cpu (a chip, 2 threads)", metric_for("accuracy", n_outputs=2), Path("nowhere")
    optimism, advice = None, ("trial 3 [bold] overfits: freeze more.",)
    stopped_before, is_retargeted, limits = None, False, Limits(latency_ms=2000)

    def scores_without_copies(self):
        return {"test": 0.5}

    @property
    def best(self):
        return self.front[-1]

    @property
    def choice(self):
        return SimpleNamespace(trial=self.best, reason=f"trial {self.best.number} [red] is best")


def shown(trials, front, monkeypatch, *, columns=None, all_trials=True):
    out = io.StringIO() if columns is None else Terminal()
    monkeypatch.setenv("COLUMNS", str(columns or 80))
    monkeypatch.setenv("TERM", "xterm")
    with contextlib.redirect_stdout(out):
        print_selection(Printed(trials=trials, front=front), all_trials=all_trials)
    return re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue())


def test_a_pipe_gets_each_trial_whole_in_one_line(monkeypatch):
    failed = replace(TRIAL, number=1, state="failed", reason=REASON, score=None)
    lines = shown([TRIAL, failed], [TRIAL], monkeypatch).splitlines()
    (first,) = [line for line in lines if line.startswith("→")]
    assert first.split() == [
        *("→", "0", LONG, "448x320", "2/24", "3.0e-04", "0.9123", "1234.57", "2345.68", "1", "1220.4", "finished")
    ]
    assert any(f"failed: {REASON.strip()}" in line for line in lines)
    assert "choose: trial 0 [red] is best" in lines
    assert "advice: trial 3 [bold] overfits: freeze more." in lines


def test_scores_by_folds_have_a_column_where_there_are_any(monkeypatch):
    assert "folds" not in shown([TRIAL], [TRIAL], monkeypatch)
    folded = replace(TRIAL, number=1, fold_score=0.87654, fold_se=0.01)
    out = shown([TRIAL, folded], [TRIAL], monkeypatch)
    assert "folds" in out
    assert "0.8765 ± 0.0100" in out


def test_on_how_many_pictures_a_score_stands_has_a_column_where_these_are_not_all(monkeypatch):
    part = replace(TRIAL, number=1, extras={"scored_share": 6 / 39, "n_validation": 39})
    assert "scored on" not in shown([TRIAL], [TRIAL], monkeypatch)
    assert "6 of 39 pictures" in shown([TRIAL, part], [TRIAL], monkeypatch)


def test_a_small_network_has_a_size_and_what_is_not_known_is_a_dash(monkeypatch):
    small = replace(TRIAL, megabytes=0.03, images_per_s=float("nan"))
    (line,) = [line for line in shown([small], [small], monkeypatch).splitlines() if line.startswith("→")]
    assert line.split()[-3:] == ["–", "0.03", "finished"]


def test_a_balanced_figure_has_a_column_where_there_is_one(monkeypatch):
    known = replace(TRIAL, number=1, balanced_score=0.5)
    assert "balanced" not in shown([TRIAL], [TRIAL], monkeypatch)
    header, _, without, with_one = shown([TRIAL, known], [TRIAL], monkeypatch).splitlines()[2:6]
    assert re.search(r"score\s+balanced\s+test", header)
    assert "0.9123 0.5000" in " ".join(with_one.split())
    assert "0.5000" not in without


@pytest.mark.parametrize(
    ("columns", "is_shown", "is_left_out"),
    [(130, ("pictures/s", "p95", "MB"), ()), (110, ("MB",), ("pictures/s", "p95")), (60, (), ("p95", "MB"))],
)
def test_a_narrow_terminal_loses_columns_but_no_letter(monkeypatch, columns, is_shown, is_left_out):
    out = shown([TRIAL], [TRIAL], monkeypatch, columns=columns, all_trials=False)
    lines = out.splitlines()
    table = lines[2 : next(i for i, line in enumerate(lines) if line.startswith("choose"))]
    assert max(map(len, table)) <= columns
    assert all(name in out for name in is_shown)
    assert not any(name in out for name in is_left_out)
    assert "…" not in out
    assert "1234.57" in out
    assert LONG in "".join(part for part in out.split() if part in LONG)


def test_a_run_without_a_finished_trial_can_be_shown(monkeypatch):
    out = shown([replace(TRIAL, state="running", score=None)], [], monkeypatch)
    assert "no trial has finished" in out
    assert "running" in out
    assert "front.png" not in out


def test_what_breaks_a_limit_is_marked(monkeypatch):
    slow = replace(TRIAL, number=1, latency_ms=2500.0)
    lines = shown([TRIAL, slow], [TRIAL], monkeypatch).splitlines()
    assert [line for line in lines if "limit" in line] == ["trial 1: latency_ms 2,500 is above the limit of 2,000"]


def test_what_nobody_published_stays_empty(capsys):
    names = ("name", "top1", "n_params", "gmacs", "cpu_images_per_s", "gpu_images_per_s", "licence", "loadable")
    rows = pd.DataFrame([["new_net.tag", float("nan"), None, None, float("nan"), None, None, None]], columns=names)
    rows["n_params"] = rows["n_params"].astype("Int64")
    print_catalogue(rows, 1826)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "1 of 1,826 networks"
    assert lines[-1].split() == ["new_net.tag"]


@given(st.floats(min_value=0.001, max_value=1e12))
def test_a_published_number_keeps_four_digits(value):
    assert float(_published(value).replace(",", "")) == pytest.approx(value, rel=1e-3)

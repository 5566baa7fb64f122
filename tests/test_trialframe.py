from dataclasses import replace

import numpy as np
from tests.test_choosing import trial

from autobackbone.trialframe import frame_of


def test_no_trials_make_a_table_with_the_same_columns_and_types():
    none, some = frame_of([]), frame_of([trial(0, 0.9, 1.0), trial(1, None, 2.0, state="failed")])
    assert list(none.columns) == list(some.columns)
    assert some["number"].tolist() == [0, 1]
    numeric = ["lr", "score", "latency_ms", "test_score", "n_blocks_kept", "fold_score", "fold_se", "balanced_score"]
    assert {str(frame[name].dtype) for frame in (none, some) for name in numeric} == {"float64"}


def test_what_was_searched_has_a_column_and_what_the_search_notes_for_itself_has_none():
    searched = replace(trial(0, 0.9, 1.0), extras={"weight_decay": 0.1, "strength": 3.0, "scored_share": 1.0})
    frame = frame_of([searched, trial(1, 0.8, 0.5)])
    assert frame["weight_decay"].iloc[0] == 0.1
    assert np.isnan(frame["weight_decay"].iloc[1])
    assert "strength" not in frame.columns


def test_the_share_of_the_pictures_that_a_score_stands_on_has_a_column():
    part = replace(trial(0, 0.9, 1.0), extras={"scored_share": 0.25, "n_validation": 40})
    frame = frame_of([part, trial(1, 0.8, 0.5), trial(2, None, 2.0, state="failed")])
    assert frame["scored_share"].tolist()[:2] == [0.25, 1.0]
    assert np.isnan(frame["scored_share"].iloc[2])
    assert "n_validation" not in frame.columns


def test_of_a_trial_that_waits_at_its_rung_nothing_runs():
    waiting = replace(trial(0, 0.9, 1.0, state="running"), rung_scores=(0.9,))
    frame = frame_of([waiting, trial(1, None, 2.0, state="running")])
    assert frame["state"].tolist() == ["paused", "running"]
    assert str(waiting).startswith("trial 0, paused: ")

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from sqlalchemy import event

from autobackbone.metrics import metric_for
from autobackbone.records import Candidate
from autobackbone.search.space import Space
from autobackbone.search.study import (
    facts_of,
    load_study,
    n_tuned,
    note_test_score,
    open_study,
    read_trials,
    record,
    tell,
)


@pytest.mark.parametrize("scores", [(), (0.5,), (0.5, math.nan, 1.0), (math.inf, 0.25)])
def test_training_scores_come_back_also_where_they_are_no_numbers(tmp_path, scores):
    file, space = tmp_path / "study.db", Space(image_sizes={"net": ((32, 32),)}, n_blocks={"net": 4})
    study = open_study(file, is_higher_better=True, metric_name=metric_for(None, n_outputs=2).name, seed=0)
    asked = study.ask(space.distributions())
    begun = Candidate(backbone="net", image_size=(32, 32), n_unfrozen=1, lr=1e-3).begun(4)
    known = replace(begun, number=asked.number, rung_scores=tuple(0.5 for _ in scores), train_scores=scores)
    record(study, known)
    json.dumps(facts_of(known), allow_nan=False)
    (read,) = read_trials(load_study(file))
    np.testing.assert_array_equal(read.train_scores, [s if math.isfinite(s) else math.nan for s in scores])
    assert isinstance(read.train_scores, tuple)


def test_what_an_interruption_left_without_a_rung_uses_no_budget(tmp_path):
    space = Space(image_sizes={"net": ((32, 32),)}, n_blocks={"net": 4})
    study = open_study(tmp_path / "study.db", is_higher_better=True, metric_name="accuracy", seed=0)
    begun = Candidate(backbone="net", image_size=(32, 32), n_unfrozen=1, lr=1e-3).begun(4)
    for reason, scores in (
        ("interrupted before it ended", ()),
        ("a reason", ()),
        ("interrupted before it ended", (0.5,)),
    ):
        asked = study.ask(space.distributions())
        tell(study, replace(begun, number=asked.number, reason=reason, rung_scores=scores), "failed")
    assert n_tuned(study) == 2


def statements_of(study, call):
    """How many statements a call sends to the file."""
    seen, engine = [], study._storage._backend.engine

    def notice(connection, cursor, statement, *_):
        seen.append(statement)

    event.listen(engine, "before_cursor_execute", notice)
    call()
    event.remove(engine, "before_cursor_execute", notice)
    return len(seen)


def test_what_nobody_wrote_to_is_not_read_again_and_what_was_written_is(tmp_path):
    file, space = tmp_path / "study.db", Space(image_sizes={"net": ((32, 32),)}, n_blocks={"net": 4})
    study = open_study(file, is_higher_better=True, metric_name="accuracy", seed=0)
    begun = Candidate(backbone="net", image_size=(32, 32), n_unfrozen=1, lr=1e-3).begun(4, latency_ms=1.0)
    few = None
    for n in range(12):
        asked = study.ask(space.distributions())
        record(study, replace(begun, number=asked.number, rung_scores=(0.5,), score=0.5))
        # All of them pause, and one was written to.
        once = statements_of(study, lambda: read_trials(study))
        few = few or once
        assert once == few
        assert statements_of(study, lambda: read_trials(study)) < few
        assert [trial.is_paused for trial in read_trials(study)] == [True] * (n + 1)
    before = read_trials(study)
    assert all(one is other for one, other in zip(before, read_trials(study), strict=True))
    note_test_score(study, 3, 0.9, (0.8, 1.0))
    record(study, replace(begun, number=1, rung_scores=(0.5, 0.6), score=0.6))
    tell(study, replace(begun, number=2, score=0.7, latency_ms=1.0), "finished")
    after = read_trials(study)
    assert (after[1].score, after[2].state, after[3].test_score) == (0.6, "finished", 0.9)
    changed = [one.number for one, other in zip(after, before, strict=True) if one is not other]
    assert changed == [1, 2, 3]
    assert read_trials(load_study(file)) == after

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from autobackbone.metrics import metric_for
from autobackbone.records import Candidate
from autobackbone.search.space import Space
from autobackbone.search.study import facts_of, load_study, n_tuned, open_study, read_trials, record, tell


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

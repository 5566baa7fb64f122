"""A budget of time is kept within 5 % or 5 s, whatever the worker does: real workers that are slow, hang, die or fail.

What hampers them is their metric, a class of a module that they import; here it is plain accuracy.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter

import pytest
from tests.conftest import TINY, make_pictures
from tests.running.conftest import HAS_PROC, workers_of

from autobackbone import select_backbone
from autobackbone.progress import Silent

WALL_CLOCK_S = 40.0
MOST_LATE_S = max(5.0, 0.05 * WALL_CLOCK_S)
HAMPERED = """
import json
import os
import signal
import time
from pathlib import Path

import torch
from torchmetrics import Metric

FOLDER, PARENT = Path({folder!r}), {parent}
PLAN = json.loads((FOLDER / "plan.json").read_text())
if os.getpid() != PARENT:
    time.sleep(PLAN["imports_in_s"])


def hamper():
    if os.getpid() == PARENT:
        return
    count = FOLDER / "count"
    n = int(count.read_text()) + 1 if count.exists() else 1
    count.write_text(str(n))
    if n % PLAN["every"] == 0:
        what = PLAN["does"][n // PLAN["every"] % len(PLAN["does"])]
        if what == "hang":
            time.sleep(10_000)
        elif what == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        elif what == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        elif what == "fail":
            raise MemoryError
        else:
            time.sleep(what)


class Hampered(Metric):
    higher_is_better = True
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0
    full_state_update = False

    def __init__(self):
        super().__init__()
        self.add_state("share", default=torch.tensor(0.0), dist_reduce_fx="mean")

    def update(self, predictions, labels):
        hamper()
        self.share = (predictions.argmax(1) == labels).float().mean()

    def compute(self):
        return self.share
"""
PLANS = {
    "nothing hampers them": {"every": 10**9, "does": [0]},
    "each epoch is slow": {"every": 1, "does": [1.5]},
    "some epochs are very slow": {"every": 7, "does": [12, 5, 20]},
    "they hang at once": {"every": 1, "does": ["hang"]},
    "they hang at times": {"every": 9, "does": ["hang"]},
    "they stop and give no sign": {"every": 9, "does": ["stop"]},
    "they hang while they start": {"every": 10**9, "does": [0], "imports_in_s": 10_000},
    "they are slow to start": {"every": 10**9, "does": [0], "imports_in_s": 20},
    "they die": {"every": 8, "does": ["die"]},
    "trainings fail": {"every": 8, "does": ["fail"]},
    "all of it": {"every": 6, "does": ["die", 3, "fail", 8, "hang"]},
}


@pytest.mark.slow
@pytest.mark.skipif(not HAS_PROC, reason="this system does not tell which processes there are")
@pytest.mark.parametrize("name", PLANS)
def test_a_budget_is_kept_whatever_the_worker_does(random_weights, tmp_path, monkeypatch, name):
    module = f"hampered_{list(PLANS).index(name)}"
    (tmp_path / "plan.json").write_text(json.dumps({"imports_in_s": 0} | PLANS[name]))
    (tmp_path / f"{module}.py").write_text(HAMPERED.format(folder=str(tmp_path), parent=os.getpid()))
    monkeypatch.syspath_prepend(tmp_path)
    lines = []
    reporter = Silent()
    reporter.say = lines.append
    begun = time.monotonic()
    result = select_backbone(
        make_pictures(n_per_class=40),
        WALL_CLOCK_S,
        backbones=[TINY, "test_vit.r160_in1k"],
        image_sizes=[64, 96],
        weights={one: random_weights(one) for one in (TINY, "test_vit.r160_in1k")},
        metric=f"{module}:Hampered",
        workers=1,
        run_dir=tmp_path / "run",
        cache_dir=tmp_path / "cache",
        progress=reporter,
    )
    taken_s = time.monotonic() - begun
    states = [trial.state for trial in result.trials if trial.n_unfrozen]
    reasons = Counter(trial.reason for trial in result.trials if trial.state == "failed")
    counted = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    print(f"{name}: {taken_s:.1f} of {WALL_CLOCK_S:.0f} s; {counted}; {dict(reasons)}")  # noqa: T201
    assert taken_s < WALL_CLOCK_S + MOST_LATE_S
    assert result.best in result.front
    assert result.study.user_attrs["ledger"]["is_completed"]
    assert not workers_of(os.getpid())

"""Whether one deciding process keeps many workers busy: the real search loop and a real study file, trainings asleep.

python benchmarks/scale.py --workers 1 8 64 --sleep-s 20 --seconds 120 --trials 1000 10000

Candidates are scored by a formula that is stated below, and a leg of a training sleeps: nothing competes with the
deciding process but what else the machine does.
"""

from __future__ import annotations

import argparse
import math
import os
import tempfile
import threading
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from reporting import machine, write_report
from sqlalchemy import event

from autobackbone.records import Candidate, Trial
from autobackbone.search.climb import climb
from autobackbone.search.legs import next_leg
from autobackbone.search.sampling import AllowedSampler
from autobackbone.search.space import Space
from autobackbone.search.steps import Search, view, without_hopeless
from autobackbone.search.study import add_screened, facts_of, open_study, record, tell
from autobackbone.testing import LookedUp, SleepingEvaluator, TableEvaluator

NAMES = tuple(f"net{i}" for i in range(12))
SIZES = ((96, 96), (160, 160))
SPACE = Space(image_sizes=dict.fromkeys(NAMES, SIZES), n_blocks=dict.fromkeys(NAMES, 8))
LATENCY_MS = {name: 2.0 * 1.3**i for i, name in enumerate(NAMES)}
N_EPOCHS = 10
N_REPEATS = 7
WANTED_SHARE = 0.9
_STATES = optuna.trial.TrialState


def curve(candidate: Candidate) -> list[float]:
    """Slower networks, more blocks and rates near 5e-4 are better; each epoch halves a tenth of what is missing.

    A thousandth is drawn from the candidate itself, so that hardly two scores are the same.
    """
    assert candidate.lr is not None
    drawn = np.random.default_rng(zlib.crc32(repr(candidate).encode())).random()
    end = 0.7 + 0.01 * NAMES.index(candidate.backbone) + 0.02 * math.sqrt(candidate.n_unfrozen) + 0.001 * drawn
    end -= 0.05 * abs(math.log10(candidate.lr / 5e-4))
    return [end * (1 - 0.1 / 2**epoch) for epoch in range(N_EPOCHS)]


@dataclass(slots=True)
class Clocked:
    """Sleeps, and adds up for how long, by leg."""

    inner: SleepingEvaluator
    lock: threading.Lock = field(default_factory=threading.Lock)
    spans: list[tuple[float, float]] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def ready(self, number: int, candidate: Candidate, until: float | None, **leg: Any) -> LookedUp:
        """As the inner one."""
        found = self.inner.ready(number, candidate, until, **leg)

        def train() -> Trial:
            begun = time.monotonic()
            trial = found.train()
            with self.lock:
                self.spans.append((begun, time.monotonic()))
            return trial

        return LookedUp(train)


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 8, 64])
    parser.add_argument("--sleep-s", type=float, default=20.0, help="Seconds of a leg.")
    parser.add_argument("--seconds", type=float, default=80.0, help="Seconds of each search.")
    parser.add_argument("--filled", type=int, default=1_000, help="Trials in the study as the largest search begins.")
    parser.add_argument("--trials", type=int, nargs="*", default=[100, 1_000, 10_000])
    asked = parser.parse_args()
    decided = [decision_row(n) for n in asked.trials]
    busy = [busy_row(n, asked.sleep_s, asked.seconds, 0) for n in asked.workers]
    if asked.filled:
        busy.append(busy_row(max(asked.workers), asked.sleep_s, asked.seconds, asked.filled))
    load = os.getloadavg()[0]
    text = "\n".join(
        (
            machine(1),
            f"Other work on the machine: a load of {load:.1f} on {os.cpu_count()} cores at the end.",
            "",
            f"A leg sleeps {asked.sleep_s:g} s; each search has {asked.seconds:g} s.",
            "",
            "| workers | trials before | trials begun | legs | share of the time that workers were busy | wanted |",
            "|---|---|---|---|---|---|",
            *(
                f"| {row['workers']} | {row['before']:,} | {row['begun']:,} | {row['legs']:,} | {row['busy']:.1%} | "
                f"at least {WANTED_SHARE:.0%} |"
                for row in busy
            ),
            "",
            "| trials in the study | of them paused | decide what goes on | ask | note | tell | all of it |",
            "|---|---|---|---|---|---|---|",
            *(
                f"| {row['trials']:,} | {row['paused']:,} | {row['decide_ms']:.0f} ms | {row['ask_ms']:.0f} ms | "
                f"{row['note_ms']:.0f} ms | {row['tell_ms']:.0f} ms | {row['all_ms']:.0f} ms |"
                for row in decided
            ),
            "",
        )
    )
    print(text)
    write_report(asked.out, "scale", text, [*busy, *decided])


def table(leg_s: float) -> TableEvaluator:
    """Whose legs all take so many seconds, however many epochs they have."""
    return TableEvaluator(
        latency_ms=LATENCY_MS,
        n_blocks=SPACE.n_blocks,
        score=lambda candidate: curve(candidate)[-1],
        curve=curve,
        seconds=lambda _: N_EPOCHS * leg_s,
    )


@dataclass(frozen=True, slots=True)
class SameLegs(SleepingEvaluator):
    """Legs take one time each: a real leg of more epochs takes longer, and its worker asks less often."""

    leg_s: float = 0.0

    def n_epochs(self, candidate: Candidate) -> int:  # noqa: ARG002
        """The same for each candidate, and no formula of scores for it."""
        return N_EPOCHS

    def expected_s(self, candidate: Candidate, *, n_before: int = 0, n_epochs: int | None = None) -> float:  # noqa: ARG002
        """The same for each leg."""
        return self.leg_s


def busy_row(n_workers: int, leg_s: float, seconds: float, n_before: int) -> dict[str, Any]:
    """A search by so many workers, and how much of their time they trained."""
    clocked = Clocked(SameLegs(table(leg_s), leg_s=leg_s))
    with tempfile.TemporaryDirectory() as folder:
        search = searching(Path(folder) / "study.db", clocked, n_before, n_workers)
        begun = time.monotonic()
        end = begun + seconds
        n_begun = climb(replace(search, left_s=lambda: max(0.0, end - time.monotonic())))
        search.study._storage.remove_session()  # noqa: SLF001  the folder goes
    # From the first leg on, as long as new ones could begin: the last ones end one by one.
    first = min(span[0] for span in clocked.spans)
    last = end - leg_s
    used_s = sum(max(0.0, min(ended, last) - min(began, last)) for began, ended in clocked.spans)
    return {
        "workers": n_workers,
        "before": n_before,
        "begun": n_begun,
        "legs": len(clocked.spans),
        "busy": used_s / (n_workers * (last - first)),
    }


def decision_row(n_trials: int) -> dict[str, Any]:
    """What one landing and the next beginning cost, in a study of so many trials, without what trains."""
    taken: dict[str, list[float]] = {"decide": [], "ask": [], "note": [], "tell": []}
    with tempfile.TemporaryDirectory() as folder:
        search = searching(Path(folder) / "study.db", SameLegs(table(1.0), leg_s=1.0), n_trials, 1)
        study, fitting, distributions = search.study, search.fitting, SPACE.distributions()
        study.sampler = AllowedSampler(study.sampler, distributions, fitting.allows, fitting.nearest)
        without_hopeless(search)  # those of the made-up past
        n_paused = 0
        for _ in range(N_REPEATS):
            begun = time.perf_counter()
            trials = without_hopeless(search)
            seen = view(search, trials)
            next_leg(seen, can_ask=True)
            decided = time.perf_counter()
            asked = study.ask(distributions)
            ask_end = time.perf_counter()
            known = replace(search.evaluator.begin(SPACE.candidate(asked.params)), number=asked.number)
            record(study, known)
            noted = time.perf_counter()
            scores = tuple(curve(SPACE.candidate(asked.params)))
            tell(study, replace(known, score=max(scores), rung_scores=scores, n_epochs=N_EPOCHS), "finished")
            told = time.perf_counter()
            n_paused = len(seen.paused)
            spans = (decided - begun, ask_end - decided, noted - ask_end, told - noted)
            for name, span in zip(taken, spans, strict=True):
                taken[name].append(span)
        study._storage.remove_session()  # noqa: SLF001  the folder goes
    medians = {f"{name}_ms": 1000 * float(np.median(spans)) for name, spans in taken.items()}
    return {"trials": n_trials, "paused": n_paused, **medians, "all_ms": sum(medians.values())}


def searching(file: Path, evaluator: Any, n_before: int, n_at_once: int) -> Search:
    """A search whose study holds a screened trial of each network, and so many others."""
    study = open_study(file, is_higher_better=True, metric_name="accuracy", seed=0)
    for name in NAMES:
        known = evaluator.begin(Candidate(backbone=name, image_size=SIZES[0], n_unfrozen=0))
        score = 0.65 + 0.01 * NAMES.index(name)
        add_screened(study, SPACE, replace(known, state="finished", score=score, extras={"scored_share": 1.0}))
    fill(study, past(n_before, len(NAMES)))
    begun = time.monotonic()
    return Search(
        study=study,
        space=SPACE,
        evaluator=evaluator,
        left_s=lambda: 1e6,
        now_s=lambda: time.monotonic() - begun,
        is_higher_better=True,
        n_at_once=lambda: n_at_once,
    )


def past(n: int, first: int) -> Sequence[optuna.trial.FrozenTrial]:
    """Trials as successive halving leaves them: half stands at the first rung, a quarter at the second, and so on; of
    those that did not reach their end half pauses and half is stopped.
    """
    study = optuna.create_study(
        directions=["maximize", "minimize"], sampler=optuna.samplers.RandomSampler(seed=0), storage=None
    )
    drawn, found = np.random.default_rng(0), []
    for number in range(first, first + n):
        asked = study.ask(SPACE.distributions())
        candidate = SPACE.candidate(asked.params)
        depth = int(drawn.choice([1, 2, 4, N_EPOCHS], p=[0.5, 0.25, 0.125, 0.125]))
        is_paused = depth < N_EPOCHS and drawn.random() < 0.5
        scores = tuple(curve(candidate)[:depth])
        known = candidate.begun(8, latency_ms=LATENCY_MS[candidate.backbone])
        trial = replace(known, number=number, score=max(scores), rung_scores=scores, n_epochs=depth)
        trial = replace(trial, finished_at_s=float(number), rung_at_s=(float(number),) * depth)
        is_finished = depth == N_EPOCHS
        found.append(
            optuna.trial.create_trial(
                state=_STATES.COMPLETE if is_finished else _STATES.RUNNING if is_paused else _STATES.PRUNED,
                values=[max(scores), LATENCY_MS[candidate.backbone]] if is_finished else None,
                params=asked.params,
                distributions=SPACE.distributions(),
                user_attrs={"facts": facts_of(trial)},
            )
        )
    return found


def fill(study: optuna.Study, trials: Sequence[optuna.trial.FrozenTrial]) -> None:
    """Add trials without waiting for the disk after each of them."""
    engine = study._storage._backend.engine  # type: ignore[attr-defined]  # noqa: SLF001

    def be_careless(connection: Any, _: Any) -> None:
        connection.execute("PRAGMA synchronous=OFF")

    engine.dispose()
    event.listen(engine, "connect", be_careless)
    study.add_trials(trials)
    event.remove(engine, "connect", be_careless)
    engine.dispose()


if __name__ == "__main__":
    main()

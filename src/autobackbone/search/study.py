"""The study: the one record of what was tried. Optuna's names and states stay in here, and its storages in `studyfile`
and `studyserver`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args
from weakref import WeakKeyDictionary

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import OptunaError
from optuna.samplers import BaseSampler, TPESampler
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from autobackbone.errors import RunError
from autobackbone.records import Body, Candidate, Latency, Trial, TrialState
from autobackbone.search.soundness import sound
from autobackbone.search.space import Space
from autobackbone.search.studyplace import StudyPlace, as_place, place_of

_NAME = re.compile(r"(?P<first>autobackbone(-[0-9a-f]{12})?)(-(?P<number>\d+))?")
_BACKBONE = "backbone"
_IS_WHOLE = "has_taken_over"
_FACTS = "facts"
_ENDING = "ending"
_TEST_SCORES = "test_scores"
_LATENCIES = "latencies"
_FOLD_SCORES = "fold_scores"
_LEDGER = "ledger"
_DIED = "interrupted before it ended"
_Ending = Literal["finished", "stopped", "failed"]
_STATES: Mapping[OptunaState, TrialState] = {
    OptunaState.WAITING: "waiting",
    OptunaState.RUNNING: "running",
    OptunaState.COMPLETE: "finished",
    OptunaState.PRUNED: "stopped",
    OptunaState.FAIL: "failed",
}
_TESTED = ("test_score", "test_score_low", "test_score_high")
_FOLDED = ("fold_score", "fold_se", "fold_score_low", "fold_score_high")
# What was read of each study's trials, with what it was read from.
_KNOWN: WeakKeyDictionary[optuna.Study, dict[int, tuple[FrozenTrial, Trial]]] = WeakKeyDictionary()
_NOT_STORED = ("number", "state", "on_front", "overfits", *_TESTED, *_FOLDED, "folder")


def open_study(
    place: StudyPlace | Path,
    *,
    is_higher_better: bool,
    metric_name: str,
    seed: int,
    sampler: BaseSampler | None = None,
    say: Callable[[str], object] | None = None,
) -> optuna.Study:
    """The study at a place, made if it is not there: maximised or minimised score first, latency second.

    Args:
        place: a file, or what else holds it.
        is_higher_better: orientation of the score.
        metric_name: what the score is.
        seed: of the sampler.
        sampler: another one than multivariate TPE.
        say: told when a server is waited for.

    Raises:
        RunError: the file is damaged, or cannot be written, or a server cannot be reached; so whenever the study is
            used later.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    at = as_place(place)
    storage = at.open_storage(say=say)
    study = optuna.create_study(
        storage=storage,
        study_name=_latest_name(storage, at.first_name),
        directions=["maximize" if is_higher_better else "minimize", "minimize"],
        # multivariate, or it models no parameter jointly with another.
        sampler=sampler or TPESampler(multivariate=True, seed=seed),
        load_if_exists=True,
    )
    if sampler is None:
        # A sitting that goes on must not draw what the last one drew.
        study.sampler = TPESampler(multivariate=True, seed=seed + len(read_trials(study)))
    study.set_user_attr("metrics", [metric_name, "latency_ms"])
    return study


def _latest_name(storage: BaseStorage, first_name: str) -> str:
    """Of the study that goes on: the last one that took over all trials of the one before. Studies of other runs, which
    a server may hold, are not looked at.
    """
    name = first_name
    while True:
        further = _further_name(name)
        try:
            noted = storage.get_study_user_attrs(storage.get_study_id_from_name(further))
        except KeyError:
            return name
        if not noted.get(_IS_WHOLE):
            return name
        name = further


def _further_name(name: str) -> str:
    """After `autobackbone` comes `autobackbone-2`, and so it is with a name that has a run's own number in it."""
    known = _NAME.fullmatch(name)
    assert known is not None
    return f"{known['first']}-{int(known['number'] or 1) + 1}"


def grown(study: optuna.Study, distributions: Mapping[str, BaseDistribution]) -> optuna.Study:
    """The study, if it knows the backbones that are searched now; else a further one in the same place that has taken
    over its trials: the choices of a parameter cannot grow.

    Args:
        study: what a process that died left running is failed already.
        distributions: what will be asked.

    Raises:
        RunError: a trial still pauses.
    """
    trials, backbones = study.get_trials(deepcopy=False), distributions[_BACKBONE]
    if all(trial.distributions.get(_BACKBONE, backbones) == backbones for trial in trials):
        return study
    if any(trial.state == OptunaState.RUNNING for trial in trials):
        raise RunError(
            "the run is not at its end: some of its trials still pause. Continue it as it is first, then add backbones."
        )
    storage = study._storage  # noqa: SLF001  the same connection
    name = _further_name(study.study_name)
    with suppress(KeyError):  # a process died while it took over
        optuna.delete_study(study_name=name, storage=storage)
    further = optuna.create_study(storage=storage, study_name=name, directions=study.directions, sampler=study.sampler)
    further.add_trials([_taken_over(trial, distributions) for trial in trials])
    for key, value in study.user_attrs.items():
        if key != _IS_WHOLE:
            further.set_user_attr(key, value)
    further.set_user_attr(_IS_WHOLE, True)  # noqa: FBT003  Optuna's argument
    return further


def _taken_over(trial: FrozenTrial, distributions: Mapping[str, BaseDistribution]) -> FrozenTrial:
    """The same trial among more backbones; one that nobody began any more has failed."""
    is_waiting = trial.state == OptunaState.WAITING
    params = {name: value for name, value in trial.params.items() if name in distributions}
    if params and "kept_share" in distributions:
        params.setdefault("kept_share", 1.0)  # the whole network
    return optuna.trial.create_trial(
        state=OptunaState.FAIL if is_waiting else trial.state,
        values=trial.values if trial.state == OptunaState.COMPLETE else None,
        params=params,
        distributions={name: distributions[name] for name in params},
        user_attrs=trial.user_attrs,
        system_attrs=trial.system_attrs,
    )


def load_study(place: StudyPlace | Path) -> optuna.Study:
    """The study at a place, opened so that nothing can be written.

    Raises:
        RunError: it is not there, holds no study or is damaged; so whenever the study is read later.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    at = as_place(place)
    storage = at.open_storage(is_read_only=True)
    try:
        return optuna.load_study(study_name=_latest_name(storage, at.first_name), storage=storage)
    except (LookupError, ValueError, TypeError) as error:
        raise at.unfinished() from error


@contextmanager
def connected(study: optuna.Study) -> Iterator[None]:
    """Close the connections of a study at the end; whoever uses it once more opens one."""
    try:
        yield
    finally:
        backend = getattr(study._storage, "_backend", None)  # noqa: SLF001  there is no public way
        if isinstance(backend, RDBStorage):
            backend.engine.dispose()


def is_maximised(study: optuna.Study) -> bool:
    """Whether more of its score is better.

    Raises:
        RunError: it says nothing of that.
    """
    with _told_of_damage(study):
        return study.directions[0] == optuna.study.StudyDirection.MAXIMIZE


def next_number(study: optuna.Study) -> int:
    """The number that the next trial will have; true as long as one process writes."""
    return len(study.get_trials(deepcopy=False))


def add_screened(study: optuna.Study, space: Space, trial: Trial) -> None:
    """Put a screened trial into the study, as if it had been asked: finished, or stopped where a part of the pictures
    was all that it passed.
    """
    assert trial.score is not None
    assert trial.latency_ms is not None
    is_finished = trial.state == "finished"
    candidate = Candidate(**trial.body._asdict(), n_unfrozen=0)
    frozen = optuna.trial.create_trial(
        state=OptunaState.COMPLETE if is_finished else OptunaState.PRUNED,
        values=[trial.score, trial.latency_ms] if is_finished else None,
        params=dict(space.suggestion(candidate)),
        distributions=space.distributions(),
        user_attrs={_FACTS: facts_of(trial)},
    )
    study.add_trial(frozen)


def record(study: optuna.Study, facts: Trial, *, ending: _Ending | None = None) -> None:
    """Note what is known of a trial that has begun, so that it is known also if its process dies; and how it ends, once
    that is about to be told.
    """
    # `optuna.Trial` has a public way, but making one for a trial of an earlier sitting would ask the sampler again.
    storage, study_id = study._storage, study._study_id  # noqa: SLF001
    trial_id = storage.get_trial_id_from_study_id_trial_number(study_id, facts.number)
    noted = facts_of(facts) | ({} if ending is None else {_ENDING: ending})
    storage.set_trial_user_attr(trial_id, _FACTS, noted)


def tell(study: optuna.Study, facts: Trial, state: _Ending) -> None:
    """End a running trial: its facts first, so that no ended trial is without them."""
    assert state != "finished" or (facts.score is not None and facts.latency_ms is not None)
    record(study, facts, ending=state)
    _conclude(study, facts.number, state, [facts.score, facts.latency_ms])


def _conclude(study: optuna.Study, number: int, ending: _Ending, values: Sequence[Any]) -> None:
    if ending == "finished":
        study.tell(number, values=[float(value) for value in values])
    else:
        study.tell(number, state=OptunaState.PRUNED if ending == "stopped" else OptunaState.FAIL)


def adopt_abandoned(study: optuna.Study, can_go_on: Callable[[int], bool] = lambda _: False) -> int:
    """End what a process that died left: as it had noted that it ends, else as failed, save what can go on from a
    checkpoint; returns how many failed. What still waits to be asked fails, too: whoever goes on asks for it again.

    Raises:
        RunError: what was noted is none of ours.
    """
    n_failed = 0
    with _told_of_damage(study):
        for trial in study.get_trials(deepcopy=False, states=(OptunaState.WAITING,)):
            # Only what runs can be told.
            study._storage.set_trial_state_values(trial._trial_id, OptunaState.RUNNING)  # noqa: SLF001
        for trial in study.get_trials(deepcopy=False, states=(OptunaState.RUNNING,)):
            noted = trial.user_attrs.get(_FACTS, {})
            if noted.get(_ENDING) in get_args(_Ending):
                _conclude(study, trial.number, noted[_ENDING], [noted["score"], noted["latency_ms"]])
            elif not can_go_on(trial.number):
                study.tell(trial.number, state=OptunaState.FAIL)
                n_failed += 1
    return n_failed


def was_cut_off(trial: Trial) -> bool:
    """Whether a trial failed for no other reason than that its process ended, before its first rung."""
    return trial.state == "failed" and trial.reason == _DIED and not trial.rung_scores


def read_trials(study: optuna.Study) -> list[Trial]:
    """All trials of a study, in order of number, without what only a comparison of them tells (`on_front`).

    Raises:
        RunError: the study cannot be read, or what it holds is none of ours.
    """
    with _told_of_damage(study):
        noted = study.user_attrs
        known = _KNOWN.setdefault(study, {})
        return [_noted(_known(one, known), noted) for one in study.get_trials(deepcopy=False)]


def read_sound_trials(study: optuna.Study) -> list[Trial]:
    """As `read_trials`, each fact of the kind that a search writes: of a run that may come from elsewhere.

    Raises:
        RunError: a fact is of another kind.
    """
    trials = read_trials(study)
    with _told_of_damage(study):
        return sound(trials)


@contextmanager
def _told_of_damage(study: optuna.Study) -> Iterator[None]:
    """Raises: RunError: what a file holds is no study of ours, in whatever way that came to light."""
    try:
        yield
    except (OptunaError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise place_of(study).damaged(error) from error


def note_latencies(study: optuna.Study, latencies: Mapping[Body, Latency]) -> None:
    """Keep what bodies took side by side: it stands for what each of their trials has noted."""
    noted = {
        str(body): {
            "latency_ms": latency.p50_ms,
            "latency_p95_ms": latency.p95_ms,
            "latency_noise_ms": latency.noise_ms,
        }
        for body, latency in latencies.items()
    }
    study.set_user_attr(_LATENCIES, {**study.user_attrs.get(_LATENCIES, {}), **noted})


def note_test_score(study: optuna.Study, number: int, value: float, interval: tuple[float, float]) -> None:
    """Keep a confirmed score and its interval; on the study, since an ended trial takes no more attributes."""
    known = study.user_attrs.get(_TEST_SCORES, {})
    study.set_user_attr(_TEST_SCORES, {**known, str(number): [value, *interval]})


def note_fold_score(
    study: optuna.Study, number: int, value: float, standard_error: float, interval: tuple[float, float]
) -> None:
    """Keep a score by folds, its standard error and interval, on the study, too."""
    known = study.user_attrs.get(_FOLD_SCORES, {})
    study.set_user_attr(_FOLD_SCORES, {**known, str(number): [value, standard_error, *interval]})


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """What a run has spent, over all its sittings.

    Args:
        run_s: seconds of work since the run began.
        settled_s: how much of that an earlier, completed budget has paid.
        settled_trials: fine-tuned trials that it has paid.
        is_completed: whether the present budget has been spent to its end.
    """

    run_s: float = 0.0
    settled_s: float = 0.0
    settled_trials: int = 0
    is_completed: bool = False


def n_tuned(study: optuna.Study) -> int:
    """Fine-tuned trials that were trained at all: ended, well or badly, stopped, or paused at a rung; not those that an
    interruption left without one.
    """
    return sum(
        trial.n_unfrozen > 0
        and (
            trial.state == "finished" or bool(trial.rung_scores) or (trial.state == "failed" and not was_cut_off(trial))
        )
        for trial in read_trials(study)
    )


def begin_sitting(study: optuna.Study) -> Ledger:
    """Open the ledger: a completed budget is settled, a broken one goes on."""
    with _told_of_damage(study):
        noted = Ledger(**study.user_attrs.get(_LEDGER, {}))
    known_s = ((trial.finished_at_s or 0.0, *trial.rung_at_s) for trial in read_sound_trials(study))
    last_s = max((max(of) for of in known_s), default=0.0)
    run_s = max(noted.run_s, last_s)
    if noted.is_completed:
        noted = Ledger(settled_s=run_s, settled_trials=n_tuned(study))
    opened = replace(noted, run_s=run_s)
    study.set_user_attr(_LEDGER, asdict(opened))
    return opened


def has_ended(study: optuna.Study) -> bool:
    """Whether the present budget has been spent to its end.

    Raises:
        RunError: what the study says of it is none of ours.
    """
    with _told_of_damage(study):
        return Ledger(**study.user_attrs.get(_LEDGER, {})).is_completed is True


def end_sitting(study: optuna.Study, opened: Ledger, run_s: float, *, is_completed: bool) -> None:
    """Note what the run has spent by now."""
    study.set_user_attr(_LEDGER, asdict(replace(opened, run_s=run_s, is_completed=is_completed)))


def facts_of(trial: Trial) -> dict[str, Any]:
    """What the study stores of a trial: everything that it does not know already."""
    # JSON knows no NaN, as a training score may be.
    train_scores = [value if math.isfinite(value) else None for value in trial.train_scores]
    stored = {name: value for name, value in asdict(trial).items() if name not in _NOT_STORED}
    return stored | {"train_scores": train_scores}


def _known(frozen: FrozenTrial, known: dict[int, tuple[FrozenTrial, Trial]]) -> Trial:
    """Optuna gives the same object as long as nothing was written to it."""
    before = known.get(frozen.number)
    if before is None or before[0] is not frozen:
        before = known[frozen.number] = (frozen, _read(frozen))
    return before[1]


def _noted(trial: Trial, noted: Mapping[str, Any]) -> Trial:
    """With what the study, not the trial, has noted of it."""
    facts = dict[str, Any]()
    for names, where in ((_TESTED, _TEST_SCORES), (_FOLDED, _FOLD_SCORES)):
        facts |= dict(zip(names, noted.get(where, {}).get(str(trial.number), ()), strict=False))
    if noted.get(_LATENCIES):
        facts |= noted[_LATENCIES].get(str(trial.body), {})
    return replace(trial, **facts) if facts else trial


def _read(trial: FrozenTrial) -> Trial:
    stored = dict(trial.user_attrs.get(_FACTS, {}))
    state = _STATES[trial.state]
    known = {field.name for field in fields(Trial)}
    facts = {name: value for name, value in stored.items() if name in known}
    if not facts:
        facts = {"reason": _DIED if state == "failed" else "", "backbone": trial.params.get("backbone", "?")}
        facts |= {"image_size": (0, 0), "n_unfrozen": 0, "n_blocks": 0, "lr": trial.params.get("lr")}
        facts |= {"score": None, "latency_ms": None}
    elif state == "failed" and facts.get("reason") == "":
        facts["reason"] = _DIED
    facts["image_size"] = tuple(facts["image_size"])
    for name in ("rung_scores", "rung_at_s"):
        facts[name] = tuple(facts.get(name, ()))
    facts["train_scores"] = tuple(math.nan if value is None else value for value in facts.get("train_scores", ()))
    return Trial(number=trial.number, state=state, **facts)

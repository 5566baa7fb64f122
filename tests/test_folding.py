"""Few pictures: the front by folds, and what the choice stands on then."""

import re
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from tests.conftest import TINY, make_pictures
from tests.test_choosing import ACCURACY, trial

from autobackbone import Budget, Limits, open_run, retraining, select_backbone
from autobackbone.choosing import as_they_stand, front_of
from autobackbone.course import _screening_share
from autobackbone.data import PART_CODES, decode, folds_of, pooled, survey
from autobackbone.errors import RunError
from autobackbone.folding import cross_validate, expected_s, kept_s
from autobackbone.metrics import interval, score, standard_error
from autobackbone.progress import Silent
from autobackbone.records import Body
from autobackbone.runfolder import RunFolder
from autobackbone.search import evaluate, trialfiles
from autobackbone.search.costs import Costs
from autobackbone.search.evaluate import tidy
from autobackbone.search.foldheads import N_REPEATS, score_frozen

N_POOLED = 48


class Listens(Silent):
    """Keeps what is said."""

    def __init__(self):
        self.lines, self.stages = [], []

    def say(self, line):
        self.lines.append(line)

    def stage(self, name):
        self.stages.append(name)


def hard_pictures():
    """Every eighth label is wrong: nobody can be right on all of them."""
    pictures, labels = make_pictures(n_per_class=20)
    labels[::8] = (labels[::8] + 1) % 3
    return pictures, labels


@pytest.fixture(scope="module")
def search(tmp_path_factory, random_weights):
    def run(dataset, n_trials=0, wall_clock_s=None, **arguments):
        folder = tmp_path_factory.mktemp("folds")
        return select_backbone(
            dataset,
            Budget(n_trials=n_trials, wall_clock_s=wall_clock_s),
            **{
                "backbones": TINY,
                "weights": {TINY: random_weights(TINY)},
                "image_sizes": [64],
                "run_dir": folder / "run",
                "cache_dir": folder / "cache",
                "space": {"n_epochs": 4, "n_blocks_kept": None},
                "progress": False,
            }
            | arguments,
        )

    return run


@pytest.fixture(scope="module")
def searched(search):
    """All is easy here, so that a trained network ties with the frozen one, and both are on the front."""
    with pytest.MonkeyPatch.context() as patch:
        # Moved views hang on which pictures are stored together, and two ways to train on the same ones are compared.
        patch.setattr(evaluate, "N_VIEWS", 1)
        return search(make_pictures(n_per_class=20), n_trials=1)


def folded(result, number):
    return trialfiles.load_predictions(result._run, number, trialfiles.FOLDS)


def expected(result, predictions):
    """Score, standard error and interval of what was said in each repeat."""
    labels, metric = result._reader.pooled_labels(), result.metric
    value = np.mean([score(metric, said, labels) for said in predictions])
    error = np.mean([standard_error(metric, said, labels) for said in predictions])
    low, high = np.mean([interval(metric, said, labels) for said in predictions], axis=0)
    wider = np.hypot(1.0, 0.6 / np.sqrt(len(predictions)))
    return value, wider * error, (max(0.0, value - wider * (value - low)), min(1.0, value + wider * (high - value)))


def test_the_front_has_scores_by_folds_and_the_choice_stands_on_them(searched):
    assert searched.front
    labels = searched._reader.pooled_labels()
    assert len(labels) == N_POOLED
    for one in searched.front:
        predictions = folded(searched, one.number)
        # Heads alone are cheap; without a clock what is fine-tuned has one repeat.
        assert predictions.shape == (1 if one.n_unfrozen else N_REPEATS, N_POOLED, 3)
        value, error, ends = expected(searched, predictions)
        assert (one.fold_score, one.fold_se) == pytest.approx((value, error))
        assert (one.fold_score_low, one.fold_score_high) == pytest.approx(tuple(ends))
        assert one.test_score is not None
    assert f"by folds over {N_POOLED} pictures" in searched.choice.reason
    # What is chosen is a trial of the run, its validation score in place.
    assert searched.best == next(one for one in searched.trials if one.number == searched.best.number)
    assert searched.select("accuracy").fold_score == max(one.fold_score for one in searched.front)
    assert searched.knee() in searched.front
    assert re.search(r", folds 1\.000 ± 0\.01\d, test ", repr(searched))
    frame = searched.to_frame().set_index("number")
    assert frame.loc[searched.best.number, "fold_score"] == searched.best.fold_score
    again = open_run(searched.path)
    assert again.choice == searched.choice


def test_what_is_said_of_a_fold_is_what_a_training_without_it_says(searched, monkeypatch):
    """By the other way to train again, which stores each set of pictures for itself."""
    assert {one.n_unfrozen > 0 for one in searched.front} == {True, False}
    for one in searched.front:
        retrainer = searched._retrainer(one, None, searched.path.parent / "cache")
        bundle = retrainer.bundle
        members, folds = pooled(bundle), folds_of(bundle, seed=0)
        parts = bundle.parts.copy()
        parts[members] = PART_CODES["train"]
        parts[members[folds == 1]] = PART_CODES["validation"]
        without = replace(retrainer, bundle=replace(bundle, parts=parts, split_digest="without fold 1"))
        monkeypatch.setattr(retraining, "N_VIEWS", 1)
        by_hand = without.refitted(one, "train", None).validation
        np.testing.assert_allclose(folded(searched, one.number)[0][folds == 1], by_hand, atol=0.02)


def test_a_given_split_has_no_folds(search, tmp_path, capsys):
    pictures, labels = make_pictures(n_per_class=16)
    rows = []
    for index, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        file = tmp_path / f"{index}.png"
        Image.fromarray(picture).save(file)
        rows.append((str(file), ("train", "train", "val", "test")[index % 4], int(label)))
    result = search(pd.DataFrame(rows, columns=["file", "split", "label"]), progress=True)
    assert all(one.fold_score is None for one in result.trials)
    said = " ".join(capsys.readouterr().err.split())
    assert "36 pictures to train and validate on are few, but there are no folds: the validation part was given" in said
    assert "folds" not in result.choice.reason
    assert "folds" not in repr(result).split("in '")[0]


@pytest.mark.slow
def test_ctrl_c_in_folds_keeps_what_is_there_and_the_next_sitting_goes_on(search, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    dataset = make_pictures(n_per_class=20)
    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "N_VIEWS", 1)
        patch.setattr("autobackbone.folding._score_one", interrupted)
        result = search(dataset, n_trials=1)
        assert {one.fold_score is None: one.n_unfrozen for one in result.front} == {True: 1, False: 0}
        assert "Judged by folds" not in result.choice.reason
        assert "since 1 of 2 trials on the front have no score by folds" in result.choice.reason
    again = search(dataset, n_trials=1, run_dir=result.path, cache_dir=result.path.parent / "cache")
    assert all(one.fold_score is not None for one in again.front)
    assert len(again.trials) == len(result.trials)
    assert "by folds" in again.choice.reason


def test_frozen_networks_are_scored_by_folds_when_they_are_screened(search, monkeypatch):
    """And by these scores they stand on the front."""
    monkeypatch.setattr("autobackbone.folding._score_one", lambda *_: pytest.fail("their passes were enough"))
    space = {"n_unfrozen": 0, "n_blocks_kept": (3, 4)}
    result = search(hard_pictures(), image_sizes=[32], space=space)
    assert {one.n_blocks_kept for one in result.trials} >= {None, 4}
    for one in result.trials:
        predictions = folded(result, one.number)
        value, error, _ = expected(result, predictions)
        assert (one.fold_score, one.fold_se) == pytest.approx((value, error))
        assert one.fold_score < 1.0
        assert not np.array_equal(predictions[0], predictions[1])
    stood = as_they_stand(result.trials)
    assert [one.number for one in result.front] == [one.number for one in front_of(stood, result.metric, Limits())]
    assert all(one.test_score is not None for one in result.front)
    assert result.select("accuracy").fold_score == max(one.fold_score for one in result.trials)
    # What else is asked stands on the same scores.
    best = result.best_under(n_params=10**9)
    assert best.fold_score == max(one.fold_score for one in result.trials)
    assert result.optimism.of_best == pytest.approx(result.best.fold_score - result.best.test_score)
    assert " by folds, " in str(result.optimism)


@pytest.mark.slow
def test_folds_of_screening_are_those_of_a_pass_of_their_own(search, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("autobackbone.search.foldheads._SHARE", -1.0)  # no time for them
        late = search(hard_pictures())
    early = search(hard_pictures())
    (one,), (other,) = early.front, late.front
    assert len(folded(late, other.number)) == 1
    np.testing.assert_allclose(folded(early, one.number)[0], folded(late, other.number)[0], atol=1e-5)


@pytest.mark.slow
def test_time_that_is_left_repeats_the_folds(search, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(evaluate, "N_VIEWS", 1)
    result = search(make_pictures(n_per_class=20), n_trials=1, wall_clock_s=600, progress=True)
    (tuned,) = [one for one in result.trials if one.n_unfrozen]
    predictions = folded(result, tuned.number)
    assert predictions.shape == (N_REPEATS, N_POOLED, 3)
    assert (tuned.fold_score, tuned.fold_se) == pytest.approx(expected(result, predictions)[:2])
    told = capsys.readouterr().err
    again = f", over {N_REPEATS} repeats with other folds"
    assert f"trial {tuned.number} by folds{again}: accuracy {tuned.fold_score:.3f} ± " in told
    assert told.count(f"trial {tuned.number} by folds: accuracy ") == 1


def test_a_run_without_repeats_can_be_read(searched, tmp_path):
    number = searched.best.number
    shutil.copytree(searched.path, tmp_path / "run")
    old = open_run(tmp_path / "run")
    file = tmp_path / "run" / "trials" / f"{number:04d}" / trialfiles.FOLDS
    np.save(file, folded(searched, number)[0])
    assert old._reader.fold_predictions(searched.best).shape == (1, N_POOLED, 3)
    np.save(file, np.zeros((1, N_POOLED, 2), np.float32))
    with pytest.raises(RunError, match="damaged"):
        old._reader.fold_predictions(searched.best)


# The arithmetic of time: forward passes of 0.1 s a picture over 38 training and 10 validation pictures.
BODY = Body("net0", (96, 96), None)
FROZEN = replace(trial(0, 0.8, 1.0), train_seconds=4.8 + 2.0)  # its head took two seconds
TUNED = replace(
    trial(1, 0.9, 2.0),
    backbone="net0",
    n_unfrozen=2,
    lr=1e-3,
    rung_scores=(0.7, 0.8, 0.9, 0.9, 0.9),
    extras={"legs": [{"n_views": 3}], "n_epochs": 8},
)
PASS_S, SETUP_S, EPOCH_S = 1.6 * 4.8, 0.5, 2.0


@pytest.fixture
def shop(tmp_path):
    bundle = decode(survey(make_pictures(n_per_class=20)), [(16, 16)], cache_dir=tmp_path)
    costs = Costs(n_train=38, n_validation=10, n_blocks={BODY: 5}, forward_s={BODY: 0.1})
    costs.learn(TUNED_CANDIDATE, EPOCH_S, is_stored=True)
    trials = [FROZEN, TUNED]
    return SimpleNamespace(
        bundle=bundle,
        costs=costs,
        heads={BODY: (0, None)},
        fold_heads={},
        metric=ACCURACY,
        limits=Limits(),
        trials=lambda: trials,
        clock=SimpleNamespace(budget=Budget(wall_clock_s=1000)),
        reporter=Listens(),
        seed=0,
        folds_of=lambda trial: np.zeros((N_REPEATS, N_POOLED, 3)),
    )


TUNED_CANDIDATE = SimpleNamespace(body=BODY, n_unfrozen=2)
FROZEN_S = SETUP_S + PASS_S + 5 * 2.0
# A pass for each of three views, five fits of three epochs with their setup, a pass over what is scored.
TUNED_S = FROZEN_S + 3 * 4.8 + 5 * (1.5 + 3 * EPOCH_S) + PASS_S


def test_what_folds_take_is_known_before(shop):
    trials = shop.trials()
    assert expected_s(shop, FROZEN, trials) == pytest.approx(FROZEN_S)
    assert expected_s(shop, TUNED, trials) == pytest.approx(TUNED_S)
    paused = replace(TUNED, state="running")  # it may train to its end
    assert expected_s(shop, paused, trials) == pytest.approx(TUNED_S + 5 * 5 * EPOCH_S)


def test_the_search_keeps_it_back_up_to_a_quarter_of_the_budget(shop):
    both_s = FROZEN_S + TUNED_S
    assert kept_s(shop) == pytest.approx(both_s)
    # Folds that are too long for a quarter have no time kept: nobody could use it.
    shop.clock.budget = Budget(wall_clock_s=4 * (both_s - 1))
    assert kept_s(shop) == pytest.approx(TUNED_S)  # the better one
    shop.clock.budget = Budget(wall_clock_s=4 * (TUNED_S - 1))
    assert kept_s(shop) == pytest.approx(FROZEN_S)
    shop.clock.budget = Budget(n_trials=3)
    assert kept_s(shop) == 0.0
    shop.clock.budget = Budget(wall_clock_s=1000)
    done, waits = replace(FROZEN, fold_score=0.8), replace(TUNED, state="running")
    shop.trials = lambda: [done, waits]
    assert kept_s(shop) == pytest.approx(TUNED_S + 5 * 5 * EPOCH_S)
    shop.bundle = replace(shop.bundle, made=())
    assert kept_s(shop) == 0.0


def test_a_trial_that_does_not_fit_is_left_out_and_told(shop):
    starting = SimpleNamespace(start_s=lambda: 6.0)  # for what is fine-tuned, a worker process has to begin
    cross_validate(shop, [TUNED, FROZEN, replace(FROZEN, number=2, fold_score=0.8)], starting, left_s=lambda: 3.4)
    assert shop.reporter.stages == ["folds"]
    assert shop.reporter.lines == [
        f"trial 1 is not scored by folds: they take about {TUNED_S + 6:.0f} s, and 3 s are left for them",
        f"trial 0 is not scored by folds: they take about {FROZEN_S:.0f} s, and 3 s are left for them",
    ]


def test_a_head_on_a_part_of_the_pictures_is_not_scored_by_heads_on_all(shop):
    short = replace(FROZEN, extras={"fitted_share": 12 / 38})
    shop.trials = lambda: [short, TUNED]
    assert kept_s(shop) == pytest.approx(TUNED_S)
    cross_validate(shop, [short], SimpleNamespace(start_s=lambda: 0.0), left_s=lambda: 1000.0)
    score_frozen(shop, short, np.zeros((N_POOLED, 4), np.float32))
    (line,) = shop.reporter.lines
    assert re.fullmatch("trial 0 is not scored by folds: its own head was fitted on a part .* would be better", line)


def test_nothing_happens_where_no_folds_are_wanted(shop):
    shop.bundle = replace(shop.bundle, made=())
    cross_validate(shop, [FROZEN], SimpleNamespace(), left_s=lambda: 0.0)
    assert shop.reporter.stages == shop.reporter.lines == []


def test_where_nothing_is_fine_tuned_screening_has_nearly_all_time(shop):
    """Folds of frozen networks are part of it."""
    shop.space = SimpleNamespace(is_frozen_only=True)
    assert _screening_share(shop) == pytest.approx(0.9)


def test_a_trial_that_has_folds_keeps_its_network(tmp_path):
    """It may come back to the front by them, when another one's validation score has beaten it for good."""
    run = RunFolder(path=tmp_path)
    folded, better = replace(TUNED, fold_score=0.9), replace(TUNED, number=2, score=0.99)
    plain = replace(TUNED, number=3)
    for one in (folded, better, plain):
        trialfiles.save_weights(run, one.number, {"weight": torch.zeros(1)})
    trials = [folded, better, plain]
    shop = SimpleNamespace(run=run, metric=ACCURACY, trials=lambda: trials, rivals=lambda: trials, tidied=set())
    tidy(shop)
    kept = {one.number for one in (folded, better, plain) if trialfiles.has_weights(run, one.number)}
    assert kept == {folded.number, better.number}
    unfolded = replace(better, fold_score=0.5)
    front = front_of([folded, unfolded, plain], ACCURACY, Limits())
    assert [one.number for one in front] == [folded.number]  # not the third, whose network is gone

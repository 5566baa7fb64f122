"""A run that goes on: more time, and backbones that it did not know."""

from __future__ import annotations

import json
import shutil

import optuna
import pytest
from tests.conftest import TINY, make_pictures

from autobackbone import Budget, open_run, select_backbone
from autobackbone.errors import ArgumentError, BackboneError, RunError
from autobackbone.search.study import grown, open_study, read_trials

OTHER = "test_efficientnet.r160_in1k"
DATASET = make_pictures(n_per_class=30)


@pytest.fixture(scope="module")
def weights(random_weights):
    return {name: random_weights(name) for name in (TINY, OTHER)}


@pytest.fixture(scope="module")
def before(tmp_path_factory, weights):
    folder = tmp_path_factory.mktemp("more")
    return select_backbone(
        DATASET,
        Budget(n_trials=1),
        backbones=TINY,
        image_sizes=[32],
        weights=weights,
        run_dir=folder / "run",
        cache_dir=folder / "cache",
        space={"n_epochs": 2, "lr": (1e-4, 1e-2), "n_blocks_kept": 4},
        progress=False,
    )


@pytest.fixture
def copied(before, tmp_path):
    shutil.copytree(before.path, tmp_path / "run")
    run = open_run(tmp_path / "run")
    assert run.trials  # read before the run goes on
    return run, before.path.parent / "cache"


def same(trials, others):
    return [(one.number, one.body, one.state, one.score, one.lr) for one in trials] == [
        (one.number, one.body, one.state, one.score, one.lr) for one in others
    ]


def test_more_time_builds_on_what_was_tried(copied):
    run, cache = copied
    again = run.more(Budget(n_trials=1), dataset=DATASET, cache_dir=cache, progress=False)
    assert same(again.trials[: len(run.trials)], run.trials)
    assert len(again.trials) == len(run.trials) + 1
    assert again.path == run.path


def test_backbones_that_are_added_are_screened_and_tuned_beside_the_old_trials(copied):
    run, cache = copied
    again = run.more(Budget(n_trials=2), backbones=OTHER, dataset=DATASET, cache_dir=cache, progress=False)
    assert same(again.trials[: len(run.trials)], run.trials)
    new = again.trials[len(run.trials) :]
    assert {OTHER} <= {trial.backbone for trial in new if trial.n_unfrozen == 0}
    assert sum(trial.n_unfrozen > 0 for trial in new) == 2
    assert open_run(run.path).best == again.best
    # The old study stays as it was, the new one has all trials and the space that grew.
    names = optuna.get_all_study_names(f"sqlite:///{run.path / 'study.db'}")
    assert names == ["autobackbone", "autobackbone-2"]
    assert again.study.study_name == "autobackbone-2"
    choices = {trial.distributions["backbone"].choices for trial in again.study.trials if trial.params}
    assert choices == {(TINY, OTHER)}
    # Whoever goes on once more, also plainly, knows both.
    third = again.more(Budget(n_trials=0), dataset=DATASET, cache_dir=cache, progress=False)
    assert same(third.trials, again.trials)
    assert third.study.study_name == "autobackbone-2"


@pytest.mark.slow
def test_a_study_that_a_process_died_over_is_begun_anew(copied):
    run, cache = copied
    file = run.path / "study.db"
    optuna.create_study(storage=f"sqlite:///{file}", study_name="autobackbone-2", directions=["maximize", "minimize"])
    assert same(open_run(run.path).trials, run.trials)  # it holds nothing yet, and does not count
    again = run.more(Budget(n_trials=0), backbones=OTHER, dataset=DATASET, cache_dir=cache, progress=False)
    assert same(again.trials[: len(run.trials)], run.trials)
    assert again.study.study_name == "autobackbone-2"


def test_a_run_that_still_pauses_is_ended_first(copied):
    run, _ = copied
    study = open_study(run.path / "study.db", is_higher_better=True, metric_name="accuracy", seed=0)
    before = read_trials(study)
    study.ask(study.trials[0].distributions)
    wanted = {**study.trials[0].distributions, "backbone": optuna.distributions.CategoricalDistribution((TINY, OTHER))}
    with pytest.raises(RunError, match=r"still pause\. Continue it as it is first"):
        grown(study, wanted)
    assert same(read_trials(study)[: len(before)], before)


@pytest.mark.slow
def test_what_a_kill_left_running_does_not_keep_a_run_from_growing(copied):
    run, cache = copied
    study = open_study(run.path / "study.db", is_higher_better=True, metric_name="accuracy", seed=0)
    study.ask(study.trials[0].distributions)
    again = run.more(Budget(n_trials=0), backbones=OTHER, dataset=DATASET, cache_dir=cache, progress=False)
    assert OTHER in {trial.backbone for trial in again.trials}
    assert [trial.state for trial in again.trials].count("failed") == 1


def test_what_is_wanted_of_more_is_checked(copied, weights):
    run, cache = copied
    with pytest.raises(ArgumentError, match="give dataset=, as for the search"):
        run.more("1min", cache_dir=cache)
    with pytest.raises(ArgumentError, match="backbones is a name, a glob"):
        run.more("1min", dataset=DATASET, backbones=[3], cache_dir=cache)
    with pytest.raises(BackboneError, match="nonsense"):
        run.more("1min", dataset=DATASET, backbones="nonsense", cache_dir=cache, progress=False)
    pictures, labels = DATASET
    with pytest.raises(RunError, match="has changed"):
        run.more(Budget(n_trials=0), dataset=(pictures[::-1].copy(), labels), cache_dir=cache, progress=False)
    assert same(open_run(run.path).trials, run.trials)


@pytest.mark.parametrize(
    "facts",
    [{"arguments": {}}, {"arguments": 3}, {"asked": 3}, {"asked": {"channels": 3}}, {"weights": ...}],
)
def test_a_run_that_does_not_say_what_it_was_asked_is_damaged(copied, facts):
    run, cache = copied
    noted = json.loads((run.path / "run.json").read_text())
    noted = {name: value for name, value in (noted | facts).items() if value is not ...}
    (run.path / "run.json").write_text(json.dumps(noted))
    with pytest.raises(RunError, match="is damaged"):
        open_run(run.path).more("1min", dataset=DATASET, cache_dir=cache, progress=False)


def test_no_code_that_a_run_names_is_run(copied, tmp_path):
    run, cache = copied
    facts = json.loads((run.path / "run.json").read_text())
    marker = tmp_path / "marker"
    facts["metric"] = f"os:system {json.dumps({'command': f'touch {marker}'})}"
    (run.path / "run.json").write_text(json.dumps(facts))
    with pytest.raises(RunError, match="which is code"):
        open_run(run.path).more(Budget(n_trials=0), dataset=DATASET, cache_dir=cache, progress=False)
    assert not marker.exists()


@pytest.mark.slow
def test_what_lay_in_memory_is_asked_for(weights, tmp_path):
    names = [str(i // 2) for i in range(len(DATASET[0]))]
    asked = {"backbones": TINY, "image_sizes": [32], "weights": weights, "cache_dir": tmp_path / "cache"}
    asked["space"] = {"n_epochs": 1, "n_blocks_kept": None}
    run = select_backbone(DATASET, Budget(n_trials=0), groups=names, run_dir=tmp_path / "run", progress=False, **asked)
    with pytest.raises(ArgumentError, match=r"groups was one entry a picture, .* give groups="):
        run.more(Budget(n_trials=0), cache_dir=tmp_path / "cache")
    again = run.more(Budget(n_trials=1), groups=names, cache_dir=tmp_path / "cache", progress=False)
    assert len(again.trials) > len(run.trials)

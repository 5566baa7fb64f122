"""A new search that begins with what another one has found, on other pictures or the same."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial

import pytest
from PIL import Image
from safetensors.torch import load_file, save_file
from tests.conftest import TINY, command, make_pictures

from autobackbone import Budget, open_run, plan, select_backbone, shortlist
from autobackbone.errors import ArgumentError, RunError
from autobackbone.progress import Silent
from autobackbone.records import Candidate, Latency
from autobackbone.search.study import note_latencies, open_study, tell

OTHER = "test_efficientnet.r160_in1k"
SPACE = {"n_epochs": 1, "n_blocks_kept": None, "weight_decay": (1e-3, 1e-1)}


class Listens(Silent):
    """Keeps what is said."""

    def __init__(self):
        self.said = []

    def say(self, line):
        self.said.append(line)


def photos_of(folder, seed):
    """Files in given parts, which no folds mix."""
    pictures, labels = make_pictures(seed=seed)
    for number, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        file = folder / ("train", "train", "val", "test")[number % 4] / f"class {label}" / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(file)
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return photos_of(tmp_path_factory.mktemp("photos"), seed=0)


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    return photos_of(tmp_path_factory.mktemp("others"), seed=1)


@pytest.fixture(scope="module")
def weights(random_weights):
    return {name: random_weights(name) for name in (TINY, OTHER)}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def search(cache, weights):
    def run(dataset, budget, **arguments):
        given = {"backbones": [TINY, OTHER], "image_sizes": [32, 48], "weights": weights, "cache_dir": cache}
        return select_backbone(dataset, budget, **given | {"space": SPACE, "progress": False} | arguments)

    return run


FRONT = (
    Candidate(backbone=OTHER, image_size=(48, 48), n_unfrozen=2, lr=7e-4, extras={"weight_decay": 0.02, "n_epochs": 1}),
    Candidate(backbone=TINY, image_size=(32, 32), n_unfrozen=4, lr=2e-4, extras={"weight_decay": 0.05, "n_epochs": 1}),
)


def find(run, candidates):
    """As if a run had found these, better than all else and faster, the first one the fastest."""
    study = open_study(run.path / "study.db", is_higher_better=True, metric_name=run.metric.name, seed=0)
    for number, candidate in enumerate(candidates, 1):
        asked, ms = study.ask(study.trials[0].distributions), number / 1000
        trial = candidate.begun(5, latency_ms=ms)
        trial = replace(trial, number=asked.number, score=1 + number / 10, extras={**trial.extras, "legs": []})
        tell(study, replace(trial, n_epochs=1, rung_scores=(trial.score,)), "finished")
        latency = Latency(p50_ms=ms, p95_ms=ms, noise_ms=0.0, images_per_s=1.0, n_repeats=9)
        note_latencies(study, {candidate.body: latency})
    return open_run(run.path)


@pytest.fixture(scope="module")
def old(search, others, tmp_path_factory):
    """A run on other pictures, whose front is `FRONT`."""
    run_dir = tmp_path_factory.mktemp("old") / "run"
    run = find(search(others, Budget(n_trials=0), run_dir=run_dir), FRONT)
    assert [(trial.body, trial.lr) for trial in run.front] == [(one.body, one.lr) for one in FRONT]
    return run


@pytest.fixture
def copied(old, tmp_path):
    shutil.copytree(old.path, tmp_path / "old")
    return open_run(tmp_path / "old")


def tuned(run):
    return [trial for trial in run.trials if trial.n_unfrozen]


def asked(trial):
    extras = {name: trial.extras[name] for name in ("weight_decay", "n_epochs")}
    return Candidate(**trial.body._asdict(), n_unfrozen=trial.n_unfrozen, lr=trial.lr, extras=extras)


@pytest.mark.slow
def test_the_front_of_the_other_run_is_tried_first_and_only_its_candidates_come(search, photos, old, copied, tmp_path):
    given = {"run_dir": tmp_path / "run"}
    first = search(photos, Budget(n_trials=1), warm_start=copied, **given)
    # Each of the four pairs was screened here, those of the front before all others, and one trial was trained.
    assert [trial.body for trial in first.trials[:2]] == [one.body for one in FRONT]
    assert [trial.n_unfrozen for trial in first.trials] == [0, 0, 0, 0, 2]
    assert asked(first.trials[4]) == FRONT[0]
    known = {(trial.score, trial.latency_ms) for trial in copied.trials}
    assert not known & {(trial.score, trial.latency_ms) for trial in first.trials}
    assert first.trials[4].finished_at_s > 0
    # The next sitting knows the rest, though that run is gone; what it found is not tried again.
    shutil.rmtree(copied.path)
    again = search(photos, Budget(n_trials=2), **given)
    assert [asked(trial) for trial in tuned(again)[:2]] == list(FRONT)
    assert asked(tuned(again)[2]) not in FRONT
    assert len(again.trials) == 7
    assert f"#     warm_start={str(copied.path)!r}," in again.reproduce()
    assert "# It starts from the front of another run: should that have moved since" in again.reproduce()
    assert any(f"of 2 trials on the front of {str(copied.path)!r} is tried first" in note for note in again.notes)
    with pytest.raises(RunError, match=r"begun with warm_start=.*Leave it out to continue it"):
        search(photos, Budget(n_trials=1), warm_start=old, **given)


@pytest.mark.slow
def test_with_a_clock_too_the_front_is_tried_first(search, photos, old, tmp_path):
    """Each of its networks is trained as soon as it is screened, and nothing else before."""
    space = SPACE | {"n_epochs": 4}
    result = search(
        photos, Budget(wall_clock_s=90.0, n_trials=2), warm_start=old, run_dir=tmp_path / "run", space=space
    )
    known = [(one.body, one.n_unfrozen, one.lr) for one in FRONT]
    assert [(trial.body, trial.n_unfrozen, trial.lr) for trial in tuned(result)] == known
    # The first one was begun before all else was screened.
    assert tuned(result)[0].number < max(trial.number for trial in result.trials if not trial.n_unfrozen)


def files_of(cache):
    """What is stored there of pictures and activations, with what a file has that was written anew."""
    every = [file for name in ("data", "activations") for file in (cache / name).rglob("*.npy")]
    return {file.relative_to(cache): file.stat().st_ino for file in every}


@pytest.mark.slow
def test_what_is_stored_of_the_same_pictures_is_used_again_and_of_others_nothing(
    search, photos, others, weights, tmp_path
):
    given = {"cache_dir": tmp_path / "cache", "backbones": TINY, "image_sizes": 32, "space": SPACE | {"n_unfrozen": 2}}
    budget, begun = Budget(wall_clock_s=90.0, n_trials=1), {}

    def go_on(name, dataset, **more):
        begun[name] = search(dataset, budget, run_dir=tmp_path / name, **given | more)
        return files_of(given["cache_dir"])

    first = go_on("first", photos)
    assert {file.parts[0] for file in first} == {"data", "activations"}
    touched = {file: (given["cache_dir"] / file).stat().st_mtime_ns for file in first}
    # The same pictures, weights and split: whatever both need was there, and none of it was written again.
    assert go_on("same", photos, warm_start=begun["first"]) == first
    # What is used is used last of all.
    used = {file for file, ns in touched.items() if (given["cache_dir"] / file).stat().st_mtime_ns > ns}
    assert used == {file for file in first if file.parts[0] == "activations"}
    same, before = (tuned(begun[name])[0] for name in ("same", "first"))
    assert (same.body, same.n_unfrozen, same.lr) == (before.body, before.n_unfrozen, before.lr)
    # Other pictures: all of it is new, and what was there stays as it was.
    both = go_on("other", others, warm_start=begun["first"])
    new = {file for file in both if file not in first}
    assert {file: both[file] for file in first} == first
    assert len(new) == len(first)
    # Other weights: the pictures are the same, and each activation is new.
    other = tmp_path / "other.safetensors"
    save_file({name: 2 * tensor for name, tensor in load_file(weights[TINY]).items()}, other)
    last = go_on("weights", photos, warm_start=begun["first"], weights={TINY: other})
    assert {file: last[file] for file in both} == both
    assert {file.parts[0] for file in last if file not in both} == {"activations"}


@pytest.mark.slow
def test_backbones_that_a_shortlist_lacks_are_added(photos, old, weights, cache, monkeypatch):
    monkeypatch.setattr("autobackbone.preparing.shortlist", partial(shortlist, 1))
    asked = {"weights": weights, "cache_dir": cache, "progress": False}
    usual = plan(photos, "1min", **asked)
    assert len(usual.image_sizes) == 1
    warm = plan(photos, "1min", warm_start=old.path, **asked)
    assert warm.image_sizes.keys() == usual.image_sizes.keys() | {TINY, OTHER}
    assert f"{TINY} at" in str(warm)
    assert "on the front of the run that this one starts from" in str(warm)


def test_the_command_line_takes_the_folder(photos, old, weights):
    asked = ("select", photos, "--warm-start", old.path, "--backbone", f"{TINY},{OTHER}", "--image-size", 32)
    shown = command(*asked, "--weights", weights[TINY].parent, "--dry-run")
    assert shown.code == 0, shown.err
    assert "2 trials on the front of" in shown.out


@pytest.mark.slow
def test_what_lies_outside_the_new_search_is_taken_in_or_left_out_and_told(search, photos, old, tmp_path):
    lines, space = Listens(), SPACE | {"lr": (1e-3, 1e-2), "n_unfrozen": (1, 3), "weight_decay": 0.01}
    asked = {"backbones": TINY, "image_sizes": 48, "space": space, "warm_start": str(old.path), "progress": lines}
    (trial,) = tuned(search(photos, Budget(n_trials=1), run_dir=tmp_path / "run", **asked))
    assert (trial.body, trial.n_unfrozen, trial.lr) == ((TINY, (48, 48), None), 3, 1e-3)
    assert trial.extras["weight_decay"] == 0.01
    told = [line for line in lines.said if line.startswith("warm start: ")]
    gone, moved = (f"warm start: {told}" for told in (f"left out: {FRONT[0].body}, 2", f"{FRONT[1].body}, 4"))
    changes = "48x48 px, 3 unfrozen, lr 1.0e-03, weight_decay 0.01"
    assert told == [
        f"{gone} unfrozen, lr 7.0e-04: that backbone is not searched here",
        f"{moved} unfrozen, lr 2.0e-04 is tried with {changes}, to lie in this search",
    ]


def test_another_task_is_told_and_no_hindrance(photos, copied, weights, cache):
    facts = json.loads(copied._run.facts_file.read_text())
    copied._run.facts_file.write_text(json.dumps(facts | {"task": "regression", "metric": "os:system"}))
    asked = {"backbones": [TINY, OTHER], "weights": weights, "cache_dir": cache}
    planned = plan(photos, "1min", warm_start=copied.path, **asked)
    assert "warm start: that was a regression, and this is a classification" in str(planned)


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (lambda path: 3, ArgumentError, "warm_start is a Selection, the folder of a run, or None, not 3"),
        (lambda path: "", ArgumentError, "warm_start is the path of a folder, or None; there can be none at ''"),
        (lambda path: path / "none", ArgumentError, r"warm_start is .* there is no run\.json in"),
        (lambda path: path.parent / "run", ArgumentError, r"there is no run\.json in"),
        (lambda path: (path / "run.json").write_text("{") and path, RunError, r"run\.json' cannot be read"),
        (lambda path: (path / "study.db").unlink() or path, RunError, "the run has no study"),
        (lambda path: (path / "study.db").write_bytes(b"SQLite format 3\0") and path, RunError, "study.db"),
    ],
)
def test_a_run_that_cannot_be_used_is_told_before_anything_is_made(
    search, photos, copied, tmp_path, spoil, error, message
):
    given = {"warm_start": spoil(copied.path), "run_dir": tmp_path / "run"}
    with pytest.raises(error, match=message):
        search(tmp_path / "no pictures", Budget(n_trials=1), **given)
    assert not (tmp_path / "run" / "study.db").exists()


def test_a_run_that_found_nothing_and_one_that_is_the_same_are_told(search, photos, copied, tmp_path):
    with pytest.raises(ArgumentError, match="warm_start is another run than the one in run_dir"):
        search(photos, Budget(n_trials=1), warm_start=copied, run_dir=copied.path)
    copied._run.study_file.unlink()
    open_study(copied._run.study_file, is_higher_better=True, metric_name="accuracy", seed=0)
    with pytest.raises(RunError, match=r"no trial of .* has finished\. Go on with it first, or give another one"):
        search(photos, Budget(n_trials=1), warm_start=copied.path, run_dir=tmp_path / "run")


def test_what_a_run_says_of_the_front_it_began_from_is_data(search, photos, copied, tmp_path):
    facts = json.loads(copied._run.facts_file.read_text())
    noted = {"path": "/x", "task": "classification", "front": [{"backbone": "a\nb"}]}
    copied._run.facts_file.write_text(json.dumps(facts | {"warm_start": noted}))
    with pytest.raises(RunError, match=r"run\.json' is damaged: 'warm_start' cannot be read"):
        search(photos, Budget(n_trials=1), run_dir=copied.path)


@pytest.mark.slow
def test_a_cut_network_is_screened_before_longer_ones_and_tried_first(search, photos, copied, tmp_path):
    cut = Candidate(backbone=TINY, image_size=(32, 32), n_unfrozen=1, lr=3e-4, n_blocks_kept=2)
    run, space = find(copied, [cut]), SPACE | {"n_blocks_kept": (2, 4)}
    assert cut.body in {trial.body for trial in run.front}
    asked = {"backbones": TINY, "image_sizes": 32, "space": space, "warm_start": run, "run_dir": tmp_path / "run"}
    result = search(photos, Budget(n_trials=2), **asked)
    assert [trial.n_blocks_kept for trial in result.trials if not trial.n_unfrozen][:2] == [None, 2]
    known = {(one.body, one.n_unfrozen, one.lr) for one in (cut, FRONT[1])}
    assert {(trial.body, trial.n_unfrozen, trial.lr) for trial in tuned(result)} == known

"""Searches under a limit of latency that whole networks break, or of which nothing can tell whether they do."""

import json
import shutil

import pytest
from tests.conftest import TINY, make_pictures
from typer.testing import CliRunner

from autobackbone import Budget, Limits, Target, compare, open_run, select_backbone
from autobackbone.cli import app
from autobackbone.errors import LimitsError
from autobackbone.latency.remembered import LatencyBook
from autobackbone.records import Latency
from autobackbone.timings import Timing


@pytest.fixture(scope="module")
def asked(random_weights, tmp_path_factory):
    given = {"backbones": [TINY], "image_sizes": [32], "weights": {TINY: random_weights(TINY)}, "progress": False}
    given |= {"cache_dir": tmp_path_factory.mktemp("limits") / "cache", "limits": Limits(latency_ms=3)}
    return given | {"space": {"n_epochs": 1, "n_blocks_kept": (3, 4)}, "workers": 0}


def timing(latency_ms, n_blocks_kept=None, noise_ms=None):
    of = {"backbone": TINY, "image_size": (32, 32), "n_blocks_kept": n_blocks_kept}
    return Timing(**of, latency_ms=latency_ms, latency_noise_ms=noise_ms)


TABLE = Target(timings=(timing(3.76, noise_ms=0.95), timing(0.7, 3), timing(0.97, 4)), name="a phone")


@pytest.fixture(scope="module")
def run(asked, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    return select_backbone(make_pictures(), Budget(n_trials=1), target=TABLE, run_dir=folder, **asked).path


@pytest.fixture
def unkept(run, tmp_path):
    """The run, as if nothing of it kept its limit."""
    shutil.copytree(run, tmp_path / "run")
    file = tmp_path / "run" / "run.json"
    facts = json.loads(file.read_text())
    file.write_text(json.dumps(facts | {"limits": facts["limits"] | {"latency_ms": 0.5}}))
    return file.parent


def test_first_blocks_are_searched_where_the_whole_network_breaks_the_limit(run):
    found = open_run(run)
    assert {trial.n_blocks_kept for trial in found.trials} == {3, 4}
    assert {trial.n_unfrozen > 0 for trial in found.trials} == {False, True}
    assert found.best.latency_ms < 3


def test_a_run_of_which_nothing_keeps_the_limit_can_be_looked_at(unkept, tmp_path):
    found = open_run(unkept)
    why = "no trial of the front runs within 0.5 ms; the fastest takes 0.70 ms. "
    assert f"nothing is chosen: {why}" in repr(found)
    assert "latency_ms 0.7 is above the limit of 0.5" in repr(found)
    assert f"Nothing: {why}" in " ".join(found.explain().split())
    assert len(found.to_frame()) == len(found.trials) > 0
    assert "no trial of the front runs within 0.5 ms" in found.report(tmp_path / "r.html").read_text()
    assert found.plot().axes
    with pytest.raises(
        LimitsError, match=r"Give the run more time.*higher limits.*/run'\)\.more\(.*best_under\(0\.7\)"
    ):
        _ = found.best
    with pytest.raises(LimitsError, match=r"within 0\.5 ms"):
        found.predict(make_pictures(n_per_class=1)[0])
    assert found.best_under(0.7).latency_ms == 0.7
    assert f"nothing is chosen in {str(unkept)!r}: {why}" in str(compare(found, found))


def test_a_limit_of_the_slowest_passes_binds_the_choice_too(unkept):
    file = unkept / "run.json"
    facts = json.loads(file.read_text())
    file.write_text(json.dumps(facts | {"limits": facts["limits"] | {"latency_ms": None, "latency_p95_ms": 0.5}}))
    found = open_run(unkept)
    with pytest.raises(LimitsError, match=r"nothing that was tried keeps the limits; of the fastest, latency_p95_ms"):
        _ = found.best
    assert found.optimism is None
    # A limit of latency that is kept hides none that is not.
    file.write_text(json.dumps(facts | {"limits": facts["limits"] | {"latency_ms": 100, "n_params": 9}}))
    with pytest.raises(LimitsError, match=r"of the fastest, n_params .* its front is what can be had without the"):
        _ = open_run(unkept).best
    assert "There were limits: latency_p95_ms 0.5; nothing that was tried keeps them." in " ".join(
        found.explain().split()
    )


def test_show_prints_the_table_and_that_nothing_keeps_the_limit(unkept):
    shown = CliRunner().invoke(app, ["show", str(unkept), "--all"])
    assert shown.exit_code == 0
    lines = shown.output.splitlines()
    assert sum(TINY in line for line in lines) == len(open_run(unkept).trials)
    assert "trial 0: latency_ms 0.97 is above the limit of 0.5" in lines
    assert any(line.startswith("choose: nothing: no trial of the front runs within 0.5 ms") for line in lines)


def test_where_only_what_may_keep_the_limit_is_there_the_run_is_ended_and_kept(asked, tmp_path, monkeypatch):
    crowded = Latency(p50_ms=3.76, p95_ms=3.76, noise_ms=0.95, images_per_s=100.0, n_repeats=40)
    monkeypatch.setattr(LatencyBook, "measure", lambda *_, **__: crowded)
    given = asked | {"run_dir": tmp_path / "run", "space": {"n_unfrozen": 0, "n_blocks_kept": None}}
    with pytest.raises(LimitsError, match=r"within 3 ms; the fastest takes 3\.76 ms.*best_under\(3\.76\)"):
        select_backbone(make_pictures(), Budget(n_trials=0), **given)
    found = open_run(tmp_path / "run")
    assert [trial.latency_ms for trial in found.front] == [3.76]
    assert found.front[0].test_score is not None
    assert (found.path / "front.png").is_file()
    assert "Selection of 1 trial" in repr(found)


def test_what_another_run_has_left_of_first_blocks_does_not_take_their_turn(asked, tmp_path):
    pictures, budget = make_pictures(), Budget(n_trials=0, wall_clock_s=60)
    asked = asked | {"cache_dir": tmp_path / "cache", "limits": None}
    whole = select_backbone(pictures, budget, **asked, run_dir=tmp_path / "whole").trials[0]
    assert whole.n_blocks_kept is None
    asked["limits"] = Limits(n_params=whole.n_params - 1)
    found = select_backbone(pictures, budget, **asked, run_dir=tmp_path / "cut")
    assert found.best.n_blocks_kept == 4


@pytest.mark.slow
def test_what_only_may_keep_the_limit_is_not_tried_where_first_blocks_keep_it(asked, tmp_path, monkeypatch):
    def measure(book, network, name, *_, **__):
        p50_ms, noise_ms = (0.9, 0.01) if name != TINY else (3.76, 0.95)
        return Latency(p50_ms=p50_ms, p95_ms=p50_ms, noise_ms=noise_ms, images_per_s=100.0, n_repeats=40)

    monkeypatch.setattr(LatencyBook, "measure", measure)
    found = select_backbone(make_pictures(), Budget(n_trials=2), **asked, run_dir=tmp_path / "run")
    frozen = [trial.n_blocks_kept for trial in found.trials if trial.n_unfrozen == 0]
    assert frozen == [4, 3]
    assert all(trial.n_blocks_kept for trial in found.trials if trial.n_unfrozen > 0)
    assert found.best.n_blocks_kept

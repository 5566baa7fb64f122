"""Searches under a limit of latency that whole networks break, or of which nothing can tell whether they do."""

import pytest
from tests.conftest import TINY, make_pictures

from autobackbone import Budget, Limits, Target, open_run, select_backbone
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


def test_first_blocks_are_searched_where_the_whole_network_breaks_the_limit(run):
    found = open_run(run)
    assert {trial.n_blocks_kept for trial in found.trials} == {3, 4}
    assert {trial.n_unfrozen > 0 for trial in found.trials} == {False, True}
    assert found.best.latency_ms < 3


@pytest.mark.slow
def test_what_may_keep_the_limit_comes_last_and_is_not_trained_where_first_blocks_keep_it(asked, tmp_path, monkeypatch):
    def measure(book, network, name, *_, **__):
        p50_ms, noise_ms = (0.9, 0.01) if name != TINY else (3.76, 0.95)
        return Latency(p50_ms=p50_ms, p95_ms=p50_ms, noise_ms=noise_ms, images_per_s=100.0, n_repeats=40)

    monkeypatch.setattr(LatencyBook, "measure", measure)
    found = select_backbone(make_pictures(), Budget(n_trials=2), **asked, run_dir=tmp_path / "run")
    frozen = [trial.n_blocks_kept for trial in found.trials if trial.n_unfrozen == 0]
    assert frozen == [4, 3, None]
    assert all(trial.n_blocks_kept for trial in found.trials if trial.n_unfrozen > 0)
    assert found.best.n_blocks_kept

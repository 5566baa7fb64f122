import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from tests.conftest import TINY

from autobackbone.backbones.build import build, normalisation
from autobackbone.choosing import trial_line
from autobackbone.costrecord import CostRecord
from autobackbone.data import decode, survey
from autobackbone.errors import EpochTooLongError
from autobackbone.metrics import metric_for
from autobackbone.progress import Silent
from autobackbone.records import Body, Candidate
from autobackbone.runfolder import RunFolder
from autobackbone.screening import screen
from autobackbone.search.costs import Costs
from autobackbone.search.evaluate import NetworkEvaluator, end_paused
from autobackbone.search.space import Space
from autobackbone.search.study import open_study, read_trials, record
from autobackbone.training.activations import ActivationCache
from autobackbone.training.stores import Stores
from autobackbone.training.tuner import Tuner

SIZE = (32, 32)
CPU = torch.device("cpu")


class SlowSource:
    """A network of which each pass with gradients takes so many seconds, from its so-many-th on."""

    def __init__(self, pass_s, n_passes):
        self.pass_s, self.n_passes = pass_s, n_passes

    def network(self, backbone, image_size, n_blocks_kept=None):
        network = build(backbone, n_classes=3, image_size=image_size, seed=1, n_blocks_kept=n_blocks_kept)
        done = []

        def wait(_, arguments):
            if torch.is_grad_enabled():
                done.append(1)
                time.sleep(self.pass_s if len(done) > self.n_passes else 0)

        network.fc.register_forward_pre_hook(wait)
        return network

    def normalisation(self, backbone):
        return normalisation(backbone)

    def weights_digest(self, backbone):
        return backbone


def test_a_trial_that_only_paused_is_told_when_the_run_ends(tmp_path):
    space = Space(image_sizes={"net": (SIZE,)}, n_blocks={"net": 4})
    study = open_study(tmp_path / "study.db", is_higher_better=True, metric_name="accuracy", seed=0)
    begun = Candidate(backbone="net", image_size=SIZE, n_unfrozen=1, lr=1e-3).begun(4, latency_ms=1.0)
    asked = study.ask(space.distributions())
    record(study, replace(begun, number=asked.number, rung_scores=(0.5,), score=0.5, n_epochs=1))
    metric = metric_for("accuracy", n_outputs=2)
    run, clock, told = RunFolder(path=tmp_path), SimpleNamespace(run_s=lambda: 9.0), []
    shop = SimpleNamespace(study=study, run=run, clock=clock, tidied=set(), trials=lambda: read_trials(study))
    shop.rivals = shop.trials
    shop.tell = lambda trial: told.append(trial_line(trial, metric))
    end_paused(shop)
    (line,) = told
    assert line.endswith("lr 1.0e-03: stopped, the run ended while it paused after epoch 1")


@pytest.mark.parametrize("n_passes", [0, 8])  # slow when a step is timed, or only later
def test_a_trial_that_is_too_slow_teaches_how_slow_it_is(pictures, tmp_path, n_passes):
    bundle = decode(survey(pictures), [SIZE], cache_dir=tmp_path / "data")
    source = SlowSource(0.4, n_passes)
    cache = ActivationCache(folder=tmp_path / "activations", max_bytes=10**9)
    stores = Stores(bundle=bundle, source=source, cache=cache, device=CPU, seed=0)
    tuner = Tuner(stores=stores, score=lambda _: 0.0)
    screened = screen(source.network(TINY, SIZE), bundle, SIZE, normalisation(TINY), seed=0, device=CPU)
    n_train = len(bundle.indices("train"))
    shop = SimpleNamespace(
        stores=stores,
        costs=Costs(
            n_train=n_train, n_validation=8, n_blocks={Body(TINY, SIZE): 5}, forward_s={Body(TINY, SIZE): 1e-4}
        ),
        heads={Body(TINY, SIZE): (0, screened.head)},
        run=RunFolder(path=tmp_path / "run"),
        reporter=Silent(),
        record=CostRecord(),
        use_share=lambda: 0.0,
    )
    evaluator = NetworkEvaluator(shop=shop, tuner=tuner)
    wanted = Candidate(backbone=TINY, image_size=SIZE, n_unfrozen=2, lr=1e-3, extras={"batch_size": 2})
    left_s = 2.5
    assert evaluator.expected_s(wanted) < left_s
    training = evaluator.ready(1, wanted, time.monotonic() + left_s)
    with pytest.raises(EpochTooLongError, match=r"one epoch takes|inside the first epoch"):
        training.finished(training.train)
    # What could not end in this time is not asked again in it.
    assert evaluator.expected_s(wanted) > left_s


@pytest.mark.parametrize(
    ("n_epochs", "left_s", "n_views"),
    [
        (20, None, 4),
        (20, 21.0, 1),  # an epoch takes a second, twenty take it all, and a tenth is too little for a view of five
        (60, 60.0, 2),  # a tenth of it is enough for one
        (20, 26.0 + 1.5, 2),  # what training leaves is enough for one
        (20, 36.0 + 1.5, 4),
    ],
)
def test_moved_views_take_a_tenth_of_a_last_leg_or_what_training_leaves_of_it(monkeypatch, n_epochs, left_s, n_views):
    body, epoch_s, pass_s = Body(TINY, SIZE), 1.0, 5.0
    costs = Costs(n_train=100, n_validation=8, n_blocks={body: 5}, forward_s={body: pass_s / 100})
    wanted = Candidate(backbone=TINY, image_size=SIZE, n_unfrozen=2, lr=1e-3)
    costs.learn(wanted, epoch_s)
    stores = SimpleNamespace(is_stored=lambda *_: True)
    shop = SimpleNamespace(costs=costs, stores=stores, heads={body: (0, None)})
    evaluator = NetworkEvaluator(shop=shop, tuner=SimpleNamespace(n_epochs=lambda _: n_epochs, start_s=lambda: 0.0))
    monkeypatch.setattr("autobackbone.search.evaluate.time", SimpleNamespace(monotonic=lambda: 0.0))
    assert evaluator._n_views(wanted, left_s, 0) == n_views


def test_what_has_to_be_started_for_a_training_is_part_of_its_time():
    body = Body(TINY, SIZE)
    costs = Costs(n_train=100, n_validation=8, n_blocks={body: 5}, forward_s={body: 1e-3})
    shop = SimpleNamespace(costs=costs, stores=SimpleNamespace(is_stored=lambda *_: True), heads={body: (0, None)})
    wanted = Candidate(backbone=TINY, image_size=SIZE, n_unfrozen=2, lr=1e-3)
    warm_s, cold_s = (
        NetworkEvaluator(shop=shop, tuner=SimpleNamespace(start_s=lambda s=s: s)).expected_s(wanted) for s in (0.0, 6.0)
    )
    assert cold_s == pytest.approx(warm_s + 6)

"""A small bundle, a screened head and a tuner for what trains."""

from dataclasses import replace

import pytest
import torch
from tests.conftest import TINY

from autobackbone.backbones.build import build, normalisation
from autobackbone.data import decode, survey
from autobackbone.metrics import metric_for, score
from autobackbone.records import Candidate
from autobackbone.screening import screen
from autobackbone.training.activations import ActivationCache
from autobackbone.training.stores import Stores
from autobackbone.training.tuner import Tuner

SIZE = (32, 32)
CPU = torch.device("cpu")


class Source:
    def network(self, backbone, image_size, n_blocks_kept=None):
        return build(backbone, n_classes=3, image_size=image_size, seed=1, n_blocks_kept=n_blocks_kept)

    def normalisation(self, backbone):
        return normalisation(backbone)

    def weights_digest(self, backbone):
        return backbone


@pytest.fixture(scope="module")
def bundle(pictures, tmp_path_factory):
    return decode(survey(pictures), [SIZE], cache_dir=tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def screened(bundle):
    network = Source().network(TINY, SIZE)
    return screen(network, bundle, SIZE, normalisation(TINY), seed=0, device=CPU)


@pytest.fixture
def tuner(bundle, tmp_path):
    metric, labels = metric_for("log_loss", n_outputs=3), bundle.labels[bundle.indices("validation")]
    cache = ActivationCache(folder=tmp_path / "activations", max_bytes=10**9)
    stores = Stores(bundle=bundle, source=Source(), cache=cache, device=CPU, seed=0)
    return Tuner(
        stores=stores, score=lambda p: -score(metric, p, labels), score_passed=lambda p, of: -score(metric, p, of)
    )


def with_cache(tuner, folder, max_bytes):
    return replace(tuner, stores=replace(tuner.stores, cache=ActivationCache(folder=folder, max_bytes=max_bytes)))


def candidate(**changes):
    given = {"n_unfrozen": 1, "lr": 1e-3, "extras": {"n_epochs": 2}} | changes
    return Candidate(backbone=TINY, image_size=SIZE, **given)

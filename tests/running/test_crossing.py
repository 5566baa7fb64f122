import json

import numpy as np
import pytest
import torch
import torchmetrics
from PIL import Image
from tests.conftest import TINY, make_pictures

from autobackbone.backbones.source import BackboneSource
from autobackbone.backbones.weights import WeightSource
from autobackbone.convexhead import Head
from autobackbone.costrecord import CostRecord
from autobackbone.data import decode, excerpt, survey
from autobackbone.errors import ArgumentError, EpochTooLongError, TrialError, TrialMemoryError
from autobackbone.metrics import metric_for
from autobackbone.records import Candidate
from autobackbone.running.crossing import (
    is_within_reach,
    outcome_facts,
    outcome_of,
    read_dealt,
    read_job,
    read_setup,
    require_crossing,
    require_pictures,
    write_dealt,
    write_job,
    write_setup,
)
from autobackbone.running.failures import error_of, facts_of
from autobackbone.search.foldheads import Folds
from autobackbone.training.activations import ActivationCache
from autobackbone.training.fit import Outcome
from autobackbone.training.pausing import Leg
from autobackbone.training.stores import Settled, Stores
from autobackbone.training.tuner import Tuner

SIZE = (32, 32)


def tuner_on(bundle, folder, **given):
    source = BackboneSource({TINY: WeightSource(kind="file", path=folder / "net.pth")}, n_classes=3, seed=5)
    cache = ActivationCache(folder=folder / "activations", max_bytes=12345)
    stores = Stores(bundle=bundle, source=source, cache=cache, device=torch.device("cpu"), seed=7, **given)
    return Tuner(stores=stores, score=lambda _: 0.0, batch_norm="batch"), source


@pytest.fixture
def photos(tmp_path):
    """A folder of pictures, one of them under a name that is no valid text."""
    x, y = make_pictures(n_per_class=10)
    for number, (picture, label) in enumerate(zip(x, y, strict=True)):
        folder = tmp_path / "photos" / f"class {label}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / (f"{number}.png" if number else "\udcff.png"))
    return tmp_path / "photos"


@pytest.mark.parametrize("is_part", [True, False])
def test_a_tuner_is_made_again_from_what_was_written(photos, tmp_path, is_part):
    found = survey(photos)
    found = excerpt(found, 20, seed=0) if is_part else found
    # Nothing has room decoded: pictures of a folder are read again in the other process.
    bundle = decode(found, [SIZE], cache_dir=tmp_path / "cache", max_bytes=0)
    record = CostRecord(repeated={"step": ["float32", "bfloat16"]})
    tuner, source = tuner_on(bundle, tmp_path, record=record, owner="a run", precision="float32")
    record.note("step", "float32")
    write_setup(tmp_path, tuner, metric_for("log_loss", n_outputs=3), source)
    again = read_setup(tmp_path)
    there = again.stores.bundle
    np.testing.assert_array_equal(there.labels, bundle.labels)
    np.testing.assert_array_equal(there.parts, bundle.parts)
    for name in ("classes", "names", "digest", "split_digest", "preparation", "task", "max_bytes"):
        assert getattr(there, name) == getattr(bundle, name), name
    some = bundle.indices("train")[:3]
    np.testing.assert_array_equal(there.pixels(SIZE)[some], bundle.pixels(SIZE)[some])
    assert is_within_reach(there, SIZE)
    assert again.stores.cache == tuner.stores.cache
    assert (again.stores.seed, again.stores.owner, again.batch_norm) == (7, "a run", "batch")
    assert (again.stores.source.weights, again.stores.source.seed) == (source.weights, 5)
    assert again.stores.record.recalled("step") == "bfloat16"
    likely = np.full((len(bundle.indices("validation")), 3), 1 / 3, np.float32)
    assert again.score(likely) == pytest.approx(-np.log(3))
    require_pictures(bundle, [SIZE])


def test_pictures_in_memory_cross_where_they_are_decoded_and_nowhere_else(pictures, tmp_path):
    stored = decode(survey(pictures), [SIZE], cache_dir=tmp_path / "cache")
    tuner, source = tuner_on(stored, tmp_path)
    write_setup(tmp_path, tuner, metric_for("accuracy", n_outputs=3), source)
    there = read_setup(tmp_path).stores.bundle
    np.testing.assert_array_equal(there.pixels(SIZE)[:5], stored.pixels(SIZE)[:5])
    assert is_within_reach(there, SIZE)
    assert not is_within_reach(there, (48, 48))
    require_pictures(stored, [SIZE])
    encoded = decode(survey(pictures), [SIZE], cache_dir=tmp_path / "another", max_bytes=0)
    with pytest.raises(ArgumentError, match=r"decoded to 32x32 px they have no room.*workers=0"):
        require_pictures(encoded, [SIZE])


def test_a_metric_of_the_script_itself_is_refused(monkeypatch):
    import __main__

    monkeypatch.setattr(__main__, "make", torchmetrics.MeanSquaredError, raising=False)
    own = metric_for("__main__:make", "regression", n_outputs=1)
    with pytest.raises(ArgumentError, match=r"'__main__:make' is defined in the script.*workers=0"):
        require_crossing(own)


def test_a_metric_that_is_given_itself_crosses_as_text():
    own = metric_for(torchmetrics.MinkowskiDistance(p=3), "regression", n_outputs=1)
    require_crossing(own)
    assert metric_for(own.spec, "regression", n_outputs=1).name == "MinkowskiDistance"


@pytest.mark.parametrize("has_leg", [True, False])
def test_a_job_is_read_as_it_was_written(tmp_path, has_leg):
    leg = Leg(checkpoint=tmp_path / "checkpoint", n_before=1, pause_at=2) if has_leg else None
    extras = {"n_epochs": 3, "sampling": "balanced", "legs": [{"n_before": 0, "pause_at": None}]}
    wanted = Candidate(backbone=TINY, image_size=SIZE, n_unfrozen=2, lr=1.2345678901234567e-4, extras=extras)
    weight = np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3))
    head = Head(weight=weight, bias=np.ones(2, np.float32), strength=3.0)
    order = json.loads(json.dumps(write_job(tmp_path, wanted, head, leg)))
    candidate, read, again = read_job(tmp_path, order)
    assert (candidate, again) == (wanted, leg)
    np.testing.assert_array_equal(read.weight, weight)
    np.testing.assert_array_equal(read.bias, head.bias)


@pytest.mark.parametrize("is_dealt", [True, False])
def test_parts_that_were_dealt_are_read_as_they_were_written(pictures, tmp_path, is_dealt):
    bundle = decode(survey(pictures), [SIZE], cache_dir=tmp_path / "cache")
    tuner, source = tuner_on(bundle, tmp_path)
    write_setup(tmp_path, tuner, metric_for("accuracy", n_outputs=3), source)
    there = read_setup(tmp_path)
    folds = Folds.of(bundle, seed=0)
    wanted = tuner.dealt(folds.without[1], folds.pool).stores if is_dealt else tuner.stores
    found = read_dealt(tmp_path, json.loads(json.dumps(write_dealt(tmp_path, wanted))), there).stores
    assert (found is there.stores) != is_dealt
    for one, other in ((found.bundle, wanted.bundle), (found.held or found.bundle, wanted.held or wanted.bundle)):
        np.testing.assert_array_equal(one.parts, other.parts)
        assert one.split_digest == other.split_digest
    # So both look for the same stores.
    body = Candidate(backbone=TINY, image_size=SIZE, n_unfrozen=2).body
    assert found.record is there.stores.record
    assert found._order(0).tolist() == wanted._order(0).tolist()
    assert found.settled(body, 2) == wanted.settled(body, 2)


def test_an_outcome_is_read_as_it_was_written():
    outcome = Outcome(
        rung_scores=(0.5, 0.75),
        best_epoch=1,
        predictions=np.ones((2, 3), np.float32),
        weights={},
        seconds=1.5,
        n_epochs=2,
        is_cut_short=True,
        precision="bfloat16",
        n_planned=4,
        train_scores=(float("nan"), 0.5),
    )
    again = outcome_of(json.loads(json.dumps(outcome_facts(outcome))), outcome.predictions)
    assert repr(again) == repr(outcome)


@pytest.mark.parametrize("error", [TrialError("a"), TrialMemoryError("b"), EpochTooLongError("c", 1.5)])
def test_an_error_comes_back_as_the_same_class(error):
    again = error_of(json.loads(json.dumps(facts_of(error))))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert getattr(again, "epoch_s", None) == getattr(error, "epoch_s", None)


def test_a_bug_comes_back_with_its_trace():
    try:
        _ = 1 // 0
    except ZeroDivisionError as error:
        again = error_of(facts_of(error))
    assert type(again) is RuntimeError
    assert "_ = 1 // 0" in str(again)


def test_what_stores_have_settled_is_taken_over(pictures, tmp_path):
    bundle = decode(survey(pictures), [SIZE], cache_dir=tmp_path / "cache")
    one, other = (tuner_on(bundle, tmp_path, owner="a run")[0].stores for _ in range(2))
    body = Candidate(backbone=TINY, image_size=SIZE, n_unfrozen=2).body
    assert other.settled(body, 2) == Settled(is_verified=False, entry=None)
    one.settle(body, 2, Settled(is_verified=True, entry="layer3", n_at_once=4))
    other.settle(body, 2, Settled(**json.loads(json.dumps(one.settled(body, 2).to_json()))))
    assert other.settled(body, 2) == Settled(is_verified=True, entry="layer3", n_at_once=4)
    assert other.settled(body, 1) == Settled(is_verified=False, entry=None)
    # What others have not found out is no news.
    other.settle(body, 2, Settled(is_verified=False, entry=None))
    assert other.settled(body, 2) == one.settled(body, 2)

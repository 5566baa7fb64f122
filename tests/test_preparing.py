import inspect
import re
import time

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tests.backbones.test_weights import put_in_cache
from tests.conftest import TINY

from autobackbone import Budget, Limits, plan, preparing, select_backbone
from autobackbone.backbones.blocks import blocks_of
from autobackbone.backbones.build import build
from autobackbone.errors import LimitsError, MetricError, SpaceError, WeightsError
from autobackbone.opening import space_of
from autobackbone.preparing import prepare
from autobackbone.settings import as_settings

VIT = "test_vit.r160_in1k"
EMPTY = inspect.Parameter.empty
DEFAULTS = {name: one.default for name, one in inspect.signature(plan).parameters.items() if one.default is not EMPTY}
DEFAULTS |= {"space": {}}
DEFAULTS.pop("progress")


@pytest.fixture
def broken(tmp_path):
    """A folder of weights that fail whoever touches them."""
    (tmp_path / "weights").mkdir()
    for name in (TINY, VIT):
        (tmp_path / "weights" / f"{name}.safetensors").write_bytes(b"no weights")
    return {"backbones": [TINY, VIT], "weights": tmp_path / "weights", "cache_dir": tmp_path / "cache"}


def test_neither_a_plan_nor_the_space_reads_weights(broken, pictures):
    assert "backbones: 2, 2 with their image sizes" in str(plan(pictures, "1min", image_sizes=[32], **broken))
    prepared = prepare(as_settings(pictures, "1min", **DEFAULTS | broken))
    counted = {name: len(blocks_of(build(name, n_classes=3, image_size=(160, 160)))) for name in (TINY, VIT)}
    assert space_of(prepared).n_blocks == counted


def test_what_a_plan_measures_without_weights_is_not_remembered(broken, pictures):
    plan(pictures, "1min", **broken)
    assert not (broken["cache_dir"] / "latency.json").exists()


def test_files_that_the_user_gave_are_read_before_anything_is_made(broken, pictures, tmp_path):
    with pytest.raises(WeightsError, match="cannot be read as weights"):
        select_backbone(pictures, "1min", run_dir=tmp_path / "run", progress=False, **broken)
    assert not (tmp_path / "run" / "run.json").exists()


@pytest.mark.slow
def test_a_backbone_whose_weights_turn_out_to_be_broken_leaves_and_the_others_go_on(
    pictures, random_weights, tmp_path, monkeypatch, capsys
):
    """As after a download that broke off: a file of the hub's cache that cannot be read."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    put_in_cache(tmp_path / "hub", VIT, {}).write_bytes(b"no weights")
    given = {"weights": {TINY: random_weights(TINY)}, "cache_dir": tmp_path / "cache", "space": {"n_unfrozen": 0}}
    result = select_backbone(
        pictures, Budget(n_trials=0), backbones=[TINY, VIT], image_sizes=[32], run_dir=tmp_path / "run", **given
    )
    assert {trial.backbone for trial in result.trials} == {TINY}
    assert "left out: " in capsys.readouterr().err
    with pytest.raises(WeightsError, match="cannot be read as weights"):
        select_backbone(pictures, Budget(n_trials=0), backbones=VIT, run_dir=tmp_path / "none", **given)


def test_what_cannot_keep_the_limits_is_not_even_planned(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    planned = plan(pictures, "1min", limits=Limits(megabytes=18), cache_dir=tmp_path / "cache")
    assert set(planned.image_sizes) == {"tf_efficientnet_lite0.in1k", "tf_efficientnet_lite1.in1k"}
    assert "Left out: 1 with more parameters than the limits allow." in str(planned)


def test_where_no_whole_network_is_small_enough_first_blocks_are_planned(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    given = {"limits": Limits(megabytes=1.2), "cache_dir": tmp_path / "cache"}
    planned = plan(pictures, "1min", **given)
    assert len(planned.image_sizes) == 3
    assert "First blocks alone are tried, since no whole network is small enough: none of 3 " in str(planned)
    with pytest.raises(LimitsError, match=r"'tf_efficientnet_lite0\.in1k', .* parameters, 13\.5 MB, before a "):
        plan(pictures, "1min", **given, space={"n_blocks_kept": None})


def test_a_glob_leaves_out_what_cannot_be_loaded_and_a_name_must_be(pictures, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    made = plan(pictures, "1min", backbones="*lite0*", image_sizes=[32], cache_dir=tmp_path)
    assert list(made.image_sizes) == ["tf_efficientnet_lite0.in1k"]
    assert "left out, since their weights cannot be had here: 1, efficientnet_lite0.ra_in1k" in str(made)
    with pytest.raises(WeightsError, match=r"'efficientnet_lite0\.ra_in1k' are not on this machine"):
        plan(pictures, "1min", backbones=["*lite0*", "efficientnet_lite0"], image_sizes=[32], cache_dir=tmp_path)
    with pytest.raises(WeightsError, match="are not on this machine"):
        plan(pictures, "1min", backbones="resnet1*", image_sizes=[32], cache_dir=tmp_path)


@pytest.mark.slow
def test_where_one_pass_takes_too_long_a_fair_part_of_the_pictures_is_used(
    pictures, random_weights, tmp_path, monkeypatch
):
    given = {"backbones": TINY, "image_sizes": [32], "weights": random_weights(TINY), "cache_dir": tmp_path / "cache"}
    monkeypatch.setattr(preparing, "_ENOUGH_PICTURES", 20)
    assert "are used" not in str(plan(pictures, "10min", **given))
    monkeypatch.setattr(preparing, "_seconds_per_gmac", lambda *_: 1e9)
    assert "are used" not in str(plan(pictures, Budget(n_trials=3), **given))
    counts = plan(pictures, "10min", **given).counts
    assert 20 <= counts.to_numpy().sum() <= 24
    assert (counts["train"] >= 3).all()
    assert (counts.sum() >= 3).all()
    said = str(plan(pictures, "10min", **given))
    assert re.search(
        r"2\d of 42 pictures are used, .* one forward pass over all takes about [\d,]+ s. Give at least", said
    )
    result = select_backbone(pictures, "10s", run_dir=tmp_path / "run", progress=False, **given)
    assert len(pd.read_csv(tmp_path / "run" / "pictures.csv")) == counts.to_numpy().sum()
    # A run that goes on keeps its pictures, whatever a pass would take by now.
    monkeypatch.setattr(preparing, "_seconds_per_gmac", lambda *_: 1e-9)
    again = select_backbone(pictures, "5s", run_dir=tmp_path / "run", progress=False, **given)
    assert len(again.trials) >= len(result.trials)


@pytest.mark.slow
def test_a_hundred_thousand_pictures_and_two_minutes_give_a_usable_front(tmp_path):
    generator = np.random.default_rng(0)
    labels = generator.integers(10, size=100_000)
    colours = generator.integers(0, 256, (10, 1, 1, 3))
    pictures = (colours[labels] + generator.normal(0, 60, (100_000, 20, 20, 3))).clip(0, 255).astype(np.uint8)
    begun = time.monotonic()
    result = select_backbone((pictures, labels), "2min", run_dir=tmp_path / "run", cache_dir=tmp_path / "cache")
    assert time.monotonic() - begun < 126
    assert result.best.score > 0.5
    assert len(result.trials) >= 2
    assert result.predict(pictures[:3]).shape == (3,)
    assert "of 100,000 pictures are used" in str(plan((pictures, labels), "2min", cache_dir=tmp_path / "cache"))


@pytest.mark.parametrize("space", [{"n_unfrozen": 99}, {"n_blocks_kept": 99}])
def test_a_plan_refuses_what_a_search_would(broken, pictures, space):
    with pytest.raises(SpaceError, match=r"99.* came"):
        plan(pictures, "1min", space=space, **broken)


@pytest.mark.parametrize(("n_rare", "is_told"), [(10, True), (24, False)])
def test_a_plan_tells_of_uneven_classes(broken, n_rare, is_told):
    images = np.random.default_rng(0).integers(0, 256, (100 + n_rare, 8, 8), np.uint8)
    made = plan((images, ["common"] * 100 + ["rare"] * n_rare), "1min", **broken)
    lines = [line for line in made.notes if "uneven classes" in line]
    assert len(lines) == is_told
    assert all(
        "64 pictures to train on of 'common', 6 of 'rare'; plain accuracy mostly tells" in line for line in lines
    )


def test_balancing_needs_classes_and_says_what_it_leaves(broken):
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8), np.uint8)
    numbers, several = np.linspace(0, 1, 40), np.tile([[0, 1], [1, 0], [1, 1], [0, 0]], (10, 1))
    for space in ({"class_weights": "balanced"}, {"sampling": ["none", "balanced"]}):
        with pytest.raises(SpaceError, match=r"balances classes, and numbers to predict have none\. Leave it out"):
            plan((images, numbers), "1min", space=space, **broken)
    with pytest.raises(SpaceError, match=r"several labels at once\. Take 'class_weights' instead"):
        plan((images, several), "1min", space={"sampling": "balanced"}, **broken)
    notes = plan((images, several), "1min", space={"class_weights": ["none", "balanced"]}, **broken).notes
    assert any("class_weights is searched for fine-tuned trials; frozen ones keep unweighted heads" in x for x in notes)
    notes = plan((images, ["a", "b"] * 20), "1min", space={"sampling": "balanced"}, **broken).notes
    assert any("sampling concerns fine-tuned trials" in line for line in notes)


def test_where_nothing_is_tuned_screening_has_the_time(broken, pictures):
    heads, tuned = (plan(pictures, "30s", space=space, **broken) for space in ({"n_unfrozen": 0}, {}))
    assert heads.stage_seconds["search"] == 0
    assert heads.stage_seconds["screen"] > tuned.stage_seconds["screen"]


def test_folds_are_in_the_plan_where_pictures_are_few(broken, pictures):
    few = plan(pictures, "60s", **broken).stage_seconds
    assert 0 < few["folds"] <= 0.25 * 60
    heads = plan(pictures, "60s", space={"n_unfrozen": 0}, **broken).stage_seconds
    assert "folds" not in heads  # those of frozen networks come with their pass
    images = np.random.default_rng(0).integers(0, 256, (700, 8, 8), np.uint8)
    assert "folds" not in plan((images, ["a", "b"] * 350), "60s", **broken).stage_seconds


def test_a_metric_that_no_network_could_have_is_told_before_the_search(broken, tmp_path):
    names, kinds = [str(tmp_path / f"{index}.png") for index in range(60)], ["ant", "bee", "cat"] * 20
    for name in names:
        Image.new("RGB", (8, 8)).save(name)
    parts = ["val" if index % 6 == 0 else "train" for index in range(60)]
    table = pd.DataFrame({"file": names, "label": kinds, "split": parts})
    with pytest.raises(
        MetricError, match=r"auroc is not defined on the \d+ validation pictures, whatever a network says"
    ):
        plan(table, "1min", metric="auroc", **broken)
    assert plan(table, "1min", **broken).metric == "accuracy"


def test_a_name_of_two_lines_stays_on_one(broken, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8), np.uint8)
    made = plan((images, ["a\nb", "c"] * 20), "1min", **broken)
    assert "a\\nb 20, c 20" in str(made)

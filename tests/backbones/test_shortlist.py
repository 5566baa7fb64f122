import re
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from huggingface_hub import constants
from hypothesis import given, settings
from hypothesis import strategies as st

from autobackbone.backbones.catalogue import catalogue
from autobackbone.backbones.names import architecture_of, family_of, resolve_names
from autobackbone.backbones.prospects import merits, prospects
from autobackbone.backbones.shortlist import shortlist
from autobackbone.backbones.tensors import count_body_params
from autobackbone.errors import BackboneError, LimitsError, WeightsError
from autobackbone.records import Limits, Target

CPU, CUDA = Target(device="cpu"), Target(device="cuda")
LITES = tuple(f"tf_efficientnet_lite{number}.in1k" for number in (0, 1, 2))


@pytest.fixture(autouse=True)
def no_network(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@pytest.fixture(scope="module")
def table():
    return catalogue().set_index("name", drop=False)


# Without a network


def test_without_a_network_it_holds_what_can_be_loaded_and_says_so():
    found = shortlist()
    assert set(found) == set(LITES)
    assert found.notes == ("Only what can be loaded here without a network: 3 of 1,826 backbones.",)
    assert found.notes[0] in str(found)


def test_the_users_own_files_join_in(tmp_path):
    for name in ("resnet50.a1_in1k.safetensors", "lowformer_b0.pth"):
        (tmp_path / name).touch()
    found = shortlist(weights=tmp_path)
    assert set(found) == {*LITES, "resnet50.a1_in1k", *resolve_names("lowformer_b0")}


def test_nothing_loadable_names_the_three_ways():
    with pytest.raises(WeightsError, match=r"weights=.*autobackbone\[offline\].*Hugging Face cache"):
        shortlist(among="resnet*")


# With everything loadable


@settings(deadline=None, max_examples=8)
@given(k=st.integers(1, 16), target=st.sampled_from([CPU, CUDA]), licences=st.sampled_from(["any", "commercial"]))
def test_laws_of_every_shortlist(table, k, target, licences):
    found = shortlist(k, target=target, licences=licences, loadable_only=False)
    rows = table.loc[list(found)]

    assert len(found) == len(set(found)) == k
    assert len({architecture_of(name) for name in found}) == k
    assert max(Counter(map(family_of, found)).values()) <= 2
    merit = [pick.merit for pick in found.picks]
    assert merit == sorted(merit, reverse=True)
    assert abs(rows["top1"].isna().sum() - k / 4) <= 0.5
    assert not (rows["n_params"] > 400e6).any()
    assert rows["input_size"].map(max).max() <= 512
    if licences == "commercial":
        assert rows["licence_allows_commercial"].all()
    assert shortlist(k, target=target, licences=licences, loadable_only=False) == found


@pytest.mark.parametrize(("target", "column"), [(CPU, "cpu_images_per_s"), (CUDA, "gpu_images_per_s")])
def test_it_spreads_over_the_speeds_of_a_like_device(table, target, column):
    found = shortlist(12, target=target, loadable_only=False)
    speeds = table.loc[list(found), column].dropna()
    tenth, ninetieth = np.quantile(table[column].dropna(), [0.25, 0.75])
    assert speeds.min() < tenth
    assert speeds.max() > ninetieth
    assert any("i9-10940X" in pick.why for pick in found.picks) == (target is CPU)
    assert any("RTX 4090" in pick.why for pick in found.picks) == (target is CUDA)


@settings(deadline=None, max_examples=15)
@given(data=st.data())
def test_every_name_asked_for_is_there_if_there_are_seats(table, data):
    names = data.draw(st.lists(st.sampled_from(list(table["name"])), min_size=1, max_size=8, unique=True))
    assert set(shortlist(len(names), among=names, loadable_only=False)) == set(names)


def test_a_family_gets_a_third_seat_only_when_others_had_theirs():
    names = [*resolve_names("efficientnet_b[0-4]"), "resnet50.a1_in1k", "convnext_tiny.fb_in1k"]
    four = shortlist(4, among=names, target=CPU, loadable_only=False)
    assert {"resnet50.a1_in1k", "convnext_tiny.fb_in1k"} < set(four)
    assert Counter(map(family_of, shortlist(6, among=names, loadable_only=False)))["efficientnet"] == 4


def test_a_licence_that_does_not_allow_commercial_use_is_always_shown(table):
    restricted = list(table[~table["licence_allows_commercial"]]["name"])[:40]
    for line in str(shortlist(40, among=restricted, loadable_only=False)).splitlines():
        assert "commercial use not known to be allowed" in line
    free = shortlist(2, among=["resnet50.a1_in1k", "inception_v3.tv_in1k"], loadable_only=False)
    assert "commercial" not in str(free)
    with pytest.raises(BackboneError, match="no backbone is left"):
        shortlist(among=restricted, licences="commercial", loadable_only=False)


def test_networks_without_published_results_get_seats_with_a_prior(table):
    picks = [pick for pick in shortlist(12, loadable_only=False).picks if pd.isna(table.loc[pick.name, "top1"])]
    assert len(picks) == 3
    assert all("no published results" in pick.why for pick in picks)
    # A family of which nothing at all is published, and whose parameters nobody has published either.
    newest = shortlist(3, among="lowformer_b[013]", loadable_only=False)
    assert set(newest) == set(resolve_names("lowformer_b[013]"))


def test_towers_of_language_models_and_segmenters_are_taken_only_when_asked_for(table):
    rows = prospects(table, "cpu_images_per_s")
    others = set(rows.loc[~rows["is_classifier_family"], "family"])
    assert {"hieradet_sam2", "vision_transformer_sam"} <= others
    assert not {"resnet", "vision_transformer", "lowformer"} & others
    assert shortlist(1, among="sam2_hiera_tiny", loadable_only=False).names[0].startswith("sam2_hiera_tiny")


@pytest.mark.parametrize("k", [0, -1, 2.5, True])
def test_k_is_a_whole_number_above_zero(k):
    with pytest.raises(BackboneError, match="whole number of at least 1"):
        shortlist(k)


def test_licences_is_one_of_two_words():
    with pytest.raises(BackboneError, match="licences must be 'any' or 'commercial', not 'free'"):
        shortlist(licences="free")  # type: ignore[arg-type]


# Limits


@pytest.mark.parametrize(("limits", "n_allowed"), [(Limits(n_params=20e6), 20e6), (Limits(megabytes=360), 90e6)])
def test_who_breaks_a_limit_takes_no_seat(limits, n_allowed):
    found = shortlist(5, limits=limits, target=CPU, loadable_only=False)
    assert len(found) == 5
    assert all(count_body_params(name) <= n_allowed for name in found)
    assert re.fullmatch(r"Left out: \d{3} with more parameters than the limits allow\.", found.notes[-1])


def test_limits_that_all_keep_change_nothing():
    free = shortlist(12, target=CPU, loadable_only=False)
    largest = max(count_body_params(name) for name in free)
    assert shortlist(12, among=list(free), limits=Limits(n_params=largest), loadable_only=False).notes == ()
    wide = Limits(n_params=1e10, megabytes=1e5, latency_ms=0.001, latency_p95_ms=0.001)
    assert shortlist(12, target=CPU, limits=wide, loadable_only=False) == free


def test_the_classifier_that_is_replaced_does_not_count(table):
    name = "tinynet_e.in1k"
    assert table.loc[name, "n_params"] > 2e6
    assert shortlist(1, among=name, limits=Limits(n_params=0.8e6), loadable_only=False).names == (name,)


def test_sizes_that_nobody_published_are_counted(table):
    names = resolve_names("lowformer_b[013]")
    assert table[table["name"].isin(names)]["n_params"].isna().all()
    sizes = {name: count_body_params(name) for name in names}
    smallest = min(names, key=sizes.__getitem__)
    found = shortlist(3, among=names, limits=Limits(n_params=sizes[smallest]), loadable_only=False)
    assert found.names == (smallest,)
    assert found.notes == ("Left out: 2 with more parameters than the limits allow.",)
    with pytest.raises(LimitsError, match=r"none of 3 backbones keeps n_params=1000; 'lowformer_b"):
        shortlist(3, among=names, limits=Limits(n_params=1000), loadable_only=False)


def test_limits_that_nobody_keeps_name_the_smallest():
    with pytest.raises(
        LimitsError, match=r"none of 3 backbones keeps megabytes=1; 'tf_efficientnet_lite0.in1k', the sm"
    ):
        shortlist(limits=Limits(megabytes=1))


# Merit


@given(
    speed=st.lists(st.floats(0.1, 1e5), min_size=6, max_size=30, unique_by=lambda value: round(np.log2(value), 2)),
    gain=st.floats(0.1, 10),
)
def test_merit_rewards_accuracy_at_equal_speed_and_ignores_the_unit_of_speed(speed, gain):
    seconds = np.array(speed)
    top1 = 80 - np.log2(seconds)
    raised = np.concatenate([top1, top1[:1] + gain])
    doubled = np.concatenate([seconds, seconds[:1]])
    found = merits(doubled, raised)
    assert found[-1] - found[0] == pytest.approx(gain, abs=1e-6)
    assert found.mean() == pytest.approx(0, abs=1e-6)
    np.testing.assert_allclose(merits(doubled * 1000, raised), found, atol=1e-6)


def test_every_backbone_has_a_merit_and_priors_lie_within_the_known(table):
    rows = prospects(table, "cpu_images_per_s")
    assert rows["merit"].notna().all()
    known = rows.loc[rows["is_compared"], "merit"]
    assert rows["merit"].between(known.min(), known.max()).all()
    assert not (rows["is_new"] & rows["is_compared"]).any()
    # Better pre-training data speak for a network of which nothing else is known.
    prior = rows[~rows["is_compared"]].groupby("pretraining")["merit"].median()
    assert prior["in12k"] > prior["in1k"]

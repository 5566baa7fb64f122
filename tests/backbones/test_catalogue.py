import time
from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
from hypothesis import given, settings
from hypothesis import strategies as st

import autobackbone.backbones
from autobackbone.backbones import facts
from autobackbone.backbones.catalogue import catalogue, info
from autobackbone.backbones.licences import allows_commercial, licence_note, pretraining_of
from autobackbone.backbones.names import pretrained_names
from autobackbone.errors import BackboneError
from autobackbone.records import BackboneInfo

COLUMNS = [
    "name",
    "architecture",
    "tag",
    "family",
    "top1",
    "top5",
    "n_params",
    "gmacs",
    "file_megabytes",
    "cpu_images_per_s",
    "gpu_images_per_s",
    "train_images_per_s",
    "input_size",
    "licence",
    "licence_allows_commercial",
    "pretraining",
    "loadable",
]


@pytest.fixture(scope="module")
def table():
    return catalogue().set_index("name", drop=False)


def test_every_pretrained_network_of_timm_is_there_once(table):
    assert list(table.columns) == COLUMNS
    assert list(table["name"]) == timm.list_pretrained()
    assert table["name"].is_unique


# Cells read by a person in timm's own tables: accuracy, then the benchmarks at the same image size.
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet50.a1_in1k", (80.382, 94.598, 25_560_000, 4.11, 67.2, 4302.84, 1218.01, (224, 224))),
        ("efficientnet_b0.ra_in1k", (77.698, 93.538, 5_290_000, 0.4, 100.41, 8794.71, 1751.72, (224, 224))),
        ("inception_v3.tf_adv_in1k", (77.598, 93.726, 23_830_000, 5.73, 43.48, 3636.22, 782.35, (299, 299))),
        ("resnet50.tv2_in1k", (79.434, 94.640, 25_560_000, 2.62, 74.75, 6828.7, np.nan, (176, 176))),
    ],
)
def test_documented_cells(table, name, expected):
    columns = ["top1", "top5", "n_params", "gmacs", *facts.SPEEDS, "input_size"]
    found = tuple(table.loc[name, columns])
    assert found[-1] == expected[-1]
    np.testing.assert_allclose(np.array(found[:-1], dtype=float), np.array(expected[:-1], dtype=float))


def test_parameters_written_with_a_comma_are_read(table):
    assert table.loc["regnety_2560.seer_ft_in1k", "n_params"] == 1_282_600_000
    assert table.loc["eva_giant_patch14_560.m30m_ft_in22k_in1k", "n_params"] == 1_014_450_000


def test_numbers_are_possible(table):
    published = table.dropna(subset="top1")
    assert len(published) == 1266
    assert published["top1"].between(20, 100).all()
    assert (published["top5"] >= published["top1"]).all()
    for column in ("n_params", "gmacs", "file_megabytes", *facts.SPEEDS):
        assert (table[column].dropna() > 0).all(), column
    np.testing.assert_allclose(
        table["file_megabytes"].to_numpy(float), table["n_params"].to_numpy(float, na_value=np.nan) * 4 / 1e6
    )


def test_benchmarks_are_joined_on_the_part_before_the_dot(table):
    # Without that join no name would find its speed, since timm's names carry tags and the benchmarks do not.
    assert table["gpu_images_per_s"].notna().mean() > 0.9
    assert table["cpu_images_per_s"].notna().mean() > 0.8
    at_own_size = [(row.architecture, row.input_size[0]) for row in table.dropna(subset="gmacs").itertuples()]
    assert set(at_own_size) <= set(facts.speed().index)


def test_unpublished_networks_are_missing_values_not_guesses(table):
    unpublished = table[table["top1"].isna()]
    assert len(unpublished) == len(table) - 1266
    assert table["n_params"].isna().any()
    assert table["n_params"].dtype == "Int64"


def test_licences(table):
    by_licence = table.groupby("licence")["licence_allows_commercial"].agg(["all", "any"])
    assert by_licence.loc[["apache-2.0", "mit", "bsd-3-clause"], "all"].all()
    assert not by_licence.loc[[name for name in by_licence.index if "nc" in name or "research" in name], "any"].any()
    assert not table.loc[table["licence"].isna(), "licence_allows_commercial"].any()
    assert "unknown" not in set(table["licence"])


@settings(deadline=None)
@given(st.one_of(st.none(), st.text(max_size=20), st.sampled_from(["mit", "cc-by-nc-4.0", "apache-2.0"])))
def test_a_licence_is_shown_unless_it_is_known_to_allow_commercial_use(licence):
    assert (licence_note(licence) == "") == allows_commercial(licence)
    if not allows_commercial(licence):
        assert (licence or "unknown") in licence_note(licence)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet50.a1_in1k", "in1k"),
        ("vit_base_patch16_224.augreg2_in21k_ft_in1k", "in21k+in1k"),
        ("vit_small_patch14_dinov2.lvd142m", "lvd142m"),
        ("tf_efficientnet_b0.ns_jft_in1k", "jft+in1k"),
        ("convnext_base.fb_in22k_ft_in1k_384", "in22k+in1k"),
        ("vit_base_patch16_224.mae", None),
    ],
)
def test_pretraining_is_read_from_the_tag(name, expected):
    assert name in pretrained_names()
    assert pretraining_of(name) == expected


def test_what_is_loadable_follows_the_weights_given(table, tmp_path):
    (tmp_path / "resnet50.a1_in1k.safetensors").touch()
    given_weights = catalogue(weights=tmp_path).set_index("name")["loadable"]
    assert given_weights["resnet50.a1_in1k"] == "file"
    assert given_weights["tf_efficientnet_lite0.in1k"] == "package"
    others = given_weights.index != "resnet50.a1_in1k"
    pd.testing.assert_series_equal(given_weights[others], table["loadable"][others], check_index_type=False)


def test_a_changed_copy_does_not_change_the_catalogue(table):
    changed = catalogue()
    changed["top1"] = 0.0
    pd.testing.assert_frame_equal(catalogue(), table.reset_index(drop=True))


def test_it_is_quick_once_loaded():
    catalogue()
    began = time.perf_counter()
    catalogue()
    assert time.perf_counter() - began < 2


# No deadline, here and below: the first call reads the tables, and cores are shared.
@settings(deadline=None, max_examples=30)
@given(name=st.sampled_from(pretrained_names()))
def test_info_is_the_catalogues_row(table, name):
    found = info(name)
    assert isinstance(found, BackboneInfo)
    row = table.loc[name].rename({"input_size": "image_size", "loadable": "source"})
    for field in fields(found):
        value, cell = getattr(found, field.name), row[field.name]
        assert value == cell or (value is None and pd.isna(cell)), field.name


def test_info_takes_an_architecture_and_refuses_a_glob():
    assert info("resnet50") == info("resnet50.a1_in1k")
    with pytest.raises(BackboneError, match=r"one backbone was wanted, 'resnet1\*' matches"):
        info("resnet1*")
    with pytest.raises(BackboneError, match="Did you mean"):
        info("resnet_50")


def test_the_packed_tables_are_small_sorted_unique_and_name_their_source():
    for packed in (facts.accuracy(), facts.speed()):
        assert packed.index.is_unique
        assert packed.index.is_monotonic_increasing
    folder = Path(autobackbone.backbones.__file__).parent / "tables"
    assert sum(path.stat().st_size for path in folder.iterdir()) < 100_000
    told = (folder / "FACTS.md").read_text(encoding="utf-8")
    assert "Apache License 2.0" in told
    assert "aa4b5850" in told
    assert all(column in told for column in facts.speed().columns)

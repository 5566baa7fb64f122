import fnmatch

import pytest
import timm
from hypothesis import given, settings
from hypothesis import strategies as st

from autobackbone.backbones.names import (
    architecture_of,
    default_names,
    family_of,
    pretrained_cfg,
    pretrained_names,
    resolve_names,
)
from autobackbone.errors import BackboneError

full_names = st.sampled_from(pretrained_names())


@settings(deadline=None)
@given(st.lists(full_names, min_size=1, max_size=6))
def test_full_names_stand_for_themselves_once_and_in_order(names):
    assert resolve_names(names) == tuple(dict.fromkeys(names))


@settings(deadline=None)
@given(st.lists(st.one_of(full_names, full_names.map(architecture_of), st.just("resnet1*")), min_size=1, max_size=4))
def test_resolving_twice_changes_nothing(patterns):
    once = resolve_names(patterns)
    assert resolve_names(once) == once
    assert set(once) <= set(pretrained_names())


@settings(deadline=None)
@given(full_names)
def test_an_architecture_stands_for_the_weights_that_timm_takes_by_default(name):
    architecture = architecture_of(name)
    assert resolve_names(architecture) == (f"{architecture}.{pretrained_cfg(architecture).tag}",)


@pytest.mark.parametrize("pattern", ["resnet*", "convnext_[an]*", "vit_tiny_patch1?_224"])
def test_a_glob_without_a_dot_gives_one_name_for_each_architecture(pattern):
    found = resolve_names(pattern)
    architectures = [architecture_of(name) for name in found]
    assert len(set(architectures)) == len(found) > 0
    assert architectures == fnmatch.filter(default_names(), pattern)


def test_a_glob_with_a_dot_gives_all_weights():
    found = resolve_names("resnet50.*")
    assert set(found) == {name for name in pretrained_names() if architecture_of(name) == "resnet50"}
    assert len(found) > 10


def test_nothing_asked_for_is_everything():
    assert resolve_names(None) == pretrained_names()
    assert set(pretrained_names()) == set(timm.list_pretrained())


def test_a_misspelt_name_is_told_its_neighbours():
    with pytest.raises(BackboneError, match=r"no pre-trained backbone 'resnet_50'.*Did you mean 'resnet50"):
        resolve_names("resnet_50")


def test_a_wrong_tag_is_told_its_neighbours():
    with pytest.raises(BackboneError, match=r"Did you mean .*'inception_v3\.t"):
        resolve_names("inception_v3.tv_in2k")


def test_an_architecture_without_weights_is_told_so():
    bare = next(name for name in timm.list_models() if name not in default_names())
    with pytest.raises(BackboneError, match="has no pre-trained weights for it"):
        resolve_names(bare)


@pytest.mark.parametrize("pattern", ["nothing_like_*", "resnet50.nothing*"])
def test_a_glob_without_a_match_says_how_globs_are_read(pattern):
    with pytest.raises(BackboneError, match=r"matches .*A glob without a dot is held against architectures"):
        resolve_names(pattern)


@pytest.mark.parametrize("wrong", [[], "", ["resnet50", ""], [50]])
def test_nothing_readable_is_an_error(wrong):
    with pytest.raises(BackboneError, match="backbones are names or globs"):
        resolve_names(wrong)


def test_every_backbone_has_a_family():
    families = {family_of(name) for name in default_names()}
    assert len(families) > 80
    assert {"resnet", "efficientnet", "inception_v3"} <= families


def test_a_part_of_a_name_finds_the_names_that_hold_it():
    with pytest.raises(BackboneError, match="Did you mean 'efficientnet_lite0', 'tf_efficientnet_lite0'"):
        resolve_names("lite0")

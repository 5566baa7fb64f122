from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autobackbone.errors import SpaceError
from autobackbone.records import Body, Candidate
from autobackbone.search.space import Space, as_space_settings, check_depths, cuts_to_offer

SIZES = {"small": ((96, 96), (128, 128), (160, 160)), "large": ((224, 224),)}
BLOCKS = {"small": 8, "large": 5}
SPACE = Space(image_sizes=SIZES, n_blocks=BLOCKS)

candidates = st.sampled_from(sorted(SIZES)).flatmap(
    lambda name: st.builds(
        Candidate,
        backbone=st.just(name),
        image_size=st.sampled_from(SIZES[name]),
        n_unfrozen=st.integers(1, BLOCKS[name]),
        lr=st.floats(3e-5, 3e-3),
        extras=st.just({}),
    )
)


@given(candidates)
def test_a_suggestion_means_the_candidate_it_was_made_of(candidate):
    assert SPACE.candidate(SPACE.suggestion(candidate)) == candidate


@given(st.sampled_from(sorted(SIZES)), st.floats(0, 1), st.floats(0, 1))
def test_any_share_means_a_candidate_of_the_backbone_with_at_least_one_block(backbone, size_share, depth_share):
    candidate = SPACE.candidate(
        {"backbone": backbone, "size_share": size_share, "depth_share": depth_share, "lr": 1e-3}
    )
    assert candidate.image_size in SIZES[backbone]
    assert 1 <= candidate.n_unfrozen <= BLOCKS[backbone]


def test_more_share_is_never_less_depth():
    depths = [
        SPACE.candidate({"backbone": "small", "size_share": 0, "depth_share": i / 50, "lr": 1e-3}).n_unfrozen
        for i in range(51)
    ]
    assert depths == sorted(depths)
    assert set(depths) == set(range(1, 9))


def test_a_frozen_candidate_carries_depth_share_0_and_the_middle_of_the_rates():
    suggestion = SPACE.suggestion(Candidate(backbone="small", image_size=(96, 96), n_unfrozen=0))
    assert suggestion["depth_share"] == 0.0
    assert suggestion["lr"] == pytest.approx((3e-5 * 1e-3) ** 0.5)
    assert set(suggestion) == set(SPACE.distributions())


def test_a_size_that_training_cannot_start_from_goes_to_the_nearest_that_it_can():
    space = SPACE.with_reachable(frozenset({Body("small", (96, 96))}))
    candidate = space.candidate({"backbone": "small", "size_share": 1.0, "depth_share": 0.5, "lr": 1e-3})
    assert candidate.image_size == (96, 96)


def test_a_backbone_without_any_reachable_size_keeps_what_was_asked():
    space = SPACE.with_reachable(frozenset({Body("small", (96, 96))}))
    assert space.candidate({"backbone": "large", "size_share": 0, "depth_share": 0, "lr": 1e-3}).backbone == "large"


CUT = Space(image_sizes=SIZES, n_blocks=BLOCKS, kept={"small": (5, 6, 7), "large": ()})
EVERY_BODY = frozenset(Body("small", size, kept) for size in SIZES["small"] for kept in (None, 5, 6, 7))


@given(candidates, st.sampled_from([None, 5, 6, 7]))
def test_a_suggestion_means_the_cut_candidate_it_was_made_of(candidate, n_kept):
    n_kept = n_kept if candidate.backbone == "small" else None
    space = CUT.with_reachable(EVERY_BODY | {Body("large", (224, 224))})
    cut = replace(candidate, n_blocks_kept=n_kept, n_unfrozen=min(candidate.n_unfrozen, n_kept or 8))
    assert space.candidate(space.suggestion(cut)) == cut
    assert set(space.suggestion(cut)) == set(space.distributions())


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_no_more_blocks_are_unfrozen_than_were_kept(size_share, depth_share, kept_share):
    shares = {"size_share": size_share, "depth_share": depth_share, "kept_share": kept_share}
    candidate = CUT.with_reachable(EVERY_BODY).candidate({"backbone": "small", "lr": 1e-3} | shares)
    assert 1 <= candidate.n_unfrozen <= (candidate.n_blocks_kept or 8)
    assert (candidate.n_blocks_kept is None) == (kept_share >= 0.5)


def test_a_cut_has_at_least_the_blocks_that_shall_be_unfrozen():
    space = replace(CUT.with_reachable(EVERY_BODY), n_unfrozen=(6, 8))
    assert {body.n_blocks_kept for body in space.bodies()} == {None, 6, 7}
    shares = {"size_share": 0.0, "depth_share": 0.0, "kept_share": 0.0}
    assert space.candidate({"backbone": "small", "lr": 1e-3} | shares).n_unfrozen == 6


@pytest.mark.parametrize(("kept_share", "wanted"), [(0.0, 6), (0.2, 6), (0.4, None), (0.9, None)])
def test_a_cut_that_training_cannot_start_from_goes_to_the_nearest_that_it_can(kept_share, wanted):
    space = CUT.with_reachable(frozenset({Body("small", (96, 96), 6), Body("small", (96, 96))}))
    shares = {"size_share": 0.9, "depth_share": 0.1, "kept_share": kept_share}
    assert space.candidate({"backbone": "small", "lr": 1e-3} | shares).body == Body("small", (96, 96), wanted)


def test_cuts_are_offered_as_asked():
    assert cuts_to_offer(8) == (5, 6, 7)
    assert cuts_to_offer(5) == (3, 4)
    assert cuts_to_offer(1) == ()
    assert cuts_to_offer(8, None) == ()
    assert cuts_to_offer(8, (1, 100)) == (1, 2, 3, 4, 5, 6, 7)
    assert cuts_to_offer(8, 4) == (4,)
    assert as_space_settings({"n_blocks_kept": None}) == {"n_blocks_kept": None}
    assert as_space_settings({"n_blocks_kept": (2, 4)}) == {"n_blocks_kept": (2, 4)}
    with pytest.raises(SpaceError, match=r"n_blocks_kept.*whole number of at least 1"):
        as_space_settings({"n_blocks_kept": 0})


def test_bounds_and_fixed_values_hold():
    settings = as_space_settings({"lr": 1e-4, "n_unfrozen": (2, 3), "weight_decay": (1e-4, 1e-1), "n_epochs": 3})
    own = {name: settings.pop(name) for name in ("lr", "n_unfrozen")}
    space = Space(image_sizes=SIZES, n_blocks=BLOCKS, extras=settings, **own)
    assert set(space.distributions()) == {"backbone", "size_share", "depth_share", "lr", "weight_decay"}
    asked = {"backbone": "small", "size_share": 0, "lr": 1e-4, "weight_decay": 0.02}
    depths = {space.candidate(asked | {"depth_share": share}).n_unfrozen for share in (0, 0.3, 0.6, 1.0)}
    assert depths == {2, 3}
    assert space.candidate(asked | {"depth_share": 0}).extras == {"n_epochs": 3, "weight_decay": 0.02}


WORDS = as_space_settings({"class_weights": ["balanced", "none"], "sampling": "balanced"})


def test_a_word_is_fixed_and_several_are_searched():
    assert WORDS == {"class_weights": ("none", "balanced"), "sampling": "balanced"}
    assert as_space_settings({"sampling": ("none", "balanced")}) == {"sampling": ("none", "balanced")}
    assert as_space_settings({"sampling": ["none"]}) == {"sampling": "none"}
    space = replace(SPACE, extras=WORDS)
    assert set(space.distributions()) - set(SPACE.distributions()) == {"class_weights"}
    assert space.distributions()["class_weights"].choices == ("none", "balanced")


@given(candidates, st.sampled_from(["none", "balanced"]))
def test_a_suggestion_means_the_words_it_was_made_of(candidate, word):
    space = replace(SPACE, extras=WORDS)
    asked = replace(candidate, extras={"class_weights": word, "sampling": "balanced"})
    assert space.candidate(space.suggestion(asked)) == asked
    assert set(space.suggestion(asked)) == set(space.distributions())


def test_only_a_weight_that_is_fixed_concerns_frozen_heads():
    assert SPACE.head_weights == replace(SPACE, extras=WORDS).head_weights == "none"
    assert replace(SPACE, extras={"class_weights": "balanced"}).head_weights == "balanced"
    frozen = Candidate(backbone="small", image_size=(96, 96), n_unfrozen=0)
    assert replace(SPACE, extras=WORDS).suggestion(frozen)["class_weights"] == "none"


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (
            {"class_weights": "even"},
            r"space\['class_weights'\] is 'none' or 'balanced', or a list of both.*'even' came",
        ),
        ({"class_weights": {"cat": 2.0}}, "'none' or 'balanced'"),
        ({"sampling": ["balanced", 1]}, "'none' or 'balanced'"),
        ({"sampling": []}, "'none' or 'balanced'"),
        ({"sampling": None}, "'none' or 'balanced'"),
        ({"class_weight": "balanced"}, "Did you mean 'class_weights'"),
        ({"learning_rate": 1e-3}, "no parameter 'learning_rate'.*it has lr"),
        ({"weight_decai": 1e-3}, "Did you mean 'weight_decay'"),
        ({"lr": (1e-3, 1e-5)}, "number of at least"),
        ({"lr": 0}, "number of at least"),
        ({"lr": "high"}, "number of at least"),
        ({"n_unfrozen": 1.5}, "whole number"),
        ({"n_unfrozen": True}, "whole number"),
        ({"n_unfrozen": -1}, "at least 0"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"lr": (1e-5, 1e-4, 1e-3)}, "bounds"),
        ([("lr", 1e-3)], "space is a mapping"),
    ],
)
def test_a_space_that_cannot_be_read_says_what_it_wants(space, message):
    with pytest.raises(SpaceError, match=message):
        as_space_settings(space)


def test_numbers_of_numpy_are_numbers():
    read = as_space_settings({"batch_size": np.int64(16), "lr": (np.float32(0.5), 1)})
    assert read == {"batch_size": 16, "lr": (0.5, 1.0)}
    assert {type(value) for value in (read["batch_size"], *read["lr"])} == {int, float}


def test_a_depth_that_no_backbone_has_is_named():
    check_depths(BLOCKS, None)
    check_depths(BLOCKS, (1, 99))
    for wanted in (99, (98, 99)):
        with pytest.raises(SpaceError, match=r"n_unfrozen.*at most as many blocks.*99"):
            check_depths(BLOCKS, wanted)

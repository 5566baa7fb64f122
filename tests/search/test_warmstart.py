"""The front of another run, taken into the space of this one."""

import math

import pytest

from autobackbone.records import Candidate
from autobackbone.search.space import Space
from autobackbone.search.warmstart import WarmStart

SIZES = {"small": ((96, 96), (160, 160)), "large": ((160, 160), (224, 224))}
SPACE = Space(
    image_sizes=SIZES,
    n_blocks={"small": 8, "large": 5},
    lr=(1e-4, 1e-2),
    n_unfrozen=(1, 4),
    extras={"weight_decay": (1e-3, 1e-1), "n_epochs": 6, "sampling": ("none", "balanced")},
    kept={"small": (5, 6)},
)


def candidate(backbone="small", image_size=(96, 96), n_unfrozen=2, lr=1e-3, **more):
    return Candidate(backbone=backbone, image_size=image_size, n_unfrozen=n_unfrozen, lr=lr, **more)


def warm(*front):
    return WarmStart(path="/a/run", task="classification", front=front)


def test_what_lies_in_the_space_comes_as_it_was_and_nothing_is_told():
    extras = {"weight_decay": 0.02, "n_epochs": 6, "sampling": "balanced"}
    front = (candidate(extras=extras), candidate("small", n_blocks_kept=5), candidate("large", (224, 224), 0, None))
    found, lines = warm(*front).within(SPACE)
    assert found == list(front)
    assert lines == []


@pytest.mark.parametrize(
    ("asked", "found", "told"),
    [
        (candidate(image_size=(120, 120)), candidate(), "with 96x96 px"),
        (candidate(n_blocks_kept=3), candidate(n_blocks_kept=5), "with 96x96 px, first 5 blocks"),
        (candidate(n_blocks_kept=7, lr=1e-3), candidate(n_blocks_kept=6), "first 6 blocks"),
        (candidate("large", (160, 160), n_blocks_kept=4), candidate("large", (160, 160)), "all blocks"),
        (candidate(n_unfrozen=8), candidate(n_unfrozen=4), "4 unfrozen"),
        (candidate(lr=1.0), candidate(lr=1e-2), "lr 1.0e-02"),
        (candidate(lr=None), candidate(lr=1e-3), "lr 1.0e-03"),
        (candidate(lr=math.nan), candidate(lr=1e-3), "lr 1.0e-03"),
        (candidate(extras={"weight_decay": 0.5}), candidate(extras={"weight_decay": 0.1}), "weight_decay 0.1"),
        (candidate(extras={"n_epochs": 20}), candidate(extras={"n_epochs": 6}), "n_epochs 6"),
        (candidate(extras={"batch_size": 8}), candidate(), None),
    ],
)
def test_what_does_not_is_taken_to_the_nearest_and_told(asked, found, told):
    moved, lines = warm(asked).within(SPACE)
    if math.isclose(moved[0].lr, found.lr):
        found = candidate(**{name: getattr(found, name) for name in found.__slots__} | {"lr": moved[0].lr})
    assert moved == [found]
    assert len(lines) == (told is not None)
    assert all(told in line for line in lines)
    # What is asked of the study means the same there.
    space = SPACE.with_reachable(frozenset([found.body]))
    meant = space.candidate(space.suggestion(found))
    assert (meant.body, meant.n_unfrozen, meant.lr) == (found.body, found.n_unfrozen, found.lr)


def test_other_backbones_are_left_out_and_told_and_the_same_is_tried_once():
    gone = candidate("unknown")
    found, lines = warm(gone, candidate(lr=0.5), candidate(lr=0.9)).within(SPACE)
    assert found == [candidate(lr=1e-2)]
    assert [line.startswith("warm start: left out: unknown at 96x96 px") for line in lines] == [True, False, False]
    assert warm(gone, candidate(), candidate("large", (1, 1))).pairs(SIZES) == [
        ("small", (96, 96)),
        ("large", (160, 160)),
    ]


def test_what_a_run_has_noted_is_taken_up_again():
    one = warm(candidate(extras={"weight_decay": 0.02}), candidate(n_unfrozen=0, lr=None, n_blocks_kept=5))
    assert WarmStart.from_json(one.to_json()) == one


@pytest.mark.parametrize(
    "changes",
    [
        {"front": "candidates"},
        {"front": [{}]},
        {"front": [[1, 2]]},
        {"task": "detection"},
        {"path": 3},
        {"backbone": "two\nlines"},
        {"image_size": [96]},
        {"image_size": 96},
        {"n_unfrozen": -1},
        {"n_unfrozen": "all"},
        {"lr": "fast"},
        {"lr": 10**400},
        {"extras": 3},
        {"run": "rm"},
    ],
)
def test_what_is_none_is_refused(changes):
    noted = warm(candidate()).to_json()
    ((name, value),) = changes.items()
    if name in noted:
        noted[name] = value
    else:
        noted["front"] = [{**noted["front"][0], name: value}]
    with pytest.raises(ValueError, match=r"front of another run|must be|its path is"):
        WarmStart.from_json(noted)


@pytest.mark.parametrize("value", [10**400, math.nan, -1, "0.1", None, [0.1]])
def test_values_that_no_search_has_written_are_passed_over(value):
    noted = warm(candidate()).to_json()
    noted["front"][0]["extras"] = {"weight_decay": value, "n_epochs": 2.5, "legs": [], "sampling": "eval"}
    assert WarmStart.from_json(noted) == warm(candidate())

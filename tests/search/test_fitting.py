import math
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from autobackbone.records import Body, Candidate
from autobackbone.search.climb import climb
from autobackbone.search.fitting import Fitting
from autobackbone.search.space import Space
from autobackbone.search.steps import Search
from autobackbone.search.study import add_screened, open_study, read_trials
from autobackbone.testing import TableEvaluator

NAMES = tuple(f"net{i}" for i in range(10))
SIZES = tuple((side, side) for side in (96, 128, 160, 192, 224))
SPACE = Space(image_sizes=dict.fromkeys(NAMES, SIZES), n_blocks=dict.fromkeys(NAMES, 10))
ALL = [(name, size, depth) for name in NAMES for size in SIZES for depth in range(1, 11)]


def key(candidate):
    return candidate.backbone, candidate.image_size, candidate.n_unfrozen


def fitting(allowed, space=SPACE, left_s=10.0):
    """The named ones take a second, all others an hour."""
    seconds = dict.fromkeys(allowed, 1.0)
    return Fitting(space=space, expected_s=lambda one: seconds.get(key(one), 3600.0), left_s=lambda: left_s)


def suggestions():
    shares = st.floats(0, 1)
    return st.fixed_dictionaries(
        {"backbone": st.sampled_from(NAMES), "size_share": shares, "depth_share": shares, "lr": st.floats(3e-5, 3e-3)}
    )


@given(suggestions(), st.lists(st.sampled_from(ALL), min_size=1, max_size=40, unique=True))
def test_what_is_nearest_fits_keeps_its_rate_and_its_backbone_if_it_can(suggestion, allowed):
    found = SPACE.candidate(fitting(allowed).nearest(suggestion))
    assert key(found) in allowed
    assert found.lr == suggestion["lr"]
    if suggestion["backbone"] in {name for name, _, _ in allowed}:
        assert found.backbone == suggestion["backbone"]
    if key(SPACE.candidate(suggestion)) in allowed:
        assert found == SPACE.candidate(suggestion)
    assert fitting(allowed).nearest(suggestion) == SPACE.suggestion(found)


@given(suggestions(), st.sets(st.sampled_from(ALL), max_size=3), st.sampled_from([-1.0, 0.0, 0.5, 1.0, math.inf]))
def test_something_is_found_exactly_where_anything_fits(suggestion, allowed, left_s):
    one = fitting(allowed, left_s=left_s)
    is_any = left_s == math.inf or (left_s >= 1 and bool(allowed))
    assert one.is_any() == is_any
    assert (one.nearest(suggestion) is not None) == is_any


@given(suggestions(), st.sets(st.sampled_from(ALL), min_size=1), st.sets(st.sampled_from(ALL), min_size=1))
def test_what_training_cannot_start_from_is_never_found(suggestion, allowed, reachable):
    space = SPACE.with_reachable(frozenset(Body(name, size) for name, size, _ in reachable))
    nearest = fitting(allowed, space).nearest(suggestion)
    assert nearest is None or space.candidate(nearest).body in space.bodies()


def test_backbones_that_fit_are_fallen_back_on_alike():
    one = fitting([(name, SIZES[0], 1) for name in NAMES[1:]])
    asked = [{"backbone": NAMES[0], "size_share": 0.5, "depth_share": 0.5, "lr": 1e-3 + i * 1e-6} for i in range(300)]
    counts = Counter(one.nearest(each)["backbone"] for each in asked)
    assert set(counts) == set(NAMES[1:])
    assert max(counts.values()) < 3 * min(counts.values())


def test_epochs_are_taken_off_only_where_nothing_fits_with_them():
    space = Space(image_sizes=SPACE.image_sizes, n_blocks=SPACE.n_blocks, extras={"n_epochs": (2, 20)})
    by_epochs = Fitting(space=space, expected_s=lambda one: one.extras["n_epochs"] * 1.0, left_s=lambda: 9.0)
    asked = {"backbone": NAMES[3], "size_share": 0.5, "depth_share": 0.5, "lr": 1e-3, "n_epochs": 20}
    assert by_epochs.nearest(asked)["n_epochs"] == 2
    assert by_epochs.nearest({**asked, "n_epochs": 7})["n_epochs"] == 7
    assert by_epochs.is_any()
    fixed = Space(image_sizes=SPACE.image_sizes, n_blocks=SPACE.n_blocks, extras={"n_epochs": 20})
    assert not Fitting(space=fixed, expected_s=by_epochs.expected_s, left_s=by_epochs.left_s).is_any()


# In a whole search


RARE = ("net7", (160, 160), 9)


def search_for_the_rare(file, seed, left):
    """One candidate of 500 fits, and each trial of it uses a second of the time."""
    study = open_study(file, is_higher_better=True, metric_name="accuracy", seed=seed)
    table = TableEvaluator(
        latency_ms=dict.fromkeys(NAMES, 2.0),
        n_blocks=SPACE.n_blocks,
        score=lambda one: 0.9 - abs(math.log10(one.lr / 1e-3)),
        seconds=lambda one: 1.0 if key(one) == RARE else 100.0,
    )
    frozen = Candidate(backbone="net0", image_size=SIZES[0], n_unfrozen=0)
    known = table.begin(frozen)
    add_screened(study, SPACE, type(known)(**{name: getattr(known, name) for name in known.__slots__} | {"score": 0.5}))

    def spend(_):
        left[0] -= 1

    search = Search(
        study=study,
        space=SPACE,
        evaluator=table,
        left_s=lambda: left[0],
        now_s=lambda: 50.0 - left[0],
        is_higher_better=True,
        on_trial=spend,
    )
    return climb(search), read_trials(study)[1:]


def test_one_of_500_is_found_and_tried_until_not_even_it_fits(tmp_path):
    left = [6.5]
    n_trained, tried = search_for_the_rare(tmp_path / "study.db", 0, left)
    assert left == [0.5]
    assert n_trained == len(tried) == 6
    assert {(one.state, one.backbone, one.image_size, one.n_unfrozen) for one in tried} == {("finished", *RARE)}
    assert len({one.lr for one in tried}) == 6
    _, again = search_for_the_rare(tmp_path / "again.db", 0, [6.5])
    assert [one.lr for one in again] == [one.lr for one in tried]

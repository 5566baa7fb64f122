import math
import re
from dataclasses import replace
from types import SimpleNamespace

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autobackbone.backbones.source import BackboneSource
from autobackbone.errors import BackboneError, DataError, LimitsError, TrialError, TrialMemoryError
from autobackbone.planning import SCREENING_SHARE, screening_order
from autobackbone.records import Body, Latency, Limits, Priced, Target
from autobackbone.search import screenstage, turns
from autobackbone.search.costs import Costs
from autobackbone.search.pricing import pass_s

TARGET = Target(device="cpu", batch_size=4)
SMALL, LARGE = Body("small", (96, 96)), Body("large", (96, 96))


def priced_of(body, p50_ms=9.0, noise_ms=0.1):
    latency = Latency(p50_ms=p50_ms, p95_ms=p50_ms, noise_ms=noise_ms, images_per_s=10.0, n_repeats=9)
    return Priced(**body._asdict(), latency=latency, n_params=1, megabytes=1.0, n_blocks=4)


class Screens:
    """A shop of two bodies whose screening takes ten seconds each, by a clock that only moves when told."""

    def __init__(self, monkeypatch, budget_s):
        self.now_s, self.ends, self.cuts_until, self.heads = 0.0, {}, {}, {}
        self.awaited, self.priced, self.limits, self.target = set(), {}, Limits(), TARGET
        self.space, self.stores = SimpleNamespace(kept={}), SimpleNamespace(features=lambda _: None)
        self.costs, self.reporter = SimpleNamespace(n_train=8, n_validation=2), SimpleNamespace(say=None)
        self.study = optuna.create_study()
        self.clock = SimpleNamespace(left_s=lambda: max(0.0, budget_s - self.now_s))
        for module in (screenstage, turns):
            monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: self.now_s))
        monkeypatch.setattr(turns, "_order", lambda _: [SMALL, LARGE])
        monkeypatch.setattr(turns, "scouted", lambda order, _: order)
        monkeypatch.setattr(turns, "has_pixels", lambda *_: True)
        monkeypatch.setattr(turns, "pricing_s", lambda _: 0.0)
        monkeypatch.setattr(screenstage, "features_of_cuts", lambda *_: {})
        monkeypatch.setattr(screenstage, "_screen_if_it_fits", self.screen)
        monkeypatch.setattr(screenstage, "screen_cuts", self.screen_cuts)

    def screen(self, _, body, ends):
        self.ends[body] = replace(ends)
        self.now_s += 10
        self.heads[body] = (0, None)
        self.priced[body] = priced_of(body)

    def screen_cuts(self, _, body, features, until):
        self.cuts_until[body] = until


def test_what_happens_between_bodies_does_not_shorten_screening(monkeypatch):
    shop = Screens(monkeypatch, 100.0)

    def fine_tune():
        shop.now_s += 20
        return 0.0

    screenstage.screen_all(shop, share=0.4, fine_tune=fine_tune)
    assert {body: ends.until for body, ends in shop.ends.items()} == {SMALL: 40.0, LARGE: 60.0}
    assert {ends.tuning_share for ends in shop.ends.values()} == {0.0}
    # Cuts take no longer than the whole, and nothing goes on when screening is over.
    assert shop.cuts_until == {SMALL: 40.0, LARGE: 70.0}


def test_however_long_fine_tuning_takes_screening_ends_before_the_budget(monkeypatch):
    shop = Screens(monkeypatch, 100.0)

    def fine_tune():
        shop.now_s += 75 if shop.now_s == 10 else 0
        return 0.0

    screenstage.screen_all(shop, share=0.4, fine_tune=fine_tune)
    assert shop.ends[LARGE].until == pytest.approx(85 + 0.8 * 15)


def test_what_fine_tuning_needs_to_its_end_is_left_to_it(monkeypatch):
    shop = Screens(monkeypatch, 100.0)
    needed_s = iter([70.0, 90.0])
    screenstage.screen_all(shop, share=0.4, fine_tune=lambda: next(needed_s))
    # Of the 90 s left after the first, 20 are for screening; and who is screened must find time to be trained, too.
    assert shop.ends[LARGE].until == shop.ends[LARGE].trained_by == 30.0
    assert shop.ends[LARGE].tuning_share > 1
    # Their features are there: cuts of a body have a little of the time even then.
    assert shop.cuts_until[LARGE] == pytest.approx(20 + 0.06 * 80)


@pytest.mark.parametrize(
    ("ends", "is_allowed"),
    [
        ({"until": 10.0}, True),
        ({"until": 9.0}, False),
        ({"until": 10.0, "trained_by": 30.0, "tuning_share": 2.0}, True),
        ({"until": 10.0, "trained_by": 29.0, "tuning_share": 2.0}, False),
        ({"until": 10.0, "trained_by": 29.0}, True),
    ],
)
def test_a_body_is_left_out_where_it_could_not_be_screened_or_not_trained(monkeypatch, ends, is_allowed):
    shop, passed = SimpleNamespace(heads={SMALL: (0, None)}, priced={}), []
    for module in (screenstage, turns):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: 0.0))
    monkeypatch.setattr(screenstage, "rough_pass_seconds", lambda *_: 15.0)
    monkeypatch.setattr(screenstage, "priced_within_limits", lambda _, body: passed.append(body))
    screenstage._screen_if_it_fits(shop, LARGE, turns.Ends(**ends))
    assert passed == [LARGE] * is_allowed


def test_cuts_that_an_interrupt_left_out_are_made_up_for_and_others_are_not_tried_again(monkeypatch):
    shop = Screens(monkeypatch, 100.0)
    shop.heads = {SMALL: (0, None), LARGE: (1, None), LARGE._replace(n_blocks_kept=4): (2, None)}
    shop.priced = {body: priced_of(body) for body in shop.heads}
    screenstage.screen_all(shop, fine_tune=lambda: pytest.fail("nothing was screened"))
    assert list(shop.cuts_until) == [SMALL]


def test_without_a_clock_cuts_have_no_end(monkeypatch):
    shop = Screens(monkeypatch, math.inf)
    screenstage.screen_all(shop)
    assert list(shop.ends) == [SMALL, LARGE]
    assert set(shop.cuts_until.values()) == {math.inf}


NEW = Latency(p50_ms=8.0, p95_ms=9.0, noise_ms=0.1, images_per_s=500.0, n_repeats=9)
speeds = st.lists(st.floats(1.0, 1e4), min_size=1, max_size=7)


def known(images_per_s):
    """Pairs of these speeds on the target."""
    return {
        Body(f"net{i}", (96, 96)): Priced(
            backbone=f"net{i}",
            image_size=(96, 96),
            latency=replace(NEW, images_per_s=speed),
            n_blocks=5,
            n_params=10,
            megabytes=1.0,
        )
        for i, speed in enumerate(images_per_s)
    }


def forecast(images_per_s, slowness, latency=NEW):
    """After passes that took so many times as long as the target's speed says."""
    priced = known(images_per_s)
    took = {pair: times / one.latency.images_per_s for (pair, one), times in zip(priced.items(), slowness, strict=True)}
    return pass_s(latency, Costs(n_train=800, n_validation=200, forward_s=took), priced, TARGET)


@given(speeds, st.floats(0.01, 100.0))
def test_a_pass_takes_as_many_times_longer_as_the_passes_before(speeds, times):
    as_on_the_target = forecast([], [])
    assert as_on_the_target == pytest.approx(1000 / 500 * 1.1)
    assert forecast(speeds, [times] * len(speeds)) == pytest.approx(times * as_on_the_target)


@given(speeds, st.floats(0.01, 100.0))
def test_one_pass_that_was_held_up_changes_nothing(speeds, times):
    usual = [times] * (len(speeds) + 1)
    assert forecast([*speeds, 7.0, 9.0], [*usual, 1000 * times]) == pytest.approx(forecast([*speeds, 7.0], usual))


def test_where_no_large_batch_fits_the_single_passes_tell():
    assert forecast([], [], replace(NEW, images_per_s=math.nan)) == pytest.approx(1000 / 500 * 1.1)


def test_a_pair_that_ran_but_was_never_priced_says_nothing():
    costs = Costs(n_train=800, n_validation=200, forward_s={Body("gone", (96, 96)): 5.0})
    assert pass_s(NEW, costs, {}, TARGET) == forecast([], [])


def test_pairs_that_break_a_limit_take_no_more_than_the_time(monkeypatch):
    shop = Screens(monkeypatch, 25.0)
    shop.limits, shop.space = Limits(latency_ms=1.0), SimpleNamespace(image_sizes={"a": [1] * 5}, kept={})

    def refuse(_, body, ends):
        shop.now_s += 10
        shop.priced[body] = priced_of(body)

    monkeypatch.setattr(screenstage, "_screen_if_it_fits", refuse)
    monkeypatch.setattr(turns, "_order", lambda _: [SMALL._replace(backbone=name) for name in "abcde"])
    with pytest.raises(LimitsError, match=r"none of 3 pairs.*Time ended before all 5 were measured. Give more"):
        screenstage.screen_all(shop)


@pytest.mark.parametrize(
    ("budget_s", "errors", "message"),
    [
        (math.inf, ["a"], "screened: a."),
        (100.0, ["a", "b", "a"], "screened: a; b."),
        (math.inf, ["a.", "b", "c", "d", "e"], "screened: a; b; c; and 2 other causes."),
        (100.0, [], "screened: the time was too short. Give more, or allow smaller image_sizes."),
        (
            math.inf,
            [TrialMemoryError("out of memory")],
            "screened: out of memory. Allow smaller image_sizes, or smaller backbones.",
        ),
    ],
)
def test_where_nothing_could_be_screened_its_causes_are_told_each_once(monkeypatch, budget_s, errors, message):
    left = [error if isinstance(error, Exception) else TrialError(error) for error in errors]

    def fail(*_):
        if left:
            raise left.pop(0)

    shop = Screens(monkeypatch, budget_s)
    shop.reporter = SimpleNamespace(say=lambda _: None)
    monkeypatch.setattr(screenstage, "_screen_if_it_fits", fail)
    monkeypatch.setattr(turns, "_order", lambda _: [SMALL._replace(backbone=name) for name in "abcde"])
    with pytest.raises(LimitsError, match=rf"^no backbone could be {re.escape(message)}$"):
        screenstage.screen_all(shop)


def test_what_is_too_slow_at_one_size_is_not_measured_at_larger_ones():
    latency = Latency(p50_ms=9.0, p95_ms=9.0, noise_ms=0.1, images_per_s=10.0, n_repeats=9)
    known = Priced(backbone="small", image_size=(96, 96), latency=latency, n_params=1, megabytes=1.0, n_blocks=4)
    shop = SimpleNamespace(priced={SMALL: known}, limits=Limits(latency_ms=5.0), target=TARGET)
    beyond = [screenstage._is_beyond_limits(shop, Body(name, (side, side))) for name, side in SIDES]
    assert beyond == [True, False, False]


SIDES = (("small", 128), ("small", 64), ("large", 128))


def test_pairs_that_the_time_leaves_out_are_counted(monkeypatch):
    told = []
    shop = Screens(monkeypatch, 100.0)
    shop.reporter = SimpleNamespace(say=told.append)
    shop.space = SimpleNamespace(image_sizes={"small": [(96, 96)], "large": [(96, 96)]}, kept={})
    monkeypatch.setattr(screenstage, "_screen_if_it_fits", REAL_SCREEN_IF_IT_FITS)
    monkeypatch.setattr(screenstage, "rough_pass_seconds", lambda *_: 1000.0)
    shop.heads, shop.priced = {SMALL: (0, None)}, {SMALL: priced_of(SMALL)}
    screenstage.screen_all(shop)
    assert told == ["not screened for want of time: 1 of 2 pairs of backbone and image size"]


REAL_SCREEN_IF_IT_FITS = screenstage._screen_if_it_fits


def test_what_may_keep_a_limit_leaves_no_larger_size_out():
    latency = Latency(p50_ms=9.0, p95_ms=9.0, noise_ms=6.0, images_per_s=10.0, n_repeats=9)
    known = Priced(backbone="small", image_size=(96, 96), latency=latency, n_params=1, megabytes=1.0, n_blocks=4)
    shop = SimpleNamespace(priced={SMALL: known}, limits=Limits(latency_ms=5.0), target=TARGET)
    assert not screenstage._is_beyond_limits(shop, Body("small", (128, 128)))


def test_where_nothing_is_tuned_screening_keeps_its_share(monkeypatch):
    shop = Screens(monkeypatch, 100.0)
    screenstage.screen_all(shop, share=0.9)
    assert {body: ends.until for body, ends in shop.ends.items()} == {SMALL: 90.0, LARGE: 90.0}


def test_a_size_that_cannot_be_decoded_any_more_is_left_out(monkeypatch):
    shop, told = Screens(monkeypatch, 100.0), []
    shop.reporter = SimpleNamespace(say=told.append)

    def screen(_, body, ends):
        if body == LARGE:
            raise DataError("the pictures have changed")
        shop.screen(_, body, ends)

    monkeypatch.setattr(screenstage, "_screen_if_it_fits", screen)
    screenstage.screen_all(shop)
    assert list(shop.heads) == [SMALL]
    assert told == [f"left out: {LARGE}: the pictures have changed"]


def test_what_shall_be_tried_first_is_screened_before_others_are_compared(monkeypatch):
    shop = Screens(monkeypatch, 100.0)
    wanted, gone = LARGE._replace(image_size=(128, 128)), LARGE._replace(image_size=(160, 160))
    monkeypatch.setattr(turns, "_order", lambda _: [SMALL, LARGE, wanted, gone])
    monkeypatch.setattr(turns, "scouted", lambda order, _: [body for body in order if body != gone])
    shop.awaited, awaited = {wanted}, []
    screenstage.screen_all(shop, fine_tune=lambda: awaited.append(set(shop.awaited)) or 0.0)
    assert list(shop.ends) == [SMALL, wanted, LARGE]
    # Until its turn comes, it is waited for.
    assert awaited == [{wanted}, set(), set()]


def test_pairs_that_shall_be_first_are_before_all_others():
    sizes = {"test_resnet.r160_in1k": ((96, 96), (160, 160)), "test_vit.r160_in1k": ((160, 160),)}
    gmacs = BackboneSource({}, n_classes=2).gmacs
    first = [("test_vit.r160_in1k", (160, 160)), ("test_resnet.r160_in1k", (160, 160))]
    usual = screening_order(sizes, gmacs=gmacs)
    assert usual[0] not in first
    assert screening_order(sizes, first, gmacs=gmacs) == [*first, *(pair for pair in usual if pair not in first)]


def screened_of(
    monkeypatch, latencies, *, budget_s=math.inf, kept=(), pricing_s=0.0, features=None, again=(), looked=None
):
    """In which order bodies of these latencies and noises are screened under a limit of 3 ms, and by what shop."""
    shop, order = Screens(monkeypatch, budget_s), []
    names = [name for name, *_ in latencies]
    shop.limits, shop.reporter = Limits(latency_ms=3.0), SimpleNamespace(say=lambda _: None)
    shop.space = SimpleNamespace(image_sizes={name: [(96, 96)] for name in names}, kept=dict.fromkeys(names, kept))
    shop.stores.features = lambda _: features if shop.heads else None
    found = {Body(name, (96, 96), n): priced_of(Body(name, (96, 96), n), *of) for name, n, *of in latencies}

    def price(shop, body):
        shop.now_s += pricing_s
        if looked is not None:
            looked.append(body)
        if body in shop.priced and body.backbone in again:
            found[body] = priced_of(body, *SURELY)
        shop.priced[body] = found[body]
        return None if screenstage.surely_breaks(shop, found[body]) else found[body]

    def screen_one(shop, priced, until, head_until):
        order.append((priced.backbone, priced.n_blocks_kept))
        shop.heads[priced.body] = (0, None)

    monkeypatch.setattr(screenstage, "_screen_if_it_fits", REAL_SCREEN_IF_IT_FITS)
    monkeypatch.setattr(turns, "_order", lambda _: [body for body in found if body.n_blocks_kept is None])
    monkeypatch.setattr(screenstage, "priced_within_limits", price)
    monkeypatch.setattr(screenstage, "_screen_one", screen_one)
    monkeypatch.setattr(turns, "pricing_s", lambda _: pricing_s)
    for name in ("rough_pass_seconds", "pass_seconds", "reading_s"):
        monkeypatch.setattr(screenstage, name, lambda *_: 0.0)
    screenstage.screen_all(shop)
    return order


MAY, SURELY, NEVER = (3.76, 0.95), (2.0, 0.1), (9.0, 0.1)


def test_what_surely_keeps_the_limits_is_screened_before_what_only_may(monkeypatch):
    of = [("a", None, *MAY), ("b", None, *SURELY), ("c", None, *NEVER), ("b", 4, 1.0), ("a", 4, 1.0), ("c", 4, 1.0)]
    assert screened_of(monkeypatch, of, kept=(4,)) == [("b", None)]
    # Where nothing keeps them, what may is better than nothing.
    assert screened_of(monkeypatch, of[::2]) == [("a", None)]
    # In its turn it is measured again.
    assert screened_of(monkeypatch, of, again="a") == [("b", None), ("a", None)]


def test_where_no_whole_network_keeps_the_limits_its_longest_cut_that_does_is_screened(monkeypatch):
    of = [("a", None, *MAY), ("a", 3, *SURELY), ("a", 4, *SURELY), ("a", 5, *NEVER)]
    assert screened_of(monkeypatch, of, kept=(3, 4, 5), features="left by the pass") == [("a", 4)]
    # Where that was too short to leave any, shorter ones pass alone.
    assert screened_of(monkeypatch, of, kept=(3, 4, 5)) == [("a", 4), ("a", 3)]
    of = [("a", None, *NEVER), ("b", None, *NEVER), ("a", 4, *SURELY), ("b", 4, *SURELY)]
    assert screened_of(monkeypatch, of, kept=(4,)) == [("a", 4), ("b", 4)]


def test_looking_for_what_keeps_the_limits_takes_no_longer_than_a_first_pass_may(monkeypatch):
    of = [(name, None, *MAY) for name in "abcde"]
    # After 30 of 100 s, the first of them takes what there is.
    assert screened_of(monkeypatch, of, budget_s=100.0, pricing_s=10.0)[0] == ("a", None)
    of = [*((name, None, *NEVER) for name in "abcde"), *((name, 4, *SURELY) for name in "abcde")]
    assert screened_of(monkeypatch, of, budget_s=70.0, pricing_s=10.0, kept=(4,))[0] == ("a", 4)


def test_first_blocks_are_measured_only_while_there_is_time(monkeypatch):
    wholes = [(name, None, *NEVER) for name in "abcdefgh"]
    cuts = [(name, n, *NEVER) for name in "abcdefgh" for n in (3, 4, 5)]
    looked = []
    with pytest.raises(LimitsError, match="Time ended before all 8 were measured"):
        screened_of(monkeypatch, [*wholes, *cuts], budget_s=12.0, pricing_s=1.0, kept=(3, 4, 5), looked=looked)
    assert len(looked) == 12
    # Once one is screened, no longer than screening may take.
    cuts[0], looked = ("a", 3, *SURELY), []
    found = screened_of(monkeypatch, [*wholes, *cuts], budget_s=30.0, pricing_s=1.0, kept=(3, 4, 5), looked=looked)
    assert found == [("a", 3)]
    assert len(looked) <= 30 * SCREENING_SHARE


def test_a_cut_that_no_network_can_be_made_of_is_left_out(monkeypatch):
    shop, told = Screens(monkeypatch, math.inf), []
    shop.reporter = SimpleNamespace(say=told.append)

    def screen(*_):
        raise BackboneError("cannot be cut")

    monkeypatch.setattr(screenstage, "_screen_if_it_fits", screen)
    cut = LARGE._replace(n_blocks_kept=4)
    screenstage._screen_or_leave_out(shop, cut, turns.Ends(until=math.inf), {})
    assert told == [f"left out: {cut}: cannot be cut"]
    with pytest.raises(BackboneError, match="cannot be cut"):
        screenstage._screen_or_leave_out(shop, LARGE, turns.Ends(until=math.inf), {})

from dataclasses import replace
from types import SimpleNamespace

import pytest

from autobackbone.records import Body, Latency, Limits, Priced, Target
from autobackbone.search import pricing
from autobackbone.search.pricing import priced_within_limits, worth_training
from autobackbone.timings import Timing

BODY = Body("net", (96, 96))


@pytest.mark.parametrize(("noise_ms", "is_kept"), [(1.0, False), (20.0, False), (35.0, True)])
def test_what_was_measured_beside_other_work_excludes_only_what_is_surely_too_slow(monkeypatch, noise_ms, is_kept):
    latency = Latency(p50_ms=50.0, p95_ms=50.0, noise_ms=noise_ms, images_per_s=9.0, n_repeats=40)
    priced = Priced(backbone="net", image_size=(96, 96), latency=latency, n_params=1, megabytes=1.0, n_blocks=4)
    lines, measured = [], []
    shop = SimpleNamespace(
        limits=Limits(latency_ms=20.0),
        target=Target(),
        priced={BODY: priced},
        reporter=SimpleNamespace(say=lines.append),
    )

    def price(shop, body):
        measured.append(body)
        return shop.priced.setdefault(body, priced)

    monkeypatch.setattr(pricing, "price", price)
    assert priced_within_limits(shop, BODY) == (priced if is_kept else None)
    assert measured == [BODY, BODY]  # once more before it is left out
    assert len(lines) == 1
    assert lines[0].startswith(
        f"{BODY} may keep the limits: 50.0 ± 35.0 ms" if is_kept else f"left out: {BODY}: latency"
    )


def test_what_a_table_says_is_not_measured_again_and_excludes_whatever_its_noise():
    latency = Latency(p50_ms=3.76, p95_ms=3.76, noise_ms=0.95, images_per_s=9.0, n_repeats=1)
    priced = Priced(backbone="net", image_size=(96, 96), latency=latency, n_params=1, megabytes=1.0, n_blocks=4)
    lines, timing = [], Timing(backbone="net", image_size=(96, 96), latency_ms=3.76, latency_noise_ms=0.95)
    shop = SimpleNamespace(
        limits=Limits(latency_ms=3.0),
        target=Target(timings=(timing,)),
        priced={BODY: priced},
        reporter=SimpleNamespace(say=lines.append),
    )
    assert priced_within_limits(shop, BODY) is None
    assert lines == [f"left out: {BODY}: latency_ms 3.76 is above the limit of 3"]


def test_training_begins_from_what_keeps_the_limits_where_anything_does():
    cut = BODY._replace(n_blocks_kept=3)
    latency = Latency(p50_ms=50.0, p95_ms=50.0, noise_ms=35.0, images_per_s=9.0, n_repeats=40)
    whole = Priced(backbone="net", image_size=(96, 96), latency=latency, n_params=1, megabytes=1.0, n_blocks=4)
    fast = replace(whole, n_blocks_kept=3, latency=replace(latency, p50_ms=5.0))
    shop = SimpleNamespace(limits=Limits(latency_ms=20.0), priced={BODY: whole, cut: fast}, heads={BODY: (0, None)})
    assert worth_training(shop) == {BODY}
    shop.heads[cut] = (1, None)
    assert worth_training(shop) == {cut}

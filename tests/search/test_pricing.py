from types import SimpleNamespace

import pytest

from autobackbone.records import Body, Latency, Limits, Priced
from autobackbone.search import pricing
from autobackbone.search.pricing import priced_within_limits

BODY = Body("net", (96, 96))


@pytest.mark.parametrize(("noise_ms", "is_kept"), [(1.0, False), (20.0, False), (35.0, True)])
def test_what_was_measured_beside_other_work_excludes_only_what_is_surely_too_slow(monkeypatch, noise_ms, is_kept):
    latency = Latency(p50_ms=50.0, p95_ms=50.0, noise_ms=noise_ms, images_per_s=9.0, n_repeats=40)
    priced = Priced(backbone="net", image_size=(96, 96), latency=latency, n_params=1, megabytes=1.0, n_blocks=4)
    lines, measured = [], []
    shop = SimpleNamespace(
        limits=Limits(latency_ms=20.0), priced={BODY: priced}, reporter=SimpleNamespace(say=lines.append)
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

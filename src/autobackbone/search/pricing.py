"""What a body costs: measured alone on the target before any training, and the seconds of a pass that follow."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import replace

from autobackbone.backbones.blocks import blocks_of
from autobackbone.data.store import threads_for
from autobackbone.latency.remembered import is_disturbed
from autobackbone.records import Body, ImageSize, Latency, Limits, Priced, Target
from autobackbone.search.costs import Costs
from autobackbone.search.workshop import Workshop

# Of the time left, for measuring a latency: the usual second, but not of a budget of seconds.
_PRICING_SHARE = 0.05
_LEAST_PRICING_S = 0.1
# For the head and whatever else a pass brings with it.
_MARGIN = 1.1


def price(shop: Workshop, body: Body) -> Priced:
    """What a body costs to run, measured alone on the target or remembered."""
    if body not in shop.priced:
        backbone, image_size, n_kept = body
        shop.reporter.progress(shop.use_share(), f"latency of {body}")
        network = shop.source.network(*body)
        n_params = sum(parameter.numel() for parameter in network.parameters())
        n_values = n_params + sum(buffer.numel() for buffer in network.buffers())
        n_blocks = len(blocks_of(network))
        name, measure = f"{shop.source.known_as(backbone)}{body.cut}", shop.book.measure
        (latency,) = shop.record.latencies(
            f"latency of {body}",
            1,
            lambda: [measure(network, name, image_size, shop.target, seconds=pricing_s(shop))],
        )
        shop.priced[body] = Priced(
            backbone=backbone,
            image_size=image_size,
            latency=latency,
            n_blocks=n_blocks,
            n_params=n_params,
            megabytes=round(n_values * 4 / 1e6, 2),
            preprocess_ms=shop.preprocess_ms(image_size),
            n_blocks_kept=n_kept,
        )
        shop.costs.n_blocks[body] = n_blocks
    return shop.priced[body]


def pricing_s(shop: Workshop) -> float:
    """Seconds that measuring one latency may take; what its runtime takes to prepare a network comes on top."""
    return max(_LEAST_PRICING_S, min(1.0, _PRICING_SHARE * shop.clock.left_s()))


def broken_limit(priced: Priced, limits: Limits) -> str | None:
    """Which limit a body breaks, in words; `None` if it keeps all."""
    return limits.broken_by(_taken(priced))


def excess(limits: Limits, priced: Priced) -> float:
    """How many times the limit that it breaks most a body needs; 0 without limits."""
    return limits.excess_of(_taken(priced))


def _taken(priced: Priced) -> dict[str, float]:
    """What limits are of, by their names."""
    return {
        "latency_ms": priced.latency.p50_ms,
        "latency_p95_ms": priced.latency.p95_ms,
        "n_params": priced.n_params,
        "megabytes": priced.megabytes,
    }


def priced_within_limits(shop: Workshop, body: Body) -> Priced | None:
    """What a body costs to run; `None`, and told why, where that breaks a limit."""
    priced = price(shop, body)
    broken = broken_limit(priced, shop.limits)
    if broken is not None and broken.startswith("latency") and shop.target.timings is None:
        # Once more: what other work has disturbed is not remembered, and must not exclude.
        del shop.priced[body]
        priced = price(shop, body)
        broken = broken_limit(priced, shop.limits)
    if broken is not None and not surely_breaks(shop, priced):
        measured = f"{priced.latency.p50_ms:.1f} ± {priced.latency.noise_ms:.1f} ms beside other work"
        shop.reporter.say(f"{body} may keep the limits: {measured}")
        return priced
    if broken is None:
        return priced
    shop.reporter.say(f"left out: {body}: {broken}")
    return None


def surely_breaks(shop: Workshop, priced: Priced) -> bool:
    """Whether a limit is broken even by the lowest latency that a measurement beside other work leaves possible; what a
    table says is measured by nobody again.
    """
    latency = priced.latency
    if is_disturbed(latency) and shop.target.timings is None:
        latency = replace(latency, p50_ms=latency.p50_ms - latency.noise_ms, p95_ms=latency.p95_ms - latency.noise_ms)
    return broken_limit(replace(priced, latency=latency), shop.limits) is not None


def worth_training(shop: Workshop) -> frozenset[Body]:
    """Screened bodies that training should begin from: what only may keep the limits is none of them while something
    keeps them, since the choice holds to what was measured.
    """
    keeping = frozenset(body for body in shop.heads if broken_limit(shop.priced[body], shop.limits) is None)
    return keeping or frozenset(shop.heads)


def pass_seconds(shop: Workshop, latency: Latency) -> float:
    """As `pass_s`, with what this run knows."""
    return pass_s(latency, shop.costs, shop.priced, shop.target)


def pass_s(latency: Latency, costs: Costs, priced: Mapping[Body, Priced], target: Target) -> float:
    """Seconds of a screening pass over training and validation pictures.

    Latencies are the target's, and screening may run elsewhere: on a GPU for a model that will run on a CPU, or on all
    cores for one that gets a single thread. So the target's speed is corrected by how much longer a picture really took
    here, the median over the pairs of this run, or over cuts where nothing else has passed: one pass that other work
    held up does not count.

    Args:
        latency: of the body that would be screened.
        costs: what passes took so far.
        priced: the latencies of those pairs.
        target: where latencies were measured.
    """
    passed = [body for body in costs.forward_s if body in priced]
    wholes = [body for body in passed if body.n_blocks_kept is None]
    ratios = [costs.forward_s[body] * speed(priced[body].latency, target) for body in wholes or passed]
    slowness = statistics.median(ratios) if ratios else 1.0
    return (costs.n_train + costs.n_validation) / speed(latency, target) * slowness * _MARGIN


def speed(latency: Latency, target: Target) -> float:
    """Pictures a second on the target in large batches; from single passes where a batch of 32 does not fit (NaN)."""
    return latency.images_per_s if latency.images_per_s > 0 else 1000 * target.batch_size / latency.p50_ms


def reading_s(shop: Workshop, priced: Priced) -> float:
    """Seconds to decode the pictures to a size that was not expected to be reached."""
    if has_pixels(shop, priced.image_size):
        return 0.0
    n_threads = threads_for(shop.bundle.source, shop.bundle.n_workers)
    return len(shop.bundle.names) * (priced.preprocess_ms or 0.0) / 1000 / n_threads


def has_pixels(shop: Workshop, image_size: ImageSize) -> bool:
    """Whether pictures of a size can pass at once; where they stay encoded, what passes took says how slowly."""
    return shop.bundle.has_pixels(image_size) or shop.bundle.stays_encoded(image_size)


def rough_pass_seconds(shop: Workshop, body: Body) -> float:
    """Seconds of a pass before a whole body is priced: scaled by published multiply-adds from a priced one; 0 where
    only first blocks were priced, which tell too little.
    """
    if body in shop.priced:
        return pass_seconds(shop, shop.priced[body].latency)
    known = next((body for body in shop.priced if body.n_blocks_kept is None), None)
    if known is None:
        return 0.0
    return pass_seconds(shop, shop.priced[known].latency) * gmacs_of(shop, body) / gmacs_of(shop, known)


def gmacs_of(shop: Workshop, body: Body) -> float:
    """Multiply-adds of one picture in a whole body, 10**9."""
    return shop.source.gmacs(body.backbone, body.image_size)

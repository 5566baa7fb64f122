"""The trials of a run, priced for another target: latencies are measured anew, and nothing is trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import nn

from autobackbone.backbones.every import Backbones
from autobackbone.choosing import beyond_limits, front_of
from autobackbone.errors import BackboneError, LimitsError, TrialError
from autobackbone.latency.given import GivenLatencies
from autobackbone.latency.measure import measure_together
from autobackbone.latency.remembered import LatencyBook
from autobackbone.latency.target import describe, resolve
from autobackbone.metrics import Metric
from autobackbone.records import Body, Latency, Limits, Target, Trial, counted

# For each network of the front, side by side.
_TOGETHER_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Repriced:
    """Trials as another target has them.

    Args:
        target_line: which target, in one line.
        trials: all of the run, in their order. Of finished ones the latencies are the target's; one that could not be
            priced has failed.
        limits: of that target.
    """

    target_line: str
    trials: tuple[Trial, ...]
    limits: Limits


def repriced(
    trials: Sequence[Trial],
    metric: Metric,
    target: Target,
    limits: Limits,
    *,
    network_of: Callable[[Body], nn.Module],
    book: LatencyBook,
    backbones: Backbones | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Repriced:
    """Price the bodies of finished and stopped trials, those of the front once more side by side.

    Args:
        trials: of a run.
        metric: that they are scored by.
        target: where they will run.
        limits: of latency there; trials beyond them have failed.
        network_of: a network of a body, whatever its weights.
        book: of what is known of latencies here.
        backbones: what names in a table stand for; timm's and torchvision's where not given.
        say: told what is done, a line for each body.

    Raises:
        TargetError: the target is not here.
        LimitsError: `limits` is none.
    """
    if not isinstance(limits, Limits):
        raise LimitsError(f"limits is a Limits(…) or None, not {limits!r}.")
    settled = resolve(target)
    asked = book if settled.timings is None else GivenLatencies(settled.timings, backbones)
    found: dict[Body, Latency] = {}
    reasons: dict[Body, str] = {}
    bodies = list(dict.fromkeys(trial.body for trial in trials if trial.state in ("finished", "stopped")))
    for body in bodies:
        try:
            network = nn.Identity() if settled.timings is not None else network_of(body)
            found[body] = asked.measure(network, f"{body.backbone}{body.cut}", body.image_size, settled)
        except (BackboneError, TrialError) as error:
            reasons[body] = str(error)
            say(f"left out: {body}: {error}")
            continue
        say(f"{body}: {found[body].p50_ms:.2f} ms")
    priced = [_priced(trial, found, reasons, limits) for trial in trials]
    front = list(dict.fromkeys(trial.body for trial in front_of(priced, metric, limits)))
    if len(front) > 1 and settled.timings is None:
        networks = [(network_of(body), body.image_size) for body in front]
        beside = measure_together(networks, settled, seconds=_TOGETHER_S)
        # Pictures a second were not measured so.
        found |= {
            body: replace(latency, images_per_s=found[body].images_per_s)
            for body, latency in zip(front, beside, strict=True)
        }
        priced = [_priced(trial, found, reasons, limits) for trial in trials]
    return Repriced(target_line=describe(settled), trials=tuple(priced), limits=limits)


def stopped_line(trials: Sequence[Trial], before: str) -> str | None:
    """What was stopped since it could not reach the front of the target before; `None` where nothing was."""
    stopped = [trial for trial in trials if trial.state == "stopped"]
    if not stopped:
        return None
    numbers = ", ".join(str(trial.number) for trial in stopped[:10]) + (", …" if len(stopped) > 10 else "")
    named = f"number{'' if len(stopped) == 1 else 's'} {numbers}"
    return (
        f"stopped under {before}, and perhaps good here: {len(stopped)} of {counted(len(trials), 'trial')}, {named}; a "
        "search for this target would train what pays here"
    )


def _priced(trial: Trial, found: dict[Body, Latency], reasons: dict[Body, str], limits: Limits) -> Trial:
    """The trial with what its body takes there, and nothing of what it took on the target before."""
    latency = found.get(trial.body)
    moved = replace(
        trial,
        latency_ms=None if latency is None else latency.p50_ms,
        latency_p95_ms=None if latency is None else latency.p95_ms,
        latency_noise_ms=None if latency is None else latency.noise_ms,
        images_per_s=None if latency is None else latency.images_per_s,
        on_front=False,
    )
    if trial.state not in ("finished", "stopped"):
        return moved
    if latency is None:
        return replace(moved, state="failed", reason=f"not priced for this target: {reasons[trial.body]}")
    broken = beyond_limits(moved, limits)
    return moved if broken is None else replace(moved, state="failed", reason=broken)

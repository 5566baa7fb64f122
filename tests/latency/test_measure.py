"""A latency is a measurement: these are its laws, not its values."""

import hashlib
import math
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn

from autobackbone.errors import TargetMemoryError
from autobackbone.latency import measure as measuring
from autobackbone.latency import passing
from autobackbone.latency.measure import fastest_ms, measure, measure_together, ties
from autobackbone.latency.target import resolve
from autobackbone.records import Latency, Precision, Target

CPU = resolve(Target(device="cpu", n_threads=1))


def convolutions(n_layers: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), *(nn.Conv2d(16, 16, 3, padding=1) for _ in range(n_layers - 1))
    )


def known(p50_ms: float, noise_ms: float) -> Latency:
    return Latency(p50_ms=p50_ms, p95_ms=2 * p50_ms, noise_ms=noise_ms, images_per_s=1.0, n_repeats=3)


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_latency_is_positive_and_ordered(precision: Precision, batch_size: int):
    target = resolve(Target(device="cpu", n_threads=1, precision=precision, batch_size=batch_size))
    latency = measure(convolutions(2), (24, 32), target, seconds=0.05)
    assert 0 < latency.p50_ms <= latency.p95_ms
    assert latency.noise_ms >= 0
    assert latency.images_per_s > 0
    assert latency.n_repeats >= 3


def test_a_much_deeper_network_is_slower():
    shallow, deep = (measure(convolutions(n), (48, 48), CPU, seconds=0.2) for n in (1, 40))
    assert deep.p50_ms > 2 * shallow.p50_ms
    assert deep.images_per_s < shallow.images_per_s / 2


class Witness(nn.Module):
    """Notes under which circumstances it was called."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 2, 3)
        # A copied module still writes to this very list.
        self.seen: list[Any] = []

    def __deepcopy__(self, memo: dict[int, Any]) -> nn.Module:
        twin = Witness()
        twin.load_state_dict(self.state_dict())
        twin.train(self.training)
        twin.seen = self.seen
        return twin

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.layer(x)
        self.seen.append((tuple(x.shape), self.training, torch.is_inference(y), torch.get_num_threads(), y.dtype))
        return y


def test_passes_are_those_of_the_target():
    network = Witness()
    target = resolve(Target(device="cpu", n_threads=1, precision="bfloat16", batch_size=2))
    latency = measure(network, (16, 24), target, seconds=0.02)
    shapes = {seen[0] for seen in network.seen}
    assert shapes == {(2, 3, 16, 24), (32, 3, 16, 24)}
    assert {seen[1:] for seen in network.seen} == {(False, True, 1, torch.bfloat16)}
    # At least one pass warms up before those that count.
    assert sum(seen[0][0] == 2 for seen in network.seen) > latency.n_repeats


def test_threads_are_restored_also_after_an_error():
    before = torch.get_num_threads()
    measure(convolutions(1), (16, 16), CPU, seconds=0.02)
    assert torch.get_num_threads() == before
    with pytest.raises(RuntimeError, match="channels"):
        measure(nn.Conv2d(5, 2, 3), (16, 16), CPU, seconds=0.02)
    assert torch.get_num_threads() == before


# LeViT keeps a cache of its attention in eval mode, which must not be left behind.
@pytest.mark.parametrize(("name", "arguments"), [("lcnet_035", {}), ("levit_128s", {"img_size": 64})])
def test_the_network_is_left_as_it_was(name: str, arguments: dict[str, Any]):
    network = timm.create_model(name, pretrained=False, num_classes=3, **arguments).train()
    next(module for module in network.modules() if isinstance(module, nn.BatchNorm2d)).eval()
    modes = [module.training for module in network.modules()]
    values = {key: value.clone() for key, value in network.state_dict().items()}
    measure(network, (64, 64), resolve(Target(device="cpu", n_threads=1, precision="bfloat16")), seconds=0.02)
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(value, values[key]) for key, value in network.state_dict().items())
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    assert not any(getattr(module, "attention_bias_cache", None) for module in network.modules())
    network(torch.rand(2, 3, 64, 64)).sum().backward()


class TooLarge(nn.Module):
    """Runs out of memory from a given batch on, as one of torch's allocators tells it."""

    def __init__(self, n_pictures: int, error: Exception) -> None:
        super().__init__()
        self.n_pictures, self.error = n_pictures, error

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) >= self.n_pictures:
            raise self.error
        return x


OUT_OF_MEMORY = (
    torch.OutOfMemoryError(),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes"),
)


@pytest.mark.parametrize("error", OUT_OF_MEMORY)
def test_a_batch_that_does_not_fit_leaves_its_speed_unknown(error: Exception):
    latency = measure(TooLarge(32, error), (16, 16), CPU, seconds=0.02)
    assert latency.p50_ms > 0
    assert math.isnan(latency.images_per_s)


@pytest.mark.parametrize("error", OUT_OF_MEMORY)
@pytest.mark.parametrize("look", [measure, fastest_ms])
def test_a_network_that_does_not_fit_is_an_error_that_names_the_remedy(look: Callable[..., Any], error: Exception):
    with pytest.raises(
        TargetMemoryError, match=r"TooLarge at 16x24 px and batch 1 does not fit .* Allow smaller image_sizes"
    ):
        look(TooLarge(1, error), (16, 24), CPU)


class SometimesHeldUp(nn.Module):
    """Waits in every second pass, as if other work had the core."""

    def __init__(self) -> None:
        super().__init__()
        self.n_calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.n_calls += 1
        if self.n_calls % 2:
            time.sleep(0.02)
        for _ in range(50):
            x = x + 1
        return x


class AlwaysHeldUp(nn.Module):
    """Waits in every pass."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        time.sleep(0.02)
        return x


@pytest.mark.skipif(time.get_clock_info("thread_time").resolution > 1e-6, reason="its clock cannot tell")
def test_passes_that_other_work_held_up_do_not_count_unless_all_were():
    free, crowded = (measure(network, (8, 8), CPU, seconds=0.6) for network in (SometimesHeldUp(), AlwaysHeldUp()))
    assert free.p50_ms < 20 <= crowded.p50_ms


class SlowToBegin(nn.Module):
    """Waits in its first large batch."""

    def __init__(self) -> None:
        super().__init__()
        self.is_begun = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) == 32 and not self.is_begun:
            self.is_begun = True
            time.sleep(0.5)
        return x


def test_what_the_first_large_batch_pays_for_is_not_its_speed():
    assert measure(SlowToBegin(), (8, 8), CPU, seconds=0.4).images_per_s > 32 / 0.5


def test_no_latency_is_surer_than_drift_allows():
    latency = measure(convolutions(1), (16, 16), CPU, seconds=0.05)
    assert latency.noise_ms >= 0.0199 * latency.p50_ms


def test_latencies_within_noise_tie_both_ways():
    a, near, far = known(2.0, 0.1), known(2.15, 0.1), known(2.5, 0.1)
    assert ties(a, near)
    assert ties(near, a)
    assert not ties(a, far)
    assert not ties(far, a)


class OtherWork:
    """As the system counts what threads waited for a core: more with each look."""

    def __init__(self, step_s: float) -> None:
        self.step_s, self.total_s = step_s, 0.0

    def __call__(self) -> dict[str, float]:
        self.total_s += self.step_s
        return {"main": self.total_s, "worker": 0.9 * self.total_s, "idle": 0.0}


def test_what_threads_waited_in_every_pass_is_noise(monkeypatch: pytest.MonkeyPatch):
    network = AlwaysHeldUp()
    monkeypatch.setattr(measuring, "_half_width", lambda _: 0.0)
    monkeypatch.setattr(passing, "waited_s", OtherWork(0.008))
    crowded = measure(network, (8, 8), CPU, seconds=0.3)
    assert crowded.noise_ms == pytest.approx(8.0, rel=0.01)
    monkeypatch.setattr(passing, "waited_s", OtherWork(10.0))
    drowned = measure(network, (8, 8), CPU, seconds=0.3)
    assert drowned.noise_ms == drowned.p50_ms


@pytest.mark.skipif(not Path("/proc/self/schedstat").is_file(), reason="this system does not count it")
def test_a_thread_that_has_no_core_waits():
    def burn(until: float) -> None:
        while time.monotonic() < until:
            hashlib.sha256(b"x" * 1_000_000)  # lets go of the lock of Python

    before_s, n_threads = sum(passing.waited_s().values()), 4 * (os.cpu_count() or 1)
    workers = [threading.Thread(target=burn, args=(time.monotonic() + 0.5,)) for _ in range(n_threads)]
    for worker in workers:
        worker.start()
    time.sleep(0.4)
    assert sum(passing.waited_s().values()) > before_s
    for worker in workers:
        worker.join()


class _Noted(nn.Module):
    """Notes each of its passes."""

    def __init__(self, name, seen):
        super().__init__()
        self.name, self.seen = name, seen

    def __deepcopy__(self, memo):
        return self

    def forward(self, x):
        self.seen.append(self.name)
        return x


def test_networks_take_turns_so_that_a_machine_that_drifts_slows_them_alike():
    seen = []
    networks = [(_Noted(name, seen), (8, 8)) for name in "abc"]
    found = measure_together(networks, resolve(Target(device="cpu", n_threads=1)), seconds=0.02)
    # One pass each to begin with; then turns of five, the first of which does not count.
    turns = seen[3:]
    assert seen[:3] == ["a", "b", "c"]
    assert len(turns) % 15 == 0
    assert turns == [*"aaaaabbbbbccccc"] * (len(turns) // 15)
    assert all(3 <= latency.n_repeats <= len(turns) // 15 * 4 for latency in found)
    assert all(math.isnan(latency.images_per_s) for latency in found)


def test_a_network_that_does_not_fit_is_named_among_others():
    class Huge(nn.Module):
        def forward(self, x):
            raise MemoryError

    networks = [(nn.Conv2d(3, 4, 3), (16, 16)), (Huge(), (16, 16))]
    with pytest.raises(TargetMemoryError, match="Huge at 16x16 px and batch 1 does not fit"):
        measure_together(networks, resolve(Target(device="cpu", n_threads=1)), seconds=0.05)

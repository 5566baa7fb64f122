from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from autobackbone import passes as passing
from autobackbone.backbones.build import build
from autobackbone.costrecord import CostEntry, CostRecord, read_costs
from autobackbone.errors import RunError, TrialMemoryError
from autobackbone.passes import Manner, _bfloat16, _channels_last, _fused, _manners, _mixed, passes


class Answers(nn.Module):
    """A network that gives its logits in a tuple."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return (self.network(x),)


@pytest.fixture(autouse=True)
def _nothing_is_known_of_speeds(monkeypatch):
    monkeypatch.setattr("autobackbone.passes._favourites", {})


PICTURES = torch.randn(600, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def look(some: np.ndarray) -> Tensor:
    return PICTURES[torch.from_numpy(some)]


def network_of(name: str) -> nn.Module:
    return Answers(build(name, n_classes=3, image_size=(32, 32))).eval()


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_vit", "test_convnext"])
def test_all_pictures_are_answered_in_order_and_the_network_stays_as_it_is(name):
    network = network_of(name)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    order = np.random.default_rng(0).permutation(600)
    chunks = list(passes(network, look, order))
    assert np.array_equal(np.concatenate([some for some, _ in chunks]), order)
    with torch.inference_mode():
        wanted = network(look(order))[0]
    assert torch.allclose(torch.cat([answers[0] for _, answers in chunks]), wanted, rtol=1e-3, atol=1e-4)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert all(parameter.is_contiguous() and parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_vit", "test_convnext"])
def test_other_ways_answer_as_the_network_does(name):
    network = network_of(name)
    fused = _fused(network, look(np.arange(1)))
    assert fused is not None
    with torch.inference_mode():
        for run in (fused, _channels_last(network)):
            for n in (1, 2, 7):
                x = look(np.arange(n))
                assert torch.allclose(run(x)[0], network(x)[0], rtol=1e-3, atol=1e-4)


def test_every_way_takes_its_turn_where_there_are_many_pictures():
    network = network_of("test_efficientnet")
    manners = {(manner.way, manner.n_at_once) for manner in _manners(network, look, np.arange(600), is_beside=False)}
    assert manners == {("plain", 8), ("plain", 32), ("fused", 8), ("fused", 32)}
    assert [manner.way for manner in _manners(network, look, np.arange(20), is_beside=False)] == ["plain"]


class ByNumber(nn.Module):
    """Answers by the number of pictures, which a trace takes for a constant."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return (x.flatten(1).sum(1) / len(x),)


class NotTraced(nn.Module):
    """Cannot be traced."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        if torch._C._get_tracing_state() is not None:
            raise RuntimeError("no")
        return (x.mean((1, 2, 3)),)


@pytest.mark.parametrize("network", [ByNumber(), NotTraced()])
def test_a_way_that_answers_otherwise_is_not_used(network):
    assert {manner.way for manner in _manners(network.eval(), look, np.arange(600), is_beside=False)} == {"plain"}


class Narrow(nn.Module):
    """Too large for more than so many pictures."""

    def __init__(self, n_most: int) -> None:
        super().__init__()
        self.n_most = n_most

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        if len(x) > self.n_most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return (x.mean((1, 2, 3)),)


def test_where_memory_is_too_small_for_a_batch_its_parts_pass():
    chunks = list(passes(Narrow(3).eval(), look, np.arange(50)))
    assert torch.allclose(torch.cat([answers[0] for _, answers in chunks]), PICTURES[:50].mean((1, 2, 3)))
    with pytest.raises(TrialMemoryError, match="out of memory"):
        list(passes(Narrow(0).eval(), look, np.arange(50)))


def in_order_of_speed(monkeypatch, *, is_bfloat16_fast):
    """Let the first look at bfloat16 find what a processor with matrix units, or one without, would show."""
    seconds = iter([1.0, 1.0] if is_bfloat16_fast else [13.0, 1.0])
    monkeypatch.setattr("autobackbone.passes._best_of_two_s", lambda *_: next(seconds))


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_vit", "test_convnext"])
def test_bfloat16_answers_nearly_as_the_network_does(name, monkeypatch):
    network = network_of(name)
    in_order_of_speed(monkeypatch, is_bfloat16_fast=True)
    manner = _bfloat16(network, look, np.arange(600))
    assert manner is not None
    assert manner.n_at_once == 16  # traced: weights are rounded once
    with torch.inference_mode():
        wanted, got = network(look(np.arange(40)))[0], manner.run(look(np.arange(40)))[0]
    assert got.dtype == torch.float32
    assert not torch.equal(wanted, got)
    assert torch.nn.functional.cosine_similarity(wanted, got).min() >= 0.95


def test_bfloat16_is_not_used_where_it_is_emulated_or_answers_otherwise(monkeypatch):
    in_order_of_speed(monkeypatch, is_bfloat16_fast=False)
    assert _bfloat16(network_of("test_resnet"), look, np.arange(600)) is None

    class OtherInHalf(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            answers = x.flatten(1)[:, :64] @ torch.eye(64)
            return (answers if answers.dtype == torch.float32 else answers.flip(1),)

    in_order_of_speed(monkeypatch, is_bfloat16_fast=True)
    assert _bfloat16(OtherInHalf().eval(), look, np.arange(600)) is None


def test_what_must_not_be_rounded_is_not():
    network = network_of("test_efficientnet")
    may_round = np.arange(600) % 7 != 0
    chunks = list(passes(network, look, np.arange(600), may_round=may_round))
    got = torch.cat([answers[0] for _, answers in chunks])
    with torch.inference_mode():
        wanted = network(PICTURES)[0]
    assert torch.allclose(got[~may_round], wanted[~may_round], rtol=1e-3, atol=1e-4)
    assert torch.nn.functional.cosine_similarity(wanted, got).min() >= 0.9


def test_where_rounding_is_faster_it_begins_with_the_first_row(monkeypatch):
    """So that the clock decides nothing but in which exact way the rest is computed, which is a millionth."""
    network, may_round = network_of("test_efficientnet"), np.arange(600) % 7 != 0
    rounded = Manner(way="bfloat16", n_at_once=16, run=lambda x: (x.flatten(1)[:, :3] + 1000,))
    monkeypatch.setattr("autobackbone.passes._bfloat16", lambda *_, **__: rounded)
    ways = {(manner.way, manner.n_at_once) for manner in _manners(network, look, np.arange(600), is_beside=True)}
    assert ways == {("plain", 8), ("fused", 8)}
    chunks = list(passes(network, look, np.arange(600), may_round=may_round))
    got = torch.cat([answers[0] for _, answers in chunks])
    assert ((got > 500).all(1).numpy() == may_round).all()
    # One of the exact ways does the few rows of later passes, and the other is not built again.
    assert len(_manners(network, look, np.arange(600), is_beside=True)) == 1


@pytest.mark.parametrize("n_rough", [0, 1, 3, 5])
def test_rows_keep_their_places_whichever_way_they_were_answered(n_rough):
    exact = Manner(way="plain", n_at_once=2, run=lambda x: (x.flatten(1).sum(1), x))
    rough = Manner(way="bfloat16", n_at_once=2, run=lambda x: (x.flatten(1).sum(1) + 1000, x))
    is_rough = np.random.default_rng(n_rough).permutation(np.arange(5) < n_rough)
    chunk = np.array([4, 2, 0, 9, 7])
    sums, inputs = _mixed(rough, exact, look, chunk, is_rough, {})
    assert torch.equal(inputs, look(chunk))
    assert torch.allclose(sums, look(chunk).flatten(1).sum(1) + 1000 * torch.from_numpy(is_rough))


def test_later_passes_try_what_was_fast_before():
    network = network_of("test_efficientnet")
    list(passes(network, look, np.arange(600)))
    first = {(manner.way, manner.n_at_once) for manner in _manners(network, look, np.arange(600), is_beside=False)}
    assert len(first) == 2
    # One that cannot be fused still passes, in the ways that it has.
    assert {manner.way for manner in _manners(NotTraced().eval(), look, np.arange(600), is_beside=False)} == {"plain"}


def course_of(network, monkeypatch, seconds, entry):
    """The answers of a pass in which a clock says what is fast: seconds by way and number at once."""
    monkeypatch.setattr(passing, "_timed", clocked(seconds))
    chunks = passes(network, look, np.arange(600), entry=entry)
    return torch.cat([answers[0] for _, answers in chunks])


def clocked(seconds):
    def timed(manner, look, chunk, speeds):
        speeds[manner] = seconds.get((manner.way, manner.n_at_once), 1.0)
        return passing._answers(manner, look, chunk)

    return timed


def test_a_pass_is_repeated_in_its_course_whatever_the_clock_says(monkeypatch, tmp_path):
    network = network_of("test_efficientnet")
    record = CostRecord(file=tmp_path / "costs.jsonl")
    first = course_of(network, monkeypatch, {("fused", 32): 0.1}, CostEntry(record, "pass"))
    repeated = read_costs(tmp_path / "costs.jsonl")
    assert repeated["pass"][0]["exact"] == ["fused", 32]
    # The next pass of this process tries fewer ways, and its clock likes another one.
    other = course_of(network, monkeypatch, {("fused", 8): 0.1}, None)
    assert not torch.equal(other, first)
    again = course_of(network, monkeypatch, {("fused", 8): 0.1}, CostEntry(CostRecord(repeated=repeated), "pass"))
    assert torch.equal(again, first)


def test_what_was_rounded_is_rounded_again(monkeypatch, tmp_path):
    network, may_round = network_of("test_efficientnet"), np.ones(600, np.bool_)
    record = CostRecord(file=tmp_path / "costs.jsonl")
    monkeypatch.setattr(passing, "_is_emulated", lambda *_: False)
    monkeypatch.setattr(passing, "_timed", clocked({("bfloat16", 16): 0.1}))
    first = [a[0] for _, a in passes(network, look, np.arange(600), may_round=may_round, entry=CostEntry(record, "it"))]
    noted = read_costs(tmp_path / "costs.jsonl")["it"]
    assert noted[0]["is_rounded"]
    # On another machine it would be left out at once.
    monkeypatch.setattr(passing, "_is_emulated", lambda *_: True)
    monkeypatch.setattr(passing, "_timed", clocked({}))
    entry = CostEntry(CostRecord(repeated={"it": noted}), "it")
    again = [a[0] for _, a in passes(network, look, np.arange(600), may_round=may_round, entry=entry)]
    assert torch.equal(torch.cat(again), torch.cat(first))


def test_few_pictures_have_no_course_to_note(tmp_path):
    record = CostRecord(file=tmp_path / "costs.jsonl")
    list(passes(network_of("test_resnet"), look, np.arange(20), entry=CostEntry(record, "it")))
    assert not record.file.exists()
    assert record.n_measured == 0


def test_a_course_that_is_none_is_named():
    entry = CostEntry(CostRecord(repeated={"it": [{"manners": 3}]}), "it")
    with pytest.raises(RunError, match=r"it should be the course of a pass, and \{'manners': 3\} came"):
        list(passes(network_of("test_resnet"), look, np.arange(600), entry=entry))

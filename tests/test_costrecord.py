"""What a run notes of its costs, and what another one takes from that."""

import json
import math
from dataclasses import asdict

import pytest

from autobackbone.costrecord import SITTING, CostRecord, is_one_untimed_sitting, read_costs
from autobackbone.errors import RunError
from autobackbone.records import Latency

LATENCY = Latency(p50_ms=2.0, p95_ms=3.0, noise_ms=0.1, images_per_s=float("nan"), n_repeats=9)


def never():
    raise AssertionError("measured")


def test_what_is_noted_comes_again_in_its_order(tmp_path):
    record = CostRecord(file=tmp_path / "costs.jsonl")
    assert [record.seconds("epoch", lambda s=s: s) for s in (1.5, 2.5)] == [1.5, 2.5]
    assert record.one_of("step", ("slow", "fast"), lambda: "fast") == "fast"
    assert record.latencies("latency", 1, lambda: [LATENCY])[0].p50_ms == 2.0
    assert record.n_measured == 4

    again = CostRecord(file=tmp_path / "again.jsonl", repeated=read_costs(tmp_path / "costs.jsonl"))
    assert [again.seconds("epoch", never) for _ in range(3)] == [1.5, 2.5, 2.5]  # the last one stays
    assert again.one_of("step", ("slow", "fast"), never) == "fast"
    (latency,) = again.latencies("latency", 1, never)
    assert (latency.p95_ms, latency.n_repeats) == (3.0, 9)
    assert math.isnan(latency.images_per_s)
    assert again.n_measured == 0
    # Whoever repeats the repetition finds the same.
    third = CostRecord(repeated=read_costs(tmp_path / "again.jsonl"))
    assert third.seconds("epoch", never) == 1.5


def test_what_was_not_noted_is_measured(tmp_path):
    record = CostRecord(repeated={"epoch": [1.0]})
    assert record.seconds("another", lambda: 4.0) == 4.0
    assert record.n_measured == 1


def test_a_run_that_goes_on_goes_on_in_what_it_repeats(tmp_path):
    repeated = {"epoch": [1.0, 2.0, 3.0]}
    first = CostRecord(file=tmp_path / "costs.jsonl", repeated=repeated)
    assert first.seconds("epoch", never) == 1.0
    with (tmp_path / "costs.jsonl").open("a") as lines:
        lines.write('{"of": "epo')  # killed
    second = CostRecord(file=tmp_path / "costs.jsonl", repeated=repeated)
    assert second.seconds("epoch", never) == 2.0
    assert read_costs(tmp_path / "costs.jsonl") == {"epoch": [1.0, 2.0]}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[]", "line 1 is no cost"),
        ('{"of": "a"}', "line 1 is no cost"),
        ('{"of": 3, "is": 1}', "line 1 is no cost"),
        ("{", "line 1 is no cost"),
        ("[" * 100_000, "line 1 is no cost"),
    ],
)
def test_a_damaged_record_is_named(tmp_path, line, message):
    (tmp_path / "costs.jsonl").write_text(line + "\n")
    with pytest.raises(RunError, match=message):
        read_costs(tmp_path / "costs.jsonl")


@pytest.mark.parametrize(
    ("value", "ask"),
    [
        ("soon", lambda record: record.seconds("it", never)),
        (-1.0, lambda record: record.seconds("it", never)),
        (float("nan"), lambda record: record.seconds("it", never)),
        (0, lambda record: record.seconds("it", never)),
        (1e-320, lambda record: record.seconds("it", never)),
        (1e308, lambda record: record.seconds("it", never)),
        (3, lambda record: record.one_of("it", ("slow", "fast"), never)),
        ([{"p50_ms": 2}], lambda record: record.latencies("it", 1, never)),
        (7, lambda record: record.latencies("it", 1, never)),
    ],
)
def test_a_value_of_another_kind_is_named(value, ask):
    with pytest.raises(RunError, match=r"it should be .* came"):
        ask(CostRecord(repeated={"it": [value]}))


@pytest.mark.parametrize(
    "changes",
    [
        *({name: value} for name in ("p50_ms", "p95_ms") for value in (0, None, 1e308, 1e-320, 10**400)),
        *({name: value} for name in ("noise_ms", "images_per_s") for value in (-1, 1e308, float("inf"), "1", True)),
        *({"n_repeats": value} for value in (None, 0, 1.5, True, 10**400)),
        {"noise_ms": None},
        {"images_per_s": 0},
        {"images_per_s": None, "p50_ms": 0},
    ],
    ids=str,
)
def test_a_latency_that_cannot_have_been_measured_is_named(changes):
    noted = [{**asdict(LATENCY), "images_per_s": None, **changes}]
    with pytest.raises(RunError, match=r"damaged: it should be a list of one latency, and .* came"):
        CostRecord(repeated={"it": [noted]}).latencies("it", 1, never)


@pytest.mark.parametrize("n", [0, 1, 3])
def test_as_many_latencies_as_networks_were_noted(n):
    noted = [{**asdict(LATENCY), "images_per_s": None}] * n
    with pytest.raises(RunError, match=r"damaged: it should be a list of 2 latencies, and .* came"):
        CostRecord(repeated={"it": [noted]}).latencies("it", 2, never)


def test_damage_of_its_own_record_ends_no_run(tmp_path):
    file = tmp_path / "costs.jsonl"
    file.write_bytes(b'{"of": "epoch", "is": 1.0}\n\0\0\xff\n{"of": "epoch", "is": 2.0}\n')
    record = CostRecord(file=file, repeated={"epoch": [1.0, 2.0, 3.0]})
    assert record.seconds("epoch", never) == 3.0


@pytest.mark.parametrize(
    ("sittings", "is_one"),
    [
        ([{"wall_clock_s": None, "n_trials": 3}], True),
        ([{"wall_clock_s": 60.0, "n_trials": None}], False),
        ([{"wall_clock_s": None}, {"wall_clock_s": None}], False),
        ([], False),
        (["soon"], False),
    ],
)
def test_only_one_sitting_without_a_clock_comes_out_the_same(sittings, is_one):
    assert is_one_untimed_sitting({SITTING: sittings} if sittings else {}) == is_one


def test_another_process_goes_on_in_what_is_repeated_and_its_notes_are_taken_over(tmp_path):
    record = CostRecord(
        file=tmp_path / "costs.jsonl", repeated={"epoch": [1.0, 2.0, 3.0], "step": ["slow"], "none": []}
    )
    assert record.seconds("epoch", never) == 1.0
    assert record.one_of("step", ("slow", "fast"), never) == "slow"
    assert record.ahead() == {"epoch": [2.0, 3.0], "step": ["slow"]}
    other = CostRecord(file=tmp_path / "other.jsonl", repeated=record.ahead())
    assert [other.seconds("epoch", never) for _ in range(2)] == [2.0, 3.0]
    record.take_over(tmp_path / "other.jsonl")
    record.take_over(tmp_path / "not there.jsonl")
    assert record.ahead() == {"epoch": [3.0], "step": ["slow"]}
    assert read_costs(tmp_path / "costs.jsonl") == {"epoch": [1.0, 2.0, 3.0], "step": ["slow"]}


def test_a_full_disk_ends_no_search(tmp_path, caplog):
    record = CostRecord(file=tmp_path / "not there" / "costs.jsonl")
    assert record.seconds("epoch", lambda: 1.0) == 1.0
    assert "recorded no more" in caplog.text
    assert record.file is None


def test_each_line_is_plain_data(tmp_path):
    CostRecord(file=tmp_path / "costs.jsonl").seconds("epoch of net at 32x32 px", lambda: 1.25)
    assert json.loads((tmp_path / "costs.jsonl").read_text()) == {"of": "epoch of net at 32x32 px", "is": 1.25}

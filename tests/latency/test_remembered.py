"""What was measured is found again under the same circumstances, and under no others."""

import logging
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from autobackbone.latency import remembered
from autobackbone.latency.remembered import LatencyBook
from autobackbone.records import Latency, Target

CPU = Target(device="cpu", n_threads=1)
LATENCY = Latency(p50_ms=2.0, p95_ms=3.0, noise_ms=0.1, images_per_s=900.0, n_repeats=40)


@pytest.fixture
def book(tmp_path):
    return LatencyBook(tmp_path / "cache" / "latencies.json")


def test_what_was_remembered_is_found_by_another_process(book):
    book.remember("lcnet_050.x", (96, 128), CPU, LATENCY)
    assert LatencyBook(book.path).find("lcnet_050.x", (96, 128), CPU) == LATENCY


@pytest.mark.parametrize(
    ("backbone", "image_size", "target"),
    [
        ("lcnet_075.x", (96, 128), CPU),
        ("lcnet_050.x", (128, 96), CPU),
        ("lcnet_050.x", (96, 128), replace(CPU, batch_size=2)),
        ("lcnet_050.x", (96, 128), replace(CPU, precision="bfloat16")),
    ],
)
def test_other_circumstances_are_not_known(book, backbone, image_size, target):
    book.remember("lcnet_050.x", (96, 128), CPU, LATENCY)
    assert book.find(backbone, image_size, target) is None


@pytest.mark.parametrize("library", ["torch", "timm"])
def test_another_version_measures_anew(book, monkeypatch, library):
    book.remember("lcnet_050.x", (96, 128), CPU, LATENCY)
    if library == "torch":
        monkeypatch.setattr(torch, "__version__", "99.0")
    else:
        monkeypatch.setattr(remembered, "version", lambda _: "99.0")
    assert book.find("lcnet_050.x", (96, 128), CPU) is None


def test_what_stands_open_in_a_target_is_settled_before_it_is_looked_up(book):
    book.remember("a.b", (64, 64), Target(device="cpu"), LATENCY)
    assert book.find("a.b", (64, 64), Target(device="cpu", precision="float32")) == LATENCY


def test_two_books_of_one_file_keep_each_others_entries(book):
    other = LatencyBook(book.path)
    book.remember("a.b", (64, 64), CPU, LATENCY)
    other.remember("c.d", (64, 64), CPU, LATENCY)
    assert book.find("a.b", (64, 64), CPU) == book.find("c.d", (64, 64), CPU) == LATENCY


def test_a_speed_that_is_not_known_stays_so(book):
    book.remember("a.b", (64, 64), CPU, replace(LATENCY, images_per_s=float("nan")))
    assert "nan" in repr(book.find("a.b", (64, 64), CPU))


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", '{"format": 1}', '{"format": 1, "latencies": {"k": {"p50_ms": 1}}}', "\x00\xff", "7"],
)
def test_a_damaged_file_is_started_anew_with_one_line(book, caplog, content):
    book.path.parent.mkdir(parents=True)
    book.path.write_bytes(content.encode("latin-1"))
    with caplog.at_level(logging.WARNING):
        assert book.find("a.b", (64, 64), CPU) is None
    assert [record.getMessage().count("is damaged") for record in caplog.records] == [1]
    book.remember("a.b", (64, 64), CPU, LATENCY)
    assert book.find("a.b", (64, 64), CPU) == LATENCY


def test_a_failed_write_is_told_and_leaves_the_old_file_and_no_litter(book, monkeypatch, caplog):
    book.remember("a.b", (64, 64), CPU, LATENCY)
    before = book.path.read_bytes()

    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr(Path, "replace", full)
    book.remember("c.d", (64, 64), CPU, LATENCY)
    assert "latencies cannot be remembered" in caplog.text
    assert "no space left" in caplog.text
    assert book.path.read_bytes() == before
    assert [file.name for file in book.path.parent.iterdir()] == [book.path.name]


class Adds(nn.Module):
    """Takes a while."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(100):
            x = x + 1
        return x


@pytest.mark.parametrize("strict", ["_KEPT_NOISE_SHARE", "_KEPT_REPEATS"])
def test_an_uncertain_measurement_is_given_but_not_kept(book, monkeypatch, caplog, strict):
    monkeypatch.setattr(remembered, "_KEPT_NOISE_SHARE", 0.0 if strict == "_KEPT_NOISE_SHARE" else 1e9)
    monkeypatch.setattr(remembered, "_KEPT_REPEATS", 10**9 if strict == "_KEPT_REPEATS" else 0)
    latency = book.measure(Adds(), "a.b", (8, 8), CPU, seconds=1.0)
    assert latency.p50_ms > 0
    assert book.find("a.b", (8, 8), CPU) is None
    assert "a.b is uncertain" in caplog.text
    book.measure(Adds(), "a.b 50b0d847, first 3 blocks", (8, 8), CPU, seconds=1.0)
    assert "the latency of a.b, first 3 blocks is uncertain" in caplog.text
    assert ("With GOMP_SPINCOUNT=5000" in caplog.text) == ("GOMP_SPINCOUNT" not in os.environ)


@pytest.fixture
def on_any_machine(monkeypatch):
    """Measurements are kept on a machine that is busy, too."""
    monkeypatch.setattr(remembered, "_KEPT_NOISE_SHARE", 1e9)
    monkeypatch.setattr(remembered, "_KEPT_REPEATS", 0)


@pytest.mark.usefixtures("on_any_machine")
def test_a_measurement_is_made_once(book, monkeypatch):
    monkeypatch.setattr(remembered, "_STALE_RATIO", 1e9)
    first = book.measure(Adds(), "a.b", (8, 8), CPU, seconds=0.02)
    monkeypatch.setattr(remembered, "measure", None)
    assert book.measure(Adds(), "a.b", (8, 8), CPU) == first


@pytest.mark.usefixtures("on_any_machine")
@pytest.mark.parametrize("stale_ms", [1e-6, 1e6])
def test_what_a_glance_does_not_bear_out_is_measured_anew(book, stale_ms):
    book.remember("a.b", (8, 8), CPU, replace(LATENCY, p50_ms=stale_ms))
    latency = book.measure(Adds(), "a.b", (8, 8), CPU, seconds=0.02)
    assert 1e-6 < latency.p50_ms < 1e6
    assert book.find("a.b", (8, 8), CPU) == latency


@pytest.mark.parametrize(
    ("known_ms", "noise_ms", "is_explained"), [(20.0, 35.0, True), (10.0, 30.0, False), (90.0, 35.0, False)]
)
def test_noise_may_explain_why_it_is_slower_than_what_is_remembered(
    book, monkeypatch, caplog, known_ms, noise_ms, is_explained
):
    known, crowded = replace(LATENCY, p50_ms=known_ms), replace(LATENCY, p50_ms=50.0, noise_ms=noise_ms)
    monkeypatch.setattr(remembered, "fastest_ms", lambda *_: 50.0)
    monkeypatch.setattr(remembered, "measure", lambda *_, **__: crowded)
    book.remember("a.b", (8, 8), CPU, known)
    assert book.measure(Adds(), "a.b", (8, 8), CPU) == (known if is_explained else crowded)
    assert book.find("a.b", (8, 8), CPU) == known
    assert ("is uncertain" in caplog.text) != is_explained


def test_what_can_be_neither_read_nor_written_is_told_and_measured_anew(book, caplog):
    book.path.mkdir(parents=True)
    with caplog.at_level(logging.WARNING):
        assert book.measure(Adds(), "a.b", (8, 8), CPU, seconds=0.02).p50_ms > 0
        book.remember("a.b", (8, 8), CPU, LATENCY)
    assert "latencies are measured anew" in caplog.text
    assert "latencies cannot be remembered" in caplog.text

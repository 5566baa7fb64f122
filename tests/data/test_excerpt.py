from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from autobackbone.data import LEFT_OUT, PART_CODES, decode, excerpt, fair_order, survey, within_time
from autobackbone.errors import BudgetError

if TYPE_CHECKING:
    from pathlib import Path

    from autobackbone.data import Survey

RNG = np.random.default_rng(0)


class SlowPictures:
    """A map-style dataset of which each picture takes a while, as a large photograph does."""

    def __init__(self, labels: list[str], seconds: float) -> None:
        self.targets, self.seconds = labels, seconds

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Any, str]:
        time.sleep(self.seconds)
        return np.full((8, 8), index % 251, np.uint8), self.targets[index]


def found(n: int = 200, *, n_classes: int = 2) -> Survey:
    labels = np.arange(n) % n_classes
    return survey((RNG.integers(0, 256, (n, 8, 8), np.uint8), labels))


def bounded(dataset: Survey, seconds: float | None, tmp_path: Path) -> Survey:
    return within_time(dataset, [(8, 8)], seconds, seed=0, cache_dir=tmp_path, n_workers=2)


def test_what_can_be_read_in_time_is_used_whole(tmp_path):
    dataset = found()
    assert bounded(dataset, 60.0, tmp_path) is dataset
    assert bounded(dataset, None, tmp_path) is dataset


def test_a_short_budget_reads_a_fair_part_and_says_so(tmp_path):
    dataset = survey(SlowPictures(["ant", "bee", "cat"] * 200, 0.01))
    part = bounded(dataset, 6.0, tmp_path)
    n = len(part.names)
    assert 30 < n < 180  # 0.3 of 6 s, at a hundredth of a second and a digest that reads as well
    assert part.counts().sum(axis=1).max() - part.counts().sum(axis=1).min() <= 3
    shares = part.counts().sum() / n - dataset.counts().sum() / 600
    assert shares.abs().max() < 0.03
    assert part.skipped[-1].startswith(f"{n} of 600 pictures are used")
    assert "to use all" in part.skipped[-1]


@pytest.mark.slow
def test_what_is_decoded_already_is_used_whole(tmp_path):
    # Flat pictures are small files, quickly digested, with many pixels, slowly decoded.
    for name, colour in (("ant", "red"), ("bee", "blue")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.new("RGB", (3000, 3000), colour).save(tmp_path / "first.png", compress_level=1)
        for number in range(30):
            shutil.copy(tmp_path / "first.png", tmp_path / "photos" / name / f"{number}.png")
    dataset = survey(tmp_path / "photos")
    assert len(bounded(dataset, 2.0, tmp_path).names) < 60
    decode(dataset, [8], cache_dir=tmp_path)
    assert len(bounded(dataset, 2.0, tmp_path).names) == 60


def test_more_classes_than_can_be_read_is_an_error(tmp_path):
    dataset = survey(SlowPictures([str(index % 100) for index in range(600)], 0.02))
    with pytest.raises(BudgetError, match=r"each of 100 classes .* 1 s of the budget are left. Give at least"):
        bounded(dataset, 1.0, tmp_path)


def test_the_part_is_read_as_the_whole_is(tmp_path, tree):
    whole = survey(tree)
    part = excerpt(whole, 20, seed=0)
    pixels = decode(whole, [16], cache_dir=tmp_path).pixels(16)
    bundle = decode(part, [16], cache_dir=tmp_path)
    assert bundle.names == part.names
    for index, name in enumerate(part.names):
        assert np.array_equal(bundle.pixels(16)[index], pixels[whole.names.index(name)])
        assert bundle.labels[index] == whole.labels[whole.names.index(name)]
        assert bundle.parts[index] == whole.parts[whole.names.index(name)]


@given(n=st.integers(0, 120), seed=st.integers(0, 9))
@settings(max_examples=30, deadline=None)
def test_a_larger_part_holds_a_smaller_one_and_every_class(n, seed):
    dataset = found(120, n_classes=5)
    small, large = excerpt(dataset, n, seed=seed), excerpt(dataset, n + 7, seed=seed)
    assert set(small.names) <= set(large.names)
    assert (small.counts()["train"] > 0).all()
    assert (small.counts().sum() > 0).all()
    assert len(small.names) <= max(n, 8) + 8


@given(
    strata=st.lists(st.tuples(st.integers(0, 3), st.sampled_from([LEFT_OUT, *PART_CODES.values()])), min_size=1),
    share=st.floats(0, 1),
)
def test_every_beginning_of_the_order_is_in_proportion(strata, share):
    labels, parts = np.array([a for a, _ in strata], np.int64), np.array([b for _, b in strata], np.int8)
    order = fair_order(labels, parts, seed=0)
    assert sorted(order) == np.flatnonzero(parts != LEFT_OUT).tolist()
    n = round(share * len(order))
    for stratum in {(a, b) for a, b in strata if b != LEFT_OUT}:
        members = np.flatnonzero((labels == stratum[0]) & (parts == stratum[1]))
        n_taken = np.isin(members, order[:n]).sum()
        # A beginning ends somewhere between the places of its last picture and the next one.
        assert abs(n_taken - len(members) * share) <= 2 + len(members) / max(1, len(order)) * len(set(strata))

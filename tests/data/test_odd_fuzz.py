"""Any damage to any picture: never a crash, never a wrong picture without a word."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.data.oddities import WAYS, as_pillow_reads, decoded, flipped, folder_of, pixels_of, taken, whole

from autobackbone.data import survey

places = st.floats(0, 1, exclude_max=True)
ways = st.sampled_from(WAYS)


def cut(content: bytes, place: float) -> bytes:
    return content[: int(place * len(content))]


truncations = st.builds(lambda way, place: (way, cut(whole(way), place)), ways, places)


@st.composite
def flips(draw):
    """A sound file with one to eight of its bits turned over, half of them near its beginning."""
    way = draw(ways)
    n_bits = 8 * len(whole(way))
    bits = draw(st.lists(st.integers(0, n_bits - 1) | st.integers(0, min(n_bits, 800) - 1), min_size=1, max_size=8))
    return way, flipped(whole(way), bits)


@st.composite
def spliced(draw):
    """A sound file with a piece replaced, doubled, taken out, or followed by another file."""
    way, other = draw(ways), draw(ways)
    content, (begin, end) = whole(way), sorted(int(draw(places) * len(whole(way))) for _ in range(2))
    piece = draw(st.binary(max_size=40) | st.just(content[begin:end]) | st.just(whole(other)))
    return way, content[:begin] + piece + content[draw(st.sampled_from([begin, end])) :]


@st.composite
def headed(draw):
    """A header of a picture, and anything behind it."""
    way = draw(ways)
    return way, whole(way)[: draw(st.integers(2, 64))] + draw(st.binary(max_size=400))


damaged = st.one_of(truncations, flips(), spliced(), headed(), st.tuples(st.just("nothing"), st.binary(max_size=100)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image, "MAX_IMAGE_PIXELS", 10**6)  # a header may ask for a picture that fills memory
        where = tmp_path_factory.mktemp("fuzz")
        folder_of(where, {"odd.png": b""})
        yield where


def check(folder: Path, content: bytes) -> None:
    """The law, on the whole way from a folder to pixels, with a file that is new to each store."""
    (folder / "photos" / "a" / "odd.png").write_bytes(content)
    bundle = decoded(survey(folder / "photos"), folder / "cache")
    pixels: dict[str, Any] = pixels_of(bundle)
    odd = pixels.pop("a/odd.png")
    right: Any = as_pillow_reads(content, bundle.preparation)
    assert odd is None or np.array_equal(odd, right)
    assert all(np.array_equal(of, (9, 99, 199) * np.ones_like(of)) for of in pixels.values())
    shutil.rmtree(folder / "cache")


@pytest.mark.timeout(300)
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(damaged)
def test_no_damage_stops_the_work_or_makes_a_wrong_picture(folder, made):
    check(folder, made[1])


@pytest.mark.slow
@pytest.mark.timeout(3600)
@settings(max_examples=5000, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(damaged)
def test_no_damage_among_thousands_stops_the_work_or_makes_a_wrong_picture(folder, made):
    check(folder, made[1])


@pytest.mark.slow
@pytest.mark.parametrize("is_smooth", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_a_file_truncated_anywhere_is_left_out_or_as_good_as_whole(tmp_path, way, is_smooth):
    content = whole(way, side=40, is_smooth=is_smooth)
    lengths = np.unique(np.linspace(0, len(content), 400, dtype=int)).tolist()
    found, bundle = taken(tmp_path, {f"{n_bytes}.png": content[:n_bytes] for n_bytes in lengths})
    right = as_pillow_reads(content, bundle.preparation)
    assert [name for name, odd in found.items() if odd is not None and not np.array_equal(odd, right)] == []


@pytest.mark.slow
@pytest.mark.parametrize("is_smooth", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_any_flipped_bit_is_left_out_or_read_as_pillow_reads_it(tmp_path, monkeypatch, way, is_smooth):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10**6)
    content = whole(way, side=40, is_smooth=is_smooth)
    n_bits = 8 * len(content)
    bits = np.random.default_rng(1).choice(n_bits, min(n_bits, 200), replace=False).tolist()
    files = {f"{bit}.png": flipped(content, [bit]) for bit in bits}
    found, bundle = taken(tmp_path, files)
    for name, odd in found.items():
        file = content if "png" in way else files[name]
        assert odd is None or np.array_equal(odd, as_pillow_reads(file, bundle.preparation)), name

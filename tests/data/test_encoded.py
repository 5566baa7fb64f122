import numpy as np
import pytest
from PIL import Image

from autobackbone.data import decode, survey
from autobackbone.data.encoded import EncodedPixels
from autobackbone.data.surveying import DataWarning

SIZE = (24, 32)
STORED = 36 * 24 * 32 * 3


@pytest.fixture
def folder(tmp_path):
    """Pictures of three forms and two classes, one of them broken."""
    generator = np.random.default_rng(0)
    for number in range(36):
        name = tmp_path / "pictures" / "ab"[number % 2] / f"{number:02d}.{('png', 'jpg', 'webp')[number % 3]}"
        name.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (40 + number, 50, 3), np.uint8)).save(name)
    (tmp_path / "pictures" / "a" / "00.png").write_bytes(b"\x89PNG no more")
    return tmp_path / "pictures"


@pytest.fixture
def bundles(folder, tmp_path):
    def make(max_bytes, name, **given):
        with pytest.warns(UserWarning, match="1 of 36 pictures cannot be read"):
            return decode(survey(folder), [SIZE], cache_dir=tmp_path / name, max_bytes=max_bytes, **given)

    return make


def test_pictures_that_stay_encoded_are_those_that_would_be_stored(bundles):
    stored, encoded = bundles(STORED, "stored").pixels(SIZE), bundles(STORED - 1, "encoded").pixels(SIZE)
    assert isinstance(encoded, EncodedPixels)
    assert encoded.shape == stored.shape == (36, 24, 32, 3)
    some = np.array([5, 1, 35, 5])
    np.testing.assert_array_equal(encoded[some], stored[some])
    np.testing.assert_array_equal(encoded[np.arange(1, 36)], stored[1:])
    with pytest.warns(DataWarning, match=r"^1 picture cannot be read now \(black instead\), such as a/00\.png: "):
        broken = encoded[np.array([0])]
    assert not broken.any()
    assert not encoded[np.array([0, 1])][0].any()  # told once


def test_a_picture_that_goes_missing_later_is_told(bundles, folder):
    bundle = bundles(0, "encoded")
    encoded, number = bundle.pixels(SIZE), bundle.names.index("b/01.jpg")
    (folder / "b" / "01.jpg").unlink()
    with pytest.warns(DataWarning, match=r"^1 picture .* such as b/01\.jpg: "):
        pixels = encoded[np.array([number, number + 1])]
    assert not pixels[0].any()
    assert pixels[1].any()
    assert bundle.pixels(SIZE) is encoded  # which knows what it has told
    for name in list((folder / "b").iterdir())[:12]:
        name.unlink(missing_ok=True)
    with pytest.warns(DataWarning, match=r"^1[1-3] pictures cannot be read now"):  # not twelve times
        encoded[np.arange(1, 36)]


@pytest.mark.parametrize("n_workers", [1, 3])
def test_what_cannot_be_read_is_known_before_any_pass_and_remembered(bundles, n_workers, tmp_path):
    seen = []
    bundle = bundles(0, "encoded", n_workers=n_workers, on_progress=lambda done, n: seen.append((done, n)))
    assert seen == [(number, 36) for number in range(1, 37)]
    assert not any(
        "a/00.png" in bundle.names[index] for part in ("train", "validation", "test") for index in bundle.indices(part)
    )
    assert any("stay encoded" in line and "raise cache_gb" in line for line in bundle.skipped)
    assert not list((tmp_path / "encoded").rglob("*.npy"))
    again = bundles(0, "encoded", on_progress=lambda *_: pytest.fail("they were read again"))
    np.testing.assert_array_equal(again.parts, bundle.parts)


def test_a_size_that_still_has_room_is_stored_and_the_next_one_is_not(bundles):
    bundle = bundles(STORED + 100, "some")
    assert not isinstance(bundle.pixels(SIZE), EncodedPixels)
    assert isinstance(bundle.pixels((32, 32)), EncodedPixels)
    assert not bundle.has_pixels((32, 32))
    assert bundle.has_pixels(SIZE)


def test_of_several_sizes_those_are_stored_that_have_room_and_the_others_are_named(folder, tmp_path):
    with pytest.warns(UserWarning, match="1 of 36 pictures cannot be read"):
        bundle = decode(survey(folder), [(64, 64), SIZE], cache_dir=tmp_path / "some", max_bytes=STORED)
    assert not isinstance(bundle.pixels(SIZE), EncodedPixels)
    assert isinstance(bundle.pixels((64, 64)), EncodedPixels)
    (line,) = (line for line in bundle.skipped if "stay encoded" in line)
    assert "64x64 px" in line
    assert "24x32" not in line


def test_where_the_disk_has_no_room_pictures_stay_encoded(bundles, monkeypatch):
    monkeypatch.setattr("autobackbone.data.bundle.free_bytes", lambda _: STORED)
    assert isinstance(bundles(10**9, "full").pixels(SIZE), EncodedPixels)

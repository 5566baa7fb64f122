"""Pictures from anywhere: what is not whole is left out and named, and what is not named is right."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, features
from tests.data.conftest import noise
from tests.data.oddities import SIDE, WAYS, as_pillow_reads, encoded, flipped, pixels_of, taken, whole

from autobackbone.data import decode, survey
from autobackbone.data.pictures import as_rgb, header_size
from autobackbone.data.sources import digest_picture
from autobackbone.data.surveying import DataWarning
from autobackbone.errors import DataError

pytestmark = pytest.mark.timeout(120)  # a decoder that never ends is a failure, too

RGB = Image.fromarray(noise(0, SIDE, SIDE))
N_CUTS, N_FLIPS = 30, 40


def cuts(n_bytes: int, n: int) -> list[int]:
    """Lengths all over a file, more of them near its end, where a picture is almost whole."""
    return sorted({*np.linspace(0, n_bytes, n, dtype=int).tolist(), *range(max(0, n_bytes - 8), n_bytes + 1)})


@pytest.mark.parametrize("way", WAYS)
def test_a_truncated_file_is_left_out_or_as_good_as_whole(tmp_path, way):
    content = whole(way)
    files = {f"{n:05d}.png": content[:n] for n in cuts(len(content), N_CUTS)}
    found, bundle = taken(tmp_path, files)
    right = as_pillow_reads(content, bundle.preparation)
    assert right is not None
    assert found[f"{len(content):05d}.png"] is not None
    for name, pixels in found.items():
        assert pixels is None or np.array_equal(pixels, right), name
    assert found["00000.png"] is None


def test_a_jpeg_2000_without_its_end_is_left_out(tmp_path):
    content = whole("jpeg 2000", side=40, is_smooth=True)
    files = {f"{n}.jp2": content[:n] for n in range(len(content) - 200, len(content) - 1)}
    found, bundle = taken(tmp_path, files)
    assert set(found.values()) == {None}
    others = [as_pillow_reads(file, bundle.preparation) for file in files.values()]
    right = as_pillow_reads(content, bundle.preparation)
    assert any(of is not None and not np.array_equal(of, right) for of in others), "which Pillow takes for whole"


@pytest.mark.parametrize("way", ["jpeg", "progressive jpeg", "jpeg with restarts", "png", "lossless webp", "jpeg tiff"])
def test_a_truncated_file_of_many_blocks_is_left_out_or_as_good_as_whole(tmp_path, way):
    content = whole(way, side=400)
    assert len(content) > 2**16, "more than Pillow reads at once"
    files = {f"{n:06d}.jpg": content[:n] for n in cuts(len(content), 12)}
    found, bundle = taken(tmp_path, files)
    right = as_pillow_reads(content, bundle.preparation)
    for name, pixels in found.items():
        assert pixels is None or np.array_equal(pixels, right), name


@pytest.mark.parametrize("way", WAYS)
def test_flipped_bits_are_left_out_or_read_as_pillow_reads_them(tmp_path, monkeypatch, way):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10**6)  # a flipped bit may make a picture of it that fills memory
    content = whole(way)
    bits = np.random.default_rng(0).choice(8 * len(content), N_FLIPS, replace=False).tolist()
    files = {f"{bit}.tiff": flipped(content, [bit]) for bit in bits}
    found, bundle = taken(tmp_path, files)
    right = as_pillow_reads(content, bundle.preparation)
    for name, pixels in found.items():
        if pixels is not None:
            # A PNG has checksums: what is flipped is found out, or changes nothing.
            expected = right if "png" in way else as_pillow_reads(files[name], bundle.preparation)
            assert np.array_equal(pixels, expected), name


def test_pixels_that_contradict_the_checksum_of_a_png_are_left_out(tmp_path):
    content = whole("png", side=200, is_smooth=True)
    pixels = range(8 * (content.index(b"IDAT") + 8), 8 * content.index(b"IEND"), 20)
    files = {f"{bit}.png": flipped(content, [bit]) for bit in pixels}
    found, bundle = taken(tmp_path, files)
    right = as_pillow_reads(content, bundle.preparation)
    assert all(of is None or np.array_equal(of, right) for of in found.values())
    others = [as_pillow_reads(file, bundle.preparation) for file in files.values()]
    assert sum(of is not None and not np.array_equal(of, right) for of in others) > 20, "which Pillow takes for whole"


@pytest.mark.parametrize("way", ["tiff", "lzw tiff"])
def test_a_tiff_with_too_few_strips_is_left_out(tmp_path, way):
    content = whole(way)
    (place,) = struct.unpack_from("<I", content, 4)
    (n_entries,) = struct.unpack_from("<H", content, place)
    at = next(at for at in range(place + 2, place + 2 + 12 * n_entries, 12) if content[at : at + 2] == b"\x11\x01")
    (n_strips,) = struct.unpack_from("<I", content, at + 4)
    assert n_strips == 4
    fewer = content[: at + 4] + struct.pack("<I", 3) + content[at + 8 :]
    found, bundle = taken(tmp_path, {"fewer.tiff": fewer, "whole.tiff": content})
    assert found["fewer.tiff"] is None
    assert np.array_equal(found["whole.tiff"], RGB)
    if way == "tiff":
        black = as_pillow_reads(fewer, bundle.preparation)
        assert black is not None
        assert not black[-4:].any(), "a quarter of it is black to Pillow"


@pytest.mark.parametrize("planar", [1, 2])
def test_a_tiff_of_tiles_and_layers_is_whole(tmp_path, planar):
    """By hand: Pillow writes neither tiles nor layers."""
    pixels = noise(3, 32, 32)
    layers = [pixels] if planar == 1 else [pixels[..., band] for band in range(3)]
    tiles = [of[y : y + 16, x : x + 16].tobytes() for of in layers for y in (0, 16) for x in (0, 16)]
    found, _ = taken(tmp_path, {"tiles.tif": tiled_tiff(tiles, planar)})
    right = Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    assert np.array_equal(found["tiles.tif"], right)
    if planar == 2:
        fewer, _ = taken(tmp_path / "fewer", {"tiles.tif": tiled_tiff(tiles[:7], planar)})
        assert fewer["tiles.tif"] is None


def tiled_tiff(tiles: list[bytes], planar: int) -> bytes:
    """A TIFF of 32 x 32 RGB pixels in tiles of 16 x 16."""
    n, n_entries = len(tiles), 12
    behind = 8 + 2 + 12 * n_entries + 4
    offsets_at, counts_at, bits_at = behind, behind + 4 * n, behind + 8 * n
    first = bits_at + 6
    starts = np.cumsum([first, *map(len, tiles[:-1])]).tolist()
    tags = [(256, 4, 1, 32), (257, 4, 1, 32), (258, 3, 3, bits_at), (259, 3, 1, 1), (262, 3, 1, 2), (277, 3, 1, 3)]
    tags += [(284, 3, 1, planar), (322, 4, 1, 16), (323, 4, 1, 16), (324, 4, n, offsets_at), (325, 4, n, counts_at)]
    tags += [(339, 3, 1, 1)]
    assert len(tags) == n_entries
    directory = struct.pack("<H", n_entries) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4)
    values = struct.pack(f"<{2 * n}I3H", *starts, *map(len, tiles), 8, 8, 8)
    return b"II*\0" + struct.pack("<I", 8) + directory + values + b"".join(tiles)


def test_a_suffix_says_nothing_of_the_content(tmp_path):
    contents = {way: whole(way) for way in ("jpeg", "png", "webp", "gif", "bmp", "tiff")}
    files = {f"{way}.{suffix}": contents[way] for way in contents for suffix in ("jpg", "PNG", "tif", "ico")}
    wrong = {
        "empty.jpg": b"",
        "text.png": b"no picture\n",
        "page.jpg": b"<html><body>404</body></html>",
        "zip.gif": b"PK",
    }
    found, bundle = taken(tmp_path, files | wrong)
    for name in files:
        right = as_pillow_reads(contents[name.split(".")[0]], bundle.preparation)
        assert found[name] is not None
        assert np.array_equal(found[name], right)
    assert [found[name] for name in wrong] == [None] * len(wrong)


@pytest.mark.parametrize("resize", ["squash", "pad", "crop"])
def test_pictures_of_any_shape_are_taken(tmp_path, resize):
    shapes = [(1, 1), (20_000, 1), (1, 20_000), (2, 3000), (1, 17)]
    colour = (200, 100, 50)
    files = {f"{w}x{h}.png": encoded(Image.new("RGB", (w, h), colour), "PNG") for w, h in shapes}
    found, _ = taken(tmp_path, files, resize=resize)
    for pixels in found.values():
        assert pixels is not None
        is_colour = (pixels == colour).all(axis=-1)
        assert is_colour.all() if resize != "pad" else is_colour.any()


def bomb(side: int) -> bytes:
    """A picture of one bit a pixel, written without holding it."""
    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    packer, row = zlib.compressobj(1), bytes(1 + -(-side // 8))
    rows = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    chunks = ((b"IHDR", head), (b"IDAT", rows), (b"IEND", b""))
    each = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(each)


def test_a_bomb_is_left_out_before_it_fills_memory(tmp_path):
    limit = Image.MAX_IMAGE_PIXELS
    assert limit is not None
    side = int((2 * limit) ** 0.5) + 1
    content = bomb(side)
    assert len(content) < 10**6
    found, _ = taken(tmp_path, {"bomb.png": content, "small.png": bomb(SIDE)})
    assert found["bomb.png"] is None
    assert found["small.png"] is not None


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF", "TIFF"])
def test_of_frames_and_pages_the_first_counts(tmp_path, kind):
    first, second = Image.new("RGB", (SIDE, SIDE), (255, 0, 0)), Image.new("RGB", (SIDE, SIDE), (0, 0, 255))
    options = {"lossless": True} if kind == "WEBP" else {}
    content = encoded(first, kind, save_all=True, append_images=[second, first], **options)
    found, _ = taken(tmp_path, {"moving.png": content})
    assert (found["moving.png"] == (255, 0, 0)).all()


def test_16_bits_are_measured_once_for_all_formats(tmp_path):
    ramp = np.linspace(1000, 60_000, SIDE * SIDE).reshape(SIDE, SIDE).round().astype(np.uint16)
    files = {
        "a.png": encoded(Image.fromarray(ramp), "PNG"),
        "b.tif": encoded(Image.fromarray(ramp), "TIFF"),
        "c.tif": encoded(Image.fromarray(ramp.astype(">u2")), "TIFF"),
        "d.tif": encoded(Image.fromarray(ramp.astype(np.int32)), "TIFF"),
        "e.tif": encoded(Image.fromarray(ramp.astype(np.float32)), "TIFF"),
        "f.tif": encoded(Image.fromarray(ramp), "TIFF", compression="tiff_lzw"),
    }
    found, bundle = taken(tmp_path, files)
    low, high = bundle.preparation.value_range or (0.0, 0.0)
    right = np.rint(((ramp - low) * (255 / (high - low))).clip(0, 255))
    assert right.max() - right.min() > 250
    for name, pixels in found.items():
        assert pixels is not None, name
        assert np.array_equal(pixels, np.repeat(right[..., None], 3, axis=2)), name


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_a_float_tiff_with_values_that_are_no_numbers_is_left_out(tmp_path, wrong):
    ramp = np.linspace(-1, 1, SIDE * SIDE, dtype=np.float32).reshape(SIDE, SIDE)
    holed = ramp.copy()
    holed[3, 5] = wrong
    files = {"holed.tif": encoded(Image.fromarray(holed), "TIFF"), "whole.tif": encoded(Image.fromarray(ramp), "TIFF")}
    found, bundle = taken(tmp_path / "both", files)
    assert found["holed.tif"] is None
    assert found["whole.tif"] is not None
    assert bundle.preparation.value_range == pytest.approx((-1, 1), abs=0.01)
    alone, _ = taken(tmp_path / "alone", {"holed.tif": files["holed.tif"]})
    assert alone["holed.tif"] is None


@pytest.mark.parametrize("value", [0.0, -7.0, 1e20, 3e38])
def test_a_picture_of_one_value_is_black_whatever_the_value(tmp_path, value):
    content = encoded(Image.fromarray(np.full((SIDE, SIDE), value, np.float32)), "TIFF")
    found, _ = taken(tmp_path, {"flat.tif": content})
    assert not found["flat.tif"].any()


def test_a_broken_picture_above_8_bits_costs_only_itself(tmp_path):
    content = encoded(Image.fromarray(np.arange(256, dtype=np.uint16).reshape(16, 16) * 200), "PNG")
    found, _ = taken(tmp_path, {"half.png": content[: len(content) // 2]})
    assert found["half.png"] is None


def test_a_profile_changes_no_ink(tmp_path):
    """Pillow's own colours for CMYK, with any profile or none, also one of other colours or no profile at all."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    inks = Image.new("CMYK", (SIDE, SIDE), (0, 255, 255, 0))
    profiles = {"none.jpg": None, "srgb.jpg": srgb, "broken.jpg": srgb[:100], "junk.jpg": b"\xff\xd9" * 40}
    found, _ = taken(tmp_path, {name: encoded(inks, "JPEG", icc_profile=of) for name, of in profiles.items()})
    for name, pixels in found.items():
        assert pixels is not None, name
        assert np.array_equal(pixels, found["none.jpg"]), name
        assert np.abs(pixels.astype(int) - (255, 0, 0)).max() <= 3


# What each EXIF orientation asks a viewer to do to the stored pixels.
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: a.transpose(1, 0, 2)[:, ::-1],
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: a.transpose(1, 0, 2)[::-1],
}
TURNED = {"JPEG": {}, "PNG": {}, "WEBP": {"lossless": True}, "TIFF": {}, "MPO": {"save_all": True}}
if features.check("avif"):
    TURNED["AVIF"] = {}


def turned(image: Image.Image, kind: str, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(image, kind, exif=exif, **TURNED[kind])


@pytest.mark.parametrize("kind", TURNED)
def test_pictures_come_out_upright(tmp_path, kind):
    files = {f"{orientation}.jpg": turned(RGB, kind, orientation) for orientation in (*UPRIGHT, 0, 9, 77)}
    found, _ = taken(tmp_path, files)
    stored = found["1.jpg"]
    assert stored is not None
    for orientation, upright in UPRIGHT.items():
        assert np.array_equal(found[f"{orientation}.jpg"], upright(stored)), orientation
    for unknown in (0, 9, 77):
        assert np.array_equal(found[f"{unknown}.jpg"], stored)


@pytest.mark.parametrize("kind", TURNED)
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_the_header_tells_the_upright_size(tmp_path, kind, orientation):
    file = tmp_path / "turned.jpg"
    file.write_bytes(turned(Image.new("RGB", (24, 16)), kind, orientation))
    assert header_size(file) == ((16, 24) if orientation < 5 else (24, 16))


def test_pictures_that_stay_encoded_obey_the_same_laws(tmp_path):
    files = {f"{way}.png": whole(way) for way in WAYS} | {f"half {way}.png": whole(way)[:-300] for way in WAYS[:8]}
    stored, _ = taken(tmp_path, files)
    with pytest.warns(DataWarning, match="cannot be read"):
        encoded_ones = decode(survey(tmp_path / "photos"), [SIDE], cache_dir=tmp_path / "none", max_bytes=0)
    assert "stay encoded" in " ".join(encoded_ones.skipped)
    with pytest.warns(DataWarning, match="cannot be read now"):
        found = pixels_of(encoded_ones)
    for name, pixels in stored.items():
        assert np.array_equal(found[f"a/{name}"], pixels) if pixels is not None else found[f"a/{name}"] is None


def opened(content):
    """A picture as users hold it: its pixels are not decoded yet."""
    return Image.open(io.BytesIO(content))


def test_broken_files_that_are_open_already_are_left_out_and_named(tmp_path):
    sound = [Image.fromarray(noise(i, SIDE, SIDE)) for i in range(20)]
    half = opened(whole("png")[:300])
    with pytest.warns(DataWarning, match=r"2 of 22 pictures cannot be read: '20', '21'; left out\..*truncated"):
        bundle = decode(survey(([*sound, half, Image.new("RGB", (0, 0))], [0, 1] * 11)), [SIDE], cache_dir=tmp_path)
    assert np.array_equal(bundle.pixels(SIDE)[3], noise(3, SIDE, SIDE))


def test_a_picture_without_pixels_is_refused():
    with pytest.raises(DataError, match=r"at least one pixel; one of 0 x 3 came"):
        as_rgb(Image.new("RGB", (0, 3)))


def test_pictures_that_look_different_have_different_digests():
    """Else the pixels of one would be taken for those of the other."""
    palette = Image.fromarray(noise(0, SIDE, SIDE)).quantize(8)
    seen_through = palette.copy()
    seen_through.info["transparency"] = 1
    rgba = palette.copy()
    rgba.putpalette([*range(32)], "RGBA")
    rgb = palette.copy()
    rgb.putpalette([value for i in range(8) for value in range(4 * i, 4 * i + 3)])
    damaged = [RGB.copy(), Image.fromarray(noise(1, SIDE, SIDE))]
    for image in damaged:
        image.info["exif"] = b"Exif\0\0damaged"
    turned_around = opened(turned(RGB, "PNG", 3))
    images = [palette, seen_through, rgba, rgb, *damaged, RGB, turned_around]
    assert len({digest_picture(image) for image in images}) == len(images)

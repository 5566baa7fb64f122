from __future__ import annotations

import io
import itertools
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image
from tests.data.conftest import fill, noise
from torch.utils.data import IterableDataset

from autobackbone.data import LEFT_OUT, DataWarning, PartSource, Spooling, decode, n_streamed, survey
from autobackbone.data.finding import find
from autobackbone.data.pictures import as_rgb
from autobackbone.errors import DataError


def png(index: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(noise(index)).save(file, "PNG")
    return file.getvalue()


def pairs(n: int = 20):
    for index in range(n):
        yield noise(index), "ab"[index % 2]


def test_a_generator_is_gone_through_once_and_read_in_any_order(tmp_path):
    found = find(pairs(), None, spooling=Spooling(folder=tmp_path))
    assert found.classes == ("a", "b")
    assert found.labels.tolist() == [0, 1] * 10
    assert found.source.names[3] == "3"
    assert found.source.is_thread_safe
    for index in (19, 0, 7):
        assert np.array_equal(np.asarray(found.source.read(index)), noise(index))
    assert found.source.picture_size(5) == (12, 10)
    assert n_streamed(found.source) is None


def test_a_function_an_iterator_and_torchs_iterable_give_the_same(tmp_path):
    class Stream(IterableDataset):
        classes = ("ant", "bee")

        def __iter__(self):
            return ((torch.from_numpy(picture).movedim(-1, 0), int(label == "b")) for picture, label in pairs())

    first = find(((picture, label) for picture, label in pairs()), None)
    assert find(Stream(), None).classes == ("ant", "bee")
    for given in (pairs, iter(list(pairs())), Stream()):
        found = find(given, None)
        assert found.labels.tolist() == first.labels.tolist()
        assert [found.source.fingerprint(k) for k in range(20)] == [first.source.fingerprint(k) for k in range(20)]


def test_arrays_have_the_digest_that_they_have_in_memory():
    streamed, held = find(pairs, None).source, find(list(pairs()), None).source
    assert [streamed.fingerprint(k) for k in range(20)] == [held.fingerprint(k) for k in range(20)]


def test_files_are_kept_as_their_bytes(tmp_path):
    fill(tmp_path / "ant", 2)
    names = [tmp_path / "ant" / f"{index}.png" for index in range(2)]
    folder = find(tmp_path, None).source
    for given in (names, list(map(str, names)), [name.read_bytes() for name in names]):
        source = find(iter(list(zip(given, "ab", strict=True))), None).source
        assert source.fingerprint(1) == folder.fingerprint(1)
        assert source.picture_size(1) == folder.picture_size(1)
        assert np.array_equal(np.asarray(source.read(1)), np.asarray(folder.read(1)))


PLAIN = Image.fromarray(noise(1))
PALETTE = PLAIN.convert("P")
PALETTE.info["transparency"] = 3
TURNED = PLAIN.copy()
TURNED.getexif()[0x0112] = 6


@pytest.mark.parametrize(
    "picture",
    [
        *(PLAIN.convert(mode) for mode in ("1", "L", "LA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "LAB", "PA", "RGBX")),
        PALETTE,
        TURNED,
        Image.fromarray(np.arange(60, dtype=np.uint16).reshape(6, 10)),
        Image.fromarray(np.arange(60, dtype=np.int32).reshape(6, 10) * 1000),
        Image.fromarray(np.linspace(0, 1, 60, dtype=np.float32).reshape(6, 10)),
    ],
    ids=lambda picture: picture.mode,
)
def test_a_pillow_image_loses_nothing(picture):
    source = find(iter([(picture, 0), (picture, 1)]), None).source
    value_range = (0, 50_000) if source.fingerprint(0).is_deep else None
    for channels in (None, (0,)):
        kept = as_rgb(source.read(1), value_range=value_range, channels=channels)
        assert np.array_equal(np.asarray(kept), np.asarray(as_rgb(picture, value_range=value_range, channels=channels)))
    assert source.picture_size(0) == (kept.height, kept.width)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.uint16, bool])
def test_arrays_lose_nothing(dtype):
    array = noise(3).astype(dtype)
    read = find(iter([(array, 0), (array, 1)]), None).source.read(0)
    assert isinstance(read, np.ndarray)
    assert read.dtype == array.dtype
    assert np.array_equal(read, array)


def test_what_cannot_be_read_is_left_to_decoding():
    found = find(iter([(b"no picture", 0), ("nowhere.png", 1), (noise(0), 0)]), None)
    with pytest.raises(OSError, match="cannot identify"):
        found.source.read(0)
    with pytest.raises(DataError, match=r"No such file or directory: 'nowhere\.png'"):
        found.source.read(1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (iter([]), "list_iterator gave none. What can be gone through only once is empty afterwards: give a function"),
        (iter([1]), "item 0 of list_iterator is int"),
        (iter([(noise(0), 1), (noise(0), 1, 2)]), "item 1 of list_iterator is 3 values"),
        (iter([({}, 1)]), "the picture of item 0 of list_iterator is dict"),
        (iter([(np.array(["a"]), 1)]), "item 0 of list_iterator is an array of <U1"),
        ((1 / index for index in (1, 0)), "item 0 of <genexpr> is float"),
        (((noise(0), 1 / index) for index in (1, 0)), r"<genexpr> raised ZeroDivisionError\(.*\) instead of item 1"),
        (lambda: 7, r"<lambda> raised TypeError"),
    ],
)
def test_what_cannot_be_used_is_told(given, message):
    with pytest.raises(DataError, match=message):
        find(given, None)


def test_a_part_of_a_dict_may_be_one(tmp_path):
    found = find({"train": pairs, "val": pairs(4)}, None, spooling=Spooling(folder=tmp_path, n_most=2))
    assert len(found.labels) == 24


def endless(each_s: float = 0.01):
    for pair in pairs(10**9):
        time.sleep(each_s)
        yield pair


def test_parts_of_a_dict_share_the_time_and_are_read_the_same_again(tmp_path):
    begun = time.monotonic()
    held = [(noise(k), "ab"[k % 2]) for k in range(6)]
    splits = {"val": endless(), "train": endless, "test": held}
    found = find(splits, None, spooling=Spooling(folder=tmp_path, seconds=0.6))
    assert time.monotonic() - begun < 3
    n_most = n_streamed(found.source)
    assert set(n_most) == {"train", "val"}
    assert min(n_most.values()) > 2
    assert len(found.labels) == sum(n_most.values()) + 6
    assert [note.partition(":")[0] for note in found.notes] == ["train", "val"]
    again = find({"train": pairs(1000), "val": pairs(1000), "test": held}, None, spooling=Spooling(n_most=n_most))
    assert again.source.names == found.source.names
    assert n_streamed(again.source) == n_most
    cut = {"train": pairs(9), "val": endless()}
    ended = find(cut, None, spooling=Spooling(seconds=0.4))
    assert list(n_streamed(ended.source)) == ["val"]
    assert n_streamed(find({"train": pairs(9), "val": pairs(4)}, None).source) is None


def test_a_class_that_came_too_late_to_train_on_is_told_with_the_reason():
    ordered = ((noise(k), "a" if k < 1000 else "b") for k, _ in enumerate(endless()))
    with pytest.raises(DataError, match=r"only in 'val': 'b'.*Of 'train' only the first \d+ pictures came in time"):
        find({"train": ordered, "val": pairs(4)}, None, spooling=Spooling(seconds=0.2))


def test_a_first_picture_that_comes_too_late_is_no_empty_iterable():
    with pytest.raises(DataError, match=r"the first picture of endless took longer than the 0\.0 s that"):
        find(endless, None, spooling=Spooling(seconds=0.001))


def test_what_may_have_no_end_is_told_where_no_time_bounds_it(monkeypatch):
    monkeypatch.setattr("autobackbone.data.spooling._LONG_S", 0.1)
    given = itertools.islice(endless(0.05), 12)
    with pytest.warns(UserWarning, match=r"nothing says how many will.*Budget\(wall_clock_s=3600") as told:
        find(given, None)
    assert len(told) == 1
    find(itertools.islice(endless(0.05), 12), None, spooling=Spooling(seconds=60))


def test_it_ends_in_time_and_after_a_number_and_says_so(tmp_path):
    def slow():
        for pair in pairs(1000):
            time.sleep(0.01)
            yield pair

    told = []
    found = find(slow(), None, spooling=Spooling(folder=tmp_path, seconds=0.6, on_progress=told.append))
    n = len(found.labels)
    assert 2 < n < 100
    assert isinstance(found.source, PartSource)
    assert n_streamed(found.source) == n
    assert f"the first {n} pictures are used, since more would not have come" in found.notes[0]
    assert told == sorted(told)
    assert told
    again = find(pairs(1000), None, spooling=Spooling(folder=tmp_path, n_most=n))
    assert again.labels.tolist() == found.labels.tolist()
    assert n_streamed(again.source) == n
    assert n_streamed(find(pairs(n), None, spooling=Spooling(n_most=n)).source) is None


def test_a_disk_that_fills_up_is_told(tmp_path, monkeypatch):
    def slow():
        for pair in pairs():
            time.sleep(0.05)
            yield pair

    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10**9, 10**9 - 10**6, 10**6))
    with pytest.raises(DataError, match=r"have taken 0\.0 GB in .*, which has 0\.0 GB left"):
        find(slow(), None, spooling=Spooling(folder=tmp_path))
    assert not any(tmp_path.iterdir())


def test_the_file_goes_when_it_is_no_longer_used(tmp_path):
    surveyed = survey(pairs(), spooling=Spooling(folder=tmp_path / "spool"))
    assert len(list((tmp_path / "spool").iterdir())) == 1
    bundle = decode(surveyed, [8], cache_dir=tmp_path)
    del surveyed
    assert bundle.pixels(16).shape == (20, 16, 16, 3)
    del bundle
    assert not any((tmp_path / "spool").iterdir())


@pytest.mark.slow
def test_it_goes_at_the_end_of_a_process_and_what_a_killed_one_left_with_the_next(tmp_path):
    code = (
        "import os, signal, sys, numpy as np; from pathlib import Path; from autobackbone.data import Spooling;"
        "from autobackbone.data.finding import find;"
        "found = find(iter([(np.zeros((8, 8), np.uint8), 0)] * 9), None, spooling=Spooling(folder=Path(sys.argv[1])));"
        "print(len(list(Path(sys.argv[1]).iterdir())), flush=True);"
        "sys.argv[2:] and os.kill(os.getpid(), signal.SIGKILL)"
    )
    spool = tmp_path / "spool"
    done = subprocess.run([sys.executable, "-c", code, str(spool)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"
    assert not any(spool.iterdir())
    killed = subprocess.run([sys.executable, "-c", code, str(spool), "kill"], capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    (left,) = spool.iterdir()
    old = time.time() - 3600
    os.utime(left / "lock", (old, old))
    found = find(pairs(), None, spooling=Spooling(folder=spool))
    assert not left.exists()
    assert len(list(spool.iterdir())) == 1
    del found


def test_a_hugging_face_stream_is_taken():
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["zebra", "ant"])})
    columns = {"image": [Image.fromarray(noise(k)) for k in range(6)], "label": [0, 1] * 3}
    held = datasets.Dataset.from_dict(columns, features=features)
    first, streamed = find(held, None), find(held.to_iterable_dataset(), None)
    assert streamed.classes == first.classes == ("zebra", "ant")
    assert streamed.labels.tolist() == first.labels.tolist()
    assert [streamed.source.fingerprint(k) for k in range(6)] == [first.source.fingerprint(k) for k in range(6)]
    split = datasets.IterableDatasetDict({"train": held.to_iterable_dataset(), "test": held.to_iterable_dataset()})
    assert len(find(split, None).labels) == 12


@pytest.mark.parametrize("mode", [None, "L"])
def test_a_cell_of_a_hugging_face_stream_that_cannot_be_read_is_left_out(mode, tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(mode=mode), "label": datasets.ClassLabel(names=["a", "b"])})
    cells = [{"bytes": png(k), "path": None} for k in range(40)]
    broken = {11: b"no picture", 17: png(17)[:-400]}
    for index, content in broken.items():
        cells[index] = {"bytes": content, "path": None}
    cells[23] = {"bytes": None, "path": "http://127.0.0.1:9/picture.png"}
    cells[29] = None
    held = datasets.Dataset.from_dict({"image": cells[:23] + cells[24:], "label": [0, 1] * 19 + [0]}, features=features)
    streamed = datasets.IterableDataset.from_generator(
        lambda: ({"image": cell, "label": index % 2} for index, cell in enumerate(cells)), features=features
    )
    with pytest.warns(DataWarning, match=r"4 of 40 pictures cannot be read: '11', '17', '23', …; left out"):
        bundle = decode(survey(streamed), [8], cache_dir=tmp_path)
    assert (bundle.parts == LEFT_OUT).nonzero()[0].tolist() == [11, 17, 23, 29]
    with pytest.warns(DataWarning, match=r"3 of 39 pictures cannot be read: '11', '17', '28'; left out"):
        decode(survey(held), [8], cache_dir=tmp_path)


def test_pictures_of_no_shape_are_left_out_and_named(tmp_path):
    given = list(pairs(40))
    for index, shape in {0: (5,), 7: (0, 0, 3), 20: (2, 5, 5, 3), 39: ()}.items():
        given[index] = (np.zeros(shape, np.uint8), given[index][1])
    for dataset in (iter(given), given):
        with pytest.warns(DataWarning, match=r"4 of 40 .*'0', '7', '20', …; left out.*\(5,\) came\.$"):
            bundle = decode(survey(dataset), [8], cache_dir=tmp_path)
        assert (bundle.parts == LEFT_OUT).nonzero()[0].tolist() == [0, 7, 20, 39]


def test_why_a_file_could_not_be_read_as_it_came_is_kept(tmp_path):
    given = [*pairs(19), (tmp_path / "gone.png", "b")]
    with pytest.warns(DataWarning, match=r"1 of 20 .* No such file or directory: '.*gone\.png'\.$"):
        decode(survey(iter(given)), [8], cache_dir=tmp_path)

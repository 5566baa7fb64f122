"""A table of latencies from elsewhere is read as it was meant, or the cell that is wrong is named."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autobackbone import Target
from autobackbone.errors import TargetError
from autobackbone.replaying import _target
from autobackbone.timings import Timing, read_timings

HEADER = "backbone,height,width,n_blocks_kept,latency_ms,latency_p95_ms,latency_noise_ms"
timings = st.builds(
    Timing,
    backbone=st.sampled_from(["resnet50.a1_in1k", "a, b", 'with "quotes"', "ümläut"]),
    image_size=st.tuples(st.integers(1, 5000), st.integers(1, 5000)),
    n_blocks_kept=st.none() | st.integers(1, 99),
    latency_ms=st.floats(1e-3, 1e6),
    latency_p95_ms=st.none() | st.floats(1e-3, 1e6),
    latency_noise_ms=st.none() | st.floats(1e-3, 1e6),
)


def table(path, *rows, header=HEADER):
    path.write_text("\n".join((header, *rows)) + "\n", encoding="utf-8")
    return path


def test_a_table_is_read_with_what_a_spreadsheet_makes_of_it(tmp_path):
    file = table(
        tmp_path / "phone.csv",
        "resnet50,224,224,,31.5,40,0.5",
        "resnet50 , 224.0,224,4.0, 12,,",
        "resnet50,96,96,,,,",
    )
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    whole, cut = read_timings(file)
    assert whole == Timing(
        backbone="resnet50", image_size=(224, 224), latency_ms=31.5, latency_p95_ms=40.0, latency_noise_ms=0.5
    )
    assert cut == Timing(backbone="resnet50", image_size=(224, 224), n_blocks_kept=4, latency_ms=12.0)
    assert Target.from_csv(file).name == "phone"
    assert Target.from_csv(file, name="Pixel 9").timings == (whole, cut)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["a,8,8,,fast,,"], r"row 2: latency_ms is a number above 0, in milliseconds, not 'fast'"),
        (["a,8,8,,-1,,"], "row 2: latency_ms is a number above 0"),
        (["a,8,8,,nan,,"], "row 2: latency_ms is a number above 0"),
        (["a,8,8,,1,,", "a,8,8.5,,1,,"], "row 3: width is a whole number of at least 1, not '8.5'"),
        (["a,8,,,1,,"], "row 2: width is a whole number of at least 1, not ''"),
        (["a,8,8,0,1,,"], "row 2: n_blocks_kept is a whole number of at least 1"),
        ([",8,8,,1,,"], "row 2: backbone is the full name"),
        (["a,8,8,3,1,,", "a,8,8,3,2,,"], "several rows of a at 8x8 px, first 3 blocks"),
        (["a,8,8,,,,"], "no row of .* has a latency_ms"),
        ([], "has a header and no row"),
        (["a,8,8,,31,,,5"], "row 2 has more cells than there are columns: 5 came behind them"),
        (["a*,8,8,,1,,"], r"row 2: backbone is the full name of one network, and 'a\*' is a glob"),
        (['"a,8,8,,1,,', "b,8,8,,1,,"], "looks as if a quote were opened and not closed"),
    ],
)
def test_what_is_wrong_is_named_with_its_row(tmp_path, rows, message):
    with pytest.raises(TargetError, match=message):
        read_timings(table(tmp_path / "t.csv", *rows))


def test_what_is_no_such_file_is_told(tmp_path):
    with pytest.raises(TargetError, match=r"cannot be read: .*No such file"):
        read_timings(tmp_path / "nowhere.csv")
    (tmp_path / "zeros").write_bytes(b"\xff\xfe\x00" * 50)
    with pytest.raises(TargetError, match="cannot be read"):
        read_timings(tmp_path / "zeros")
    for nothing in (None, 3, "a\0b"):
        with pytest.raises(TargetError, match="CSV file"):
            Target.from_csv(nothing)
    (tmp_path / "empty.csv").touch()
    with pytest.raises(TargetError, match=r"lacks the columns backbone, .* It is empty"):
        read_timings(tmp_path / "empty.csv")
    with pytest.raises(TargetError, match=r"lacks the columns backbone, .* not semicolons"):
        read_timings(table(tmp_path / "t.csv", "a;8;8;1", header="backbone;height;width;latency_ms"))
    with pytest.raises(TargetError, match="several columns called height, latency_ms"):
        read_timings(
            table(tmp_path / "t.csv", "a,8,8,8,1", header="backbone,height,height,width,latency_ms,latency_ms")
        )
    with pytest.raises(TargetError, match=r"lacks the column latency_ms: .* It has backbone, height, width"):
        read_timings(table(tmp_path / "t.csv", "a,8,8", header="backbone,height,width"))


def test_spaces_behind_commas_are_none_of_the_cells(tmp_path):
    file = table(tmp_path / "t.csv", 'resnet50, 8, 8, "1.5"', header="backbone, height, width , latency_ms")
    assert read_timings(file) == (Timing(backbone="resnet50", image_size=(8, 8), latency_ms=1.5),)


@given(st.lists(timings, min_size=1, max_size=5))
def test_a_target_comes_back_from_json_as_it_was(some):
    target = Target(timings=some, name="a phone", batch_size=2)
    assert Target.from_json(json.loads(json.dumps(target.to_json()))) == target


def test_a_target_counts_its_timings_where_it_is_printed_and_keeps_them_where_it_is_written():
    some = [Timing(backbone=f"net{number}", image_size=(8, 8), latency_ms=1.0) for number in range(1200)]
    assert repr(Target(timings=some, name="a phone")) == (
        "Target(device='auto', batch_size=1, precision='auto', n_threads=None, runtime='torch', "
        "timings=<1,200 of a table>, name='a phone')"
    )
    target = Target(timings=some[:2], batch_size=2)
    assert eval(_target(target)) == target
    assert eval(repr(Target(n_threads=1))) == Target(n_threads=1)


def test_a_usual_target_is_noted_as_it_always_was():
    assert Target(n_threads=1).to_json() == {"device": "auto", "batch_size": 1, "precision": "auto", "n_threads": 1}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"runtime": "tensorrt"}, "target.runtime must be 'torch', 'torch.compile', 'onnxruntime'"),
        ({"runtime": "onnxruntime", "device": "cuda"}, "runs on the CPU, from float32; device='cuda'"),
        ({"runtime": "onnxruntime-int8", "precision": "float16"}, "runs on the CPU.*precision='float16'"),
        ({"timings": "phone.csv"}, "as Target.from_csv reads it, not 'phone.csv'"),
        ({"timings": [3]}, "as Target.from_csv reads it: 3 came"),
        ({"timings": [{"backbone": "a", "image_size": 8, "latency_ms": 1.0}]}, "as Target.from_csv reads it"),
        ({"timings": [{"backbone": "a", "image_size": [8, 8], "latency_ms": -1}]}, "latency_ms is a number above 0"),
        ({"name": 3}, "target.name is a text, not 3"),
    ],
)
def test_what_is_no_target_is_told(arguments, message):
    with pytest.raises(TargetError, match=message):
        Target(**arguments)

from __future__ import annotations

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from tests.data.conftest import noise

from autobackbone.data import TEST, TRAIN, VALIDATION, survey
from autobackbone.data.finding import find
from autobackbone.errors import DataError

datasets = pytest.importorskip("datasets")

N = 12
PICTURES = [Image.fromarray(noise(index)) for index in range(N)]
LABELS = datasets.ClassLabel(names=["zebra", "ant", "never"])
CODES = [index % 2 for index in range(N)]


def table(features=None, **columns):
    typed = datasets.Features({"image": datasets.Image(), **(features or {"label": LABELS})})
    return datasets.Dataset.from_dict({"image": PICTURES, **(columns or {"label": CODES})}, features=typed)


def test_classes_have_their_names_in_the_order_of_their_codes():
    found = find(table(), None)
    assert found.classes == ("zebra", "ant")
    assert found.labels.tolist() == CODES
    assert found.source.names[3] == "3"
    assert found.source.is_thread_safe
    assert np.array_equal(np.asarray(found.source.read(5)), noise(5))
    assert found.source.picture_size(0) == (12, 10)


def test_the_encoded_bytes_are_digested_as_those_of_a_file(tmp_path):
    file = io.BytesIO()
    PICTURES[0].save(file, "PNG")
    (tmp_path / "a.png").write_bytes(file.getvalue())
    cells = [{"bytes": file.getvalue(), "path": None}, {"bytes": None, "path": str(tmp_path / "a.png")}]
    given = datasets.Dataset.from_dict(
        {"image": cells, "label": [0, 1]}, features=datasets.Features({"image": datasets.Image(), "label": LABELS})
    )
    first, second = (find(given, None).source.fingerprint(index) for index in range(2))
    assert first == second
    undecoded = given.cast_column("image", datasets.Image(decode=False))
    assert find(undecoded, None).source.fingerprint(0) == first
    grey = find(given.cast_column("image", datasets.Image(mode="L")), None).source
    assert grey.fingerprint(0) != first
    assert grey.read(0).mode == "L"


def test_selected_shuffled_and_formatted_rows_are_read_as_they_stand():
    given = table().select(range(3, 9)).shuffle(seed=1).with_format("torch")
    found = find(given, None)
    assert [found.classes[code] for code in found.labels] == [LABELS.names[int(code)] for code in given["label"]]
    for index, row in enumerate(given.with_format(None)):
        assert np.array_equal(np.asarray(found.source.read(index)), np.asarray(row["image"]))


def test_a_transform_is_not_applied_and_that_is_told():
    found = find(table().with_transform(lambda batch: {"image": [0], "label": [1]}), None)
    assert any("transform set on the dataset is not applied" in note for note in found.notes)
    assert np.array_equal(np.asarray(found.source.read(2)), noise(2))


def test_a_dict_of_splits_brings_its_split_and_a_part_without_labels_is_left_out():
    given = datasets.DatasetDict({"train": table(), "validation": table(), "test": table(label=[-1] * N)})
    found = find(given, None)
    assert found.given is not None
    assert found.given.tolist() == [TRAIN] * N + [VALIDATION] * N
    assert found.notes == ("'test' is not used: none of the pictures has a label",)
    whole = datasets.DatasetDict({"train": table(), "test": table()})
    assert survey(whole).sizes()["test"] == N
    assert (find(whole, None).given == TEST).sum() == N


def test_a_list_of_classes_is_a_multilabel_task():
    features = {"tags": datasets.Sequence(LABELS)}
    found = find(table(features, tags=[[0, 1], [], [1]] * 4), None)
    assert found.task == "multilabel"
    assert found.classes == ("zebra", "ant")
    assert found.labels[:3].tolist() == [[1, 1], [0, 0], [0, 1]]


def test_real_numbers_are_a_regression_also_whole_ones_and_texts_are_classes():
    real = table({"age": datasets.Value("float32")}, age=list(map(float, range(N))))
    found = find(real, None, label="age")
    assert (found.task, found.classes) == ("regression", ("age",))
    text = table({"label": datasets.Value("string")}, label=["b", "a"] * 6)
    assert find(text, None).classes == ("a", "b")
    both = table({"x": datasets.Value("float64"), "y": datasets.Value("float64")}, x=[0.5] * 11 + [1.0], y=range(N))
    several = find(both, None, label=["x", "y"])
    assert (several.task, several.classes, several.labels.shape) == ("regression", ("x", "y"), (N, 2))


def test_label_picks_a_column_and_the_usual_one_is_taken_without():
    features = {"coarse": LABELS, "fine": LABELS}
    given = table(features, coarse=CODES, fine=CODES[::-1])
    assert find(given, None, label="fine").labels.tolist() == CODES[::-1]
    with pytest.raises(DataError, match=r"'coarse', 'fine' are all classes. Say which: label="):
        find(given, None)
    assert find(given.rename_column("fine", "label"), None).labels.tolist() == CODES[::-1]


def test_a_column_gives_groups():
    features = {"label": LABELS, "who": datasets.Value("string")}
    given = table(features, label=[0] * 6 + [1] * 6, who=list("abcdef") * 2)
    surveyed = survey(given, groups="who")
    assert surveyed.groups is not None
    assert surveyed.groups.tolist() == [*range(6)] * 2
    with pytest.raises(DataError, match=r"has no column 'whose'; it has 'image', 'label', 'who'"):
        survey(given, groups="whose")


def test_several_columns_of_pictures_are_told_apart_by_the_usual_name():
    both = table().add_column("mask", [None] * N).cast_column("mask", datasets.Image())
    assert find(both, None).source.column == "image"
    with pytest.raises(DataError, match=r"'left', 'mask' are pictures. Leave others out with remove_columns"):
        find(both.rename_column("image", "left"), None)


@pytest.mark.parametrize(
    ("given", "label", "message"),
    [
        (lambda: table().remove_columns("image"), None, r"its columns are 'label' \(ClassLabel\)"),
        (lambda: table().remove_columns("label"), None, "none has classes. Say which"),
        (table, "age", r"\['age'\] came, and there are 'image' \(Image\), 'label'"),
        (lambda: table().select([]), None, "an empty one came"),
        (lambda: table(label=[0, None, 1] * 4), None, "column 'label': every picture needs a label; 4 are missing"),
        (lambda: table(label=[-1] * N), None, "none of the pictures has a label"),
    ],
)
def test_what_cannot_be_used_is_told(given, label, message):
    with pytest.raises(DataError, match=message):
        find(given(), None, label=label)


def test_a_row_without_a_picture_is_unreadable_and_named():
    given = table()
    cells = [None, *given.with_format(None)["image"][1:]]
    holed = datasets.Dataset.from_dict({"image": cells, "label": CODES}, features=given.features)
    source = find(holed, None).source
    assert not source.fingerprint(0).is_deep
    with pytest.raises(DataError, match="this row has no picture"):
        source.read(0)


def test_the_library_is_imported_only_for_its_own_datasets():
    code = (
        "import sys, numpy as np; from autobackbone.data import survey;"
        "survey((np.zeros((20, 8, 8), np.uint8), [0, 1] * 10)); print('datasets' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"

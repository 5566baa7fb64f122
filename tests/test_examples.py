"""The examples run as they stand, on the networks that the packages bring."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tests.conftest import make_pictures

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def photos(tmp_path):
    """Pictures of three classes, and a table of how bright each is."""
    for i, (pixels, label) in enumerate(zip(*make_pictures(n_per_class=20), strict=True)):
        (tmp_path / "photos" / str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "photos" / str(label) / f"{i}.png")
    names = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.png"))
    brightness = [float(np.asarray(Image.open(tmp_path / name)).mean()) / 7 for name in names]
    pd.DataFrame({"file": names, "brightness": brightness}).to_csv(tmp_path / "labels.csv", index=False)
    return tmp_path


def run(example, *arguments, folder):
    environment = os.environ | {"AUTOBACKBONE_CACHE": str(folder / "cache"), "GOMP_SPINCOUNT": "5000"}
    line = [sys.executable, str(EXAMPLES / example), *map(str, arguments)]
    done = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_every_example_runs_with_nothing_said(example):
    """So that `make examples` runs it."""
    tree = ast.parse(example.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)
    mains = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "main"]
    for main in mains:
        assert len(main.args.defaults) == len(main.args.args)
    assert mains or example.stem == "small_data"


@pytest.mark.slow
def test_a_folder_of_pictures(photos):
    said = run("folder_of_pictures.py", photos / "photos", "4s", folder=photos)
    assert "Selection of" in said
    assert "[[" in said
    assert "suggested" in said or "Empty DataFrame" in said


@pytest.mark.slow
def test_labels_in_a_table(photos):
    said = run("labels_in_a_table.py", photos / "labels.csv", "4s", "brightness", folder=photos)
    assert "the knee:" in said
    assert "test" in said.splitlines()[-1]


@pytest.mark.slow
def test_an_onnx_service(photos):
    said = run("onnx_service.py", photos / "photos", "4s", folder=photos)
    lines = [line for line in said.splitlines() if " and the run says " in line]
    assert len(lines) == 3
    assert all(line.split(" is ")[1].split(" and the run says ")[0] == line.split()[-1] for line in lines)


@pytest.mark.slow
def test_a_hugging_face_dataset(photos):
    pytest.importorskip("datasets")
    said = run("hugging_face_dataset.py", photos / "photos", "4s", folder=photos)
    assert "num_rows" in said
    assert "trial" in said


@pytest.mark.slow
def test_a_scikit_learn_pipeline(photos):
    said = run("scikit_learn_pipeline.py", photos / "photos", "4s", folder=photos)
    assert "in three folds" in said
    assert "on pictures kept aside" in said
    assert (photos / "classifier.joblib").is_file()

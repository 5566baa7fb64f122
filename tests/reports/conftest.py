"""A real run whose classes and files have names made to break out of a page."""

import csv
import shutil

import numpy as np
import pytest
from PIL import Image
from tests.conftest import TINY, make_pictures

from autobackbone import Budget, open_run, select_backbone

BREAKING = "</script><img src=x onerror=window.ran=1>"
CLASSES = [f"{BREAKING}cat", "'\"><svg onload=window.ran=2>dog", "{{ 7 * 7 }}\u202eeman &amp; cow"]


@pytest.fixture(scope="session")
def dataset(tmp_path_factory):
    """A table of picture files; a folder called `<` makes the end of a script out of their paths."""
    folder = tmp_path_factory.mktemp("pictures")
    pictures, labels = make_pictures(n_per_class=24)
    # Noise, so that random networks get pictures wrong.
    noisy = (pictures + np.random.default_rng(1).normal(0, 200, pictures.shape)).clip(0, 255).astype(np.uint8)
    rows = []
    for number, (pixels, label) in enumerate(zip(noisy, labels, strict=True)):
        name = f"{BREAKING}{number}.png"
        (folder / name).parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(folder / name)
        rows.append((name, CLASSES[label]))
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("file", "label"), *rows])
    return folder / "labels.csv"


@pytest.fixture(scope="session")
def hostile(dataset, random_weights, tmp_path_factory):
    """Frozen, cut and tuned networks of random weights, which get many pictures wrong."""
    folder = tmp_path_factory.mktemp("hostile")
    return select_backbone(
        dataset,
        Budget(n_trials=3),
        backbones=TINY,
        image_sizes=[32],
        weights=random_weights(TINY),
        cache_dir=folder / "cache",
        run_dir=folder / "run",
        space={"n_epochs": 1, "n_blocks_kept": (1, 3)},
        progress=False,
    ).path


@pytest.fixture
def selection(hostile):
    return open_run(hostile)


@pytest.fixture
def copied(hostile, tmp_path):
    """A copy of the run, to be damaged."""
    return open_run(shutil.copytree(hostile, tmp_path / "run"))


@pytest.fixture(scope="session")
def report_file(hostile, tmp_path_factory):
    return open_run(hostile).report(tmp_path_factory.mktemp("page") / "report.html")

"""Every form of dataset gives the same bundle of the same pictures."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from pytorch_lightning import LightningDataModule
from tests.data.conftest import noise
from torch.utils.data import Dataset
from torchvision.datasets import CIFAR10, ImageFolder, VisionDataset

from autobackbone.data import DataBundle, decode, survey

CLASSES = ("ant", "bee", "cat")
N_EACH = {"train": 8, "val": 3, "test": 3}
SIZE = 16


def codes_of(part: str) -> list[int]:
    return [code for code in range(len(CLASSES)) for _ in range(N_EACH[part])]


def arrays_of(part: str) -> list[np.ndarray]:
    first = 1000 * list(N_EACH).index(part)
    return [noise(first + index, 32, 32) for index in range(len(codes_of(part)))]


def png(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


class Own(Dataset[tuple[Image.Image, int]]):
    """A map-style dataset as people write it."""

    classes = CLASSES

    def __init__(self, part: str) -> None:
        self.pictures, self.codes = arrays_of(part), codes_of(part)

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.fromarray(self.pictures[index]), self.codes[index]


class OwnCIFAR(CIFAR10):  # type: ignore[misc]  # torchvision has no types
    """Read by torchvision's own code."""

    def __init__(self, part: str) -> None:
        VisionDataset.__init__(self, None)
        self.data, self.targets, self.classes = np.stack(arrays_of(part)), codes_of(part), list(CLASSES)


def folder(root: Path, part: str) -> Path:
    for index, (array, code) in enumerate(zip(arrays_of(part), codes_of(part), strict=True)):
        path = root / part / CLASSES[code] / f"{index:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(array))
    return root / part


def table(root: Path, part: str) -> pd.DataFrame:
    files = sorted(folder(root, part).rglob("*.png"))
    return pd.DataFrame({"file": list(map(str, files)), "label": [file.parent.name for file in files]})


def csv(root: Path, part: str) -> Path:
    table(root, part).to_csv(root / f"{part}.csv", index=False)
    return root / f"{part}.csv"


def named(part: str) -> list[str]:
    return [CLASSES[code] for code in codes_of(part)]


def hugging_face(root: Path, part: str) -> Any:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(CLASSES))})
    cells = [{"bytes": png(array), "path": None} for array in arrays_of(part)]
    return datasets.Dataset.from_dict({"image": cells, "label": codes_of(part)}, features=features)


def shards(root: Path, part: str) -> Path:
    with tarfile.open(root / f"{part}.tar", "w") as archive:
        for index, (array, name) in enumerate(zip(arrays_of(part), named(part), strict=True)):
            for suffix, content in (("png", png(array)), ("cls", name.encode())):
                member = tarfile.TarInfo(f"{index:03d}.{suffix}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return root / f"{part}.tar"


Maker = Callable[[Path, str], Any]
FORMS: dict[str, Maker] = {
    "folder": folder,
    "data frame": table,
    "CSV file": csv,
    "array": lambda root, part: (np.stack(arrays_of(part)), named(part)),
    "list of images": lambda root, part: ([Image.fromarray(array) for array in arrays_of(part)], named(part)),
    "torch dataset": lambda root, part: Own(part),
    "ImageFolder": lambda root, part: ImageFolder(str(folder(root, part))),
    "in-memory dataset of torchvision": lambda root, part: OwnCIFAR(part),
    "Hugging Face dataset": hugging_face,
    "Hugging Face stream": lambda root, part: hugging_face(root, part).to_iterable_dataset(),
    "shards": shards,
    "generator": lambda root, part: zip(arrays_of(part), named(part), strict=True),
    "function of encoded pictures": lambda root, part: lambda: zip(map(png, arrays_of(part)), named(part), strict=True),
}


def module_of(root: Path) -> LightningDataModule:
    return LightningDataModule.from_datasets(Own("train"), val_dataset=Own("val"), test_dataset=Own("test"))


def whole_folder(root: Path) -> Path:
    for part in N_EACH:
        folder(root, part)
    return root


def whole_shards(root: Path) -> str:
    for part in N_EACH:
        shards(root, part)
    return str(root / "*.tar")


def hugging_face_splits(root: Path) -> Any:
    datasets = pytest.importorskip("datasets")
    return datasets.DatasetDict({part: hugging_face(root, part) for part in N_EACH})


def by_part(make: Maker, root: Path) -> dict[str, Any]:
    return {part: make(root, part) for part in N_EACH}


# A split of their own, in order of train, validation, test.
WHOLES: dict[str, Callable[[Path], Any]] = {
    **{f"dict of {form}": partial(by_part, make) for form, make in FORMS.items()},
    "LightningDataModule": module_of,
    "folder with parts": whole_folder,
    "shards named by part": whole_shards,
    "DatasetDict": hugging_face_splits,
}


def as_given(bundle: DataBundle) -> list[tuple[int, str | int, bytes]]:
    """Part, class and pixels of each picture, in an order of their own."""
    pixels = np.asarray(bundle.pixels(SIZE))
    rows = zip(bundle.parts, bundle.labels, pixels, strict=True)
    return sorted((int(part), bundle.classes[label], picture.tobytes()) for part, label, picture in rows)


@pytest.fixture(scope="module")
def expected(tmp_path_factory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("expected")
    train = decode(survey((np.stack(arrays_of("train")), named("train"))), [SIZE], cache_dir=root)
    whole = decode(survey({part: (np.stack(arrays_of(part)), named(part)) for part in N_EACH}), [SIZE], cache_dir=root)
    return {"one": train, "whole": whole}


@pytest.mark.parametrize("form", FORMS)
def test_one_dataset_gives_the_same_bundle(tmp_path, expected, form):
    bundle = decode(survey(FORMS[form](tmp_path, "train")), [SIZE], cache_dir=tmp_path / "cache")
    wanted = expected["one"]
    assert bundle.classes == wanted.classes == CLASSES
    assert bundle.labels.tolist() == wanted.labels.tolist()
    assert bundle.parts.tolist() == wanted.parts.tolist()
    assert bundle.made == wanted.made
    assert np.array_equal(np.asarray(bundle.pixels(SIZE)), np.asarray(wanted.pixels(SIZE)))
    assert bundle.preparation == wanted.preparation
    assert len(set(bundle.names)) == len(bundle.names)


@pytest.mark.parametrize("form", WHOLES)
def test_a_given_split_gives_the_same_bundle(tmp_path, expected, form):
    bundle = decode(survey(WHOLES[form](tmp_path)), [SIZE], cache_dir=tmp_path / "cache")
    assert bundle.classes == CLASSES
    assert bundle.made == ()
    assert as_given(bundle) == as_given(expected["whole"])


@pytest.mark.parametrize("form", FORMS)
def test_the_same_again_has_the_same_digests_and_is_not_decoded_again(tmp_path, form):
    first, second = (
        decode(
            survey(FORMS[form](tmp_path, "train")),
            [SIZE],
            cache_dir=tmp_path / "cache",
        )
        for _ in range(2)
    )
    assert (first.digest, first.split_digest, first.root) == (second.digest, second.split_digest, second.root)


def test_all_that_hold_files_share_one_store(tmp_path):
    forms = ("folder", "data frame", "ImageFolder", "Hugging Face dataset", "shards", "function of encoded pictures")
    roots = {decode(survey(FORMS[form](tmp_path, "train")), [8], cache_dir=tmp_path / "cache").root for form in forms}
    assert len(roots) == 1

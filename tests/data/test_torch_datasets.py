from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, Subset, TensorDataset
from torchvision.datasets import FakeData, ImageFolder

from autobackbone.data.torch_datasets import from_dataset
from autobackbone.errors import DataError


class Counting(Dataset[tuple[np.ndarray, int]]):
    """Counts how often pictures are read and how many are alive."""

    def __init__(self, n: int) -> None:
        self.n_reads = 0
        self.targets = [index % 2 for index in range(n)]

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        self.n_reads += 1
        return np.full((4, 4, 3), index, np.uint8), self.targets[index]


def test_targets_spare_reading_every_picture():
    dataset = Counting(100)
    assert from_dataset(dataset).labels.tolist() == dataset.targets
    assert dataset.n_reads < 10


def test_targets_that_say_something_else_are_not_trusted():
    class Shifted(Counting):
        def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
            picture, label = super().__getitem__(index)
            return picture, 5 - label

    found = from_dataset(Shifted(10))
    assert found.classes == (4, 5)
    assert found.labels.tolist() == [1, 0] * 5


def test_classes_name_the_labels(tree):
    folder = ImageFolder(str(tree))
    found = from_dataset(folder)
    assert found.classes == ("ant", "bee", "cat")
    assert found.labels.tolist() == folder.targets
    picture = found.source.read(3)
    assert isinstance(picture, Image.Image)


def test_a_subset_is_read_item_by_item():
    found = from_dataset(Subset(Counting(20), [3, 4, 9]))
    assert found.labels.tolist() == [1, 0, 1]
    assert np.asarray(found.source.read(2)).max() == 9


def test_tensors_come_with_channels_last_and_in_any_type():
    pictures = torch.rand(4, 3, 5, 6)
    found = from_dataset(TensorDataset(pictures, torch.tensor([0, 1, 0, 1])))
    assert np.array_equal(np.asarray(found.source.read(1)), pictures[1].permute(1, 2, 0).numpy())
    assert found.source.picture_size(0) == (5, 6)
    assert found.source.fingerprint(0).is_deep
    assert found.source.fingerprint(0) != found.source.fingerprint(1)


def test_torchvision_labels_that_are_tensors_are_read():
    found = from_dataset(FakeData(12, (3, 8, 8), num_classes=2))
    assert set(found.classes) <= {0, 1}
    assert found.labels.shape == (12,)


def test_labels_beyond_the_named_classes_are_refused():
    dataset = Counting(10)
    dataset.classes = ["only"]  # type: ignore[attr-defined]
    with pytest.raises(DataError, match=r"names 1 classes, so labels run from 0 to 0; \(0, 1\)"):
        from_dataset(dataset)


def test_an_item_that_raises_is_named():
    class Broken(Counting):
        def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
            if index == 2:
                raise RuntimeError("no such record")
            return super().__getitem__(index)

    dataset = Broken(8)
    del dataset.targets[0]
    dataset.target_transform = int  # type: ignore[attr-defined]
    with pytest.raises(DataError, match=r"reading item 2 of Broken raised RuntimeError\('no such record'\)"):
        from_dataset(dataset)
    assert from_dataset(Broken(9)).source.fingerprint(2).is_deep is False

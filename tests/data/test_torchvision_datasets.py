from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from tests.data.conftest import noise
from torch.utils.data import Dataset, Subset
from torchvision import transforms
from torchvision.datasets import CIFAR10, MNIST, FakeData, ImageFolder, VisionDataset
from torchvision.datasets.vision import StandardTransform

from autobackbone.data.arrays import ArraySource
from autobackbone.data.finding import find
from autobackbone.data.folders import FolderSource
from autobackbone.data.torchvision_datasets import is_torchvision, step_names
from autobackbone.errors import DataError

RANDOM = transforms.Compose([transforms.RandomCrop(4), transforms.ToTensor(), transforms.Normalize([0.5], [0.1])])


class OwnCIFAR(CIFAR10):  # type: ignore[misc]  # torchvision has no types
    """Reads its items as torchvision does, from pictures of our own."""

    def __init__(self, n: int, transform=None, target_transform=None) -> None:
        VisionDataset.__init__(self, None, transform=transform, target_transform=target_transform)
        self.data = np.stack([noise(index, 32, 32) for index in range(n)])
        self.targets = [9 - index % 2 for index in range(n)]
        self.classes = [f"class{index}" for index in range(10)]


class OwnMNIST(MNIST):  # type: ignore[misc]
    classes = ["zero", "one"]  # noqa: RUF012  as torchvision's

    def __init__(self, n: int) -> None:
        VisionDataset.__init__(self, None)
        self.data = torch.arange(n * 28 * 28).reshape(n, 28, 28).to(torch.uint8)
        self.targets = torch.arange(n) % 2


def test_a_folder_is_read_by_its_paths_past_its_transform(tree):
    found = find(ImageFolder(str(tree), transform=RANDOM), None)
    plain = find(tree, None)
    assert isinstance(found.source, FolderSource)
    assert found.source.root == plain.source.root
    assert sorted(found.source.names) == sorted(plain.source.names)
    assert found.classes == plain.classes
    assert found.labels.tolist() == plain.labels.tolist()
    line = "pictures are taken as they are stored: the transform of ImageFolder is not applied"
    assert found.notes == (f"{line} (RandomCrop, ToTensor, Normalize)",)


def test_a_folder_with_a_loader_of_its_own_is_read_by_that(tree):
    found = find(ImageFolder(str(tree), loader=lambda path: Image.new("L", (3, 2), 7)), None)
    assert not isinstance(found.source, FolderSource)
    assert found.source.read(0).size == (3, 2)


def test_arrays_in_memory_are_taken_as_they_lie():
    dataset = OwnCIFAR(8, transform=RANDOM)
    found = find(dataset, None)
    assert isinstance(found.source, ArraySource)
    assert found.classes == ("class8", "class9")
    assert found.labels.tolist() == [1, 0] * 4
    assert np.array_equal(np.asarray(found.source.read(5)), noise(5, 32, 32))
    digits = find(OwnMNIST(4), None)
    assert digits.classes == ("zero", "one")
    assert np.asarray(digits.source.read(1)).tolist() == OwnMNIST(4).data[1].tolist()


def test_a_target_transform_is_applied_and_its_labels_are_no_more_named():
    found = find(OwnCIFAR(6, target_transform=lambda code: code % 2), None)
    assert found.classes == (0, 1)
    assert found.labels.tolist() == [1, 0] * 3
    with pytest.raises(DataError, match=r"target_transform of OwnCIFAR raised ZeroDivisionError"):
        find(OwnCIFAR(6, target_transform=lambda code: 1 / 0), None)


def test_a_subset_keeps_names_and_has_the_classes_of_its_pictures(tree):
    whole = ImageFolder(str(tree), transform=RANDOM)
    found = find(Subset(Subset(whole, range(20, 60)), [0, 20, 1]), None)
    assert found.source.names == ("bee/0.png", "cat/0.png", "bee/1.png")
    assert found.classes == ("bee", "cat")
    assert found.labels.tolist() == [0, 1, 0]
    assert any("RandomCrop" in note for note in found.notes)


def test_other_datasets_lose_their_transform_and_nothing_else():
    fake = FakeData(12, (3, 8, 8), num_classes=2, transform=RANDOM)
    found = find(fake, None)
    assert isinstance(found.source.read(0), Image.Image)
    assert found.source.read(0).size == (8, 8)
    assert any("the transform of FakeData is not applied" in note for note in found.notes)
    assert fake.transform is RANDOM


def test_a_pair_of_transforms_loses_the_one_of_pictures():
    class Paired(OwnCIFAR):
        pass

    dataset = Paired(4, transform=RANDOM, target_transform=str)
    from autobackbone.data.torchvision_datasets import _bare

    bare = _bare(dataset)
    assert isinstance(bare.transforms, StandardTransform)
    picture, label = bare.transforms(Image.new("L", (2, 2)), 3)
    assert (picture.size, label) == ((2, 2), "3")
    assert dataset.transforms(Image.new("L", (8, 8)), 3)[0].shape == (1, 4, 4)


def test_a_users_own_reading_is_not_passed_by():
    class Dark(OwnCIFAR):
        def __getitem__(self, index: int):
            picture, label = super().__getitem__(index)
            return Image.fromarray(np.asarray(picture) // 2), label

    assert not is_torchvision(Dark(4))
    assert np.array_equal(np.asarray(find(Dark(4), None).source.read(1)), noise(1, 32, 32) // 2)


def test_steps_are_named():
    assert step_names(transforms.Compose([RANDOM, transforms.RandomApply([transforms.Grayscale()])])) == [
        "RandomCrop",
        "ToTensor",
        "Normalize",
        "Grayscale",
    ]


class Own(Dataset[tuple[np.ndarray, int]]):
    def __init__(self, change) -> None:
        self.change = change

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int):
        return self.change(noise(index)), index % 2


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda picture: picture + np.random.default_rng().integers(0, 9, picture.shape, np.uint8), "by a random"),
        (lambda picture: (picture / 255 - 0.5) / 0.2, "values below 0, as after Normalize"),
    ],
)
def test_what_a_users_dataset_does_to_pictures_is_told(change, line):
    assert any(line in note for note in find(Own(change), None).notes)
    assert find(Own(lambda picture: picture), None).notes == ()

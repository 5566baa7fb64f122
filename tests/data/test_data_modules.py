from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pytorch_lightning import LightningDataModule
from tests.data.conftest import noise
from torch.utils.data import DataLoader, Dataset, random_split
from torchvision import transforms
from torchvision.datasets import ImageFolder

from autobackbone.data import TEST, TRAIN, VALIDATION
from autobackbone.data.data_modules import NOTE
from autobackbone.data.finding import find
from autobackbone.errors import DataError

AUGMENTED = transforms.Compose(
    [transforms.RandomResizedCrop(8), transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.2] * 3)]
)


class Own(Dataset[tuple[np.ndarray, str]]):
    def __init__(self, n: int, change=lambda picture: picture) -> None:
        self.n, self.change = n, change

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int):
        return self.change(noise(index)), "ab"[index % 2]


class Folder(LightningDataModule):
    """As people write them: set up by stage, augmented, split at random."""

    def __init__(self, root: str) -> None:
        super().__init__()
        self.root = root
        self.stages: list[str] = []

    def prepare_data(self) -> None:
        self.stages.append("prepare")

    def setup(self, stage: str) -> None:
        self.stages.append(stage)
        whole = ImageFolder(self.root, transform=AUGMENTED)
        if stage == "fit":
            self.train, self.val = random_split(whole, [45, 15])
        if stage == "test":
            self.held_out = whole

    def train_dataloader(self) -> Any:
        return DataLoader(self.train, batch_size=4, shuffle=True)

    def val_dataloader(self) -> Any:
        return DataLoader(self.val, batch_size=4)


class WithTest(Folder):
    def test_dataloader(self) -> list[Any]:
        return [DataLoader(self.held_out)]


def test_its_datasets_are_found_past_their_transforms(tree):
    module = Folder(str(tree))
    found = find(module, None)
    assert module.stages == ["prepare", "fit"]
    assert found.given is not None
    assert np.bincount(found.given).tolist() == [45, 15]
    assert found.classes == ("ant", "bee", "cat")
    name = found.source.names[50]
    plain = find(tree, None).source
    which = plain.names.index(name.removeprefix("val/"))
    assert found.source.fingerprint(50) == plain.fingerprint(which)
    assert any("RandomResizedCrop, ToTensor, Normalize" in note for note in found.notes)
    assert found.notes[-1] == NOTE


def test_a_test_part_is_set_up_and_taken(tree):
    module = WithTest(str(tree))
    found = find(module, None)
    assert module.stages == ["prepare", "fit", "test"]
    assert found.given is not None
    assert [int((found.given == part).sum()) for part in (TRAIN, VALIDATION, TEST)] == [45, 15, 60]


def test_a_module_made_of_datasets_is_taken():
    found = find(LightningDataModule.from_datasets(Own(8), val_dataset=Own(4)), None)
    assert found.classes == ("a", "b")
    assert found.given is not None
    assert np.bincount(found.given).tolist() == [8, 4]
    assert np.array_equal(np.asarray(found.source.read(9)), noise(1))


def test_of_a_data_loader_the_dataset_is_taken():
    found = find(DataLoader(Own(6), batch_size=2, shuffle=True), None)
    assert found.labels.tolist() == [0, 1] * 3
    assert found.notes[-1] == NOTE


def loaders(**parts):
    class Module(LightningDataModule):
        pass

    for name, given in parts.items():
        setattr(Module, name, lambda self, given=given: given)
    return Module()


def failing(self):
    raise AttributeError("no trainer")


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (loaders(), "Module has no train_dataloader"),
        (loaders(train_dataloader=[DataLoader(Own(4)), DataLoader(Own(4))]), r"train_dataloader\(\) gives 2"),
        (loaders(train_dataloader=iter([])), r"train_dataloader\(\) gives list_iterator, which has no dataset"),
        (
            loaders(train_dataloader=DataLoader(Own(4, lambda picture: picture / 100 - 1))),
            r"train_dataloader\(\) are normalised, with values below 0. Give the module's datasets without",
        ),
        (
            loaders(train_dataloader=DataLoader(Own(4, lambda picture: np.random.default_rng().random((4, 4, 3))))),
            "change each time they are read, as by a random transform",
        ),
        (loaders(val_dataloader=None), "Module has no train_dataloader"),
    ],
)
def test_what_cannot_be_used_is_told(module, message):
    with pytest.raises(DataError, match=message):
        find(module, None)


def test_a_hook_that_raises_is_named():
    module = loaders()
    type(module).setup = failing
    with pytest.raises(DataError, match=r"setup\('fit'\) of Module raised TypeError"):
        find(module, None)


def test_a_part_without_loaders_is_made_of_the_training_part():
    found = find(loaders(train_dataloader={"only": DataLoader(Own(20))}, val_dataloader=[]), None)
    assert found.given is not None
    assert set(found.given.tolist()) == {TRAIN}

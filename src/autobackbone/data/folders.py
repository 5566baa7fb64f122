"""A folder of pictures: one sub-folder per class, with or without train, val and test above them."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from autobackbone.data.contents import fingerprint_of
from autobackbone.data.parts import TEST, TRAIN, VALIDATION
from autobackbone.data.pictures import header_size, open_picture, read_content
from autobackbone.data.sources import UNREADABLE, Fingerprint, Found, from_home, natural_key, printable
from autobackbone.data.walking import Tally, list_folder, walk_pictures
from autobackbone.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

    from autobackbone.records import ImageSize

PART_NAMES = {"train": TRAIN, "val": VALIDATION, "valid": VALIDATION, "validation": VALIDATION, "test": TEST}
_LAYOUT = "Expected is one sub-folder per class, root/CLASS/picture.jpg, or root/train/CLASS/picture.jpg and so on"

_Tree = tuple[int, str, list[str]]
"""Part, class and the names of its pictures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderSource:
    """Picture files under one folder; named by their path in it, with `/`."""

    root: Path
    names: tuple[str, ...] = field(repr=False)

    @property
    def is_thread_safe(self) -> bool:
        """Say yes: each reading opens its own file."""
        return True

    def read(self, index: int) -> Image.Image:
        """Open the file."""
        return open_picture(self.root / self.names[index])

    def fingerprint(self, index: int) -> Fingerprint:
        """Digest the file's bytes."""
        try:
            content = read_content(self.root / self.names[index])
        except (OSError, ValueError, MemoryError):  # names that no file can have, and files that memory cannot hold
            return UNREADABLE
        return fingerprint_of(content)

    def picture_size(self, index: int) -> ImageSize:
        """Read the file's header."""
        return header_size(self.root / self.names[index])


def from_folder(folder: str | os.PathLike[str]) -> Found:
    """Read which pictures and classes a folder holds, without opening a picture.

    `train/`, `val/` (`valid/`, `validation/`) and `test/` above the class folders are a given split; an unlabelled
    `test/` is left out. Folders inside a class count to that class. What is passed over is told in the notes.

    Raises:
        DataError: no folder, or another layout.
    """
    if not os.fspath(folder):
        raise DataError("a dataset is a folder with one sub-folder per class; an empty text came.")
    root = from_home(folder)
    if not os.path.isdir(root):  # noqa: PTH112  # says no where Path raises: of names too long, of folders without rights
        what = "a file" if os.path.exists(root) else "nothing"  # noqa: PTH110
        raise DataError(f"a dataset is a folder with one sub-folder per class; {what} is at '{root}'.")
    tally = Tally()
    top = list_folder(root, "", tally)
    parts = _part_folders(root, top.folders)
    if parts:
        tally.note_folders([name for name in top.folders if name not in parts], "beside the parts, not used")
        trees = [tree for name, part in parts.items() for tree in _part_trees(root, name, part, tally)]
    else:
        trees = _class_trees(root, "", TRAIN, tally)
    if top.pictures and trees:
        tally.notes.append(f"{top.pictures} pictures beside the class folders have no label: not used")
    if not trees:
        raise DataError(_nothing_found(root, top.folders, top.pictures))
    return _found(root, trees, tally, has_split=bool(parts))


def _part_folders(root: Path, folders: list[str]) -> dict[str, int]:
    """Tell which folders are parts; none, where `train` is a class like its neighbours or is missing."""
    parts = {name: PART_NAMES[name.lower()] for name in folders if name.lower() in PART_NAMES}
    trains = [name for name, part in parts.items() if part == TRAIN]
    has_classes = any(_class_trees(root, name, TRAIN, Tally()) for name in trains)
    is_only_part_like = len(parts) > 1 or len(folders) == 1
    if has_classes and is_only_part_like:
        return parts
    if parts and len(parts) == len(folders):
        found = ", ".join(f"'{name}/'" for name in folders)
        raise DataError(f"found {found} in '{root}', but no class folders with pictures in 'train/'. {_LAYOUT}.")
    return {}


def _part_trees(root: Path, name: str, part: int, tally: Tally) -> list[_Tree]:
    trees = _class_trees(root, name, part, tally)
    n_direct = list_folder(root / name, name, Tally()).pictures
    if n_direct and trees:
        tally.notes.append(f"{n_direct} pictures directly in '{name}/' have no label: not used")
    elif n_direct:
        tally.notes.append(f"'{name}/' holds {n_direct} pictures and no class folders: no labels, not used")
    return trees


def _class_trees(root: Path, under: str, part: int, tally: Tally) -> list[_Tree]:
    level = list_folder(root / under, under, tally if under else Tally())
    trees, empty = [], []
    for folder in sorted(level.folders, key=natural_key):
        path = f"{under}/{folder}" if under else folder
        names = walk_pictures(root, path, tally)
        if names:
            trees.append((part, printable(folder), names))
        else:
            empty.append(path)
    tally.note_folders(empty, "without pictures")
    return trees


def _found(root: Path, trees: list[_Tree], tally: Tally, *, has_split: bool) -> Found:
    classes = sorted({name for part, name, _ in trees if part == TRAIN}, key=natural_key)
    unknown = dict.fromkeys(f"'{name}'" for part, name, _ in trees if part != TRAIN and name not in classes)
    if unknown:
        raise DataError(
            f"every class must have pictures in 'train/'; only in validation or test: {', '.join(unknown)}. "
            f"'train/' has {', '.join(repr(name) for name in classes[:10])}. Rename or remove the others."
        )
    code = {name: index for index, name in enumerate(classes)}
    sizes = [len(names) for _, _, names in trees]
    names = tuple(name for _, _, tree in trees for name in tree)
    given = np.repeat(np.array([part for part, _, _ in trees], np.int8), sizes)
    return Found(
        source=FolderSource(root=root, names=names),
        classes=tuple(classes),
        labels=np.repeat(np.array([code[name] for _, name, _ in trees], np.int64), sizes),
        given=given if has_split else None,
        notes=tally.lines(),
    )


def _nothing_found(root: Path, folders: list[str], n_pictures: int) -> str:
    if n_pictures:
        return f"found {n_pictures} pictures directly in '{root}' and none in sub-folders, so no labels. {_LAYOUT}."
    if folders:
        return f"found {len(folders)} sub-folders in '{root}', none with a picture. {_LAYOUT}."
    return f"found neither pictures nor sub-folders in '{root}'. {_LAYOUT}."

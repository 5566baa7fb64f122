"""Going through folders: fast, once, and with a tally of what is passed over."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from autobackbone.data.pictures import picture_suffixes
from autobackbone.data.sources import natural_key, printable
from autobackbone.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(slots=True)
class Tally:
    """What was passed over on the way; not frozen, for it counts."""

    hidden: list[str] = field(default_factory=list)
    suffixes: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def note_folders(self, folders: list[str], why: str) -> None:
        """Note folders in one line, if there are any."""
        if folders:
            self.notes.append(f"{_count(len(folders), 'folder')} {why}: {_first(folders)}")

    def lines(self) -> tuple[str, ...]:
        """Give one line for each kind of thing that was passed over."""
        lines = list(self.notes)
        if self.hidden:
            lines.append(f"{_count(len(self.hidden), 'hidden file or folder')}: {_first(self.hidden)}")
        if self.suffixes:
            kinds = ", ".join(f"{suffix or 'no suffix'} {n}" for suffix, n in self.suffixes.most_common(5))
            lines.append(f"{_count(self.suffixes.total(), 'file')} that are no pictures by their suffix ({kinds})")
        return tuple(lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """One folder's visible sub-folders and how many pictures lie directly in it."""

    folders: list[str]
    pictures: int


def list_folder(folder: Path, name: str, tally: Tally) -> Level:
    """List one folder. Files beside the class folders, such as a README, are nobody's loss and not counted."""
    folders, n_pictures = [], 0
    for entry in _visible(folder, name, tally):
        if _is_folder(entry):
            folders.append(entry.name)
        else:
            n_pictures += _is_picture(entry)
    return Level(folders=sorted(folders, key=natural_key), pictures=n_pictures)


def walk_pictures(root: Path, name: str, tally: Tally) -> list[str]:
    """Name all pictures under `root/name`, relative to `root`, in natural order.

    Each folder is entered once and none above `root/name`, so links in a circle end.
    """
    seen = {_identity(root / above) for above in (Path(name), *Path(name).parents)}
    waiting, pictures = [name], []
    while waiting:
        under = waiting.pop()
        # Sorted, so that of two ways to one folder always the same is taken.
        for entry in sorted(_visible(root / under, under, tally), key=lambda entry: entry.name):
            path = f"{under}/{entry.name}"
            if not _is_folder(entry):
                if _is_picture(entry):
                    pictures.append(path)
                else:
                    tally.suffixes[_suffix(entry)] += 1
            elif (identity := _identity(root / path)) not in seen:
                seen.add(identity)
                waiting.append(path)
    return sorted(pictures, key=natural_key)


def _visible(folder: Path, name: str, tally: Tally) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") or entry.name == "__MACOSX":
                    tally.hidden.append(f"{name}/{entry.name}" if name else entry.name)
                else:
                    yield entry
    except OSError as error:
        raise DataError(
            f"cannot list the folder '{printable(str(folder))}': {error.strerror}. Make it readable or move it."
        ) from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or into a folder without rights
        return False


def _is_picture(entry: os.DirEntry[str]) -> bool:
    # A link counts wherever it leads, so that decoding names it if it leads to no file; a pipe is no file.
    return _suffix(entry) in picture_suffixes() and (entry.is_symlink() or entry.is_file())


def _suffix(entry: os.DirEntry[str]) -> str:
    return os.path.splitext(entry.name)[1].lower()  # noqa: PTH122  # a Path for each of 100,000 names costs a second


def _identity(folder: Path) -> tuple[int, int]:
    facts = folder.stat()
    return facts.st_dev, facts.st_ino


def _first(names: list[str]) -> str:
    shown = ", ".join(f"'{printable(name)}'" for name in sorted(names, key=natural_key)[:3])
    return shown + (", …" if len(names) > 3 else "")


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what.replace('file', 'files', 1).replace('folder', 'folders', 1)}"

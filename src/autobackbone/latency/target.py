"""Where a model will run: what the user left open is settled here, once, and said in one line."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import torch

from autobackbone.errors import TargetError
from autobackbone.records import Precision, Runtime, Target

# What a runtime needs beyond torch: the modules, and the extra that brings them.
_NEEDED: dict[Runtime, tuple[tuple[str, ...], str]] = {
    "onnxruntime": (("onnxruntime", "onnx", "onnxscript"), "onnx"),
    "onnxruntime-int8": (("onnxruntime", "onnx", "onnxscript"), "onnx"),
    "openvino": (("openvino", "onnx", "onnxscript"), "openvino"),
}
# How a target is told where that is more or less than a runtime and a precision.
_RUN_BY: dict[Runtime, str] = {"torch": "{}", "onnxruntime-int8": "onnxruntime-int8 (scores are of {})"}
_DTYPES: dict[Precision, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def dtype_of(precision: Precision) -> torch.dtype:
    """The type of numbers of a settled precision."""
    return _DTYPES[precision]


def resolve(target: Target | None) -> Target:
    """Settle what a target leaves open, and make sure that this machine has it.

    `"auto"` is the first of CUDA, Apple's GPU and the CPU that is here. Precision is float16 on CUDA, float32
    elsewhere. Threads are all cores that this process may use.

    Args:
        target: as the user gave it, `None` for all defaults.

    Returns:
        A target with no `"auto"` and no `None` left; resolving it again changes nothing.

    Raises:
        TargetError: it is none; or the device, as many cores as threads, or the runtime are not here.

    Example:
        >>> resolve(Target(device="cpu", n_threads=1))
        Target(device='cpu', batch_size=1, precision='float32', n_threads=1, runtime='torch', timings=None, name=None)
    """
    if not isinstance(target, Target | None):
        raise TargetError(f"target is a Target(…), such as Target(device='cpu'), or None, not {target!r}.")
    wanted = target or Target()
    here = _devices()
    _require_runtime(wanted.runtime)
    first = here[0] if wanted.runtime.startswith("torch") else "cpu"
    device = first if wanted.device == "auto" else wanted.device
    if device not in here:
        raise TargetError(f"target.device {device!r} is not on this machine; it has {', '.join(here)}. Choose one.")
    n_cores = _n_cores()
    if wanted.n_threads is not None and wanted.n_threads > n_cores:
        raise TargetError(
            f"target.n_threads={wanted.n_threads} is more than the {n_cores} cores that this process may use. Ask for "
            "fewer, or leave it out for all."
        )
    is_half = device.startswith("cuda")
    precision = ("float16" if is_half else "float32") if wanted.precision == "auto" else wanted.precision
    return replace(wanted, device=device, precision=precision, n_threads=wanted.n_threads or n_cores)


def _require_runtime(runtime: Runtime) -> None:
    modules, extra = _NEEDED.get(runtime, ((), ""))
    missing = [one for one in modules if find_spec(one) is None]
    if missing:
        raise TargetError(
            f"target.runtime={runtime!r} needs {', '.join(missing)}, not installed here: "
            f"pip install 'autobackbone[{extra}]'."
        )


def describe(target: Target) -> str:
    """Say in one line what every latency refers to.

    Example:
        >>> describe(Target(device="cpu", n_threads=1))  # doctest: +ELLIPSIS
        'cpu (..., 1 thread), float32, batch 1'
        >>> describe(Target(name="a phone", timings=[{"backbone": "a", "image_size": [8, 8], "latency_ms": 9.0}]))
        'a phone (1 latency measured there), batch 1'
    """
    if target.timings is not None:
        n = len(target.timings)
        given = f"{n:,} latenc{'y' if n == 1 else 'ies'} measured there"
        return f"{target.name or 'another machine'} ({given}), batch {target.batch_size}"
    settled = resolve(target)
    threads = f"{settled.n_threads} thread{'s' if settled.n_threads != 1 else ''}"
    place = f"{_chip(settled.device)}, {threads}" if settled.device == "cpu" else _chip(settled.device)
    named = "" if settled.name is None else f"{settled.name}: "
    by = _RUN_BY.get(settled.runtime, f"{settled.runtime}, {settled.precision}")
    return f"{named}{settled.device} ({place}), {by.format(settled.precision)}, batch {settled.batch_size}"


def hardware(target: Target) -> dict[str, str | int]:
    """Name what a latency depends on besides the network: a latency measured elsewhere says nothing here.

    Example:
        >>> sorted(hardware(Target(device="cpu")))
        ['chip', 'n_cores', 'n_threads', 'system', 'torch']
    """
    if target.timings is not None:
        return {"chip": target.name or "another machine", "n_timings": len(target.timings)}
    settled = resolve(target)
    facts: dict[str, str | int] = {
        "chip": _chip(settled.device),
        "n_cores": _n_cores(),
        "n_threads": settled.n_threads or _n_cores(),
        "system": platform.system(),
        "torch": str(torch.__version__),
    }
    if settled.runtime in _NEEDED:
        library = _NEEDED[settled.runtime][0][0]
        facts[library] = version(library)
    return facts


def _devices() -> list[str]:
    """What this machine has, the likeliest wish first."""
    n_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    gpus = ["cuda", *(f"cuda:{i}" for i in range(n_gpus))] if n_gpus else []
    return [*gpus, *(["mps"] if torch.backends.mps.is_available() else []), "cpu"]


def _n_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _chip(device: str) -> str:
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return _cpu_name() if device == "cpu" else f"{_cpu_name()} GPU"


def _cpu_name() -> str:
    facts = Path("/proc/cpuinfo")
    text = facts.read_text(encoding="utf-8", errors="replace") if facts.exists() else ""
    # An ARM kernel gives no model name; a machine type such as 'aarch64' is then all there is.
    found = re.search(r"^model name\s*:\s*(\S.*)$", text, flags=re.MULTILINE)
    return _short(found[1] if found else platform.processor() or platform.machine() or "unknown processor")


def _short(name: str) -> str:
    """A processor's name without trade marks, clock and padding."""
    without = re.sub(r"\((R|TM|r|tm)\)|@.*|\b(CPU|Processor|\d+-Core)\b", " ", name)
    return " ".join(without.split())

"""Where benchmarks write what they measured, and how they name the machine."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from autobackbone.latency.target import describe, resolve
from autobackbone.records import Target

mpl.use("agg")


def machine(n_threads: int) -> str:
    """The machine and the versions behind a figure, in two sentences."""
    target = describe(resolve(Target(n_threads=n_threads)))
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "timm", "optuna", "pytorch-lightning"))
    return f"Machine: {target}; Python {platform.python_version()}, {versions}; {datetime.now(tz=UTC):%Y-%m-%d}."


def write_report(folder: Path, name: str, text: str, facts: Sequence[Any], figure: Figure | None = None) -> None:
    """Write a benchmark's table as Markdown, its raw points as JSON, and its picture."""
    folder.mkdir(parents=True, exist_ok=True)
    picture = "" if figure is None else f"\n![{name}]({name}.png)\n"
    (folder / f"{name}.md").write_text(f"# {name.replace('_', ' ')}\n\n{text}{picture}", encoding="utf-8")
    (folder / f"{name}.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    if figure is not None:
        figure.savefig(folder / f"{name}.png", dpi=110)


class Timeline:
    """Listens to a search, and keeps what it says with the second at which it says it."""

    def __init__(self) -> None:
        self.begun = time.monotonic()
        self.rows: list[tuple[float, str]] = []

    def stage(self, name: str) -> None:
        """Keep the beginning of a stage."""
        self._add(f"{name} begins")

    def say(self, line: str) -> None:
        """Keep a line; of the plan, which has many, none."""
        if "\n" not in line:
            self._add(line)

    def progress(self, share: float, detail: str) -> None:
        """Nothing: what is done is said when it is done."""

    def close(self) -> None:
        """Keep the end."""
        self._add("the end")

    def _add(self, line: str) -> None:
        self.rows.append((round(time.monotonic() - self.begun, 1), line))


def timeline_table(rows: Sequence[tuple[float, str]]) -> str:
    """What a search said, by second, as Markdown."""
    return "\n".join(("| second | |", "|---|---|", *(f"| {second:.1f} | {line} |" for second, line in rows)))

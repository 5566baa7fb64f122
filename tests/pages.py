"""What is needed to run the examples of a page: its blocks, the files that it speaks of, and searches made small."""

import ast
import inspect
import io
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sybil import Document, Example
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown.lexers import DirectiveInHTMLCommentLexer, FencedCodeBlockLexer
from tests.conftest import TINY, make_pictures
from torch.utils.data import DataLoader, TensorDataset

import autobackbone
from autobackbone import Budget, Selection, open_run, plan, select_backbone
from autobackbone.backbones.names import resolve_names
from autobackbone.exporting import onnx_loader
from autobackbone.records import as_budget

NAMED = {name: getattr(autobackbone, name) for name in autobackbone.__all__ if not name.startswith("_")}
REAL = {"more": Selection.more, "refit": Selection.refit}
KINDS = frozenset({"", "slow", "elsewhere"})
# What pages name as the reader's own.
LOGGERS = """
from pytorch_lightning.loggers import CSVLogger


def make():
    return CSVLogger("logs")
"""
WATCHING = """
from pytorch_lightning import Callback


class Watch(Callback):
    def on_train_epoch_end(self, trainer, module):
        print("epoch", trainer.current_epoch)
"""
CARDS = ("nine", "ten", "jack", "queen", "king", "ace")


@dataclass(frozen=True)
class Blocks:
    """A parser of Sybil: the Python blocks of a page, each with the mark in the comment before it.

    Args:
        evaluate: by the mark's first word, what is done with a block.
    """

    evaluate: Mapping[str, Callable[[Example], None] | None]

    def __call__(self, document):
        # A lexed comment ends before its arrow.
        marks = {
            document.text.index("-->", region.end) + 3: region.lexemes["arguments"]
            for region in DirectiveInHTMLCommentLexer("example")(document)
        }
        for region in FencedCodeBlockLexer("python")(document):
            region.parsed = region.lexemes["source"]
            mark = marks.pop(len(document.text[: region.start].rstrip()), "")
            region.evaluator = self.evaluate[mark.split(",")[0].strip()]
            yield region
        assert not marks, f"{document.path}: marks that stand before no Python block: {list(marks.values())}"


def examples_of(page, evaluate=None):
    """The examples of a page, in order."""
    return list(Document.parse(str(page), Blocks(evaluate or dict.fromkeys(KINDS))).examples())


def bind(example):
    """Compile a block, and hold its calls of what is public against the signatures."""
    for call in ast.walk(ast.parse(example.parsed)):
        if isinstance(call, ast.Call):
            taken = {keyword.arg: keyword.value for keyword in call.keywords}
            if ast.unparse(call.func) in NAMED:
                inspect.signature(NAMED[ast.unparse(call.func)]).bind(*call.args, **taken)
            elif isinstance(call.func, ast.Attribute) and ast.unparse(call.func.value) in {"result", "selection"}:
                inspect.signature(getattr(Selection, call.func.attr)).bind(None, *call.args, **taken)


def write_pictures(folder, seed=0):
    """A folder of three classes, two shots of each thing: names of files, and labels."""
    names, labels = [], []
    for i, (pixels, label) in enumerate(zip(*make_pictures(seed=seed), strict=True)):
        file = folder / f"class {label}" / f"thing{i // 2}_{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file)
        names.append(str(file.relative_to(folder)))
        labels.append(f"class {label}")
    return names, labels


def write_world(folder):
    """All files that pages speak of."""
    generator = np.random.default_rng(0)
    names, labels = write_pictures(folder / "photos")
    for number, name in enumerate(("more photos", "photos of a later year", "cells", "cards"), 1):
        write_pictures(folder / name, seed=number)
    for name in ("new.jpg", "picture.jpg"):
        Image.open(folder / "photos" / names[0]).save(folder / name)
    days = generator.permutation(pd.date_range("2026-01-01", periods=len(names)).astype(str))
    patients = [f"patient {number % 12}" for number in range(len(names))]
    areas = [float(np.asarray(Image.open(folder / "cells" / name)).mean()) / 7 for name in names]
    cards = dict(zip(CARDS, generator.integers(2, size=(len(CARDS), len(names))), strict=True))
    columns = {
        "photos": {"label": labels, "taken_at": days, "patient": patients},
        "cells": {"wbc_area": areas},
        "cards": cards,
    }
    for name, column in columns.items():
        pd.DataFrame({"file": names} | column).to_csv(folder / name / "labels.csv", index=False)
    (folder / "kit").mkdir()
    for table in (folder / "latencies.csv", folder / "kit" / "latencies.csv"):
        table.write_text(f"backbone,height,width,latency_ms\n{TINY},32,32,7.5\n", encoding="utf-8")
    shutil.copy(onnx_loader.__file__, folder / "onnx_loader.py")
    package = folder / "mypackage"
    package.mkdir()
    for module, text in (("__init__", ""), ("loggers", LOGGERS), ("watching", WATCHING)):
        (package / f"{module}.py").write_text(text, encoding="utf-8")


@dataclass(frozen=True)
class Small:
    """The package's own functions, with less time, one small network, and few epochs.

    Args:
        weights: of that network.
        cache: the cache folder.
        first: the run that pages begin with, made once.
    """

    weights: Path
    cache: Path
    first: Path

    def search(self, dataset, budget, **given):
        """A real search; that of most pages is done already."""
        if (dataset, given) == ("photos/", {}):
            return open_run(self.first)
        return select_backbone(dataset, Budget(n_trials=1), **self._small(budget, given))

    def plan(self, dataset, budget, **given):
        """A real plan."""
        return plan(dataset, Budget(n_trials=1), **self._small(budget, given))

    def planned_search(self, dataset, budget, **given):
        """All that is looked at before a search begins."""
        self.plan(dataset, budget, **given)
        return open_run(self.first)

    def more(self, selection, budget, **given):
        """A little more."""
        as_budget(budget)
        return REAL["more"](selection, Budget(n_trials=1), **{"progress": False, "cache_dir": self.cache} | given)

    def refit(self, selection, *positional, **given):
        """Half a minute at most."""
        return REAL["refit"](selection, *positional, **given | {"budget": 30, "cache_dir": self.cache})

    def make_first(self):
        """The run that pages begin with."""
        select_backbone("photos/", Budget(n_trials=1), run_dir=self.first, **self._small("10min", {}))

    def _small(self, budget, given):
        as_budget(budget)
        # Those of timm: what comes from elsewhere is looked at by other tests.
        named = given.get("backbones") or TINY
        for name in [named] if isinstance(named, str) else named:
            assert not isinstance(name, str) or ":" in name or resolve_names(name)
        space = {"n_epochs": 1, "n_blocks_kept": None} | dict(given.get("space", {}))
        # A busy machine may be a hundred times slower than the one that a page has in mind.
        limits = {"limits": replace(given["limits"], latency_ms=1e6)} if "limits" in given else {}
        fixed = {"backbones": TINY, "weights": self.weights, "cache_dir": self.cache, "progress": False, "space": space}
        return {"image_sizes": 32} | given | fixed | limits


@dataclass(frozen=True)
class Reader:
    """Who types a page's examples in.

    Args:
        small: what its searches become.
        patch: undone when the page is read.
    """

    small: Small
    patch: pytest.MonkeyPatch

    def evaluate(self, *, with_slow):
        """What is done with the blocks of each mark."""
        return {"": self.run, "slow": self.run if with_slow else self.run_planned, "elsewhere": bind}

    def run(self, example):
        """As it stands."""
        small = self.small
        self._run(example, small.search, more=small.more, refit=small.refit)

    def run_planned(self, example):
        """With searches that are only planned."""
        self._run(example, self.small.planned_search, more=_fits("more"), refit=_fits("refit"))

    def _run(self, example, search, **methods):
        ours = {"select_backbone": search, "plan": self.small.plan}
        for name, function in ours.items():
            self.patch.setattr(autobackbone, name, function)
        for name, method in methods.items():
            # A bound method in a class would not be given the selection.
            self.patch.setattr(Selection, name, lambda *given, _method=method, **named: _method(*given, **named))
        # A block may go on where another page began.
        example.namespace.update(NAMED | ours)
        for name, value in ({"result": open_run(self.small.first)} | _held()).items():
            example.namespace.setdefault(name, value)
        PythonEvaluator()(example)


def _held():
    """What pages take for granted in memory: arrays, records of a database, and batches."""
    (x, y), (x_val, y_val) = make_pictures(), make_pictures(n_per_class=4, seed=1)
    encoded = [io.BytesIO() for _ in x]
    for picture, file in zip(x, encoded, strict=True):
        Image.fromarray(picture).save(file, format="JPEG")
    database = [SimpleNamespace(jpeg=file.getvalue(), kind=f"class {n}") for file, n in zip(encoded, y, strict=True)]
    batches = DataLoader(TensorDataset(torch.zeros(6, 3, 32, 32), torch.arange(6) % 3), batch_size=3)
    arrays = {"X": x, "y": y, "X_val": x_val, "y_val": y_val}
    return arrays | {"database": database, "train_loader": batches, "validation_loader": batches}


def _fits(name):
    def bound(selection, *given, **named):
        inspect.signature(REAL[name]).bind(selection, *given, **named)
        return selection

    return bound

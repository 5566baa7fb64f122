"""What a machine of a cluster does: it trains one leg of one trial, as an order says, and tells what came out as text.

Orders and answers are JSON, arrays and tensors lie in files: nothing in them can be run. It may be begun again wherever
its machine is lost: what it needs stays as it was, and each attempt has a folder of its own.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from autobackbone.data import pixels_files
from autobackbone.errors import TrialError, WeightsError
from autobackbone.runfolder import cache_folder, write_text
from autobackbone.running.crossing import JOB_FILES, SETUP, read_setup, told_of_disk
from autobackbone.running.failures import facts_of
from autobackbone.running.serving import trained
from autobackbone.running.shared import SharedFolder
from autobackbone.training.tuner import Tuner

_ABANDONED_S = 86_400.0
# Of the search that this process trained for last: it is warm for the next leg.
_ready: dict[str, Tuner] = {}


def train(setup_text: str, order_text: str) -> str:
    """Train one leg.

    Args:
        setup_text: `token`, which names the search; `folder` of its set-up; and `shared`, the address of the folder
            through which all goes, or `null` where paths of the process that searches hold here.
        order_text: as `jobs.sent` gives it, with `end_at`: seconds since 1970 at which it has to have ended, however
            often it is begun; `null` for never.

    Returns:
        The answer, with the folder of its files, `attempt`.
    """
    setup, order = json.loads(setup_text), json.loads(order_text)
    end_at, tuner = order["end_at"], None
    try:
        place: _Here | _There = _Here(setup) if setup["shared"] is None else _There(setup)
        tuner = _ready.get(setup["token"])
        if tuner is None:
            _ready.clear()
            tuner = _ready[setup["token"]] = read_setup(place.setup_folder())
        with place.attempt(order) as (attempt, own):
            left_s = None if end_at is None else max(0.0, end_at - time.time())
            answer = trained(tuner, {**order, **own, "left_s": left_s})
        return json.dumps({**answer, "attempt": attempt})
    except Exception as error:  # noqa: BLE001  a bug, too, is for who gave the order
        n_measured = 0 if tuner is None else tuner.stores.record.n_measured
        if isinstance(error, WeightsError):  # this machine lacks them, and not the one that searches
            error = TrialError(str(error))
        told = {"is": "failed", "n_measured": n_measured, "attempt": None, "was_ready": tuner is not None}
        return json.dumps({**told, **facts_of(error)})


class _Here:
    """Paths of the process that searches hold on this machine."""

    def __init__(self, setup: Mapping[str, Any]) -> None:
        self._folder = Path(setup["folder"])

    def setup_folder(self) -> Path:
        return self._folder

    @contextmanager
    def attempt(self, order: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Give the folder of one attempt, and what of the order is otherwise for it."""
        job = Path(order["folder"])
        attempt = job / f"attempt-{secrets.token_hex(8)}"
        with told_of_disk(job):
            attempt.mkdir()
            for name in order["files"]:
                shutil.copyfile(job / name, attempt / name)
        yield str(attempt), {"folder": str(attempt)}


class _There:
    """What is needed comes from a shared folder into this machine's cache, and what comes out goes back to it."""

    def __init__(self, setup: Mapping[str, Any]) -> None:
        self._shared = SharedFolder(setup["shared"])
        self._token: str = setup["token"]
        self._cache: Path = cache_folder()
        self._own: Path = self._cache / "cluster" / self._token
        # Of this process alone: others of this machine fetch it, too, at any time.
        self._setup: Path = self._own / f"setup-{os.getpid()}"

    def setup_folder(self) -> Path:
        """Fetch what is known of the search; paths in it are then this machine's."""
        self._remove_abandoned()
        folder = self._setup
        with told_of_disk(self._own):
            folder.mkdir(parents=True, exist_ok=True)
            for name in self._shared.names(f"{self._token}/setup"):
                self._shared.get(name, folder / Path(name).name)
        facts: dict[str, Any] = json.loads((folder / SETUP).read_text(encoding="ascii"))
        for name, one in facts["weights"].items():
            if one["path"] is not None:  # fetched when it is first needed
                one["path"] = str(self._own / "weights" / f"{name}{Path(one['path']).suffix}")
        facts["bundle"]["root"] = str(self._cache / "data" / facts["bundle"]["root"])
        facts["cache"]["folder"] = str(self._cache / "activations")
        write_text(folder / SETUP, json.dumps(facts))
        return folder

    def _fetch_weights(self, backbone: str) -> None:
        facts = json.loads((self._setup / SETUP).read_text(encoding="ascii"))
        path = facts["weights"][backbone]["path"]
        if path is not None and not Path(path).is_file():
            Path(path).parent.mkdir(exist_ok=True)
            self._shared.get(f"{self._token}/weights/{backbone}", Path(path))

    @contextmanager
    def attempt(self, order: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Fetch what an order needs, and bring back what comes out."""
        number, name = order["number"], f"attempt-{secrets.token_hex(8)}"
        there = f"{self._token}/jobs/{number}"
        here = self._own / f"job-{number}-{name}"
        leg, checkpoint = None if order["leg"] is None else dict(order["leg"]), None
        try:
            with told_of_disk(self._cache):
                here.mkdir(parents=True)
                self._fetch_pixels(order)
                self._fetch_weights(order["candidate"]["backbone"])
                for file in order["files"]:
                    self._shared.get(f"{there}/{file}", here / file)
                if leg is not None:
                    # Always the same for one trial: what was kept warm for its next leg goes by it.
                    checkpoint = self._own / "checkpoints" / order["checkpoint"]
                    checkpoint.parent.mkdir(exist_ok=True)
                    checkpoint.unlink(missing_ok=True)
                    leg["checkpoint"] = str(checkpoint)
                    if leg["n_before"] > 0:
                        self._shared.get(f"{there}/{checkpoint.name}", checkpoint)
            yield name, {"folder": str(here), "leg": leg}
            for file in JOB_FILES:
                if (here / file).is_file():
                    self._shared.put(here / file, f"{there}/{name}/{file}")
            if checkpoint is not None and order["leg"]["pause_at"] is not None and checkpoint.is_file():
                self._shared.put(checkpoint, f"{there}/{name}/{checkpoint.name}")
        finally:
            shutil.rmtree(here, ignore_errors=True)
            if checkpoint is not None:
                checkpoint.unlink(missing_ok=True)

    def _fetch_pixels(self, order: Mapping[str, Any]) -> None:
        size = order["candidate"]["image_size"]
        root = self._cache / "data" / order["pixels"]
        root.mkdir(parents=True, exist_ok=True)
        for file in pixels_files(root, (size[0], size[1])):  # the one that says that the other is whole comes last
            if not file.is_file():
                self._shared.get(f"data/{root.name}/{file.name}", file)

    def _remove_abandoned(self) -> None:
        """Remove what searches that ended a day ago or earlier left here: nobody else could."""
        for folder in self._own.parent.glob("*"):
            with suppress(OSError):
                if folder != self._own and time.time() - folder.stat().st_mtime > _ABANDONED_S:
                    shutil.rmtree(folder, ignore_errors=True)

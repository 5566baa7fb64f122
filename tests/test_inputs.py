"""Forms of datasets through whole searches: what a run notes of them, and how it goes on."""

from __future__ import annotations

import gc
import io
import json
import tarfile
import time

import numpy as np
import pytest
from PIL import Image
from tests.conftest import TINY, make_pictures

from autobackbone import Budget, open_run, select_backbone
from autobackbone.errors import ArgumentError, DataError, RunError

X, Y = make_pictures(n_per_class=30)
FIXED = {"backbones": TINY, "image_sizes": [32], "progress": False, "space": {"n_unfrozen": 0}}


def stream():
    yield from zip(X, Y, strict=True)


def search(dataset, folder, weights, budget=Budget(n_trials=0)):  # noqa: B008  frozen
    return select_backbone(
        dataset, budget, run_dir=folder / "run", cache_dir=folder / "cache", weights={TINY: weights}, **FIXED
    )


@pytest.fixture(scope="module")
def weights(random_weights):
    return random_weights(TINY)


class Told:
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.details: list[str] = []

    def say(self, line: str) -> None:
        pass

    def stage(self, name: str) -> None:
        self.stages.append(name)

    def progress(self, share: float, detail: str) -> None:
        self.details.append(detail)

    def close(self) -> None:
        pass


@pytest.mark.slow
def test_a_run_on_what_comes_once_goes_on_with_the_same_alone(tmp_path, weights):
    first = search(stream, tmp_path, weights)
    facts = json.loads((first.path / "run.json").read_text())
    assert facts["dataset"] is None
    assert facts["n_streamed"] is None
    again = first.more(Budget(n_trials=0), cache_dir=tmp_path / "cache", progress=False)  # the function makes it anew
    assert [one.score for one in again.trials] == [one.score for one in first.trials]
    opened = open_run(first.path)
    go_on = {"cache_dir": tmp_path / "cache", "progress": False}
    with pytest.raises(ArgumentError, match=r"holds no path to its pictures, .* give dataset="):
        opened.more(Budget(n_trials=0), **go_on)
    with pytest.raises(RunError, match="dataset has changed since"):
        opened.more(Budget(n_trials=0), dataset=lambda: zip(X[::-1], Y[::-1], strict=True), **go_on)
    spent = stream()
    assert len(list(spent)) == len(X)
    with pytest.raises(DataError, match=r"gave none\. What can be gone through only once is empty afterwards"):
        opened.more(Budget(n_trials=0), dataset=spent, **go_on)
    gc.collect()  # the frames of an error may hold what it was about
    assert not any((tmp_path / "cache" / "spool").iterdir())


@pytest.mark.slow
def test_paths_of_shards_by_part_are_noted_and_found_again(tmp_path, weights, monkeypatch):
    def write(name, indices):
        with tarfile.open(tmp_path / name, "w") as archive:
            for index in indices:
                file = io.BytesIO()
                Image.fromarray(X[index]).save(file, "PNG")
                for suffix, content in (("png", file.getvalue()), ("cls", str(Y[index]).encode())):
                    member = tarfile.TarInfo(f"{index}.{suffix}")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))

    order = np.random.default_rng(0).permutation(len(X))
    write("a.tar", order[: len(X) // 2])
    write("b.tar", order[len(X) // 2 :])
    monkeypatch.chdir(tmp_path)
    first = search({"train": "a.tar", "test": "b.tar"}, tmp_path, weights)
    monkeypatch.chdir("/")
    facts = json.loads((first.path / "run.json").read_text())
    assert facts["dataset"] == {"train": str(tmp_path / "a.tar"), "test": str(tmp_path / "b.tar")}
    opened = open_run(first.path)
    again = opened.more(Budget(n_trials=0), cache_dir=tmp_path / "cache", progress=False)
    assert [one.score for one in again.trials] == [one.score for one in first.trials]
    assert f"dataset = {facts['dataset']!r}" in again.reproduce()


@pytest.mark.slow  # a budget of seconds
@pytest.mark.parametrize("form", [lambda pairs: pairs, lambda pairs: {"train": pairs, "test": (X, Y)}])
def test_of_what_comes_too_slowly_the_first_are_used_and_again_when_it_goes_on(form, tmp_path, weights):
    def slow():
        for index in range(1000):
            time.sleep(0.02)
            yield X[index % len(X)] ^ np.uint8(index // len(X)), Y[index % len(X)]

    def fast():
        for index in range(1000):
            yield X[index % len(X)] ^ np.uint8(index // len(X)), Y[index % len(X)]

    told = Told()
    first = select_backbone(
        form(slow),
        Budget(wall_clock_s=12, n_trials=0),
        run_dir=tmp_path / "run",
        cache_dir=tmp_path / "cache",
        weights={TINY: weights},
        **{**FIXED, "progress": told},
    )
    facts = json.loads((first.path / "run.json").read_text())
    n_streamed = facts["n_streamed"]
    assert 20 < (n_streamed["train"] if isinstance(n_streamed, dict) else n_streamed) < 300
    assert any("since more would not have come" in note for note in facts["notes"])
    assert told.stages[:2] == ["stream", "read"]
    assert any("pictures that came" in detail for detail in told.details)
    again = first.more(Budget(n_trials=0), dataset=form(fast), cache_dir=tmp_path / "cache", progress=False)
    assert len(again.trials) == len(first.trials)

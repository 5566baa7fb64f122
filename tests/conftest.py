"""Small real data and small real networks for the whole suite."""

import contextlib
import io
import os
import signal
import sys
import threading
import warnings
from types import SimpleNamespace

# Threads before torch is imported: two pools of threads on two cores cost more than they bring.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
from hypothesis import settings
from safetensors.torch import save_file
from tests.chromium import chromium  # noqa: F401  a fixture
from tests.postgres import named_servers, postgres  # noqa: F401  fixtures

# A speed is never a test: a slow or busy machine changes nothing about a law.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

TINY = "test_resnet.r160_in1k"


def make_pictures(n_per_class=14, n_classes=3, side=40, seed=0):
    """Stripes of a direction and colour that tell the class, with noise: easy, but not for an untrained head."""
    generator = np.random.default_rng(seed)
    labels = np.repeat(np.arange(n_classes), n_per_class)
    ramp = np.arange(side)
    pictures = []
    for label in labels:
        angle = np.pi * label / n_classes
        wave = np.sin((np.cos(angle) * ramp[:, None] + np.sin(angle) * ramp[None, :]) * 0.7 + generator.uniform(0, 6))
        picture = 128 + 60 * wave[..., None] + generator.normal(0, 25, (side, side, 3))
        pictures.append(picture.clip(0, 255).astype(np.uint8))
    return np.stack(pictures), labels


class Heard(io.StringIO):
    """Text that somebody hears while it is written."""

    def __init__(self, hear):
        super().__init__()
        self._hear = hear

    def write(self, text):
        self._hear(text)
        return super().write(text)


def command(*arguments, hear=lambda _: None):
    """What `autobackbone` does with arguments, in this process, which has torch loaded already: code, out and err.

    `hear` is told each piece of standard error as it comes.
    """
    from autobackbone.cli import main

    out, err = io.StringIO(), Heard(hear)
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setenv("GOMP_SPINCOUNT", "5000")  # set by the command line, and put back after it
        patch.setenv("COLUMNS", "100")
        patch.setattr(sys, "argv", ["autobackbone", *map(str, arguments)])
        with pytest.raises(SystemExit, match=r"^\d+$") as ended:
            main()
    return SimpleNamespace(code=ended.value.code, out=out.getvalue(), err=err.getvalue())


@pytest.fixture
def press_ctrl_c():
    """A function that presses it in a moment, also where the suite was begun in the background, deaf to it; or that
    sends another signal.

    An interrupt may land inside another library's `open`, between the file and the `with` that would close it.
    """
    warnings.filterwarnings("ignore", "Exception ignored in: <_io", pytest.PytestUnraisableExceptionWarning)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield lambda number=signal.SIGINT: threading.Timer(0.1, os.kill, (os.getpid(), number)).start()
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def pictures():
    return make_pictures()


@pytest.fixture(scope="session")
def random_weights(tmp_path_factory):
    """A function: a backbone's name to a local safetensors file with random weights."""
    import timm

    folder = tmp_path_factory.mktemp("weights")

    def make(name):
        file = folder / f"{name}.safetensors"
        if not file.exists():
            save_file(timm.create_model(name, pretrained=False).state_dict(), file)
        return file

    return make

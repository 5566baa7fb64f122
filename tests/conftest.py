"""Small real data and small real networks for the whole suite."""

import os

# Threads before torch is imported: two pools of threads on two cores cost more than they bring.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
from hypothesis import settings
from safetensors.torch import save_file

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

import numpy as np
import pytest
import torch
from PIL import Image
from tests.conftest import TINY

from autobackbone.backbones.build import build, normalisation
from autobackbone.data import Preparation, decode, survey
from autobackbone.exporting.transform import Transform, normalise
from autobackbone.records import Normalisation


@pytest.mark.parametrize("resize", ["squash", "pad", "crop"])
def test_the_store_and_the_transform_give_the_same_logits(tmp_path, resize):
    """On files of odd kinds, through the whole of both ways."""
    generator = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(8):
            values = generator.integers(0, 256, (37 + 9 * i, 50, 3), dtype=np.uint8)
            picture = Image.fromarray(values).convert(("RGB", "L", "CMYK", "P")[i % 4])
            picture.save(tmp_path / "photos" / name / f"{i}.{('jpg', 'png', 'tiff', 'gif')[i % 4]}")
    bundle = decode(survey(tmp_path / "photos", resize=resize), [(48, 64)], cache_dir=tmp_path / "cache")
    network = build(TINY, n_classes=2, image_size=(48, 64))
    transform = Transform(image_size=(48, 64), preparation=bundle.preparation, normalisation=normalisation(TINY))
    stored = normalise(torch.from_numpy(np.array(bundle.pixels((48, 64)))), normalisation(TINY))
    fresh = torch.stack([transform(tmp_path / "photos" / name) for name in bundle.names])
    assert torch.equal(stored, fresh)
    with torch.inference_mode():
        torch.testing.assert_close(network(stored), network(fresh), atol=1e-5, rtol=0)


def test_normalising_is_the_published_formula():
    pixels = torch.randint(0, 256, (2, 4, 5, 3), dtype=torch.uint8)
    facts = Normalisation(mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))
    expected = (pixels.float() / 255 - torch.tensor(facts.mean)) / torch.tensor(facts.std)
    torch.testing.assert_close(normalise(pixels, facts), expected.permute(0, 3, 1, 2))


def test_a_transform_survives_json():
    given = Transform(
        image_size=(96, 128),
        preparation=Preparation(resize="pad", value_range=(0.0, 4095.0), channels=(2, 1, 0)),
        normalisation=Normalisation(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), interpolation="bilinear"),
    )
    assert Transform.from_json(given.to_json()) == given

import numpy as np
import pytest
import torch
from PIL import Image

from autobackbone.backbones.build import build, normalisation
from autobackbone.backbones.head import features
from autobackbone.data import decode, survey
from autobackbone.records import Body
from autobackbone.screening import fair_order, screen
from autobackbone.training.activations import ActivationCache
from autobackbone.training.stores import Stores

NET, SIZE, CPU = "test_efficientnet.r160_in1k", (64, 64), torch.device("cpu")
BODY = Body(NET, SIZE)


class Source:
    """Random weights, the same ones for the same name."""

    def network(self, backbone, image_size, n_blocks_kept=None):
        return build(backbone, n_classes=3, image_size=image_size, seed=0, n_blocks_kept=n_blocks_kept)

    def normalisation(self, backbone):
        return normalisation(backbone)

    def weights_digest(self, backbone):
        return backbone


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 256, (20, 20, 3), np.uint8)) for _ in range(90)]
    return decode(survey((pictures, [0, 1, 2] * 30)), [SIZE], cache_dir=tmp_path_factory.mktemp("cache"))


@pytest.fixture
def stores(bundle, tmp_path):
    cache = ActivationCache(folder=tmp_path / "activations", max_bytes=10**9)
    return Stores(bundle=bundle, source=Source(), cache=cache, device=CPU, seed=0)


def screened_with(stores, depths, kept=(), **given):
    network = stores.source.network(NET, SIZE)
    cuts = stores.cuts(network, BODY, kept)
    with stores.filling(network, BODY, depths, cuts) as taps:
        assert len(taps) == len(depths) + len(kept)
        return screen(network, stores.bundle, SIZE, normalisation(NET), seed=0, device=CPU, taps=taps, **given)


def test_the_pass_of_screening_leaves_the_stores_that_training_would_make(stores, bundle, tmp_path):
    screened = screened_with(stores, (1, 3))
    alone = screen(stores.source.network(NET, SIZE), bundle, SIZE, normalisation(NET), seed=0, device=CPU)
    np.testing.assert_allclose(screened.predictions, alone.predictions, atol=1e-4)
    anew = Stores(
        bundle=bundle,
        source=Source(),
        cache=ActivationCache(folder=tmp_path / "anew", max_bytes=10**9),
        device=CPU,
        seed=0,
    )
    for depth in (1, 3):
        assert stores.is_stored(BODY, depth)
        split = stores.split(stores.source.network(NET, SIZE), BODY, depth)
        (given,) = stores.views(split, BODY, depth, n_views=1, until=0.0)  # no time to compute anything
        (made,) = anew.views(split, BODY, depth, n_views=1, until=None)
        np.testing.assert_allclose(given.astype(np.float32), made.astype(np.float32), atol=2e-3)
    assert not stores.is_stored(BODY, 2)


def test_the_pass_of_screening_leaves_the_features_of_cut_networks(stores, bundle):
    screened_with(stores, (1,), kept=(2, 4))
    look, order = stores._look(BODY), fair_order(bundle, seed=0)
    for n_kept in (2, 4):
        body = BODY._replace(n_blocks_kept=n_kept)
        with torch.no_grad():
            wanted = features(stores.source.network(*body), look(order)).numpy()
        np.testing.assert_allclose(stores.features(body), wanted, rtol=1e-3, atol=1e-4)
    assert stores.features(BODY._replace(n_blocks_kept=3)) is None
    # They are not the activations of another body at another depth.
    assert not stores.is_stored(BODY._replace(n_blocks_kept=2), 1)


def test_a_cut_that_was_verified_is_made_again_without_a_proof(stores, bundle, monkeypatch):
    network = stores.source.network(NET, SIZE)
    first = stores.split(network, BODY, 2)
    monkeypatch.setattr("autobackbone.backbones.split._fault", lambda *_: pytest.fail("it was verified again"))
    again = stores.split(stores.source.network(NET, SIZE), BODY, 2)
    assert again.entry == first.entry
    x = stores._look(BODY)(bundle.indices("train")[:4])
    with torch.no_grad():
        torch.testing.assert_close(again.tail(again.prefix(x)), network(x), rtol=1e-3, atol=1e-4)
    with pytest.raises(pytest.fail.Exception, match="verified again"):
        stores.split(stores.source.network(NET, SIZE), BODY, 3)


def test_rows_say_where_each_picture_lies(stores, bundle):
    network = stores.source.network(NET, SIZE)
    split = stores.split(network, BODY, 2)
    views = stores.views(split, BODY, 2, n_views=2, until=None)
    train, validation = stores.rows(2)
    assert [len(view) for view in views] == [
        len(bundle.indices("train")) + len(bundle.indices("validation")),
        len(train[0]),
    ]
    look = stores._look(BODY)
    for part, places in (("train", train[0]), ("validation", validation[0])):
        wanted = split.prefix(look(bundle.indices(part))).numpy()
        np.testing.assert_allclose(views[0][places].astype(np.float32), wanted, atol=5e-3)
    # The second view shows the same picture moved: nearer to its own first view than others are, on the whole.
    own = np.abs(views[1][train[1]].astype(np.float32) - views[0][train[0]].astype(np.float32)).mean()
    other = np.abs(views[1][np.roll(train[1], 1)].astype(np.float32) - views[0][train[0]].astype(np.float32)).mean()
    assert 0 < own < other


def test_a_pass_that_ends_early_leaves_no_store(stores):
    screened_with(stores, (1,), until=0.0)
    assert not stores.is_stored(BODY, 1)
    assert list(stores.cache.folder.iterdir()) == []


def test_without_room_for_a_store_the_pass_goes_on(bundle, tmp_path):
    cache = ActivationCache(folder=tmp_path / "none", max_bytes=1)
    stores = Stores(bundle=bundle, source=Source(), cache=cache, device=CPU, seed=0)
    assert screened_with(stores, (1, 2)).n_train == len(bundle.indices("train"))
    assert list(cache.folder.iterdir()) == []


def test_a_moved_view_is_the_same_however_much_was_looked_at_before(stores):
    first, often = stores._look(BODY, view=1), stores._look(BODY, view=1)
    some = np.arange(4)
    for _ in range(3):
        often(np.arange(7))
    assert torch.equal(first(some), often(some))
    assert not torch.equal(first(some), stores._look(BODY, view=2)(some))
    assert not torch.equal(first(some), stores._look(BODY)(some))


def test_validation_rows_of_another_precision_are_another_store(stores, bundle):
    half = Stores(bundle=bundle, source=Source(), cache=stores.cache, device=CPU, seed=0, precision="bfloat16")
    screened_with(half, (1,))
    assert half.is_stored(BODY, 1)
    assert not stores.is_stored(BODY, 1)


def test_a_damaged_store_is_filled_anew(stores):
    screened_with(stores, (1,), kept=(2,))
    for file in stores.cache.folder.glob("*.npy"):
        file.write_bytes(b"damaged")
    stores.cache.in_use.clear()
    screened_with(stores, (1,), kept=(2,))
    assert stores.is_stored(BODY, 1)
    assert stores.features(BODY._replace(n_blocks_kept=2)) is not None

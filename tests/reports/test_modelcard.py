"""A model card tells what a run knows, to the hub and to people, and nothing that a run says is Markdown in it."""

from dataclasses import replace

import pytest
import timm
from huggingface_hub import ModelCard
from tests.conftest import TINY, command
from tests.reports.conftest import CLASSES

from autobackbone.errors import ArgumentError
from autobackbone.reports.modelcard import model_card


@pytest.fixture
def whole(selection):
    """The frozen network, which timm builds; the front may be of cut ones."""
    return next(one for one in selection.trials if one.n_blocks_kept is None and one.n_unfrozen == 0)


def test_the_hub_reads_what_it_asks_for(selection):
    data = ModelCard(model_card(selection._seen, selection.best)).data
    cfg = timm.get_pretrained_cfg(TINY)
    assert (data.library_name, data.pipeline_tag) == ("timm", "image-classification")
    assert (data.license, data.base_model) == (cfg.license, cfg.hf_hub_id)
    (result,) = data.eval_results
    assert (result.metric_type, result.metric_value, result.dataset_split) == (
        "accuracy",
        selection.best.test_score,
        "test",
    )


def test_where_no_test_part_confirms_it_the_validation_part_stands_there(selection):
    trial = replace(selection.best, test_score=None)
    (result,) = ModelCard(model_card(selection._seen, trial)).data.eval_results
    assert (result.metric_value, result.dataset_split) == (trial.score, "validation")


def test_a_licence_that_the_hub_does_not_know_is_named(selection, monkeypatch):
    from autobackbone.reports import modelcard

    cfg = timm.get_pretrained_cfg(TINY)
    monkeypatch.setattr(modelcard, "pretrained_cfg", lambda _: type(cfg)(license="faire", hf_hub_id=None))
    card = ModelCard(model_card(selection._seen, selection.best))
    assert (card.data.license, card.data.license_name, card.data.base_model) == ("other", "faire", None)
    assert "faire (licence faire: commercial use not known to be allowed)" in card.text


def test_people_read_scores_front_digest_and_licence(selection):
    text = ModelCard(model_card(selection._seen, selection.best)).text
    assert f"accuracy {100 * selection.best.test_score:.1f} % (95 % interval" in text
    assert text.count("| this |") == 1
    assert sum(f"trial {one.number} (" in text for one in selection.front) == len(selection.front)
    assert selection._facts["data_digest"] in text
    assert str(selection.path.parent) not in text


def test_names_of_classes_stand_in_code_alone(selection):
    text = model_card(selection._seen, selection.best)
    lines = [line for line in text.splitlines() if "onerror" in line or "svg" in line or "7 * 7" in line]
    assert len(lines) == len(CLASSES)
    assert all(line.startswith('    "') for line in lines)
    assert text.isascii() or "\u202e" not in text


def test_what_a_run_says_is_no_markdown(selection):
    seen = selection._seen
    seen.facts["versions"] = {"torch": "2 [here](javascript:x)\n# <b>title</b>"}
    text = model_card(seen, selection.best)
    assert r"torch 2 \[here\](javascript:x)\\n\# \<b\>title\</b\>" in text


def test_it_lies_beside_the_network(selection, whole, tmp_path):
    folder = selection.to_timm(tmp_path / "network", whole, model_card=True).path
    assert {file.name for file in folder.iterdir()} == {"model.safetensors", "config.json", "README.md"}
    assert (folder / "README.md").read_text(encoding="utf-8") == model_card(selection._seen, whole)
    (folder / "README.md").unlink()
    (folder / "README.md").mkdir()
    with pytest.raises(ArgumentError, match=r"cannot write to .*Name a folder that can be written"):
        selection.to_timm(folder, whole, model_card=True)


def test_the_command_line_writes_one_with_timms_folder_alone(selection, whole, tmp_path):
    number = str(whole.number)
    done = command("export", selection.path, tmp_path / "a", "--format", "timm", "--model-card", "--trial", number)
    assert (done.code, done.err) == (0, "")
    assert (tmp_path / "a" / "README.md").is_file()
    refused = command("export", selection.path, tmp_path / "b.onnx", "--model-card")
    assert refused.code != 0
    assert "--model-card is for --format timm; 'onnx' came" in refused.err

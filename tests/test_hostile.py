"""Run folders from others are data: whatever they say, nothing of it is run, and nothing is written outside of them."""

from __future__ import annotations

import ast
import json
import pickle
import re
import shutil
import socket
import sqlite3
import sys
import tracemalloc
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.conftest import TINY, command, make_pictures

from autobackbone import Budget, OwnBackbone, open_run, select_backbone
from autobackbone.costrecord import CostRecord, read_costs
from autobackbone.errors import ArgumentError, AutobackboneError, RunError, WeightsError
from autobackbone.loading import OWN_BACKBONES
from autobackbone.metrics import is_free_of_code
from autobackbone.progress import Silent
from autobackbone.runfolder import RunFolder
from autobackbone.search import trialfiles
from autobackbone.selection import Selection
from autobackbone.servers import as_server, remember
from autobackbone.settings import IN_MEMORY

CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
NASTY = "\x1b[2J\x1b]0;owned\x07<script>alert(1)</script> [red] **bold** $\\frac{$ \u202eevil\r"


class Evil:
    """Touches a file where it is unpickled."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return open, (self.marker, "w")


def arguments(folder, weights):
    return {
        "backbones": TINY,
        "image_sizes": [32],
        "weights": weights,
        "cache_dir": folder / "cache",
        "space": {"n_epochs": 8, "n_blocks_kept": None},
        "progress": False,
    }


class Leaves(Silent):
    """Presses Ctrl-C at the first pause."""

    def say(self, line):
        if "paused after epoch 1 of 8" in line:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def searched(tmp_path_factory, random_weights):
    """A run with a frozen network and a training that pauses."""
    folder = tmp_path_factory.mktemp("searched")
    given = arguments(folder, random_weights(TINY)) | {"progress": Leaves()}
    return select_backbone(make_pictures(), Budget(n_trials=1), run_dir=folder / "run", **given)


@pytest.fixture
def run(searched, tmp_path):
    """A copy of it, to be made hostile."""
    return Path(shutil.copytree(searched.path, tmp_path / "run"))


@pytest.fixture
def marker(tmp_path):
    """A file that is there once code ran."""
    yield tmp_path / "marker"
    assert not (tmp_path / "marker").exists(), "code ran"


def edit(run, **facts):
    file = run / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | facts))


def frozen_of(run):
    return next(trial for trial in open_run(run).trials if trial.n_unfrozen == 0)


def in_study(run, statement, *values):
    with closing(sqlite3.connect(run / "study.db")) as study, study:
        assert study.execute(statement, values).rowcount > 0


def edit_facts(run, **facts):
    """Of the first trial."""
    with closing(sqlite3.connect(run / "study.db")) as study, study:
        select = "SELECT trial_id, value_json FROM trial_user_attributes WHERE key = 'facts' ORDER BY trial_id"
        trial, text = study.execute(select).fetchone()
        update = "UPDATE trial_user_attributes SET value_json = ? WHERE trial_id = ? AND key = 'facts'"
        study.execute(update, (json.dumps(json.loads(text) | facts), trial))


def test_the_pickle_that_the_others_bring_does_run_where_it_is_loaded(tmp_path):
    pickle.loads(pickle.dumps(Evil(tmp_path / "made"))).close()
    assert (tmp_path / "made").exists()


def as_pickle(file, marker):
    file.write_bytes(pickle.dumps(Evil(marker), protocol=2))


def as_torch(file, marker):
    torch.save({"weight": Evil(marker), "state_dict": {}}, file)


def as_numpy(file, marker):
    with file.open("wb") as opened:
        np.save(opened, np.array([Evil(marker)], dtype=object), allow_pickle=True)


def as_archive(file, marker):
    with file.open("wb") as opened:
        np.savez(opened, evil=np.array([Evil(marker)], dtype=object), allow_pickle=True)


@pytest.mark.parametrize("made", [as_pickle, as_torch, as_numpy, as_archive])
def test_no_file_of_a_trial_is_unpickled(run, marker, made):
    frozen = frozen_of(run)
    folder = run / "trials" / f"{frozen.number:04d}"
    reads = {
        "weights.safetensors": lambda result: result.model(frozen),
        "head.safetensors": lambda result: result.model(frozen),
        "validation.npy": lambda result: result._reader.predictions(frozen, "validation"),
        "out_of_fold.npy": lambda result: result.suspects(),
        "folds.npy": lambda result: result.best,
    }
    reads = {name: read for name, read in reads.items() if (folder / name).is_file()}
    assert reads.keys() > {"head.safetensors", "validation.npy"}
    for name, read in reads.items():
        kept = (folder / name).read_bytes()
        weights = folder / "weights.safetensors"
        hidden = weights.read_bytes() if name == "head.safetensors" and weights.is_file() else None
        if hidden is not None:  # a head alone is read where nothing else is there
            weights.unlink()
        made(folder / name, marker)
        with pytest.raises(RunError, match=re.escape(name) + "' is damaged: "):
            read(open_run(run))
        assert not marker.exists()
        (folder / name).write_bytes(kept)
        if hidden is not None:
            weights.write_bytes(hidden)


@pytest.mark.parametrize("made", [as_pickle, as_torch])
def test_no_checkpoint_is_unpickled(run, marker, made, random_weights, tmp_path):
    (checkpoint,) = run.glob("trials/*/checkpoint.ckpt")
    made(checkpoint, marker)
    again = select_backbone(
        make_pictures(), Budget(n_trials=1), run_dir=run, **arguments(tmp_path, random_weights(TINY))
    )
    (tuned,) = [trial for trial in again.trials if trial.n_unfrozen > 0]
    assert "it cannot go on: its checkpoint " in tuned.reason


@pytest.mark.parametrize("made", [as_pickle, as_torch])
@pytest.mark.parametrize("place", ["evil.pth", "../evil.safetensors", "../../etc/evil.bin"])
def test_weights_that_a_run_names_are_read_as_tensors_or_not_at_all(run, marker, made, place):
    file = (run / place).resolve()
    file.parent.mkdir(exist_ok=True)
    made(file, marker)
    frozen = frozen_of(run)
    (run / "trials" / f"{frozen.number:04d}" / "weights.safetensors").unlink(missing_ok=True)
    for named in (str(file), str(run / place)):
        edit(run, weights=named)
        with pytest.raises(WeightsError, match="cannot be read as weights"):
            open_run(run).model(frozen)
    edit(run, weights="/nowhere/at/all")
    with pytest.raises(WeightsError, match="does not exist"):
        open_run(run).model(frozen)


def test_no_metric_that_a_run_names_is_imported_or_called(run, marker, monkeypatch):
    (run / "evil_metric.py").write_text(f"open({str(marker)!r}, 'w')\ndef made(): pass\n")
    monkeypatch.syspath_prepend(run)
    monkeypatch.chdir(run)
    call = json.dumps({"command": f"touch {marker}"})
    for named in (
        f"os:system {call}",
        f"subprocess:getoutput {json.dumps({'cmd': f'touch {marker}'})}",
        "evil_metric:made",
        'evil_metric {"a:b": 1}',
        "evil_metric:made.real",
        f"builtins:open {json.dumps({'file': str(marker), 'mode': 'w'})}",
        f"torchmetrics:os.system {call}",
        f"torchmetrics.utilities.imports:os.system {call}",
        'torchmetrics.image.fid:FrechetInceptionDistance {"feature_extractor_weights_path": "evil.pth"}',
        "torchmetrics:MetricCollection",
        "torchmetrics.no_such_room:Metric",
    ):
        edit(run, metric=named)
        result = open_run(run)
        for read in (Selection.best.fget, Selection.trials.func, lambda result: result.model(0)):
            with pytest.raises(RunError, match=r"which is code, and may do anything.*open_run.*--metric"):
                read(result)
        assert re.search(r"^Selection in '.*': .*which is code, and may do anything", repr(result))
        shown = command("show", run)
        assert shown.code == 1
        assert "a run folder does not start it by itself" in shown.err
    assert "evil_metric" not in sys.modules


@pytest.mark.parametrize("name", ["evil_backbone:made", TINY])
def test_no_backbone_that_a_run_names_is_imported(run, marker, monkeypatch, name):
    """Neither by its name, nor as one of the user's own, be it in the place of one of timm's."""
    (run / "evil_backbone.py").write_text(f"open({str(marker)!r}, 'w')\ndef made(): pass\n")
    monkeypatch.syspath_prepend(run)
    monkeypatch.chdir(run)
    sizes = [[name, of] for _, of in json.loads((run / "run.json").read_text())["image_sizes"]]
    noted = {name: OwnBackbone(factory="evil_backbone:made", name=name).to_json()}
    for facts in ({OWN_BACKBONES: noted}, {OWN_BACKBONES: noted, "image_sizes": sizes}):
        edit(run, **facts)
        with pytest.raises(RunError, match=r"is code, and may do anything.*open_run\(…, backbones=…\)"):
            open_run(run).more(Budget(n_trials=1), dataset=make_pictures(), progress=False)
    if name == TINY:
        with pytest.raises(RunError, match="is code, and may do anything"):
            open_run(run).model(0)
    lines = open_run(run).reproduce().splitlines()
    assert all(line.startswith("#") for line in lines if "evil_backbone" in line)
    edit(run, **{OWN_BACKBONES: [name]})
    with pytest.raises(RunError, match="'own_backbones' must be a mapping of names to mappings"):
        open_run(run)
    assert "evil_backbone" not in sys.modules


def test_a_metric_that_the_user_vouches_for_is_run(run, tmp_path, monkeypatch):
    (tmp_path / "own_metric.py").write_text(
        "from torchmetrics.classification import MulticlassAccuracy\n"
        "class Twice(MulticlassAccuracy): pass\n"
        "def made(): return Twice(num_classes=3, average='micro')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    accuracy = open_run(run).metric
    edit(run, metric="own_metric:made")
    assert open_run(run, metric="own_metric:made").metric.name == "Twice"
    assert command("show", run, "--metric", "own_metric:made").code == 0
    with pytest.raises(ArgumentError, match="is scored by 'own_metric:made', and 'accuracy' came"):
        _ = open_run(run, metric="accuracy").metric
    # It is imported by now, yet a function stays one that a folder would have called.
    with pytest.raises(RunError, match="which is code"):
        _ = open_run(run).metric
    spec = 'own_metric:Twice {"num_classes": 3, "average": "micro"}'
    assert is_free_of_code(spec)
    edit(run, metric=spec)
    assert open_run(run).metric.name == "Twice"
    assert accuracy.name == "accuracy"


@pytest.mark.parametrize(
    "named",
    [
        "accuracy",
        "torchmetrics:MeanSquaredError",
        'torchmetrics.regression.minkowski:MinkowskiDistance {"p": 3}',
        "torchmetrics.classification:MulticlassAccuracy",
    ],
)
def test_metrics_that_only_compute_need_nobodys_word(named):
    assert is_free_of_code(named)


@pytest.fixture
def listener():
    """A server's door, and nobody may have knocked."""
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        door.listen()
        door.settimeout(0)
        yield f"postgresql://127.0.0.1:{door.getsockname()[1]}/optuna"
        with pytest.raises(BlockingIOError, match=r"temporarily unavailable|would block"):
            door.accept()


def test_no_server_that_a_run_names_is_connected_to(
    run, listener, named_servers, random_weights, tmp_path, monkeypatch
):
    monkeypatch.setenv("PGPASSWORD", "hunter2")
    given = arguments(tmp_path, random_weights(TINY))
    assert remember(as_server("postgresql://127.0.0.1:1/optuna"))  # another one is the user's own
    edit(run, storage={"server": listener, "study": "autobackbone-0123456789ab"})
    uses = (
        lambda: open_run(run).trials,
        lambda: open_run(run).best,
        lambda: open_run(run).model(0),
        lambda: open_run(run).more(Budget(n_trials=1), dataset=make_pictures(), cache_dir=given["cache_dir"]),
        lambda: select_backbone(make_pictures(), Budget(n_trials=1), run_dir=run, **given),
    )
    for use in uses:
        with pytest.raises(
            RunError, match=r"which you have not named on this machine; .*open_run.*storage=.*--storage"
        ):
            use()
    more = {"predict": [tmp_path], "pick": ["--prefer", "speed"]}
    for asked in ("show", "predict", "reproduce", "pick", "ensemble"):
        refused = command(asked, run, *more.get(asked, ()))
        assert refused.code == 1
        assert "a run folder has nobody connected to by itself" in refused.err
        assert "hunter2" not in refused.err


@pytest.mark.parametrize(
    "noted",
    [
        3,
        "postgresql://h/db",
        [],
        {},
        {"server": 3, "study": "autobackbone-0123456789ab"},
        {"server": None, "study": "autobackbone-0123456789ab"},
        {"server": "sqlite:////etc/passwd", "study": "autobackbone-0123456789ab"},
        {"server": "postgresql://h/db?service=x", "study": "autobackbone-0123456789ab"},
        {"server": "postgresql://h/db", "study": "autobackbone"},
        {"server": "postgresql://h/db", "study": "somebody else's"},
        {"server": "postgresql://h/db", "study": ["autobackbone-0123456789ab"]},
        {"server": "postgresql://h/db"},
    ],
)
def test_what_a_run_says_of_its_server_is_checked(run, named_servers, noted):
    assert remember(as_server("postgresql://h/db"))
    edit(run, storage=noted)
    with pytest.raises(RunError, match="'storage' must be null, or tell the server and the name of a study"):
        _ = open_run(run).trials


def injected(text="x"):
    return f'{text}\n__import__("pathlib").Path("marker").touch()\n#'


@pytest.mark.parametrize(
    "name", ["begun_at", "target_line", "n_cores", "python", "data_digest", "split_digest", "dataset", "label"]
)
def test_no_text_of_a_run_becomes_code_in_the_lines_that_repeat_it(run, name):
    edit(run, **{name: injected()})
    require_harmless_lines(run)


def test_no_other_part_of_a_run_becomes_code_in_these_lines(run):
    facts = json.loads((run / "run.json").read_text())
    edit(
        run,
        versions={injected("torch"): injected("2")},
        asked={injected("rare"): 1, "tolerance": injected(), "x=1, y": 2, "groups": {IN_MEMORY: injected()}},
        arguments=facts["arguments"] | {"resize": injected(), "batch_norm": injected()},
        weights={injected(): injected()},
    )
    edit_facts(run, reason=injected())
    require_harmless_lines(run)


def require_harmless_lines(run):
    try:
        lines = open_run(run).reproduce()
    except RunError as error:
        assert "is damaged" in str(error)  # noqa: PT017
        return
    calls = {ast.unparse(one.func) for one in ast.walk(ast.parse(lines)) if isinstance(one, ast.Call)}
    assert calls <= {"torch.set_num_threads", "open_run", "run.retrain"}
    kinds = {type(one) for one in ast.parse(lines).body}
    assert kinds <= {ast.Import, ast.ImportFrom, ast.Expr, ast.Assign}


@pytest.mark.parametrize("value", ["4); open('marker', 'w'", None, [1], 1e999])
def test_threads_of_another_kind_are_no_code(run, value):
    edit(run, n_torch_threads=value)
    with pytest.raises(RunError, match="what a search was asked cannot be told from it"):
        open_run(run).reproduce()


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("score", "high", "a number or null"),
        ("score", True, "a number or null"),
        ("latency_ms", [3], "a number or null"),
        ("lr", {}, "a number or null"),
        ("megabytes", 10**400, "a number or null"),
        ("image_size", [10**9, 32], "a height and a width"),
        ("image_size", ["a", "b"], "a height and a width"),
        ("backbone", "net\nevil", "a name on one line"),
        ("backbone", NASTY, "a name on one line"),
        ("backbone", 7, "a name on one line"),
        ("reason", ["x"], "a text"),
        ("n_unfrozen", -1, "a whole number"),
        ("n_blocks", "4", "a whole number"),
        ("n_blocks_kept", 1.5, "a whole number"),
        ("rung_scores", ["x"], "a list of numbers"),
        ("extras", [], "a mapping"),
        ("extras", {"scored_share": "half"}, "a mapping, its scored_share from 0 to 1"),
        ("extras", {"scored_share": 0.5, "n_validation": "[2J"}, "a mapping, its scored_share from 0 to 1"),
        ("resize", "stretch", "one of"),
    ],
)
def test_a_fact_of_a_trial_that_is_of_another_kind_is_named(run, name, value, wanted):
    edit_facts(run, **{name: value})
    with pytest.raises(RunError, match=rf"study\.db' is damaged: '{name}' of trial 0 must be {wanted}.* came"):
        _ = open_run(run).trials


@pytest.mark.parametrize(
    "value",
    [
        '"a text"',
        "[1, 2]",
        "7",
        "null",
        "{",
        "[" * 100_000,
        '{"image_size": 5}',
        '{"image_size": [32]}',
        '{"number": 1}',
        "1" * 5000,
    ],
)
def test_facts_that_are_none_are_told(run, value):
    in_study(run, "UPDATE trial_user_attributes SET value_json = ? WHERE key = 'facts'", value)
    with pytest.raises(RunError, match=r"study\.db' is damaged: "):
        _ = open_run(run).trials


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("number", "../../x"),
        ("number", "0/../../x"),
        ("state", "EVIL"),
        ("datetime_start", "yesterday"),
        ("number", -1),
    ],
)
def test_columns_of_the_study_that_hold_something_else_are_told(run, column, value):
    in_study(run, f"UPDATE trials SET {column} = ? WHERE number = 0", value)
    with pytest.raises(RunError, match=r"study\.db' is damaged: "):
        _ = open_run(run).trials


@pytest.mark.parametrize("key", ["latencies", "test_scores", "fold_scores"])
@pytest.mark.parametrize("value", ["[1]", '"x"', '{"0": 5}', '{"0": ["x", "y", "z"]}'])
def test_notes_of_the_study_that_are_none_are_told_or_passed_over(run, key, value):
    insert = "INSERT OR REPLACE INTO study_user_attributes (study_id, key, value_json) VALUES (1, ?, ?)"
    in_study(run, insert, key, value)
    try:
        trials = open_run(run).trials
    except RunError as error:
        assert "study.db' is damaged" in str(error)  # noqa: PT017
    else:
        assert trials


@pytest.mark.parametrize(
    "text",
    [
        '{"format_version": 1e999}',
        '{"format_version": NaN}',
        '{"format_version": ' + "1" * 5000 + "}",
        "[" * 100_000,
        '{"format_version": 1, "arguments": ' + '{"a":' * 50_000,
        "\ufeff{}",
        '{"format_version": "1\\n2"}',
    ],
    ids=["infinite", "no number", "endless", "deep", "deep inside", "marked", "text"],
)
def test_json_that_is_out_of_all_measure_is_told(run, text):
    (run / "run.json").write_text(text, encoding="utf-8")
    with pytest.raises(RunError, match=r"run\.json' cannot be read .*the run is damaged"):
        open_run(run)


@pytest.mark.parametrize(
    "preparation",
    [{"value_range": [0, 10**400]}, {"resize": [1]}, {"interpolation": NASTY}, {"channels": [-1]}, {"evil": 1}],
)
def test_a_preparation_from_elsewhere_is_told(run, preparation):
    edit(run, preparation=preparation)
    with pytest.raises(RunError, match="'preparation' cannot be read"):
        open_run(run)


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000, 1000000), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1, -24), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (" + "9" * 400 + ",), }",
        "{'descr': '|O', 'fortran_order': False, 'shape': (8, 3), }",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (4, 3), }",
        "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (8, 3), }",
        "[" * 3000,
        "__import__('os').system('touch marker')",
    ],
)
def test_an_array_whose_header_lies_is_told_and_takes_no_memory(run, header):
    text = header.encode()
    file = run / "trials" / "0000" / "validation.npy"
    file.write_bytes(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + b"\0" * 96)
    tracemalloc.start()
    try:
        with pytest.raises(RunError, match=r"validation\.npy' is damaged: "):
            trialfiles.load_predictions(RunFolder(path=run), 0, "validation.npy")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10_000_000
    assert not Path("marker").exists()


@pytest.mark.parametrize("content", [b"\xff" * 64, b"", b"\x08\0\0\0\0\0\0\0{}      ", b"\x02\0\0\0\0\0\0\0{}"])
def test_tensors_that_are_none_are_told(run, content):
    frozen = frozen_of(run)
    for name in ("weights.safetensors", "head.safetensors"):
        file = run / "trials" / f"{frozen.number:04d}" / name
        kept = file.read_bytes() if file.is_file() else None
        file.write_bytes(content)
        (file.parent / "weights.safetensors").unlink() if name.startswith("head") else None
        with pytest.raises(RunError, match=re.escape(name) + "' is damaged: "):
            open_run(run).model(frozen)
        if kept is not None:
            file.write_bytes(kept)


def test_a_head_of_another_shape_is_told(run):
    from safetensors.numpy import save_file

    frozen = frozen_of(run)
    folder = run / "trials" / f"{frozen.number:04d}"
    (folder / "weights.safetensors").unlink(missing_ok=True)
    for weight, bias in (((3,), (3,)), ((3, 96), (2,)), ((2, 96), (2,)), ((3, 7), (3,))):
        arrays = {"weight": np.zeros(weight, np.float32), "bias": np.zeros(bias, np.float32), "strength": np.ones(1)}
        save_file(arrays, folder / "head.safetensors")
        with pytest.raises(AutobackboneError, match=r"is damaged: a head has|this network takes a head"):
            open_run(run).model(frozen)


@pytest.mark.slow
def test_a_record_of_costs_without_an_end_takes_no_memory(tmp_path):
    file = tmp_path / "costs.jsonl"
    with file.open("wb") as opened:
        opened.truncate(3 << 30)  # no block of it lies on the disk
    tracemalloc.start()
    try:
        with pytest.raises(RunError, match="line 1 is no cost"):
            read_costs(file)
        CostRecord(file=file)  # a run's own record is only passed over
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20_000_000
    file.write_text("[" * 100_000 + "\n")
    with pytest.raises(RunError, match="line 1 is no cost"):
        read_costs(file)


def test_labels_that_are_none_are_told(run):
    table = (run / "pictures.csv").read_text()
    for label in ("7", "0.5", "inf", "nan", "-3"):
        (run / "pictures.csv").write_text(re.sub(r"(?m)^(\d+),\d+,", rf"\1,{label},", table))
        for read in (lambda result: result.suspects(), lambda result: result.contradictions()):
            edit(run, copies=[[0, 1]])
            with pytest.raises(RunError, match=r"is damaged: |cannot be read"):
                read(open_run(run))


def test_names_from_elsewhere_are_shown_letter_by_letter_and_do_nothing(run, tmp_path):
    classes = [NASTY, "=HYPERLINK(1)\tb\nc", "\x9b31m"]
    edit(run, classes=classes, notes=[NASTY], target_line=f"cpu {NASTY}")
    edit_facts(run, reason=f"{NASTY}\nanother line")
    Image.fromarray(make_pictures()[0][0]).save(tmp_path / "a\x1b[2Jb.png")
    result = open_run(run)
    shown = [
        command("show", run),
        command("show", run, "--all"),
        command("suspects", run),
        command("predict", run, tmp_path / "a\x1b[2Jb.png", tmp_path / "no\x1b[2Jthing.png"),
        command("calibration", run),
        command("pick", run, "--prefer", "speed"),
        command("reproduce", run),
    ]
    for one in shown:
        assert not CONTROLS.search(one.out + one.err)
        assert one.out
    assert "\\x1b[2J" in "".join(one.out for one in shown)
    row = shown[3].out.splitlines()
    assert len(row) == 1
    assert len(row[0].split("\t")) == 3
    assert not CONTROLS.search(result.target + repr(result))
    # What is computed with stays as it is.
    assert result.classes == tuple(classes)
    assert result.predict(make_pictures()[0][:1])[0] in classes
    result.plot().savefig(tmp_path / "plot.png")


def outside(tmp_path):
    """A folder that is nobody's business, and what is in it."""
    folder = tmp_path / "outside"
    (folder / "0000").mkdir(parents=True)
    for name in ("weights.safetensors", "checkpoint.ckpt", ".x.part", "notes.txt"):
        (folder / "0000" / name).write_text("mine")
    (folder / "notes.txt").write_text("mine\nand not whole")
    return folder


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("trials", "."),
        ("trials/0000", "0000"),
        ("trials/0000/validation.npy", "notes.txt"),
        ("trials/0099", "0000"),
        ("costs.jsonl", "notes.txt"),
        ("front.png", "notes.txt"),
        ("study.db", "notes.txt"),
        ("study.db-journal", "notes.txt"),
        ("lock", "notes.txt"),
        ("lock.holder", "notes.txt"),
        ("run.json", "notes.txt"),
    ],
)
def test_nothing_is_written_through_a_link_that_leads_out(run, tmp_path, name, target):
    folder = outside(tmp_path)
    before, path = contents(folder), run / name
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    path.symlink_to(folder / target)
    with pytest.raises(RunError, match="is a link that leads out of the run folder to"), RunFolder(path=run).held():
        pass
    assert contents(folder) == before


def test_a_search_and_a_refit_write_nothing_through_a_link(run, tmp_path, random_weights):
    folder = tmp_path / "outside"
    shutil.move(run / "trials", folder)
    (run / "trials").symlink_to(folder)
    before = contents(folder)
    given = arguments(tmp_path, random_weights(TINY))
    with pytest.raises(RunError, match="is a link that leads out of the run folder"):
        select_backbone(make_pictures(), Budget(n_trials=1), run_dir=run, **given)
    result = open_run(run)
    assert result.best.score is not None  # who only reads may
    with pytest.warns(UserWarning, match="is not kept: .*a link that leads out of the run folder"):
        refit = result.refit(frozen_of(run), dataset=make_pictures(), cache_dir=given["cache_dir"])
    assert refit.path is None
    assert contents(folder) == before


def test_a_link_that_stays_inside_is_none_of_our_business(run):
    (run / "front.png").rename(run / "picture.png")
    (run / "front.png").symlink_to("picture.png")
    with RunFolder(path=run).held():
        assert (run / "front.png").is_file()


def test_a_link_that_leads_round_in_circles_is_told(run):
    (run / "costs.jsonl").unlink(missing_ok=True)
    (run / "costs.jsonl").symlink_to("costs.jsonl")
    with pytest.raises(RunError, match=r"cannot be read|leads out"):
        select_costs(run)


def select_costs(run):
    with RunFolder(path=run).held():
        read_costs(RunFolder(path=run).costs_file)

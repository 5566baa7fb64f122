import json
import subprocess
import sys
from datetime import UTC, datetime

import pytest

from autobackbone.errors import RunError, RunLockedError
from autobackbone.runfolder import RunFolder, cache_folder, new_run_path, remove_unfinished

# All that a run must tell.
FACTS = {
    "format_version": 1,
    "arguments": {"seed": 0},
    "classes": ["a", "b"],
    "data_digest": "12",
    "hardware": {"chip": "a chip"},
    "image_sizes": [["net", [[96, 96], [96, 128]]]],
    "limits": {"latency_ms": 5.0, "latency_p95_ms": None, "n_params": None, "megabytes": None},
    "metric": "accuracy",
    "notes": ["one picture left out"],
    "preparation": {"resize": "squash"},
    "split_digest": "34",
    "target_line": "cpu",
    "task": "classification",
    "tolerance": 0.5,
    "weights": None,
}


def test_facts_come_back_as_written(tmp_path):
    run = RunFolder(path=tmp_path)
    run.write_facts({name: value for name, value in FACTS.items() if name != "format_version"})
    assert run.read_facts() == FACTS
    assert [file.name for file in tmp_path.iterdir()] == ["run.json"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "holds no run"),
        ("{", "damaged"),
        ("[]", "damaged"),
        ("{}", "damaged"),
        (json.dumps({"format_version": 99}), "run format 99, and this version reads up to 1"),
    ],
)
def test_a_folder_without_a_readable_run_says_so(tmp_path, text, message):
    if text is not None:
        (tmp_path / "run.json").write_text(text)
    with pytest.raises(RunError, match=message):
        RunFolder(path=tmp_path).read_facts()


@pytest.mark.parametrize("name", sorted(FACTS.keys() - {"format_version"}))
def test_a_fact_that_is_missing_or_of_another_kind_is_named(tmp_path, name):
    others = {key: value for key, value in FACTS.items() if key != name}
    for facts, came in ((others, "it is missing"), (FACTS | {name: 3.5}, "3.5 came"), (FACTS | {name: [[]]}, "")):
        (tmp_path / "run.json").write_text(json.dumps(facts))
        if name == "tolerance" and came == "3.5 came":
            assert RunFolder(path=tmp_path).read_facts() == facts
            continue
        with pytest.raises(RunError, match=rf"run\.json' is damaged: '{name}' must be a .*{came}.*Put it back"):
            RunFolder(path=tmp_path).read_facts()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("classes", []),
        ("task", "ranking"),
        ("classes", ["a", None]),
        ("image_sizes", [["net", [96]]]),
        ("image_sizes", [["net", 96]]),
        ("image_sizes", [[5, [[96, 96]]]]),
        ("limits", {"latency_ms": "fast"}),
        ("limits", {"latency_ms": -1}),
        ("limits", {"speed": 3}),
        ("notes", "one"),
        ("tolerance", -1),
        ("tolerance", True),
        ("weights", {"net": 3}),
    ],
)
def test_a_fact_that_means_nothing_is_named(tmp_path, name, value):
    (tmp_path / "run.json").write_text(json.dumps(FACTS | {name: value}))
    with pytest.raises(RunError, match=f"'{name}' must be a .* came. Put it back"):
        RunFolder(path=tmp_path).read_facts()


@pytest.mark.parametrize(("name", "value"), [("tolerance", None), ("weights", "w.pth"), ("weights", {"net": "w.pth"})])
def test_facts_that_may_be_left_open_or_told_otherwise(tmp_path, name, value):
    (tmp_path / "run.json").write_text(json.dumps(FACTS | {name: value}))
    assert RunFolder(path=tmp_path).read_facts()[name] == value


def test_a_second_process_is_told_who_holds_the_run(tmp_path):
    code = (
        "import sys; from pathlib import Path; from autobackbone.runfolder import RunFolder\n"
        "with RunFolder(path=Path(sys.argv[1])).held(): print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline().strip() == "held"
        with pytest.raises(RunLockedError, match=f"process {other.pid}"), RunFolder(path=tmp_path).held():
            pass
        other.kill()
        other.wait()
        with RunFolder(path=tmp_path).held():  # the operating system let go
            pass


def test_a_place_that_cannot_be_written_is_an_error_that_says_what_to_do(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="Give another run_dir"), RunFolder(path=tmp_path / "file" / "run").held():
        pass


def test_new_runs_never_share_a_folder(tmp_path):
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    first = new_run_path(tmp_path, now)
    first.mkdir()
    second = new_run_path(tmp_path, now)
    assert (first.name, second.name) == ("2026-01-02_03-04-05", "2026-01-02_03-04-05_2")


def test_the_cache_folder_can_be_named(monkeypatch, tmp_path):
    monkeypatch.setenv("AUTOBACKBONE_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
    monkeypatch.delenv("AUTOBACKBONE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "autobackbone"


def test_what_a_killed_process_was_writing_is_removed(tmp_path):
    run = RunFolder(path=tmp_path)
    kept = {"trials/0001/weights.safetensors", ".hidden", ".python-3.12", ".venv3.11/bin", "notes.part", ".notes.part"}
    litter = ("trials/0001/.checkpoint.ckpt.01ab.part", ".run.json.01ab.part", ".lock.holder.01ab.part")
    for name in (*kept, *litter, ".worker/job/head.safetensors"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    with run.held():
        left = {str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file()}
    assert left - {"lock", "lock.holder"} == kept


def test_what_a_process_that_was_ended_was_writing_beside_a_file_is_removed(tmp_path):
    for name in ("a.ckpt", ".a.ckpt.01ab.part", ".ab.ckpt.01ab.part"):
        (tmp_path / name).touch()
    remove_unfinished(tmp_path / "a.ckpt")
    assert {file.name for file in tmp_path.iterdir()} == {"a.ckpt", ".ab.ckpt.01ab.part"}

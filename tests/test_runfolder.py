import json
import subprocess
import sys
from datetime import UTC, datetime

import pytest

from autobackbone.errors import RunError, RunLockedError
from autobackbone.runfolder import RunFolder, cache_folder, new_run_path


def test_facts_come_back_as_written(tmp_path):
    run = RunFolder(path=tmp_path)
    run.write_facts({"classes": ["a", "b"], "tolerance": 0.5})
    assert run.read_facts() == {"classes": ["a", "b"], "tolerance": 0.5, "format_version": 1}
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

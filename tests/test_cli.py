import subprocess
import sys

import pytest
from PIL import Image
from tests.conftest import TINY, make_pictures
from typer.testing import CliRunner

from autobackbone.cli import app

runner = CliRunner()


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for i, (picture, label) in enumerate(zip(*make_pictures(n_per_class=10, n_classes=2), strict=True)):
        (folder / f"[red]{label}").mkdir(exist_ok=True)
        Image.fromarray(picture).save(folder / f"[red]{label}" / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def command(random_weights, tmp_path_factory):
    """Run the real command in a process of its own, as users do."""
    cache = tmp_path_factory.mktemp("cache")

    def run(*arguments):
        import os

        line = [sys.executable, "-m", "autobackbone", *map(str, arguments)]
        environment = os.environ | {"AUTOBACKBONE_CACHE": str(cache)}
        return subprocess.run(line, capture_output=True, text=True, check=False, env=environment)

    options = ("--backbone", TINY, "--image-size", "32", "--weights", random_weights(TINY), "--trials", "1")
    return run, options


@pytest.fixture(scope="module")
def run_folder(command, photos, tmp_path_factory):
    run, options = command
    folder = tmp_path_factory.mktemp("runs") / "run"
    done = run("select", photos, "--budget", "30s", "--run-dir", folder, *options)
    assert done.returncode == 0, done.stderr
    return folder, done


def test_select_tells_target_front_choice_and_where_things_are(run_folder):
    folder, done = run_folder
    lines = done.stdout.splitlines()
    assert lines[0].startswith("target: cpu")
    assert "choose: trial" in done.stdout
    assert TINY in done.stdout
    assert str(folder) in done.stdout
    assert "…" not in done.stdout
    assert "expected: read" in done.stderr
    assert (folder / "front.png").is_file()


def test_show_and_predict_read_the_run(command, run_folder, photos):
    run, _ = command
    shown = run("show", run_folder[0], "--all")
    assert shown.returncode == 0, shown.stderr
    assert "a linear head on frozen features" in shown.stdout
    done = run("predict", run_folder[0], photos)
    assert done.returncode == 0, done.stderr
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert len(rows) == 20
    assert {label for _, label, _ in rows} <= {"[red]0", "[red]1"}
    assert all(0 <= float(share) <= 1 for *_, share in rows)


def test_a_dry_run_prints_the_plan_and_leaves_nothing(command, photos, tmp_path):
    run, options = command
    done = run("select", photos, "--dry-run", "--run-dir", tmp_path / "run", *options)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("target: cpu")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("select", "nowhere"), 1, "error: .*nowhere"),
        (("show", "nowhere"), 1, "holds no run"),
        (("select", ".", "--budget", "soon"), 1, "cannot read 'soon'"),
        (("select", ".", "--resize", "stretch"), 2, "stretch"),
        (("select", ".", "--image-size", "1x2x3"), 2, "image size"),
        (("nonsense",), 2, "nonsense"),
    ],
)
def test_mistakes_are_one_message_and_a_code(command, arguments, code, message):
    run, _ = command
    done = run(*arguments)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    import re

    assert re.search(message, done.stderr)


def test_help_is_light():
    code = "import sys; import autobackbone.cli; print('torch' in sys.modules or 'timm' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    helped = runner.invoke(app, ["--help"])
    assert helped.exit_code == 0
    for command in ("select", "demo", "show", "predict", "catalogue", "shortlist", "doctor"):
        assert command in helped.output


def test_the_catalogue_is_listed_written_and_drawn(tmp_path):
    listed = runner.invoke(app, ["catalogue", "--name", "resnet50", "--limit", "3"])
    assert listed.exit_code == 0
    assert "resnet50" in listed.output
    written = runner.invoke(app, ["catalogue", "--csv", str(tmp_path / "all.csv"), "--plot", str(tmp_path / "all.png")])
    assert written.exit_code == 0
    assert (tmp_path / "all.csv").read_text().count("\n") > 1500
    assert (tmp_path / "all.png").stat().st_size > 10_000


def test_the_shortlist_says_why():
    listed = runner.invoke(app, ["shortlist", "3"])
    assert listed.exit_code == 0
    assert "tf_efficientnet_lite" in listed.output

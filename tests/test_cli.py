import csv
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tests.conftest import TINY, command, make_pictures
from torchmetrics.classification import MulticlassAccuracy

from autobackbone import open_run
from autobackbone.costrecord import read_costs


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTOBACKBONE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for i, (picture, label) in enumerate(zip(*make_pictures(n_per_class=10, n_classes=2), strict=True)):
        (folder / f"[red]{label}").mkdir(exist_ok=True)
        Image.fromarray(picture).save(folder / f"[red]{label}" / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def tiny(random_weights):
    return ("--backbones", TINY, "--image-sizes", "32", "--weights", str(random_weights(TINY)))


@pytest.fixture(scope="module")
def run_folder(photos, tiny, tmp_path_factory):
    """A run made as users make it, by a process of its own, and what it said."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    line = ("select", str(photos), "--budget", "30s", "--run-dir", str(folder), "--n-trials", "1", *tiny)
    done = subprocess.run([sys.executable, "-m", "autobackbone", *line], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder, done


def test_select_tells_target_front_choice_and_where_things_are(run_folder):
    folder, done = run_folder
    lines = done.stdout.splitlines()
    assert lines[0].startswith("target: cpu")
    assert any(line.startswith("choose: trial") for line in lines)
    assert any(line.startswith("→") and TINY in line for line in lines)
    assert f"run folder: {folder}" in lines
    assert f"picture of the front: {folder / 'front.png'}" in lines
    assert (folder / "front.png").is_file()
    assert "…" not in done.stdout
    assert "expected: read" in done.stderr
    assert "[red]0 10, [red]1 10" in done.stderr


def test_show_lists_the_front_or_all_trials(run_folder):
    folder, done = run_folder
    front = command("show", folder)
    assert (front.code, front.out) == (0, done.stdout)
    every = command("show", folder, "--all")
    rows = [line for line in every.out.splitlines() if TINY in line and "finished" in line]
    assert len(rows) == len(open_run(folder).trials)
    assert "a linear head on frozen features" in every.out


def test_a_run_of_another_process_opens_after_it_was_moved_and_is_not_written(run_folder, photos, tmp_path):
    folder, done = run_folder
    moved = tmp_path / "elsewhere"
    shutil.copytree(folder, moved)
    before = {file: file.read_bytes() for file in moved.rglob("*") if file.is_file()}
    there, here = open_run(folder), open_run(moved)
    files = sorted(photos.rglob("*.png"))
    assert f"choose: trial {here.best.number} " in done.stdout
    assert list(here.predict(files)) == list(there.predict(files))
    table = pd.read_csv(moved / "pictures.csv")
    tested = [photos / name for name in table.loc[table["part"] == "test", "name"]]
    by_the_other = np.load(moved / "trials" / f"{here.best.number:04d}" / "test.npy")
    np.testing.assert_allclose(here.predict_proba(tested, calibrated=False), by_the_other, atol=0.02)
    assert {file: file.read_bytes() for file in moved.rglob("*") if file.is_file()} == before


def test_predict_walks_folders_and_agrees_with_the_library(run_folder, photos):
    folder, _ = run_folder
    done = command("predict", folder, photos)
    assert done.code == 0
    rows = [line.split("\t") for line in done.out.splitlines()]
    assert [path for path, *_ in rows] == sorted(map(str, photos.rglob("*.png")))
    assert [label for _, label, _ in rows] == list(open_run(folder).predict([path for path, *_ in rows]))
    assert all(0.5 <= float(share) <= 1 for *_, share in rows), "of two classes the likelier has half or more"


def test_predict_leaves_out_what_is_no_picture_and_says_so(run_folder, photos, tmp_path):
    good = next(photos.rglob("*.png"))
    (tmp_path / "note.png").write_text("not a picture")
    (tmp_path / "half.png").write_bytes(good.read_bytes()[:300])
    Image.fromarray(np.full((9, 9), np.nan, np.float32)).save(tmp_path / "nan.tiff")
    os.mkfifo(tmp_path / "pipe.png")
    bad = [tmp_path / name for name in ("note.png", "half.png", "gone.png", "nan.tiff", "pipe.png")]
    odd = tmp_path / os.fsdecode(b"line\n\xff.png")
    shutil.copy(good, odd)
    done = command("predict", run_folder[0], *bad, odd, good, "--csv", tmp_path / "classes.csv")
    assert done.code == 1
    assert [line.split(": ")[1] for line in done.err.splitlines()] == [*map(str, bad)]
    assert "object at" not in done.err
    with (tmp_path / "classes.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["path", "class", "probability"]
    assert [path for path, *_ in rows] == [str(tmp_path / r"line\n\xff.png"), str(good)]


def test_pick_names_the_trial_that_the_library_takes(run_folder):
    selection = open_run(run_folder[0])
    for words, wanted in (
        (("--prefer", "accuracy"), selection.select("accuracy")),
        (("--at-least", "0"), selection.fastest_at_least(0)),
        (("--max-latency-ms", "1e6", "--max-params", "1e9"), selection.best_under(1e6, n_params=1e9)),
    ):
        number, line = command("pick", run_folder[0], *words).out.rstrip("\n").split("\t")
        assert int(number) == wanted.number
        assert TINY in line
    done = command("pick", run_folder[0], "--at-least", "1.1")
    assert (done.code, done.out) == (1, "")
    assert "Limits may stand together; a word and a score stand alone." in " ".join(
        command("pick", "--help").out.split()
    )


def test_what_a_run_tells_further_is_printed(run_folder):
    selection = open_run(run_folder[0])
    assert command("ensemble", run_folder[0]).out == f"{selection.ensemble().reason}\n"
    assert command("calibration", run_folder[0]).out == f"{selection.calibration()}\n"
    assert "select_backbone(" in selection.reproduce()
    assert command("reproduce", run_folder[0]).out == f"{selection.reproduce()}\n"
    similar = command("similar", run_folder[0])
    assert similar.code == 0
    assert "training picture" in similar.out or "similarity" in similar.out


def test_refit_trains_anew_and_says_where(run_folder, photos):
    done = command("refit", run_folder[0], "--budget", "60s", "--workers", "1")
    assert done.code == 0, done.err
    *_, last = done.out.splitlines()
    assert Path(last.removeprefix("weights: ")).is_file()
    lost = command("refit", run_folder[0], "--data", photos / "nowhere")
    assert (lost.code, lost.out) == (1, "")


def test_more_goes_on_with_a_run(run_folder, tmp_path):
    shutil.copytree(run_folder[0], tmp_path / "run")
    done = command("more", tmp_path / "run", "--budget", "8s", "--workers", "1")
    assert done.code == 0, done.err
    assert "the run goes on" in done.err
    assert len(open_run(tmp_path / "run").trials) >= len(open_run(run_folder[0]).trials)
    n_tuned = sum(trial.n_unfrozen > 0 for trial in open_run(tmp_path / "run").trials)
    assert command("more", tmp_path / "run", "--budget", "60s", "--trials", "0").code == 0
    assert sum(trial.n_unfrozen > 0 for trial in open_run(tmp_path / "run").trials) == n_tuned
    assert command("more", tmp_path / "run", "--budget", "8s", "--backbones", "nonsense").code == 1


@pytest.mark.slow
def test_costs_that_a_run_has_recorded_take_the_place_of_measuring(run_folder, photos, tiny, tmp_path):
    again = ("select", photos, "--costs", run_folder[0], "--trials", "0", *tiny)
    done = command(*again, "--run-dir", tmp_path / "run")
    assert done.code == 0, done.err
    assert "not measured here" in done.err
    assert "budget: 0 trials after screening" in done.err
    first, second = (read_costs(folder / "costs.jsonl") for folder in (run_folder[0], tmp_path / "run"))
    of = next(of for of in second if of.startswith("latency of"))
    assert second[of][0] == first[of][0]
    refused = command(*again, "--budget", "1min", "--run-dir", tmp_path / "other")
    assert (refused.code, refused.out) == (1, "")
    assert "leave --budget out" in refused.err
    assert "give --trials" in command("select", photos, "--costs", run_folder[0]).err


def test_a_dry_run_prints_the_plan_and_leaves_nothing(photos, tiny, tmp_path):
    done = command("select", photos, "--dry-run", "--run-dir", tmp_path / "run", *tiny)
    assert done.code == 0
    assert done.out.startswith("target: cpu")
    assert "budget: 600 s" in done.out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("given", "budget"),
    [
        (("--trials", "3"), "3 trials after screening"),
        (("--trials", "3", "--budget", "90s"), "90 s or 3 trials after screening"),
        (("--budget", "90s"), "90 s"),
    ],
)
def test_trials_without_a_time_have_no_clock(photos, tiny, given, budget):
    done = command("select", photos, "--dry-run", *given, *tiny)
    assert done.code == 0, done.err
    assert f"budget: {budget}\n" in done.out


def test_columns_of_a_table_hold_groups_or_times(photos, tiny, tmp_path):
    files = sorted(photos.rglob("*.png"), key=lambda file: int(file.stem))
    rows = [
        {"file": str(file), "label": file.parent.name, "plant": i // 2, "taken": f"2024-05-{1 + i % 10:02}"}
        for i, file in enumerate(files)
    ]
    table = tmp_path / "labels.csv"
    pd.DataFrame(rows).to_csv(table, index=False)

    for option, known in (("--groups", "plant"), ("--times", "taken")):
        done = command("select", table, "--dry-run", option, known, *tiny)
        assert (done.code, done.out[:11]) == (0, "target: cpu"), done.err
        unknown = command("select", table, "--dry-run", option, "planet", *tiny)
        assert (unknown.code, unknown.out) == (1, "")
        assert "planet" in unknown.err
    both = command("select", table, "--dry-run", "--groups", "plant", "--times", "taken", *tiny)
    assert "leave one of them out" in both.err.lower()


def test_a_worker_needs_a_metric_that_it_can_import(photos, tiny, tmp_path, monkeypatch):
    import __main__

    monkeypatch.setattr(__main__, "make", lambda: MulticlassAccuracy(num_classes=2), raising=False)
    line = ("select", photos, "--run-dir", tmp_path / "run", "--metric", "__main__:make", "--workers", "1", *tiny)
    done = command(*line)
    assert done.code == 1
    assert "error: other processes need a metric that they can import" in done.err


def test_names_and_sizes_may_stand_in_one_list(photos, random_weights):
    names = (TINY, "test_vit.r160_in1k")
    (folder,) = {random_weights(name).parent for name in names}
    given = ("--backbone", ", ".join(names), "--image-size", "32,64x48", "--weights", folder)
    done = command("select", photos, "--dry-run", *given)
    assert done.code == 0, done.err
    assert all(f"{name} at 32, 64x48 px" in done.out for name in names)


@pytest.mark.skipif(os.name == "nt", reason="Windows has another Ctrl-C")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_print_what_there_is_and_end_with_130(photos, tiny, tmp_path, press_ctrl_c, number):
    def hear(text):
        if text.startswith("trial 0"):
            press_ctrl_c(number)

    before = signal.getsignal(signal.SIGTERM)
    line = ("select", photos, "--budget", "5min", "--run-dir", tmp_path / "run", *tiny)
    done = command(*line, hear=hear)
    assert done.code == 130
    assert "choose: trial" in done.out
    assert f"--run-dir {tmp_path / 'run'}" in done.err
    assert "Traceback" not in done.err
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("select", "nowhere"), 1, r"^error: .*nowhere"),
        (("show", "nowhere"), 1, r"^error: .*holds no run"),
        (("select", ".", "--budget", "soon"), 1, r"^error: cannot read 'soon'"),
        (("catalogue", "--name", "nosuch*"), 1, r"^error: no pre-trained backbone matches 'nosuch\*'"),
        (("catalogue", "--name", "resnet50", "--csv", "nowhere/a.csv"), 1, r"^error: cannot write 'nowhere/a.csv'"),
        (("catalogue", "--plot", "a.nosuch"), 1, r"^error: cannot write 'a.nosuch'"),
        (("select", ".", "--resize", "stretch"), 2, "stretch"),
        (("select", ".", "--image-size", "1x2x3"), 2, "image size"),
        (("select", ".", "--workers", "two"), 2, "workers"),
        (("more", "nowhere", "--workers", "-1"), 2, "workers"),
        (("select", ".", "--devices-per-trial", "0"), 2, "devices-per-trial"),
        (("select", ".", "--devices-per-trial", "2", "--workers", "0"), 1, r"^error: devices_per_trial=2 trains in"),
        (("nonsense",), 2, "nonsense"),
        (("pick", "nowhere"), 1, r"^error: pick takes --prefer, or --at-least, or limits: .*; none came"),
        (
            ("pick", "nowhere", "--at-least", "0.2", "--max-megabytes", "20"),
            1,
            r"--at-least and limits \(--max-…\) came",
        ),
        (("pick", "nowhere", "--prefer", "speed", "--max-params", "1e6"), 1, r"--prefer and limits .* came"),
        (("pick", "nowhere", "--prefer", "beauty"), 2, "beauty"),
        (("refit", "nowhere", "--on", "test"), 2, "test"),
        (("refit", "nowhere", "--workers", "-2"), 2, "workers"),
        (("ensemble", "nowhere"), 1, r"^error: .*holds no run"),
    ],
)
def test_mistakes_are_one_message_and_a_code(arguments, code, message):
    done = command(*arguments)
    assert (done.code, done.out) == (code, "")
    assert re.search(message, done.err)


def test_a_trial_that_is_not_there_is_a_mistake(run_folder, photos):
    done = command("predict", run_folder[0], photos, "--trial", "99")
    assert (done.code, done.out) == (1, "")
    assert "there is no trial 99" in done.err


def test_help_and_version_are_light():
    for words, expected in ((["--help"], "Which pre-trained network"), (["--version"], "0.")):
        code = f"import sys; from autobackbone.cli import app; app({words}, standalone_mode=False); print(*sys.modules)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert expected in done.stdout
        assert not {"torch", "timm", "optuna", "pandas", "numpy", "PIL"} & set(done.stdout.split())
    helped = command("--help")
    assert helped.code == 0
    assert all(
        word in helped.out
        for word in (
            *("select", "demo", "show", "predict", "suspects", "similar", "pick", "refit", "ensemble", "calibration"),
            *("more", "reproduce", "catalogue", "shortlist", "doctor"),
        )
    )


def test_the_catalogue_is_listed_written_and_drawn(tmp_path):
    listed = command("catalogue", "--glob", "resnet50.*", "--limit", "3")
    assert listed.code == 0
    assert sum(line.startswith("resnet50.") for line in listed.out.splitlines()) == 3
    written = command("catalogue", "--csv", tmp_path / "all.csv", "--plot", tmp_path / "all.png")
    assert written.code == 0
    assert (tmp_path / "all.csv").read_text().count("\n") > 1500
    assert (tmp_path / "all.png").read_bytes().startswith(b"\x89PNG")


def test_the_catalogue_is_filtered_by_family_and_by_what_is_here():
    listed = command("catalogue", "--family", "efficientnet", "--loadable", "--limit", "0")
    assert listed.code == 0
    names = [line.split()[0] for line in listed.out.splitlines()[3:]]
    assert "tf_efficientnet_lite0.in1k" in names
    assert command("catalogue", "--family", "nosuch").out.startswith("0 of 0 networks")


def test_the_shortlist_says_why():
    listed = command("shortlist", "3")
    assert listed.code == 0
    assert "tf_efficientnet_lite" in listed.out

"""What users hand to Lightning's trainer is checked at the door, and crosses to workers as what it is."""

import json
from fractions import Fraction

import pytest
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import CSVLogger
from tests.conftest import TINY, make_pictures

from autobackbone import Budget, open_run, plan, select_backbone
from autobackbone.errors import ArgumentError, RunError
from autobackbone.handing import NOTHING, Handed, Made, as_handed

DELTA = "datetime:timedelta"


@pytest.mark.parametrize(
    ("given", "made"),
    [
        (None, []),
        ([], []),
        (DELTA, [(DELTA, {})]),
        ((DELTA, {"hours": 1}), [(DELTA, {"hours": 1})]),
        ([DELTA, (DELTA, {"days": 2}), [DELTA, {}]], [(DELTA, {}), (DELTA, {"days": 2}), (DELTA, {})]),
        ((DELTA, DELTA), [(DELTA, {}), (DELTA, {})]),
    ],
)
def test_one_or_several_in_any_form_are_the_same(given, made):
    handed = as_handed({"precision": 32}, given, given, "fsdp")
    assert handed.callbacks == handed.loggers == tuple(Made(factory=name, arguments=of) for name, of in made)
    handed.require_crossing("workers=1 trains")
    assert Handed.from_json(json.loads(json.dumps(handed.to_json()))) == handed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"strategy": "ddp_spawn"}, "strategy is 'ddp' or 'fsdp', not 'ddp_spawn'"),
        ({"trainer_kwargs": 5}, "trainer_kwargs is a dict of arguments of Lightning's Trainer, not 5"),
        (
            {"trainer_kwargs": {"max_epochs": 3, "devices": 2}},
            r"devices, max_epochs came: .* the search decides itself",
        ),
        ({"trainer_kwargs": {"logger": True}}, r"logger came: .*arguments of their own"),
        ({"trainer_kwargs": {"accumulate_grad_batches": 0}}, "accumulate_grad_batches is a whole number from 1, not 0"),
        (
            {"trainer_kwargs": {"precision": "16-true"}},
            "precision is '32-true', '16-mixed' or 'bf16-mixed', not '16-true'",
        ),
        ({"trainer_kwargs": {"gradient_clip_val": -1}}, "gradient_clip_val is a number from 0"),
        ({"trainer_kwargs": {"gradient_clip_val": Fraction(1, 2)}}, "gradient_clip_val of trainer_kwargs are noted"),
        ({"trainer_kwargs": {"gradient_clip_algorithm": "none"}}, "gradient_clip_algorithm is 'norm' or 'value'"),
        ({"callbacks": "nosuch.module:make"}, "'nosuch.module:make' cannot be imported: No module named 'nosuch'"),
        ({"callbacks": "datetime"}, "'datetime' cannot be imported"),
        ({"loggers": "datetime:MAXYEAR"}, r"'datetime:MAXYEAR' is 9999\. Give the name of a function or a class"),
        (
            {"loggers": ("pytorch_lightning.loggers:CSVLogger", {"folder": "here"})},
            r"'pytorch_lightning.loggers:CSVLogger' takes other arguments .*missing a required argument: 'save_dir'",
        ),
        ({"loggers": True}, r"loggers takes 'package\.module:factory', .* True came"),
        ({"loggers": (DELTA, {"hours": object()})}, "with arguments by name that JSON can hold"),
        ({"loggers": [[DELTA]]}, "with arguments by name that JSON can hold"),
        (
            {"callbacks": Callback(), "workers": 1},
            r"^callbacks holds a Callback: it lives .* workers=1 trains in others",
        ),
        (
            {"loggers": [DELTA, CSVLogger("folder")], "devices_per_trial": 2},
            r"^loggers holds a CSVLogger: .* devices_per_trial=2 trains in others\. Give \('package\.module.*workers=0",
        ),
        ({"trainer_kwargs": {"profiler": object()}, "workers": 1}, r"^trainer_kwargs has profiler=<object .*workers=0"),
    ],
)
def test_what_cannot_be_handed_is_told_at_the_door(arguments, message, pictures):
    with pytest.raises(ArgumentError, match=message):
        plan(pictures, 60, **arguments)


def test_what_the_script_itself_defines_does_not_cross(monkeypatch):
    import __main__

    monkeypatch.setattr(__main__, "make", Callback, raising=False)
    handed = as_handed(None, "__main__:make", None)
    with pytest.raises(ArgumentError, match="'__main__:make', which is defined in the script"):
        handed.require_crossing("workers=1 trains")


def test_what_changes_a_training_is_noted_and_nothing_else():
    handed = as_handed({"accumulate_grad_batches": 2, "precision": "bf16-mixed", "log_every_n_steps": 7}, DELTA, None)
    assert handed.decisive() == {"accumulate_grad_batches": 2, "precision": "bf16-mixed"}
    assert (handed.accumulate, NOTHING.accumulate) == (2, 1)


@pytest.mark.slow
def test_a_run_keeps_what_changes_its_trainings(random_weights, tmp_path):
    images, classes = make_pictures(n_per_class=60)
    given = {"weights": random_weights(TINY), "cache_dir": tmp_path / "cache", "progress": False}
    run = tmp_path / "run"
    # Of numbers, which no softmax brings back to full precision before they are scored.
    first = select_backbone(
        (images, classes * 1.5),
        Budget(n_trials=1),
        backbones=TINY,
        image_sizes=32,
        run_dir=run,
        space={"n_epochs": 2, "n_blocks_kept": None},
        trainer_kwargs={"precision": "bf16-mixed", "gradient_clip_val": 0.1},
        loggers=("pytorch_lightning.loggers:CSVLogger", {"save_dir": str(tmp_path), "name": "told"}),
        **given,
    )
    tuned = next(trial for trial in first.trials if trial.n_unfrozen > 0)
    assert tuned.rung_scores, tuned.reason
    n_told = len(list((tmp_path / "told").iterdir()))
    assert n_told > 0
    kept = json.loads((run / "run.json").read_text())["arguments"]["trainer_kwargs"]
    assert kept == {"precision": "bf16-mixed", "gradient_clip_val": 0.1}
    assert f"trainer_kwargs={kept!r}" in first.reproduce()
    opened = open_run(run)
    dataset = (images, classes * 1.5)
    retrained = opened.retrain(tuned.number, dataset=dataset, cache_dir=tmp_path / "cache")
    if tuned in first.front:
        for name, value in first.model(tuned).state_dict().items():
            torch.testing.assert_close(retrained.state_dict()[name], value, atol=1e-2, rtol=1e-2)
    further = opened.more(Budget(n_trials=1), dataset=dataset, cache_dir=tmp_path / "cache", progress=False)
    assert sum(trial.n_unfrozen > 0 for trial in further.trials) == 2
    assert len(list((tmp_path / "told").iterdir())) == n_told  # loggers are said again, or there are none
    if not torch.cuda.is_available():
        with pytest.raises(ArgumentError, match=r"^strategy='fsdp' needs GPUs"):
            opened.more(Budget(n_trials=2), dataset=dataset, devices_per_trial=2, strategy="fsdp", progress=False)
    with pytest.raises(RunError, match=r"was begun with .*trainer_kwargs={.*gradient_clip_val.*\(now {}\)"):
        select_backbone(dataset, Budget(n_trials=1), backbones=TINY, image_sizes=32, run_dir=run, **given)


def test_a_module_that_imports_only_when_it_is_asked_is_told_like_any_other(tmp_path, monkeypatch):
    (tmp_path / "asks_first.py").write_text("def __getattr__(name):\n    import no_such_module_at_all\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        ArgumentError, match=r"'asks_first:make' cannot be imported: No module named 'no_such_module_at"
    ):
        Made(factory="asks_first:make").found()

"""What a user hands to Lightning's trainer reaches it: real loggers, callbacks and arguments, in real trainings."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from tests.training.conftest import candidate

from autobackbone.errors import ArgumentError
from autobackbone.handing import as_handed, noted
from autobackbone.training.given import given_for
from autobackbone.training.pausing import Leg
from autobackbone.training.ranks import ALONE, Ranks

EXACT = {"n_epochs": 2, "step_precision": "float32"}


class Seen(Callback):
    """Keeps what trainers were made with."""

    def __init__(self):
        self.trainers, self.rates, self.fused = [], [], []

    def on_train_start(self, trainer, pl_module):
        self.trainers.append(trainer)
        self.fused.append(trainer.optimizers[0].defaults["fused"])

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


def handing(tuner, trainer_kwargs=None, callbacks=None, loggers=None):
    return replace(tuner, handed=as_handed(trainer_kwargs, callbacks, loggers))


def factory_of(logger):
    return f"pytorch_lightning.loggers:{logger}"


def test_a_csv_logger_that_is_made_anew_hears_each_epoch_and_the_candidate(tuner, screened, tmp_path):
    telling = handing(tuner, loggers=(factory_of("CSVLogger"), {"save_dir": str(tmp_path), "name": "told"}))
    _, outcome = telling.tune(candidate(extras=EXACT), screened.head)
    telling.tune(candidate(n_unfrozen=2, extras=EXACT), screened.head)
    assert [folder.name for folder in sorted((tmp_path / "told").iterdir())] == ["version_0", "version_1"]
    with (tmp_path / "told" / "version_0" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    scores = [float(row["validation_score"]) for row in rows if row["validation_score"]]
    losses = [float(row["train_loss"]) for row in rows if row["train_loss"]]
    np.testing.assert_allclose(scores, outcome.rung_scores, atol=1e-6)
    assert len(losses) == 2
    assert all(loss > 0 for loss in losses)
    assert "n_unfrozen: 1" in (tmp_path / "told" / "version_0" / "hparams.yaml").read_text()


def test_tensorboard_hears_each_epoch(tuner, screened, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = TensorBoardLogger(tmp_path)
    _, outcome = handing(tuner, loggers=logger).tune(candidate(extras=EXACT), screened.head)
    events = EventAccumulator(logger.log_dir)
    events.Reload()
    found = [event.value for event in events.Scalars("validation_score")]
    np.testing.assert_allclose(found, outcome.rung_scores, atol=1e-5)


# MLflow asks its database in an older way.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_mlflow_hears_each_epoch_and_the_candidate(tuner, screened, tmp_path):
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    arguments = {"experiment_name": "told", "tracking_uri": uri, "artifact_location": str(tmp_path / "artifacts")}
    telling = handing(tuner, loggers=[(factory_of("MLFlowLogger"), arguments)])
    _, outcome = telling.tune(candidate(extras=EXACT), screened.head)
    client = MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name("told").experiment_id])
    told = sorted(client.get_metric_history(run.info.run_id, "validation_score"), key=lambda one: one.step)
    np.testing.assert_allclose([one.value for one in told], outcome.rung_scores, atol=1e-6)
    assert run.data.params["n_unfrozen"] == "1"
    assert run.info.status == "FINISHED"


def test_a_live_logger_hears_all_trainings(tuner, screened, tmp_path):
    logger = CSVLogger(tmp_path, name="live")
    telling = handing(tuner, loggers=logger)
    for n_unfrozen in (1, 2):
        telling.tune(candidate(n_unfrozen=n_unfrozen, extras=EXACT), screened.head)
    assert [folder.name for folder in (tmp_path / "live").iterdir()] == ["version_0"]


def test_callbacks_and_arguments_reach_the_trainer_and_change_nothing_else(tuner, screened):
    _, plain = tuner.tune(candidate(extras=EXACT), screened.head)
    seen = Seen()
    watched = handing(tuner, {"detect_anomaly": False, "log_every_n_steps": 3, "gradient_clip_algorithm": "norm"}, seen)
    _, outcome = watched.tune(candidate(extras=EXACT), screened.head)
    assert outcome.rung_scores == plain.rung_scores
    (trainer,) = seen.trainers
    assert trainer.log_every_n_steps == 3
    assert (trainer.gradient_clip_val, trainer.gradient_clip_algorithm) == (1.0, "norm")
    assert trainer.callback_metrics["validation_score"].item() == pytest.approx(outcome.rung_scores[-1])
    assert seen.fused == [True]


def test_gradients_are_clipped_as_it_is_said(tuner, screened):
    found = {}
    for value in (1.0, 1e-9, None):
        seen = Seen()
        _, outcome = handing(tuner, {"gradient_clip_val": value}, [seen]).tune(candidate(extras=EXACT), screened.head)
        assert seen.trainers[0].gradient_clip_val == value
        found[value] = outcome.rung_scores
    assert len(set(found.values())) == 3


def test_batches_that_make_one_step_are_those_of_the_rate_too(tuner, screened):
    n_train = len(tuner.stores.bundle.indices("train"))
    wanted = candidate(extras={**EXACT, "batch_size": 4})
    seen, plain = Seen(), Seen()
    handing(tuner, {"accumulate_grad_batches": 2}, seen).tune(wanted, screened.head)
    handing(tuner, None, plain).tune(wanted, screened.head)
    n_batches = -(-n_train // 4)
    assert seen.trainers[0].accumulate_grad_batches == 2
    assert seen.trainers[0].global_step == 2 * -(-n_batches // 2)
    assert plain.trainers[0].global_step == 2 * n_batches
    # Both end at the end of their decay.
    assert seen.rates[-1] < 0.4 * max(seen.rates)
    assert plain.rates[-1] < 0.4 * max(plain.rates)


def test_mixed_precision_is_lightning_s_and_weights_stay_whole(tuner, screened):
    seen = Seen()
    network, outcome = handing(tuner, {"precision": "bf16-mixed"}, seen).tune(candidate(), screened.head)
    _, plain = tuner.tune(candidate(extras=EXACT), screened.head)
    assert seen.trainers[0].precision == "bf16-mixed"
    assert seen.fused == [False]  # else Lightning refuses to clip
    assert outcome.rung_scores != plain.rung_scores
    np.testing.assert_allclose(outcome.rung_scores, plain.rung_scores, atol=0.1)
    assert {value.dtype for value in network.parameters()} == {torch.float32}


def test_a_training_that_pauses_goes_on_with_what_is_handed(tuner, screened, tmp_path):
    telling = handing(
        tuner, {"accumulate_grad_batches": 2}, loggers=(factory_of("CSVLogger"), {"save_dir": str(tmp_path)})
    )
    whole = handing(tuner, {"accumulate_grad_batches": 2})
    legs = [Leg(checkpoint=tmp_path / name, pause_at=1) for name in ("a", "b")]
    found = []
    for one, leg in zip((telling, whole), legs, strict=True):
        one.tune(candidate(extras=EXACT), screened.head, leg=leg)
        found.append(one.tune(candidate(extras=EXACT), screened.head, leg=replace(leg, n_before=1, pause_at=None))[1])
    assert found[0].rung_scores == found[1].rung_scores
    assert len(list((tmp_path / "lightning_logs").iterdir())) == 2


class Enough(Callback):
    """Ends a training after its first epoch."""

    def on_train_epoch_end(self, trainer, pl_module):
        trainer.should_stop = True


def test_a_callback_that_ends_a_training_ends_it_as_the_clock_would(tuner, screened):
    _, outcome = handing(tuner, None, Enough()).tune(candidate(extras=EXACT), screened.head)
    assert (len(outcome.rung_scores), outcome.is_cut_short) == (1, True)


def test_the_first_rank_alone_has_loggers(tmp_path):
    handed = as_handed(None, None, (factory_of("CSVLogger"), {"save_dir": str(tmp_path)}))
    assert len(given_for(handed, candidate(), ALONE).loggers) == 1
    assert given_for(handed, candidate(), Ranks(rank=1, n=2)).loggers == []


@pytest.mark.parametrize(
    ("callbacks", "loggers", "message"),
    [
        (ModelCheckpoint(), None, "callbacks holds one that writes checkpoints: trainings keep their own"),
        (object(), None, r"^callbacks takes a Callback of Lightning; <object .*> is a object"),
        (None, "datetime:timedelta", "^loggers takes a Logger of Lightning; datetime:timedelta is a timedelta"),
        (
            None,
            (factory_of("CSVLogger"), {"wrong": 1}),
            r"^'pytorch_lightning.loggers:CSVLogger' takes other arguments than",
        ),
    ],
)
def test_what_is_none_of_lightning_s_is_told(callbacks, loggers, message):
    with pytest.raises(ArgumentError, match=message):
        given_for(as_handed(None, callbacks, loggers), candidate(), ALONE)


def test_what_is_noted_of_a_hostile_run_writes_nowhere():
    found = noted(json.loads('{"default_root_dir": "/etc", "profiler": "simple", "gradient_clip_val": 0.5}'))
    assert found == {"gradient_clip_val": 0.5}
    assert noted(["precision"]) == {}


def test_all_that_is_free_is_known_to_lightning():
    import inspect

    from autobackbone import handing as module

    assert set(module._FREE) <= set(inspect.signature(pl.Trainer.__init__).parameters)

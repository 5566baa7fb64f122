"""A tuned network goes on training in a trainer of the user's own."""

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from tests.conftest import TINY, make_pictures
from torch.utils.data import DataLoader, TensorDataset

from autobackbone.backbones.blocks import trainable_names
from autobackbone.backbones.build import build, normalisation
from autobackbone.data import Preparation
from autobackbone.exporting.transform import Transform
from autobackbone.metrics import metric_for, score
from autobackbone.training.continuing import ContinuedTraining
from autobackbone.training.objective import Objective
from autobackbone.training.recipe import Recipe

PICTURES, CODES = make_pictures(n_per_class=12, side=32)
LABELS = {
    "classification": CODES,
    "multilabel": np.stack([CODES > 0, CODES == 1, CODES < 2], axis=1).astype(np.int64),
    "regression": np.stack([CODES * 1000.0, CODES * -2.0, CODES + 5.0], axis=1),
}


def continued(task, n_unfrozen=1, lr=3e-3):
    network = build(TINY, n_classes=3, image_size=(32, 32))
    network.transform = Transform(image_size=(32, 32), preparation=Preparation(), normalisation=normalisation(TINY))
    network.classes = (0, 1, 2)
    metric = metric_for(None, task, n_outputs=3)
    return network, ContinuedTraining(
        network,
        Objective.of(task, LABELS[task]),
        Recipe(lr=lr, n_epochs=9),
        n_unfrozen=n_unfrozen,
        batch_norm="fixed",
        score=lambda said, truth: score(metric, said, truth),
    )


def batches(module, task):
    inputs = torch.stack([module.transform(picture) for picture in PICTURES])
    return DataLoader(TensorDataset(inputs, torch.from_numpy(LABELS[task])), batch_size=12)


def trainer(max_epochs, **more):
    return pl.Trainer(
        max_epochs=max_epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **more,
    )


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*in eval mode at the start")
@pytest.mark.filterwarnings("ignore:.*LeafSpec", "ignore:The number of training batches")
@pytest.mark.parametrize("task", LABELS)
def test_a_fit_lowers_the_loss_and_moves_what_was_unfrozen_alone(task):
    network, module = continued(task)
    before = {name: value.clone() for name, value in module.network.state_dict().items()}
    rows, runs = batches(module, task), trainer(6)
    (first,) = trainer(1).validate(module, rows, verbose=False)
    runs.fit(module, rows, rows)
    assert runs.global_step == 18
    assert float(runs.callback_metrics["val_loss"]) < first["val_loss"]
    assert {"train_loss", "val_score"} <= set(runs.callback_metrics)
    moved = {name for name, value in module.network.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == trainable_names(network, 1)
    # Warm-up, a constant rate, and a decay to the end of what the trainer was asked for.
    assert runs.lr_scheduler_configs[0].scheduler.get_last_lr()[0] == 0


@pytest.mark.parametrize("task", LABELS)
def test_nothing_trained_is_the_network_as_it_was(task):
    network, module = continued(task)
    inputs = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(module.tuned()(inputs), network(inputs), atol=1e-3, rtol=1e-4)
        torch.testing.assert_close(
            module.eval()(inputs), module.objective.predictions(module.network(inputs)), atol=1e-5, rtol=1e-5
        )
    assert module.tuned().transform == network.transform


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*in eval mode at the start")
@pytest.mark.filterwarnings("ignore:.*LeafSpec", "ignore:You defined a `validation_step`")
@pytest.mark.filterwarnings("ignore:The number of training batches")
def test_a_trainer_without_an_end_keeps_its_rate():
    _, module = continued("classification")
    runs = trainer(-1, max_steps=4)
    runs.fit(module, batches(module, "classification"))
    assert runs.lr_scheduler_configs[0].scheduler.get_last_lr()[0] == pytest.approx(3e-3)

import numpy as np
import pytest
import torch
from tests.conftest import TINY
from tests.training.conftest import CPU, SIZE, candidate
from torch import nn

from autobackbone.backbones.build import normalisation
from autobackbone.screening import predict
from autobackbone.training import steps
from autobackbone.training.fit import Trainee
from autobackbone.training.objective import Objective
from autobackbone.training.pausing import Leg
from autobackbone.training.recipe import Recipe
from autobackbone.training.rows import Rows

CLASSES = Objective.of("classification", np.zeros(0))


@pytest.fixture
def where_bfloat16_is_fast(monkeypatch):
    """As on a processor with matrix units: any time is short enough."""
    monkeypatch.setattr(steps, "_multiplies_fast", lambda _: True)
    monkeypatch.setattr(steps, "_CLEARLY", 0.0)


@pytest.mark.usefixtures("where_bfloat16_is_fast")
def test_a_training_in_bfloat16_keeps_all_but_its_steps_in_float32(tuner, screened, bundle):
    network, outcome = tuner.tune(candidate(n_unfrozen=2), screened.head)
    assert outcome.precision == "bfloat16"
    assert {tensor.dtype for tensor in network.state_dict().values() if tensor.is_floating_point()} == {torch.float32}
    again = predict(network, bundle, bundle.indices("validation"), SIZE, normalisation(TINY), device=CPU)
    np.testing.assert_allclose(again, outcome.predictions, atol=0.02)


@pytest.mark.usefixtures("where_bfloat16_is_fast")
def test_a_training_that_goes_on_keeps_its_precision(tuner, screened, tmp_path, monkeypatch):
    wanted = candidate(n_unfrozen=2, extras={"n_epochs": 2})
    _, first = tuner.tune(wanted, screened.head, leg=Leg(checkpoint=tmp_path / "c.ckpt", pause_at=1))
    assert first.precision == "bfloat16"
    # Another process, where the clock would choose otherwise.
    monkeypatch.setattr(steps, "_multiplies_fast", lambda _: False)
    for memory in (tuner._warm, tuner._step_s, tuner._chosen):
        memory.clear()
    known = candidate(n_unfrozen=2, extras={"n_epochs": 2, "step_precision": "bfloat16"})
    _, second = tuner.tune(known, screened.head, leg=Leg(checkpoint=tmp_path / "c.ckpt", n_before=1))
    assert second.precision == "bfloat16"
    assert len(second.rung_scores) == 2
    _, other = tuner.tune(wanted, screened.head)
    assert other.precision == "float32"


class OtherInHalf(nn.Module):
    """Pulls the other way in bfloat16."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 2)

    def forward(self, x):
        answers = self.layer(x)
        return answers if answers.dtype == torch.float32 else -answers


@pytest.mark.usefixtures("where_bfloat16_is_fast")
@pytest.mark.parametrize(("module", "wanted"), [(OtherInHalf(), "float32"), (nn.Linear(6, 2), "bfloat16")])
def test_gradients_that_point_elsewhere_are_not_followed(module, wanted):
    values = np.random.default_rng(0).normal(size=(16, 6)).astype(np.float32)
    rows = Rows([values], np.arange(16)[None], np.arange(16) % 2)
    trainee = Trainee(
        module=module,
        set_mode=module.train,
        prepare=lambda x: x,
        train=rows,
        validation=rows,
        device=CPU,
        objective=CLASSES,
    )
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    found = steps.measured(trainee, Recipe(lr=1e-3, n_epochs=1, batch_size=8))
    assert found.precision == wanted
    assert found.seconds > 0
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    assert all(parameter.grad is None for parameter in module.parameters())


def test_where_it_is_emulated_it_is_not_even_tried(monkeypatch):
    monkeypatch.setattr(steps, "_multiplies_fast", lambda _: False)
    monkeypatch.setattr(steps, "_CLEARLY", 0.0)
    module = nn.Linear(6, 2)
    rows = Rows([np.ones((4, 6), np.float32)], np.arange(4)[None], np.arange(4) % 2)
    trainee = Trainee(
        module=module,
        set_mode=module.train,
        prepare=lambda x: x,
        train=rows,
        validation=rows,
        device=CPU,
        objective=CLASSES,
    )
    assert steps.measured(trainee, Recipe(lr=1e-3, n_epochs=1, batch_size=4)).precision == "float32"

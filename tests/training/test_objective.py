from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from autobackbone.backbones.build import build
from autobackbone.training.objective import Objective

NUMBERS = np.random.default_rng(0).normal([3.0, -200.0], [0.01, 50.0], (60, 2))


def network():
    return build("test_resnet.r160_in1k", n_classes=2, image_size=(64, 64))


def test_a_network_learns_standardised_numbers_and_gives_them_back():
    objective, tuned = Objective.of("regression", NUMBERS), network()
    pictures = torch.randn(4, 3, 64, 64)
    before = tuned(pictures)
    objective.begin(tuned)
    inside = tuned(pictures)
    standardised = (before.detach().double().numpy() - NUMBERS.mean(0)) / NUMBERS.std(0)
    np.testing.assert_allclose(inside.detach(), standardised, rtol=1e-3, atol=1e-2)
    np.testing.assert_allclose(objective.predictions(inside).detach(), before.detach(), rtol=1e-3, atol=1e-3)
    objective.end(tuned)
    np.testing.assert_allclose(tuned(pictures).detach(), before.detach(), rtol=1e-3, atol=1e-3)


def test_the_loss_of_numbers_does_not_hang_on_their_unit():
    outputs = torch.randn(60, 2)
    losses = []
    for factor in (1.0, 1e-6, 1e6):
        objective = Objective.of("regression", NUMBERS * factor)
        losses.append(float(objective.loss(outputs, torch.from_numpy(NUMBERS * factor))))
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-5)
    # Who says nothing but the mean has a loss of one.
    objective = Objective.of("regression", NUMBERS)
    assert float(objective.loss(torch.zeros(60, 2), torch.from_numpy(NUMBERS))) == pytest.approx(1.0, rel=1e-5)


def test_a_number_that_never_varies_breaks_nothing():
    objective = Objective.of("regression", np.ones((5, 1)))
    assert float(objective.loss(torch.zeros(5, 1), torch.ones(5, 1, dtype=torch.float64))) == 0.0


def test_several_labels_each_have_a_loss_of_their_own():
    objective = Objective.of("multilabel", np.zeros((4, 3), np.int64))
    outputs, labels = torch.randn(4, 3), torch.randint(0, 2, (4, 3))
    wanted = functional.binary_cross_entropy(torch.sigmoid(outputs), labels.float())
    assert float(objective.loss(outputs, labels)) == pytest.approx(float(wanted), rel=1e-5)
    assert (objective.predictions(outputs) == torch.sigmoid(outputs)).all()
    smoothed = functional.binary_cross_entropy(torch.sigmoid(outputs), labels * 0.8 + 0.1)
    assert float(objective.loss(outputs, labels, label_smoothing=0.2)) == pytest.approx(float(smoothed), rel=1e-5)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_balanced_classes_count_the_same_however_many_pictures_they_have(label_smoothing):
    labels = torch.tensor([0] * 8 + [1] * 3 + [2])
    outputs = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))
    balanced = Objective.of("classification", labels.numpy(), class_weights="balanced")
    each = functional.cross_entropy(outputs, labels, label_smoothing=label_smoothing, reduction="none")
    of_classes = torch.stack([each[labels == code].mean() for code in range(3)])
    found = balanced.loss(outputs, labels, label_smoothing=label_smoothing)
    torch.testing.assert_close(found, of_classes.mean())
    # Cut into passes of equal size, it is their mean: a step may be taken in several.
    halves = [
        balanced.loss(outputs[rows], labels[rows], label_smoothing=label_smoothing)
        for rows in ([0, 1, 8, 11, 9, 2], [3, 4, 5, 6, 7, 10])
    ]
    torch.testing.assert_close(found, torch.stack(halves).mean())


def test_a_balanced_label_counts_as_if_its_pictures_were_there_more_often():
    labels = torch.tensor([[1, 0], [0, 1], [0, 1], [0, 0]])
    outputs = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
    balanced = Objective.of("multilabel", labels.numpy(), class_weights="balanced")
    assert balanced.weights.tolist() == [3.0, 1.0]
    rows = [0, 0, 0, 1, 2, 3]
    first = functional.binary_cross_entropy_with_logits(outputs[rows, 0], labels[rows, 0].float(), reduction="sum")
    second = functional.binary_cross_entropy_with_logits(outputs[:, 1], labels[:, 1].float(), reduction="sum")
    torch.testing.assert_close(balanced.loss(outputs, labels), (first + second) / 8)


def test_classes_keep_the_loss_that_they_had():
    objective, labels = Objective.of("classification", np.zeros(4, np.int64)), torch.tensor([0, 1, 1])
    outputs = torch.randn(3, 2)
    wanted = functional.cross_entropy(outputs, labels, label_smoothing=0.1)
    assert float(objective.loss(outputs, labels, label_smoothing=0.1)) == float(wanted)
    tuned = network()
    before = tuned.state_dict()
    objective.begin(tuned)
    objective.end(tuned)
    assert all(torch.equal(before[name], tensor) for name, tensor in tuned.state_dict().items())

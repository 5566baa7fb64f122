import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.conftest import TINY
from tests.training.conftest import CPU, SIZE, candidate

from autobackbone.backbones.build import normalisation
from autobackbone.metrics import metric_for, score
from autobackbone.screening import predict
from autobackbone.training.passed import OUTPUTS, PassedScores
from autobackbone.training.pausing import Leg

LOSS = metric_for("log_loss", n_outputs=3)


class Keeps:
    """A score that keeps what it is given, and is a number of the user's choice."""

    def __init__(self, *values):
        self.given, self.values = [], list(values)

    def __call__(self, predictions, labels):
        self.given.append((predictions, labels))
        return self.values.pop(0) if self.values else float(len(self.given))


def test_each_training_picture_is_scored_once_an_epoch_as_the_network_sees_it(tuner, screened, bundle):
    keeps = Keeps()
    # So small a rate changes nothing: what passes is what the network says afterwards, too.
    network, outcome = replace(tuner, score_passed=keeps).tune(candidate(lr=1e-12), screened.head)
    indices = bundle.indices("train")
    said = predict(network, bundle, indices, SIZE, normalisation(TINY), device=CPU)
    assert outcome.train_scores == (1.0, 2.0)
    for predictions, labels in keeps.given:
        np.testing.assert_array_equal(np.sort(labels), np.sort(bundle.labels[indices]))
        # In the order in which they passed, which is another one in each epoch; tails are fed half precision.
        assert score(LOSS, predictions, labels) == pytest.approx(score(LOSS, said, bundle.labels[indices]), abs=2e-3)
        np.testing.assert_allclose(np.sort(predictions, axis=0), np.sort(said, axis=0), atol=0.02)
    (first, _), (second, _) = keeps.given
    assert not np.allclose(first, second, atol=1e-3)


def test_label_smoothing_moves_steps_and_no_score(tuner, screened):
    one, two = Keeps(), Keeps()
    for keeps, smoothing in ((one, 0.0), (two, 0.3)):
        wanted = candidate(lr=1e-12, extras={"n_epochs": 1, "label_smoothing": smoothing})
        replace(tuner, score_passed=keeps).tune(wanted, screened.head)
    np.testing.assert_allclose(one.given[0][0], two.given[0][0], atol=1e-6)


def test_scoring_what_passes_changes_no_training(tuner, screened):
    scored, with_scores = tuner.tune(candidate(n_unfrozen=2), screened.head)
    silent = replace(tuner, score_passed=None)
    silent._chosen.update(tuner._chosen)  # the precision of steps is chosen by the clock
    plain, without = silent.tune(candidate(n_unfrozen=2), screened.head)
    assert (len(with_scores.train_scores), without.train_scores) == (2, ())
    assert with_scores.rung_scores == without.rung_scores
    assert all(torch.equal(a, b) for a, b in zip(scored.parameters(), plain.parameters(), strict=True))


def test_a_step_in_two_passes_scores_each_picture_once(tuner, screened, bundle):
    keeps = Keeps()
    scoring, wanted = replace(tuner, score_passed=keeps), candidate(extras={"n_epochs": 1})
    recipe = replace(scoring._recipe(wanted), batch_size=2, accumulate=2)
    scoring._tune(wanted, screened.head, recipe, None, 1)
    assert len(keeps.given[0][1]) == len(bundle.indices("train"))


def test_a_score_that_is_not_defined_ends_no_training(tuner, screened, tmp_path):
    undefined = replace(tuner, score_passed=Keeps(math.nan, 0.5, math.nan))
    wanted, checkpoint = candidate(extras={"n_epochs": 3}), tmp_path / "checkpoint.ckpt"
    undefined.tune(wanted, screened.head, leg=Leg(checkpoint=checkpoint, pause_at=2))
    later = replace(undefined, score=undefined.score)  # another process has its network to build
    _, outcome = later.tune(wanted, screened.head, leg=Leg(checkpoint=checkpoint, n_before=2))
    np.testing.assert_array_equal(outcome.train_scores, [math.nan, 0.5, math.nan])
    assert len(outcome.rung_scores) == 3


@pytest.mark.parametrize(("n_most", "n_scored"), [(1, 1), (4, 4), (5, 5), (12, 12), (100, 12)])
def test_of_many_pictures_the_first_that_pass_are_scored(n_most, n_scored):
    keeps, said = Keeps(), torch.randn(12, 3, generator=torch.Generator().manual_seed(0))
    passed = PassedScores(keeps, lambda outputs: 2 * outputs, n_most=n_most)
    for epoch in range(2):
        passed.on_train_epoch_start(None, None)
        for start in range(0, 12, 4):
            outputs = said[start : start + 4] + epoch
            passed.on_train_batch_end(None, None, {OUTPUTS: outputs}, (None, torch.arange(start, start + 4)), 0)
        passed.on_train_epoch_end(None, None)
    assert passed.scores == [1.0, 2.0]
    for epoch, (predictions, labels) in enumerate(keeps.given):
        np.testing.assert_array_equal(labels, np.arange(n_scored))
        np.testing.assert_array_equal(predictions, 2 * (said[:n_scored] + epoch))

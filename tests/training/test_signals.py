import os
import signal
from dataclasses import replace

import pytest
from tests.training.conftest import candidate


@pytest.fixture
def handled():
    """The signals that a handler of the user's own took."""
    taken = []
    before = signal.signal(signal.SIGTERM, lambda number, _: taken.append(number))
    yield taken
    signal.signal(signal.SIGTERM, before)


def test_a_handler_of_sigterm_decides_alone_also_while_a_network_trains(tuner, screened, handled):
    def score(_):
        os.kill(os.getpid(), signal.SIGTERM)
        return 0.5

    own = signal.getsignal(signal.SIGTERM)
    _, outcome = replace(tuner, score=score).tune(candidate(extras={"n_epochs": 3}), screened.head)
    assert handled == [signal.SIGTERM] * 3
    assert outcome.rung_scores == (0.5,) * 3
    assert signal.getsignal(signal.SIGTERM) is own


def test_sigterm_ends_a_process_in_training_as_it_ends_any_other(tuner, screened):
    seen = []
    signals_seen = replace(tuner, score=lambda _: seen.append(signal.getsignal(signal.SIGTERM)) or 0.5)
    signals_seen.tune(candidate(), screened.head)
    assert seen == [signal.SIG_DFL] * 2

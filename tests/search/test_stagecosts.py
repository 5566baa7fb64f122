"""Stages are timed over sittings, and everything is passed on."""

import time

import optuna
import pytest

from autobackbone.search.stagecosts import StageClock, read_stages


class Listening:
    def __init__(self):
        self.heard = []

    def __getattr__(self, name):
        return lambda *arguments: self.heard.append((name, *arguments))


@pytest.fixture
def study():
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study()


def test_two_sittings_add_up_and_what_was_told_is_passed_on(study):
    told = Listening()
    for _ in range(2):
        clock = StageClock(told, time.monotonic() - 2)
        clock.stage("read")
        clock.keep_in(study)
        clock.say("a line")
        clock.progress(0.5, "half")
        clock.stage("screen")
        clock.end()
        clock.close()
    found = read_stages(study)
    assert list(found) == ["prepare", "read", "screen"]
    assert found["prepare"] >= 4
    assert found["read"] < 2
    assert told.heard[:4] == [("stage", "read"), ("say", "a line"), ("progress", 0.5, "half"), ("stage", "screen")]
    assert told.heard[4] == ("close",)


@pytest.mark.parametrize(
    "noted", [None, [], "x", {"read": -1}, {"read": "long"}, {"read": True}, {"read": float("inf")}]
)
def test_what_is_no_such_note_is_none(study, noted):
    if noted is not None:
        study.set_user_attr("stages", noted)
    assert read_stages(study) == {}

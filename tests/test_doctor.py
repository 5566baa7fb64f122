import re

import pytest
import torch
from tests.conftest import command

from autobackbone.backbones.weights import find_weights, load_state_dict
from autobackbone.doctor import _PALACE, _convolution_s, _seen_in_china, _smallest, examine

LITES = [f"tf_efficientnet_lite{i}.in1k" for i in range(3)]


@pytest.fixture(scope="module")
def checks(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTOBACKBONE_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr("autobackbone.doctor._SEARCH_S", 8.0)  # of 15, all of which a search uses
        return {check.name: check for check in examine()}


def test_a_machine_that_passes_these_tests_is_healthy(checks):
    assert next(iter(checks)) == "versions"
    assert {"device", "accelerator", "precision float32", "precision bfloat16", "precision float16"} <= set(checks)
    assert [check for check in checks.values() if check.state == "problem"] == []


def test_every_warning_says_what_to_do_and_nothing_else_does(checks):
    for check in checks.values():
        assert check.detail
        assert bool(check.remedy) == (check.state == "warning" and "does not run" not in check.detail)


def test_the_search_is_a_real_one(checks):
    found = re.fullmatch(
        r"(\d+) trials of (\S+) in \d+ s; the chosen one: .* ms, (\d+) % right .*", checks["search"].detail
    )
    assert found is not None, checks["search"].detail
    assert int(found[1]) >= 1
    assert found[2] == _smallest()
    assert int(found[3]) > 30, "ten classes, so 10% would be guessing"


@pytest.mark.parametrize("name", LITES)
def test_stored_networks_see_the_palace(name):
    assert _seen_in_china(name, load_state_dict(name, find_weights(name))) == _PALACE


def test_a_network_with_wrong_weights_does_not():
    weights = load_state_dict(LITES[0], find_weights(LITES[0]))
    turned = {**weights, "conv_stem.weight": weights["conv_stem.weight"].flip(0)}
    assert _seen_in_china(LITES[0], turned) != _PALACE


def test_a_precision_that_is_not_here_is_no_crash():
    assert _convolution_s(torch.device("cpu"), torch.float32) is not None
    assert _convolution_s(torch.device("cpu"), torch.int8) is None


def test_a_cache_that_cannot_be_written_is_a_problem_and_the_exit_code_says_so(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("AUTOBACKBONE_CACHE", str(tmp_path / "file" / "cache"))
    done = command("doctor")
    assert done.code == 1
    (problem,) = [text for text in done.out.splitlines() if text.startswith("problem")]
    assert "disk" in problem
    assert "AUTOBACKBONE_CACHE" in problem
    assert "search:" not in done.out, "a search would only say the same"

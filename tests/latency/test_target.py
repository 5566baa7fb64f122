"""Nothing is left open, nothing is asked of a machine that it does not have."""

import os

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from autobackbone.errors import TargetError
from autobackbone.latency.target import describe, hardware, resolve
from autobackbone.records import Target

targets = st.builds(
    Target,
    device=st.sampled_from(["auto", "cpu"]),
    batch_size=st.integers(1, 64),
    precision=st.sampled_from(["auto", "float32", "bfloat16", "float16"]),
    n_threads=st.sampled_from([None, 1]),
)
without_gpu = pytest.mark.skipif(torch.accelerator.is_available(), reason="says what a machine without a GPU has")


@given(targets)
def test_nothing_is_left_open_and_what_was_said_stays(target):
    settled = resolve(target)
    assert settled.device != "auto"
    assert settled.precision == (target.precision if target.precision != "auto" else settled.precision) != "auto"
    assert settled.n_threads == (target.n_threads or settled.n_threads) is not None
    assert settled.batch_size == target.batch_size
    assert resolve(settled) == settled


@given(targets)
def test_the_line_says_all_that_a_latency_refers_to(target):
    line = describe(target)
    assert line == describe(resolve(target))
    assert "\n" not in line
    for fact in (resolve(target).device, resolve(target).precision, f"batch {target.batch_size}"):
        assert fact in line


@without_gpu
def test_no_target_is_this_processor_with_all_its_cores():
    assert resolve(None) == Target(
        device="cpu", precision="float32", n_threads=len(os.sched_getaffinity(0)), batch_size=1
    )


@without_gpu
@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:7", "mps"])
def test_absent_devices_are_errors_that_name_the_present_ones(device):
    with pytest.raises(TargetError, match=f"'{device}' is not on this machine; it has cpu"):
        resolve(Target(device=device))


def test_more_threads_than_cores_are_an_error():
    with pytest.raises(TargetError, match=r"target is a Target\(…\), such as .*, not 'onnxruntime'\."):
        resolve("onnxruntime")
    with pytest.raises(TargetError, match=r"n_threads=99999 is more than the \d+ cores"):
        resolve(Target(device="cpu", n_threads=99999))


def test_hardware_tells_threads_and_versions_apart():
    facts = hardware(Target(device="cpu", n_threads=1))
    assert facts["n_threads"] == 1
    assert facts["torch"] == torch.__version__
    assert facts["chip"]

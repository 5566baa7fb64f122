"""What is said of an error in another process: a fault of a machine costs a training, a bug ends the run."""

import errno

import pytest
import torch

from autobackbone.errors import MetricError, TrialDiskError, TrialError
from autobackbone.running.failures import error_of, facts_of, is_broken_by


@pytest.mark.parametrize(
    ("error", "kind", "message", "is_broken"),
    [
        (OSError(errno.ESTALE, "Stale file handle", "store.npy"), TrialError, "OSError.*Stale file handle", False),
        (torch.AcceleratorError("CUDA error: uncorrectable ECC"), TrialError, "AcceleratorError: CUDA error", True),
        (torch.distributed.DistBackendError("NCCL is gone"), TrialError, "DistBackendError: NCCL is gone", True),
        (MetricError("it cannot be made"), MetricError, "^it cannot be made$", False),
        (TrialDiskError("no room"), TrialDiskError, "^no room$", False),
        (ZeroDivisionError("a bug"), RuntimeError, "a bug in the worker process:\n.*ZeroDivisionError", False),
    ],
)
def test_an_error_comes_back_as_what_it_means_for_the_run(error, kind, message, is_broken):
    found = error_of(facts_of(error))
    assert type(found) is kind
    assert is_broken_by(error) is is_broken
    with pytest.raises(kind, match=message):
        raise found

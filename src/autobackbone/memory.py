"""The one place that knows how the lack of memory is told, by torch, by its allocators and by Python."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from autobackbone.errors import TrialMemoryError

# Torch's allocators of the CPU, of MPS and the libraries of CUDA tell it as a plain RuntimeError.
_SIGNS = ("can't allocate memory", "not enough memory", "out of memory", "ALLOC_FAILED")


@contextmanager
def memory_errors_translated() -> Iterator[None]:
    """Raise `TrialMemoryError` wherever memory ran out; other errors pass.

    Example:
        >>> with memory_errors_translated():
        ...     raise MemoryError
        Traceback (most recent call last):
        autobackbone.errors.TrialMemoryError: out of memory
    """
    try:
        yield
    except TrialMemoryError:
        raise
    except MemoryError as error:
        raise TrialMemoryError("out of memory") from error
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or any(sign in str(error) for sign in _SIGNS):
            raise TrialMemoryError("out of memory") from error
        raise

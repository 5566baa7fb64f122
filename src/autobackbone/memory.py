"""The one place that knows how the lack of memory is told, by torch, by its allocators and by Python."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

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


def in_parts_that_fit(
    compute: Callable[[NDArray[Any]], tuple[Tensor, ...]], indices: NDArray[Any]
) -> tuple[Tensor, ...]:
    """`compute(indices)`, or where memory is too small for it, that of its halves, one below the other.

    Args:
        compute: indices (n,) → tensors (n, …); a row depends on its own index alone.
        indices: at least one.

    Raises:
        TrialMemoryError: memory is too small for a single one.

    Example:
        >>> in_parts_that_fit(lambda some: (torch.from_numpy(some) * 2,), np.arange(3))
        (tensor([0, 2, 4]),)
    """
    try:
        with memory_errors_translated():
            return compute(indices)
    except TrialMemoryError:
        if len(indices) == 1:
            raise
    # Behind the handler: inside it the error would keep what the whole had taken.
    parts = [in_parts_that_fit(compute, part) for part in np.array_split(indices, 2)]
    return tuple(torch.cat(of) for of in zip(*parts, strict=True))

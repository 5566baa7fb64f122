"""Errors as plain data: what is said of one in a worker process comes back as the same class."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from typing import Any

import torch
from torch import distributed

from autobackbone import errors
from autobackbone.errors import AutobackboneError, EpochTooLongError, TrialError

# A device that has failed, or processes that cannot talk to each other any more.
_BROKEN = (torch.AcceleratorError, *([distributed.DistBackendError] if distributed.is_available() else []))


def is_broken_by(error: Exception) -> bool:
    """Whether a process in which that was raised can train nothing more."""
    return isinstance(error, _BROKEN)


def facts_of(error: Exception) -> dict[str, Any]:
    """What is to be said of an error.

    Example:
        >>> facts_of(EpochTooLongError("one epoch takes 9.0 s", 9.0))
        {'error': 'EpochTooLongError', 'message': 'one epoch takes 9.0 s', 'epoch_s': 9.0}
    """
    if isinstance(error, (OSError, *_BROKEN)):  # of one machine or one device: others may well go on
        return {"error": TrialError.__name__, "message": f"{type(error).__name__}: {error}"}
    if not isinstance(error, AutobackboneError):
        return {"error": None, "message": "".join(traceback.format_exception(error))}
    # Of one that a module keeps to itself, what it is to all others.
    kind = next(kind for kind in type(error).__mro__ if kind.__module__ == errors.__name__)
    facts: dict[str, Any] = {"error": kind.__name__, "message": str(error)}
    return facts | ({"epoch_s": error.epoch_s} if isinstance(error, EpochTooLongError) else {})


def error_of(facts: Mapping[str, Any]) -> Exception:
    """The error of which that was said; of a bug a plain one, with all that is known of it.

    Example:
        >>> error_of(facts_of(EpochTooLongError("one epoch takes 9.0 s", 9.0))).epoch_s
        9.0
        >>> error_of(facts_of(errors.TrialMemoryError("out of memory")))
        TrialMemoryError('out of memory')
    """
    name, message = facts["error"], facts["message"]
    if name is None:
        return RuntimeError(f"a bug in the worker process:\n{message}")
    if name == EpochTooLongError.__name__:
        return EpochTooLongError(message, facts["epoch_s"])
    kind: type[AutobackboneError] = getattr(errors, name)
    return kind(message)

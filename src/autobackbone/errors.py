"""What can go wrong, as a tree.

AutobackboneError
├── ArgumentError (ValueError)      an argument that cannot be used
├── BudgetError (ValueError)        a budget that cannot be read, or in which nothing can be done
├── DataError (ValueError)          pictures or labels that cannot be used
├── BackboneError (ValueError)      a backbone that timm does not know, or that does not fit the task
│   └── WeightsError                weights that cannot be found or loaded here
├── TargetError (ValueError)        a target that this machine does not have
│   └── TargetMemoryError           a network that does not fit into its memory; also a TrialMemoryError
├── LimitsError (ValueError)        limits that no candidate keeps
├── SpaceError (ValueError)         a search space that cannot be read
├── MetricError (ValueError)        a metric or task that is not known
├── RunError (RuntimeError)         a run folder that cannot be opened or continued
│   └── RunLockedError              another process works on it
└── TrialError (RuntimeError)       one trial failed; the search goes on
    ├── EpochTooLongError           not one epoch fits the time left; it says how long one takes
    ├── TrialDiskError              the disk is too small for its files
    └── TrialMemoryError (MemoryError)  memory is too small for it

Every message says what was wanted, what came and what to do.
"""

from __future__ import annotations


class AutobackboneError(Exception):
    """The root of all errors that this library raises on purpose."""


class ArgumentError(AutobackboneError, ValueError):
    """An argument that cannot be used."""


class BudgetError(AutobackboneError, ValueError):
    """A budget that cannot be read, or in which nothing can be done."""


class DataError(AutobackboneError, ValueError):
    """Pictures or labels that cannot be used."""


class BackboneError(AutobackboneError, ValueError):
    """A backbone that timm does not know, or that does not fit the task."""


class WeightsError(BackboneError):
    """Weights that cannot be found or loaded here."""


class TargetError(AutobackboneError, ValueError):
    """A target that this machine does not have."""


class LimitsError(AutobackboneError, ValueError):
    """Limits that no candidate keeps."""


class SpaceError(AutobackboneError, ValueError):
    """A search space that cannot be read."""


class MetricError(AutobackboneError, ValueError):
    """A metric or task that is not known."""


class RunError(AutobackboneError, RuntimeError):
    """A run folder that cannot be opened or continued."""


class RunLockedError(RunError):
    """Another process works on this run folder."""


class TrialError(AutobackboneError, RuntimeError):
    """One trial failed, for a stated reason; the search goes on."""


class TrialDiskError(TrialError):
    """The disk is too small for a trial's files."""


class TrialMemoryError(TrialError, MemoryError):
    """Memory is too small for a trial."""


class TargetMemoryError(TargetError, TrialMemoryError):
    """A network that does not fit into the target's memory."""


class EpochTooLongError(TrialError):
    """Not one epoch fits the time that is left.

    Args:
        message: the reason.
        epoch_s: seconds that an epoch takes.
    """

    def __init__(self, message: str, epoch_s: float) -> None:
        super().__init__(message)
        self.epoch_s = epoch_s

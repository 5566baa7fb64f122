"""Signals while Lightning trains: Ctrl-C and SIGTERM do what they do anywhere else."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback


@contextlib.contextmanager
def ctrl_c_as_ever() -> Iterator[None]:
    """Lightning turns Ctrl-C inside `fit` into `SystemExit` and leaves the signal ignored: undo both."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from error
        raise
    finally:
        with contextlib.suppress(ValueError):  # not the main thread: no signal was touched either
            signal.signal(signal.SIGINT, handler)


class SigtermAsEver(Callback):
    """Puts back what SIGTERM did before `fit`.

    Lightning's own handler lets the step end and raises a `SystemExit` without a code: a process that was killed would
    end as one that has done its work.
    """

    def __init__(self) -> None:
        self.handler = signal.getsignal(signal.SIGTERM)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """After Lightning has set its own."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self.handler)

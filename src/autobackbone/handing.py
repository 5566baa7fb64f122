"""What users hand to Lightning's trainer: checked at the door, and in a form that crosses to worker processes."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib import import_module
from operator import attrgetter
from typing import Any, Literal, get_args

from autobackbone.errors import ArgumentError
from autobackbone.records import is_number

Strategy = Literal["ddp", "fsdp"]
"""How several devices train one network."""

# These change what is trained: a run notes them, and keeps them.
_DECISIVE = ("accumulate_grad_batches", "gradient_clip_algorithm", "gradient_clip_val", "precision")
_FREE = (
    *_DECISIVE,
    "benchmark",
    "default_root_dir",
    "detect_anomaly",
    "deterministic",
    "log_every_n_steps",
    "profiler",
)
# Others turn the weights themselves into another type, in which no network is scored, stored or handed out.
_PRECISIONS = ("32-true", "32", 32, "16-mixed", "16", 16, "bf16-mixed", "bf16", None)
_LIVE = (
    "it lives in this process alone, and {why} in others. Give ('package.module:factory', {{…}}), which each training "
)
_REMEDY = "makes anew, or workers=0, devices_per_trial=1 and no runner, which trains in this process"


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """Something that each training makes anew: a function or class that can be imported, with plain arguments.

    Args:
        factory: `package.module:name`.
        arguments: by name, as JSON can hold them.

    Example:
        >>> Made(factory="datetime:timedelta", arguments={"hours": 2}).make()
        datetime.timedelta(seconds=7200)
    """

    factory: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def make(self) -> Any:
        """Make one.

        Raises:
            ArgumentError: it cannot be made here.
        """
        found = self.found()
        try:
            return found(**self.arguments)
        except Exception as error:  # whatever a user's code may raise
            raise ArgumentError(
                f"{self.factory!r} could not be made with {dict(self.arguments)}: {error!r}."
            ) from error

    def require_fitting(self) -> None:
        """Make sure that it takes these arguments, without making anything: that may write files, or call a server.

        Raises:
            ArgumentError: it cannot be imported, or does not take them.
        """
        found = self.found()
        try:
            takes = inspect.signature(found)
        except (TypeError, ValueError):  # of some that are written in C, nobody knows before they are called
            return
        try:
            takes.bind(**self.arguments)
        except TypeError as error:
            raise ArgumentError(
                f"{self.factory!r} takes other arguments than {dict(self.arguments)}: {error}. It is "
                f"{self.factory.partition(':')[2]}{takes}."
            ) from error

    def found(self) -> Any:
        """What makes it.

        Raises:
            ArgumentError: it cannot be imported.
        """
        module, _, name = self.factory.partition(":")
        wanted = "Give 'package.module:name' of a function or a class"
        try:
            imported = import_module(module)
        except Exception as error:  # whatever a user's code may raise
            raise ArgumentError(f"{self.factory!r} cannot be imported: {error}. {wanted}.") from error
        try:
            found = attrgetter(name)(imported)
        except AttributeError:
            close = get_close_matches(name, vars(imported), n=1)
            hint = f"Did you mean {f'{module}:{close[0]}'!r}?" if close else f"{wanted}."
            # Alone: what attrgetter says of it is the same once more.
            raise ArgumentError(f"{self.factory!r} cannot be imported: {module} has no {name!r}. {hint}") from None
        except Exception as error:  # of a module that imports only when it is asked
            raise ArgumentError(f"{self.factory!r} cannot be imported: {error}. {wanted}.") from error
        if not callable(found):
            raise ArgumentError(f"{self.factory!r} is {found!r}. Give the name of a function or a class.")
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Handed:
    """What a user hands to Lightning's trainer.

    Args:
        trainer: arguments of `Trainer`, as Lightning names them.
        callbacks: beside our own; what is to be made, or live ones.
        loggers: the same.
        strategy: of several devices.
    """

    trainer: Mapping[str, Any] = field(default_factory=dict)
    callbacks: tuple[Any, ...] = ()
    loggers: tuple[Any, ...] = ()
    strategy: Strategy = "ddp"

    @property
    def accumulate(self) -> int:
        """Batches whose gradients make one step."""
        return int(self.trainer.get("accumulate_grad_batches", 1))

    def decisive(self) -> dict[str, Any]:
        """What of it changes a training, as plain data."""
        return {name: self.trainer[name] for name in _DECISIVE if name in self.trainer}

    def require_crossing(self, why: str) -> None:
        """Make sure that other processes can have it.

        Args:
            why: what trains there, to be said.

        Raises:
            ArgumentError: something of it lives in this process alone.
        """
        for name, some in (("callbacks", self.callbacks), ("loggers", self.loggers)):
            for one in some:
                if not isinstance(one, Made):
                    raise ArgumentError(f"{name} holds a {type(one).__name__}: {_LIVE.format(why=why)}{_REMEDY}.")
                if one.factory.startswith("__main__:"):
                    raise ArgumentError(
                        f"{name} holds {one.factory!r}, which is defined in the script or session that was started, "
                        f"and {why} in others. Put it into a module of its own, or give workers=0 and no runner."
                    )
        for name, value in self.trainer.items():
            if not is_plain(value):
                raise ArgumentError(
                    f"trainer_kwargs has {name}={value!r}: {_LIVE.format(why=why)}{_REMEDY}; or a plain value."
                )

    def to_json(self) -> dict[str, Any]:
        """Give a plain dict that JSON can hold; `require_crossing` was asked before."""
        made = {
            name: [[one.factory, dict(one.arguments)] for one in some]
            for name, some in (("callbacks", self.callbacks), ("loggers", self.loggers))
        }
        return {"trainer": dict(self.trainer), "strategy": self.strategy, **made}

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> Handed:
        """What `to_json` gave."""
        callbacks, loggers = (
            tuple(Made(factory=factory, arguments=arguments) for factory, arguments in facts[name])
            for name in ("callbacks", "loggers")
        )
        return cls(trainer=facts["trainer"], callbacks=callbacks, loggers=loggers, strategy=facts["strategy"])


NOTHING = Handed()


def as_handed(trainer_kwargs: object, callbacks: object, loggers: object, strategy: object = "ddp") -> Handed:
    """What a user gave, checked.

    Args:
        trainer_kwargs: arguments of Lightning's `Trainer` by name, or `None`.
        callbacks: one or several of `"package.module:factory"`, the same with arguments in a pair, or a live one.
        loggers: the same.
        strategy: `"ddp"` or `"fsdp"`.

    Raises:
        ArgumentError: an argument is not free, or something cannot be imported.

    Example:
        >>> as_handed({"precision": "bf16-mixed"}, None, ("datetime:timedelta", {"hours": 2})).loggers
        (Made(factory='datetime:timedelta', arguments={'hours': 2}),)
    """
    if strategy not in get_args(Strategy):
        raise ArgumentError(f"strategy is 'ddp' or 'fsdp', not {strategy!r}.")
    if trainer_kwargs is not None and not isinstance(trainer_kwargs, Mapping):
        raise ArgumentError(f"trainer_kwargs is a dict of arguments of Lightning's Trainer, not {trainer_kwargs!r}.")
    trainer = dict(trainer_kwargs or {})
    _require_free(trainer)
    return Handed(
        trainer=trainer,
        callbacks=tuple(_as_made("callbacks", one) for one in _each(callbacks)),
        loggers=tuple(_as_made("loggers", one) for one in _each(loggers)),
        strategy="fsdp" if strategy == "fsdp" else "ddp",
    )


def noted(trainer_kwargs: object) -> dict[str, Any]:
    """What a run has noted of arguments of the trainer: what changes a training, and that alone. A run from elsewhere
    may name more, such as a folder to write to.
    """
    given = trainer_kwargs if isinstance(trainer_kwargs, Mapping) else {}
    return {name: given[name] for name in _DECISIVE if name in given}


def _require_free(trainer: Mapping[str, Any]) -> None:
    owned = sorted(str(name) for name in trainer if name not in _FREE)
    if owned:
        raise ArgumentError(
            f"trainer_kwargs takes {', '.join(sorted(_FREE))}. {', '.join(owned)} came: what is trained, how long, "
            "on what, and what is kept of it, the search decides itself; loggers and callbacks are arguments of their "
            "own."
        )
    foreign = {name: value for name, value in trainer.items() if name in _DECISIVE and not is_plain(value)}
    if foreign:
        raise ArgumentError(
            f"{', '.join(foreign)} of trainer_kwargs are noted by the run, as plain texts and numbers of Python; "
            f"{foreign!r} came."
        )
    clip, algorithm = trainer.get("gradient_clip_val"), trainer.get("gradient_clip_algorithm")
    if clip is not None and not (is_number(clip) and clip >= 0):
        raise ArgumentError(f"gradient_clip_val is a number from 0, or None for no clipping, not {clip!r}.")
    if algorithm not in ("norm", "value", None):
        raise ArgumentError(f"gradient_clip_algorithm is 'norm' or 'value', not {algorithm!r}.")
    accumulate = trainer.get("accumulate_grad_batches", 1)
    if not isinstance(accumulate, int) or isinstance(accumulate, bool) or accumulate < 1:
        raise ArgumentError(f"accumulate_grad_batches is a whole number from 1, not {accumulate!r}.")
    if trainer.get("precision") not in _PRECISIONS:
        raise ArgumentError(
            f"precision is '32-true', '16-mixed' or 'bf16-mixed', not {trainer['precision']!r}: weights stay in "
            "float32, in which they are scored and kept."
        )


def _each(given: object) -> Sequence[Any]:
    """One or several; a text, and a pair of a text and arguments, are one."""
    if given is None:
        return ()
    is_pair = (
        isinstance(given, tuple) and len(given) == 2 and isinstance(given[0], str) and isinstance(given[1], Mapping)
    )
    if is_pair or isinstance(given, (str, Mapping)) or not isinstance(given, Iterable):
        return (given,)
    return tuple(given)


def _as_made(name: str, given: Any) -> Any:
    if isinstance(given, str):
        given = (given, {})
    if not isinstance(given, (tuple, list)):
        if given is None or isinstance(given, (bool, int, float, Mapping, type)):
            raise ArgumentError(
                f"{name} takes 'package.module:factory', ('package.module:factory', {{…}}), or a live one of "
                f"Lightning's; {given!r} came."
            )
        return given
    is_pair = len(given) == 2 and isinstance(given[0], str) and isinstance(given[1], Mapping)
    if not is_pair or not all(isinstance(key, str) for key in given[1]) or not is_plain(given[1]):
        raise ArgumentError(
            f"{name} takes ('package.module:factory', {{…}}) with arguments by name that JSON can hold; {given!r} came."
        )
    made = Made(factory=given[0], arguments=dict(given[1]))
    made.require_fitting()
    return made


def is_plain(value: Any) -> bool:
    """Whether JSON can hold it, and gives back the same."""
    try:
        return bool(json.loads(json.dumps(value)) == value)
    except (TypeError, ValueError):
        return False

"""A user's own metric, as torchmetrics has them: made from text or given itself, and scored."""

from __future__ import annotations

import inspect
import json
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from operator import attrgetter
from types import ModuleType
from typing import Any

import numpy as np
import torch
import torchmetrics
from numpy.typing import NDArray
from torch import Tensor, nn

from autobackbone.errors import MetricError
from autobackbone.metrics.resampling import Counts, Floats, Statistic

_REMEDY = (
    "Give it as text 'package.module:Name', where Name is a function without arguments that returns it, in a module "
    "that can be imported."
)


# What is raised with a sentence.
_TELLING = (ValueError, RuntimeError, TypeError)

# Whose metrics compute, and do nothing else.
_PLAIN = ("torchmetrics.classification.", "torchmetrics.regression.")


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Live:
    """A metric that was given itself; equal to itself alone, for `==` of two torchmetrics is a third.

    Args:
        made: never updated here, only clones of it.
    """

    made: torchmetrics.Metric


def made_from(text: str) -> torchmetrics.Metric:
    """Make a metric from text.

    Args:
        text: `"package.module:Name"`, a class of a metric or a function that makes one; without arguments, or with
            arguments by name as JSON behind it.

    Raises:
        MetricError: there is no such name, it needs arguments, or it gives something else.

    Example:
        >>> made_from("torchmetrics:MeanSquaredError")
        MeanSquaredError()
        >>> made_from('torchmetrics:MinkowskiDistance {"p": 3}')
        MinkowskiDistance()
    """
    name, _, given = text.partition(" ")
    found = _imported(name)
    if isinstance(found, torchmetrics.Metric):
        return found
    if not callable(found):
        raise MetricError(f"metric {text!r} names {found!r}, not a metric of torchmetrics. {_REMEDY}")
    try:
        with warnings.catch_warnings():
            # All pictures are scored at once anyway: that a metric keeps them all until then is no news.
            warnings.filterwarnings("ignore", message="Metric `.*` will save all")
            made = found(**_arguments(text, given))
    except MemoryError:
        raise
    except Exception as error:
        what = "with these arguments" if given else "without arguments"
        raise MetricError(f"metric {text!r} cannot be made {what}: {_said_by(error)}. {_REMEDY}") from error
    if not isinstance(made, torchmetrics.Metric):
        raise MetricError(f"metric {text!r} gives a {type(made).__name__}, not a metric of torchmetrics. {_REMEDY}")
    return made


def is_free_of_code(text: str) -> bool:
    """Whether making a metric from text runs no code but torchmetrics', or that of a module that was imported before.

    A run folder from elsewhere may name any module, whose import would run it, and any function, which would be called.

    Example:
        >>> is_free_of_code("accuracy"), is_free_of_code("torchmetrics:MeanSquaredError"), is_free_of_code("os:system")
        (True, True, False)
    """
    if ":" not in text:
        return True
    module, _, path = text.partition(" ")[0].partition(":")
    try:
        found: Any = import_module(module) if module.split(".")[0] == "torchmetrics" else sys.modules.get(module)
    except (ImportError, ValueError):
        return False
    for name in path.split("."):
        # Not by `getattr`: a module or a class may answer it by running something.
        found = vars(found).get(name) if isinstance(found, (ModuleType, type)) else None
    if not isinstance(found, type) or not issubclass(found, torchmetrics.Metric):
        return False
    # Others of torchmetrics fetch networks, or read files that are named to them.
    return found.__module__.split(".")[0] != "torchmetrics" or found.__module__.startswith(_PLAIN)


def name_of(made: torchmetrics.Metric) -> str:
    """What a user's own metric is called."""
    return type(made).__name__


def text_of(made: torchmetrics.Metric) -> str:
    """Text from which `made_from` makes the same metric in another process.

    Raises:
        MetricError: none does: its class is not importable, or its arguments cannot be read from it.

    Example:
        >>> text_of(torchmetrics.MeanSquaredError())
        'torchmetrics.regression.mse:MeanSquaredError'
        >>> text_of(torchmetrics.MinkowskiDistance(p=3))
        'torchmetrics.regression.minkowski:MinkowskiDistance {"p": 3}'
    """
    kind = type(made)
    name = f"{kind.__module__}:{kind.__qualname__}"
    if kind.__module__ != "__main__" and "<" not in kind.__qualname__:
        for text in (name, f"{name} {_settings(made)}"):
            try:
                again = made_from(text)
            except MetricError:
                continue
            if type(again) is kind and _is_alike(_fresh(made), again):
                return text
    raise MetricError(f"another process cannot make this {kind.__name__} again from its class alone. {_REMEDY}")


def _arguments(text: str, given: str) -> dict[str, Any]:
    if not given:
        return {}
    try:
        found = json.loads(given)
    except ValueError as error:
        raise MetricError(f"metric {text!r} has arguments that are no JSON: {error}. {_REMEDY}") from error
    if not isinstance(found, dict):
        raise MetricError(f"metric {text!r} has no arguments by name behind it, but {given}. {_REMEDY}")
    return found


def _settings(made: torchmetrics.Metric) -> str:
    """What its class was called with, as far as it keeps that under the same names; whether that is all shows later."""
    names = inspect.signature(type(made)).parameters
    kept = {name: getattr(made, name) for name in names if hasattr(made, name)}
    return json.dumps({name: value for name, value in kept.items() if _is_plain(value)})


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float, str))


def own_statistic(made: torchmetrics.Metric, predictions: Floats, labels: NDArray[Any], *, task: str) -> Statistic:
    """The user's own metric as a function of how often each picture counts.

    What cannot be scored is NaN where some pictures count more than once or not at all: a metric may need each class.
    That all pictures together can be scored is tried here.

    Args:
        made: stays as it is.
        predictions: (n_images, n_outputs).
        labels: (n_images,) or (n_images, n_outputs).
        task: of the labels.

    Raises:
        MetricError: as `own_score`.
    """
    scorer, (found, truth) = _clone(made), _as_tensors(predictions, labels, task)
    _value(scorer, found, truth)

    def value(rows: NDArray[np.intp]) -> float:
        picked = torch.from_numpy(rows)
        try:
            return _value(scorer, found[picked], truth[picked])
        except MetricError:
            return np.nan

    def statistic(counts: Counts) -> Floats:
        every = np.arange(len(found))
        # That a resample lacks a class or has one value only is expected, and not worth a warning each.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return np.array([value(np.repeat(every, row.astype(np.intp))) for row in counts])

    return statistic


def own_score(made: torchmetrics.Metric, predictions: Floats, labels: NDArray[Any], *, task: str) -> float:
    """Score all pictures by a clone of the user's own metric.

    Raises:
        MetricError: it refuses them, or gives no single number.
    """
    return _value(_clone(made), *_as_tensors(predictions, labels, task))


def _imported(text: str) -> Any:
    module, _, name = text.partition(":")
    try:
        return attrgetter(name)(import_module(module))
    except (ImportError, ValueError, AttributeError) as error:
        raise MetricError(f"metric {text!r} cannot be imported: {error}. {_REMEDY}") from error


def _fresh(made: torchmetrics.Metric) -> torchmetrics.Metric:
    clone = _clone(made)
    clone.reset()
    return clone


def _clone(made: torchmetrics.Metric) -> torchmetrics.Metric:
    """To be reset before it is used."""
    return made.clone().to("cpu")


def _as_tensors(predictions: Floats, labels: NDArray[Any], task: str) -> tuple[Tensor, Tensor]:
    if task != "regression":
        # torchmetrics takes what lies above 1, be it by rounding, for logits.
        return torch.from_numpy(predictions.clip(0, 1)).float(), torch.from_numpy(labels)
    one = slice(None) if predictions.shape[1] > 1 else 0
    return torch.from_numpy(predictions[:, one]).float(), torch.from_numpy(labels[:, one]).float()


def _value(scorer: torchmetrics.Metric, found: Tensor, truth: Tensor) -> float:
    name = name_of(scorer)
    # Processes that train with this one compute no metric, and would be waited for.
    for part in scorer.modules():
        if isinstance(part, torchmetrics.Metric):
            part.distributed_available_fn = _is_never_shared
    try:
        scorer.reset()
        scorer.update(found, truth)
        value = scorer.compute()
    except MemoryError:  # no fault of the metric's
        raise
    except Exception as error:  # whatever a user's code may raise
        raise MetricError(
            f"{name} cannot score predictions {tuple(found.shape)} and labels {tuple(truth.shape)}: {_said_by(error)}"
        ) from error
    number = torch.as_tensor(value) if isinstance(value, (Tensor, float, int)) else None
    if number is None or number.numel() != 1:
        what = type(value).__name__ if number is None else f"numbers {tuple(number.shape)}"
        raise MetricError(f"{name} has to give one number; {what} came. Let it average over classes, say.")
    return float(number)


def _is_never_shared() -> bool:
    return False


def _said_by(error: Exception) -> str:
    """Its words, with its kind where they may be none, or not tell what went wrong, such as a key alone."""
    return str(error) if isinstance(error, _TELLING) and str(error) else repr(error)


def _is_alike(one: Any, other: Any) -> bool:
    """Whether two values hold the same; `False` also where that cannot be told."""
    if type(one) is not type(other):
        return False
    if isinstance(one, nn.Module):
        return _is_alike(vars(one), vars(other))
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(_is_alike(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(_is_alike, one, other))
    if inspect.isroutine(one):
        return bool(_origin(one) == _origin(other))
    return torch.equal(one, other) if isinstance(one, Tensor) else bool(np.all(one == other))


def _origin(routine: Any) -> tuple[Any, str]:
    return routine.__module__, routine.__qualname__

"""The files of one trial in its run folder: weights as safetensors, predictions as plain NumPy arrays."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from autobackbone.backbones.tensors import own_tensors
from autobackbone.convexhead import Head
from autobackbone.data import codes_of
from autobackbone.errors import RunError, TrialDiskError
from autobackbone.records import Task
from autobackbone.runfolder import RunFolder, full_disk_told, write_text, written_whole

HEAD = "head.safetensors"
WEIGHTS = "weights.safetensors"
VALIDATION = "validation.npy"
TEST = "test.npy"
FOLDS = "folds.npy"
OUT_OF_FOLD = "out_of_fold.npy"
CHECKPOINT = "checkpoint.ckpt"
_LABEL = "label"
# Beyond it a number of double precision is whole by itself.
_MOST_CODES = 2.0**53


def write_pictures(run: RunFolder, names: Sequence[str], labels: NDArray[Any], parts: Sequence[str]) -> None:
    """Keep name, labels and part of each picture, one row each, as CSV.

    Args:
        run: of the pictures.
        names: n names.
        labels: (n,) codes of classes, or (n, k).
        parts: n names of parts.
    """
    columns = [_LABEL] if labels.ndim == 1 else [f"{_LABEL} {k}" for k in range(labels.shape[1])]
    table = pd.DataFrame(labels, columns=columns)
    table.insert(0, "name", list(names))
    table["part"] = list(parts)
    write_text(run.pictures_file, table.to_csv(index=False))


def read_labels(run: RunFolder, part: str, task: Task) -> NDArray[Any]:
    """Labels of a part's pictures, in the order of the bundle, as it holds them.

    Raises:
        RunError: the table is not there, or is none.
    """
    return read_all_labels(run, task)[(read_pictures(run)["part"] == part).to_numpy()]


def read_pooled_labels(run: RunFolder, task: Task) -> NDArray[Any]:
    """Labels of training and validation pictures together, in the order of the bundle, as `FOLDS` is.

    Raises:
        RunError: the table is not there, or is none.
    """
    return read_all_labels(run, task)[read_pictures(run)["part"].isin(["train", "validation"]).to_numpy()]


def read_all_labels(run: RunFolder, task: Task) -> NDArray[Any]:
    """Labels of all pictures, in the order of the bundle, as it holds them.

    Raises:
        RunError: the table is not there, or is none.
    """
    numbers = read_pictures(run).drop(columns=["name", "part"]).to_numpy(np.float64)
    if task == "regression":
        return numbers
    if not (numbers == np.round(numbers)).all() or not (np.abs(numbers) < _MOST_CODES).all():  # neither holds for NaN
        raise RunError(
            f"{str(run.pictures_file)!r} is damaged: labels of a {task} are whole numbers there. Put it back as the "
            "search wrote it, or search again."
        )
    labels = numbers.astype(np.int64)
    return labels[:, 0] if task == "classification" else labels


def read_pictures(run: RunFolder) -> pd.DataFrame:
    """Name, label (or `label 0`, `label 1`, …) and part of each picture of a run.

    Raises:
        RunError: the table is not there, or is none.
    """
    try:
        table = pd.read_csv(run.pictures_file, dtype={"name": str, "part": str}, keep_default_na=False)
        labels = [name for name in table.columns if name not in ("name", "part")]
        return table.astype(dict.fromkeys(labels or [_LABEL], "float64"))[["name", *labels, "part"]]
    except (OSError, ValueError, KeyError) as error:
        raise RunError(
            f"{str(run.pictures_file)!r} cannot be read ({error}). Put it back as the search wrote it, or search again."
        ) from error


def copies_noted(run: RunFolder, facts: Mapping[str, Any], n: int) -> NDArray[np.int64] | None:
    """The groups of copies that a run has noted, (n,) codes; `None` where it did not look.

    Raises:
        RunError: they are none.
    """
    groups = facts.get("copies")
    if groups is None:
        return None
    is_list = isinstance(groups, list) and all(isinstance(group, list) for group in groups)
    if not is_list or not all(type(index) is int and index >= 0 for group in groups for index in group):
        raise run.damaged("'copies' must be null or a list of lists of numbers of pictures")
    return codes_of(groups, n)


def save_head(run: RunFolder, number: int, head: Head) -> None:
    """Keep a screened head."""
    arrays = {**head.arrays(), "strength": np.array([head.strength])}
    _whole(_file(run, number, HEAD), lambda file: save_arrays(arrays, file))


def load_head(run: RunFolder, number: int) -> Head:
    """A screened head.

    Raises:
        RunError: it is not there or damaged.
    """
    file = _existing(run, number, HEAD)
    try:
        arrays = load_arrays(file)
        weight, bias, strength = arrays["weight"], arrays["bias"], float(arrays["strength"][0])
    except (SafetensorError, OSError, LookupError, TypeError, ValueError) as error:
        raise RunError(f"{str(file)!r} is damaged: {error}") from error
    if weight.ndim != 2 or bias.shape != weight.shape[:1]:
        raise RunError(
            f"{str(file)!r} is damaged: a head has a weight (n_outputs, n_features) and a bias (n_outputs,), and "
            f"{weight.shape} and {bias.shape} came."
        )
    return Head(weight=weight, bias=bias, strength=strength)


def is_kept(run: RunFolder, number: int, name: str) -> bool:
    """Whether a trial has a file of a name: `HEAD`, `VALIDATION`, `FOLDS`, `TEST` or another."""
    return (run.trial_folder(number) / name).is_file()


def has_weights(run: RunFolder, number: int) -> bool:
    """Whether the whole network of a trial is kept."""
    return is_kept(run, number, WEIGHTS)


def save_weights(run: RunFolder, number: int, state_dict: Mapping[str, Tensor], *, name: str = WEIGHTS) -> Path:
    """Keep a whole network; returns its file, which may have another name than the trial's own."""
    tensors, path = own_tensors(state_dict), _file(run, number, name)
    _whole(path, lambda file: save_file(tensors, file))
    return path


def load_weights(run: RunFolder, number: int, network: nn.Module) -> None:
    """Give a network the tensors that were kept of it.

    Raises:
        RunError: they are not there or damaged, or of another network.
    """
    file = _existing(run, number, WEIGHTS)
    try:
        tensors = load_file(file)
    except (SafetensorError, OSError) as error:
        raise RunError(f"{str(file)!r} is damaged: {error}") from error
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise RunError(
            f"{str(file)!r} is damaged: it holds other tensors than the network of trial {number}."
        ) from error


def save_predictions(run: RunFolder, number: int, name: str, predictions: NDArray[np.float32]) -> None:
    """Keep (n_images, n_outputs) predictions."""

    def write(file: Path) -> None:
        with file.open("wb") as opened:
            np.save(opened, predictions.astype(np.float32), allow_pickle=False)

    _whole(_file(run, number, name), write)


def load_predictions(
    run: RunFolder, number: int, name: str, *, shape: tuple[int, int] | None = None
) -> NDArray[np.float32]:
    """(n_images, n_outputs) predictions; `shape` is what they must have.

    Raises:
        RunError: they are not there or damaged.
    """
    file = _existing(run, number, name)
    try:
        predictions = _floats(file)
    # NumPy tells a header that it cannot read in any of these ways.
    except (OSError, ValueError, OverflowError, RecursionError, SyntaxError, TokenError) as error:
        raise RunError(f"{str(file)!r} is damaged: {error}") from error
    if shape is not None and predictions.shape != shape:
        raise RunError(f"{str(file)!r} is damaged: its shape must be {shape}, and {predictions.shape} came.")
    return predictions


def _floats(file: Path) -> NDArray[np.float32]:
    """An array as it was saved. A header that says more than follows would have memory for it reserved.

    Raises:
        ValueError: it is something else.
    """
    with file.open("rb") as opened:
        version = np.lib.format.read_magic(opened)
        if version != (1, 0):
            raise ValueError(f"predictions are in format 1.0 of NumPy, and {version} came")
        shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(opened)
        n_bytes = file.stat().st_size - opened.tell()
        if dtype != np.float32 or n_bytes != np.dtype(np.float32).itemsize * math.prod(shape):
            raise ValueError(f"its header tells of {shape} numbers of {dtype}, and {n_bytes} bytes follow")
        return np.fromfile(opened, np.float32).reshape(shape, order="F" if is_fortran else "C")


def load_folds(run: RunFolder, number: int, shape: tuple[int, int]) -> NDArray[np.float32]:
    """(n_repeats, n_images, n_outputs) predictions by folds; `shape` is what one repeat must have.

    Raises:
        RunError: they are not there or damaged.
    """
    predictions = load_predictions(run, number, FOLDS)
    if predictions.ndim == 2:  # of a run without repeats
        predictions = predictions[None]
    if predictions.shape[1:] != shape or len(predictions) == 0:
        file = _existing(run, number, FOLDS)
        raise RunError(f"{str(file)!r} is damaged: its shape must be (n, *{shape}), and {predictions.shape} came.")
    return predictions


def checkpoint_file(run: RunFolder, number: int) -> Path:
    """Where a training that pauses keeps what it needs to go on."""
    return _file(run, number, CHECKPOINT)


def has_checkpoint(run: RunFolder, number: int) -> bool:
    """Whether a trial that pauses can go on."""
    return is_kept(run, number, CHECKPOINT)


def _file(run: RunFolder, number: int, name: str) -> Path:
    folder = run.trial_folder(number)
    run.require_inside((folder.parent, folder, folder / name))
    with _told_of_disk(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder / name


def _existing(run: RunFolder, number: int, name: str) -> Path:
    file = run.trial_folder(number) / name
    if not file.is_file():
        raise RunError(
            f"{str(file)!r} is not there: weights are kept for the trials of the front alone, heads and predictions "
            "for all. If it was removed, put it back, or search again in another run_dir."
        )
    return file


def _whole(file: Path, write: Callable[[Path], None]) -> None:
    with _told_of_disk(file), written_whole(file) as temporary:
        write(temporary)


def _told_of_disk(file: Path) -> AbstractContextManager[None]:
    """Raises: TrialDiskError: the disk is full; safetensors tells it in its own way."""
    return full_disk_told(
        lambda error: TrialDiskError(f"there was no room for {str(file)!r}: {error}. Free some of the disk"),
        SafetensorError,
    )

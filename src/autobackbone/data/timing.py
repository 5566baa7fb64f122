"""What it costs to make pixels of the user's own pictures."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from autobackbone.data.parts import LEFT_OUT
from autobackbone.data.pictures import as_rgb, is_deep, quiet_pillow
from autobackbone.data.preparation import fit
from autobackbone.data.sources import printable
from autobackbone.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from autobackbone.data.surveying import Survey
    from autobackbone.records import ImageSize

_MIN_PICTURES = 3
_ENOUGH_S = 1.0


def preprocess_ms(survey: Survey, image_size: ImageSize, n: int = 20) -> float:
    """Measure the milliseconds from one picture in its source to pixels: a file is opened, decoded and resized.

    On one thread; each picture is read once before, so that what counts is the work and not the disk. It ends after
    about a second, at the earliest after three pictures.

    Args:
        survey: the dataset.
        image_size: height and width in pixels.
        n: pictures to time at most, at least 1, spread evenly over the dataset.

    Returns:
        The median, in milliseconds.

    Raises:
        DataError: none of the pictures can be read.
    """
    indices = np.flatnonzero(survey.parts != LEFT_OUT)
    chosen = indices[np.linspace(0, len(indices) - 1, min(n, len(indices)), dtype=np.int64)]
    begun = time.perf_counter()
    measured: list[float] = []
    with quiet_pillow():
        for index in chosen.tolist():
            ms = _one_ms(survey, index, image_size)
            measured += [] if ms is None else [ms]
            if len(measured) >= _MIN_PICTURES and time.perf_counter() - begun > _ENOUGH_S:
                break
    if not measured:
        first = printable(survey.names[int(chosen[0])])
        raise DataError(f"none of {len(chosen)} pictures can be read, such as '{first}'.")
    return float(np.median(measured))


def read_once(survey: Survey, index: int, image_sizes: Sequence[ImageSize]) -> bool:
    """Read one picture and bring it to each size, for the time it takes; whether it can be read."""
    preparation = survey.preparation
    try:
        picture = survey.source.read(index)
        if preparation.value_range is None and is_deep(picture):
            # Before decoding the range is open; any range costs the same.
            preparation = replace(preparation, value_range=(0.0, 1.0))
        rgb = as_rgb(picture, value_range=preparation.value_range, channels=preparation.channels)
        for image_size in image_sizes:
            fit(rgb, image_size, preparation)
    except Exception:  # noqa: BLE001  # a broken picture raises anything; decoding reports it
        return False
    return True


def _one_ms(survey: Survey, index: int, image_size: ImageSize) -> float | None:
    read_once(survey, index, [image_size])
    begin = time.perf_counter()
    is_read = read_once(survey, index, [image_size])
    return (time.perf_counter() - begin) * 1000.0 if is_read else None

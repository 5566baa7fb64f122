"""What it costs to make pixels of the user's own pictures."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from autobackbone.data.parts import LEFT_OUT
from autobackbone.data.pictures import is_deep, quiet_pillow
from autobackbone.data.preparation import to_pixels
from autobackbone.errors import DataError

if TYPE_CHECKING:
    from autobackbone.data.surveying import Survey
    from autobackbone.records import ImageSize


def preprocess_ms(survey: Survey, image_size: ImageSize, n: int = 20) -> float:
    """Measure the milliseconds from one picture in its source to pixels: a file is opened, decoded and resized.

    On one thread; each picture is read once before, so that what counts is the work and not the disk.

    Args:
        survey: the dataset.
        image_size: height and width in pixels.
        n: pictures to time, at least 1, spread evenly over the dataset.

    Returns:
        The median, in milliseconds.

    Raises:
        DataError: none of the pictures can be read.
    """
    indices = np.flatnonzero(survey.parts != LEFT_OUT)
    chosen = indices[np.linspace(0, len(indices) - 1, min(n, len(indices)), dtype=np.int64)]
    with quiet_pillow():
        times = [_one_ms(survey, int(index), image_size) for index in chosen]
    measured = [ms for ms in times if ms is not None]
    if not measured:
        raise DataError(f"none of {len(chosen)} pictures can be read, such as '{survey.names[int(chosen[0])]}'.")
    return float(np.median(measured))


def _one_ms(survey: Survey, index: int, image_size: ImageSize) -> float | None:
    preparation = survey.preparation
    try:
        picture = survey.source.read(index)
        if preparation.value_range is None and is_deep(picture):
            # Before decoding the range is open; any range costs the same.
            preparation = replace(preparation, value_range=(0.0, 1.0))
        to_pixels(picture, image_size, preparation)
        begin = time.perf_counter()
        to_pixels(survey.source.read(index), image_size, preparation)
    except Exception:  # noqa: BLE001  # a broken picture raises anything; decoding reports it
        return None
    return (time.perf_counter() - begin) * 1000.0

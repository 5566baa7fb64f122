"""What is black and what is white in pictures above 8 bits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from autobackbone.data.parts import TRAIN, Codes, Parts
from autobackbone.data.pictures import to_array

if TYPE_CHECKING:
    from autobackbone.data.sources import Fingerprint, Source

_N_PICTURES = 128
_N_VALUES = 1_000_000
_PERCENTILES = (0.1, 99.9)
# Of equal values, as a share of them: what is added to a large number must change it.
_LEAST_WIDTH = 1e-6


def measure_range(
    source: Source, fingerprints: list[Fingerprint], parts: Parts, channels: tuple[int, ...] | None
) -> tuple[float, float] | None:
    """Measure the range of all pictures above 8 bits, 0.1 to 99.9 percentile of the training part.

    At most 128 of them and a million of their values are looked at, spread evenly, so memory stays flat.

    Returns:
        (low, high), low below high; `None` where every picture has 8 bits, or none of those looked at can be read:
        decoding says why.
    """
    deep = np.array([fingerprint.is_deep for fingerprint in fingerprints], bool)
    if not deep.any():
        return None
    values = _sampled(source, np.flatnonzero(deep & (parts == TRAIN)), channels)
    if values.size == 0:
        values = _sampled(source, np.flatnonzero(deep), channels)
    if values.size == 0:
        return None
    low, high = (float(value) for value in np.percentile(values, _PERCENTILES))
    return low, high if high > low else low + max(1.0, abs(low) * _LEAST_WIDTH)


def _sampled(source: Source, indices: Codes, channels: tuple[int, ...] | None) -> np.ndarray[Any, Any]:
    """Values of some pictures, spread evenly; none of those that cannot be read."""
    if len(indices) == 0:
        return np.zeros(0)
    looked_at = indices[np.linspace(0, len(indices) - 1, min(len(indices), _N_PICTURES), dtype=np.int64)]
    each = _N_VALUES // len(looked_at)
    return np.concatenate([_values(source, int(index), channels, each) for index in looked_at])


def _values(source: Source, index: int, channels: tuple[int, ...] | None, n: int) -> np.ndarray[Any, Any]:
    try:
        flat = to_array(source.read(index), channels).reshape(-1)
    except Exception:  # noqa: BLE001  # a broken picture raises anything; decoding meets it again and reports it
        return np.zeros(0)
    step = max(1, -(-flat.size // n))
    # An odd step does not walk along one column or one channel of pictures with even sides.
    values = flat[:: step if step % 2 else step + 1].astype(np.float64)
    return values if np.isfinite(values).all() else np.zeros(0)

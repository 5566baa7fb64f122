"""How promising each backbone is before anything was computed, from published facts alone.

The measure is `merit`: ImageNet top-1 in points above what is usual at the same published speed. A fast network and an
accurate one are compared fairly by it, and "usual" is a curve through all that is published, not through what happens
to be loadable. Networks without published results take a prior: the median merit of their family and of networks
pre-trained on the same data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from autobackbone.backbones.names import pretrained_cfg

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CLASSES_OF_IMAGENET = 1000


def prospects(table: pd.DataFrame, speed_column: str) -> pd.DataFrame:
    """Add what is needed to rank backbones to the catalogue.

    Args:
        table: from `catalogue`, whole: the curve and the priors come from it.
        speed_column: published speed on a device like the target, such as `cpu_images_per_s`.

    Returns:
        The same rows, with `speed` (pictures per second, may be missing), `merit` (points, never missing),
        `is_compared` (merit is a fact, not a prior), `is_new` (nothing is published of any weights of the architecture)
        and `is_classifier_family` (the family was ever trained to tell ImageNet's classes apart).
    """
    rows = table.assign(speed=table[speed_column])
    rows["is_compared"] = rows["top1"].notna() & rows["speed"].notna()
    merit = pd.Series(np.nan, index=rows.index)
    compared = rows[rows["is_compared"]]
    merit[rows["is_compared"]] = merits(compared["speed"].to_numpy(float), compared["top1"].to_numpy(float))
    rows["merit"] = merit.fillna(_prior(rows, merit))
    rows["is_new"] = rows.groupby("architecture")["top1"].transform("count") == 0
    rows["is_classifier_family"] = rows["family"].isin(_classifier_families(rows))
    return rows


def merits(speed: NDArray[np.float64], top1: NDArray[np.float64]) -> NDArray[np.float64]:
    """Accuracy above the curve that is usual at a speed.

    The curve is a parabola in the logarithm of speed: each halving of speed buys fewer points than the one before.

    Args:
        speed: (n,) pictures per second, above 0.
        top1: (n,) per cent.

    Returns:
        (n,) points; their mean is 0.

    Example:
        >>> speed = np.array([1.0, 10.0, 100.0, 1000.0])
        >>> merits(speed, np.array([88.0, 85.0, 80.0, 71.0])).round(1).tolist()
        [0.1, -0.3, 0.3, -0.1]
    """
    logarithm = np.log2(speed)
    usual = np.polynomial.Polynomial.fit(logarithm, top1, deg=2)
    return top1 - usual(logarithm)


def _prior(rows: pd.DataFrame, merit: pd.Series[float]) -> pd.Series[float]:
    by_family = merit.groupby(rows["family"]).transform("median")
    by_data = merit.groupby(rows["pretraining"]).transform("median")
    # Of a family and data that nothing is known of, expect the usual.
    return pd.concat([by_family, by_data], axis=1).mean(axis=1).fillna(0.0)


def _classifier_families(rows: pd.DataFrame) -> set[str]:
    # Image towers of language models and segmenters carry feature maps for another network, and were never pooled.
    is_classifier = [pretrained_cfg(name).num_classes == _CLASSES_OF_IMAGENET for name in rows["name"]]
    return set(rows.loc[is_classifier, "family"])

"""Scores by name: their value, their orientation, and how far a finite number of pictures can be trusted.

Predictions and labels have one row per picture, in the same order:

| task | predictions | labels |
|---|---|---|
| classification | probabilities (n_images, n_classes) | (n_images,) whole numbers from 0 to `n_classes - 1` |
| multilabel | probabilities (n_images, n_labels), each from 0 to 1 on its own | (n_images, n_labels) of 0 and 1 |
| regression | numbers (n_images, n_targets) of any size | (n_images, n_targets) numbers |
"""

from autobackbone.metrics.intervals import interval, paired_interval
from autobackbone.metrics.known import Metric, Unit, aligned, bounds, metric_for, scale_of, shown, to_maximised
from autobackbone.metrics.own import is_free_of_code
from autobackbone.metrics.scoring import is_defined, paired_loss, require_scoring, score, standard_error

__all__ = [
    "Metric",
    "Unit",
    "aligned",
    "bounds",
    "interval",
    "is_defined",
    "is_free_of_code",
    "metric_for",
    "paired_interval",
    "paired_loss",
    "require_scoring",
    "scale_of",
    "score",
    "shown",
    "standard_error",
    "to_maximised",
]

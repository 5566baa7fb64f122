"""Predictions of every task, and what scikit-learn says of them."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from sklearn import metrics as reference

from autobackbone.metrics import Metric, metric_for

NAMES = {
    "classification": ("accuracy", "balanced_accuracy", "f1_macro", "log_loss", "top5", "auroc"),
    "regression": ("r2", "mae", "rmse"),
    "multilabel": ("map", "f1_micro", "f1_macro", "auroc", "log_loss", "accuracy"),
}
ALL = [(task, name) for task, names in NAMES.items() for name in names]
LOSSES = {"log_loss", "mae", "rmse"}
RESAMPLED = {"balanced_accuracy", "f1_macro", "f1_micro", "map", "r2", "rmse"}
N_OUTPUTS = {"classification": 8, "regression": 3, "multilabel": 6}


def found(task: str, name: str) -> Metric:
    return metric_for(name, task, n_outputs=N_OUTPUTS[task])


def example(
    task: str, seed: int, n_images: int = 120, *, sharpness: float = 2.0, n_present: int | None = None, digits: int = 9
) -> tuple[Any, Any]:
    """Predictions, better with more sharpness, and labels, of which the first `n_present` outputs occur."""
    generator = np.random.default_rng(seed)
    n_outputs = N_OUTPUTS[task]
    noise, n_present = generator.normal(size=(n_images, n_outputs)), n_present or n_outputs
    if task == "regression":
        # Scales as far apart as metres and millions.
        labels = generator.normal(3, 1, size=(n_images, n_outputs)) * [0.1, 1, 1e6][:n_outputs]
        return labels + noise * labels.std(axis=0) / sharpness if sharpness else noise, labels
    if task == "classification":
        codes = generator.integers(0, n_present, n_images)
        raised = np.exp(noise + sharpness * np.eye(n_outputs)[codes])
        return np.round(raised / raised.sum(axis=1, keepdims=True), digits), codes
    rates = np.where(np.arange(n_outputs) < n_present, np.linspace(0.1, 0.6, n_outputs), 0.0)
    labels = (generator.random((n_images, n_outputs)) < rates).astype(int)
    return np.round(1 / (1 + np.exp(-(noise + sharpness * (labels - 0.5)))), digits), labels


def by_scikit_learn(task: str, name: str, predictions: Any, labels: Any) -> float:
    with warnings.catch_warnings():
        # It says that a prediction names a class that no label names, or that there is one class: that is tested here.
        warnings.filterwarnings("ignore", message="y_pred contains classes not in y_true|A single label was found")
        return float(_REFERENCE[task](name, predictions, labels))


def _of_classification(name: str, probabilities: Any, labels: Any) -> Any:
    every, likeliest = range(probabilities.shape[1]), probabilities.argmax(axis=1)
    present = np.unique(labels)
    return {
        "accuracy": lambda: reference.accuracy_score(labels, likeliest),
        "balanced_accuracy": lambda: reference.balanced_accuracy_score(labels, likeliest),
        "f1_macro": lambda: reference.f1_score(labels, likeliest, average="macro"),
        "log_loss": lambda: reference.log_loss(labels, _summing_to_one(probabilities), labels=every),
        "top5": lambda: reference.top_k_accuracy_score(labels, probabilities, k=5, labels=every),
        "auroc": lambda: np.mean([reference.roc_auc_score(labels == k, probabilities[:, k]) for k in present]),
    }[name]()


def _of_regression(name: str, numbers: Any, labels: Any) -> Any:
    varied = np.ptp(labels, axis=0) > 0
    return {
        "r2": lambda: reference.r2_score(labels[:, varied], numbers[:, varied]),
        "mae": lambda: reference.mean_absolute_error(labels, numbers),
        "rmse": lambda: reference.root_mean_squared_error(labels, numbers),
    }[name]()


def _of_multilabel(name: str, probabilities: Any, labels: Any) -> Any:
    predicted = (probabilities > 0.5).astype(int)
    has_some, named = labels.any(axis=0), labels.any(axis=0) | predicted.any(axis=0)
    both = has_some & ~labels.all(axis=0)
    pairs = range(labels.shape[1])
    return {
        "map": lambda: reference.average_precision_score(labels[:, has_some], probabilities[:, has_some]),
        "f1_micro": lambda: reference.f1_score(labels, predicted, average="micro"),
        "f1_macro": lambda: np.mean([reference.f1_score(labels[:, k], predicted[:, k]) for k in np.flatnonzero(named)]),
        "auroc": lambda: reference.roc_auc_score(labels[:, both], probabilities[:, both]),
        "log_loss": lambda: np.mean(
            [reference.log_loss(labels[:, k], probabilities[:, k], labels=[0, 1]) for k in pairs]
        ),
        "accuracy": lambda: np.mean([reference.accuracy_score(labels[:, k], predicted[:, k]) for k in pairs]),
    }[name]()


def _summing_to_one(probabilities: Any) -> Any:
    return probabilities / probabilities.sum(axis=1, keepdims=True)


_REFERENCE = {"classification": _of_classification, "regression": _of_regression, "multilabel": _of_multilabel}

"""How good a model is on the held-out payments: figures and pictures."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from sklearn.metrics import (
    ConfusionMatrixDisplay,
    PrecisionRecallDisplay,
    RocCurveDisplay,
    average_precision_score,
    brier_score_loss,
    confusion_matrix,
    precision_recall_fscore_support,
    roc_auc_score,
)

BINS = 10
COUNT_METRICS = ("true_negatives", "false_positives", "false_negatives", "true_positives")

mpl.use("Agg")  # no screen is needed, nor is there one on a server

Labels = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def predict(model: Any, payments: Any, threshold: float) -> tuple[Labels, Floats]:
    """Predictions and fraud probabilities; at 0.5 the model's own predictions."""
    probabilities = model.predict_proba(payments)[:, list(model.classes_).index(1)]
    if threshold == 0.5:
        return np.asarray(model.predict(payments)), probabilities
    return (probabilities >= threshold).astype("int64"), probabilities


def compute_metrics(truth: Labels, predictions: Labels, probabilities: Floats) -> dict[str, float]:
    precision, recall, f1, _ = precision_recall_fscore_support(truth, predictions, average="binary", zero_division=0)
    matrix = confusion_matrix(truth, predictions, labels=[0, 1]).ravel()
    return {
        "precision": float(precision),
        "recall": float(recall),
        "f1": float(f1),
        "roc_auc": float(roc_auc_score(truth, probabilities)),
        "average_precision": float(average_precision_score(truth, probabilities)),
        "brier_score": float(brier_score_loss(truth, probabilities)),
        "calibration_error": calibration_error(truth, probabilities),
        **{name: float(count) for name, count in zip(COUNT_METRICS, matrix, strict=True)},
    }


def calibration_error(truth: Labels, probabilities: Floats) -> float:
    """Return the expected calibration error in [0, 1]: the difference between mean probability and share of frauds in
    each of ten bins of equal width, weighted by the bins' payments."""
    bins = np.minimum((probabilities * BINS).astype("int64"), BINS - 1)
    return float(np.abs(np.bincount(bins, probabilities - truth)).sum() / len(truth))


def draw_plots(truth: Labels, predictions: Labels, probabilities: Floats) -> dict[str, Figure]:
    """By file name. The part of the payments that is fraud is where a model that guesses would be."""
    share = float(truth.mean())
    confusion, roc, curve = (Figure(figsize=(6, 5), dpi=120, layout="constrained") for _ in range(3))

    axes = confusion.subplots()
    names = ["genuine", "fraud"]
    ConfusionMatrixDisplay.from_predictions(
        truth,
        predictions,
        labels=[0, 1],
        display_labels=names,
        cmap="Blues",
        colorbar=False,
        values_format=",d",
        ax=axes,
    )
    axes.set(title=f"{len(truth):,} held-out payments", xlabel="predicted", ylabel="in truth")

    axes = roc.subplots()
    RocCurveDisplay.from_predictions(truth, probabilities, plot_chance_level=True, name="model", ax=axes)
    axes.set(title="ROC curve", xlabel="false alarms / genuine payments", ylabel="found frauds / frauds (recall)")

    axes = curve.subplots()
    PrecisionRecallDisplay.from_predictions(truth, probabilities, plot_chance_level=True, name="model", ax=axes)
    axes.set(title=f"Precision and recall ({share:.2%} fraud)", xlabel="recall", ylabel="precision")
    return {"confusion_matrix.png": confusion, "roc_curve.png": roc, "precision_recall_curve.png": curve}

"""Evaluate a model on the held-out payments: metrics and plots."""

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

mpl.use("Agg")  # A server has no screen.

Labels = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def predict(model: Any, payments: Any, threshold: float) -> tuple[Labels, Floats]:
    """Return predictions and probabilities of fraud. At the threshold 0.5 the model's own `predict` decides."""
    probabilities = model.predict_proba(payments)[:, list(model.classes_).index(1)]
    if threshold == 0.5:
        return np.asarray(model.predict(payments)), probabilities
    return (probabilities >= threshold).astype("int64"), probabilities


def compute_metrics(labels: Labels, predictions: Labels, probabilities: Floats) -> dict[str, float]:
    """Return the metrics by name; `labels` say which payments are fraud."""
    precision, recall, f1, _ = precision_recall_fscore_support(labels, predictions, average="binary", zero_division=0)
    matrix = confusion_matrix(labels, predictions, labels=[0, 1]).ravel()
    return {
        "precision": float(precision),
        "recall": float(recall),
        "f1": float(f1),
        "roc_auc": float(roc_auc_score(labels, probabilities)),
        "average_precision": float(average_precision_score(labels, probabilities)),
        "brier_score": float(brier_score_loss(labels, probabilities)),
        "calibration_error": calibration_error(labels, probabilities),
        **{name: float(count) for name, count in zip(COUNT_METRICS, matrix, strict=True)},
    }


def calibration_error(labels: Labels, probabilities: Floats) -> float:
    """Return the expected calibration error in [0, 1], over ten bins of equal width.

    In each bin it is the difference between the mean probability and the share of frauds. The mean over the bins is
    weighted by their payments.
    """
    bins = np.minimum((probabilities * BINS).astype("int64"), BINS - 1)
    return float(np.abs(np.bincount(bins, probabilities - labels)).sum() / len(labels))


def draw_plots(labels: Labels, predictions: Labels, probabilities: Floats) -> dict[str, Figure]:
    """Return the confusion matrix, the ROC curve and the precision-recall curve by file name.

    The curves show the line of a random model as well.
    """
    share = float(labels.mean())
    confusion, roc, precision_recall = (Figure(figsize=(6, 5), dpi=120, layout="constrained") for _ in range(3))

    axes = confusion.subplots()
    ConfusionMatrixDisplay.from_predictions(
        labels,
        predictions,
        labels=[0, 1],
        display_labels=["genuine", "fraud"],
        cmap="Blues",
        colorbar=False,
        values_format=",d",
        ax=axes,
    )
    axes.set(title=f"{len(labels):,} held-out payments", xlabel="predicted", ylabel="actual")

    axes = roc.subplots()
    RocCurveDisplay.from_predictions(labels, probabilities, plot_chance_level=True, name="model", ax=axes)
    axes.set(
        title="ROC curve",
        xlabel="false positive rate (false alarms / genuine payments)",
        ylabel="recall (frauds found / frauds)",
    )

    axes = precision_recall.subplots()
    PrecisionRecallDisplay.from_predictions(labels, probabilities, plot_chance_level=True, name="model", ax=axes)
    axes.set(title=f"Precision and recall ({share:.2%} fraud)", xlabel="recall", ylabel="precision")
    return {"confusion_matrix.png": confusion, "roc_curve.png": roc, "precision_recall_curve.png": precision_recall}

from __future__ import annotations

import numpy as np
import pytest
from sklearn.dummy import DummyClassifier

from include.training.evaluation import calibration_error, compute_metrics, draw_plots, predict

LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 1])
PROBABILITIES = np.array([0.1, 0.2, 0.3, 0.7, 0.4, 0.6, 0.8, 0.9])


def test_metrics_equal_those_computed_by_hand() -> None:
    metrics = compute_metrics(LABELS, (PROBABILITIES > 0.5).astype(int), PROBABILITIES)

    assert metrics == pytest.approx(
        {
            "precision": 3 / 4,
            "recall": 3 / 4,
            "f1": 3 / 4,
            "roc_auc": 14 / 16,
            "average_precision": (1 + 1 + 3 / 4 + 4 / 5) / 4,
            "brier_score": (0.1**2 + 0.2**2 + 0.3**2 + 0.7**2 + 0.6**2 + 0.4**2 + 0.2**2 + 0.1**2) / 8,
            "calibration_error": (0.1 + 0.2 + 0.3 + 0.7 + 0.6 + 0.4 + 0.2 + 0.1) / 8,
            "true_negatives": 3,
            "false_positives": 1,
            "false_negatives": 1,
            "true_positives": 3,
        }
    )


def test_probabilities_equal_to_shares_of_fraud_have_no_calibration_error() -> None:
    labels = np.array([1, 0, 0, 0, 1, 1, 1, 0, 1])
    probabilities = np.array([0.25] * 4 + [0.75] * 4 + [1.0])

    assert calibration_error(labels, probabilities) == pytest.approx(0)
    assert calibration_error(labels, probabilities * 0.8) == pytest.approx((0.05 * 4 + 0.15 * 4 + 0.2) / 9)


def test_precision_is_zero_without_warning_if_no_fraud_is_found() -> None:
    metrics = compute_metrics(LABELS, np.zeros(8, dtype=int), PROBABILITIES)

    assert metrics["precision"] == metrics["recall"] == metrics["f1"] == 0


def test_threshold_decides_predictions() -> None:
    model = DummyClassifier(strategy="prior").fit(np.zeros((10, 1)), [0] * 7 + [1] * 3)
    payments = np.zeros((2, 1))

    assert predict(model, payments, 0.5)[0].tolist() == [0, 0]
    assert predict(model, payments, 0.3)[0].tolist() == [1, 1]
    assert predict(model, payments, 0.31)[0].tolist() == [0, 0]
    assert predict(model, payments, 0.3)[1].tolist() == [0.3, 0.3]


def test_plots_show_the_counts() -> None:
    plots = draw_plots(LABELS, (PROBABILITIES > 0.5).astype(int), PROBABILITIES)

    assert list(plots) == ["confusion_matrix.png", "roc_curve.png", "precision_recall_curve.png"]
    confusion, roc, curve = (figure.axes[0] for figure in plots.values())
    assert [text.get_text() for text in confusion.texts] == ["3", "1", "1", "3"]
    assert "AUC = 0.88" in str(roc.get_legend().get_texts()[0].get_text())
    assert "AP = 0.89" in str(curve.get_legend().get_texts()[0].get_text())

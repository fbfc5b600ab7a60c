"""Curves out of per-sample arrays, in numpy: ROC, precision-recall, reliability, risk-coverage."""

from __future__ import annotations

import numpy as np


def roc_curve(inside: np.ndarray, outside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Share of ID images flagged and of OOD images caught, for every threshold from the highest down.

    Args:
        inside: (N,) scores of ID images, higher = more OOD.
        outside: (M,) scores of OOD images.

    Returns:
        Two rising arrays that start at 0 and end at 1; equal scores make one step.
    """
    false, true = _counts(inside, outside)
    return false / len(inside), true / len(outside)


def pr_curve(inside: np.ndarray, outside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Recall and precision with OOD positive, for every threshold from the highest down (without the empty start)."""
    false, true = _counts(inside, outside)
    return true[1:] / len(outside), true[1:] / (true[1:] + false[1:])


def reliability(
    confidence: np.ndarray, correct: np.ndarray, bins: int = 15
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centre, accuracy and share of images of equal-width confidence bins ((m - 1)/bins, m/bins]."""
    index = np.searchsorted(np.arange(1, bins) / bins, confidence, side="left")
    size = np.bincount(index, minlength=bins)
    right = np.bincount(index, weights=np.asarray(correct, dtype=float), minlength=bins)
    return (np.arange(bins) + 0.5) / bins, right / np.maximum(size, 1), size / max(len(confidence), 1)


def risk_coverage(confidence: np.ndarray, correct: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coverage and selective risk: the share of errors among the k most confident images, for every k."""
    order = np.argsort(-np.asarray(confidence, dtype=float), kind="stable")
    wrong = np.cumsum(~np.asarray(correct, dtype=bool)[order])
    count = np.arange(1, len(order) + 1)
    return count / len(order), wrong / count


def confusion(label: np.ndarray, prediction: np.ndarray, classes: int) -> np.ndarray:
    """(classes, classes) counts by true label (rows) and prediction (columns)."""
    flat = label.astype(int) * classes + prediction.astype(int)
    return np.bincount(flat, minlength=classes * classes).reshape(classes, classes)


def _counts(inside: np.ndarray, outside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """ID and OOD images at or above each distinct score, highest first, after a start at none."""
    pooled = np.concatenate([inside, outside])
    order = np.argsort(-pooled, kind="stable")
    last = np.append(np.flatnonzero(np.diff(pooled[order])), len(order) - 1)
    true = np.cumsum(order >= len(inside))[last]
    return np.append(0, last + 1 - true), np.append(0, true)

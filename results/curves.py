"""Curves out of per-sample arrays: ROC, precision-recall, reliability, risk-coverage."""

from __future__ import annotations

import numpy as np

from .samples import BINS, Confidences, Scores


def roc_curve(inside: np.ndarray, outside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Share of ID images flagged and of OOD images caught, for every threshold from the highest down.

    Args:
        inside: (N,) scores of ID images, higher = more OOD.
        outside: (M,) scores of OOD images.

    Returns:
        Two rising arrays that start at 0 and end at 1; equal scores make one step.

    Raises:
        GauntletError: A side is empty or holds NaN or infinite scores.

    Example:
        >>> flagged, caught = roc_curve([0.1, 0.4], [0.4, 0.9])
        >>> flagged.tolist(), caught.tolist()
        ([0.0, 0.0, 0.5, 1.0], [0.0, 0.5, 1.0, 1.0])
    """
    ranking = Scores(inside, outside).ranking
    return np.append(0, ranking.flagged) / len(inside), np.append(0, ranking.caught) / len(outside)


def pr_curve(inside: np.ndarray, outside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Recall and precision with OOD positive, for every threshold from the highest down (without the empty start).

    Args:
        inside: (N,) scores of ID images, higher = more OOD.
        outside: (M,) scores of OOD images.

    Raises:
        GauntletError: A side is empty or holds NaN or infinite scores.
    """
    ranking = Scores(inside, outside).ranking
    return ranking.caught / len(outside), ranking.caught / (ranking.caught + ranking.flagged)


def reliability(
    confidence: np.ndarray, correct: np.ndarray, bins: int = BINS
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centre, accuracy and share of images of equal-width confidence bins ((m - 1)/bins, m/bins].

    Args:
        confidence: (N,) largest probabilities.
        correct: (N,) whether the prediction is right.
        bins: Number of bins.

    Returns:
        Three arrays (bins,); the accuracy of an empty bin is 0.

    Raises:
        GauntletError: There are no images, or a confidence is NaN or infinite.
    """
    found = Confidences(confidence, correct, bins).reliability
    return (np.arange(bins) + 0.5) / bins, found.accuracy, found.size / found.size.sum()


def risk_coverage(confidence: np.ndarray, correct: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coverage and selective risk (N,): the share of errors among the k most confident images, for every k.

    Args:
        confidence: (N,) larger where the model is more certain.
        correct: (N,) whether the prediction is right.

    Example:
        >>> risk_coverage(np.array([0.9, 0.6]), np.array([True, False]))[1].tolist()
        [0.0, 0.5]
    """
    order = np.argsort(-np.asarray(confidence, dtype=float), kind="stable")
    wrong = np.cumsum(~np.asarray(correct, dtype=bool)[order])
    count = np.arange(1, len(order) + 1)
    return count / len(order), wrong / count


def confusion(label: np.ndarray, prediction: np.ndarray, classes: int) -> np.ndarray:
    """(classes, classes) counts by true label (N,) (rows) and prediction (N,) (columns)."""
    flat = label.astype(int) * classes + prediction.astype(int)
    return np.bincount(flat, minlength=classes * classes).reshape(classes, classes)

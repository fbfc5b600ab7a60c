"""Split conformal prediction: nonconformity of classes, the finite-sample quantile, and the sets that follow.

Vovk, Gammerman, Shafer 2005; Angelopoulos, Bates 2021, arXiv 2107.07511. If calibration and test images are
exchangeable, a set holds the true class with probability 1 - miscoverage or more, whatever the model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np


def threshold(probabilities: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """One minus the probability of each class (N, C): the smallest sets on average (Sadinle et al. 2019)."""
    return 1 - probabilities


def aps(probabilities: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """Probability of all classes that are likelier, plus a random share of its own, for each class (N, C).

    Romano, Sesia, Candes 2020, arXiv 2006.02544; ``uniform`` (N,) in [0, 1) is that share of each image.
    """
    order = np.argsort(-probabilities, axis=1, kind="stable")
    ordered = np.take_along_axis(probabilities, order, axis=1)
    scores = ordered.cumsum(1) - (1 - uniform[:, None]) * ordered
    found = np.empty_like(scores)
    np.put_along_axis(found, order, scores, axis=1)
    return found


#: From probabilities (N, C) and uniform numbers (N,) to nonconformity (N, C), by name.
SCORES: Mapping[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {"threshold": threshold, "aps": aps}


def quantile(scores: np.ndarray, miscoverage: float) -> float:
    """The ceil((n + 1)(1 - miscoverage))-th smallest of n scores; infinite where there are too few.

    >>> quantile(np.arange(1.0, 20.0), 0.1), quantile(np.arange(8.0), 0.1)
    (18.0, inf)
    """
    rank = math.ceil((len(scores) + 1) * (1 - miscoverage) - 1e-9)
    return float(np.partition(scores, rank - 1)[rank - 1]) if 1 <= rank <= len(scores) else math.inf


def class_quantiles(scores: np.ndarray, labels: np.ndarray, classes: int, miscoverage: float) -> np.ndarray:
    """One quantile a class (C,), of the scores (n,) of its own images: coverage within each class (Vovk 2012)."""
    return np.array([quantile(scores[labels == index], miscoverage) for index in range(classes)])


def of_truth(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The nonconformity (N,) of the true classes."""
    return np.take_along_axis(scores, labels[:, None], axis=1)[:, 0]

"""Confidence intervals of proportions, means, medians and areas under the ROC curve."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import special

from ..registry import GauntletError

Interval = tuple[float, float]


def proportion_interval(successes: float, n: int, level: float = 0.95) -> Interval:
    """Exact interval of a proportion (Clopper & Pearson 1934), through quantiles of the beta distribution.

    Args:
        successes: Between 0 and ``n``; it need not be whole, so that a share of ``n`` pairs can be given.
        n: Number of trials; with none, nothing is known and the interval is [0, 1].
        level: Coverage, at least.

    Returns:
        (low, high) in [0, 1], with ``successes / n`` inside and never of zero width.

    Raises:
        GauntletError: ``successes`` is not between 0 and ``n``.

    Example:
        >>> low, high = proportion_interval(10, 10)
        >>> round(low, 4), high
        (0.6915, 1.0)
    """
    if not -1e-9 <= successes <= n * (1 + 1e-9):
        raise GauntletError(f"A proportion needs successes between 0 and n = {n}, got {successes}.")
    if n == 0:
        return 0.0, 1.0
    successes = float(np.clip(successes, 0, n))
    tail = (1 - level) / 2
    failures = n - successes
    low = float(special.betaincinv(successes, failures + 1, tail)) if successes > 0 else 0.0
    high = float(special.betaincinv(successes + 1, failures, 1 - tail)) if failures > 0 else 1.0
    return around(successes / n, low, high)


def mean_interval(values: Any, level: float = 0.95) -> Interval:
    """Student's t interval of the mean of independent values.

    Exact for normal values, asymptotic otherwise. Values that are all the same have zero width (there is no bound
    for the mean of an unbounded quantity that holds for every distribution); a single value has no interval: NaN, NaN.

    Args:
        values: (N,) numbers.
        level: Coverage.
    """
    values = check_sample(values, "values")
    n = len(values)
    if n < 2:
        return float("nan"), float("nan")
    mean = float(values.mean())
    half = float(special.stdtrit(n - 1, (1 + level) / 2) * values.std(ddof=1) / np.sqrt(n))
    return mean - half, mean + half


def median_interval(values: Any, level: float = 0.95, *, low: float = -np.inf, high: float = np.inf) -> Interval:
    """Distribution-free interval of the median between two order statistics (David & Nagaraja 2003, section 7.1).

    Args:
        values: (N,) numbers; infinite ones are fine (an image that is never fooled).
        level: Coverage, at least.
        low: Bound of the quantity, the answer where there are too few values (under 6 at 95 %).
        high: Likewise.
    """
    values = np.sort(np.asarray(values, dtype=np.float64).ravel())
    if np.isnan(values).any():
        raise GauntletError("The median's interval needs numbers, got NaN among the values.")
    n = len(values)
    # P(at most k of n values lie below the median) for k = 0, 1, ...: how many order statistics to pass over
    passed = int(np.sum(special.bdtr(np.arange(n // 2), n, 0.5) <= (1 - level) / 2)) if n else 0
    if passed == 0:
        return low, high
    return float(values[passed - 1]), float(values[n - passed])


def auroc_interval(
    id_scores: Any, ood_scores: Any, level: float = 0.95, *, id_images: Any = None, ood_images: Any = None
) -> Interval:
    """DeLong's interval of the AUROC (DeLong et al. 1988), from midranks (Sun & Xu 2014).

    Normal approximation, clipped to [0, 1]. Where the variance estimate is zero (AUROC 0 or 1, constant scores, a
    single score on one side) the normal interval would be a point; then the exact bound of
    k = min(n_id, n_ood) independent (ID, OOD) pairs stands in, Clopper-Pearson of (AUROC * k, k).

    Scores of versions of one image (clean and attacked, say) err together: with the numbers of the images, the variance
    is that of sums over images (Obuchowski 1997, "Nonparametric analysis of clustered ROC curve data").

    Args:
        id_scores: (N,) scores of ID images, higher = more OOD.
        ood_scores: (M,) scores of OOD images.
        level: Coverage.
        id_images: (N,) whole numbers that tell which image each ID score is of; None where all differ.
        ood_images: (M,) the same of the OOD scores.

    Raises:
        GauntletError: A side is empty or holds NaN or infinite scores.
    """
    id_scores, ood_scores = check_sample(id_scores, "ID scores"), check_sample(ood_scores, "OOD scores")
    above_id = twice_below(ood_scores, id_scores)  # (M,) whole numbers, so that "no variance" is exact
    above_ood = twice_below(id_scores, ood_scores)  # (N,)
    n, m = len(id_scores), len(ood_scores)
    auroc = float(above_id.mean() / (2 * n))
    if min(n, m) < 2 or (np.ptp(above_id) == 0 and np.ptp(above_ood) == 0):
        k = min(n, m)
        return around(auroc, *proportion_interval(auroc * k, k, level))
    if id_images is None or ood_images is None:
        variance = (above_id / (2 * n)).var(ddof=1) / m + (above_ood / (2 * m)).var(ddof=1) / n
    else:
        shares = np.concatenate([(1 - above_ood / (2 * m) - auroc) / n, (above_id / (2 * n) - auroc) / m])
        _, image = np.unique(np.concatenate([id_images, ood_images]), return_inverse=True)
        sums = np.bincount(image, shares)
        variance = (sums**2).sum() * len(sums) / max(len(sums) - 1, 1)
    half = float(special.ndtri((1 + level) / 2) * np.sqrt(variance))
    return max(auroc - half, 0.0), min(auroc + half, 1.0)


def autc_interval(id_scores: Any, ood_scores: Any, level: float = 0.95) -> Interval:
    """Interval of the AUTC, half the difference of two means of scores scaled to [0, 1]; normal approximation.

    The smallest and largest score are taken as they are. Scores without variance have the interval [0, 1].

    Args:
        id_scores: (N,) scores of ID images, higher = more OOD.
        ood_scores: (M,) scores of OOD images.
        level: Coverage.
    """
    sides = check_sample(id_scores, "ID scores"), check_sample(ood_scores, "OOD scores")
    low, high = min(side.min() for side in sides), max(side.max() for side in sides)
    if min(map(len, sides)) < 2 or low == high:
        return 0.0, 1.0
    inside, outside = ((side - low) / (high - low) for side in sides)
    variance = inside.var(ddof=1) / len(inside) + outside.var(ddof=1) / len(outside)
    if variance == 0:
        return 0.0, 1.0
    point = float(0.5 + (inside.mean() - outside.mean()) / 2)
    half = float(special.ndtri((1 + level) / 2) * np.sqrt(variance) / 2)
    return around(point, max(point - half, 0.0), min(point + half, 1.0))


def around(point: float, low: float, high: float) -> Interval:
    """The interval, widened where rounding left the point outside."""
    return min(low, point), max(high, point)


def twice_below(scores: np.ndarray, others: np.ndarray) -> np.ndarray:
    """For each score twice the number of ``others`` below it, ties counting one half."""
    others = np.sort(others)
    return np.searchsorted(others, scores, "left") + np.searchsorted(others, scores, "right")


def check_sample(values: Any, what: str) -> np.ndarray:
    """The values as float64 (N,), or an error if there are none or one is not finite."""
    values = np.asarray(values, dtype=np.float64).ravel()
    if not len(values):
        raise GauntletError(f"An interval needs at least one of the {what}, got none.")
    if not np.isfinite(values).all():
        raise GauntletError(f"An interval needs finite {what}, got NaN or infinite ones.")
    return values

"""Confidence intervals of proportions, means, medians and gaps."""

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

    Raises:
        GauntletError: There are no values, or one is NaN or infinite.

    Example:
        >>> low, high = mean_interval([1.0, 2.0, 3.0])
        >>> round(low, 3), round(high, 3)
        (-0.484, 4.484)
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

    Raises:
        GauntletError: A value is NaN.

    Example:
        >>> median_interval([1, 2, 3, 4, 5, 6, 7])
        (1.0, 7.0)
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


def normal_interval(
    point: float, variance: float, level: float = 0.95, low: float = 0.0, high: float = 1.0
) -> Interval:
    """The point and so many standard errors to both sides, clipped to [low, high]."""
    half = float(special.ndtri((1 + level) / 2) * np.sqrt(variance))
    return around(point, max(point - half, low), min(point + half, high))


def gap_interval(confidence: Any, right: Any, level: float = 0.95) -> Interval:
    """Interval of the mean of confidences less the share of right images.

    From Student's t interval of the one and the exact interval of the other (Zou & Donner 2008, "Construction of
    confidence limits about effect measures"), taken as independent, which errs on the wide side.

    Args:
        confidence: (N,) largest probabilities.
        right: (N,) whether the prediction is right.
        level: Coverage.
    """
    confidence = check_sample(confidence, "confidences")
    n, hits = len(confidence), float(np.asarray(right, dtype=np.float64).sum())
    mean, share = float(confidence.mean()), hits / n
    low, high = proportion_interval(hits, n, level)
    reach = mean_interval(confidence, level)[1] - mean if n > 1 else 1.0
    gap = mean - share
    below, above = (float(np.hypot(reach, end - share)) for end in (high, low))
    return max(gap - below, -1.0), min(gap + above, 1.0)


def around(point: float, low: float, high: float) -> Interval:
    """The interval, widened where rounding left the point outside."""
    return min(low, point), max(high, point)


def check_sample(values: Any, what: str) -> np.ndarray:
    """The values as float64 (N,).

    Raises:
        GauntletError: There are none, or one is not finite; ``what`` is how the message calls them.
    """
    values = np.asarray(values, dtype=np.float64).ravel()
    if not len(values):
        raise GauntletError(f"Metrics and intervals need at least one of the {what}, got none.")
    bad = int((~np.isfinite(values)).sum())
    if bad:
        raise GauntletError(f"Metrics and intervals need finite {what}, but {bad} of {len(values)} are not.")
    return values

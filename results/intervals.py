"""Confidence intervals of proportions, means, medians and areas under the ROC curve."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import special

from ..registry import GauntletError

Interval = tuple[float, float]


class Placements(NamedTuple):
    """The share of the other side on the right side of each image, ties one half; both means are the AUROC."""

    of_id: np.ndarray  # (N,)
    of_ood: np.ndarray  # (M,)


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
    of_id, of_ood = placements(id_scores, ood_scores)
    auroc, variance = float(of_ood.mean()), delong_variance(of_id, of_ood)
    pairs = min(len(of_id), len(of_ood))
    if pairs < 2 or variance == 0:
        return around(auroc, *proportion_interval(auroc * pairs, pairs, level))
    if id_images is not None and ood_images is not None:
        shares = np.concatenate([(of_id - auroc) / len(of_id), (of_ood - auroc) / len(of_ood)])
        _, image = np.unique(np.concatenate([id_images, ood_images]), return_inverse=True)
        sums = np.bincount(image, shares)
        variance = (sums**2).sum() * len(sums) / max(len(sums) - 1, 1)
    return normal_interval(auroc, variance, level)


def oscr_interval(id_scores: Any, ood_scores: Any, correct: Any, level: float = 0.95) -> Interval:
    """DeLong's interval of the OSCR: an AUROC in which an ID image that is classified wrongly wins no comparison.

    Args:
        id_scores: (N,) scores of ID images, higher = more OOD.
        ood_scores: (M,) scores of OOD images.
        correct: (N,) whether each ID image is classified correctly.
        level: Coverage.

    Raises:
        GauntletError: A side is empty or holds NaN or infinite scores.
    """
    right = np.asarray(correct, dtype=bool).ravel()
    id_scores, ood_scores = check_sample(id_scores, "ID scores"), check_sample(ood_scores, "OOD scores")
    of_id = placements(id_scores, ood_scores).of_id * right
    variance = delong_variance(of_id, _twice_below(ood_scores, id_scores[right]) / (2 * len(id_scores)))
    if variance == 0:
        return auroc_interval(id_scores, ood_scores, level) if right.all() else (0.0, 1.0)
    return normal_interval(float(of_id.mean()), variance, level)


def mean_auroc_interval(id_scores: Any, ood_sides: Sequence[Any], level: float = 0.95) -> Interval:
    """Interval of the unweighted mean of the AUROCs of one detector on several OOD sets.

    The ID images are the same for all sets, whose AUROCs therefore vary together; without variance the mean of their
    exact intervals stands in.

    Args:
        id_scores: (N,) scores of the ID images.
        ood_sides: (M_k,) scores of each OOD set.
        level: Coverage.

    Raises:
        GauntletError: There is no set, or a side is empty or holds NaN or infinite scores.
    """
    sides = [placements(id_scores, ood_scores) for ood_scores in ood_sides]
    if not sides:
        raise GauntletError("The mean over OOD sets needs at least one set, got none.")
    of_id = np.mean([side.of_id for side in sides], axis=0)
    mean = float(of_id.mean())
    variance = delong_variance(of_id, *(side.of_ood / len(sides) for side in sides))
    if variance == 0:
        ends = np.mean([auroc_interval(id_scores, ood_scores, level) for ood_scores in ood_sides], axis=0)
        return around(mean, float(ends[0]), float(ends[1]))
    return normal_interval(mean, variance, level)


def autc_interval(id_scores: Any, ood_scores: Any, level: float = 0.95) -> Interval:
    """Interval of the AUTC, half the difference of two means of scores scaled to [0, 1]; normal approximation.

    The smallest and largest score are taken as they are. Scores without variance have the interval [0, 1].

    Args:
        id_scores: (N,) scores of ID images, higher = more OOD.
        ood_scores: (M,) scores of OOD images.
        level: Coverage.

    Raises:
        GauntletError: A side is empty or holds NaN or infinite scores.
    """
    sides = check_sample(id_scores, "ID scores"), check_sample(ood_scores, "OOD scores")
    low, high = min(side.min() for side in sides), max(side.max() for side in sides)
    if min(map(len, sides)) < 2 or low == high:
        return 0.0, 1.0
    inside, outside = ((side - low) / (high - low) for side in sides)
    variance = inside.var(ddof=1) / len(inside) + outside.var(ddof=1) / len(outside)
    if variance == 0:
        return 0.0, 1.0
    return normal_interval(float(0.5 + (inside.mean() - outside.mean()) / 2), variance / 4, level)


def placements(id_scores: Any, ood_scores: Any) -> Placements:
    """The structural components of an AUROC, from midranks (Sun & Xu 2014).

    Args:
        id_scores: (N,) scores of ID images, higher = more OOD.
        ood_scores: (M,) scores of OOD images.

    Raises:
        GauntletError: A side is empty or holds NaN or infinite scores.

    Example:
        >>> of_id, of_ood = placements([0.1, 0.6], [0.5, 0.6, 0.9])
        >>> of_id.round(3).tolist(), of_ood.tolist()
        ([1.0, 0.5], [0.5, 0.75, 1.0])
    """
    id_scores, ood_scores = check_sample(id_scores, "ID scores"), check_sample(ood_scores, "OOD scores")
    return Placements(
        1 - _twice_below(id_scores, ood_scores) / (2 * len(ood_scores)),
        _twice_below(ood_scores, id_scores) / (2 * len(id_scores)),
    )


def delong_variance(of_id: np.ndarray, *of_ood: np.ndarray) -> float:
    """Of a sum of independent means of placements (N,), (M,), ...; 0 where rounding is all that varies."""
    sides = [side for side in (of_id, *of_ood) if len(side) > 1 and np.ptp(side) > 1e-12]
    return float(sum(side.var(ddof=1) / len(side) for side in sides))


def normal_interval(
    point: float, variance: float, level: float = 0.95, low: float = 0.0, high: float = 1.0
) -> Interval:
    """The point and so many standard errors to both sides, clipped to [low, high]."""
    half = float(special.ndtri((1 + level) / 2) * np.sqrt(variance))
    return around(point, max(point - half, low), min(point + half, high))


def around(point: float, low: float, high: float) -> Interval:
    """The interval, widened where rounding left the point outside."""
    return min(low, point), max(high, point)


def _twice_below(scores: np.ndarray, others: np.ndarray) -> np.ndarray:
    """For each score twice the number of ``others`` below it, ties counting one half."""
    others = np.sort(others)
    below = np.searchsorted(others, scores, "left")
    if not len(others) or (others[np.minimum(below, len(others) - 1)] != scores).all():  # no ties: half the work
        return 2 * below
    return below + np.searchsorted(others, scores, "right")


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

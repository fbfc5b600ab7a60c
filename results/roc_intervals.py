"""Confidence intervals of areas under the ROC curve and their kin, from the placements of images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import special

from ..registry import GauntletError
from .intervals import Interval, around, check_sample, normal_interval, proportion_interval

_FEW = 10  # images that are ranked wrongly


class Placements(NamedTuple):
    """The share of the other side on the right side of each image, ties one half; both means are the AUROC."""

    of_id: np.ndarray  # (N,)
    of_ood: np.ndarray  # (M,)


def auroc_interval(
    id_scores: Any, ood_scores: Any, level: float = 0.95, *, id_images: Any = None, ood_images: Any = None
) -> Interval:
    """Interval of the AUROC on the logit scale, by DeLong's variance (DeLong et al. 1988), midranks by Sun & Xu (2014).

    Where few images decide, it is widened as :func:`area_interval` says. Where the variance estimate is zero (AUROC 0
    or 1, constant scores, a single score on one side) it would be a point; then the exact bound of
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
    return area_interval(auroc, variance, (len(of_id), len(of_ood)), level)


def oscr_interval(id_scores: Any, ood_scores: Any, correct: Any, level: float = 0.95) -> Interval:
    """Interval of the OSCR, an AUROC in which an ID image that is classified wrongly wins no comparison.

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
    return area_interval(float(of_id.mean()), variance, (len(id_scores), len(ood_scores)), level)


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
    return area_interval(mean, variance, (len(of_id), min(len(side.of_ood) for side in sides)), level)


def area_interval(area: float, variance: float, sizes: tuple[int, int], level: float = 0.95) -> Interval:
    """Interval of an area under an ROC curve, from its variance on the logit scale (Pepe 2003, section 5.2).

    An area near 0 or 1 rests on the few images that are ranked wrongly, and its variance on as few: with under ten on
    the smaller side the interval also takes in the score interval of Newcombe (2006, "Confidence
    intervals for an effect size measure based on the Mann-Whitney statistic", method 5), whose variance follows from
    the area itself. Simulated coverage: docs/statistics.md.

    Args:
        area: In [0, 1].
        variance: Of the area.
        sizes: Number of images on each side.
        level: Coverage.
    """
    z = float(special.ndtri((1 + level) / 2))
    if not 0 < area < 1 or variance <= 0:
        return around(area, *proportion_interval(area * min(sizes), min(sizes), level))
    half = z * np.sqrt(variance) / (area * (1 - area))
    low, high = (float(special.expit(special.logit(area) + side)) for side in (-half, half))
    if min(sizes) * min(area, 1 - area) < _FEW:
        low, high = min(low, _score_end(area, 0.0, sizes, z)), max(high, _score_end(area, 1.0, sizes, z))
    return around(area, low, high)


def _score_end(area: float, end: float, sizes: tuple[int, int], z: float) -> float:
    """Between the area and this end of [0, 1], the true area farthest away that is still within z standard errors."""
    inside, outside, more = area, end, sum(sizes) / 2 - 1
    for _ in range(50):
        x = (inside + outside) / 2
        variance = x * (1 - x) * (1 + more * ((1 - x) / (2 - x) + x / (1 + x))) / (sizes[0] * sizes[1])
        inside, outside = (x, outside) if abs(x - area) <= z * np.sqrt(variance) else (inside, x)
    return inside


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


def _twice_below(scores: np.ndarray, others: np.ndarray) -> np.ndarray:
    """For each score twice the number of ``others`` below it, ties counting one half."""
    others = np.sort(others)
    below = np.searchsorted(others, scores, "left")
    if not len(others) or (others[np.minimum(below, len(others) - 1)] != scores).all():  # no ties: half the work
        return 2 * below
    return below + np.searchsorted(others, scores, "right")

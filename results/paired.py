"""Detectors compared on the same images: DeLong's test, and means over OOD sets that share their ID images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import special

from ..registry import GauntletError
from .intervals import Interval, around, auroc_interval, check_sample, twice_below


class Comparison(NamedTuple):
    """How two AUROCs on the same images differ.

    Attributes:
        difference: AUROC of a minus AUROC of b.
        low: Lower end of the interval of the difference.
        high: Upper end.
        p_value: Chance of at least such a difference if there were none, two-sided.
    """

    difference: float
    low: float
    high: float
    p_value: float


class Placements(NamedTuple):
    """The share of the other side on the right side of each image, ties one half; both means are the AUROC."""

    of_id: np.ndarray  # (N,)
    of_ood: np.ndarray  # (M,)


def paired_auroc(id_a: Any, ood_a: Any, id_b: Any, ood_b: Any, level: float = 0.95) -> Comparison:
    """Compare the AUROCs of two detectors on the same images (DeLong, DeLong, Clarke-Pearson 1988).

    Normal approximation of the difference, clipped to [-1, 1]. Where the difference has no variance (both detectors
    place every image alike, such as two perfect ones), the p-value is 1 if there is no difference either, and the
    interval is what the exact intervals of both AUROCs allow; p is then 1 minus the largest level that excludes 0.

    Args:
        id_a: Scores (N,) of detector a on the ID images, higher = more OOD.
        ood_a: Its scores (M,) on the OOD images.
        id_b: Scores (N,) of detector b on the same ID images in the same order.
        ood_b: Its scores (M,) on the same OOD images.
        level: Coverage of the interval.

    Raises:
        GauntletError: The detectors scored different numbers of images, or a score is NaN or infinite.
    """
    a, b = placements(id_a, ood_a), placements(id_b, ood_b)
    if len(a.of_id) != len(b.of_id) or len(a.of_ood) != len(b.of_ood):
        raise GauntletError(
            "Detectors are compared on the same images, but one scored "
            f"{len(a.of_id)} ID and {len(a.of_ood)} OOD images, the other {len(b.of_id)} and {len(b.of_ood)}."
        )
    difference = float(a.of_id.mean() - b.of_id.mean())
    variance = _variance(a.of_id - b.of_id, [a.of_ood - b.of_ood])
    if variance == 0:
        return _without_variance(difference, (id_a, ood_a), (id_b, ood_b), level)
    error = np.sqrt(variance)
    half = float(special.ndtri((1 + level) / 2) * error)
    low, high = around(difference, max(difference - half, -1.0), min(difference + half, 1.0))
    return Comparison(difference, low, high, float(2 * special.ndtr(-abs(difference) / error)))


def tied_with_best(scores: Mapping[str, tuple[Any, Any]], level: float = 0.95) -> list[str]:
    """The detectors whose AUROC does not differ from the best one's at this level, the best first.

    Args:
        scores: (ID scores, OOD scores) of each detector on the same images.
        level: A detector is tied where the p-value of :func:`paired_auroc` is above 1 - ``level``.
    """
    aurocs = {name: float(placements(*sides).of_id.mean()) for name, sides in scores.items()}
    if not aurocs:
        return []
    best = max(aurocs, key=aurocs.__getitem__)
    others = sorted((name for name in aurocs if name != best), key=aurocs.__getitem__, reverse=True)
    return [best, *(name for name in others if paired_auroc(*scores[best], *scores[name]).p_value > 1 - level)]


def mean_auroc_interval(id_scores: Any, ood_sides: Sequence[Any], level: float = 0.95) -> Interval:
    """Interval of the unweighted mean of the AUROCs of one detector on several OOD sets.

    The ID images are the same for all sets, whose AUROCs therefore vary together; without variance the mean of their
    exact intervals stands in.

    Args:
        id_scores: (N,) scores of the ID images.
        ood_sides: (M_k,) scores of each OOD set.
        level: Coverage.
    """
    sides = [placements(id_scores, ood_scores) for ood_scores in ood_sides]
    if not sides:
        raise GauntletError("The mean over OOD sets needs at least one set, got none.")
    of_id = np.mean([side.of_id for side in sides], axis=0)
    mean = float(of_id.mean())
    variance = _variance(of_id, [side.of_ood / len(sides) for side in sides])
    if variance == 0:
        ends = np.mean([auroc_interval(id_scores, ood_scores, level) for ood_scores in ood_sides], axis=0)
        return around(mean, float(ends[0]), float(ends[1]))
    half = float(special.ndtri((1 + level) / 2) * np.sqrt(variance))
    return around(mean, max(mean - half, 0.0), min(mean + half, 1.0))


def oscr_interval(id_scores: Any, ood_scores: Any, correct: Any, level: float = 0.95) -> Interval:
    """DeLong's interval of the OSCR: an AUROC in which an ID image that is classified wrongly wins no comparison.

    Args:
        id_scores: (N,) scores of ID images, higher = more OOD.
        ood_scores: (M,) scores of OOD images.
        correct: (N,) whether each ID image is classified correctly.
        level: Coverage.
    """
    right = np.asarray(correct, dtype=bool).ravel()
    id_scores, ood_scores = check_sample(id_scores, "ID scores"), check_sample(ood_scores, "OOD scores")
    of_id = placements(id_scores, ood_scores).of_id * right
    of_ood = twice_below(ood_scores, id_scores[right]) / (2 * len(id_scores)) if right.any() else 0 * ood_scores
    point, variance = float(of_id.mean()), _variance(of_id, [of_ood])
    if variance == 0:
        return auroc_interval(id_scores, ood_scores, level) if right.all() else (0.0, 1.0)
    half = float(special.ndtri((1 + level) / 2) * np.sqrt(variance))
    return around(point, max(point - half, 0.0), min(point + half, 1.0))


def placements(id_scores: Any, ood_scores: Any) -> Placements:
    """The structural components of an AUROC, from midranks.

    Raises:
        GauntletError: A side is empty or holds NaN or infinite scores.
    """
    id_scores, ood_scores = check_sample(id_scores, "ID scores"), check_sample(ood_scores, "OOD scores")
    return Placements(
        1 - twice_below(id_scores, ood_scores) / (2 * len(ood_scores)),
        twice_below(ood_scores, id_scores) / (2 * len(id_scores)),
    )


def _variance(of_id: np.ndarray, of_ood: Sequence[np.ndarray]) -> float:
    """Of a sum of independent means; 0 where rounding is all that varies."""
    parts = [side.var(ddof=1) / len(side) for side in (of_id, *of_ood) if len(side) > 1 and np.ptp(side) > 1e-12]
    return float(sum(parts))


def _without_variance(difference: float, a: tuple[Any, Any], b: tuple[Any, Any], level: float) -> Comparison:
    def ends(at: float) -> Interval:
        (low_a, high_a), (low_b, high_b) = auroc_interval(*a, at), auroc_interval(*b, at)
        return around(difference, low_a - high_b, high_a - low_b)

    low, high = ends(level)
    if difference == 0:
        return Comparison(0.0, low, high, 1.0)
    inside, outside = 0.0, 1.0  # levels whose interval excludes 0, and whose interval holds it
    for _ in range(40):
        middle = (inside + outside) / 2
        low_end, high_end = ends(middle)
        inside, outside = (inside, middle) if low_end <= 0 <= high_end else (middle, outside)
    return Comparison(difference, low, high, 1 - inside)

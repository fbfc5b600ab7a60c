"""How well scores tell OOD images (positive, higher scores) from ID images; equal scores share one threshold."""

from __future__ import annotations

import numpy as np

from ...registry import metric
from ..samples import Ranking

_LIANG = "Liang et al. 2017, arXiv 1706.02690"

#: What is measured of every detector, in the order of tables.
DETECTION = (
    *("auroc", "aupr_in", "aupr_out", "fpr95", "fpr95_id", "detection_error"),
    *("aupr_in_trapezoid", "aupr_out_trapezoid", "autc"),
)


@metric("auroc", title="AUROC", headline=True, interval="delong", reference="Hendrycks & Gimpel 2016, arXiv 1610.02136")
def auroc(ranking: Ranking) -> np.ndarray:
    """Probability that an OOD image scores higher than an ID image, ties counting one half."""
    return _won(ranking.inside, ranking)


@metric("oscr", title="OSCR", interval="delong", reference="Dhamija, Guenther, Boult 2018, arXiv 1811.04110")
def oscr(ranking: Ranking, right: np.ndarray) -> np.ndarray:
    """Probability that an ID image is classified correctly and scores lower than an OOD image, ties one half."""
    return _won(right, ranking)


@metric("aupr_out", title="AUPR-out")
def aupr_out(ranking: Ranking) -> np.ndarray:
    """Average precision with OOD positive."""
    return _area(ranking.outside, ranking.precision) / ranking.caught[..., -1]


@metric("aupr_in", title="AUPR-in")
def aupr_in(ranking: Ranking) -> np.ndarray:
    """Average precision with ID positive, on the negated score."""
    return aupr_out(ranking.swapped)


@metric("aupr_out_trapezoid", title="AUPR-out (trapezoid)")
def aupr_out_trapezoid(ranking: Ranking) -> np.ndarray:
    """Area under the precision-recall curve with OOD positive, by the trapezoidal rule from (0, 1) on."""
    at_start = ranking.outside[..., 0] + _area(ranking.outside[..., 1:], ranking.precision[..., :-1])
    return (aupr_out(ranking) + at_start / ranking.caught[..., -1]) / 2


@metric("aupr_in_trapezoid", title="AUPR-in (trapezoid)")
def aupr_in_trapezoid(ranking: Ranking) -> np.ndarray:
    """Area under the precision-recall curve with ID positive, by the trapezoidal rule from (0, 1) on."""
    return aupr_out_trapezoid(ranking.swapped)


@metric("fpr95", title="FPR95", higher_is_better=False)
def fpr95(ranking: Ranking) -> np.ndarray:
    """Share of ID images flagged at the highest threshold that catches at least 95 % of the OOD images."""
    return flagged_at(ranking, 95)


@metric("fpr95_id", title="FPR95 (ID)", higher_is_better=False, reference=_LIANG)
def fpr95_id(ranking: Ranking) -> np.ndarray:
    """Share of OOD images accepted at the lowest threshold that keeps at least 95 % of the ID images."""
    return flagged_at(ranking.swapped, 95)


@metric(
    "detection_error",
    title="Detection error",
    higher_is_better=False,
    high=0.5,
    interval="bootstrap-minimum",
    reference=_LIANG,
)
def detection_error(ranking: Ranking) -> np.ndarray:
    """Smallest mean of miss rate and false alarm rate over all thresholds."""
    n_in, n_out = ranking.flagged[..., -1:], ranking.caught[..., -1:]
    # With nothing flagged every OOD image is missed, an error of 1/2; so it is with all flagged, where this is 0.
    least = (ranking.flagged * n_out - ranking.caught * n_in).min(-1)
    return 0.5 + least / (2 * n_in * n_out)[..., 0]


@metric(
    "autc",
    title="AUTC",
    higher_is_better=False,
    interval="normal",
    reference="Humblot-Renaux, Escalera, Moeslund 2023, arXiv 2306.14658",
)
def autc(ranking: Ranking) -> np.ndarray:
    """Mean of the areas under the shares of flagged ID and missed OOD images over thresholds scaled to [0, 1]."""
    there = (ranking.inside + ranking.outside) > 0
    low, high = ranking.score[-1 - there[..., ::-1].argmax(-1)], ranking.score[there.argmax(-1)]
    width = high - low
    # Moved to 0 one by one: the difference of two means far from 0 would round more than that of these.
    above = ranking.score - low[..., None]
    inside, outside = (_area(part, above) / part.sum(-1) for part in (ranking.inside, ranking.outside))
    return 0.5 + np.divide(inside - outside, 2 * width, out=np.zeros(np.shape(width)), where=width > 0)


def flagged_at(ranking: Ranking, percent: int) -> np.ndarray:
    """Share of ID images flagged at the highest threshold that catches at least so many percent of the OOD images."""
    # In whole numbers for whole weights: 95 % of 20 is 19 and not 19.000...1.
    short = (100 * ranking.caught < percent * ranking.caught[..., -1:]).sum(-1)
    return np.take_along_axis(ranking.flagged, short[..., None], -1)[..., 0] / ranking.flagged[..., -1]


def _won(inside: np.ndarray, ranking: Ranking) -> np.ndarray:
    """Share of (ID, OOD) pairs in which the OOD image scores higher, of the ID images with weight ``inside``."""
    doubled = 2 * ranking.caught - ranking.outside  # OOD images above, and half of those with the same score
    return _area(inside, doubled) / (2 * ranking.flagged[..., -1] * ranking.caught[..., -1])


def _area(steps: np.ndarray, heights: np.ndarray) -> np.ndarray:
    # Not `@`: a BLAS wakes its threads for a product of this size, which takes longer than the product.
    return np.einsum("...g,...g->...", steps, heights)

"""Bootstrap intervals of OOD and calibration metrics, many replicates at once.

Replicates are drawn by the Bayesian bootstrap (Rubin 1981): an image's weight is Gamma(1), so a group of k images
weighs Gamma(k), and thousands of images compress to at most a few hundred groups before anything is drawn. To first
order it agrees with resampling images, whose multinomial draws take eight times as long.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..registry import GauntletError, nearest
from .intervals import Interval, around, check_sample, proportion_interval
from .metrics import metric

GROUPS = 512
_DRAWS = 2.0**-40  # widths under this are rounding, not information

OOD_METRICS = (
    "aupr_in",
    "aupr_out",
    "fpr95",
    "fpr95_id",
    "detection_error",
    "aupr_in_trapezoid",
    "aupr_out_trapezoid",
)
CALIBRATION_METRICS = ("ece", "rms", "mce", "signed_gap")


def ood_bootstrap(
    id_scores: Any,
    ood_scores: Any,
    points: Mapping[str, float],
    *,
    replicates: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Interval]:
    """Intervals of the OOD metrics other than AUROC.

    The pooled ranking is compressed to at most 512 groups (exact with so few distinct scores; equal scores are never
    parted). An interval is the point plus the quantiles of the replicates about their mean, which takes out what
    compression and the bootstrap's own bias add; it is clipped to the metric's range and holds the point. Where it
    has no width (perfect separation), the exact bound of k = min(n_id, n_ood) independent pairs stands in.

    Args:
        id_scores: (N,) scores of ID images, higher = more OOD.
        ood_scores: (M,) scores of OOD images.
        points: Values of the wanted metrics, among :data:`OOD_METRICS`.
        replicates: Number of bootstrap replicates.
        seed: Of the replicates, fixed so that a table repeats.
        level: Coverage.

    Returns:
        (low, high) of every metric in ``points``.

    Raises:
        GauntletError: A metric is unknown, or a side is empty or holds NaN or infinite scores.
    """
    _check_names(points, OOD_METRICS)
    id_scores, ood_scores = check_sample(id_scores, "ID scores"), check_sample(ood_scores, "OOD scores")
    id_counts, ood_counts = _compress(id_scores, ood_scores)
    rng = np.random.default_rng(seed)
    id_weights = _weights(id_counts, replicates, rng)
    ood_weights = _weights(ood_counts, replicates, rng)
    draws = _ood_metrics(id_weights, ood_weights, len(ood_scores) / len(id_scores))
    pairs = min(len(id_scores), len(ood_scores))
    return {name: _centred(name, point, draws[name], pairs, level) for name, point in points.items()}


def calibration_bootstrap(
    confidence: Any,
    correct: Any,
    points: Mapping[str, float],
    *,
    bins: int = 15,
    replicates: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Interval]:
    """Intervals of calibration metrics over equal-width bins ((m - 1)/bins, m/bins].

    Images of like confidence (in one of about 256 steps) and outcome form one group. The rest is as in
    :func:`ood_bootstrap`; where an interval has no width, the exact bound of N trials stands in.

    Args:
        confidence: (N,) largest probabilities, in [0, 1].
        correct: (N,) whether the prediction is right.
        points: Values of the wanted metrics, among :data:`CALIBRATION_METRICS`.
        bins: Number of bins.
        replicates: Number of bootstrap replicates.
        seed: Of the replicates.
        level: Coverage.

    Returns:
        (low, high) of every metric in ``points``.

    Raises:
        GauntletError: A metric is unknown, there are no images, or a confidence is not a finite number.
    """
    _check_names(points, CALIBRATION_METRICS)
    confidence, correct = check_sample(confidence, "confidences"), np.asarray(correct, dtype=np.float64).ravel()
    counts, gaps, bin_of = _calibration_groups(confidence, correct, bins)
    weights = _weights(counts, replicates, np.random.default_rng(seed))  # (replicates, groups), rows sum to 1
    membership = (bin_of[:, None] == np.arange(bins)).astype(np.float64)
    share = weights @ membership  # (replicates, bins)
    gap = weights @ (membership * gaps[:, None])  # share of the bin times (confidence - accuracy)
    per_bin = np.divide(gap, share, out=np.zeros_like(gap), where=share > 0)
    draws = {
        "ece": np.abs(gap).sum(1),
        "rms": np.sqrt((gap * per_bin).sum(1)),
        "mce": np.abs(per_bin).max(1),
        "signed_gap": gap.sum(1),
    }
    return {name: _centred(name, point, draws[name], len(confidence), level) for name, point in points.items()}


def _compress(id_scores: np.ndarray, ood_scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Counts of ID and OOD scores in at most 512 groups of the pooled ranking, highest scores first."""
    pooled = np.concatenate([id_scores, ood_scores])
    order = np.argsort(-pooled, kind="stable")
    is_ood = order >= len(id_scores)
    ordered = pooled[order]
    last = np.append(np.flatnonzero(ordered[1:] != ordered[:-1]), len(ordered) - 1)  # last place of each tie
    if len(last) > GROUPS:
        group = (last + 1) * GROUPS // (len(ordered) + 1)
        last = last[np.append(group[1:] != group[:-1], True)]
    ood_upto = np.cumsum(is_ood)[last]
    all_upto = last + 1
    return np.diff(all_upto - ood_upto, prepend=0), np.diff(ood_upto, prepend=0)


def _calibration_groups(
    confidence: np.ndarray, correct: np.ndarray, bins: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(groups,) counts, mean of confidence - correct, and bin of the groups of like confidence and outcome."""
    steps = -(-256 // bins)  # per bin
    # the same comparison as the metric's own, so that a confidence on an edge falls into the same bin
    bin_of = np.clip(np.searchsorted(np.linspace(0, 1, bins + 1), confidence, "left") - 1, 0, bins - 1)
    step = np.clip((confidence * bins - bin_of) * steps, 0, steps - 1).astype(np.int64)
    index = (bin_of * steps + step) * 2 + (correct > 0.5)
    counts = np.bincount(index, minlength=bins * steps * 2)
    gaps = np.bincount(index, weights=confidence - correct, minlength=bins * steps * 2)
    used = np.flatnonzero(counts)
    return counts[used], gaps[used] / counts[used], used // (2 * steps)


def _weights(counts: np.ndarray, replicates: int, rng: np.random.Generator) -> np.ndarray:
    """(replicates, groups) random shares of the groups; each row sums to 1."""
    weights = rng.standard_gamma(counts.astype(np.float64), size=(replicates, len(counts)))
    return weights / weights.sum(axis=1, keepdims=True)


def _ood_metrics(id_weights: np.ndarray, ood_weights: np.ndarray, ratio: float) -> dict[str, np.ndarray]:
    """The metrics of every replicate, from groups in descending score; ``ratio`` is OOD images per ID image."""
    flagged, caught = np.cumsum(id_weights, axis=1), np.cumsum(ood_weights, axis=1)
    kept, accepted = 1 - flagged + id_weights, 1 - caught + ood_weights  # from the other end, the group included
    precision_out, precision_in = _precision(caught, flagged, 1 / ratio), _precision(kept, accepted, ratio)
    return {
        "aupr_out": np.einsum("rg,rg->r", ood_weights, precision_out),
        "aupr_in": np.einsum("rg,rg->r", id_weights, precision_in),
        "aupr_out_trapezoid": _trapezoid(ood_weights, precision_out),
        "aupr_in_trapezoid": _trapezoid(id_weights[:, ::-1], precision_in[:, ::-1]),
        "fpr95": _at(flagged, np.sum(caught < 0.95, axis=1)),
        "fpr95_id": _at(accepted, np.sum(kept >= 0.95, axis=1) - 1),
        "detection_error": 0.5 + 0.5 * np.min(flagged - caught, axis=1),  # the last flags all: never above 0.5
    }


def _precision(found: np.ndarray, false: np.ndarray, ratio: float) -> np.ndarray:
    total = found + ratio * false
    return np.divide(found, total, out=np.zeros_like(total), where=total > 0)


def _trapezoid(weights: np.ndarray, precision: np.ndarray) -> np.ndarray:
    """Area under precision over recall from (0, 1) on, groups in the order in which they are found."""
    before = np.concatenate([np.ones_like(precision[:, :1]), precision[:, :-1]], axis=1)
    return 0.5 * np.einsum("rg,rg->r", weights, precision + before)


def _at(values: np.ndarray, column: np.ndarray) -> np.ndarray:
    return values[np.arange(len(values)), np.clip(column, 0, values.shape[1] - 1)]


def _centred(name: str, point: float, draws: np.ndarray, n: int, level: float) -> Interval:
    known = metric(name)
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2]) - draws.mean() + point
    low, high = around(point, max(float(low), known.low), min(float(high), known.high))
    if high - low > _DRAWS:
        return low, high
    span = 1.0 - known.low  # the exact bound is that of a share; the signed gap spans [-1, 1]
    share = min(max((point - known.low) / span, 0.0), 1.0)
    low, high = (known.low + span * bound for bound in proportion_interval(share * n, n, level))
    return around(point, low, min(high, known.high))


def _check_names(points: Mapping[str, float], known: tuple[str, ...]) -> None:
    for name in points:
        if name not in known:
            raise GauntletError(f"There is no bootstrap interval of {name!r}; {nearest(name, known)}")

"""Values of metrics with their 95 % intervals, from one sample and each metric's one kernel.

Bootstrap replicates are drawn by the Bayesian bootstrap (Rubin 1981): an image's weight is Gamma(1), so a group of k
images weighs Gamma(k), and thousands of images compress to at most a few hundred groups before anything is drawn. To
first order it agrees with resampling images, whose multinomial draws take eight times as long.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from scipy import special

from ..registry import GauntletError, nearest
from .intervals import Interval, around, gap_interval, mean_interval, median_interval, proportion_interval
from .metrics import METRICS, Metric, fitting, kernel, metric_named
from .roc_intervals import auroc_interval, autc_interval, oscr_interval
from .samples import Confidences, Sample, Scores, Values

_DRAWS = 2.0**-40  # widths under this are rounding, not information
_FEW, _FEW_OF_MINIMUM = 3, 15  # images that decide a metric of scores


class Estimate(NamedTuple):
    """A metric's value and the ends of its 95 % interval; None where it has none."""

    value: float
    low: float | None = None
    high: float | None = None


def values(names: Iterable[str], statistics: Mapping[str, Any]) -> dict[str, float]:
    """Metrics of the statistics of a sample, in which every image has weight 1.

    Raises:
        GauntletError: A metric is unknown or needs what the sample does not have.
    """
    return {name: float(computed(name, statistics)) for name in names}


def estimate(names: Iterable[str], sample: Sample, level: float = 0.95) -> dict[str, Estimate]:
    """Metrics of a sample, each with the interval that it declares.

    Args:
        names: Registered metrics that have a kernel for such a sample.
        sample: One number or more of each image.
        level: Coverage of the intervals.

    Raises:
        GauntletError: A metric is unknown or needs what the sample does not have.

    Example:
        >>> from gauntlet.results.samples import Scores
        >>> found = estimate(["auroc", "fpr95"], Scores([0.1, 0.2, 0.7], [0.4, 0.8, 0.9]))
        >>> round(found["auroc"].value, 3), round(found["auroc"].low, 3), round(found["fpr95"].value, 3)
        (0.889, 0.581, 0.333)
    """
    points = values(names, sample.statistics)
    drawn = {name: point for name, point in points.items() if METRICS[name].interval.startswith("bootstrap")}
    intervals = bootstrap_intervals(sample, drawn, level=level) if drawn else {}
    for name, point in points.items():
        if direct := _DIRECT.get(METRICS[name].interval):
            intervals[name] = direct(METRICS[name], point, sample, level)
    return {name: Estimate(point, *intervals.get(name, ())) for name, point in points.items()}


def bootstrap_intervals(
    sample: Sample,
    points: Mapping[str, float],
    *,
    replicates: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Interval]:
    """Bootstrap intervals of metrics of one sample.

    Scores are compressed to at most 512 groups of their pooled ranking (exact with so few distinct scores; equal scores
    are never parted), confidences to about 512 groups of like confidence and outcome.

    Of scores, an interval is the point and so many standard deviations of the replicates on the logit scale of the
    metric's range, by Student's t with half as many degrees of freedom as the smaller side has images; where under
    three of these decide, it takes in the exact bound of as many independent trials as the sample has (pairs of an
    ID and an OOD image). Of anything else it is the point plus the quantiles of the replicates about their mean:
    that takes out what compression and the bootstrap's own bias add. It is clipped to the metric's range and holds
    the point; where it has no width (perfect separation, say), that exact bound stands in; where all images are right,
    or all wrong, that of the accuracy.

    Args:
        sample: One number or more of each image.
        points: Values of the wanted metrics.
        replicates: Number of bootstrap replicates.
        seed: Of the replicates, fixed so that a table repeats.
        level: Coverage.

    Returns:
        (low, high) of every metric in ``points``.

    Raises:
        GauntletError: A metric is unknown or needs what the sample does not have.
    """
    known = [entry.name for entry in fitting(sample.kinds)]
    for name in points:
        if name not in known:
            raise GauntletError(f"There is no bootstrap interval of {name!r}; {nearest(name, known)}")
    drawn = sample.replicates(np.random.default_rng(seed), replicates)
    return {
        name: _interval(metric_named(name), point, computed(name, drawn), sample, level)
        for name, point in points.items()
    }


def computed(name: str, statistics: Mapping[str, Any]) -> Any:
    """A metric of the statistics of a sample, along the leading axes of its weights.

    Raises:
        GauntletError: The metric is unknown, has no kernel, or needs what the sample does not have.
    """
    entry = kernel(name)
    if lacking := [need for need in entry.needs if need not in statistics]:
        raise GauntletError(f"The metric {name!r} needs {lacking[0]}, and the sample has {', '.join(statistics)}.")
    found = [statistics[need] for need in entry.needs]
    return entry.factory(*(found if entry.is_ours else copy.deepcopy(found)))  # other metrics read them, too


def _interval(known: Metric, point: float, draws: np.ndarray, sample: Sample, level: float) -> Interval:
    exact = _exact(known, point, sample.n, level)
    if not isinstance(sample, Scores) or not np.isfinite(known.high - known.low):
        low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2]) - draws.mean() + point
        low, high = around(point, max(float(low), known.low), min(float(high), known.high))
        if isinstance(sample, Confidences) and sample.unanimous:
            return _unanimous(known, (low, high), sample, level)
        return (low, high) if high - low > _DRAWS else exact
    if float(np.ptp(draws)) <= _DRAWS:
        return exact
    minimum = known.interval == "bootstrap-minimum"
    low, high = (_of_minimum if minimum else _on_logit_scale)(known, point, draws, sample.n, level)
    share = (point - known.low) / (known.high - known.low)
    if sample.n * min(share, 1 - share) < (_FEW_OF_MINIMUM if minimum else _FEW):
        low, high = min(low, exact[0]), max(high, exact[1])
    return around(point, max(float(low), known.low), min(float(high), known.high))


def _on_logit_scale(known: Metric, point: float, draws: np.ndarray, n: int, level: float) -> Interval:
    span = known.high - known.low
    logits = special.logit(np.clip((np.append(draws, point) - known.low) / span, 0.5 / n, 1 - 0.5 / n))
    half = _quantile(n, level) * logits[:-1].std()
    return tuple(known.low + span * special.expit(logits[-1] + [-half, half]))


def _of_minimum(known: Metric, point: float, draws: np.ndarray, n: int, level: float) -> Interval:
    """Of the least over thresholds, which is below the true one by what the choice finds in the noise.

    Noise of twice the variance (image and bootstrap) finds 2^(2/3) times as much (Kim & Pollard 1990: it grows with the
    variance to the power 2/3), so that the bias is 1 / (2^(2/3) - 1) = 1.7 times the one between replicates and point.
    Few images leave more in doubt than the replicates show; the factor is fitted to simulations (docs/statistics.md).
    """
    centre = point + 1.7 * (point - draws.mean())
    half = (1 + 2 / np.sqrt(n)) * _quantile(n, level) * draws.std()
    return centre - half, centre + half


def _quantile(n: int, level: float) -> float:
    return float(special.stdtrit(max(n - 1, 1) / 2, (1 + level) / 2))


def _exact(known: Metric, point: float, n: int, level: float) -> Interval:
    """The bound of a share of n independent trials; it is that of a share, and the signed gap spans [-1, 1]."""
    span = 1.0 - known.low
    share = min(max((point - known.low) / span, 0.0), 1.0)
    low, high = (known.low + span * bound for bound in proportion_interval(share * n, n, level))
    return around(point, low, min(high, known.high))


def _unanimous(known: Metric, drawn: Interval, sample: Confidences, level: float) -> Interval:
    """The interval where all images are right, or all wrong, which no replicate can know to be chance.

    As wide as the metric's values at both ends of the exact interval of the accuracy, each bin being right so often.
    """
    found = sample.reliability
    share = proportion_interval(float(sample.correct.sum()), sample.n, level)
    ends = [float(computed(known.name, {"reliability": replace(found, right=found.size * end)})) for end in share]
    return max(min(*drawn, *ends), known.low), min(max(*drawn, *ends), known.high)


def _delong(known: Metric, point: float, sample: Scores, level: float) -> Interval:
    if "right" in kernel(known.name).needs:
        return oscr_interval(sample.inside, sample.outside, sample.correct, level)
    id_images, ood_images = sample.images or (None, None)
    return auroc_interval(sample.inside, sample.outside, level, id_images=id_images, ood_images=ood_images)


def _true_ece(sample: Confidences, level: float) -> Interval:
    from .metrics.calibration import true_ece_interval  # a module of metrics, which the registry loads

    return true_ece_interval(sample.reliability, level)


def _median(known: Metric, point: float, sample: Values, level: float) -> Interval:
    return median_interval(sample.values, level, low=known.low, high=known.high)


#: Intervals that are computed without replicates, by the name that a metric declares.
_DIRECT: dict[str, Callable[[Metric, float, Any, float], Interval]] = {
    "clopper-pearson": lambda known, point, sample, level: proportion_interval(point * sample.n, sample.n, level),
    "student": lambda known, point, sample, level: mean_interval(sample.values, level),
    "order-statistics": _median,
    "delong": _delong,
    "gap": lambda known, point, sample, level: gap_interval(sample.confidence, sample.correct, level),
    "calibration": lambda known, point, sample, level: _true_ece(sample, level),
    "normal": lambda known, point, sample, level: autc_interval(sample.inside, sample.outside, level),
}

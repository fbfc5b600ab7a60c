"""What every metric is: its direction, range, unit, interval method and definition."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ..registry import GauntletError

INFINITY = float("inf")


@dataclass(frozen=True)
class Metric:
    """A metric as tables, plots and the drift check need to know it.

    Attributes:
        name: As in the column ``metric``.
        title: For headings.
        description: Definition, with a reference where it has one.
        higher_is_better: ``None`` where neither direction is better in itself.
        low: Smallest possible value.
        high: Largest possible value.
        percent: Whether tables may show it in percent.
        headline: Whether a baseline holds it unless told otherwise.
        interval: How its 95 % interval is computed; empty where it has none.
    """

    name: str
    title: str
    description: str
    higher_is_better: bool | None = True
    low: float = 0.0
    high: float = 1.0
    percent: bool = True
    headline: bool = False
    interval: str = ""


_EXACT = "clopper-pearson"
_BOOTSTRAP = "bootstrap"

_CALIBRATION = (
    Metric(
        "ece",
        "ECE",
        "Expected calibration error: sum over 15 equal-width bins of n_b/N |accuracy_b - confidence_b| "
        "(Naeini et al. 2015; Guo et al. 2017, arXiv 1706.04599).",
        higher_is_better=False,
        headline=True,
        interval=_BOOTSTRAP,
    ),
    Metric(
        "rms",
        "RMS calibration error",
        "Square root of the sum over 15 equal-width bins of n_b/N (accuracy_b - confidence_b)^2 "
        "(Hendrycks et al. 2018, arXiv 1812.04606).",
        higher_is_better=False,
        interval=_BOOTSTRAP,
    ),
    Metric(
        "mce",
        "MCE",
        "Maximum calibration error: largest |accuracy_b - confidence_b| of the non-empty bins among 15 of equal width "
        "(Naeini et al. 2015).",
        higher_is_better=False,
        interval=_BOOTSTRAP,
    ),
    Metric(
        "signed_gap",
        "Signed gap",
        "Mean confidence minus accuracy: positive is over-confident, negative under-confident.",
        higher_is_better=None,
        low=-1.0,
        interval=_BOOTSTRAP,
    ),
    Metric(
        "nll",
        "NLL",
        "Mean negative log-likelihood of the true class, in nats.",
        higher_is_better=False,
        high=INFINITY,
        percent=False,
        interval="student",
    ),
    Metric(
        "brier",
        "Brier score",
        "Mean over images of the squared distance between the probabilities and the one-hot label, 0 to 2 "
        "(Brier 1950).",
        higher_is_better=False,
        high=2.0,
        percent=False,
        interval="student",
    ),
)

_PLAIN = (
    Metric("accuracy", "Accuracy", "Share of images classified correctly.", headline=True, interval=_EXACT),
    Metric(
        "robust_accuracy",
        "Robust accuracy",
        "Share of all evaluated images still classified correctly after the attack; a clean error counts as an error.",
        headline=True,
        interval=_EXACT,
    ),
    Metric(
        "attack_success_rate",
        "Attack success rate",
        "Share of the images classified correctly before the attack that are not after it.",
        higher_is_better=False,
        interval=_EXACT,
    ),
    Metric(
        "median_norm",
        "Median norm",
        "Median over images of the smallest perturbation that fools the model, in the attack's norm with pixels in "
        "[0, 1]; infinite where most are never fooled (Schott et al. 2018, arXiv 1805.09190).",
        high=INFINITY,
        percent=False,
        interval="order-statistics",
    ),
    Metric(
        "forwards",
        "Forward passes",
        "Mean number of forward passes that the attack made per image.",
        higher_is_better=None,
        high=INFINITY,
        percent=False,
    ),
    Metric(
        "backwards",
        "Backward passes",
        "Mean number of backward passes that the attack made per image.",
        higher_is_better=None,
        high=INFINITY,
        percent=False,
    ),
    Metric(
        "check_passed",
        "Check passed",
        "1 where a sanity check found nothing against a model's robust figures, 0 where it did; `reason` says what.",
        percent=False,
    ),
    Metric(
        "check_figure",
        "Figure of the check",
        "The number behind a sanity check's verdict, such as the share of images without a gradient.",
        higher_is_better=None,
        low=-INFINITY,
        high=INFINITY,
        percent=False,
    ),
    Metric(
        "auroc",
        "AUROC",
        "Probability that an OOD image scores higher than an ID image, ties counting one half "
        "(Hendrycks & Gimpel 2016, arXiv 1610.02136).",
        headline=True,
        interval="delong",
    ),
    Metric("aupr_in", "AUPR-in", "Average precision with ID positive, on the negated score.", interval=_BOOTSTRAP),
    Metric("aupr_out", "AUPR-out", "Average precision with OOD positive.", interval=_BOOTSTRAP),
    Metric(
        "fpr95",
        "FPR95",
        "Share of ID images flagged at the highest threshold that catches at least 95 % of the OOD images.",
        higher_is_better=False,
        interval=_BOOTSTRAP,
    ),
    Metric(
        "fpr95_id",
        "FPR95 (ID)",
        "Share of OOD images accepted at the lowest threshold that keeps at least 95 % of the ID images "
        "(Liang et al. 2017, arXiv 1706.02690).",
        higher_is_better=False,
        interval=_BOOTSTRAP,
    ),
    Metric(
        "detection_error",
        "Detection error",
        "Smallest mean of miss rate and false alarm rate over all thresholds (Liang et al. 2017, arXiv 1706.02690).",
        higher_is_better=False,
        high=0.5,
        interval=_BOOTSTRAP,
    ),
    Metric(
        "aupr_in_trapezoid",
        "AUPR-in (trapezoid)",
        "Area under the precision-recall curve with ID positive, by the trapezoidal rule from (0, 1) on.",
        interval=_BOOTSTRAP,
    ),
    Metric(
        "aupr_out_trapezoid",
        "AUPR-out (trapezoid)",
        "Area under the precision-recall curve with OOD positive, by the trapezoidal rule from (0, 1) on.",
        interval=_BOOTSTRAP,
    ),
    Metric(
        "autc",
        "AUTC",
        "Mean of the areas under the shares of flagged ID and of missed OOD images over all thresholds, scores scaled "
        "to [0, 1] (Humblot-Renaux, Escalera, Moeslund 2023, arXiv 2306.14658).",
        higher_is_better=False,
        interval="normal",
    ),
    Metric(
        "oscr",
        "OSCR",
        "Probability that an ID image is classified correctly and scores lower than an OOD image, ties counting one "
        "half (Dhamija, Guenther, Boult 2018, arXiv 1811.04110).",
        interval="delong",
    ),
    Metric(
        "mean_confidence", "Mean confidence", "Mean largest probability.", higher_is_better=None, interval="student"
    ),
    Metric(
        "seconds",
        "Time",
        "Median time of a round, in seconds, as pytest-benchmark measures it.",
        higher_is_better=False,
        high=INFINITY,
        percent=False,
    ),
    Metric(
        "temperature",
        "Temperature",
        "Temperature that minimises the NLL on the validation split (Guo et al. 2017, arXiv 1706.04599).",
        higher_is_better=None,
        high=INFINITY,
        percent=False,
    ),
)


def _scaled(plain: Metric) -> Metric:
    return Metric(
        f"{plain.name}_scaled",
        f"{plain.title} (scaled)",
        f"After temperature scaling. {plain.description}",
        plain.higher_is_better,
        plain.low,
        plain.high,
        plain.percent,
        headline=False,
        interval=plain.interval,
    )


METRICS = {known.name: known for known in (*_PLAIN, *_CALIBRATION, *map(_scaled, _CALIBRATION))}
HEADLINE = tuple(name for name, known in METRICS.items() if known.headline)


def metric(name: str) -> Metric:
    """What is known of a metric (``auroc@near`` is one of ``auroc``); of one that a plug-in measures, only its name.

    Raises:
        GauntletError: The name is empty.
    """
    if not name:
        raise GauntletError("A metric must have a name, got an empty one.")
    return METRICS.get(name.partition("@")[0]) or Metric(name, name, "", None, -INFINITY, INFINITY, percent=False)


def directions(names: Iterable[str]) -> np.ndarray:
    """+1 for each metric of which more is better, -1 where less is, else 0."""
    signs = {True: 1, False: -1, None: 0}
    return np.array([signs[metric(name).higher_is_better] if name else 0 for name in names], dtype=int)

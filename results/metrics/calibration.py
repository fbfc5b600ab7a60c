"""How far confidence is from accuracy, over 15 bins of equal width; as the model is, and after temperature scaling."""

from __future__ import annotations

from functools import partial

import numpy as np
from scipy import special

from ...registry import METRICS, metric
from ..samples import Reliability
from . import UNBOUNDED, described, register
from .outcomes import average, given

#: What is measured of every model, in the order of tables.
BINNED = ("ece", "ece_corrected", "rms", "mce", "signed_gap")
CALIBRATION = (*BINNED, "nll", "brier")


@metric(
    "ece",
    title="ECE",
    higher_is_better=False,
    headline=True,
    reference="Naeini et al. 2015; Guo et al. 2017, arXiv 1706.04599",
)
def ece(reliability: Reliability) -> np.ndarray:
    """Expected calibration error: sum over 15 equal-width bins of n_b/N |accuracy_b - confidence_b|."""
    return _mean(np.abs(reliability.gap), reliability)


@metric(
    "ece_corrected",
    title="ECE (corrected)",
    higher_is_better=False,
    interval="calibration",
    reference="in the manner of Roelofs et al. 2022, arXiv 2012.08668",
)
def ece_corrected(reliability: Reliability) -> np.ndarray:
    """ECE less what chance adds to it: of each bin, how much normal noise of its variance raises the absolute gap."""
    gap, spread = np.abs(reliability.gap), np.sqrt(_noise(reliability))
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(spread > 0, gap / spread, np.inf)
    # The mean of a folded normal variable, less where it is folded about.
    raised = spread * np.sqrt(2 / np.pi) * np.exp(-(z**2) / 2) - 2 * gap * special.ndtr(-z)
    return np.maximum(_mean(gap - raised, reliability), 0.0)


@metric(
    "rms",
    title="RMS calibration error",
    higher_is_better=False,
    reference="Hendrycks et al. 2018, arXiv 1812.04606",
)
def rms(reliability: Reliability) -> np.ndarray:
    """Square root of the sum over 15 equal-width bins of n_b/N (accuracy_b - confidence_b)^2."""
    return np.sqrt(_mean(reliability.gap**2, reliability))


@metric("mce", title="MCE", higher_is_better=False, reference="Naeini et al. 2015")
def mce(reliability: Reliability) -> np.ndarray:
    """Maximum calibration error: largest |accuracy_b - confidence_b| of the non-empty bins among 15 of equal width."""
    return np.abs(reliability.gap).max(-1)


@metric("signed_gap", title="Signed gap", higher_is_better=None, low=-1.0, interval="gap")
def signed_gap(reliability: Reliability) -> np.ndarray:
    """Mean confidence minus accuracy: positive is over-confident, negative under-confident."""
    return (reliability.confidences.sum(-1) - reliability.right.sum(-1)) / reliability.size.sum(-1)


def true_ece_interval(reliability: Reliability, level: float = 0.95) -> tuple[float, float]:
    """Interval of the true ECE over the same bins, where that of the metric ``ece`` is of the estimate's scatter.

    |true gap| is at most |gap| + |noise| and at least |gap| - |noise|: with N noise of the variance of each bin's gap,
    the true value is at least ECE less a quantile of the mean of |N| over bins, and at most ECE plus one of the mean of
    N, since folding only ever adds. Both bounds hold for every true value; near 0 they are wide.

    Args:
        reliability: Every image with weight 1.
        level: Coverage, at least, up to the normal approximation.
    """
    share = reliability.size / reliability.size.sum()
    spread, z = share * np.sqrt(_noise(reliability)), float(special.ndtri((1 + level) / 2))
    found, total = float(ece(reliability)), float(np.sqrt((spread**2).sum()))
    folded = spread.sum() * np.sqrt(2 / np.pi) + z * total * np.sqrt(1 - 2 / np.pi)
    low, high = max(found - float(folded), 0.0), min(found + z * total, 1.0)
    return min(low, float(ece_corrected(reliability))), high


def _noise(reliability: Reliability) -> np.ndarray:
    """Variance of each bin's gap, that of a share; one right and one wrong image more, so that none has no variance."""
    share = (reliability.right + 1) / (reliability.size + 2)
    return share * (1 - share) / np.maximum(reliability.size, 1)


def _mean(values: np.ndarray, reliability: Reliability) -> np.ndarray:
    """Over bins, each as heavy as its images."""
    return (reliability.size / reliability.size.sum(-1, keepdims=True) * values).sum(-1)


average("nll", "NLL", "Mean negative log-likelihood of the true class, in nats.", higher_is_better=False, **UNBOUNDED)
average(
    "brier",
    "Brier score",
    "Mean over images of the squared distance between the probabilities and the one-hot label, 0 to 2 (Brier 1950).",
    higher_is_better=False,
    high=2.0,
    percent=False,
)
average("mean_confidence", "Mean confidence", "Mean largest probability.", higher_is_better=None)
given(
    "temperature",
    "Temperature",
    "Temperature that minimises the NLL on the validation split (Guo et al. 2017, arXiv 1706.04599).",
    higher_is_better=None,
    **UNBOUNDED,
)


#: Measured beside, without intervals: they are no weighted functions of images.
FURTHER = (
    *("ece_equal_mass", "ece_debiased", "smooth_ece", "classwise_ece", "mce_min_count", "mce_count"),
    *("brier_reliability", "brier_resolution", "brier_uncertainty"),
)
_lower = partial(given, higher_is_better=False)
_lower("ece_equal_mass", "ECE (equal mass)", "ECE over 15 bins of equally many images (Nguyen, O'Connor 2015).")
_lower(
    "ece_debiased",
    "ECE (debiased L2)",
    "Root mean square gap of 15 equal-width bins less what chance adds (Kumar, Liang, Ma 2019, arXiv 1909.10155).",
)
_lower(
    "smooth_ece",
    "Smooth ECE",
    "Mean gap smoothed by a Gaussian kernel whose width is that gap (Blasiok, Nakkiran 2023, arXiv 2309.12236).",
)
_lower(
    "classwise_ece",
    "Classwise ECE",
    "Mean over classes of the ECE of each class's probability (Kull et al. 2019, arXiv 1910.12656).",
)
_lower(
    "mce_min_count",
    "MCE of full bins",
    "MCE over the bins with at least `mce_min_count` images (10): a bin of one image decides nothing.",
)
given(
    "mce_count",
    "Images behind MCE",
    "Number of images in the bin that decides the MCE.",
    higher_is_better=None,
    **UNBOUNDED,
)
_lower(
    "brier_reliability",
    "Brier reliability",
    "Part of the Brier score that miscalibration makes, over 15 bins of each class's probability (Murphy 1973).",
    high=2.0,
    percent=False,
)
given(
    "brier_resolution",
    "Brier resolution",
    "What the Brier score gains by telling images apart: reliability + uncertainty - Brier (Murphy 1973).",
    low=-2.0,
    percent=False,
)
given(
    "brier_uncertainty",
    "Brier uncertainty",
    "Brier score of always answering with the shares of the classes (Murphy 1973).",
    higher_is_better=None,
    percent=False,
)


def _scaled(name: str) -> None:
    """The same after temperature scaling, under a name and a title that say so."""
    known, stored = METRICS.get(name), ("confidence_scaled", "correct") if name in BINNED else ()
    facts = {**known.meta, "title": f"{known.meta['title']} (scaled)", "headline": False, "stored": stored}
    text = f"After temperature scaling. {described(known)}"
    register(f"{name}_scaled", description=text, kernel=known.factory, **facts)


for each in (*CALIBRATION, *FURTHER):
    _scaled(each)

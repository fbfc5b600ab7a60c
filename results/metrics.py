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
        "corruption_error",
        "mCE",
        "Mean over corruptions of the error, summed over severities, divided by that of a baseline model "
        "(Hendrycks, Dietterich 2019, arXiv 1903.12261).",
        higher_is_better=False,
        high=INFINITY,
        percent=False,
    ),
    Metric(
        "relative_corruption_error",
        "relative mCE",
        "The same of what corruptions add to the clean error (Hendrycks, Dietterich 2019, arXiv 1903.12261).",
        higher_is_better=False,
        low=-INFINITY,
        high=INFINITY,
        percent=False,
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
        "open_accuracy",
        "Open-set accuracy",
        "Share of ID and OOD images that get their own class, where all OOD images are one class more.",
        interval=_EXACT,
    ),
    Metric(
        "open_accuracy_id",
        "Accuracy, ID",
        "Share of ID images that are classified right and not flagged as OOD.",
        interval=_EXACT,
    ),
    Metric("ood_rejected", "OOD rejected", "Share of OOD images that are flagged as OOD.", interval=_EXACT),
    Metric(
        "false_alarm_rate",
        "False alarms",
        "Share of ID images that are flagged as OOD.",
        higher_is_better=False,
        interval=_EXACT,
    ),
    Metric(
        "median_score",
        "Median score",
        "Median of the detector's score over the images of a class.",
        higher_is_better=None,
        low=-INFINITY,
        high=INFINITY,
        percent=False,
        interval="order-statistics",
    ),
    Metric(
        "median_h",
        "Median h",
        "Median over the images of a class of the output of the model's discriminator, near 1 for fakes.",
        higher_is_better=None,
        percent=False,
        interval="order-statistics",
    ),
    Metric(
        "median_max_2_max",
        "Median Max-2-Max",
        "Median over the images of a class of the gap between the two largest probabilities, OOD among them.",
        higher_is_better=None,
        percent=False,
        interval="order-statistics",
    ),
    Metric(
        "mean_confidence", "Mean confidence", "Mean largest probability.", higher_is_better=None, interval="student"
    ),
    Metric(
        "reconstruction_mse",
        "Reconstruction MSE",
        "Mean over images of the squared error of the reconstruction from the clean image, a mean over its pixels in "
        "[0, 1]; under attack, of the reconstruction of the attacked image from the clean one.",
        higher_is_better=False,
        percent=False,
        interval="student",
    ),
    Metric(
        "reconstruction_mse_input",
        "Reconstruction MSE to the input",
        "Mean over images of the squared error of the reconstruction of an attacked image from that same image: what "
        "the attack drives up.",
        higher_is_better=False,
        percent=False,
        interval="student",
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

_REPRESENTATION = (
    Metric(
        "probe_accuracy",
        "Linear probe",
        "Accuracy of a multinomial logistic regression on standardised frozen training embeddings, its L2 penalty "
        "chosen on the validation split (Kornblith, Shlens, Le 2018, arXiv 1805.08974).",
        interval=_EXACT,
    ),
    *(
        Metric(
            f"knn{k}_accuracy",
            f"kNN, k {k}",
            f"Accuracy of the vote of the {k} nearest training embeddings by cosine, weights exp(cosine / 0.07) "
            "(Wu, Xiong, Yu, Lin 2018, arXiv 1805.01978).",
            interval=_EXACT,
        )
        for k in (1, 5, 20, 200)
    ),
    Metric(
        "purity",
        "Purity",
        "Share of images that have the most frequent class of their cluster, by k-means with as many clusters as "
        "classes on L2-normalised embeddings.",
    ),
    Metric(
        "nmi",
        "NMI",
        "Mutual information of clusters and classes over the mean of their entropies (Strehl & Ghosh 2002).",
        percent=False,
    ),
    Metric(
        "ari",
        "ARI",
        "Rand index of clusters against classes, corrected for chance (Hubert & Arabie 1985).",
        low=-0.5,
        percent=False,
    ),
    Metric(
        "hungarian_accuracy",
        "Cluster accuracy",
        "Share of images classified correctly under the best one-to-one match of clusters and classes (Kuhn 1955).",
    ),
    Metric(
        "silhouette",
        "Silhouette",
        "Mean over images of (b - a) / max(a, b): a the mean distance within its cluster, b to the nearest other one "
        "(Rousseeuw 1987).",
        low=-1.0,
        percent=False,
    ),
    *(
        Metric(
            f"precision_at_{k}",
            f"Precision@{k}",
            f"Share of the {k} nearest other test images that have the query's class; mean over random queries.",
            interval="student",
        )
        for k in (1, 5, 10)
    ),
    Metric(
        "mean_average_precision",
        "mAP",
        "Mean over random queries of the average precision of all other test images ranked by cosine.",
        interval="student",
    ),
    Metric(
        "near_duplicates",
        "Near-duplicates",
        "Share of queries with another test image of cosine above 0.999 in pixels, which retrieval leaves out.",
        higher_is_better=None,
        interval=_EXACT,
    ),
    Metric(
        "alignment",
        "Alignment",
        "Mean squared distance of the L2-normalised embeddings of two random views of an image (Wang & Isola 2020, "
        "arXiv 2005.10242).",
        higher_is_better=False,
        high=4.0,
        percent=False,
        interval="student",
    ),
    Metric(
        "uniformity",
        "Uniformity",
        "log of the mean over pairs of images of exp(-2 d^2), d the distance of their L2-normalised embeddings (Wang & "
        "Isola 2020, arXiv 2005.10242).",
        higher_is_better=False,
        low=-8.0,
        high=0.0,
        percent=False,
    ),
    Metric(
        "effective_rank",
        "Effective rank",
        "Exponential of the entropy of the normalised singular values of the centred embeddings (Roy & Vetterli 2007).",
        higher_is_better=None,
        low=1.0,
        high=INFINITY,
        percent=False,
    ),
    Metric(
        "embedding_std",
        "Embedding std",
        "Mean over dimensions of the standard deviation of L2-normalised embeddings, times the root of their number: 1 "
        "spread evenly over the sphere, 0 collapsed (Chen & He 2020, arXiv 2011.10566).",
        higher_is_better=None,
        percent=False,
    ),
    *(
        Metric(
            f"contrastive_top{k}",
            f"Contrastive top-{k}",
            f"Share of views whose partner is among the {k} most similar of the other 511 views of 256 test images.",
        )
        for k in (1, 5)
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


METRICS = {known.name: known for known in (*_PLAIN, *_CALIBRATION, *map(_scaled, _CALIBRATION), *_REPRESENTATION)}
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

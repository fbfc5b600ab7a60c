"""How the values of several rows vary together: one covariance of all rows that were measured on the same images.

The unit is the source image. Every row's value is, to first order, a mean over images of the image's *influence*; the
covariance of two values is the sum over images of the products of their influences. For an AUROC these are DeLong's
structural components, so that the covariance is DeLong's; an image with several versions counts once, with the sum of
their influences (Obuchowski 1997). Memory: rows times images, and rows squared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import special

from ..registry import GauntletError
from .estimates import computed
from .roc_intervals import placements
from .samples import Sample

_REPLICATES = 1000


@dataclass(frozen=True)
class Joint:
    """Values of rows and how they vary.

    Attributes:
        values: (k,) one of each row.
        images: (k, k) their covariance over images of this test set.
        seeds: (k, k) their covariance over trainings; zero where the trainings are taken as they are.
        degrees: Degrees of freedom behind ``seeds``.
        smallest: What one image can change in a value, the least that its standard deviation can be said to be.
        n: How many images are behind ``images``.
    """

    values: np.ndarray
    images: np.ndarray
    seeds: np.ndarray | float = 0.0
    degrees: float = np.inf
    smallest: float = 0.0
    n: float = np.inf
    counted: np.ndarray | None = field(default=None, repr=False)  # (k, n) whether each image is right, of shares

    @property
    def covariance(self) -> np.ndarray:
        """(k, k) of the values, over all that is random."""
        return np.asarray(self.images + self.seeds + np.eye(len(self.values)) * self.smallest**2 / 2)

    def variances(self) -> np.ndarray:
        """(k, k) of the differences between rows."""
        return _of_differences(self.covariance)

    def p_values(self) -> np.ndarray:
        """(k, k) two-sided: the chance of at least such a difference if there were none.

        By the normal distribution; with seeds by Student's t, whose degrees of freedom are those of a sum of variances
        (Satterthwaite 1946), the images' taken as known. Exact for shares of the same images (McNemar 1947).
        """
        if self.counted is not None:
            return mcnemar(self.counted)
        difference, variance = np.abs(self.values[:, None] - self.values), self.variances()
        between = _of_differences(np.broadcast_to(self.seeds, variance.shape))
        with np.errstate(divide="ignore", invalid="ignore"):
            t = np.where(difference > 1e-12, difference / np.sqrt(variance), 0.0)
            degrees = self.degrees * np.where(between > 0, (variance / between) ** 2, np.inf)
        return np.where(np.isfinite(degrees), 2 * special.stdtr(degrees, -t), 2 * special.ndtr(-t))


def joint_auroc(
    id_scores: Sequence[Any], ood_scores: Sequence[Any], id_images: Any = None, ood_images: Any = None
) -> Joint:
    """AUROCs of k detectors on the same images with their covariance (DeLong, DeLong, Clarke-Pearson 1988).

    Args:
        id_scores: Of each detector (N,) scores of the same ID images in the same order, higher = more OOD.
        ood_scores: Of each detector (M,) scores of the same OOD images.
        id_images: (N,) which source image each ID score is of; None where all differ.
        ood_images: (M,) the same of the OOD scores, numbered alike.

    Raises:
        GauntletError: The detectors scored different numbers of images, or a score is NaN or infinite.

    Example:
        >>> found = joint_auroc([[0.1, 0.2, 0.7], [0.1, 0.5, 0.2]], [[0.4, 0.8, 0.9], [0.4, 0.3, 0.9]])
        >>> found.values.round(3).tolist()
        [0.889, 0.778]
    """
    sizes = {(len(inside), len(outside)) for inside, outside in zip(id_scores, ood_scores, strict=True)}
    if len(sizes) > 1:
        told = " and ".join(f"{n} ID with {m} OOD images" for n, m in sorted(sizes))
        raise GauntletError(f"Detectors are compared on the same images, but they scored {told}.")
    of_id, of_ood = (np.array(side) for side in zip(*map(placements, id_scores, ood_scores), strict=True))
    sides = [side - side.mean(axis=1, keepdims=True) for side in (of_id, of_ood)]
    if id_images is None or ood_images is None:
        covariance = _covariance(sides[0]) + _covariance(sides[1])
    else:
        shares = np.concatenate([side / side.shape[1] for side in sides], axis=1)
        sums = by_image(shares, np.concatenate([id_images, ood_images]))
        covariance = _covariance(sums * sums.shape[1])
    sizes_of = of_id.shape[1], of_ood.shape[1]
    half = 0.5 * float(np.hypot(*(1 / size for size in sizes_of)))  # an image on the border: half of its pairs change
    return Joint(of_id.mean(axis=1), covariance, smallest=half, n=min(sizes_of))


def joint_means(values: Any, images: Any = None, *, shares: bool = False) -> Joint:
    """Means over the same images of k rows with their covariance.

    Args:
        values: (k, n) one number of each image, such as whether a model is right.
        images: (n,) which source image each number is of; None where all differ.
        shares: The numbers are 0 or 1, and each image counts once: tests between rows are exact.
    """
    values = np.asarray(values, dtype=np.float64)
    means, n = values.mean(axis=1), values.shape[1]
    centred = values - means[:, None]
    centred = centred if images is None else (sums := by_image(centred, images)) * (sums.shape[1] / n)
    smallest = 1 / centred.shape[1] if shares else 0.0
    counted = values if shares and images is None else None
    return Joint(means, _covariance(centred), smallest=smallest, n=centred.shape[1], counted=counted)


def joint_bootstrap(name: str, samples: Sequence[Sample], replicates: int = _REPLICATES, seed: int = 0) -> Joint:
    """Any metric of k rows on the same images, by one bootstrap for all: an image has the same weight in every row.

    Args:
        name: A registered metric with a kernel.
        samples: Of each row, on the same images in the same order.
        replicates: Number of bootstrap replicates.
        seed: Of the replicates, fixed so that a table repeats.
    """
    rng = np.random.default_rng(seed)
    drawn, batch = [], max(1, 2_000_000 // max(1, sum(samples[0].sizes)))
    for start in range(0, replicates, batch):
        weights = samples[0].weights(rng, min(batch, replicates - start))
        drawn.append([computed(name, sample.weighted(*weights)) for sample in samples])
    values = np.array([float(computed(name, sample.statistics)) for sample in samples])
    covariance = np.atleast_2d(np.cov(np.concatenate(drawn, axis=1)))
    return Joint(values, covariance, smallest=0.5 / samples[0].n, n=samples[0].n)


def apart(values: Any, variances: Any) -> Joint:
    """Values of rows that share nothing, by the variance of each."""
    return Joint(np.asarray(values, dtype=np.float64), np.diag(np.asarray(variances, dtype=np.float64)))


def mcnemar(right: np.ndarray) -> np.ndarray:
    """(k, k) exact two-sided p-values of McNemar's test, from whether each of n images is right (k, n).

    Of the images that only one of both rows gets right, either row has half if they do not differ: a binomial test.

    Example:
        >>> mcnemar(np.array([[1, 1, 1, 1, 1, 0], [0, 0, 0, 0, 0, 0]]))[0, 1].item()
        0.0625
    """
    right = np.asarray(right, dtype=np.float64)
    only = np.rint(right @ (1 - right).T).astype(np.int64)  # right here, wrong there
    fewer, both = np.minimum(only, only.T), only + only.T
    return np.asarray(np.minimum(1.0, 2 * special.bdtr(fewer, np.maximum(both, 1), 0.5)))


def mcnemar_interval(right_a: Any, right_b: Any, level: float = 0.95) -> tuple[float, float]:
    """Interval of the difference of two shares of the same images: right in a, less right in b.

    The exact interval of a's part of the images that only one gets right (Clopper, Pearson 1934), as a difference;
    conditional on how many these are, as McNemar's test is: it holds 0 exactly where that test finds none.
    """
    from .intervals import proportion_interval

    a, b = (np.asarray(side, dtype=bool) for side in (right_a, right_b))
    only, other = int((a & ~b).sum()), int((b & ~a).sum())
    low, high = proportion_interval(only, only + other, level)
    part = (only + other) / len(a)
    return (part * (2 * low - 1), part * (2 * high - 1)) if part else (-1 / len(a), 1 / len(a))


def by_image(influences: np.ndarray, images: Any) -> np.ndarray:
    """(k, images) sums of influences (k, n) over the versions of each source image."""
    _, place = np.unique(np.asarray(images), return_inverse=True)
    return np.array([np.bincount(place, row) for row in influences])


def _covariance(centred: np.ndarray) -> np.ndarray:
    """(k, k) of the means of centred numbers (k, n) of independent images; zero where a single one tells nothing."""
    n = centred.shape[1]
    return np.asarray(centred @ centred.T / (n * max(n - 1, 1)))


def _of_differences(covariance: np.ndarray) -> np.ndarray:
    variance = np.diagonal(covariance)
    return np.maximum(variance[:, None] + variance - 2 * covariance, 0.0)

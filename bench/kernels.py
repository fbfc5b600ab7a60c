"""Metrics straight from tensors: what a device pays for is done there, the formulas are those of `results.metrics`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..models.temperature import checked
from ..registry import GauntletError
from ..results.estimates import values
from ..results.metrics.calibration import CALIBRATION
from ..results.metrics.detection import DETECTION
from ..results.samples import Confidences, Scores, Values
from ..results.statistics import Ranking

#: Probabilities below this count as this in the NLL of given probabilities (logits need no such floor).
_SMALLEST = 1e-12

#: How far the sum of given probabilities may be from 1 (half precision gives 1e-3 per term).
_SUM_TOLERANCE = 1e-2


def ood_metrics(id_scores: Any, ood_scores: Any) -> dict[str, float]:
    """How well scores tell OOD images (positive, higher scores) from ID images; equal scores share one threshold.

    Args:
        id_scores: Scores of ID images, shape (N,), a tensor or array; a CUDA tensor is sorted where it lies.
        ood_scores: Scores of OOD images, shape (M,).

    Returns:
        The metrics of :mod:`gauntlet.results.metrics.detection` that need nothing but scores, all in [0, 1].

    Raises:
        GauntletError: A side is empty or has scores that are not finite.

    Example:
        >>> ood_metrics([0.1, 0.2, 0.3], [0.25, 0.9])["auroc"]
        0.8333333333333334
    """
    if isinstance(id_scores, Tensor) and id_scores.is_cuda:
        return values(DETECTION, {"ranking": ranking_on_device(id_scores, torch.as_tensor(ood_scores))})
    return values(DETECTION, Scores(_array(id_scores), _array(ood_scores)).statistics)


def ranking_on_device(id_scores: Tensor, ood_scores: Tensor) -> Ranking:
    """The ranking of scores (N,) and (M,), sorted where those of the ID images lie.

    Raises:
        GauntletError: A side is empty or has scores that are not finite.
    """
    sides = [side.detach().reshape(-1).to(id_scores.device).double() for side in (ood_scores, id_scores)]
    if not all(len(side) and bool(side.isfinite().all()) for side in sides):
        return Scores(_array(id_scores), _array(ood_scores)).ranking  # raises, and says what is wrong
    ordered, order = torch.cat(sides).sort(descending=True)
    ends = torch.cat([(ordered[1:] != ordered[:-1]).nonzero()[:, 0], order.new_tensor([len(order) - 1])])
    caught = (order < len(sides[0])).double().cumsum(0)[ends]
    return Ranking.from_counts(*(part.cpu().numpy() for part in (ordered[ends], caught, ends + 1)))


def calibration_metrics(outputs: Any, labels: Any, bins: int = 15, *, probabilities: bool = False) -> dict[str, float]:
    """Calibration of a classifier's outputs.

    Args:
        outputs: Logits, shape (N, C); or probabilities, if ``probabilities`` says so.
        labels: True classes, shape (N,).
        bins: Number of bins of equal width; bin m holds confidences in ((m - 1) / bins, m / bins].
        probabilities: Whether ``outputs`` are probabilities rather than logits.

    Returns:
        ``accuracy``, ``mean_confidence`` and the metrics of :mod:`gauntlet.results.metrics.calibration`.

    Raises:
        GauntletError: There are no images, or shapes, values or labels do not fit.
    """
    samples = calibration_samples(calibration_arrays(outputs, labels, probabilities=probabilities), bins)
    return {name: values([name], sample.statistics)[name] for name, sample in samples.items()}


def calibration_samples(arrays: dict[str, NDArray[Any]], bins: int = 15) -> dict[str, Confidences | Values]:
    """What each metric of :func:`calibration_metrics` is computed from, out of :func:`calibration_arrays`."""
    means = {"accuracy": "correct", "mean_confidence": "confidence", "nll": "nll", "brier": "brier"}
    binned = Confidences(arrays["confidence"], arrays["correct"], bins)
    samples: dict[str, Confidences | Values] = {name: Values(arrays[array]) for name, array in means.items()}
    return {name: samples.get(name, binned) for name in ("accuracy", "mean_confidence", *CALIBRATION)}


def calibration_arrays(outputs: Any, labels: Any, *, probabilities: bool = False) -> dict[str, NDArray[Any]]:
    """What the metrics are computed from, one value per image; arguments and errors as in :func:`calibration_metrics`.

    Returns:
        Arrays of shape (N,): ``confidence`` (largest probability), ``correct`` (bool), ``nll`` (-log of the probability
        of the true class) and ``brier`` (squared distance of the probabilities from the one-hot truth).

    Raises:
        GauntletError: There are no images, or shapes, values or labels do not fit.
    """
    found, truth = checked(outputs, labels)
    log_p = _log_probabilities(found) if probabilities else found.log_softmax(dim=1)
    p = found if probabilities else log_p.exp()
    confidence, predicted = p.max(dim=1)
    at_truth = p.gather(1, truth[:, None])[:, 0]
    arrays = {
        "confidence": confidence,
        "correct": predicted == truth,
        "nll": -log_p.gather(1, truth[:, None])[:, 0],
        "brier": p.square().sum(dim=1) - 2 * at_truth + 1,
    }
    return {name: part.cpu().numpy() for name, part in arrays.items()}


def _array(scores: Any) -> NDArray[Any]:
    # Lists pass through numpy, which reads them in float64; torch would round them to float32.
    return scores.detach().cpu().double().numpy() if isinstance(scores, Tensor) else np.asarray(scores)


def _log_probabilities(given: Tensor) -> Tensor:
    if float(given.min()) < 0 or float((given.sum(dim=1) - 1).abs().max()) > _SUM_TOLERANCE:
        raise GauntletError(
            "Calibration was told that its outputs are probabilities, but they do not sum to 1 per row."
        )
    return given.clamp(min=_SMALLEST).log()

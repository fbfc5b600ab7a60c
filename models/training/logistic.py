"""`logistic-regression`: the last layer of a probe by a convex problem instead of by epochs."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...datasets import ImageSet
from ...registry import GauntletError, recipe
from .batch import as_images
from .recipe import EpochLog, Recipe

#: L2 penalties of the mean loss that are tried, strongest first.
STRENGTHS = tuple(10.0**power for power in range(2, -7, -1))


@dataclass(frozen=True)
class Fit:
    """A fitted linear classifier of features as they come: logits = features @ weight.T + bias.

    Attributes:
        weight: (K, D).
        bias: (K,).
        strength: The L2 penalty that was chosen.
        val_accuracy: Its accuracy on the validation split.
    """

    weight: NDArray[np.float64]
    bias: NDArray[np.float64]
    strength: float
    val_accuracy: float

    def predict(self, features: NDArray[Any]) -> NDArray[np.int64]:
        """Classes (N,) of features (N, D)."""
        return (features @ self.weight.T + self.bias).argmax(1)


def fit_logistic(
    features: NDArray[Any],
    labels: NDArray[Any],
    val_features: NDArray[Any],
    val_labels: NDArray[Any],
    *,
    classes: int,
    strengths: Sequence[float] = STRENGTHS,
) -> Fit:
    """Multinomial logistic regression (scikit-learn, L-BFGS) on standardised features, L2 chosen on validation.

    The penalty is ``strength / 2 * |W|^2`` beside the mean cross entropy; of equally good ones the strongest wins.

    Args:
        features: (N, D); a feature without variance is left alone.
        labels: (N,) classes below ``classes``, at least two of which occur.
        val_features: (M, D).
        val_labels: (M,).
        classes: Number of classes K.
        strengths: What to choose from.

    Raises:
        GauntletError: There are fewer than two classes, or no validation image.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    present = np.unique(labels)
    if len(present) < 2 or not len(val_labels):
        raise GauntletError("A logistic regression needs training images of two classes, and validation images.")
    mean, std = features.mean(0, dtype=np.float64), features.std(0, dtype=np.float64)
    std = np.where(std < 1e-8, 1.0, std)
    inside = (features - mean) / std
    solver = LogisticRegression(max_iter=500, warm_start=True)  # from strong to weak, each starts where the last ended
    best: Fit | None = None
    for strength in sorted(strengths, reverse=True):
        solver.C = 1 / (strength * len(labels))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a weak penalty on separable features has no end
            solver.fit(inside, labels)
        weight, bias = _every_class(solver.coef_, solver.intercept_, present, classes)
        weight = weight / std
        found = Fit(weight, bias - weight @ mean, strength, 0.0)
        accuracy = float((found.predict(val_features) == val_labels).mean())
        if best is None or accuracy > best.val_accuracy:
            best = Fit(found.weight, found.bias, strength, accuracy)
    assert best is not None
    return best


def _every_class(
    weight: NDArray[Any], bias: NDArray[Any], present: NDArray[Any], classes: int
) -> tuple[NDArray[Any], NDArray[Any]]:
    """One row a class: of two classes scikit-learn keeps one row; classes without images are never predicted."""
    if len(weight) == 1:
        weight, bias = np.concatenate([-weight / 2, weight / 2]), np.concatenate([-bias / 2, bias / 2])
    whole = np.zeros((classes, weight.shape[1]))
    offsets = np.full(classes, -1e6)
    whole[present], offsets[present] = weight, bias
    return whole, offsets


@recipe("logistic-regression", reference="Kornblith, Shlens, Le 2018, arXiv 1805.08974")
class LogisticRegressionRecipe(Recipe):
    """Solves for the last layer ``fc`` of a `linear-probe`, L2 chosen on the validation split; the rest stays.

    Args:
        limit: At most so many training images, the first ones.
    """

    def __init__(self, *, limit: int = 50_000) -> None:
        self.limit = limit

    def train(
        self, module: nn.Module, train: ImageSet, val: ImageSet, *, device: torch.device, **how: Any
    ) -> list[EpochLog]:
        """See :meth:`Recipe.train`. The history is one record: accuracies and the chosen penalty.

        Raises:
            GauntletError: The model is no linear probe.
        """
        encoder, layer = getattr(module, "encoder", None), getattr(module, "fc", None)
        if not isinstance(encoder, nn.Module) or not isinstance(layer, nn.Linear):
            raise GauntletError(
                f"recipe 'logistic-regression' fits the last layer of a 'linear-probe', got {type(module).__name__}."
            )
        train = train.subset(range(min(len(train), self.limit)))
        inside, outside = (_embedded(encoder, images, device) for images in (train, val))
        labels = train.labels.cpu().numpy()
        fit = fit_logistic(inside, labels, outside, val.labels.cpu().numpy(), classes=layer.out_features)
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(fit.weight))
            layer.bias.copy_(torch.from_numpy(fit.bias))
        accuracy = float((fit.predict(inside) == labels).mean())
        return [{"epoch": 1, "accuracy": accuracy, "val_accuracy": fit.val_accuracy, "strength": fit.strength}]


@torch.no_grad()
def _embedded(encoder: nn.Module, images: ImageSet, device: torch.device) -> NDArray[Any]:
    parts: list[Tensor] = [encoder(as_images(x.to(device))).cpu() for x, _, _ in images.batches(512)]
    return torch.cat(parts).double().numpy() if parts else np.empty((0, 1))

"""fDBD: distance to the decision boundaries."""

from __future__ import annotations

import torch
from torch import Tensor

from ..registry import GauntletError, detector
from .base import Detector
from .moments import feature_mean
from .numerics import by_rows, compute_dtype, double, like
from .outputs import Head, Outputs


@detector(
    "fdbd",
    needs=("features", "head", "logits"),
    reference="Liu, Qin 2023, arXiv 2312.11536",
    tags=("post-hoc", "features"),
)
class FDBD(Detector):
    """Negative mean distance to the boundaries with the other classes, in units of the distance to the training mean.

    ``-mean_{c != y} ((l_y - l_c) / |w_y - w_c|) / |z - mean(z)|``. Classes whose weights equal those of the predicted
    one have no boundary with it and count 0, as does a feature that is the training mean.
    """

    _mean: Tensor | None = None  # (D,)
    _inverse: Tensor | None = None  # (C, C): 1 / |w_y - w_c|

    def fit(self, train: Outputs, val: Outputs | None, head: Head | None) -> None:
        """Average training features (N, D).

        Raises:
            GauntletError: There are none, they are not finite, or the head has one class only.
        """
        self._mean = feature_mean(train, self.full_features(train, fitting=True))
        weight = double(self.required(head).weight)
        if len(weight) < 2:
            raise GauntletError(f"Detector {self.name!r} needs at least two classes, got one.")
        apart = torch.cdist(weight, weight, compute_mode="donot_use_mm_for_euclid_dist")
        self._inverse = torch.where(apart > 0, 1 / apart, 0.0)

    def score(self, outputs: Outputs) -> Tensor:
        """Scores of at most 0, shape (N,), float64."""
        inverse = self.fitted(self._inverse)
        features, _, logits = self.pull(outputs)
        mean = like(self.fitted(self._mean), features)
        length = by_rows(lambda part: double(torch.linalg.vector_norm(compute_dtype(part) - mean, dim=1)), features)
        distance = by_rows(lambda part: _distance(double(part), inverse), logits)
        return -torch.where(length > 0, distance / length.masked_fill(length == 0, 1.0), 0.0)


def _distance(logits: Tensor, inverse: Tensor) -> Tensor:
    """Mean distance (N,) to the boundaries with the other classes."""
    top = logits.max(dim=1, keepdim=True)
    return ((top.values - logits) * inverse[top.indices.squeeze(1)]).sum(dim=1) / (len(inverse) - 1)

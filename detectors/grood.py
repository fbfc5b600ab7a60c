"""GROOD: how unlike training images an image pulls at a prototype of what is out of distribution."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..registry import GauntletError, detector
from .base import Detector
from .knn import _kth_nearest
from .moments import feature_mean, mean_row, means_by
from .numerics import by_rows, compute_dtype, double, like
from .outputs import Head, Outputs


@detector(
    "grood",
    needs=("features", "logits", "labels"),
    reference="ElAraby, Sahoo, Pequignot, Novello, Paull 2023, arXiv 2312.14427",
    tags=("post-hoc", "features"),
)
class GROOD(Detector):
    """Distance to the nearest gradient of a correctly classified training image, in the prototype of OOD images.

    The loss is the cross entropy of a classifier by negative distances to the class means and to that prototype, for
    the predicted class; its gradient in the prototype o is ``p_o (z - o) / |z - o|``. This is the code in OpenOOD with
    an exact search, and with the prototype that needs no outliers, the mean of the class means (``use_proto_mean``
    there, where the mean feature of validation outliers is the default).
    """

    _prototypes: Tensor | None = None  # (classes with images + 1, D), the last is that of OOD images
    _gradients: Tensor | None = None  # (N, D)
    _centre: Tensor | None = None  # (D,)

    def fit(self, train: Outputs, val: Outputs | None, head: Head | None) -> None:
        """Average training features (N, D) by their labels, and keep the gradients of those that are classified right.

        Raises:
            GauntletError: No image has a class or is classified correctly, or the features are not finite.
        """
        features, labels = self.labelled(train, "features")
        logits, _ = self.labelled(train, "logits")
        present, index = labels.unique(return_inverse=True)
        means = means_by(index, features, len(present), feature_mean(train, features))
        self._prototypes = torch.cat([means, means.mean(dim=0, keepdim=True)])
        right = logits.argmax(dim=1) == labels
        if not bool(right.any()):
            raise GauntletError(f"Detector {self.name!r} cannot be fitted: no training image is classified correctly.")
        self._gradients = self._pull_of(features[right])
        self._centre = like(mean_row(self._gradients), features)

    def score(self, outputs: Outputs) -> Tensor:
        """Distances, shape (N,), float64."""
        known, prototypes = self.fitted(self._gradients), self.fitted(self._prototypes)
        own = self._pull_of(self.projected_features(outputs, prototypes.shape[1]))
        nearest = _kth_nearest(own.detach(), known, self.fitted(self._centre), 1)
        return by_rows(lambda part, at: torch.linalg.vector_norm(double(part - known[at]), dim=1), own, nearest)

    def _pull_of(self, features: Tensor) -> Tensor:
        """Gradients (N, D) in the prototype of OOD images of features (N, D), in their precision."""
        prototypes = like(self.fitted(self._prototypes), features)

        def pull(part: Tensor) -> Tensor:
            own = compute_dtype(part)
            likely = double(-torch.cdist(own, prototypes)).softmax(dim=1)[:, -1:]
            return likely.to(own.dtype) * F.normalize(own - prototypes[-1], dim=1)

        return by_rows(pull, features)

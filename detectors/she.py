"""SHE: agreement with the stored pattern of the predicted class."""

from __future__ import annotations

import torch
from torch import Tensor

from ..registry import GauntletError, detector
from .base import Detector
from .numerics import by_rows, compute_dtype, double, like, mean_row
from .outputs import Head, Outputs


@detector(
    "she",
    needs=("features", "logits", "labels"),
    reference="Zhang, Fu, Chen, Du, Li, Wang, Liu, Han, Zhang 2023, ICLR, Out-of-distribution detection based on "
    "in-distribution data patterns memorization with modern Hopfield energy",
    tags=("post-hoc", "features"),
)
class SHE(Detector):
    """``-z' S_y``, where S_y is the mean feature of the correctly classified training images of the predicted class.

    Only a class that is predicted needs such images.
    """

    _patterns: Tensor | None = None  # (C, D); NaN where a class has no pattern

    def fit(self, train: Outputs, val: Outputs | None, head: Head | None) -> None:
        """Average features (N, D) by predicted class over the images that the logits (N, C) get right.

        Raises:
            GauntletError: No training image is classified correctly, or the features are not finite.
        """
        features, labels = self.labelled(train, "features")
        logits, _ = self.labelled(train, "logits")
        right = logits.argmax(dim=1) == labels
        if not bool(right.any()):
            raise GauntletError(f"Detector {self.name!r} cannot be fitted: no training image is classified correctly.")
        members = [(right & (labels == label)).nonzero()[:, 0] for label in range(logits.shape[1])]
        absent = double(features[:1]).new_full((features.shape[1],), torch.nan)
        self._patterns = torch.stack([mean_row(features[own]) if len(own) else absent for own in members])

    def score(self, outputs: Outputs) -> Tensor:
        """Negative inner products, shape (N,), float64.

        Raises:
            GauntletError: An image is predicted as a class without a pattern.
        """
        patterns = self.fitted(self._patterns)
        features = self.projected_features(outputs, patterns.shape[1])
        predicted = self.pull(outputs)[1].argmax(dim=1)
        without = predicted[patterns[predicted].isnan().any(dim=1)].unique()
        if len(without):
            raise GauntletError(
                f"Detector {self.name!r} has no pattern for images that are predicted as class {int(without[0])}: no "
                f"training image of class {int(without[0])} is classified correctly."
            )
        near = like(patterns, features)
        return by_rows(lambda part, own: -double((compute_dtype(part) * near[own]).sum(dim=1)), features, predicted)

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
    """``-z' S_y``, where S_y is the mean feature of the correctly classified training images of the predicted class."""

    _patterns: Tensor | None = None  # (C, D)

    def fit(self, train: Outputs, val: Outputs | None, head: Head | None) -> None:
        """Average features (N, D) by predicted class over the images that the logits (N, C) get right.

        Raises:
            GauntletError: A class has no correctly classified training image, or the features are not finite.
        """
        features, labels = self.labelled(train, "features")
        logits, _ = self.labelled(train, "logits")
        right = logits.argmax(dim=1) == labels
        count = torch.bincount(labels[right], minlength=logits.shape[1])
        if bool((count == 0).any()):
            missing = int((count == 0).nonzero()[0])
            raise GauntletError(
                f"Detector {self.name!r} cannot be fitted: no training image of class {missing} is classified "
                "correctly, so that the class has no pattern."
            )
        members = [(right & (labels == label)).nonzero()[:, 0] for label in range(len(count))]
        self._patterns = torch.stack([mean_row(features[own]) for own in members])

    def score(self, outputs: Outputs) -> Tensor:
        """Negative inner products, shape (N,), float64."""
        patterns = self.fitted(self._patterns)
        features = self.projected_features(outputs, patterns.shape[1])
        predicted = self.pull(outputs)[1].argmax(dim=1)
        near = like(patterns, features)
        return by_rows(lambda part, own: -double((compute_dtype(part) * near[own]).sum(dim=1)), features, predicted)

"""DICE: energy through the weights that matter."""

from __future__ import annotations

from torch import Tensor

from ..registry import detector
from .base import Detector
from .energy import energy
from .moments import feature_mean
from .numerics import double
from .outputs import Head, Outputs
from .pruning import check_share, quantile


@detector(
    "dice",
    needs=("features", "head"),
    reference="Sun, Li 2021, arXiv 2111.09805",
    tags=("post-hoc", "features"),
    grid={"dropped": [0.1, 0.3, 0.5, 0.7, 0.9]},
)
class DICE(Detector):
    """Energy of ``(W * M) z + b``; M keeps the weights whose mean contribution ``W_cj mean(z_j)`` is largest.

    The model's own weights are not touched.

    Args:
        dropped: Share of weights that are left out, in [0, 1).
    """

    def __init__(self, dropped: float = 0.9) -> None:
        check_share(dropped, "dice")
        self.dropped = dropped
        self._sparse: Head | None = None

    def fit(self, train: Outputs, val: Outputs | None, head: Head | None) -> None:
        """Choose the weights from training features, shape (N, D).

        Raises:
            GauntletError: There are none, they are not finite, or the model has no head.
        """
        features, head = self.full_features(train, fitting=True), self.required(head)
        weight = double(head.weight)
        contribution = weight * feature_mean(train, features)
        kept = contribution > quantile(contribution, self.dropped)
        self._sparse = Head(weight * kept, head.bias)

    def score(self, outputs: Outputs) -> Tensor:
        """Scores, shape (N,), in the unit of the logits."""
        return energy(self.fitted(self._sparse).logits(self.full_features(outputs)))

    def modify(self, features: Tensor, head: Head) -> tuple[Tensor, Head]:
        """Features (N, D) as they are, and the head without the weights that are left out."""
        return features, self.fitted(self._sparse)

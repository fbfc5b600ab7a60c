"""ReAct: energy with activations cut off at a threshold."""

from __future__ import annotations

from torch import Tensor

from ..registry import detector
from .base import Detector
from .energy import energy
from .numerics import by_rows
from .outputs import Head, Outputs
from .pruning import check_share, quantile


@detector(
    "react",
    needs=("features", "head"),
    reference="Sun, Guo, Li 2021, arXiv 2111.12797",
    tags=("post-hoc", "features"),
    grid={"q": [0.85, 0.9, 0.95, 0.99]},
)
class ReAct(Detector):
    """Energy of ``W min(z, c) + b``; c is one threshold for all units, a quantile of the validation activations.

    Args:
        q: The quantile, in [0, 1).
    """

    needs_val = True

    def __init__(self, q: float = 0.9) -> None:
        check_share(q, "react")
        self.q = q
        self._threshold: float | None = None

    def fit(self, train: Outputs, val: Outputs | None, head: Head | None) -> None:
        """Find the threshold in validation features, shape (N, D).

        Raises:
            GauntletError: There are none, or they are not finite.
        """
        self._threshold = quantile(self.full_features(self.validation(val), fitting=True), self.q)

    def score(self, outputs: Outputs) -> Tensor:
        """Scores, shape (N,), in the unit of the logits."""
        features, head = self.pull(outputs)
        return energy(by_rows(lambda part: head.logits(self.modify(part, head)[0]), features))

    def modify(self, features: Tensor, head: Head) -> tuple[Tensor, Head]:
        """Features (N, D) cut off at the threshold, and the head as it is."""
        return features.clamp(max=self.fitted(self._threshold)), head

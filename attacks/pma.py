"""PMA: Auto-PGD on the margin of probabilities."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from .apgd import APGDCE
from .apgd_state import APGDState
from .budget import SearchBatch
from .losses import probability_margin
from .native import native


@native("pma", "linf", "l2", "l1", reference="Xie et al. 2024, arXiv 2411.15210", cost="standard")
class PMA(APGDCE):
    """Auto-PGD on the largest wrong probability minus the right one.

    Xie, Zheng, Huang, Ye, Ma 2024, arXiv 2411.15210: the loss of the paper (also ``loss: probability-margin`` of
    ``pgd``), climbed by Auto-PGD as it is here; the authors' own schedule of steps was not at hand. Parameters as in
    ``apgd-ce``.
    """

    def loss(self, batch: SearchBatch, state: APGDState) -> Callable[[Tensor, Tensor], Tensor]:
        """The margin of probabilities."""
        return probability_margin

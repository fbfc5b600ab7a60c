"""RankFeat: energy without the strongest pattern of the last feature map."""

from __future__ import annotations

from torch import Tensor

from ..registry import detector
from .energy import energy


@detector(
    "rankfeat",
    needs="deflated-logits",
    reference="Song, Sebe, Wang 2022, arXiv 2209.08590",
    tags=("post-hoc", "feature-maps"),
)
def rankfeat(logits: Tensor) -> Tensor:
    """Energy of the logits that remain when the last feature map loses its largest singular component.

    Args:
        logits: Shape (N, C), of each image's last map X (channels x pixels) replaced by ``X - s1 u1 v1'``.

    Returns:
        Scores, shape (N,), in the unit of the logits.
    """
    return energy(logits)

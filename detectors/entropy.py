"""Entropy of the softmax distribution."""

from __future__ import annotations

from torch import Tensor

from ..registry import detector
from .numerics import double


@detector(
    "entropy",
    reference="Chan, Rottmann, Gottschalk 2021, arXiv 2012.06575",
    tags=("post-hoc", "logits"),
)
def entropy(logits: Tensor) -> Tensor:
    """Entropy of the softmax distribution, ``-sum_c p_c log p_c``, in nats.

    Args:
        logits: Shape (N, C).

    Returns:
        Scores in [0, log C], shape (N,).
    """
    log_p = double(logits).log_softmax(dim=1)
    return -(log_p.exp() * log_p).sum(dim=1)

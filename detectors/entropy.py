"""Entropy of the softmax distribution."""

from __future__ import annotations

from torch import Tensor

from ..registry import detector
from .numerics import by_rows, double
from .probabilities import below_top


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
    return by_rows(_entropy, logits)


def _entropy(logits: Tensor) -> Tensor:
    _, below = below_top(logits, double)
    weights = below.exp()
    total = weights.sum(dim=0)
    return total.log() - (weights * below).sum(dim=0) / total

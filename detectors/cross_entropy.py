"""Cross entropy to the uniform distribution."""

from __future__ import annotations

from torch import Tensor

from ..registry import detector
from .numerics import double
from .probabilities import log_sum_exp


@detector(
    "cross-entropy",
    reference="Hendrycks, Mazeika, Dietterich 2018, arXiv 1812.04606",
    tags=("post-hoc", "logits"),
)
def cross_entropy(logits: Tensor) -> Tensor:
    """Negative cross entropy from the uniform distribution, ``mean_c l_c - logsumexp(l)``.

    Outlier exposure trains outliers towards the uniform prediction, which has the largest score.

    Args:
        logits: Shape (N, C).

    Returns:
        Scores of at most -log C, shape (N,), in nats.
    """
    return double(logits).mean(dim=1) - log_sum_exp(logits)

"""DOCTOR: the odds that a prediction drawn from the softmax is wrong."""

from __future__ import annotations

from torch import Tensor

from ..registry import detector
from .probabilities import log_probabilities


@detector(
    "doctor",
    reference="Granese, Romanelli, Gorla, Palamidessi, Piantanida 2021, arXiv 2106.02395",
    tags=("post-hoc", "logits"),
)
def doctor(logits: Tensor) -> Tensor:
    """Odds of a wrong guess, ``(1 - sum_c p_c^2) / sum_c p_c^2`` (the paper's D-alpha).

    Args:
        logits: Shape (N, C).

    Returns:
        Scores in [0, C - 1], shape (N,).
    """
    log_p, log_rest = log_probabilities(logits)
    return (log_p + log_rest).exp().sum(dim=1) / (2 * log_p).exp().sum(dim=1)

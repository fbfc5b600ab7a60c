"""Generalised entropy."""

from __future__ import annotations

from torch import Tensor

from ..registry import GauntletError, detector
from .probabilities import log_probabilities


@detector(
    "gen",
    reference="Liu, Lochman, Zach 2023, CVPR, GEN: pushing the limits of softmax-based OOD detection",
    tags=("post-hoc", "logits"),
    grid={"gamma": [0.01, 0.1, 0.5, 1.0], "top": [10, 100]},
)
def gen(logits: Tensor, *, gamma: float = 0.1, top: int = 100) -> Tensor:
    """Generalised entropy of the largest probabilities, ``sum_{top-M} p^gamma (1 - p)^gamma``.

    Args:
        logits: Shape (N, C).
        gamma: Above 0; the smaller, the more the rare classes weigh.
        top: M; all classes where there are fewer.

    Returns:
        Scores of at least 0, shape (N,).

    Raises:
        GauntletError: ``gamma`` or ``top`` is not above 0.
    """
    if gamma <= 0 or top < 1:
        raise GauntletError(f"Detector 'gen' needs gamma above 0 and top of at least 1, got {gamma} and {top}.")
    log_p, log_rest = log_probabilities(logits)
    both = log_p + log_rest
    if top < log_p.shape[1]:
        both = both.gather(1, log_p.topk(top, dim=1).indices)
    return (gamma * both).exp().sum(dim=1)

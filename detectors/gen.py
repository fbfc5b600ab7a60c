"""Generalised entropy."""

from __future__ import annotations

import torch
from torch import Tensor

from ..registry import GauntletError, detector
from .numerics import compute_dtype, double
from .probabilities import log_of_sum


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
        Scores of at least 0, shape (N,), within 1e-5 of their size for float32 logits within 100 of each other.

    Raises:
        GauntletError: ``gamma`` or ``top`` is not above 0.
    """
    if gamma <= 0 or top < 1:
        raise GauntletError(f"Detector 'gen' needs gamma above 0 and top of at least 1, got {gamma} and {top}.")
    # Probabilities as shares of the largest, and the sum as a multiple of the largest one's term, (p (1 - p))^gamma:
    # 1 - p is exact where p rounds to 1, and only the factor can underflow, which is in float64.
    by_class = compute_dtype(logits.T.contiguous())
    largest = by_class.max(dim=0, keepdim=True)
    logs = (by_class - largest.values).scatter(0, largest.indices, -torch.inf)
    weights = logs.exp()
    log_rest = log_of_sum(logs, weights).clamp(min=torch.finfo(logs.dtype).min)  # of one class there is none
    total = 1 + log_rest.exp()
    if top < len(logs):
        logs = logs.topk(top - 1, dim=0).values
        weights = logs.exp()
    others = (gamma * (logs - log_rest + (total - weights).log())).exp().sum(dim=0)
    return (1 + double(others)) * (gamma * double(log_rest[0] - 2 * total[0].log())).exp()

"""Softmax probabilities and their complements without cancellation."""

from __future__ import annotations

import torch
from torch import Tensor

from .numerics import double


def log_probabilities(logits: Tensor) -> tuple[Tensor, Tensor]:
    """``log p`` and ``log (1 - p)``, each of shape (N, C), in float64.

    The complement of the largest probability is summed from the others, so that it stays exact where the probability
    rounds to 1; every other probability is at most 1/2.
    """
    log_p = double(logits).log_softmax(dim=1)
    top = log_p.argmax(dim=1, keepdim=True)
    others = log_p.scatter(1, top, -torch.inf).logsumexp(dim=1, keepdim=True)
    # The top is moved out of reach first: log1p(-1) would give its gradient a NaN.
    complement = (-log_p.exp().scatter(1, top, 0.0)).log1p()
    return log_p, complement.scatter(1, top, others)

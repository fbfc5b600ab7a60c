"""Softmax probabilities, their complements and the free energy without cancellation.

Numbers lie class after class in here, not image after image: sums over few classes then run along memory.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .numerics import by_rows, double


def log_probabilities(logits: Tensor) -> tuple[Tensor, Tensor]:
    """``log p`` and ``log (1 - p)``, each of shape (N, C), in float64.

    The complement of the largest probability is summed from the others, so that it stays exact where the probability
    rounds to 1; every other probability is at most 1/2.
    """
    by_class = double(logits).T.contiguous()
    top = by_class.argmax(dim=0, keepdim=True)
    relative = by_class - by_class.gather(0, top)
    others = relative.scatter(0, top, -torch.inf).logsumexp(dim=0, keepdim=True)
    log_total = others.exp().log1p()
    log_p = relative - log_total
    # The top is moved out of reach first: log1p(-1) would give its gradient a NaN.
    complement = (-log_p.exp().scatter(0, top, 0.0)).log1p()
    return log_p.T, complement.scatter(0, top, others - log_total).T


def log_sum_exp(logits: Tensor) -> Tensor:
    """``log sum_c exp(l_c)`` of logits (N, C), shape (N,), in float64."""
    return by_rows(_log_sum_exp, logits)


def _log_sum_exp(logits: Tensor) -> Tensor:
    by_class = double(logits.T.contiguous())
    top = by_class.detach().amax(dim=0)
    return top + (by_class - top).exp().sum(dim=0).log()

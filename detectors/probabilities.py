"""Softmax probabilities, their complements and the free energy without cancellation.

Numbers lie class after class in here, not image after image: sums over few classes then run along memory.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .numerics import by_rows, compute_dtype, double


def log_probabilities(logits: Tensor) -> tuple[Tensor, Tensor]:
    """``log p`` and ``log (1 - p)``, each of shape (N, C), in float64.

    The complement of the largest probability is summed from the others, so that it stays exact where the probability
    rounds to 1; every other probability is at most 1/2.
    """
    by_class = double(logits.T.contiguous())
    top = by_class.argmax(dim=0, keepdim=True)
    relative = by_class - by_class.gather(0, top)
    weights = relative.exp()
    log_others = log_of_sum(relative.scatter(0, top, -torch.inf), weights.scatter(0, top, 0.0))
    log_total = log_others.exp().log1p()
    # Of all but the top, 1 - p is at least 1/2; the top is moved out of reach, whose rest may be 0.
    rest = (log_total.exp() - weights).scatter(0, top, 1.0)
    return (relative - log_total).T, (rest.log().scatter(0, top, log_others) - log_total).T


def log_of_sum(logs: Tensor, values: Tensor) -> Tensor:
    """Log of the sum over classes (C, N) of ``values = exp(logs)``, also where that underflows; shape (1, N)."""
    total = values.sum(dim=0, keepdim=True)
    if bool((total < torch.finfo(total.dtype).tiny).any()):
        return logs.logsumexp(dim=0, keepdim=True)
    return total.log()


def log_sum_exp(logits: Tensor) -> Tensor:
    """``log sum_c exp(l_c)`` of logits (N, C), shape (N,), in float64.

    What is below the largest logit is summed in the precision of the logits, which costs float32 logits less than 1e-6.
    """
    return by_rows(_log_sum_exp, logits)


def _log_sum_exp(logits: Tensor) -> Tensor:
    top, below = below_top(logits, compute_dtype)
    return double(top) + double(below.exp().sum(dim=0)).log()


def below_top(logits: Tensor, precision: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """The largest of the logits (N, C), shape (N,), and how far each class is from it, (C, N), at most 0.

    ``precision`` is :func:`double` or :func:`compute_dtype`.
    """
    by_class = precision(logits.T.clone(memory_format=torch.contiguous_format))
    top = by_class.detach().amax(dim=0)
    # Finite for a masked class too, whose logit is minus infinity: its weight is 0, and 0 times infinity no number.
    return top, by_class.sub_(top).clamp_(min=torch.finfo(by_class.dtype).min)
